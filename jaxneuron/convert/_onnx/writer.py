"""Networks as ONNX files: for every layer a Gemm and an activation."""

from __future__ import annotations

import os

import jax
import numpy as np

from jaxneuron._arrays import concrete
from jaxneuron._atomic import replacing
from jaxneuron._errors import BadValue, missing, public
from jaxneuron._files import as_path
from jaxneuron._params import MLP
from jaxneuron.convert._onnx.activations import OPSET, nodes
from jaxneuron.convert.steps import network

# ONNX's numbers for the dtypes.
KINDS = {"float32": 1, "float16": 10, "float64": 11, "bfloat16": 16}


@public
@concrete
def to_onnx(mlp: MLP, path: str | os.PathLike[str]) -> None:
    """Write a network to an ONNX file.

    Args:
      mlp: an `MLP` whose arrays all have one dtype.
      path: the file. An existing file is replaced, in one step, once the new one is complete.

    The graph goes from `input (batch, n_in)` to `output (batch, n_out)`, with any batch size, in opset 20. It
    has a Gemm and an activation for every layer.

    Raises:
      ValueError: an activation is a function of your own; the layers have several dtypes; a float64 network
        has an activation whose parameters ONNX stores in float32; `mlp` is a stack of networks.
      TypeError: `mlp` is not an `MLP`.
      OSError: the file can't be written.
      ImportError: the extra `onnx` is not installed.

    Numerics: the weights are the network's, bit for bit, and `from_onnx` returns the same network. Tested by
    tests/interop/test_to_onnx.py, which runs the files in ONNX Runtime.

    Example:
      `to_onnx(jaxneuron.gates.XOR, "xor.onnx")`
    """
    network(mlp)
    path = as_path(path)
    try:
        import onnx
    except ImportError:
        raise missing("onnx", "onnx") from None
    dtypes = {np.dtype(leaf.dtype).name for leaf in jax.tree.leaves(mlp)}
    if len(dtypes) != 1 or not dtypes <= KINDS.keys():
        raise BadValue(
            f"layers must be of one dtype of {', '.join(KINDS)}, got {', '.join(sorted(dtypes))}; "
            f"convert with from_pairs(mlp.layers, dtype=..., ...)"
        )
    (dtype,) = dtypes
    graph_nodes, tensors, name = [], [], "input"
    for i, ((w, b), activation) in enumerate(zip(mlp.layers, mlp.activations, strict=True)):
        last = i == len(mlp.layers) - 1
        arrays = {f"layers.{i}.{field}": array for field, array in (("w", w), ("b", b)) if array is not None}
        tensors += [onnx.numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in arrays.items()]
        plain = activation == "identity"
        z, y = f"layers.{i}.z", "output" if last else f"layers.{i}.y"
        graph_nodes.append(onnx.helper.make_node("Gemm", [name, *arrays], [y if plain else z]))
        if not plain:
            graph_nodes += nodes(activation, z, y, dtype)
        name = y
    ends = ("input", mlp.layers[0].w.shape[0]), ("output", mlp.layers[-1].w.shape[1])
    values = [onnx.helper.make_tensor_value_info(n, KINDS[dtype], ["batch", size]) for n, size in ends]
    graph = onnx.helper.make_graph(graph_nodes, "mlp", values[:1], values[1:], tensors)
    model = onnx.helper.make_model(
        graph, producer_name="jaxneuron", ir_version=9, opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model)
    with replacing(path) as file:
        file.write(model.SerializeToString())
