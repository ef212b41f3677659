"""`jaxneuron convert IN OUT`: a network's file as another kind of file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from jaxneuron._counts import summary
from jaxneuron._names import from_text
from jaxneuron.convert._files import OPTIONAL, SUFFIXES, TAKES, WRITERS, kind_of, read_any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="turn a network's file into another kind of file",
        description=f"Turn a network's file into another kind of file, by their suffixes: {SUFFIXES}.",
        epilog="A .npz file holds w0, b0, w1, b1, ... A .stablehlo file is a compiled program, OUT only.",
    )
    parser.add_argument(
        "source",
        metavar="IN",
        type=Path,
        help="jaxneuron's or PyTorch's .safetensors, .onnx, .keras, .h5, .npz",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help=SUFFIXES)
    parser.add_argument(
        "--activation", metavar="NAME", help="of the hidden layers, where IN does not hold it; or 'ELU(0.5)'"
    )
    parser.add_argument("--final-activation", metavar="NAME", help="of the last layer, likewise")
    parser.add_argument(
        "--prefix", metavar="P", help="the names' part before the network's own, of PyTorch's file"
    )
    parser.add_argument(
        "--layers",
        metavar="A,B",
        type=lambda names: names.split(","),
        help="of PyTorch's file, or Keras's weights: the names of the network's layers in order; "
        "the others are left out",
    )
    parser.add_argument(
        "--outputs",
        metavar="A:B",
        type=_slice,
        help="of PyTorch's file and of .onnx: the units of the last layer to keep, such as 0:6",
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


def _convert(options: argparse.Namespace) -> None:
    source, out = options.source, options.out
    if out.suffix not in WRITERS:
        raise ValueError(f"{out}: must be {SUFFIXES}, got {out.suffix or 'no suffix'!r}")
    if os.path.lexists(out) and not options.force:
        raise ValueError(f"{out}: exists; pass --force to replace it")
    wanted = {name: value for name in ("torch", "weights") if (value := getattr(options, name))}
    for name, suffix in (("torch", ".safetensors"), ("weights", ".stablehlo")):
        if name in wanted and out.suffix != suffix:
            raise ValueError(f"{out}: --{name} is for {suffix} files; leave it out")
    kind = kind_of(source)
    given = {
        name: from_text(value) if "activation" in name else value
        for name in {option for takes in TAKES.values() for option in takes}
        if (value := getattr(options, name)) is not None
    }
    if kind == ".stablehlo":
        raise ValueError(
            f"{source}: is a compiled program, which holds no layers to convert; "
            f"convert the file it was made from"
        )
    if wrong := sorted(given.keys() - set(TAKES[kind])):
        verb, it = ("does", "it") if len(wrong) == 1 else ("do", "them")
        raise ValueError(f"{source}: {_flags(wrong)} {verb} not apply to this kind of file; leave {it} out")
    if missing := [name for name in TAKES[kind] if name not in OPTIONAL | given.keys()]:
        raise ValueError(f"{source}: does not say {_flags(missing)}; pass it")
    mlp = read_any(source, given | ({"dtype": options.dtype} if options.dtype else {}))
    WRITERS[out.suffix](mlp, out, **wanted)
    print(summary(mlp))


def _slice(text: str) -> slice:
    try:
        start, stop = (int(end) if end else None for end in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be A:B, the first unit and that after the last, got {text!r}"
        ) from None
    return slice(start, stop)


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
