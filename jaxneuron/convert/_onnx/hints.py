"""Advice for a model with a refused node: at which value before that node to end."""

from __future__ import annotations

from typing import Any

from jaxneuron._params import Affine
from jaxneuron.convert._onnx.attributes import Refusal
from jaxneuron.convert._onnx.values import Value
from jaxneuron.convert._scalings import Scaling

# Operators that are never part of an activation. Neither are those whose names begin with Reduce.
APART = {
    *("ArgMax", "ArgMin", "Concat", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Reshape"),
    *("Shape", "Slice", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze"),
}


def end_before(i: int, nodes: list[Any], ends: list[str], values: dict[str, Any]) -> str:
    """Advice to end before node `i`, at the last value from which alone everything after it is computed.

    Other values are inside a group of nodes that belong together: exporters write an activation such as gelu
    as several nodes, of which the first may be a scaling.
    """
    later = {name for node in nodes[i:] for name in node.output}
    computed = {name for name, value in values.items() if isinstance(value, Value)} - later
    needed, operation = set(ends).union(*(node.input for node in nodes[i:])), nodes[i].op_type
    for node in reversed(nodes[:i]):
        name = node.output[0]
        readers = [each.op_type for each in nodes[: i + 1] if name in each.input]
        apart = all(each in APART or each.startswith("Reduce") for each in readers)
        value = values[name]
        reached = needed & computed == {name} and not isinstance(value.step, Refusal)
        if reached and (apart or _is_whole(node.op_type, operation, value)):
            steps = value.steps()
            layers = sum(isinstance(step, Affine) for step in steps)
            if not all(isinstance(step, Scaling) for step in steps):
                bare = not apart and isinstance(steps[-1], Affine)
                after = f", at layer {layers} without its activation" if bare else ""
                return f"; pass output={name!r:.80} to end before it{after}"
        needed = needed.difference(node.output).union(node.input)
    return "; export the model without it"


def _is_whole(made_by: str, operation: str, value: Value) -> bool:
    """Whether a value is a complete layer or activation, if the refused `operation` follows it."""
    if isinstance(value.step, Affine):
        return value.step.b is not None or operation not in ("Add", "Sub")
    return not isinstance(value.step, Scaling) or made_by in ("Gemm", "BatchNormalization")
