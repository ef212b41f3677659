"""ONNX models that are chains of affine functions, scalings and activations.

The graph is walked once, in its order: a value is a constant, or the steps that lead to it from the input.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, missing, public
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._check import Check, compare_given
from jaxneuron.convert._onnx.activations import after_scaling, as_meant, between_scalings, clip
from jaxneuron.convert._onnx.activations import steps as activation_steps
from jaxneuron.convert._onnx.attributes import Attributes, Refusal
from jaxneuron.convert._onnx.file import DOUBLE, DTYPES, FLOATS, read_model, tensor
from jaxneuron.convert.steps import Scaling, Step, assemble

# Operators that are no part of an activation, beside those whose names begin with Reduce.
APART = {
    *("ArgMax", "ArgMin", "Concat", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Reshape"),
    *("Shape", "Slice", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze"),
}


class _Value(NamedTuple):
    """A value computed from the input: the value before it, and the step from there."""

    before: Any  # _Value, None for the input
    step: Step
    rank: int | None  # the number of its axes, if the file records it
    units: int | None  # the size of its last axis, likewise
    kind: int  # its dtype, by ONNX's number
    row: int | None = None  # of the input alone: the product of all axes but the first

    def then(self, *steps: Step, **changed: Any) -> _Value:
        value = self
        for step in steps:
            value = value._replace(before=value, step=step)._simplified()
        return value._replace(**changed)

    def _simplified(self) -> _Value:
        """With one activation in place of another and the scalings beside it, where ours has parameters."""
        before = self.before
        if (scale := _multiple(before)) is not None and (one := after_scaling(scale, self.step)) is not None:
            return self._replace(before=before.before, step=one)
        if before is not None and (after := _multiple(self)) is not None:
            scale = _multiple(before.before)
            one = None if scale is None else between_scalings(scale, before.step, after)
            if one is not None:
                return self._replace(before=before.before.before, step=one)
        return self

    def steps(self) -> list[Step]:
        value, steps = self, []
        while value.before is not None:
            steps.append(value.step)
            value = value.before
        return steps[::-1]


def _multiple(value: _Value | None) -> float | None:
    """The number that a value is a multiple by, if its step is that and nothing more."""
    if value is None or value.before is None or not isinstance(value.step, Scaling):
        return None
    mean, scale, shift = value.step
    if np.ndim(scale) or np.any(mean) or np.any(shift):
        return None
    return as_meant(float(scale), double=value.kind == DOUBLE)


@public
@concrete
def from_onnx(
    source: Any, *, output: str | None = None, dtype: DTypeLike | None = None, check: Check = None
) -> MLP:
    """A network from an ONNX model, activations and scalings included.

    Args:
      source: the path of an `.onnx` file, or an `onnx.ModelProto`. The graph up to the output must be a
        chain of Gemm, MatMul, Add, Sub, Mul and Div by constants, BatchNormalization of rows, activations,
        and nodes that change nothing in inference: Identity, Dropout, Cast, Flatten. A Flatten in front
        means that the network takes its rows flattened.
      output: the name of the value to end at, which may be an inner one; needed if there are several
        outputs.
      dtype: to convert the layers to; None keeps theirs.
      check: `(rows, outputs)` of the model, with which the network is compared.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: a file that is not whole, or holds far more than an MLP; a graph that is not an MLP, naming
        its first node that can't be part of one; weights in a file outside the model's folder; a number too
        large for `dtype`; outputs other than those of `check`. TypeError: another kind of source, another
        dtype. OSError: what the file system says. ImportError: without the extra `onnx`.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Scalings are folded in
    float64 and their layer rounded once; a mean of more than 16 deviations is subtracted in a layer of its
    own. Held by tests/interop/test_onnx.py.

    Example:
      `from_onnx("model.onnx", output="/Add_output_0")`
    """
    try:
        import onnx
    except ImportError:
        raise missing("onnx", "onnx") from None
    if isinstance(source, (str, os.PathLike)):
        model, folder = read_model(source, onnx), os.path.dirname(os.path.abspath(source))
    elif isinstance(source, onnx.ModelProto):
        model, folder = source, None
    else:
        raise BadType(
            f"source must be a path or an onnx.ModelProto, got {type(source).__name__}; "
            f"pass the path of an .onnx file"
        )
    if not isinstance(output, str | None):
        raise BadType(f"output must be the name of a value, got {type(output).__name__}; pass a string")
    value, n_in = _walk(model, folder, output)
    like = DTYPES[value.kind] if value.kind in FLOATS else np.float32
    steps = value.steps()
    mlp = assemble(steps, "source", n_in=n_in, like=like, dtype=dtype)
    compare_given(mlp, check, steps=steps)
    return mlp


def _walk(model: Any, folder: str | None, output: str | None) -> tuple[_Value, int | None]:
    graph = model.graph
    ends = [end.name for end in graph.output] if output is None else [output]
    nodes = _leading_to(ends, graph.node)
    tensors = {proto.name: proto for proto in graph.initializer}
    inputs = [value for value in graph.input if value.name not in tensors]
    values: dict[str, Any] = {value.name: _input(value) for value in inputs}
    opset = max([o.version for o in model.opset_import if o.domain in ("", "ai.onnx")], default=1)
    for i, node in enumerate(nodes):
        try:
            read = [_read(name, values, tensors, folder) for name in node.input]
            result = _result(node, read, opset, folder)
        except (Refusal, ValueError) as refusal:
            hint = _end_before(i, nodes, ends, values)
            name = f"{node.name!r} ({node.op_type})" if node.name else f"{node.op_type} of {node.output[:1]}"
            raise BadValue(f"source: node {name[:120]} can't be part of an MLP: {refusal}{hint}") from None
        values |= dict.fromkeys(node.output[:1], result)
    found = [values.get(end) for end in ends]
    if len(found) != 1:
        raise BadValue(
            f"source must have one output, got {len(ends)} ({', '.join(map(repr, ends[:10])):.300}); "
            f"pass output= to choose one"
        )
    if not isinstance(found[0], _Value):
        known = dict.fromkeys(name for node in graph.node for name in node.output[:1])
        raise BadValue(
            f"output must be a value that is computed from the input, got {ends[0]!r:.80}; "
            f"there are {', '.join(map(repr, list(known)[:10])):.300}"
        )
    start = found[0]
    while start.before is not None:
        start = start.before
    return found[0], start.units


def _end_before(i: int, nodes: list[Any], ends: list[str], values: dict[str, Any]) -> str:
    """Advice to end before node `i`: at the last value from which alone all the rest is computed.

    Any other lies inside something: exporters write an activation, such as gelu, as several nodes, of which
    the first may be a scaling.
    """
    computed = {name for name, value in values.items() if isinstance(value, _Value)}
    needed, operation = set(ends).union(*(node.input for node in nodes[i:])), nodes[i].op_type
    apart = operation in APART or operation.startswith("Reduce")
    for node in reversed(nodes[:i]):
        name = node.output[0]
        if needed & computed == {name} and (apart or _is_whole(node.op_type, operation, values[name])):
            steps = values[name].steps()
            layers = sum(isinstance(step, Affine) for step in steps)
            if not all(isinstance(step, Scaling) for step in steps):
                bare = not apart and isinstance(steps[-1], Affine)
                after = f", at layer {layers} without its activation" if bare else ""
                return f"; pass output={name!r:.80} to end before it{after}"
        needed = needed.difference(node.output).union(node.input)
    return ""


def _is_whole(made_by: str, operation: str, value: _Value) -> bool:
    """Whether a value is all of a layer or of an activation, where `operation`, which is refused, follows."""
    if isinstance(value.step, Affine):
        return value.step.b is not None or operation not in ("Add", "Sub")
    return not isinstance(value.step, Scaling) or made_by in ("Gemm", "BatchNormalization")


def _leading_to(ends: Iterable[str], nodes: Any) -> list[Any]:
    """The nodes that the ends depend on, in their order."""
    wanted, kept = set(ends), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _input(value: Any) -> _Value:
    kind = value.type.tensor_type
    sizes = [size.dim_value for size in kind.shape.dim]  # 0 if it is not fixed
    rank = len(sizes) if kind.HasField("shape") else None
    units, row = sizes[-1] if sizes else 0, math.prod(sizes[1:])
    return _Value(
        None, "identity", rank, units if units > 0 else None, kind.elem_type, row if row > 0 else None
    )


def _read(name: str, values: dict[str, Any], tensors: dict[str, Any], folder: str | None) -> Any:
    """A value by its name: None for an input that is omitted."""
    if not name:
        return None
    if name not in values:
        if name not in tensors:
            raise Refusal(f"it reads {name[:60]!r}, which no earlier node computes")
        values[name] = tensor(tensors[name], folder)
    return values[name]


def _result(node: Any, read: list[Any], opset: int, folder: str | None) -> Any:
    """The array or the _Value that a node computes."""
    if node.domain not in ("", "ai.onnx"):
        raise Refusal(f"it is of the domain {node.domain[:60]!r}")
    attributes = Attributes(node, folder)
    data = [value for value in read if isinstance(value, _Value)]
    if not data:
        return _constant(node, read, attributes)
    value, operation = data[0], node.op_type
    if operation == "Mul" and len(data) == 2:
        return _product(*data)
    if len(data) != 1:
        raise Refusal("it joins two values that are computed from the input")
    if operation == "Cast":
        if attributes.integer("to", 0) not in FLOATS:
            raise Refusal("it casts to a type that is not floating-point")
        return value._replace(kind=attributes.integer("to", 0))
    if value.kind not in FLOATS:
        raise Refusal(
            "its values are integers, which wrap around in ONNX but would be floats here; begin with a Cast"
        )
    if operation in ("Gemm", "MatMul"):
        return _affine(operation, read, attributes)
    if operation in ("Add", "Sub", "Mul", "Div"):
        return _scaled(operation, read, attributes)
    if read[0] is not value:
        raise Refusal("its first input is a constant")
    if operation == "BatchNormalization":
        return _batch_norm(node, read, attributes, opset)
    if operation == "Flatten":
        return _flatten(value, attributes.integer("axis", 1))
    if operation == "Dropout" and (
        (len(read) > 2 and np.any(read[2])) or (opset < 7 and not attributes.integer("is_test", 0))
    ):
        raise Refusal("it is in training mode")
    if operation in ("Identity", "Dropout"):
        return value
    if operation == "Neg":
        return value.then(Scaling(scale=-1.0))
    if operation == "Pow" and np.ndim(read[1]) == 0 and read[1] == 2:
        return value.then("square")
    if operation == "Clip":
        return value.then(clip(read[1:], attributes, opset=opset, double=value.kind == DOUBLE))
    double = value.kind == DOUBLE
    return value.then(*activation_steps(operation, attributes, opset=opset, double=double, rank=value.rank))


def _constant(node: Any, read: list[Any], attributes: Attributes) -> np.ndarray:
    if node.op_type == "Constant" and len(node.attribute) == 1:
        (attribute,) = node.attribute
        if attribute.name == "value":
            return tensor(attribute.t, attributes.folder)
        if attribute.name in ("value_float", "value_floats"):
            return np.array(attribute.f if attribute.name == "value_float" else attribute.floats, np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.array(attribute.i if attribute.name == "value_int" else attribute.ints, np.int64)
    if len(read) == 1 and read[0] is not None:
        if node.op_type == "Identity":
            return read[0]
        if node.op_type == "Transpose" and read[0].ndim == 2:
            order = list(attributes.by_name["perm"].ints) if "perm" in attributes.by_name else [1, 0]
            if sorted(order) == [0, 1]:
                return read[0].transpose(order)
        if node.op_type == "Cast" and attributes.integer("to", 0) in FLOATS:
            return read[0].astype(DTYPES[attributes.integer("to", 0)])
    raise Refusal("it reads nothing that is computed from the input, and it is not a Constant")


def _affine(operation: str, read: list[Any], attributes: Attributes) -> _Value:
    value, w = read[0], read[1] if len(read) > 1 else None
    if not isinstance(value, _Value) or w is None:
        raise Refusal("its weights stand on the left: it is not x @ w")
    if w.ndim != 2:
        raise Refusal(f"its weights must have two axes, got {w.shape}")
    if operation == "MatMul":
        return value.then(Affine(w), units=w.shape[1])
    if attributes.integer("transA", 0):
        raise Refusal("it transposes its input (transA), which mixes the rows")
    w = w.T if attributes.integer("transB", 0) else w
    alpha, beta = attributes.number("alpha", 1.0), attributes.number("beta", 1.0)
    b = None if len(read) < 3 or read[2] is None else _vector(read[2], w.shape[1])
    if b is not None and alpha == beta == 1:
        return value.then(Affine(w, np.broadcast_to(b, w.shape[1:])), rank=2, units=w.shape[1])
    added = [] if b is None else [Scaling(mean=-beta * b.astype(np.float64))]
    return value.then(Affine(w), Scaling(scale=alpha), *added, rank=2, units=w.shape[1])


def _vector(constant: np.ndarray, units: int | None) -> np.ndarray:
    """A constant that is the same for every row: one number, or one for each unit."""
    if constant.size != (constant.shape or (1,))[-1]:
        raise Refusal(f"its constant must be one number or one for each unit, got the shape {constant.shape}")
    vector = constant.reshape(() if constant.size == 1 else -1)
    if vector.ndim and units not in (None, len(vector)):
        raise Refusal(f"its constant must have {units} numbers, one for each unit, got {len(vector)}")
    return vector


def _scaled(operation: str, read: list[Any], attributes: Attributes) -> _Value:
    left = isinstance(read[0], _Value)
    value, constant = (read[0], read[1]) if left else (read[1], read[0])
    if constant is None:
        raise Refusal("it has one input")
    axis = attributes.integer("axis", -1)  # of opset 6
    if axis != -1 and value.rank != axis + constant.ndim:
        raise Refusal("its constant does not stand on the last axis")
    if value.rank is not None and constant.ndim > value.rank:
        raise Refusal(f"its constant has more axes, {constant.shape}, than its input")
    c = _vector(constant, value.units).astype(np.float64)
    units = len(c) if c.ndim else value.units
    if operation == "Add":
        if isinstance(value.step, Affine) and value.step.b is None and value.before is not None:
            # a layer's bias, kept bit for bit
            bias = np.broadcast_to(_vector(constant, value.units), value.step.w.shape[1:])
            return value._replace(step=Affine(value.step.w, bias))
        return value.then(Scaling(mean=-c), units=units)
    if operation == "Sub":
        return value.then(Scaling(mean=c) if left else Scaling(scale=-1.0, shift=c), units=units)
    if operation == "Div" and not left:
        raise Refusal("it divides by a value that is computed from the input")
    with np.errstate(divide="ignore"):
        return value.then(Scaling(scale=c if operation == "Mul" else 1 / c), units=units)


def _product(a: _Value, b: _Value) -> _Value:
    """x * x, and x times a gate of x, as exporters write silu and its like."""
    if a is b:
        return a.then("square")
    for x, gate in ((a, b), (b, a)):
        if gate.before is x and gate.step in ("sigmoid", "hard_sigmoid"):
            return x.then("silu" if gate.step == "sigmoid" else "hard_swish")
        inner = gate.before
        if gate.step == "tanh" and inner is not None and inner.step == "softplus" and inner.before is x:
            return x.then("mish")
    raise Refusal("it multiplies two values that are computed from the input")


def _batch_norm(node: Any, read: list[Any], attributes: Attributes, opset: int) -> _Value:
    value, *rest = read
    if attributes.integer("training_mode", 0) or len([name for name in node.output if name]) > 1 or (
        opset < 7 and not attributes.integer("is_test", 0)
    ):  # fmt: skip
        raise Refusal("it is in training mode")
    if value.rank != 2:
        raise Refusal(
            f"it normalises axis 1, which is the last of rows (batch, units) only, "
            f"got {value.rank or 'unknown'} axes"
        )
    if len(rest) != 4 or any(constant is None for constant in rest):
        raise Refusal("its scale, bias, mean and variance must be constants")
    scale, shift, mean, variance = (_vector(constant, value.units).astype(np.float64) for constant in rest)
    with np.errstate(all="ignore"):
        return value.then(
            Scaling(mean, scale / np.sqrt(variance + attributes.number("epsilon", 1e-5)), shift)
        )


def _flatten(value: _Value, axis: int) -> _Value:
    rank = value.rank
    if rank is not None and axis < 0:
        axis += rank
    if rank == 2 and axis == 1:
        return value
    if axis != 1 or value.before is not None:
        raise Refusal("it merges axes other than those of one row, or does not stand at the start")
    return value._replace(rank=2, units=value.row)
