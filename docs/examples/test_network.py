"""Property tests of network.py, by jaxneuron.testing: `python -m pytest test_network.py`."""

import jax
from hypothesis import given, settings
from network import forward, sigmoid

from jaxneuron.testing import (
    assert_bounded,
    assert_jit_consistent,
    assert_monotone,
    assert_odd_about,
    assert_rows_independent,
    assert_vmap_consistent,
    assert_within_error_bound,
    mlps,
    params_and_inputs,
    profile,
)

settings.register_profile("jax", profile(max_examples=100))
settings.load_profile("jax")

# Square networks and uneven ones; the architecture and its activations are what `forward` computes.
networks = mlps(
    sizes=[(2, 1), (2, 2), (3, 3, 3), (2, 3, 2)],
    activations=["sigmoid"],
    final_activations=["softmax"],
    bias=True,
    dtypes="float32",
)
batches = params_and_inputs(networks, batch=[(3,)])


def pairs(mlp):
    return [tuple(layer) for layer in mlp.layers]


def test_sigmoid():
    assert_bounded(sigmoid, 0, 1)
    assert_monotone(sigmoid)
    assert_odd_about(sigmoid, 0.5, ulps=3)


@given(batches)
def test_outputs_are_right(mlp_and_x):
    mlp, x = mlp_and_x
    assert_within_error_bound(mlp, x, forward(pairs(mlp), x))


@given(batches)
def test_rows_keep_apart(mlp_and_x):
    mlp, x = mlp_and_x
    assert_rows_independent(lambda rows: forward(pairs(mlp), rows), x)


@given(batches)
def test_vmap_and_jit_change_nothing(mlp_and_x):
    mlp, x = mlp_and_x
    assert_vmap_consistent(forward, pairs(mlp), x)
    assert_jit_consistent(forward, jax.tree.map(jax.numpy.asarray, pairs(mlp)), x)
