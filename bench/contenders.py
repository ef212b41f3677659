"""Who is timed: each contender takes a network and rows and gives back a call without arguments."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

import jaxneuron

Call = Callable[[], Array]
JAX_NN = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu, "identity": lambda z: z}


def direct(mlp: jaxneuron.MLP, x: Array) -> Call:
    """`mlp_forward`, called as it is."""
    return lambda: jaxneuron.mlp_forward(mlp, x)


def inside_jit(mlp: jaxneuron.MLP, x: Array) -> Call:
    """`mlp_forward` in the user's own jit."""
    jitted = jax.jit(jaxneuron.mlp_forward)
    return lambda: jitted(mlp, x)


def textbook(mlp: jaxneuron.MLP, x: Array) -> Call:
    """What one writes by hand: the loop over a flat list of arrays."""
    arrays = [array for layer in mlp.layers for array in layer]
    activations = [JAX_NN[name] for name in mlp.activations]

    @jax.jit
    def forward(arrays: list[Array], x: Array) -> Array:
        for w, b, activation in zip(arrays[::2], arrays[1::2], activations, strict=True):
            x = activation(x @ w + b)
        return x

    return lambda: forward(arrays, x)


CONTENDERS = {"mlp_forward": direct, "jit(mlp_forward)": inside_jit, "textbook": textbook}
