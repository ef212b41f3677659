"""The command line: `jaxneuron demo`, `info`, `convert`, `run` and `plot`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import signal
import statistics
import sys
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import jax
import numpy as np

import jaxneuron
from jaxneuron import gates, plot
from jaxneuron._activations import BY_NAME
from jaxneuron._arrays import as_operand
from jaxneuron._files import read, replacing
from jaxneuron._params import MLP
from jaxneuron._rows import read_rows, writing_rows
from jaxneuron.convert._cli import add_convert, described

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILE = 16_384  # rows, fewer where they are wide
NUMBERS = 2**22  # in a tile's widest layer
GATES = ("and", "or", "nand", "xor")
# Nothing of the day and the machine: the same picture is the same file.
PICTURES = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 after one line of error."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is stopped tidies up
    try:
        options = _parser().parse_args(arguments)
        options.command(options)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # `jaxneuron info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, TypeError, ImportError) as error:
        return _fail(str(error))
    except Exception as error:  # JAX has many: no such device, out of memory, NaN where NaNs are hunted
        return _fail(f"{type(error).__name__}: {error}")
    return 0


def _fail(message: str) -> int:
    print(f"jaxneuron: {' '.join(message.split())}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; see {self.prog} --help"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxneuron",
        description="Evaluate artificial neurons and multilayer perceptrons.",
        epilog="Computes in float32; set JAX_ENABLE_X64=1 for float64.",
    )
    parser.add_argument("--version", action="version", version=f"jaxneuron {jaxneuron.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo", help="gates as neurons, and a trained network against its published outputs"
    )
    demo.set_defaults(command=_demo)

    info = commands.add_parser("info", help="print the summary of a network")
    info.add_argument(
        "model", metavar="MODEL", type=Path, help=".safetensors, .onnx, .keras, .npz or .stablehlo"
    )
    info.add_argument("--output", metavar="NAME", help="the value of an .onnx file to end at")
    info.set_defaults(command=_info)

    add_convert(commands)

    run = commands.add_parser(
        "run",
        help="evaluate a network on the rows of a file",
        description="Evaluate a network on the rows of a file. CSV may have a header; none is written.",
    )
    run.add_argument("model", metavar="MODEL", type=Path, help="a .safetensors file of jaxneuron.save")
    run.add_argument("rows", metavar="ROWS", type=Path, help="inputs, one row each: .npy or .csv")
    run.add_argument("-o", dest="out", metavar="OUT", type=Path, required=True, help="outputs: .npy or .csv")
    run.add_argument("--force", action="store_true", help="replace OUT if it exists")
    run.set_defaults(command=_run)

    draw = commands.add_parser(
        "plot",
        help="draw gates, activations, their error, or a network",
        description="Draw a picture of gates, activations, their error, or a network.",
    )
    draw.add_argument(
        "what", metavar="WHAT", nargs="+", help=f"gates; {', '.join(GATES)}; one or more activations, such "
        "as sigmoid tanh; error, of sigmoid in ULP; or a .safetensors file of jaxneuron.save",
    )  # fmt: skip
    draw.add_argument(
        "-o", dest="out", metavar="FILE", type=Path, required=True, help="picture: .png, .svg or .pdf"
    )
    draw.add_argument("--force", action="store_true", help="replace FILE if it exists")
    draw.set_defaults(command=_plot)
    return parser


def _info(options: argparse.Namespace) -> None:
    print(described(options.model, options.output))


def _run(options: argparse.Namespace) -> None:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError("run: needs the tqdm library; pip install 'jaxneuron[cli]'") from None
    mlp = jax.device_put(read(options.model))
    n_in = mlp.layers[0].w.shape[0]
    rows = min(TILE, max(1, NUMBERS // max(n_in, *(layer.w.shape[1] for layer in mlp.layers), 1)))
    tiles = read_rows(options.rows, n_in, rows)
    with (
        writing_rows(options.out, options.force) as write,
        tqdm(unit=" rows", unit_scale=True, disable=None) as progress,
    ):
        for i, tile in enumerate(tiles):
            # After a whole tile the last one is padded to it: one shape, compiled once.
            padding = rows - len(tile) if i else 0
            x = as_operand(np.pad(tile, ((0, padding), (0, 0))), str(options.rows), "rows")
            outputs = jaxneuron.mlp_forward(mlp, x)[: len(tile)]
            # NumPy's files have no bfloat16.
            write(np.asarray(outputs, np.float32 if outputs.dtype.name == "bfloat16" else None))
            progress.update(len(tile))


def _plot(options: argparse.Namespace) -> None:
    out = options.out
    if out.suffix not in PICTURES:
        raise ValueError(
            f"{out}: pictures must go to a .png, .svg or .pdf file, got {out.suffix or 'no suffix'!r}"
        )
    if out.exists() and not options.force:
        raise ValueError(f"{out}: exists; pass --force to replace it")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot: needs the matplotlib library; pip install 'jaxneuron[plot]'") from None
    figure = Figure(figsize=plot.SIZE, layout="constrained")
    _draw(options.what, figure)
    with rc_context({"svg.hashsalt": "jaxneuron"}), replacing(out) as file:
        figure.savefig(file, format=out.suffix[1:], dpi=200, metadata=PICTURES[out.suffix])


def _draw(what: list[str], figure: Figure) -> None:
    if all(name in BY_NAME for name in what):
        plot.plot_activation(*what, ax=figure.add_subplot())
    elif what == ["gates"]:
        figure.set_size_inches(plot.GATES_SIZE)
        plot.plot_gates(figure)
    elif what == ["error"]:
        plot.plot_error(ax=figure.add_subplot())
    elif len(what) == 1 and what[0] in GATES:
        figure.set_size_inches(plot.DECISION_SIZE)
        plot.plot_decision(getattr(gates, what[0].upper()), ax=figure.add_subplot())
    elif len(what) == 1 and what[0].endswith(".safetensors"):
        plot.plot_network(read(what[0]), ax=figure.add_subplot())
    else:
        wrong = next(name for name in what if name not in BY_NAME)
        near = difflib.get_close_matches(wrong, ["gates", "error", *GATES, *BY_NAME], n=1, cutoff=0.6)
        known = len(what) > 1 and (wrong in near or wrong.endswith(".safetensors"))
        hint = "; draw it alone" if known else f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"plot: WHAT must be gates, {', '.join(GATES)}, error, a .safetensors file, or activations "
            f"({', '.join(sorted(BY_NAME))}), got {wrong!r}{hint}"
        )


def _demo(options: argparse.Namespace) -> None:
    print("Gates as neurons, sigmoid(w . x + b); above 0.5 reads as true:\n")
    names = ("AND", "OR", "NAND", "XOR")
    tables = [gates.truth_table(getattr(gates, name)) for name in names]
    print("  x1 x2" + "".join(f"{name:>14}" for name in names))
    for row, (x1, x2) in enumerate(tables[0][0]):
        values = [float(outputs.reshape(-1)[row]) for _, outputs in tables]
        print(f"   {x1}  {x2}" + "".join(f"{v:>8.4f} {v > 0.5!s:>5}" for v in values))

    print("\nQLKNN 7_11, a trained surrogate of a plasma-turbulence code, with its scalings folded in:\n")
    data = resources.files("jaxneuron") / "data"
    with resources.as_file(data / "qlknn_7_11.safetensors") as path:
        stored = read(path)
    print(jaxneuron.summary(stored))
    mlp = jax.device_put(stored)
    with resources.as_file(data / "qlknn_7_11_reference.npz") as path, np.load(path) as reference:
        inputs, published = reference["inputs"], reference["outputs"]
    outputs = jaxneuron.mlp_forward(mlp, inputs)
    errors = np.abs(np.asarray(outputs, np.float64) - published).max(axis=0) / np.abs(published).max(axis=0)
    print(
        f"\n{len(inputs)} published rows in {outputs.dtype}: greatest error {errors.max():.1e} "
        f"of the output's scale (the largest published value of that output)"
    )
    rate = _rows_per_second(mlp, inputs.min(axis=0), inputs.max(axis=0))
    print(f"100,000 random rows: {rate:,.0f} rows per second on {jax.devices()[0]}")


def _rows_per_second(mlp: MLP, low: np.ndarray, high: np.ndarray, n: int = 100_000) -> float:
    rows = jax.device_put(np.random.default_rng(0).uniform(low, high, (n, len(low))))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        jaxneuron.mlp_forward(mlp, rows).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return n / statistics.median(seconds[1:])  # the first call compiles
