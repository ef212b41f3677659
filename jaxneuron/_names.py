"""Activations by name: what gives a formula its name, and what a name or a callable stands for."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._arrays import ArrayLike, as_operand, result_dtype, sum_dtype
from jaxneuron._errors import BadType, BadValue, public

Activation = str | Callable[[Array], Array]

BY_NAME: dict[str, Callable[[Any], Array]] = {}
# The form of an activation, where it has one, for float32 sums that will be rounded to bfloat16 or float16.
NARROW: dict[Callable[[Any], Array], Callable[[Array], Array]] = {}


def activation(
    formula: Callable[[Array], Array], narrow: Callable[[Array], Array] | None = None
) -> Callable[[ArrayLike], Array]:
    """Give `formula`, written for float32 and float64 arrays, the package's dtype policy and a name.

    `narrow` takes its place where the result will be rounded to bfloat16 or float16.
    """
    name = formula.__name__

    @functools.partial(jax.jit, inline=True)
    def evaluate(z: Array) -> Array:
        dtype = result_dtype(z)
        function = narrow if narrow and dtype.itemsize == 2 else formula
        return function(jnp.asarray(z, sum_dtype(dtype))).astype(dtype)

    @public
    @functools.wraps(formula)
    def named(z: ArrayLike) -> Array:
        return evaluate(as_operand(z, "z"))

    BY_NAME[name] = named
    if narrow:
        NARROW[named] = narrow
    return named


def resolve(activation: Activation, argument: str = "activation") -> Callable[[Array], Array]:
    """The function that a name or a callable stands for."""
    if isinstance(activation, str):
        if activation in BY_NAME:
            return BY_NAME[activation]
        near = difflib.get_close_matches(activation, BY_NAME, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "; pass one of these or a function"
        raise BadValue(
            f"{argument} must be a callable or one of {', '.join(sorted(BY_NAME))}, got {activation!r}{hint}"
        )
    if not callable(activation) or not _is_hashable(activation):
        raise BadType(
            f"{argument} must be a name or a hashable callable, got {type(activation).__name__}; "
            f"pass a plain function"
        )
    return activation


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def canonical(activation: Activation, argument: str) -> Activation:
    """`activation` by its name where it has one (so that it can be saved), checked."""
    function = resolve(activation, argument)
    return next((name for name, known in BY_NAME.items() if known is function), activation)
