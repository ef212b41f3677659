"""Activations as other libraries have them: JAX's functions, and families with a parameter.

A name, underscores aside, means the same function in JAX as here, unless `JAX_FUNCTIONS` lists a difference.
A parameter that only scales one of the named activations is written as a `Scaling` and folded into the layers
beside it; the families `LeakyReLU` and `ELU` can't be, and are callables that compare by their parameters.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._math.formats import LEAKY_SLOPE
from jaxneuron._names import BY_NAME, Activation

SAME = {name.replace("_", ""): name for name in BY_NAME}  # ours, by the name without underscores
JAX_FUNCTIONS: dict[Any, str] = {
    **{
        getattr(jax.nn, theirs): SAME[theirs.replace("_", "")]
        for theirs in dir(jax.nn)
        if theirs.replace("_", "") in SAME
    },
    jax.nn.gelu: "gelu_tanh",  # by default, approximate=True
    jnp.tanh: "tanh",
    jax.lax.tanh: "tanh",
    jax.lax.logistic: "sigmoid",
}


@dataclass(frozen=True)
class LeakyReLU:
    """z for z >= 0, slope z otherwise."""

    slope: float

    def __call__(self, z: Array) -> Array:
        return jnp.where(z >= 0, z, self.slope * z)


@dataclass(frozen=True)
class ELU:
    """scale (z for z > 0, alpha (exp(z) - 1) otherwise)."""

    alpha: float
    scale: float = 1.0

    def __call__(self, z: Array) -> Array:
        return self.scale * jnp.where(z > 0, z, self.alpha * jnp.expm1(jnp.minimum(z, 0)))


def known(function: Activation) -> Activation:
    """The name of one of JAX's functions that this package has; any other activation as it is."""
    if isinstance(function, functools.partial) and not function.args:
        if function.func is jax.nn.gelu and function.keywords == {"approximate": False}:
            return "gelu"
        if function.func is jax.nn.leaky_relu and function.keywords.keys() == {"negative_slope"}:
            return leaky_relu(function.keywords["negative_slope"])
        if function.func is jax.nn.elu and function.keywords.keys() == {"alpha"}:
            return elu(function.keywords["alpha"])
    try:
        return JAX_FUNCTIONS.get(function, function)
    except TypeError:  # not hashable: `canonical` refuses it
        return function


def leaky_relu(slope: float) -> Activation:
    """The activation z for z >= 0, slope z otherwise, by its name if it has one."""
    return "relu" if slope == 0 else "leaky_relu" if slope == LEAKY_SLOPE else LeakyReLU(float(slope))


def elu(alpha: float) -> Activation:
    """The activation z for z > 0, alpha (exp(z) - 1) otherwise, by its name if it has one."""
    return "elu" if alpha == 1 else ELU(float(alpha))
