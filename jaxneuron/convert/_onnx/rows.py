"""Operators that move numbers: they reshape without mixing rows, or choose or permute the units of a row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxneuron.convert._onnx.attributes import Attributes, Refusal, integers, slices
from jaxneuron.convert._onnx.values import ROWS, Size, Value, text
from jaxneuron.convert._units import Units

MOST_INPUTS = 2**20  # from at most so many inputs units can be chosen
OPERATORS = (
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Transpose"),
    *("Gather", "Slice", "Split"),
)


def moved(operation: str, read: list[Any], attributes: Attributes, outputs: int) -> Value | list[Value]:
    """The result of an operator on a value: a list of values for a Split, otherwise one."""
    value, *rest = read
    if not isinstance(value, Value) or any(isinstance(each, Value) for each in rest):
        raise Refusal("its sizes or its indices are computed from the input")
    if operation == "Flatten":
        return _flattened(value, attributes.integer("axis", 1))
    if value.rank is None:
        raise Refusal("the file does not record how many axes its input has")
    if operation == "Reshape":
        shape = attributes.integers("shape") if not rest else list(rest[0])
        return _reshaped(value, _resolved(value.shape, shape or [], attributes.integer("allowzero", 0)))
    if operation in ("Squeeze", "Unsqueeze"):
        return _reshaped(value, _with_ones(operation, value, integers(rest, 0, attributes, "axes")))
    if operation == "Expand":
        if tuple(rest[0]) not in (value.shape, (1,) * len(value.shape)):
            raise Refusal("it repeats rows or units")
        return value
    if operation == "Transpose":
        return _transposed(value, attributes.integers("perm") or list(range(value.rank))[::-1])
    if operation == "Gather":
        return chosen(value, attributes.integer("axis", 0), rest[0])
    if operation == "Slice":
        for axis, part in slices(rest, attributes):
            value = _part(value, axis, part)
        return value
    return _split(value, integers(rest, 0, attributes, "split"), attributes, outputs)


def _count(shape: Iterable[Size]) -> tuple[int, list[str]]:
    """The product of the sizes that are fixed, and the names of the others."""
    shape = list(shape)
    return math.prod(size for size in shape if isinstance(size, int)), sorted(
        size for size in shape if isinstance(size, str)
    )


def _resolved(shape: tuple[Size, ...], target: Sequence[Any], allow_zero: int) -> tuple[Size, ...]:
    """The shape after a Reshape to `target`: 0 stands for the old size, -1 for all that remains."""
    same = 0 if not allow_zero else None
    sizes = [shape[i] if size == same and i < len(shape) else size for i, size in enumerate(target)]
    sizes = [size if isinstance(size, str) else int(size) for size in sizes]
    if -1 in sizes:
        i = sizes.index(-1)
        number, names = _count(shape)
        known, others = _count((*sizes[:i], *sizes[i + 1 :]))
        for name in [name for name in others if name in names]:
            names.remove(name)
            others.remove(name)
        if known < 1 or number % known or others:
            sizes[i] = "*".join((*names, "?"))
        elif names:
            sizes[i] = "*".join((*([str(number // known)] if number != known else []), *names))
        else:
            sizes[i] = number // known
    return tuple(sizes)


def _with_ones(operation: str, value: Value, axes: list[int] | None) -> tuple[Size, ...]:
    """The shape after a Squeeze or Unsqueeze: without these axes of size 1, or with them."""
    if operation == "Squeeze":
        ones = [i for i, size in enumerate(value.shape) if size == 1]
        drop = ones if axes is None else [axis % len(value.shape) for axis in axes]
        return tuple(size for i, size in enumerate(value.shape) if i not in drop)
    sizes, rank = iter(value.shape), len(value.shape) + len(axes or [])
    put = {axis % rank for axis in axes or []}
    return tuple(1 if i in put else next(sizes) for i in range(rank))


def _reshaped(value: Value, shape: tuple[Size, ...]) -> Value:
    """`value` in a new shape; the last axes of that must hold the same rows."""
    row = _row(shape, _count(value.row_shape))
    if row is not None:
        return value._replace(shape=shape, row=row)
    shapes = " to ".join(map(text, (value.shape, shape)))
    raise Refusal(f"it does not keep rows of the shape {text(value.row_shape)} apart, from {shapes}")


def _row(shape: tuple[Size, ...], units: tuple[int, list[str]]) -> int | None:
    """How many of the last axes together hold so many units: at least one, if several numbers fit."""
    rows = (*range(1, len(shape) + 1), 0)
    return next((row for row in rows if _count(shape[len(shape) - row :]) == units), None)


def _flattened(value: Value, axis: int) -> Value:
    if value.rank is None:
        if axis != 1 or value.before is not None:
            raise Refusal("the file does not record how many axes its input has")
        return value._replace(shape=(ROWS, "units"))
    axis = axis + value.rank if axis < 0 else axis
    count = [_count(value.shape[:axis]), _count(value.shape[axis:])]
    return _reshaped(value, tuple("*".join((str(n), *names)) if names else n for n, names in count))


def _transposed(value: Value, order: list[int]) -> Value:
    rank = len(value.shape)
    if sorted(order) != list(range(rank)):
        raise Refusal(f"its perm is {order}, for {rank} axes")
    first = rank - value.row  # the first axis of a row
    long = [axis for axis in order if value.shape[axis] != 1]
    if long != sorted(long, key=lambda axis: (axis >= first, axis if axis < first else 0)):
        raise Refusal("it does not keep rows apart: it moves the units before the rows")
    shape = tuple(value.shape[axis] for axis in order)
    moved = [axis - first for axis in order if axis >= first]
    if moved == sorted(moved) or len([axis for axis in long if axis >= first]) < 2:
        return _reshaped(value, shape)
    return _units(value, _indices(value).transpose(moved), shape)


def _indices(value: Value) -> np.ndarray:
    """The indices of a row's units, in the shape of a row."""
    if value.units is None or value.units > MOST_INPUTS:
        raise Refusal("the file does not record how many units its input has")
    return np.arange(value.units).reshape(value.row_shape)  # type: ignore[arg-type] # no names


