"""ONNX models that are chains of affine functions, scalings and activations.

The graph is walked once, in its order: a value is a constant, or the steps that lead to it from the input.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._params import MLP, Affine
from jaxneuron.convert._functions import ELU, elu, leaky_relu
from jaxneuron.convert._onnx_file import DTYPES, FLOATS, read_model, tensor
from jaxneuron.convert._steps import Scaling, Step, assemble

PLAIN: dict[str, Step] = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus",
    "Softsign": jax.nn.soft_sign,
}  # fmt: skip

SELU = (1.6732632423543772, 1.0507009873554805)  # alpha and gamma


class _Refusal(Exception):
    """Why a node is no part of an MLP."""


class _Value(NamedTuple):
    """What is computed from the input: the value before it, and the step from there."""

    before: Any  # _Value, None for the input
    step: Step
    rank: int | None  # how many axes it has, where the file says so
    units: int | None  # and how many numbers on the last one
    kind: int  # its element type, by ONNX's number
    row: int | None = None  # of the input: how many numbers a row holds, on all axes but the first

    def then(self, *steps: Step, **changed: Any) -> _Value:
        value = self
        for step in steps:
            value = value._replace(before=value, step=step)
        return value._replace(**changed)

    def steps(self) -> list[Step]:
        value, steps = self, []
        while value.before is not None:
            steps.append(value.step)
            value = value.before
        return steps[::-1]


def from_onnx(source: Any, *, output: str | None = None, dtype: DTypeLike | None = None) -> MLP:
    """A network from an ONNX model, activations and scalings included.

    Args:
      source: the path of an `.onnx` file, or an `onnx.ModelProto`. The graph up to the output must be a
        chain of Gemm, MatMul, Add, Sub, Mul and Div by constants, BatchNormalization of rows,
        activations, and what changes nothing in inference: Identity, Dropout, Cast, Flatten. A Flatten in
        front means that the network takes its rows flattened.
      output: the name of the value to end at, an inner one perhaps; needed where there are several.
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      As for `from_pairs`.

    Raises:
      ValueError: a file that is not whole, or of far more than an MLP; a graph that is no MLP, naming its
        first node that is no part of one; weights in a file outside the model's folder. ImportError:
        without the extra `onnx`.

    Numerics: weights are the source's, bit for bit, where no scaling stands beside them; scalings are folded
    in float64 and rounded once, a mean of more than 16 deviations apart, which is subtracted in a layer of
    its own. Held by tests/interop/test_onnx.py.
    """
    try:
        import onnx
    except ImportError:
        raise ImportError("from_onnx: needs the onnx library; pip install 'jaxneuron[onnx]'") from None
    if isinstance(source, (str, os.PathLike)):
        model, folder = read_model(source, onnx), os.path.dirname(os.path.abspath(source))
    elif isinstance(source, onnx.ModelProto):
        model, folder = source, None
    else:
        raise TypeError(
            f"from_onnx: source must be a path or an onnx.ModelProto, got {type(source).__name__}; "
            f"pass the path of an .onnx file"
        )
    value, n_in = _walk(model, folder, output)
    like = DTYPES[value.kind] if value.kind in FLOATS else np.float32
    return assemble(value.steps(), "from_onnx", n_in=n_in, like=like, dtype=dtype)


def _walk(model: Any, folder: str | None, output: str | None) -> tuple[_Value, int | None]:
    graph = model.graph
    ends = [end.name for end in graph.output] if output is None else [output]
    nodes = _leading_to(ends, graph.node)
    tensors = {proto.name: proto for proto in graph.initializer}
    inputs = [value for value in graph.input if value.name not in tensors]
    values: dict[str, Any] = {value.name: _input(value) for value in inputs}
    opset = max([o.version for o in model.opset_import if o.domain in ("", "ai.onnx")], default=1)
    last = None
    for node in nodes:
        try:
            read = [_read(name, values, tensors, folder) for name in node.input]
            result = _result(node, read, opset, folder)
        except (_Refusal, ValueError) as refusal:
            hint = f"; pass output={last!r:.80} to end before it" if last else ""
            name = f"{node.name!r} ({node.op_type})" if node.name else f"{node.op_type} of {node.output[:1]}"
            raise ValueError(f"from_onnx: node {name[:120]} is no part of an MLP: {refusal}{hint}") from None
        if isinstance(result, _Value):
            last = node.output[0]
        values |= dict.fromkeys(node.output[:1], result)
    found = [values.get(end) for end in ends]
    if len(found) != 1:
        raise ValueError(
            f"from_onnx: output must name one of {', '.join(map(repr, ends[:10])):.300}, got None; "
            f"an MLP has one end"
        )
    if not isinstance(found[0], _Value):
        known = dict.fromkeys(name for node in graph.node for name in node.output[:1])
        raise ValueError(
            f"from_onnx: output must be a value that is computed from the input, got {ends[0]!r:.80}; "
            f"there are {', '.join(map(repr, list(known)[:10])):.300}"
        )
    start = found[0]
    while start.before is not None:
        start = start.before
    return found[0], start.units


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
    sizes = [size.dim_value for size in kind.shape.dim]  # 0 where it is not fixed
    rank = len(sizes) if kind.HasField("shape") else None
    units, row = sizes[-1] if sizes else 0, math.prod(sizes[1:])
    return _Value(
        None, "identity", rank, units if units > 0 else None, kind.elem_type, row if row > 0 else None
    )


def _read(name: str, values: dict[str, Any], tensors: dict[str, Any], folder: str | None) -> Any:
    """A value by its name: None for an input that is left out."""
    if not name:
        return None
    if name not in values:
        if name not in tensors:
            raise _Refusal(f"it reads {name[:60]!r}, which nothing before it gives")
        values[name] = tensor(tensors[name], folder)
    return values[name]


def _result(node: Any, read: list[Any], opset: int, folder: str | None) -> Any:
    """The array or the _Value that a node gives."""
    if node.domain not in ("", "ai.onnx"):
        raise _Refusal(f"it is of the domain {node.domain[:60]!r}")
    attributes = _Attributes(node, folder)
    data = [value for value in read if isinstance(value, _Value)]
    if not data:
        return _constant(node, read, attributes)
    value, operation = data[0], node.op_type
    if operation == "Mul" and len(data) == 2:
        return _swish(*data)
    if len(data) != 1:
        raise _Refusal("it joins two values that are computed from the input")
    if operation == "Cast":
        if attributes.integer("to", 0) not in FLOATS:
            raise _Refusal("it casts to what is no floating-point number")
        return value._replace(kind=attributes.integer("to", 0))
    if value.kind not in FLOATS:
        raise _Refusal(
            "its values are integers, which wrap around in ONNX and would be floats here; begin with a Cast"
        )
    if operation in ("Gemm", "MatMul"):
        return _affine(operation, read, attributes)
    if operation in ("Add", "Sub", "Mul", "Div"):
        return _scaled(operation, read, attributes)
    if read[0] is not value:
        raise _Refusal("its first input is a constant")
    if operation == "BatchNormalization":
        return _batch_norm(node, read, attributes, opset)
    if operation == "Flatten":
        return _flatten(value, attributes.integer("axis", 1))
    if operation == "Dropout" and (
        (len(read) > 2 and np.any(read[2])) or (opset < 7 and not attributes.integer("is_test", 0))
    ):
        raise _Refusal("it is in training mode")
    if operation in ("Identity", "Dropout"):
        return value
    return value.then(*_activation(operation, value, attributes, opset))


class _Attributes:
    """A node's attributes, each of the type that it must have."""

    def __init__(self, node: Any, folder: str | None) -> None:
        self.by_name = {attribute.name: attribute for attribute in node.attribute}
        self.folder = folder

    def number(self, name: str, default: float) -> float:
        value = self._field(name, "f") if name in self.by_name else np.float32(default)
        if not np.isfinite(value):
            raise _Refusal(f"its attribute {name} is {value}")
        return float(value)

    def integer(self, name: str, default: int) -> int:
        return self._field(name, "i") if name in self.by_name else default

    def text(self, name: str, default: str) -> str:
        return self._field(name, "s").decode(errors="replace") if name in self.by_name else default

    def _field(self, name: str, field: str) -> Any:
        if not self.by_name[name].HasField(field):
            raise _Refusal(f"its attribute {name} is of another type")
        return getattr(self.by_name[name], field)


