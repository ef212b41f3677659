"""Networks assembled from steps: layers, scalings and activations."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxneuron import Affine, mlp_forward
from jaxneuron._math import oracle
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import assemble
from jaxneuron.testing._laws import _assert_within
from tests.convert.networks import RNG, normal, run

SCALINGS = st.builds(
    Scaling,
    *(st.sampled_from([low, np.array([low, high])]) for low, high in ((0.0, 1.5), (1.0, -0.25), (0.0, 2.0))),
)
STEPS = st.lists(
    st.one_of(
        SCALINGS,
        st.sampled_from(["tanh", "relu", "identity", "sigmoid"]),
        st.builds(
            lambda seed, bias: Affine(
                *np.split(np.random.default_rng(seed).normal(size=(3, 2)), [2])[: 1 + bias]
            ),
            st.integers(0, 9),
            st.booleans(),
        ).map(lambda layer: Affine(layer.w, None if layer.b is None else layer.b[0])),
    ),
    max_size=7,
)


@given(STEPS)
def test_a_network_computes_what_its_steps_compute(steps):
    x = normal(3, 2)
    mlp = assemble(steps, "source", n_in=2)
    assert all(
        leaf.dtype == (np.float64 if any(isinstance(s, Affine) for s in steps) else np.float32)
        for leaf in jax.tree.leaves(mlp)
    )
    with jax.enable_x64(True):
        found = np.asarray(
            mlp_forward(assemble(steps, "source", n_in=2, dtype="float64"), x.astype(np.float64))
        )
    truth, size = run(steps, x)
    # Roundings of a step: at most 8 to fold it, 2 to sum its inputs, 4 to apply it, and 16 for its activation.
    _assert_within(found, truth, 30 * (len(steps) + 1) * oracle.U["float64"] * size, np.inf)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_are_copied_from_the_source(dtype):
    w, b = np.ones((64, 64), dtype), np.ones(64, dtype)
    layer = assemble([Affine(w.T, b)], "source").layers[0]
    w += 1
    b += 1
    assert (np.asarray(layer.w) == 1).all()
    assert (np.asarray(layer.b) == 1).all()


def test_folded_scalings_are_rounded_once():
    w, b = normal(3, 2), normal(2)
    one, two = Scaling(scale=np.float64(1) / 3), Scaling(mean=-0.1, scale=7.0)
    folded = assemble([Affine(w, b), one, two], "source").layers[0]
    w64, b64 = w.astype(np.float64), b.astype(np.float64)
    assert np.array_equal(folded.w, (w64 * (one.scale * 7.0)).astype(np.float32))
    assert np.array_equal(folded.b, (b64 * (one.scale * 7.0) + 0.1 * 7.0).astype(np.float32))


def test_scalings_are_folded_into_neighbouring_layers():
    steps = [
        Scaling(1.0, 2.0),
        Affine(normal(2, 2), None),
        Scaling(2.0),
        "tanh",
        Scaling(scale=3.0),
        Affine(normal(2, 1)),
    ]
    mlp = assemble(steps, "source")
    assert [layer.w.shape for layer in mlp.layers] == [(2, 2), (2, 1)]
    assert mlp.activations == ("tanh", "identity")
    assert mlp.layers[1].b is None  # because no step shifts


def test_steps_without_a_layer_get_an_identity_layer():
    mlp = assemble(["relu", Affine(normal(2, 3)), "tanh", "elu", Scaling(0.0, 2.0, 1.0)], "source")
    assert mlp.activations == ("relu", "tanh", "elu", "identity")
    assert [layer.w.shape for layer in mlp.layers] == [(2, 2), (2, 3), (3, 3), (3, 3)]
    assert np.array_equal(mlp.layers[3].w, 2 * np.eye(3))
    assert mlp.layers[3].b.tolist() == [1, 1, 1]
    assert assemble([], "source", n_in=2, like="float16").layers[0].w.dtype == np.float16


@pytest.mark.parametrize(("mean", "layers"), [(16.0, 1), (16.1, 2), (-1e6, 2)])
def test_a_mean_of_more_than_16_deviations_gets_its_own_layer(mean, layers):
    w, b, std = normal(2, 3), normal(3), np.float64(0.5)
    mlp = assemble([Scaling(mean * std, 1 / std), Affine(w, b), "tanh"], "source")
    assert len(mlp.layers) == layers
    x = np.float32(mean * std + std * RNG.normal(size=(9, 2)))
    truth = np.tanh((x.astype(np.float64) - mean * std) / std @ w.astype(np.float64) + b)
    if layers == 2:  # only the mean is rounded: as exact as with numbers of ordinary size
        lost = abs(np.float32(mean * std) - mean * std) / std * np.abs(w).sum(0)
        _, error = oracle.mlp([(w / np.float32(std), b)], ["tanh"], x - np.float32(mean * std), "float32")
        assert (np.abs(np.asarray(mlp_forward(mlp, x)) - truth) <= error * 4 / 3 + lost).all()


def test_dtype_is_applied_after_folding():
    folded = assemble([Affine(np.float32([[1.0]])), Scaling(scale=1 / 3)], "source", dtype="float64")
    assert float(folded.layers[0].w[0, 0]) == 1 / 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: assemble([Affine(normal(2, 2)), Scaling(np.ones(3))], "source"), ValueError, "source: step 1: mean must have shape (2,) or be one number, got (3,)"),
        (lambda: assemble(["tanh", Affine(np.ones((3000, 1)))], "source"), ValueError, "source: a step on 3000 units that no layer can absorb needs 3000 x 3000 weights of its own, at most 2048 x 2048 are made; convert the part without it"),
        (lambda: assemble([Affine(np.ones((0, 10**12))), Scaling(2.0)], "source"), ValueError, "source: layer 0: w must hold numbers, got none in (0, 1000000000000)"),
        (lambda: assemble([Scaling(np.ones(3)), Scaling(np.ones(2))], "source"), ValueError, "source: step 1: mean must have shape (3,) or be one number, got (2,)"),
        (lambda: assemble([Affine(normal(2, 2)), Units(np.array([0, 2]))], "source"), ValueError, "source: a choice of units must be among 2, got [0 2]; convert the part without it"),
        (lambda: assemble([Units(np.array([0]), 3), Affine(normal(2, 2))], "source"), ValueError, "source: a choice of inputs must give the next layer its 2, got 1; convert"),
        (lambda: assemble(["softmax", Affine(normal(2, 2))], "source"), ValueError, "source: softmax must come last"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
