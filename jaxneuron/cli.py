"""The command line: `jaxneuron demo`, `info`, `convert`, `run` and `plot`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import os
import platform
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
from jaxneuron._evaluate import default_tile, evaluate, output_row
from jaxneuron._files import read, replacing
from jaxneuron._journal import Run, fingerprint, resumable
from jaxneuron._params import MLP
from jaxneuron._rows import STREAM, read_rows, row_writer
from jaxneuron.convert._cli import add_convert, described

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GATES = ("and", "or", "nand", "xor")
# Nothing of the day and the machine: the same picture is the same file.
PICTURES = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 after one line of error."""
    # Signals. Python loses what is raised in JAX's callback for gc, so _run looks here too.
    stops: list[int] = []

    def stop(signum: int, _: object) -> None:
        stops.append(signum)
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread
        for each in (signal.SIGINT, signal.SIGTERM):
            # A shell leaves SIGINT ignored for what is in the background. A run that is stopped tidies up.
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, stop)
    report = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if stops and lost.exc_type is KeyboardInterrupt else report(lost)
    try:
        return _status(_parser(), arguments, argparse.Namespace(stops=stops))
    finally:
        sys.unraisablehook = report


def _status(parser: argparse.ArgumentParser, arguments: list[str] | None, options: argparse.Namespace) -> int:
    try:
        options = parser.parse_args(arguments, options)
        options.command(options)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # `jaxneuron info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        _fail("interrupted" + _notes(error))
        return 130
    except OSError as error:
        return _fail(
            (f"{error.filename}: {error.strerror}" if error.filename else str(error)) + _notes(error)
        )
    except (ValueError, TypeError, ImportError) as error:
        return _fail(str(error))
    except Exception as error:  # JAX has many: no such device, out of memory, NaN where NaNs are hunted
        return _fail(f"{type(error).__name__}: {error}")
    return 0


def _fail(message: str) -> int:
    print(f"jaxneuron: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _notes(error: BaseException) -> str:
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


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
        description="Evaluate a network on the rows of a file of any length, in bounded memory. CSV may have "
        "a header; none is written. A run that was stopped leaves OUT.partial and OUT.journal for --resume.",
    )
    run.add_argument("model", metavar="MODEL", type=Path, help="a .safetensors file of jaxneuron.save")
    run.add_argument(
        "rows",
        metavar="ROWS",
        type=Path,
        help="inputs, one row each: .npy, .csv, .parquet, or - for CSV on stdin",
    )
    run.add_argument(
        "-o", dest="out", metavar="OUT", type=Path, required=True,
        help="outputs: .npy, .csv, .parquet, or - for CSV on stdout",
    )  # fmt: skip
    run.add_argument("--force", action="store_true", help="replace OUT if it exists, and what a run has left")
    run.add_argument("--resume", action="store_true", help="go on where an earlier run of the same ended")
    run.add_argument("--tile", metavar="ROWS", type=int, help="rows that a device evaluates at a time")
    run.add_argument("--devices", metavar="N", type=int, help="how many devices to use; all unless given")
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
    started = time.perf_counter()
    mlp = read(options.model)
    rows, kind = read_rows(options.rows, mlp.layers[0].w.shape[0]), row_writer(options.out)
    row = output_row(mlp, rows.dtype)
    dtype = np.dtype(np.float32 if row.dtype.name == "bfloat16" else row.dtype)  # files have no bfloat16
    tile = default_tile(mlp) if options.tile is None else options.tile
    devices = _devices(options.devices)
    batch = jax.ShapeDtypeStruct((tile, mlp.layers[0].w.shape[0]), row.dtype)
    facts = _facts(options, tile, devices, jaxneuron.explain(mlp, batch))
    if options.resume and not facts:
        raise ValueError(
            f"run: --resume must have files as ROWS and OUT, got {options.rows} and {options.out}"
        )
    if options.out == STREAM:
        opened: contextlib.AbstractContextManager[Run] = contextlib.nullcontext(Run(sys.stdout.buffer))
    else:
        pack = getattr(kind, "pack", None)
        opened = resumable(options.out, facts, force=options.force, resume=options.resume, pack=pack)
    with opened as run:
        writer, before = kind(run.file, row.shape[0], dtype), run.done["rows"]

        def write(chunk: np.ndarray) -> None:
            writer.write(chunk.astype(dtype, copy=False))
            run.advance(len(chunk), int(np.isnan(chunk).any(axis=1).sum()), rows.place)

        def report(done: int, _: int | None) -> None:
            bar.update(before + done - bar.n)
            if options.stops:
                raise KeyboardInterrupt

        with tqdm(total=rows.count, initial=before, unit=" rows", unit_scale=True, disable=None) as bar:
            chunks = rows.chunks(before, run.done["place"])
            evaluate(mlp, chunks, out=write, tile=tile, devices=devices, progress=report)
        if facts and fingerprint(options.rows) != facts["rows"]:
            raise ValueError(f"{options.rows}: must stay as it is while it is read, was changed; run again")
        writer.finish(run.done["rows"])
    done, seconds = run.done, time.perf_counter() - started
    now = f", the last {done['rows'] - before:,} of them" if before else ""
    print(
        f"jaxneuron: {done['rows']:,} rows, {done['nan_rows']:,} with NaN{now} in {seconds:.1f} s",
        file=sys.stderr,
    )


def _devices(n: int | None) -> list[jax.Device]:
    devices = jax.local_devices()
    if n is not None and not 1 <= n <= len(devices):
        raise ValueError(f"run: --devices must be from 1 to {len(devices)}, the devices here, got {n}")
    return devices[:n]


def _facts(
    options: argparse.Namespace, tile: int, devices: list[jax.Device], evaluator: str
) -> dict[str, object] | None:
    """What every bit of the output follows from; None where there is no file to come back to."""
    if STREAM in (options.rows, options.out) or not options.rows.is_file():
        return None
    with open(options.model, "rb") as model:
        digest = hashlib.file_digest(model, "sha256").hexdigest()
    settings = ("jax_enable_x64", "jax_default_matmul_precision")
    return {
        "model": digest,
        "rows": fingerprint(options.rows),
        "tile": tile,
        "jaxneuron": jaxneuron.__version__,
        "jax": jax.__version__,
        "device": f"{devices[0].device_kind}, {platform.node()}",
        "evaluator": evaluator,
        **{name: getattr(jax.config, name) for name in settings},
    }


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
