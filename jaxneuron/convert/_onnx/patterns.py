"""Activations that exporters write as several nodes: their formulas, and the ONNX operators they equal."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxneuron._math.formats import SELU_ALPHA, SELU_SCALE
from jaxneuron.convert._onnx.attributes import Refusal
from jaxneuron.convert._onnx.formulas import (
    Formula,
    NoFormula,
    X,
    absolute,
    alike,
    clip,
    erf,
    exp,
    log,
    minimum,
    multiple,
    number,
    positive,
    relu,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)

# The relative error of a number that was rounded a few times to a dtype, by ONNX's number for the dtype.
TOLERANCES = {1: 2.0**-22, 10: 2.0**-9, 11: 2.0**-51, 16: 2.0**-6}
THRESHOLD = 20.0  # PyTorch's threshold: above it softplus(z) is z, with an error of 2e-9
MOST_WORK = 200_000  # how many formulas may be compared in one file; 1000 layers of tanh-GELU need 100,000
NEW = 40  # a formula that was not seen before counts as so many comparisons


class Pattern(NamedTuple):
    operator: str  # ONNX's operator, or jaxneuron's name of an activation that is not in ONNX
    formula: Callable[..., Formula]  # its arguments: the value before the activation, and the parameters
    parameters: tuple[str, ...] = ()
    attributes: dict[str, Any] = {}  # noqa: RUF012 # never changed
    multiple: bool = False  # a multiple of the formula is accepted too


def _elu(z: Formula, alpha: float) -> Formula:
    return where(positive(z), z, alpha * (exp(z) - 1))


def _guarded(z: Formula, threshold: float) -> Formula:
    if threshold < THRESHOLD:
        raise NoFormula
    return where(positive(z - threshold), z, softplus(z))


def _clip(z: Formula, low: float, high: float) -> Formula:
    return clip(z, number(low), number(high))


PATTERNS = (
    Pattern("Relu", relu),
    Pattern("HardSigmoid", lambda z: _clip(z + 3, 0, 6) / 6, (), {"alpha": 1 / 6, "beta": 0.5}),
    Pattern("Clip", _clip, ("min", "max")),
    Pattern("LeakyRelu", lambda z, alpha: where(positive(z), z, alpha * z), ("alpha",)),
    Pattern("HardSwish", lambda z: z * _clip(z + 3, 0, 6) / 6),
    Pattern("Softsign", lambda z: z / (1 + absolute(z))),
    Pattern("Sigmoid", lambda z: 1 / (1 + exp(-z))),
    Pattern("Sigmoid", lambda z: exp(z) / (1 + exp(z))),
    Pattern("Swish", lambda z, alpha: z * sigmoid(alpha * z), ("alpha",)),
    Pattern("Gelu", lambda z: z / 2 * (1 + erf(z / math.sqrt(2))), (), {"approximate": "none"}),
    Pattern(
        "Gelu", lambda z: z / 2 * (1 + tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))),
        (), {"approximate": "tanh"},
    ),
    Pattern("Softplus", lambda z: log(1 + exp(z))),
    Pattern("Softplus", lambda z: relu(z) + log(1 + exp(-absolute(z)))),
    Pattern("Softplus", _guarded, ("threshold",), {}, True),
    Pattern("Mish", lambda z: z * tanh(softplus(z))),
    Pattern("Selu", lambda z: SELU_SCALE.value * _elu(z, SELU_ALPHA.value)),
    Pattern("Elu", _elu, ("alpha",), {}, True),
    Pattern("Celu", lambda z, alpha: _elu(z / alpha, 1) * alpha, ("alpha",)),
    Pattern("Celu", lambda z, alpha: relu(z) + minimum(number(0), alpha * (exp(z / alpha) - 1)), ("alpha",)),
    Pattern("log_sigmoid", lambda z: log(sigmoid(z))),
    Pattern("square", lambda z: z * z),
    Pattern("squareplus", lambda z: (z + sqrt(z * z + 4)) / 2),
    Pattern("squareplus", lambda z: relu(z) + 2 / (absolute(z) + sqrt(z * z + 4))),
)  # fmt: skip


@functools.cache
def _names() -> list[frozenset[str]]:
    """The functions in each pattern's formula."""
    return [each.formula(X, *(0.25, 30.0)[2 - len(each.parameters) :]).names - {"x"} for each in PATTERNS]


class Found(NamedTuple):
    candidate: int
    operator: str
    attributes: dict[str, Any]
    factor: float  # the factor by which the activation is multiplied


class Patterns:
    """Finds activations in one file. Its work is bounded, because a file may be made to do harm."""

    def __init__(self) -> None:
        self._left = MOST_WORK
        self._known: dict[tuple[int, Formula, tuple[float, ...]], Formula | None] = {}

    def find(
        self, formula: Formula, candidates: Sequence[Formula], numbers: Sequence[float], kind: int
    ) -> Found | None:
        """The activation that a formula is, as a function of one of the candidates.

        Args:
          formula: the formula of a value.
          candidates: the formulas of the values that may be the activation's input.
          numbers: the numbers that may be the activation's parameters.
          kind: ONNX's number for the dtype of these numbers.
        """
        if formula.linear:
            return None
        for (p, names), (i, z) in itertools.product(enumerate(_names()), enumerate(candidates)):
            if not names <= formula.names <= names | z.names:
                continue
            pattern = PATTERNS[p]
            for parameters in itertools.permutations(numbers, len(pattern.parameters)):
                one = self._of(p, z, parameters)
                factor = multiple(formula, one) if pattern.multiple and one else 1.0
                if one and alike(formula, one if factor == 1 else one * factor, TOLERANCES[kind]):
                    given = dict(zip(pattern.parameters, parameters, strict=True))
                    return Found(i, pattern.operator, pattern.attributes | given, factor)
        return None

    def _of(self, p: int, z: Formula, parameters: tuple[float, ...]) -> Formula | None:
        """The formula of pattern number `p` for the input `z`; None if these parameters do not fit it."""
        key = p, z, parameters
        self._left -= 1 if key in self._known else NEW
        if self._left < 0:
            raise Refusal("it comes after more formulas than an MLP has")
        if key not in self._known:
            try:
                self._known[key] = PATTERNS[p].formula(z, *parameters)
            except (NoFormula, ZeroDivisionError):
                self._known[key] = None
        return self._known[key]
