"""Files of networks: the reader and the writer of each kind, and what `jaxneuron info` says of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxneuron._atomic import replacing
from jaxneuron._counts import summary
from jaxneuron._files import FORMAT, header, read, safetensors_library, save
from jaxneuron._params import MLP
from jaxneuron.convert._export import export, read_exported
from jaxneuron.convert._jax import from_pairs
from jaxneuron.convert._keras import from_keras
from jaxneuron.convert._npz import read_pairs, write_pairs
from jaxneuron.convert._onnx import from_onnx
from jaxneuron.convert._out import to_keras, torch_arrays
from jaxneuron.convert._to_onnx import to_onnx
from jaxneuron.convert._torch import from_torch, opened

SUFFIXES = ".safetensors, .onnx, .keras, .npz or .stablehlo"
# Options for what a file of each kind does not say itself.
ACTIVATIONS = ("activation", "final_activation")
TAKES = {
    "jaxneuron": (), "torch": (*ACTIVATIONS, "prefix"), ".onnx": ("output",), ".keras": (),
    ".npz": (*ACTIVATIONS, "orientation"),
}  # fmt: skip


def described(path: Path, output: str | None = None) -> str:
    """The summary of the network in a file, or the names and shapes of its arrays if it records no more."""
    kind = kind_of(path)
    if output is not None and kind != ".onnx":
        raise ValueError(f"info: --output is for .onnx files, got {path.name}; leave it out")
    if kind == ".stablehlo":
        program = read_exported(path)
        inputs, outputs = (", ".join(map(str, avals)) for avals in (program.in_avals, program.out_avals))
        return f"a compiled program for {', '.join(program.platforms)}: ({inputs}) -> {outputs}"
    if kind == "torch":
        with opened(path, "info") as file:
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            tensors = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    elif kind == ".npz":
        tensors = {
            f"{name}{i}": (array.dtype.name, list(array.shape))
            for i, pair in enumerate(read_pairs(path, "info"))
            for name, array in zip("wb", pair, strict=True)
            if array is not None
        }
    else:
        return summary(read_any(path, {"output": output} if output else {}))
    return "\n".join(
        [
            f"{len(tensors)} arrays, without activations",
            *(f"  {n}  {s}  {d}" for n, (d, s) in tensors.items()),
        ]
    )


def kind_of(path: Path) -> str:
    """The kind of a file: "jaxneuron" or "torch", who wrote it, for .safetensors; its suffix otherwise."""
    if path.suffix in (".onnx", ".keras", ".npz", ".stablehlo"):
        return path.suffix
    content = header(path)
    metadata = content.pop("__metadata__", {})
    ours = not content or (isinstance(metadata, dict) and metadata.get("format") == FORMAT)
    return "jaxneuron" if ours else "torch"


def read_any(path: Path, given: dict[str, Any]) -> MLP:
    """The network in a file; `given` holds the options that `TAKES` lists for its kind, and `dtype`."""
    kind = kind_of(path)
    if kind == "jaxneuron":
        mlp = read(path)
        if "dtype" not in given:
            return mlp
        return from_pairs(
            mlp.layers,
            orientation="in_out",
            activation=mlp.activation,
            final_activation=mlp.final_activation,
            **given,
        )
    if kind == ".npz":
        return from_pairs(read_pairs(path, "convert"), **given)
    readers: dict[str, Callable[..., MLP]] = {"torch": from_torch, ".onnx": from_onnx, ".keras": from_keras}
    return readers[kind](path, **given)


def _write_safetensors(mlp: MLP, out: Path, torch: bool = False) -> None:
    if not torch:
        return save(out, mlp)
    content = safetensors_library().numpy.save(torch_arrays(mlp, ""), {"format": "pt"})
    with replacing(out) as file:
        file.write(content)


def _write_keras(mlp: MLP, out: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    model = to_keras(mlp)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        with replacing(out) as file:
            file.write((Path(folder) / "model.keras").read_bytes())


WRITERS: dict[str, Callable[..., object]] = {
    ".safetensors": _write_safetensors,
    ".onnx": to_onnx,
    ".keras": _write_keras,
    ".npz": write_pairs,
    ".stablehlo": export,
}
