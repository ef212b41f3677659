"""`jaxneuron convert IN OUT`: converts a network's file to another kind of file."""

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
        help="convert a network's file to another kind of file",
        description=f"Convert a network's file to another kind of file. Suffixes say which: {SUFFIXES}.",
        epilog="A .npz file holds arrays w0, b0, w1, b1, ... A .stablehlo file is a compiled program: it can "
        "be OUT, but not IN.",
    )
    parser.add_argument(
        "source",
        metavar="IN",
        type=Path,
        help="the file to read: jaxneuron's or PyTorch's .safetensors, .onnx, .keras, .h5 or .npz",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help=f"the file to write: {SUFFIXES}")
    parser.add_argument(
        "--activation",
        metavar="NAME",
        help="the activation of the hidden layers, such as tanh or 'ELU(0.5)', if IN does not record it",
    )
    parser.add_argument(
        "--final-activation",
        metavar="NAME",
        help="the activation of the last layer, if IN does not record it",
    )
    parser.add_argument(
        "--prefix",
        metavar="P",
        help="for a PyTorch file: the beginning of the names of the network's tensors, such as net.",
    )
    parser.add_argument(
        "--layers",
        metavar="A,B",
        type=lambda names: names.split(","),
        help="for a PyTorch file, or Keras weights: the names of the network's layers, in order; other "
        "layers are left out",
    )
    parser.add_argument(
        "--outputs",
        metavar="A:B",
        type=_slice,
        help="for a PyTorch or .onnx file: the units of the last layer to keep, such as 0:6 for the first 6",
    )
    parser.add_argument(
        "--output", metavar="NAME", help="for an .onnx file: the value that the network is to give"
    )
    parser.add_argument(
        "--orientation",
        choices=("in_out", "out_in"),
        help="for an .npz file: whether its weights are (n_in, n_out) or (n_out, n_in)",
    )
    parser.add_argument(
        "--dtype",
        help="the dtype of the weights in OUT: float64, float32, float16 or bfloat16; that of IN by default",
    )
    parser.add_argument(
        "--torch", action="store_true", help="for a .safetensors OUT: write a state_dict for PyTorch"
    )
    parser.add_argument(
        "--weights",
        choices=("inside", "arguments"),
        help="for a .stablehlo OUT: whether the program holds the weights (the default) or takes them as "
        "arguments",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(command=_convert)


def _convert(options: argparse.Namespace) -> None:
    source, out = options.source, options.out
    if out.suffix not in WRITERS:
        raise ValueError(
            f"{out}: must be {SUFFIXES}, got {out.suffix or 'no suffix'!r}; pass a name with such a suffix"
        )
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
        raise ValueError(
            f"{source}: does not record {_flags(missing)}; pass {'it' if len(missing) == 1 else 'them'}"
        )
    mlp = read_any(source, given | ({"dtype": options.dtype} if options.dtype else {}))
    WRITERS[out.suffix](mlp, out, **wanted)
    print(summary(mlp))


def _slice(text: str) -> slice:
    try:
        start, stop = (int(end) if end else None for end in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be A:B, the first unit and the one after the last, got {text!r}; pass 0:6 for the first 6"
        ) from None
    return slice(start, stop)


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
