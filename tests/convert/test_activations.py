"""JAX's functions as activations of jaxneuron."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron import CELU, LeakyReLU, Sin
from jaxneuron._names import BY_NAME
from jaxneuron.convert._activations import known


def test_jax_functions_are_read_as_activations():
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
    assert known(functools.partial(jax.nn.celu, alpha=0.5)) == CELU(0.5)
    assert known(functools.partial(jnp.clip, min=0, max=6)) == "relu6"
    assert known(jax.nn.celu) == known(CELU(1)) == "elu"
    assert known(jnp.sin) == known(Sin(1)) == "sin"
    assert known(jnp.cos) is jnp.cos
    array = functools.partial(jax.nn.leaky_relu, negative_slope=np.ones(3))  # a slope for each unit
    assert known(array) is array
    assert known(partial(jax.nn.gelu, approximate=True)).func is jax.nn.gelu


def test_every_jax_function_with_our_name_is_known():
    ours = {name.replace("_", "") for name in BY_NAME}
    for theirs in dir(jax.nn):
        if theirs.replace("_", "") in ours:
            assert known(getattr(jax.nn, theirs)) in BY_NAME, theirs
