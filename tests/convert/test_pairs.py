"""Networks from pairs of arrays."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxneuron.convert import from_pairs
from tests.convert.networks import RELU, bits
from tests.pools import mlps


@given(mlps(activations=["tanh", "relu"], nan=False))
def test_weights_pass_bit_for_bit(mlp):
    for orientation in ("in_out", "out_in"):
        pairs = [(np.asarray(w).T if orientation == "out_in" else w, b) for w, b in mlp.layers]
        again = from_pairs(
            pairs, orientation=orientation, activation=mlp.activation, final_activation=mlp.final_activation
        )
        assert bits(again) == bits(mlp)
        assert again.activations == mlp.activations


def test_dtype_converts_and_rounds_once():
    w = np.array([[1 + 2**-8 + 2**-30]])  # just above a tie of bfloat16; in float32 it is the tie
    mlp = from_pairs([(w, [0.1])], orientation="in_out", dtype="bfloat16", **RELU)
    assert mlp.layers[0].w.dtype == mlp.layers[0].b.dtype == jnp.bfloat16
    assert float(mlp.layers[0].w[0, 0]) == 1 + 2**-7


def test_check_finds_a_wrong_orientation_or_activation():
    (w0, w1), x = np.random.default_rng(0).normal(size=(2, 3, 3)), np.ones((2, 3))
    given = {"orientation": "in_out", "activation": "tanh", "final_activation": "identity"}
    check = x, np.tanh(x @ w0) @ w1
    assert from_pairs([(w0, None), (w1, None)], check=check, **given)
    for wrong in ({"orientation": "out_in"}, {"activation": "relu"}, {"final_activation": "tanh"}):
        with pytest.raises(
            ValueError, match=r"^from_pairs: check must hold what the network gives, got outputs"
        ):
            from_pairs([(w0, None), (w1, None)], check=check, **{**given, **wrong})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_pairs([(np.ones((2, 2)), None)], orientation="rows", **RELU), ValueError, "from_pairs: orientation must be 'in_out' for w (n_in, n_out) or 'out_in' for w (n_out, n_in), got 'rows'"),
        (lambda: from_pairs([np.ones((2, 2))], orientation="in_out", **RELU), TypeError, "from_pairs: pairs: layer 0 must be a (w, b) pair, got ndarray; pass b=None for no bias"),
        (lambda: from_pairs(None, orientation="in_out", **RELU), TypeError, "from_pairs: pairs must be a sequence of (w, b) pairs, got NoneType; pass a list"),
        (lambda: from_pairs([], orientation="in_out", **RELU), ValueError, "from_pairs: pairs: the number of inputs must be known where no layer tells it"),
        (lambda: from_pairs([(np.ones((2, 2)), np.ones(3))], orientation="in_out", **RELU), ValueError, "from_pairs: pairs: layer 0: b must have shape (2,)"),
        (lambda: from_pairs([(np.ones((2, 2)), None)], orientation="in_out", dtype="int8", **RELU), TypeError, "from_pairs: dtype must be one of bfloat16, float16, float32, float64, got int8"),
        (lambda: from_pairs([(np.full((1, 1), 1e30), None)], orientation="in_out", dtype="float16", **RELU), ValueError, "from_pairs: pairs: layer 0: w must fit in float16, got 1e+30; convert to a wider dtype"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
