"""Random numbers for tests. A test gets the same numbers, whichever tests ran before it."""

import numpy as np

_GENERATORS = []


def generator():
    """Returns a random generator for a module of tests. It is reset before each test."""
    made = np.random.default_rng(0)
    _GENERATORS.append((made, made.bit_generator.state))
    return made


def reset():
    for made, start in _GENERATORS:
        made.bit_generator.state = start
