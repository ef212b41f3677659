"""The peers outside JAX: PyTorch, ONNX Runtime, NumPy, scikit-learn. See contenders.py for their form."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jax import Array

from bench.cases import Case
from bench.timing import CORES
from jaxneuron import MLP
from jaxneuron.convert import to_onnx

Call = Callable[[], Any]


def faster(calls: list[Call], seconds: float = 0.1) -> Call:
    """The call with the shortest best time, if a library has two ways and either may be faster."""
    best = dict.fromkeys(calls, np.inf)
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call in calls:
            start = time.perf_counter()
            call()
            best[call] = min(best[call], time.perf_counter() - start)
    return min(calls, key=best.__getitem__)


# ---- PyTorch ----


def tensor(array: Array) -> Any:
    import torch

    if array.dtype == ml_dtypes.bfloat16:  # NumPy and PyTorch can't exchange this dtype
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def torch_module(case: Case, mlp: MLP) -> Any:
    """An `nn.Module` with `linear` for each layer or, for many networks, `baddbmm`, a product with a bias."""
    import torch
    from torch import nn

    torch.set_num_threads(CORES)
    in_place = {
        "sigmoid": torch.sigmoid_, "tanh": torch.tanh_, "relu": torch.relu_, "identity": lambda z: z,
        "silu": functools.partial(nn.functional.silu, inplace=True),
        "softmax": functools.partial(torch.softmax, dim=-1), "sin": torch.sin_,
        "mish": functools.partial(nn.functional.mish, inplace=True),
        "LeakyReLU(0.2)": functools.partial(nn.functional.leaky_relu, negative_slope=0.2, inplace=True),
    }  # fmt: skip
    activations = [in_place[case.activation]] * (len(case.sizes) - 2) + [in_place[case.final_activation]]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.ParameterList(tensor(w if case.members else w.T) for w, _ in mlp.layers)
            self.b = nn.ParameterList(tensor(b[:, None] if case.members else b) for _, b in mlp.layers)

        def forward(self, x: Any) -> Any:
            if case.shared:
                x = x.expand(case.members, -1, -1)
            for w, b, activation in zip(self.w, self.b, activations, strict=True):
                z = torch.baddbmm(b, x, w) if case.members else nn.functional.linear(x, w, b)
                x = activation(z)
            return x

    return Network().eval().requires_grad_(False)


def torch_eager(case: Case, mlp: MLP, x: Array) -> Call:
    import torch

    module, rows = torch_module(case, mlp), tensor(x)

    def call() -> Any:
        with torch.inference_mode():
            return module(rows)

    return call


def torch_compiled(case: Case, mlp: MLP, x: Array) -> Call:
    """Inductor with frozen weights, as PyTorch advises for inference on CPUs, with tuning in large cases."""
    import torch

    if not (shutil.which(os.environ.get("CXX", "g++"))):
        raise NotImplementedError("torch.compile needs a C++ compiler, and there is none")
    import torch._dynamo
    import torch._inductor.config

    torch._dynamo.reset()
    torch._inductor.config.freezing = True
    torch._inductor.config.autotune_num_choices_displayed = 0
    torch._inductor.config.max_autotune_report_choices_stats = False
    tuned = case.operations > 1e8 and not case.members
    module, rows = torch_module(case, mlp), tensor(x)
    compiled = torch.compile(module, dynamic=False, mode="max-autotune" if tuned else "default")

    def call() -> Any:
        with torch.no_grad():  # freezing and inference_mode exclude each other
            return compiled(rows)

    return call


# ---- ONNX Runtime ----


def onnx_runtime(case: Case, mlp: MLP, x: Array) -> Call:
    """A session with all graph optimisations and packed weights; by `run` or by bound arrays, if faster."""
    import onnxruntime

    if case.dtype == "bfloat16":
        raise NotImplementedError("ONNX Runtime has no bfloat16 products on CPU")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = CORES
    options.log_severity_level = 3
    model = onnx_population(case, mlp) if case.members else onnx_network(mlp)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = np.array(x)
    feed = {"input": rows}
    shape = (*((case.members,) if case.members else ()), case.rows, case.sizes[-1])
    binding, output = session.io_binding(), np.zeros(shape, rows.dtype)
    source, target = (onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in (rows, output))
    binding.bind_ortvalue_input("input", source)
    binding.bind_ortvalue_output("output", target)

    def bound() -> Any:
        session.run_with_iobinding(binding)
        return target.numpy()

    return faster([bound, lambda: session.run(None, feed)[0]])


def onnx_network(mlp: MLP) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        to_onnx(mlp, Path(folder) / "network.onnx")
        return (Path(folder) / "network.onnx").read_bytes()


def onnx_population(case: Case, mlp: MLP) -> bytes:
    """An ONNX model with a batched MatMul and an Add for each layer."""
    from onnx import TensorProto, helper, numpy_helper

    operators = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "identity": "Identity"}
    nodes, weights, name = [], [], "input"
    for i, ((w, b), activation) in enumerate(zip(mlp.layers, mlp.activations, strict=True)):
        last = i == len(mlp.layers) - 1
        weights += [
            numpy_helper.from_array(np.asarray(w), f"w{i}"),
            numpy_helper.from_array(np.asarray(b)[:, None], f"b{i}"),
        ]
        nodes += [
            helper.make_node("MatMul", [name, f"w{i}"], [f"p{i}"]),
            helper.make_node("Add", [f"p{i}", f"b{i}"], [f"z{i}"]),
            helper.make_node(operators[activation], [f"z{i}"], ["output" if last else f"y{i}"]),
        ]
        name = f"y{i}"
    shapes = {
        "input": (*(() if case.shared else (case.members,)), case.rows, case.sizes[0]),
        "output": (case.members, case.rows, case.sizes[-1]),
    }
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    graph = helper.make_graph(nodes, "population", ends[:1], ends[1:], weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()


# ---- NumPy ----


def in_numpy(case: Case, mlp: MLP, x: Array) -> Call:
    """Products into arrays allocated before, and everything else in place."""
    if case.dtype == "bfloat16":
        raise NotImplementedError("NumPy's BLAS has no bfloat16")

    def sigmoid(z: Any) -> None:
        np.negative(z, out=z)
        np.exp(z, out=z)
        z += 1
        np.reciprocal(z, out=z)

    def silu(z: Any) -> None:
        gate = z.copy()
        sigmoid(gate)
        z *= gate

    def softmax(z: Any) -> None:
        z -= z.max(axis=-1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=-1, keepdims=True)

    def mish(z: Any) -> None:
        z *= np.tanh(np.logaddexp(z, 0))

    in_place = {
        "sin": lambda z: np.sin(z, out=z), "mish": mish,
        "LeakyReLU(0.2)": lambda z: np.maximum(z, np.float32(0.2) * z, out=z),
        "sigmoid": sigmoid, "silu": silu, "softmax": softmax, "identity": lambda z: None,
        "tanh": lambda z: np.tanh(z, out=z), "relu": lambda z: np.maximum(z, 0, out=z),
    }  # fmt: skip
    rows = np.array(x)
    layers = [
        (np.array(w), np.array(b[:, None] if case.members else b), in_place[str(activation)])
        for (w, b), activation in zip(mlp.layers, mlp.activations, strict=True)
    ]
    spaces = [np.empty(np.broadcast_shapes((*rows.shape[:-1], 1), b.shape), rows.dtype) for _, b, _ in layers]

    def call() -> Any:
        x = rows
        for (w, b, activation), z in zip(layers, spaces, strict=True):
            np.matmul(x, w, out=z)
            z += b
            activation(z)
            x = z
        return x

    return call


# ---- scikit-learn ----


def scikit_learn(case: Case, mlp: MLP, x: Array) -> Call:
    """`predict` of a regressor or `predict_proba` of a classifier that holds these weights."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if case.members:
        raise NotImplementedError("scikit-learn has no populations")
    if case.dtype == "bfloat16":
        raise NotImplementedError("scikit-learn has no bfloat16")
    names = {"sigmoid": "logistic", "tanh": "tanh", "relu": "relu", "identity": "identity"}
    finals = {"identity": "identity", "sigmoid": "logistic", "softmax": "softmax"}
    for name, known in ((case.activation, names), (case.final_activation, finals)):
        if name not in known:
            place = "at the end" if known is finals else "in hidden layers"
            raise NotImplementedError(f"scikit-learn has no {name} {place}")
    kind = MLPRegressor if case.final_activation == "identity" else MLPClassifier
    model = kind(case.sizes[1:-1], activation=names[case.activation])
    model.coefs_ = [np.array(w) for w, _ in mlp.layers]
    model.intercepts_ = [np.array(b) for _, b in mlp.layers]
    model.n_layers_, model.n_features_in_ = len(case.sizes), case.sizes[0]
    model.n_outputs_, model.out_activation_ = case.sizes[-1], finals[case.final_activation]
    rows = np.array(x)
    if kind is MLPRegressor:
        return lambda: model.predict(rows)
    if case.sizes[-1] == 1:
        return lambda: model.predict_proba(rows)[:, 1:]  # the columns are 1 - p and p
    return lambda: model.predict_proba(rows)
