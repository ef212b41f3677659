"""Computations on constants, and on the shapes of values.

A shape is an array of integers or, where the file does not fix a size, of objects, some of which are names.
Shapes can be taken apart and put together. Arithmetic with a name is refused, so that a number of rows never
gets into a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxneuron.convert._onnx.attributes import Attributes, Refusal, integers, slices
from jaxneuron.convert._onnx.file import DTYPES, tensor
from jaxneuron.convert._onnx.values import Value

COMPUTED = 8  # how many numbers may be computed for each number that the file holds
FEW = 2**16  # so many numbers may be computed in any case
ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum},
    **{"Pow": np.power, "Neg": np.negative, "Sqrt": np.sqrt, "Exp": np.exp, "Log": np.log, "Abs": np.abs},
    **{"Equal": np.equal, "Greater": np.greater, "Less": np.less, "Not": np.logical_not, "Where": np.where},
    "Div": lambda a, b: a / b if a.dtype.kind != "i" else np.trunc(a / b).astype(a.dtype),
    "Reciprocal": lambda a: 1 / a,
}


ZERO = np.zeros(1, np.float32)


class Constants:
    """The constants of a graph by name, and how many numbers may still be computed from them."""

    def __init__(self, graph: Any, folder: str | None) -> None:
        self.folder = folder
        self.protos = {proto.name: proto for proto in graph.initializer}
        self.arrays: dict[str, np.ndarray] = {}
        self.left = FEW

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            self.arrays[name] = self.tensor(self.protos[name])
        return self.arrays[name]

    def tensor(self, proto: Any) -> np.ndarray:
        array = tensor(proto, self.folder)
        self.left += COMPUTED * array.size
        return array

    def fold(self, operation: str, read: list[Any], attributes: Attributes) -> np.ndarray:
        """The result of an operator on constants."""
        if operation == "Constant":
            return self._constant(attributes)
        if not read or read[0] is None:
            raise Refusal("it has no input, and it is not a Constant")
        arrays = [each if each is None else np.asarray(each) for each in read]
        self.left -= _count(operation, arrays)
        if self.left < 0:
            raise Refusal("it computes more numbers than the file holds")
        with np.errstate(all="ignore"):
            return np.asarray(_folded(operation, arrays, attributes))

    def _constant(self, attributes: Attributes) -> np.ndarray:
        attribute: Any
        name, attribute = next(iter(attributes.by_name.items()), ("", None))
        if name == "value":
            return self.tensor(attribute.t)
        if name in ("value_float", "value_floats"):
            return np.array(attribute.f if name == "value_float" else attribute.floats, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(attribute.i if name == "value_int" else attribute.ints, np.int64)
        raise Refusal("it is a Constant that is neither a tensor nor numbers")


def shape_of(value: Value, attributes: Attributes) -> np.ndarray:
    """The result of the operator Shape."""
    if value.rank is None:
        raise Refusal("the file does not record how many axes its input has")
    sizes = value.shape[slice(attributes.integer("start", 0), attributes.integer("end", len(value.shape)))]
    return _sizes(np.array(sizes, object))


def _sizes(array: Any) -> np.ndarray:
    """The array as integers, if it does not contain a name."""
    array = np.array(array, object) if isinstance(array, str | int) else array
    named = any(isinstance(size, str) for size in array.ravel())
    return array if array.dtype != object or named else array.astype(np.int64)


def _count(operation: str, arrays: list[Any]) -> int:
    """How many numbers an operator will compute."""
    present = [array for array in arrays if array is not None]
    if operation in ARITHMETIC:
        return math.prod(np.broadcast_shapes(*(array.shape for array in present)))
    if operation in ("ConstantOfShape", "Expand"):
        sizes = present[-1].ravel()
        return math.prod(max(int(size), 1) for size in sizes if not isinstance(size, str))
    if operation == "Gather" and len(present) > 1:
        return present[1].size * max(present[0].size // max(min(present[0].shape, default=1), 1), 1)
    return sum(array.size for array in present)


def _folded(operation: str, arrays: list[Any], attributes: Attributes) -> Any:
    first, *rest = arrays
    if operation in ARITHMETIC:
        if any(array.dtype == object for array in arrays):
            raise Refusal("it computes with the number of rows")
        return ARITHMETIC[operation](*arrays)
    if operation in ("Identity", "Dropout"):
        return first
    if operation == "Cast":
        to = attributes.integer("to", 0)
        if first.dtype == object and to == 7:
            return first
        return first.astype(DTYPES[to])
    if operation == "Concat":
        return _sizes(np.concatenate(arrays, attributes.integer("axis", 0)))
    if operation == "Gather":
        return _sizes(first.take(rest[0], attributes.integer("axis", 0)))
    if operation in ("Squeeze", "Unsqueeze"):
        axes = integers(rest, 0, attributes, "axes")
        if operation == "Squeeze":
            return np.squeeze(first, None if axes is None else tuple(axes))
        return np.expand_dims(first, tuple(axes or ()))
    if operation == "Transpose":
        return first.transpose(attributes.integers("perm") or None)
    if operation == "Reshape":
        return first.reshape([first.shape[i] if size == 0 else int(size) for i, size in enumerate(rest[0])])
    if operation == "Slice":
        for axis, part in slices(rest, attributes):
            first = first[(slice(None),) * (axis % first.ndim) + (part,)]
        return _sizes(first)
    if operation in ("ConstantOfShape", "Expand"):
        fill = attributes.by_name["value"].t if "value" in attributes.by_name else None
        fill = ZERO if fill is None else tensor(fill, None)
        value, shape = (first, rest[0]) if operation == "Expand" else (fill, first)
        if shape.dtype == object and value.size == 1:
            return value.reshape(())  # the same number for every row
        return np.broadcast_to(value, np.broadcast_shapes(value.shape, tuple(int(size) for size in shape)))
    raise Refusal("it reads constants alone, and is none of the operators that are computed in advance")
