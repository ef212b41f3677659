"""Finds the function for an activation, which is a name, a value with parameters or a callable."""

from __future__ import annotations

import difflib
import functools
import numbers
import re
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxneuron._arrays import ArrayLike, as_operand, complete, result_dtype, sum_dtype
from jaxneuron._errors import REFUSALS, BadType, BadValue, public, with_name
from jaxneuron._math.activations import FAMILIES

Activation = str | Callable[[Array], Array]
LARGEST = 3.4028234663852886e38  # the largest number of float32

BY_NAME: dict[str, Callable[[Any], Array]] = {}
NAMES: dict[Callable[[Any], Array], str] = {}  # the same, the other way round
# For some activations a cheaper formula, for float32 sums whose result is rounded to bfloat16 or float16.
NARROW: dict[Callable[[Any], Array], Callable[[Array], Array]] = {}


def activation(
    formula: Callable[[Array], Array], narrow: Callable[[Array], Array] | None = None
) -> Callable[[ArrayLike], Array]:
    """Decorates `formula`, written for float32 and float64 arrays, with the package's dtype rules and a name.

    `narrow` takes its place where the result is rounded to bfloat16 or float16.
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
        z = as_operand(z, "z")
        return complete(evaluate(z)) if isinstance(z, np.ndarray) else evaluate(z)

    BY_NAME[name], NAMES[named] = named, name
    if narrow:
        NARROW[named] = narrow
    return named


class Parametric:
    """An activation with parameters: a subclass is a frozen dataclass whose fields are its family's."""

    family: ClassVar[str]  # the family's name in FAMILIES

    def __init_subclass__(cls) -> None:
        BY_FAMILY[cls.family] = cls

    def __post_init__(self) -> None:
        try:
            for name in FAMILIES[self.family].parameters:
                object.__setattr__(self, name, _number(name, getattr(self, name)))
            self.check()
        except REFUSALS as error:
            raise with_name(type(self).__name__, error) from None

    @property
    def parameters(self) -> tuple[float, ...]:
        return tuple(getattr(self, name) for name in FAMILIES[self.family].parameters)

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parameters))})"

    def check(self) -> None:
        """Refuses parameters that the family can't have."""

    def formula(self) -> Callable[[Array], Array]:
        """The activation as a function of a float32 or float64 array."""
        raise NotImplementedError

    def __call__(self, z: ArrayLike) -> Array:
        function = resolve(self)
        if function is not self:
            return function(z)  # type: ignore[arg-type] # a named activation takes the same z
        try:
            z = as_operand(z, "z")
            return complete(_evaluate(self, z)) if isinstance(z, np.ndarray) else _evaluate(self, z)
        except REFUSALS as error:
            raise with_name(type(self).__name__, error) from None


BY_FAMILY: dict[str, type[Parametric]] = {}


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _evaluate(activation: Parametric, z: Array) -> Array:
    dtype = result_dtype(z)
    return activation.formula()(jnp.asarray(z, sum_dtype(dtype))).astype(dtype)


def _number(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise BadType(f"{name} must be a number, got {type(value).__name__}; pass a float")
    try:
        number = float(value)
    except OverflowError:  # an integer that is too large
        number = float("inf")
    if not abs(number) <= LARGEST:
        raise BadValue(f"{name} must be a finite number that float32 holds, got {number}; pass another one")
    return number + 0.0  # -0 is 0


def resolve(activation: Activation, argument: str = "activation") -> Callable[[Array], Array]:
    """The function for `activation`, a name, a value with parameters or a callable."""
    if isinstance(activation, str):
        if activation in BY_NAME:
            return BY_NAME[activation]
        near = difflib.get_close_matches(activation, BY_NAME, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "; pass one of these or a function"
        raise BadValue(
            f"{argument} must be a callable or one of {', '.join(sorted(BY_NAME))}, got {activation!r}{hint}"
        )
    if isinstance(activation, Parametric):
        name = FAMILIES[activation.family].names.get(activation.parameters)
        return BY_NAME[name] if name else activation
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
    """`activation`, checked, as its name if it has one, so that it can be saved."""
    function = resolve(activation, argument)
    return NAMES.get(function, activation)


def described(activation: str | Parametric) -> str | dict[str, Any]:
    """A name or a value as JSON: "tanh", {"name": "leaky_relu", "slope": 0.2}."""
    if isinstance(activation, str):
        return activation
    names = FAMILIES[activation.family].parameters
    return {"name": activation.family, **dict(zip(names, activation.parameters, strict=True))}


def from_description(description: Any) -> Any:
    """The activation for a description by `described`, or for a list of them; anything else is unchanged."""
    if isinstance(description, list):
        return [from_description(each) for each in description]
    if not isinstance(description, dict):
        return description
    family = description.get("name")
    parameters = FAMILIES[family].parameters if isinstance(family, str) and family in FAMILIES else ()
    if not isinstance(family, str) or not parameters or description.keys() != {"name", *parameters}:
        raise BadValue(
            f"an activation must have a name of {', '.join(FAMILIES)} and that family's parameters, "
            f"got {str(description)[:60]}; read it with a newer jaxneuron"
        )
    return BY_FAMILY[family](*(description[name] for name in parameters))


def from_text(text: str) -> Activation:
    """The value that a text such as "LeakyReLU(0.2)" describes; any other text is returned unchanged."""
    match = re.fullmatch(r"(\w+)\(([^()]*)\)", text)
    values = {family.__name__: family for family in BY_FAMILY.values()}
    if not match or match[1] not in values:
        return text
    family = values[match[1]]
    parameters = FAMILIES[family.family].parameters
    try:
        given = [float(word) for word in match[2].split(",")]
        return family(**dict(zip(parameters, given, strict=True)))
    except ValueError as error:
        raise BadValue(
            f"{text!r} must have numbers for {' and '.join(parameters)} that {family.__name__} takes "
            f"({error}); write it as {family.__name__}({', '.join(parameters)})"
        ) from None