def _constant(node: Any, read: list[Any], attributes: _Attributes) -> np.ndarray:
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
    raise _Refusal("it has no value that is computed from the input, and it is no Constant")


def _affine(operation: str, read: list[Any], attributes: _Attributes) -> _Value:
    value, w = read[0], read[1] if len(read) > 1 else None
    if not isinstance(value, _Value) or w is None:
        raise _Refusal("its weights stand on the left: it is no x @ w")
    if w.ndim != 2:
        raise _Refusal(f"its weights must have two axes, got {w.shape}")
    if operation == "MatMul":
        return value.then(Affine(w), units=w.shape[1])
    if attributes.integer("transA", 0):
        raise _Refusal("it transposes its input (transA), which mixes the rows")
    w = w.T if attributes.integer("transB", 0) else w
    alpha, beta = attributes.number("alpha", 1.0), attributes.number("beta", 1.0)
    b = None if len(read) < 3 or read[2] is None else _vector(read[2], w.shape[1])
    if b is not None and alpha == beta == 1:
        return value.then(Affine(w, np.broadcast_to(b, w.shape[1:])), rank=2, units=w.shape[1])
    added = [] if b is None else [Scaling(mean=-beta * b.astype(np.float64))]
    return value.then(Affine(w), Scaling(scale=alpha), *added, rank=2, units=w.shape[1])


