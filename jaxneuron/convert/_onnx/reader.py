"""Reads ONNX models that are chains of affine functions, scalings and activations.

The graph is walked once, in its order. Each value is either a constant, or the steps by which it is computed
from the input.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, missing, public
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._check import Check, compare_given
from jaxneuron.convert._onnx.attributes import Attributes, Given, Refusal
from jaxneuron.convert._onnx.constants import Constants, shape_of
from jaxneuron.convert._onnx.elementwise import LOGIC, elementwise
from jaxneuron.convert._onnx.file import DTYPES, FLOAT, FLOATS, kind_of, read_model
from jaxneuron.convert._onnx.hints import end_before
from jaxneuron.convert._onnx.patterns import Patterns
from jaxneuron.convert._onnx.rows import OPERATORS as MOVING
from jaxneuron.convert._onnx.rows import chosen, moved
from jaxneuron.convert._onnx.values import ANY, ROWS, Value, per_unit, started
from jaxneuron.convert._scalings import Scaling, batch_norm
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import assemble

MOST_AXES = 8  # an input's first so many axes are tried as axes of a row
# Operators that are linear in their input, but are not supported.
LINEAR = {
    *("AveragePool", "Concat", "Conv", "ConvTranspose", "CumSum", "Einsum", "GatherElements", "GatherND"),
    *("GlobalAveragePool", "Mean", "Pad", "ReduceMean", "ReduceSum", "Resize", "Tile", "Trilu"),
}


@public
@concrete
def from_onnx(
    source: Any,
    *,
    output: str | None = None,
    outputs: slice | None = None,
    dtype: DTypeLike | None = None,
    check: Check = None,
) -> MLP:
    """A network from an ONNX model, with its activations and scalings.

    Args:
      source: the path of an `.onnx` file, or an `onnx.ModelProto`. The graph up to the output must be a chain
        of layers (Gemm, MatMul), scalings by constants (Add, Sub, Mul, Div, Neg, BatchNormalization),
        activations, choices of units (Split, Slice, Gather), and operators that leave the rows as they are:
        Flatten, Reshape, Squeeze, Unsqueeze, Identity, Cast, and Dropout in inference. An activation may be
        one operator, or the group of operators that exporters write for it. Rows of several axes,
        `(batch, 3, 5)`, are taken flattened: 15 inputs.
      output: the name of the value to end at, which may be an inner value of the graph. Required if the model
        has several outputs.
      outputs: the units of that value to keep, such as `slice(0, 3)`. None keeps all.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: `(rows, outputs)`: inputs, and the outputs that the model computed for them. The network is
        compared with these.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded.

    Raises:
      ValueError: the file is incomplete, or holds far more than an MLP would; the graph is not an MLP (the
        message names the first node that can't be part of one); weights are in a file outside the model's
        folder; `outputs` does not name a unit; a weight is too large for `dtype`; the outputs differ from
        those in `check` by more than rounding explains.
      TypeError: `source` is of another type, or `dtype` is not one of float64, float32, float16 and bfloat16.
      OSError: the file can't be read.
      ImportError: the extra `onnx` is not installed.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Scalings are folded into
    a layer in float64, and the layer is rounded once. A mean of more than 16 deviations is subtracted in a
    layer of its own. Where the graph chooses units, the other columns of the last layer are left out; a
    choice before the first layer gives the inputs that are left out weights of 0. A group of operators is
    read as an activation if its numbers are those of the activation, apart from rounding. Softplus is
    log(1 + exp(z)) everywhere; above 20 PyTorch's own is z, which is 2e-9 less. Tested by
    tests/interop/test_onnx.py, test_onnx_nodes.py and test_onnx_exporters.py.

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
    value = _read(model, folder, output)
    n_in, steps = value.start.units, value.steps()
    like = DTYPES[value.kind] if value.kind in FLOATS else np.float32
    mlp = assemble(steps, "source", n_in=n_in, like=like, dtype=dtype, outputs=outputs)
    if outputs is not None:
        steps.append(Units(np.arange(value.units or 0)[outputs]))
    compare_given(mlp, check, steps=steps)
    return mlp


def _read(model: Any, folder: str | None, output: str | None) -> Value:
    """The value to end at.

    If an input has more than two axes, the file does not say which of them hold the units of a row. The last
    axis alone is tried first, then the last two, up to all axes except the first. If all tries are refused,
    the refusal that comes latest in the graph is reported.
    """
    constants, patterns = Constants(model.graph, folder), Patterns()
    inputs = [value for value in model.graph.input if value.name not in constants.protos]
    most = max((len(value.type.tensor_type.shape.dim) for value in inputs), default=1)
    refused: _Refused | None = None
    for row in range(1, max(min(most, MOST_AXES) - 1, 1) + 1):
        values = {value.name: _input(value, row) for value in inputs}
        try:
            return _walk(model, constants, patterns, values, output)
        except _Refused as refusal:
            refused = refusal if refused is None or refusal.place > refused.place else refused
    assert refused
    raise BadValue(str(refused))


class _Refused(Exception):
    """The refusal of a node at a place in the graph."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def _walk(
    model: Any, constants: Constants, patterns: Patterns, values: dict[str, Any], output: str | None
) -> Value:
    graph = model.graph
    ends = [end.name for end in graph.output] if output is None else [output]
    nodes = _leading_to(ends, graph.node)
    opset = max([o.version for o in model.opset_import if o.domain in ("", "ai.onnx")], default=1)
    for i, node in enumerate(nodes):
        try:
            read = [_named(name, values, constants) for name in node.input]
            result = _result(node, read, opset, constants, patterns)
        except (Refusal, ValueError) as refusal:
            raise _refused(refusal, i, nodes, ends, values) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # such as of a None
            misfit = Refusal(f"its inputs don't fit ({error})"[:200])
            raise _refused(misfit, i, nodes, ends, values) from None
        results = result if isinstance(result, list) else [result]
        for name, each in zip(node.output, results, strict=False):
            if isinstance(each, Value) and isinstance(each.step, Refusal) and each.step.place is None:
                each.step.place = i
            values[name] = each
    if len(ends) != 1:
        raise BadValue(
            f"source must have one output, got {len(ends)} ({', '.join(map(repr, ends[:10])):.300}); "
            f"pass output= to choose one"
        )
    found = values.get(ends[0])
    if not isinstance(found, Value):
        known = dict.fromkeys(name for node in graph.node for name in node.output[:1])
        raise BadValue(
            f"output must be a value that is computed from the input, got {ends[0]!r:.80}; "
            f"pass one of {', '.join(map(repr, list(known)[:10])):.300}"
        )
    if isinstance(found.step, Refusal):
        raise _refused(found.step, len(nodes) - 1, nodes, ends, values)
    return found


def _refused(
    refusal: Refusal | ValueError, i: int, nodes: list[Any], ends: list[str], values: dict[str, Any]
) -> _Refused:
    """The refusal of node `i`, or of an earlier node that already could not be read."""
    place = getattr(refusal, "place", None)
    i = i if place is None else place
    hint = end_before(i, nodes, ends, values)
    node = nodes[i]
    name = f"{node.name!r} ({node.op_type})" if node.name else f"{node.op_type} of {node.output[:1]}"
    return _Refused(f"source: node {name[:120]} can't be part of an MLP: {refusal}{hint}", i)


def _leading_to(ends: Iterable[str], nodes: Any) -> list[Any]:
    """The nodes that the ends depend on, in the order of the graph."""
    wanted, kept = set(ends), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _input(value: Any, row: int) -> Value:
    """An input of the graph. Its last `row` axes, or all if there are fewer, hold the units of a row."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return started(Value(None, "identity", kind.elem_type, (ANY, "units")))
    shape = tuple(
        size.dim_value if size.dim_value > 0 else size.dim_param or f"{value.name}.{i}"
        for i, size in enumerate(kind.shape.dim)
    )
    return started(Value(None, "identity", kind.elem_type, shape, min(row, len(shape))))


def _named(name: str, values: dict[str, Any], constants: Constants) -> Any:
    """The value of this name; None for an optional input that is left out."""
    if not name:
        return None
    if name in values:
        return values[name]
    if name not in constants.protos:
        raise Refusal(f"it reads {name[:60]!r}, which no earlier node computes")
    return constants[name]


def _result(node: Any, read: list[Any], opset: int, constants: Constants, patterns: Patterns) -> Any:
    """The result of a node: an array, a Value, or a list of Values."""
    attributes, operation = Attributes(node, constants.folder), node.op_type
    operation = "Add" if operation == "Sum" and len(read) == 2 else operation
    data = [value for value in read if isinstance(value, Value)]
    if node.domain == "ai.onnx.ml" and read[:1] == data:
        return _of_sklearn(operation, data[0], read[1:], attributes)
    if node.domain not in ("", "ai.onnx"):
        raise Refusal(f"it is of the domain {node.domain[:60]!r}")
    if not data:
        return constants.fold(operation, read, attributes)
    value = data[0]
    if operation == "Shape":
        return shape_of(value, attributes)
    if operation == "Cast":
        return _cast(value, attributes.integer("to", 0))
    if operation == "CastLike":
        if isinstance(read[0], np.ndarray):
            return read[0].astype(DTYPES[value.kind])
        return _cast(value, read[1].kind if len(data) == 2 else kind_of(read[1].dtype))
    if value.kind not in FLOATS and operation not in LOGIC:
        raise Refusal(
            "its values are integers, which wrap around in ONNX but would be floats here; begin with a Cast"
        )
    if operation in MOVING:
        return moved(operation, read, attributes, len(node.output))
    if operation in ("Gemm", "MatMul"):
        return _affine(operation, read, attributes)
    if operation == "BatchNormalization":
        return _batch_norm(node, read, attributes, opset)
    if operation == "Dropout" and (
        (len(read) > 2 and np.any(read[2])) or (opset < 7 and not attributes.integer("is_test", 0))
    ):
        raise Refusal("it is in training mode")
    if operation in ("Identity", "Dropout"):
        return value
    if operation in LINEAR and len(data) == 1:
        raise Refusal("it is linear, but not one of the layers, scalings and choices of units that are read")
    return elementwise(operation, read, attributes, opset, patterns)


def _of_sklearn(operation: str, value: Value, rest: list[Any], attributes: Attributes) -> Value:
    """The result of an operator of the domain ai.onnx.ml that is a scaling, a choice of units, or a layer."""
    if operation == "Scaler":
        mean, scale = (per_unit(attributes.numbers(name), value) for name in ("offset", "scale"))
        return value.then(Scaling(mean.astype(np.float64), scale.astype(np.float64)), kind=FLOAT)
    if operation == "ArrayFeatureExtractor" and rest:
        return chosen(value, -1, np.ravel(rest[0]))
    if operation == "LinearRegressor" and attributes.text("post_transform", "NONE") == "NONE":
        targets = attributes.integer("targets", 1)
        w = attributes.numbers("coefficients").reshape(targets, -1).T
        b = attributes.numbers("intercepts")
        read = [value, w] if not b.size else [value, w, b]
        return _affine("Gemm", read, Given({}))._replace(kind=FLOAT)
    raise Refusal(
        "it is of the domain 'ai.onnx.ml', of which Scaler, LinearRegressor and "
        "ArrayFeatureExtractor are read"
    )


def _cast(value: Value, to: int) -> Value:
    if to not in FLOATS and to != value.kind:
        raise Refusal("it casts to a type that is not floating-point")
    return value._replace(kind=to)


def _affine(operation: str, read: list[Any], attributes: Attributes) -> Value:
    value, w = read[0], read[1] if len(read) > 1 else None
    if isinstance(value, Value) and isinstance(w, Value):
        raise Refusal("it multiplies two values that are computed from the input")
    if not isinstance(value, Value) or w is None:
        raise Refusal("its weights stand on the left: it is not x @ w")
    if w.ndim != 2:
        raise Refusal(f"its weights must have two axes, got {w.shape}")
    if operation == "Gemm" and attributes.integer("transA", 0):
        raise Refusal("it transposes its input (transA), which mixes the rows")
    w = w.T if operation == "Gemm" and attributes.integer("transB", 0) else w
    if value.row != 1:
        raise Refusal(f"it multiplies the last axis alone of rows of the shape {value.row_shape}")
    shape = (*value.shape[:-1], w.shape[1])
    if operation == "MatMul":
        return value.then(Affine(w), shape=shape)
    alpha, beta = attributes.number("alpha", 1.0), attributes.number("beta", 1.0)
    layer = value.then(Affine(w), shape=(ROWS, w.shape[1]) if value.rank is None else shape)
    if len(read) < 3 or read[2] is None or beta == 0:
        return layer if alpha == 1 else layer.then(Scaling(scale=alpha))
    if isinstance(read[2], Value):
        raise Refusal("it adds a value that is computed from the input")
    b = per_unit(read[2], layer)
    if alpha == beta == 1:
        return value.then(Affine(w, np.broadcast_to(b, w.shape[1:])), shape=layer.shape)
    return layer.then(Scaling(scale=alpha), Scaling(mean=-beta * b.astype(np.float64)))


def _batch_norm(node: Any, read: list[Any], attributes: Attributes, opset: int) -> Value:
    value, *rest = read
    if attributes.integer("training_mode", 0) or len([name for name in node.output if name]) > 1 or (
        opset < 7 and not attributes.integer("is_test", 0)
    ):  # fmt: skip
        raise Refusal("it is in training mode")
    if not isinstance(value, Value) or value.rank is None or not value.rank - value.row <= 1 < value.rank:
        raise Refusal("it normalises axis 1, which is not an axis of the units")
    if len(rest) != 4 or any(constant is None or isinstance(constant, Value) for constant in rest):
        raise Refusal("its scale, bias, mean and variance must be constants")
    along = (-1, *(1,) * (value.rank - 2))
    scale, shift, mean, variance = (per_unit(constant.reshape(along), value) for constant in rest)
    epsilon = attributes.number("epsilon", 1e-5)
    with np.errstate(all="ignore"):
        return value.then(batch_norm(mean, variance, epsilon, scale, shift))
