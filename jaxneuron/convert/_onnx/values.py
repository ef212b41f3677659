"""Values that are computed from the input: the steps that compute each, its shape, and its formula.

A value is a batch of rows: its last `row` axes hold the units of one row, in order, and its other axes
number the rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np

from jaxneuron.convert._onnx.activations import after_scaling, as_meant, between_scalings
from jaxneuron.convert._onnx.attributes import Refusal
from jaxneuron.convert._onnx.file import DOUBLE
from jaxneuron.convert._onnx.formulas import Formula, X
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert.steps import Step

Size = int | str  # the size of an axis; a name if the file does not fix it
ANY = "..."  # stands for several axes, if the file does not record how many
ROWS = "rows"  # the name of a size that the file does not record


class Part:
    """A group of values that are elementwise functions of one value, with scalars as the only constants."""

    def __init__(self) -> None:
        self.values: list[Value] = []  # the values that steps compute
        self.numbers: list[float] = [1.0]


class Value(NamedTuple):
    before: Any  # the Value from which it is computed; None for the input
    step: Step | Refusal  # the step that computes it; or the reason why there is not one so far
    kind: int  # ONNX's number for its dtype
    shape: tuple[Size, ...]
    row: int = 1
    part: Any = None  # the Part that it belongs to
    formula: Formula | None = X  # its formula, as a function of the first value of the part

    def then(self, *steps: Step, **changed: Any) -> Value:
        """The value that steps compute from this one; it begins a part of its own."""
        value = readable(self)
        for step in steps:
            value = _simplified(value._replace(before=value, step=step))
        return started(value._replace(**changed))

    @property
    def start(self) -> Value:
        """The input from which it is computed."""
        value = self
        while value.before is not None:
            value = value.before
        return value

    def steps(self) -> list[Step]:
        value = self
        steps: list[Step] = []
        while value.before is not None:
            steps.append(cast("Step", readable(value).step))
            value = value.before
        return steps[::-1]

    @property
    def rank(self) -> int | None:
        return None if ANY in self.shape else len(self.shape)

    @property
    def row_shape(self) -> tuple[Size, ...]:
        return self.shape[len(self.shape) - self.row :]

    @property
    def units(self) -> int | None:
        """The number of units in a row, if the file records it."""
        sizes = self.row_shape
        known = [size for size in sizes if isinstance(size, int)]
        return math.prod(known) if len(known) == len(sizes) else None


def _simplified(value: Value) -> Value:
    """The same value, but an activation and the scalings beside it are one activation with parameters."""
    before = value.before
    if isinstance(value.step, Refusal):
        return value
    if (scale := _multiple(before)) is not None and (one := after_scaling(scale, value.step)) is not None:
        return value._replace(before=before.before, step=one)
    if before is not None and (after := _multiple(value)) is not None:
        scale = _multiple(before.before)
        one = None if scale is None else between_scalings(scale, before.step, after)
        if one is not None:
            return value._replace(before=before.before.before, step=one)
    return value


def _multiple(value: Value | None) -> float | None:
    """The factor of a value whose step is a multiplication by one number; None for other steps."""
    if value is None or value.before is None or not isinstance(value.step, Scaling):
        return None
    mean, scale, shift = value.step
    if np.ndim(scale) or np.any(mean) or np.any(shift):
        return None
    return as_meant(float(scale), double=value.kind == DOUBLE)


def started(value: Value) -> Value:
    """`value` as the first value of a new part."""
    value = value._replace(part=Part(), formula=X)
    value.part.values.append(value)
    return value


def readable(value: Value) -> Value:
    """`value`, if steps compute it. Otherwise raises the refusal of the first node that could not be read."""
    if isinstance(value.step, Refusal):
        raise value.step
    return value


def per_unit(constant: np.ndarray, value: Value) -> np.ndarray:
    """A constant that is the same for every row of `value`: one number, or one for each unit."""
    if value.rank is not None and constant.ndim > value.rank:
        raise Refusal(f"its constant has more axes, {constant.shape}, than its input")
    if constant.size == 1:
        return constant.reshape(())
    shape = constant.shape[-value.row :] if value.row else ()
    if constant.size != math.prod(shape):
        raise Refusal(f"its constant must be one number or one for each unit, got the shape {constant.shape}")
    units = value.units
    if units is None and value.row == 1:
        return constant.reshape(-1)
    try:
        return np.broadcast_to(constant.reshape(shape), value.row_shape).reshape(-1)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise Refusal(
            f"its constant must have {units} numbers, one for each unit, got {constant.size}"
        ) from None


def text(shape: tuple[Size, ...]) -> str:
    """A shape as text, for a message."""
    return f"({', '.join(map(str, shape))})"[:60]