def _vector(constant: np.ndarray, units: int | None) -> np.ndarray:
    """A constant that is the same for every row, as one number or one for each unit."""
    if constant.size != (constant.shape or (1,))[-1]:
        raise _Refusal(
            f"its constant must be one number or one for each unit, got the shape {constant.shape}"
        )
    vector = constant.reshape(() if constant.size == 1 else -1)
    if vector.ndim and units not in (None, len(vector)):
        raise _Refusal(f"its constant must have {units} numbers, one for each unit, got {len(vector)}")
    return vector


def _scaled(operation: str, read: list[Any], attributes: _Attributes) -> _Value:
    left = isinstance(read[0], _Value)
    value, constant = (read[0], read[1]) if left else (read[1], read[0])
    if constant is None:
        raise _Refusal("it has one input")
    axis = attributes.integer("axis", -1)  # of opset 6
    if axis != -1 and value.rank != axis + constant.ndim:
        raise _Refusal("its constant does not stand on the last axis")
    if value.rank is not None and constant.ndim > value.rank:
        raise _Refusal(f"its constant has more axes, {constant.shape}, than its input")
    c = _vector(constant, value.units).astype(np.float64)
    units = len(c) if c.ndim else value.units
    if operation == "Add":
        if isinstance(value.step, Affine) and value.step.b is None and value.before is not None:
            # a layer's bias, as it is
            bias = np.broadcast_to(_vector(constant, value.units), value.step.w.shape[1:])
            return value._replace(step=Affine(value.step.w, bias))
        return value.then(Scaling(mean=-c), units=units)
    if operation == "Sub":
        return value.then(Scaling(mean=c) if left else Scaling(scale=-1.0, shift=c), units=units)
    if operation == "Div" and not left:
        raise _Refusal("it divides by a value that is computed from the input")
    with np.errstate(divide="ignore"):
        return value.then(Scaling(scale=c if operation == "Mul" else 1 / c), units=units)


def _swish(a: _Value, b: _Value) -> _Value:
    """x * sigmoid(x), as exporters write silu."""
    for x, gate in ((a, b), (b, a)):
        if gate.step == "sigmoid" and gate.before is x:
            return x.then("silu")
    raise _Refusal("it multiplies two values that are computed from the input")


def _batch_norm(node: Any, read: list[Any], attributes: _Attributes, opset: int) -> _Value:
    value, *rest = read
    if attributes.integer("training_mode", 0) or len([name for name in node.output if name]) > 1 or (
        opset < 7 and not attributes.integer("is_test", 0)
    ):  # fmt: skip
        raise _Refusal("it is in training mode")
    if value.rank != 2:
        raise _Refusal(
            f"it normalises axis 1, which is the last of rows (batch, units) only, "
            f"got {value.rank or 'unknown'} axes"
        )
    if len(rest) != 4 or any(constant is None for constant in rest):
        raise _Refusal("its scale, bias, mean and variance must be constants")
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
        raise _Refusal("it merges other axes than those of one row, or not at the start")
    return value._replace(rank=2, units=value.row)


def _activation(operation: str, value: _Value, attributes: _Attributes, opset: int) -> Iterator[Step]:
    double = value.kind == 11  # attributes are float32: a float64 network is meant to have just that number

    def equal(number: float, ours: float) -> bool:
        return number == ours if double else np.float32(number) == np.float32(ours)

    if operation in PLAIN:
        yield PLAIN[operation]
    elif operation == "LeakyRelu":
        slope = attributes.number("alpha", 0.01)
        yield "leaky_relu" if equal(slope, 0.01) else leaky_relu(slope)
    elif operation == "Elu":
        yield elu(attributes.number("alpha", 1.0))
    elif operation == "Selu":
        alpha, gamma = (
            attributes.number(name, ours) for name, ours in zip(("alpha", "gamma"), SELU, strict=True)
        )
        yield "selu" if equal(alpha, SELU[0]) and equal(gamma, SELU[1]) else ELU(alpha, gamma)
    elif operation == "HardSigmoid":
        alpha, beta = attributes.number("alpha", 0.2), attributes.number("beta", 0.5)
        if not (equal(alpha, 1 / 6) and beta == 0.5):
            yield Scaling(scale=6 * alpha, shift=6 * beta - 3)
        yield "hard_sigmoid"
    elif operation == "Gelu":
        yield "gelu_tanh" if attributes.text("approximate", "none") == "tanh" else "gelu"
    elif operation == "Swish":
        alpha = attributes.number("alpha", 1.0)
        if alpha == 0:
            raise _Refusal("its attribute alpha is 0, which makes it no activation")
        yield from (Scaling(scale=alpha), "silu", Scaling(scale=1 / alpha))
    elif operation == "Softmax":
        axis = attributes.integer("axis", -1 if opset >= 13 else 1)
        if axis != -1 and axis + 1 != value.rank:
            raise _Refusal(f"it sums over axis {axis}, which is not known to be the last")
        yield "softmax"
    else:
        raise _Refusal("it is neither affine, nor a scaling, nor one of the activations")
