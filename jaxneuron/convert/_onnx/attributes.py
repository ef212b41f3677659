"""The attributes of an ONNX node, and the reasons for which a node is refused."""

from __future__ import annotations

from typing import Any

import numpy as np


class Refusal(Exception):
    """Why a node can't be part of an MLP, as a sentence about the node: "it ..."."""


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

    def text(self, name: str, default: str) -> str:
        return self._field(name, "s").decode(errors="replace") if name in self.by_name else default

    def _field(self, name: str, field: str) -> Any:
        if not self.by_name[name].HasField(field):
            raise Refusal(f"its attribute {name} is of another type")
        return getattr(self.by_name[name], field)
