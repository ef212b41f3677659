"""Random numbers for tests. A test gets the same numbers, whichever tests ran before it."""

import numpy as np

_MADE = []


def generator():
    """Returns a random generator for a module of tests. It is reset before each test."""
    made = np.random.default_rng(0)
    _MADE.append((made, made.bit_generator.state))
    return made


def begin_anew():
    for made, start in _MADE:
        made.bit_generator.state = start
