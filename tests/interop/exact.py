"""Assertions that an imported network is exact: its numbers bit for bit, and its outputs within the bound."""

import jax
import numpy as np

from jaxneuron import MLP, Affine, init_mlp, mlp_forward
from jaxneuron._math import oracle
from jaxneuron._math.activations import OF_ROWS, facts_of
from jaxneuron.testing._laws import _assert_within


def assert_bits(mlp, *arrays):
    """Asserts that the leaves of `mlp` are these arrays, bit for bit."""
    leaves = jax.tree.leaves(mlp)
    assert len(leaves) == len(arrays)
    for leaf, array in zip(leaves, arrays, strict=True):
        leaf, array = np.asarray(leaf), np.asarray(array)
        assert (leaf.dtype, leaf.shape) == (array.dtype, array.shape)
        assert leaf.tobytes() == np.ascontiguousarray(array).tobytes()


def assert_outputs(mlp, x, y64, *, folded=False):
    """Asserts that the outputs of `mlp`, in its dtype and in float64, are near the source's float64 outputs.

    The bound is (n_in + 2) u for a layer. A folded scaling rounds each number of its layer once more, which
    adds u (|x| @ |w| + |b|). In float64 the folding also sums n_in products, and the source sums its own.
    """
    y64, x = np.asarray(y64), np.asarray(x)
    assert y64.dtype == np.float64
    dtype = np.asarray(jax.tree.leaves(mlp)[0]).dtype.name
    bounds = {
        each: oracle.mlp(mlp.layers, mlp.activations, x, each) for each in dict.fromkeys((dtype, "float64"))
    }
    rounded_weights = bounds[dtype][1] / (min(len(layer.w) for layer in mlp.layers) + 2) if folded else 0.0
    for each, (exact, error) in bounds.items():
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a, each=each: np.asarray(a).astype(each), mlp)
            found = np.asarray(mlp_forward(wide, x.astype(each)))
        assert found.dtype == each
        _assert_within(found, exact, error, float(np.finfo(each).max))
        _assert_within(
            found, y64, error + 3 * bounds["float64"][1] + rounded_weights, float(np.finfo(each).max)
        )


def trained(loss, params, steps=30, rate=0.1):
    """`params` after a few steps of gradient descent, so that they differ from an initialisation."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        step = jax.jit(lambda p: jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p)))
        for _ in range(steps):
            params = step(params)
    return params


def network(name="tanh", sizes=(4, 6, 6, 2)):
    """A network with this activation in every layer that can have it, and with one layer without a bias."""
    mlp = init_mlp(
        jax.random.key(0),
        sizes,
        activation="relu" if name in OF_ROWS or facts_of(name).slope == np.inf else name,
        final_activation=name,
    )
    return MLP((mlp.layers[0], Affine(mlp.layers[1].w), *mlp.layers[2:]), mlp.activation, name)


ROWS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
TARGETS = np.sin(3 * ROWS[:, :1]) * ROWS[:, 1:3]  # (64, 2)
X = ROWS[:3]
