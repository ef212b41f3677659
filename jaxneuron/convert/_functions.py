"""Activations as other libraries have them: JAX functions by our names, and families with a parameter.

Where a parameter is a scaling of one of ours it is written as one, and folds into the layers beside it; the
families that are not, `LeakyReLU` and `ELU`, are callables that compare by their parameters.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._activations import Activation

JAX_FUNCTIONS: dict[Any, str] = {
    jax.nn.sigmoid: "sigmoid",
    jax.nn.relu: "relu",
    jax.nn.tanh: "tanh",
    jnp.tanh: "tanh",
    jax.lax.tanh: "tanh",
    jax.lax.logistic: "sigmoid",
    jax.nn.identity: "identity",
    jax.nn.silu: "silu",
    jax.nn.gelu: "gelu_tanh",  # approximate unless told otherwise
    jax.nn.softplus: "softplus",
    jax.nn.elu: "elu",
    jax.nn.selu: "selu",
    jax.nn.leaky_relu: "leaky_relu",
    jax.nn.hard_sigmoid: "hard_sigmoid",
    jax.nn.softmax: "softmax",
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
    """`function` by our name, if it is one of JAX's that we have."""
    if isinstance(function, functools.partial) and not function.args:
        if function.func is jax.nn.gelu and function.keywords == {"approximate": False}:
            return "gelu"
        if function.func is jax.nn.leaky_relu and function.keywords.keys() == {"negative_slope"}:
            return leaky_relu(function.keywords["negative_slope"])
        if function.func is jax.nn.elu and function.keywords.keys() == {"alpha"}:
            return elu(function.keywords["alpha"])
    try:
        return JAX_FUNCTIONS.get(function, function)
    except TypeError:  # not hashable: who checks the activations says so
        return function


def leaky_relu(slope: float) -> Activation:
    return "relu" if slope == 0 else "leaky_relu" if slope == 0.01 else LeakyReLU(float(slope))


def elu(alpha: float) -> Activation:
    return "elu" if alpha == 1 else ELU(float(alpha))