def _units(value: Value, index: np.ndarray, shape: tuple[Size, ...]) -> Value:
    """The value whose rows consist of the units of `value` with these indices."""
    changed: dict[str, Any] = {"shape": shape, "row": _row(shape, (index.size, []))}
    if np.array_equal(index.ravel(), np.arange(value.units or 0)):
        return value._replace(**changed)
    return value.then(Units(index.ravel(), value.units), **changed)


def _part(value: Value, axis: int, take: Any) -> Value:
    """The part of `value` that `take` chooses along an axis: indices, one index, or a slice."""
    rank = len(value.shape)
    if not -rank <= axis < rank:
        raise Refusal(f"its axis is {axis}, for {rank} axes")
    axis %= rank
    size, first = value.shape[axis], rank - value.row
    if axis < first and isinstance(size, str) and isinstance(take, slice) and take == slice(0, None, 1):
        return value
    if isinstance(size, str):
        unknown = "the file does not record how many units its input has"
        raise Refusal("it chooses rows, not units" if axis < first else unknown)
    chosen = np.arange(size)[take]
    shape = (*value.shape[:axis], *chosen.shape, *value.shape[axis + 1 :])
    if axis >= first:
        return _units(value, _indices(value).take(chosen, axis - first), shape)
    if not np.array_equal(chosen.ravel(), np.arange(size)):
        raise Refusal("it chooses rows, not units")
    return _reshaped(value, shape)


def chosen(value: Value, axis: int, indices: Any) -> Value:
    if indices is None or np.asarray(indices).dtype.kind != "i":
        raise Refusal("its indices are not integers")
    return _part(value, axis, np.asarray(indices))


def _split(value: Value, sizes: list[int] | None, attributes: Attributes, outputs: int) -> list[Value]:
    axis = attributes.integer("axis", 0)
    size = value.shape[axis] if -len(value.shape) <= axis < len(value.shape) else 0
    if sizes is None and isinstance(size, int):
        each = -(-size // max(outputs, 1))
        sizes = [min(each, size - start) for start in range(0, size, max(each, 1))]
    if sizes is None or sum(sizes) != size or min(sizes) < 0 or len(sizes) != outputs:
        raise Refusal(f"it splits {size} units into {outputs} parts of {sizes}")
    stops = list(itertools.accumulate(sizes))
    return [_part(value, axis, slice(stop - part, stop)) for part, stop in zip(sizes, stops, strict=True)]
