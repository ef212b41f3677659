"""The attributes of an ONNX node, and the reasons for which a node is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Refusal(Exception):
    """Why a node can't be part of an MLP, as a sentence about the node: "it ..."."""

    place: int | None = None  # the index of the refused node among the nodes read, if it is an earlier one


class Attributes:
    """A node's attributes, each of the type that it must have."""

    def __init__(self, node: Any, folder: str | None) -> None:
        self.by_name = {attribute.name: attribute for attribute in node.attribute}
        self.folder = folder

    def number(self, name: str, default: float) -> float:
        value = self._field(name, "f") if name in self.by_name else np.float32(default)
        if not np.isfinite(value):
            raise Refusal(f"its attribute {name} is {value}")
        return float(value)

    def integer(self, name: str, default: int) -> int:
        return self._field(name, "i") if name in self.by_name else default

    def integers(self, name: str) -> list[int] | None:
        """The attribute of this name, a list of integers; None if the node does not have it."""
        return list(self.by_name[name].ints) if name in self.by_name else None

    def numbers(self, name: str) -> np.ndarray:
        return np.array(self.by_name[name].floats if name in self.by_name else [], np.float32)

    def text(self, name: str, default: str) -> str:
        return self._field(name, "s").decode(errors="replace") if name in self.by_name else default

    def _field(self, name: str, field: str) -> Any:
        if not self.by_name[name].HasField(field):
            raise Refusal(f"its attribute {name} is of another type")
        return getattr(self.by_name[name], field)


def integers(rest: Sequence[Any], i: int, attributes: Attributes, name: str) -> list[int] | None:
    """A list of integers: input `i` in newer models, an attribute in older ones. None without either."""
    if len(rest) > i and rest[i] is not None:
        return [int(each) for each in np.ravel(rest[i])]
    return attributes.integers(name)


def slices(rest: Sequence[Any], attributes: Attributes) -> list[tuple[int, slice]]:
    """The axes along which a Slice takes a part, each with the part."""
    starts, ends, axes, steps = (
        integers(rest, i, attributes, name) for i, name in enumerate(("starts", "ends", "axes", "steps"))
    )
    if starts is None or ends is None:
        raise Refusal("it has no starts or no ends")
    far = 2**31 - 1  # this number, or a larger one, means to the end or, if negative, to the beginning
    return [
        (axis, slice(start, None if (end >= far if step > 0 else end <= -far) else end, step))
        for start, end, axis, step in zip(
            starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True
        )
    ]


class Given(Attributes):
    """Attributes that are given by their values and do not come from a node."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.by_name, self.folder = values, None

    def text(self, name: str, default: str) -> str:
        return self.by_name.get(name, default)

    def _field(self, name: str, field: str) -> Any:
        return self.by_name[name]
