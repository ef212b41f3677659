"""Random numbers for tests: a test gets the same ones whichever tests ran before it."""

import numpy as np

_MADE = []


def generator():
    """A random generator for a module of tests, which is reset before each test."""
    made = np.random.default_rng(0)
    _MADE.append((made, made.bit_generator.state))
    return made


def begin_anew():
    for made, start in _MADE:
        made.bit_generator.state = start
