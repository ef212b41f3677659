"""Random numbers for tests: the same for a test, whichever others ran before it in its process."""

import numpy as np

_MADE = []


def generator():
    """A generator for a module of tests, which begins anew before each of them."""
    made = np.random.default_rng(0)
    _MADE.append((made, made.bit_generator.state))
    return made


def begin_anew():
    for made, start in _MADE:
        made.bit_generator.state = start
