"""Activations as other libraries have them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxneuron._names import BY_NAME
from jaxneuron.convert._activations import ELU, LeakyReLU, known


def test_jax_functions_have_names():
    for function, name in (
        (jax.nn.relu, "relu"),
        (jnp.tanh, "tanh"),
        (jax.nn.gelu, "gelu_tanh"),
        (jax.nn.swish, "silu"),
    ):
        assert known(function) == name
    partial = jax.tree_util.Partial
    assert known(functools.partial(jax.nn.gelu, approximate=False)) == "gelu"
    assert known(functools.partial(jax.nn.leaky_relu, negative_slope=0.2)) == LeakyReLU(0.2)
    assert known(functools.partial(jax.nn.elu, alpha=1.0)) == "elu"
    assert known(jnp.sin) is jnp.sin
    assert known(partial(jax.nn.gelu, approximate=True)).func is jax.nn.gelu


def test_names_differ_from_ours_only_by_underscores():
    ours = {name.replace("_", "") for name in BY_NAME}
    for theirs in dir(jax.nn):
        if theirs.replace("_", "") in ours:
            assert known(getattr(jax.nn, theirs)) in BY_NAME, theirs


@given(st.floats(-30, 30, width=32), st.sampled_from([0.25, 1.5]))
def test_families_are_their_formulas(z, parameter):
    z32 = np.float32(z)
    leaky = z if z >= 0 else np.float32(parameter) * z
    elu = 3 * (z if z > 0 else parameter * np.expm1(z))
    for found, exact in ((LeakyReLU(parameter)(z32), leaky), (ELU(parameter, 3.0)(z32), elu)):
        assert abs(float(found) - float(exact)) <= 16 * 2**-24 * abs(float(exact)) + 2**-126
    assert hash(ELU(parameter)) == hash(ELU(parameter)) != hash(ELU(2 * parameter))
