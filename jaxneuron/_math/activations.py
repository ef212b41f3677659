"""The table of activations: a line for each name, and one for each family with parameters.

A line says what an activation promises, and what a test needs to check it. The formulas are elsewhere: for
XLA in elementary.py, correct.py, scaled.py and sine.py; for the kernel in activations.h, scaled.h and sine.h
of _kernels/cpu; the exact ones in oracle.py.

A member of a family is a value such as `LeakyReLU(0.2)`. It has `family`, the family's name in this table,
and `parameters`. A name stands for a function without parameters, which may be a member of a family: `relu6`
is `HardTanh(0, 6)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from jaxneuron._math.formats import LEAKY_SLOPE


class Facts(NamedTuple):
    """The facts about an activation f."""

    ulp: tuple[float, float] | None = None  # the largest error, in ULP, in float32 and float64
    bound: str = ""  # the largest error in words, if it is not stated in ULP
    slope: float = (
        1.0  # the largest |f'|: the factor by which an error in z grows; if infinite, see oracle.py
    )
    rises: bool = False  # f never decreases between neighbouring floats
    values: tuple[float, float] = (-math.inf, math.inf)  # all values of f are in this closed interval
    nearest16: bool = False  # correctly rounded in bfloat16 and float16
    gates: bool = False  # f(z) is z times a factor in [0, 1], whose error is relative to z
    he: bool = False  # init_mlp gives the weights of its layer He's variance, 2 / n_in
    of_rows: bool = False  # a unit's value depends on the other units of its row: only for the last layer
    has_limits: bool = True  # f has a limit at both infinities; otherwise it is NaN there
    formula: str = ""  # the name of the kernel's formula, if it differs from the activation's
    parameters: tuple[float, ...] = ()  # the parameters with which the kernel's formula is this function


class Member(Protocol):
    """An activation with parameters."""

    @property
    def family(self) -> str: ...
    @property
    def parameters(self) -> tuple[float, ...]: ...


class Family(NamedTuple):
    """Activations that differ only in their parameters."""

    formula: str  # the kernel's formula
    parameters: tuple[str, ...]
    facts: Callable[..., Facts]
    names: dict[tuple[float, ...], str]  # the members that have a name, by their parameters


ACTIVATIONS = {
    "identity": Facts((0, 0), rises=True),
    "relu": Facts((0, 0), rises=True, values=(0, math.inf), he=True),
    "leaky_relu": Facts(bound="16 u of the result", rises=True, he=True, parameters=(LEAKY_SLOPE,)),
    "hard_sigmoid": Facts(bound="16 u", slope=1 / 6, rises=True, values=(0, 1)),
    "sigmoid": Facts((1, 1), slope=0.25, rises=True, values=(0, 1), nearest16=True),
    "cr_sigmoid": Facts((0.5, 0.53), slope=0.25, rises=True, values=(0, 1), nearest16=True),
    "tanh": Facts((1.5, 2), rises=True, values=(-1, 1), nearest16=True),
    "cr_tanh": Facts((0.5, 2), rises=True, values=(-1, 1), nearest16=True),
    "silu": Facts((1.5, 2), slope=1.1, gates=True),
    "gelu": Facts((1.5, 2), slope=1.13, gates=True),
    "gelu_tanh": Facts((1.5, 2), slope=1.13, gates=True),
    "softplus": Facts((1.5, 2), rises=True, values=(0, math.inf)),
    "elu": Facts((1.5, 2), rises=True, values=(-1, math.inf), he=True),
    "selu": Facts((1.5, 2), slope=1.76, rises=True),
    "softmax": Facts(bound="a factor of 1 + (units + 4) u", values=(0, 1), of_rows=True),
    "log_softmax": Facts(
        bound="(units + 6) u, and 4 u of the result", slope=2.0, values=(-math.inf, 0), of_rows=True
    ),
    "relu6": Facts((0, 0), rises=True, values=(0, 6), he=True, formula="hard_tanh", parameters=(0.0, 6.0)),
    "hard_tanh": Facts((0, 0), rises=True, values=(-1, 1), parameters=(-1.0, 1.0)),
    "hard_swish": Facts((1.5, 2), slope=1.5, gates=True),
    "softsign": Facts((1.5, 2), values=(-1, 1)),
    "squareplus": Facts((1, 1), values=(0, math.inf)),
    "square": Facts((0.5, 0.5), slope=math.inf, values=(0, math.inf)),
    "exp": Facts((1.5, 2), slope=math.inf, rises=True, values=(0, math.inf)),
    "log_sigmoid": Facts((1.5, 2), rises=True, values=(-math.inf, 0)),
    "mish": Facts((1.5, 2), slope=1.09, gates=True),
    "sin": Facts((1.5, 2), values=(-1, 1), has_limits=False, parameters=(1.0,)),
}


def _leaky_relu(slope: float) -> Facts:
    low = -math.inf if slope > 0 else 0.0
    return Facts((0.5, 0.5), slope=max(1.0, abs(slope)), rises=slope >= 0, values=(low, math.inf), he=True)


def _elu(alpha: float) -> Facts:
    low = min(-alpha, 0.0)
    return Facts((1.5, 2), slope=max(1.0, abs(alpha)), rises=alpha >= 0, values=(low, math.inf), he=True)


FAMILIES = {
    "leaky_relu": Family(
        "leaky_relu",
        ("slope",),
        _leaky_relu,
        {(LEAKY_SLOPE,): "leaky_relu", (0.0,): "relu", (1.0,): "identity"},
    ),
    "elu": Family("scaled_elu", ("alpha",), _elu, {(1.0,): "elu", (0.0,): "relu"}),
    "celu": Family(
        "celu",
        ("alpha",),
        lambda alpha: Facts((1.5, 2), rises=True, values=(-alpha, math.inf), he=True),
        {(1.0,): "elu"},
    ),
    "softplus": Family(
        "scaled_softplus",
        ("beta",),
        lambda beta: Facts((1.5, 2), rises=True, values=(0, math.inf)),
        {(1.0,): "softplus"},
    ),
    "hard_tanh": Family(
        "hard_tanh",
        ("low", "high"),
        lambda low, high: Facts((0, 0), rises=True, values=(low, high)),
        {(-1.0, 1.0): "hard_tanh", (0.0, 6.0): "relu6"},
    ),
    "sin": Family(
        "sin",
        ("frequency",),
        lambda frequency: Facts((1.5, 2), slope=abs(frequency), values=(-1, 1), has_limits=False),
        {(1.0,): "sin"},
    ),
}

OF_ROWS = tuple(name for name, facts in ACTIVATIONS.items() if facts.of_rows)
# The kernel's formulas, each with its number of parameters, in the order of their codes.
FORMULAS = {facts.formula or name: len(facts.parameters) for name, facts in ACTIVATIONS.items()} | {
    family.formula: len(family.parameters) for family in FAMILIES.values()
}


def facts_of(activation: str | Member) -> Facts:
    """The facts about an activation, which is a name or a value."""
    if isinstance(activation, str):
        return ACTIVATIONS[activation]
    return FAMILIES[activation.family].facts(*activation.parameters)


def in_kernel(activation: str | Member) -> tuple[str, tuple[float, ...]]:
    """The kernel's formula for an activation, and its parameters."""
    if isinstance(activation, str):
        facts = ACTIVATIONS[activation]
        return facts.formula or activation, facts.parameters
    return FAMILIES[activation.family].formula, activation.parameters
