"""Elementwise operators: scalings, activations, and the operators of which exporters make activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxneuron._names import BY_NAME
from jaxneuron._params import Affine
from jaxneuron.convert._onnx.activations import OPSET, clip
from jaxneuron.convert._onnx.activations import steps as steps_of
from jaxneuron.convert._onnx.attributes import Attributes, Given, Refusal
from jaxneuron.convert._onnx.file import DOUBLE, kind_of
from jaxneuron.convert._onnx.formulas import OPERATORS, Formula, NoFormula, number
from jaxneuron.convert._onnx.patterns import Patterns
from jaxneuron.convert._onnx.values import Value, per_unit, readable, text
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert.steps import Step

BOOL = 9
LOGIC = ("And", "Not", "Or", "Where")  # they take the results of comparisons
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
SCALINGS = ("Add", "Sub", "Mul", "Div", "Neg")
JOINS = {
    "Mul": "it multiplies two values that are computed from the input",
    "Div": "it divides by a value that is computed from the input",
}
# How many values before a node may be an activation's input; the longest known activation has 9 nodes.
MOST_CANDIDATES = 12
MOST_NUMBERS = 8  # how many numbers may be an activation's parameters


def elementwise(
    operation: str, read: list[Any], attributes: Attributes, opset: int, patterns: Patterns
) -> Value:
    """The value that an operator computes; its inputs `read` are Values and constants."""
    data = [value for value in read if isinstance(value, Value)]
    try:
        plain: Value | Refusal = _plain(operation, read, data, attributes, opset)
    except Refusal as refusal:
        plain = refusal
    formula = _formula(operation, read, data, attributes)
    if formula is None:
        if isinstance(plain, Refusal):
            raise plain
        return plain
    part, kind = data[0].part, _kind(operation, read, data)
    if isinstance(plain, Refusal) or operation in (*SCALINGS, "Max", "Min"):
        # The first value of the part, which most activations start from, and the latest ones.
        candidates = [*part.values[:1], *part.values[1:][-MOST_CANDIDATES:]]
        formulas = [value.formula for value in candidates]
        found = patterns.find(formula, formulas, part.numbers, part.values[0].kind)
        if found:
            before, given = candidates[found.candidate], Given(found.attributes)
            plain = before.then(
                *_activation(found.operator, given, opset, before), Scaling(scale=found.factor)
            )
            if found.operator in OPERATORS and not found.attributes:  # larger activations are made of these
                formula = OPERATORS[found.operator](before.formula) * found.factor
        elif formula in formulas:
            plain = candidates[formulas.index(formula)]
    if isinstance(plain, Refusal):
        return data[-1]._replace(step=plain, formula=formula, kind=kind)
    shape, row = data[-1].shape, data[-1].row
    value = plain._replace(part=part, formula=formula, kind=kind, shape=shape, row=row)
    part.values.append(value)
    return value


def _plain(operation: str, read: list[Any], data: list[Value], attributes: Attributes, opset: int) -> Value:
    """The value that an operator computes if it is a scaling or an activation by itself."""
    for value in sorted(data, key=lambda value: getattr(value.step, "place", -1)):
        readable(value)
    if len(data) != 1:
        raise Refusal(JOINS.get(operation, "it joins two values that are computed from the input"))
    (value,) = data
    if operation == "Neg":
        return value.then(Scaling(scale=-1.0))
    if operation in SCALINGS:
        return _scaled(operation, read, attributes)
    if operation == "Pow" and read[0] is value and np.size(read[1]) == 1 and np.all(read[1] == 1):
        return value
    if operation == "PRelu" and read[0] is value:
        slopes = np.unique(read[1])
        if len(slopes) != 1:
            raise Refusal("its slopes differ from unit to unit")
        return value.then(*_activation("LeakyRelu", Given({"alpha": float(slopes[0])}), opset, value))
    if operation in ("Max", "Min") and len(read) == 2:
        end = _scalar(read[1] if read[0] is value else read[0])
        return _clipped(value, end, None, opset) if operation == "Max" else _clipped(value, None, end, opset)
    if operation == "Clip":
        return _clipped(value, *_ends(read, attributes), opset)
    if read[0] is not value:
        raise Refusal("its first input is a constant")
    return value.then(*_activation(operation, attributes, opset, value))


def _clipped(value: Value, low: float | None, high: float | None, opset: int) -> Value:
    if low is not None and high is not None:
        return value.then(*_activation("Clip", Given({"min": low, "max": high}), opset, value))
    if low is not None:  # max(x, low) = relu(x - low) + low
        return value.then(Scaling(mean=low), "relu", Scaling(shift=low))
    if high is not None:  # min(x, high) = high - relu(high - x)
        return value.then(Scaling(mean=high, scale=-1.0), "relu", Scaling(scale=-1.0, shift=high))
    return value


def _activation(operator: str, attributes: Attributes, opset: int, value: Value) -> list[Step]:
    if operator in BY_NAME:
        return [operator]
    double = value.kind == DOUBLE
    if operator == "Clip":
        ends = [attributes.by_name[name] for name in ("min", "max")]
        return [clip(ends, attributes, opset=OPSET, double=double)]
    if operator in ("Softmax", "LogSoftmax"):  # over all units of a row, which may take several axes, or none
        if not value.row:
            raise Refusal("it sums over rows, not over units")
        if set(value.row_shape[:-1]) - {1}:
            raise Refusal(f"it sums over the last axis alone of rows of the shape {text(value.row_shape)}")
    return list(steps_of(operator, attributes, opset=opset, double=double, rank=value.rank))


def _ends(read: list[Any], attributes: Attributes) -> tuple[float | None, float | None]:
    """The least and the greatest value of a Clip. They are inputs or, in old models, attributes."""
    ends = [*read[1:], None, None][:2]
    for i, name in enumerate(("min", "max")):
        if ends[i] is None and name in attributes.by_name:
            ends[i] = attributes.number(name, 0.0)
    low, high = (None if end is None or not np.isfinite(end).all() else _scalar(end) for end in ends)
    return low, high


def _scalar(constant: Any) -> float:
    if isinstance(constant, Value) or np.size(constant) != 1:
        raise Refusal("it compares with numbers that differ from unit to unit, or from row to row")
    return float(np.asarray(constant).reshape(()))


def _formula(operation: str, read: list[Any], data: list[Value], attributes: Attributes) -> Formula | None:
    part, shape = data[0].part, data[0].shape
    if any(value.part is not part or value.shape != shape for value in data):
        return None
    try:
        if operation == "Clip":
            read = [read[0], *_ends(read, attributes)]
        elif operation == "HardSigmoid":
            read = [read[0], attributes.number("alpha", 0.2), attributes.number("beta", 0.5)]
        numbers = [_scalar(each) for each in read if not isinstance(each, Value | None)]
        part.numbers = [1.0, *dict.fromkeys((*part.numbers[1:], *numbers))]
        del part.numbers[1:-MOST_NUMBERS]
        arguments = [
            each.formula if isinstance(each, Value) else None if each is None else number(_scalar(each))
            for each in read
        ]
        return OPERATORS[operation](*arguments) if operation in OPERATORS else None
    except (NoFormula, Refusal, TypeError, AttributeError):
        return None  # TypeError and AttributeError: an input is None, or there are too many


def _kind(operation: str, read: list[Any], data: list[Value]) -> int:
    if operation in COMPARISONS or operation in LOGIC[:-1]:
        return BOOL
    kinds = [value.kind for value in data if value.kind != BOOL]
    return kinds[0] if kinds else kind_of(next(each for each in read if isinstance(each, np.ndarray)).dtype)


def _scaled(operation: str, read: list[Any], attributes: Attributes) -> Value:
    """The value that results from adding, subtracting, multiplying or dividing by a constant."""
    left = isinstance(read[0], Value)
    value, constant = (read[0], read[1]) if left else (read[1], read[0])
    if constant is None:
        raise Refusal("it has one input")
    axis = attributes.integer("axis", -1)  # an attribute up to opset 6
    if axis != -1 and value.rank != axis + constant.ndim:
        raise Refusal("its constant does not stand on the last axis")
    vector = per_unit(constant, value)
    shape = (*value.shape[:-1], len(vector)) if vector.ndim and value.units is None else value.shape
    c = vector.astype(np.float64)
    if operation == "Add":
        if isinstance(value.step, Affine) and value.step.b is None and value.before is not None:
            # a layer's bias, kept bit for bit
            bias = np.broadcast_to(vector, value.step.w.shape[1:])
            return value.before.then(Affine(value.step.w, bias), kind=value.kind, shape=shape, row=value.row)
        return value.then(Scaling(mean=-c), shape=shape)
    if operation == "Sub":
        return value.then(Scaling(mean=c) if left else Scaling(scale=-1.0, shift=c), shape=shape)
    if operation == "Div" and not left:
        raise Refusal("it divides by a value that is computed from the input")
    with np.errstate(all="ignore"):
        return value.then(Scaling(scale=c if operation == "Mul" else 1 / c), shape=shape)
