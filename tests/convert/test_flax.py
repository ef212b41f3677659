"""Flax's parameters, tested without Flax; tests/interop/test_flax.py tests them with it."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given

from jaxneuron import gates, mlp_forward
from jaxneuron.convert import from_flax, to_flax_params
from tests.convert.networks import RELU, bits, dense, normal
from tests.pools import mlps


@pytest.mark.filterwarnings("ignore:.* chain in another order too:UserWarning")  # square layers
@given(mlps(activations=["tanh", "relu"], nan=False))
def test_weights_come_back_bit_for_bit(mlp):
    assert bits(from_flax(to_flax_params(mlp), activation="relu", final_activation="relu")) == bits(mlp)


def test_from_flax_works_inside_jit():
    params = {"params": {"Dense_0": dense(2, 3), "Dense_1": dense(3, 1)}}
    f = jax.jit(lambda p, x: mlp_forward(from_flax(p, **RELU), x))
    x = normal(5, 2)
    np.testing.assert_allclose(f(params, x), mlp_forward(from_flax(params, **RELU), x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_flax([1], **RELU), TypeError, "from_flax: params must be a mapping, got list; pass nested dicts"),
        (lambda: to_flax_params(gates.AND), TypeError, "to_flax_params: mlp must be an MLP, got Affine; pass MLP([layer]) for a layer"),
        (lambda: to_flax_params(jax.tree.map(lambda a: np.stack([a, a]), gates.XOR)), ValueError, "to_flax_params: mlp must be one network, got a stack of 2 networks; pass a member, such as the first, jax.tree.map(lambda a: a[0], mlp)"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
