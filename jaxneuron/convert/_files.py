"""The kinds of network files, by suffix: how to read, write and describe each (`jaxneuron info`)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.typing import DTypeLike

from jaxneuron._atomic import replacing
from jaxneuron._counts import summary
from jaxneuron._file_kinds import kind_of as kind_of_file
from jaxneuron._files import header, is_ours, read, safetensors_library, save
from jaxneuron._members import members_of
from jaxneuron._params import MLP
from jaxneuron.convert._keras.files import arrays_of, is_weights
from jaxneuron.convert._keras.reader import from_keras
from jaxneuron.convert._keras.writer import to_keras
from jaxneuron.convert._npz import read_pairs, write_pairs
from jaxneuron.convert._onnx.reader import from_onnx
from jaxneuron.convert._onnx.writer import to_onnx
from jaxneuron.convert._pairs import from_pairs
from jaxneuron.convert._stablehlo import export, read_exported
from jaxneuron.convert._torch import from_torch, opened, torch_arrays
from jaxneuron.convert.steps import assemble, chain


class Kind(NamedTuple):
    """How a kind of file is read and written, and which options give what such a file does not record."""

    read: Callable[..., MLP] | None
    write: Callable[..., object] | None
    takes: tuple[str, ...] = ()


def described(path: Path, output: str | None = None) -> str:
    """A summary of the network in a file, or the names and shapes of its arrays if it records only these."""
    kind = kind_of(path)
    if output is not None and kind != ".onnx":
        raise ValueError(f"info: --output is for .onnx files, got {path.name}; leave it out")
    if kind == ".stablehlo":
        program = read_exported(path)
        inputs, outputs = (", ".join(map(str, avals)) for avals in (program.in_avals, program.out_avals))
        return f"a compiled program for {', '.join(program.platforms)}: ({inputs}) -> {outputs}"
    if kind == "torch":
        with opened(path) as file:
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            tensors = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    elif kind == ".npz":
        tensors = {
            f"{name}{i}": (array.dtype.name, list(array.shape))
            for i, pair in enumerate(read_pairs(path))
            for name, array in zip("wb", pair, strict=True)
            if array is not None
        }
    elif kind == "weights":
        tensors = arrays_of(path)
    else:
        return summary(read_any(path, {"output": output} if output else {}))
    return "\n".join(
        [
            f"{len(tensors)} arrays, without activations",
            *(f"  {n}  {s}  {d}" for n, (d, s) in tensors.items()),
        ]
    )


def kind_of(path: Path) -> str:
    """The key of `KINDS` for a file: by its contents if they tell the kind, otherwise by its suffix.

    "torch" is a safetensors file of another program; "weights" is an HDF5 file without a Keras model.
    """
    kind = f".{kind_of_file(path) or path.suffix[1:]}"
    if kind == ".hdf5":
        return "weights" if is_weights(path) else kind
    if kind in KINDS and kind != ".safetensors":
        return kind
    content = header(path)
    return ".safetensors" if is_ours(content) or not content.keys() - {"__metadata__"} else "torch"


def read_any(path: Path, given: dict[str, Any]) -> MLP:
    """The network in a file. `given` holds the options that `TAKES` lists for this kind, and `dtype`."""
    reader = KINDS[kind_of(path)].read
    if reader is None:
        raise ValueError(f"{path}: can't be read as a network; read the file it was made from")
    return reader(path, **given)


def _read_safetensors(path: Path, dtype: DTypeLike | None = None) -> MLP:
    mlp = read(path)
    if dtype is None:
        return mlp
    stacked = None if members_of(mlp) is None else "members"
    steps = chain(mlp.layers, mlp.activation, mlp.final_activation)
    converted = assemble(steps, "mlp", dtype=dtype, stacked=stacked)
    return jax.tree.unflatten(jax.tree.structure(mlp), jax.tree.leaves(converted))  # with its names


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


def _read_npz(path: Path, **given: Any) -> MLP:
    return from_pairs(read_pairs(path), **given)


ACTIVATIONS = ("activation", "final_activation")
KINDS = {
    ".safetensors": Kind(_read_safetensors, _write_safetensors),
    "torch": Kind(from_torch, None, (*ACTIVATIONS, "prefix", "layers", "outputs")),
    ".onnx": Kind(from_onnx, to_onnx, ("output", "outputs")),
    ".keras": Kind(from_keras, _write_keras),
    ".hdf5": Kind(from_keras, None),
    "weights": Kind(from_keras, None, (*ACTIVATIONS, "layers")),
    ".npz": Kind(_read_npz, write_pairs, (*ACTIVATIONS, "orientation")),
    ".stablehlo": Kind(None, export),
}
OPTIONAL = {"prefix", "output", "layers", "outputs"}
TAKES = {name: kind.takes for name, kind in KINDS.items()}
WRITERS = {name: kind.write for name, kind in KINDS.items() if kind.write}
SUFFIXES = " or ".join(", ".join(WRITERS).rsplit(", ", 1))
