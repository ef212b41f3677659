"""ONNX models that tests make, and their outputs in float64 by ONNX's reference evaluator."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.draws import generator

RNG = generator()


def model(nodes, constants, n_in=4, kind=TensorProto.FLOAT, opset=20, shape=None):
    """Returns a model from x to y. A node is its operator, its inputs, its outputs and its attributes."""
    ends = [
        helper.make_tensor_value_info("x", kind, shape or ["batch", n_in]),
        helper.make_empty_tensor_value_info("y"),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, i, o, **a) for op, i, o, a in nodes], "g", ends[:1], ends[1:],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", opset)])


def widened(proto):
    """Returns the model in float64."""
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64))
                )
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
            )
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return wide


def forward64(proto, x):
    """Returns the outputs of the model in float64."""
    return ReferenceEvaluator(widened(proto)).run(None, {"x": x.astype(np.float64)})[0]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)
