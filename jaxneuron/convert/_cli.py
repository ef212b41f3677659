"""`jaxneuron convert IN OUT`, and what `jaxneuron info` says of any file."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxneuron._counts import summary
from jaxneuron._files import FORMAT, header, read, replacing, safetensors_library, save
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
# What a file does not say itself, by where it comes from.
ACTIVATIONS = ("activation", "final_activation")
TAKES = {
    "jaxneuron": (), "torch": (*ACTIVATIONS, "prefix"), ".onnx": ("output",), ".keras": (),
    ".npz": (*ACTIVATIONS, "orientation"),
}  # fmt: skip


def add_convert(commands: Any) -> None:
    """The parser of `jaxneuron convert`, among the `commands`."""
    parser = commands.add_parser(
        "convert",
        help="turn a network's file into another kind of file",
        description=f"Turn a network's file into another kind of file, by their suffixes: {SUFFIXES}.",
        epilog="A .npz file holds w0, b0, w1, b1, ... A .stablehlo file is a compiled program, OUT only.",
    )
    parser.add_argument(
        "source", metavar="IN", type=Path, help="jaxneuron's or PyTorch's .safetensors, .onnx, .keras, .npz"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help=SUFFIXES)
    parser.add_argument(
        "--activation", metavar="NAME", help="of the hidden layers, where IN does not hold it"
    )
    parser.add_argument("--final-activation", metavar="NAME", help="of the last layer, likewise")
    parser.add_argument(
        "--prefix", metavar="P", help="the names' part before the network's own, of PyTorch's file"
    )
    parser.add_argument("--output", metavar="NAME", help="the value of an .onnx file to end at")
    parser.add_argument("--orientation", choices=("in_out", "out_in"), help="of the weights in an .npz file")
    parser.add_argument("--dtype", help="float64, float32, float16 or bfloat16; that of IN if not given")
    parser.add_argument("--torch", action="store_true", help="write a .safetensors file as PyTorch would")
    parser.add_argument(
        "--weights", choices=("inside", "arguments"), help="of a .stablehlo file; inside if not given"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(command=_convert)


def described(path: Path, output: str | None = None) -> str:
    """The summary of the network in a file, or the arrays in it where it tells no more."""
    kind = _kind(path)
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
        return summary(_read(path, {"output": output} if output else {}))
    return "\n".join(
        [
            f"{len(tensors)} arrays, without activations",
            *(f"  {n}  {s}  {d}" for n, (d, s) in tensors.items()),
        ]
    )


def _convert(options: argparse.Namespace) -> None:
    source, out = options.source, options.out
    if out.suffix not in WRITERS:
        raise ValueError(f"{out}: must be {SUFFIXES}, got {out.suffix or 'no suffix'!r}")
    if os.path.lexists(out) and not options.force:
        raise ValueError(f"{out}: exists; pass --force to replace it")
    for name, suffix in (("torch", ".safetensors"), ("weights", ".stablehlo")):
        if getattr(options, name) and out.suffix != suffix:
            raise ValueError(f"{out}: --{name} is for {suffix} files; leave it out")
    kind = _kind(source)
    given = {
        name: value
        for name in {option for takes in TAKES.values() for option in takes}
        if (value := getattr(options, name)) is not None
    }
    if kind == ".stablehlo":
        raise ValueError(
            f"{source}: is a compiled program, which holds no layers to convert; convert what it was made of"
        )
    if wrong := sorted(given.keys() - set(TAKES[kind])):
        raise ValueError(f"{source}: has no use for {_flags(wrong)}; leave it out")
    if missing := [name for name in TAKES[kind] if name not in ("prefix", "output") and name not in given]:
        raise ValueError(f"{source}: does not say {_flags(missing)}; pass it")
    mlp = _read(source, given | ({"dtype": options.dtype} if options.dtype else {}))
    WRITERS[out.suffix](mlp, out, options)
    print(summary(mlp))


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _kind(path: Path) -> str:
    """Who wrote a file: "jaxneuron" or "torch" for .safetensors, the suffix for others."""
    if path.suffix in (".onnx", ".keras", ".npz", ".stablehlo"):
        return path.suffix
    content = header(path, "load")
    metadata = content.pop("__metadata__", {})
    ours = not content or (isinstance(metadata, dict) and metadata.get("format") == FORMAT)
    return "jaxneuron" if ours else "torch"


def _read(path: Path, given: dict[str, Any]) -> MLP:
    kind = _kind(path)
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


def _write_safetensors(mlp: MLP, out: Path, options: argparse.Namespace) -> None:
    if not options.torch:
        return save(out, mlp)
    content = safetensors_library("convert").numpy.save(torch_arrays(mlp, ""), {"format": "pt"})
    with replacing(out) as file:
        file.write(content)


def _write_keras(mlp: MLP, out: Path, options: argparse.Namespace) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    model = to_keras(mlp)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        with replacing(out) as file:
            file.write((Path(folder) / "model.keras").read_bytes())


WRITERS: dict[str, Callable[[MLP, Path, argparse.Namespace], None]] = {
    ".safetensors": _write_safetensors,
    ".onnx": lambda mlp, out, options: to_onnx(mlp, out),
    ".keras": _write_keras,
    ".npz": lambda mlp, out, options: write_pairs(mlp, out),
    ".stablehlo": lambda mlp, out, options: export(mlp, out, weights=options.weights or "inside"),
}
