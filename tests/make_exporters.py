"""Makes the ONNX files in tests/data/exporters/: networks with every activation, written by two exporters.

    pip install torch onnxscript jax2onnx; python -m tests.make_exporters

The files in the repository were written by torch 2.13.0 (onnxscript 0.7.2) and jax2onnx 0.17.1 (jax 0.10.2).
Weights are random. What the exporters record about the machine is removed.
"""

import contextlib
import functools
import io
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx

FOLDER = Path(__file__).parent / "data" / "exporters"
TORCH = [(False, 9), (False, 17), (False, 20), (True, 18), (True, 23)]  # dynamo, opset


def torch_activations(nn, opset):
    """Yields the activations of PyTorch that jaxneuron has."""
    yield from (nn.GELU(), nn.GELU("tanh"), nn.Softplus(), nn.Softplus(2.0), nn.SiLU(), nn.SELU(), nn.ELU())
    yield from (nn.ELU(0.3), nn.LeakyReLU(), nn.LeakyReLU(0.2), nn.PReLU(), nn.Hardsigmoid(), nn.Hardswish())
    yield from (nn.ReLU6(), nn.Hardtanh(), nn.Hardtanh(-2.0, 3.0), nn.Softsign(), nn.Mish(), nn.LogSigmoid())
    yield from (nn.Sigmoid(), nn.Tanh(), nn.ReLU())
    if opset >= 12:  # the first opset with Celu
        yield from (nn.CELU(), nn.CELU(0.3))


def exported_by_torch(net, rows, *, dynamo, opset):
    import torch

    every = (
        {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)}
        if dynamo
        else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), (torch.from_numpy(rows),), file, input_names=["x"], output_names=["y"],
            opset_version=opset, dynamo=dynamo, **every,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def by_torch(dynamo, opset):
    import torch

    torch.manual_seed(0)
    parts = (part for a in torch_activations(torch.nn, opset) for part in (torch.nn.Linear(4, 4), a))
    return exported_by_torch(
        torch.nn.Sequential(*parts), np.zeros((5, 4), np.float32), dynamo=dynamo, opset=opset
    )


def by_jax2onnx():
    import jax2onnx

    nn, partial = jax.nn, functools.partial
    activations = [
        partial(nn.gelu, approximate=False), nn.gelu, nn.silu, lambda z: z * nn.sigmoid(1.702 * z), nn.softplus,
        lambda z: z * jnp.tanh(jnp.logaddexp(z, 0.0)), nn.elu, partial(nn.elu, alpha=0.3), partial(nn.celu, alpha=0.3), nn.selu,
        nn.relu, nn.relu6, nn.leaky_relu, lambda z: jnp.maximum(z, 0.1 * z), nn.hard_tanh, nn.hard_sigmoid,
        nn.hard_swish, nn.soft_sign, nn.log_sigmoid, jnp.square, jnp.tanh, lambda z: 1 / (1 + jnp.exp(-z)),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(5, 4)).astype(np.float32) for _ in activations]

    def forward(x):
        for layer, activation in zip(layers, activations, strict=True):
            x = activation(x @ layer[:4] + layer[4])
        return x

    return jax2onnx.to_onnx(forward, [("batch", 4)])


def without_notes(model):
    """Removes file names, line numbers and versions of the machine that made the model; returns the model."""
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    return model


MADE = {
    **{
        f"torch_{'dynamo' if dynamo else 'script'}_{opset}": functools.partial(by_torch, dynamo, opset)
        for dynamo, opset in TORCH
    },
    "jax2onnx": by_jax2onnx,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, make in MADE.items():
        onnx.save(without_notes(make()), FOLDER / f"{name}.onnx")
