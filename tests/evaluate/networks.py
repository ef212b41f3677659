"""Networks and rows for the tests of `Evaluator`."""

import functools
import itertools

import jax
import numpy as np
import pytest

from jaxneuron import MLP
from jaxneuron._kernels import library

needs_the_kernel = pytest.mark.skipif(library.missing() is not None, reason=str(library.missing()))


@functools.cache
def network(sizes=(3, 17, 2), dtype="float32", activation="tanh", members=0, final_activation="softmax"):
    """Returns a network of NumPy arrays or, if `members` is not 0, a stack of that many networks."""
    rng = np.random.default_rng(0)
    many = (members,) if members else ()
    layers = [
        (
            (rng.normal(size=(*many, m, n)) / np.sqrt(m or 1)).astype(dtype),
            rng.normal(size=(*many, n)).astype(dtype),
        )
        for m, n in itertools.pairwise(sizes)
    ]
    one = MLP([(w[0], b[0]) if members else (w, b) for w, b in layers], activation, final_activation)
    return jax.tree.unflatten(jax.tree.structure(one), jax.tree.leaves(layers))


def numbers(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_same(found, expected):
    """Asserts that an array has the expected bits (any NaN equals any other) and can be written to."""
    expected = np.asarray(expected)
    assert type(found) is np.ndarray
    assert found.flags.writeable
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    unsigned = f"u{found.dtype.itemsize}"
    other = found.view(unsigned) != expected.view(unsigned)
    assert not (other & ~(np.isnan(found) & np.isnan(expected))).any()
