"""Networks as ONNX files: one Gemm for every layer, and its activation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxneuron._activations import Activation
from jaxneuron._atomic import replacing
from jaxneuron._params import MLP
from jaxneuron.convert._functions import ELU, LeakyReLU
from jaxneuron.convert._out import network

OPSET = 20  # the first with Gelu
# What computes each activation: operators one after the other, with their attributes.
OPERATORS: dict[Any, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("Sigmoid", {}), "relu": ("Relu", {}), "tanh": ("Tanh", {}), "softplus": ("Softplus", {}),
    "elu": ("Elu", {}), "selu": ("Selu", {}), "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}), "softmax": ("Softmax", {"axis": -1}),
    jax.nn.soft_sign: ("Softsign", {}),
}  # fmt: skip
KINDS = {"float32": 1, "float16": 10, "float64": 11, "bfloat16": 16}


def to_onnx(mlp: MLP, path: str | os.PathLike[str]) -> None:
    """Write a network to an ONNX file.

    Args:
      mlp: an `MLP`, of arrays of one dtype.
      path: the file; one that exists is replaced, in one step, when the new one is complete.

    The graph goes from `input (batch, n_in)` to `output (batch, n_out)`, with any batch, in opset 20: a Gemm
    and an activation for every layer.

    Raises:
      ValueError: an activation of your own, layers of several dtypes, a float64 network with an activation
        whose parameters ONNX holds in float32, a stack of networks. TypeError: what is no `MLP`. OSError:
        what the file system says. ImportError: without the extra `onnx`.

    Numerics: the weights are the network's, bit for bit; `from_onnx` gives the network back; held by
    tests/interop/test_onnx.py, which runs the files in ONNX Runtime.
    """
    network(mlp, "to_onnx")
    try:
        import onnx
    except ImportError:
        raise ImportError("to_onnx: needs the onnx library; pip install 'jaxneuron[onnx]'") from None
    dtypes = {np.dtype(leaf.dtype).name for leaf in jax.tree.leaves(mlp)}
    if len(dtypes) != 1 or not dtypes <= KINDS.keys():
        raise ValueError(
            f"to_onnx: layers must be of one dtype of {', '.join(KINDS)}, got {', '.join(sorted(dtypes))}; "
            f"convert with from_pairs(mlp.layers, dtype=...)"
        )
    (dtype,) = dtypes
    nodes, tensors, name = [], [], "input"
    for i, ((w, b), activation) in enumerate(zip(mlp.layers, mlp.activations, strict=True)):
        last = i == len(mlp.layers) - 1
        arrays = {f"layers.{i}.{field}": array for field, array in (("w", w), ("b", b)) if array is not None}
        tensors += [onnx.numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in arrays.items()]
        plain = activation == "identity"
        z, y = f"layers.{i}.z", "output" if last else f"layers.{i}.y"
        nodes.append(onnx.helper.make_node("Gemm", [name, *arrays], [y if plain else z]))
        if not plain:
            nodes += _operators(activation, z, y, dtype, onnx)
        name = y
    ends = ("input", mlp.layers[0].w.shape[0]), ("output", mlp.layers[-1].w.shape[1])
    values = [onnx.helper.make_tensor_value_info(n, KINDS[dtype], ["batch", size]) for n, size in ends]
    graph = onnx.helper.make_graph(nodes, "mlp", values[:1], values[1:], tensors)
    model = onnx.helper.make_model(
        graph, producer_name="jaxneuron", ir_version=9, opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model)
    with replacing(Path(path)) as file:
        file.write(model.SerializeToString())


def _operators(activation: Activation, z: str, y: str, dtype: str, onnx: Any) -> Iterator[Any]:
    if activation == "silu":
        yield onnx.helper.make_node("Sigmoid", [z], [f"{z}.gate"])
        yield onnx.helper.make_node("Mul", [z, f"{z}.gate"], [y])
        return
    if isinstance(activation, LeakyReLU):
        operator, attributes = "LeakyRelu", {"alpha": activation.slope}
    elif isinstance(activation, ELU):
        operator, attributes = "Selu", {"alpha": activation.alpha, "gamma": activation.scale}
    elif activation in OPERATORS:
        operator, attributes = OPERATORS[activation]
    else:
        names = sorted(["identity", *(name for name in OPERATORS if isinstance(name, str))])
        raise ValueError(
            f"to_onnx: activations must be one of {', '.join(names)}, got {activation!r}; "
            f"export runs any of them without jaxneuron"
        )
    inexact = [v for v in attributes.values() if isinstance(v, float) and v != float(np.float32(v))]
    if dtype == "float64" and (inexact or activation == "selu"):
        raise ValueError(
            f"to_onnx: {activation!r} must be in a network of float32 or less, got float64: ONNX holds its "
            f"parameters in float32; convert with from_pairs(mlp.layers, dtype='float32')"
        )
    yield onnx.helper.make_node(operator, [z], [y], **attributes)
