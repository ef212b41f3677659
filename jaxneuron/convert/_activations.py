"""JAX's functions as activations of jaxneuron, with and without parameters.

Apart from underscores, a name means the same function in JAX and in jaxneuron, unless `JAX_FUNCTIONS` lists a
difference.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxneuron._activations import CELU, ELU, HardTanh, LeakyReLU
from jaxneuron._names import BY_NAME, Activation, Parametric, canonical

SAME = {name.replace("_", ""): name for name in BY_NAME}  # jaxneuron's names, by the name without underscores
JAX_FUNCTIONS: dict[Any, str] = {
    **{
        getattr(jax.nn, theirs): SAME[theirs.replace("_", "")]
        for theirs in dir(jax.nn)
        if theirs.replace("_", "") in SAME
    },
    jax.nn.gelu: "gelu_tanh",  # by default, approximate=True
    **{getattr(module, name): name for name in ("exp", "sin", "square", "tanh") for module in (jnp, jax.lax)},
    jax.lax.logistic: "sigmoid",
    jax.nn.celu: "elu",  # by default, alpha=1
}
# Functions whose parameters functools.partial may hold: jaxneuron's class, and the parameters' names.
WITH_PARAMETERS: dict[Any, tuple[type[Parametric], tuple[str, ...]]] = {
    jax.nn.leaky_relu: (LeakyReLU, ("negative_slope",)),
    jax.nn.elu: (ELU, ("alpha",)),
    jax.nn.celu: (CELU, ("alpha",)),
    jnp.clip: (HardTanh, ("min", "max")),
}


def known(function: Activation) -> Activation:
    """jaxneuron's name or value for one of JAX's functions; any other activation is returned unchanged."""
    if isinstance(function, Parametric):
        return canonical(function, "activation")
    if isinstance(function, functools.partial) and not function.args:
        if function.func is jax.nn.gelu and function.keywords == {"approximate": False}:
            return "gelu"
        family, names = WITH_PARAMETERS.get(function.func, (None, ()))
        if family and function.keywords.keys() == set(names):
            try:
                return known(family(*(function.keywords[name] for name in names)))
            except (TypeError, ValueError):  # parameters that jaxneuron doesn't take
                return function
    try:
        return JAX_FUNCTIONS.get(function, function)
    except TypeError:  # not hashable: `canonical` refuses it
        return function
