"""`jaxneuron run MODEL ROWS -o OUT`: evaluates a network on a file of rows; a later run can resume it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxneuron
from jaxneuron._errors import missing
from jaxneuron._evaluate.batches import default_tile
from jaxneuron._evaluate.columns import HEADERS, Inputs
from jaxneuron._evaluate.devices import output_row
from jaxneuron._evaluate.evaluate import evaluate_rows
from jaxneuron._evaluate.journal import Run, fingerprint, resumable
from jaxneuron._evaluate.readers import STREAM, read_rows
from jaxneuron._evaluate.writers import ParquetWriter, row_writer
from jaxneuron._files import read
from jaxneuron._members import blank_one
from jaxneuron._params import MLP


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="evaluate a network on the rows of a file",
        description="Evaluate a network on the rows of a file of any length, in bounded memory. CSV input "
        "may have a header; CSV output has none. If both the columns and the network's inputs have names, "
        "columns are taken by name, else by position; a note on standard error says which. A run that is "
        "stopped leaves OUT.partial and OUT.journal, with which --resume continues it.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="the network, a .safetensors file of jaxneuron.save; for stacked networks, OUT has the columns "
        "of each member",
    )
    parser.add_argument(
        "rows",
        metavar="ROWS",
        type=Path,
        help="the rows of inputs: .npy, .csv, .parquet, or - for CSV on standard input",
    )
    parser.add_argument(
        "-o", dest="out", metavar="OUT", type=Path, required=True,
        help="the outputs: .npy, .csv, .parquet, or - for CSV on standard output",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="replace OUT if it exists, and discard an unfinished run"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an unfinished run with the same inputs and settings"
    )
    parser.add_argument(
        "--header",
        choices=HEADERS,
        default="auto",
        help="whether the first line of CSV is a header; auto, the default, takes it for one if it holds no "
        "number, or if it holds the names of the network's inputs",
    )
    parser.add_argument("--tile", metavar="ROWS", type=int, help="how many rows a device evaluates at a time")
    parser.add_argument("--devices", metavar="N", type=int, help="how many devices to use; all by default")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    try:
        from tqdm import tqdm
    except ImportError:
        raise missing("tqdm", "cli", "run:") from None
    started = time.perf_counter()
    mlp = read(options.model)
    n_in = mlp.layers[0].w.shape[-2]
    notes: list[str] = []
    inputs = Inputs(n_in, mlp.inputs, options.header, notes.append)
    rows, kind = read_rows(options.rows, inputs), row_writer(options.out)
    row = output_row(mlp, rows.dtype)
    rows.computed = row.dtype
    dtype = np.dtype(np.float32 if row.dtype.name == "bfloat16" else row.dtype)  # files have no bfloat16
    tile = default_tile(mlp) if options.tile is None else options.tile
    devices = _devices(options.devices)
    batch = jax.ShapeDtypeStruct((tile, n_in), row.dtype)
    facts = _facts(options, tile, devices, jaxneuron.explain(blank_one(mlp), batch))
    if options.resume and not facts:
        raise ValueError(
            f"run: --resume must have files as ROWS and OUT, got {options.rows} and {options.out}; "
            f"leave it out"
        )
    if options.out == STREAM:
        opened: contextlib.AbstractContextManager[Run] = contextlib.nullcontext(Run(sys.stdout.buffer))
    else:
        names = _columns(mlp, row.shape)
        pack = functools.partial(kind.pack, names=names) if issubclass(kind, ParquetWriter) else None
        opened = resumable(options.out, facts, force=options.force, resume=options.resume, pack=pack)
    with opened as run:
        writer, before = kind(run.file, math.prod(row.shape), dtype), run.done["rows"]

        def write(chunk: np.ndarray) -> None:
            if chunk.ndim == 3:  # a row of OUT holds the outputs of all members
                chunk = chunk.swapaxes(0, 1).reshape(chunk.shape[1], -1)
            writer.write(chunk.astype(dtype, copy=False))
            run.advance(len(chunk), int(np.isnan(chunk).any(axis=1).sum()), rows.place)

        def tell() -> None:
            while notes:
                tqdm.write(f"jaxneuron: {notes.pop(0)}", sys.stderr)

        def report(done: int, _: int | None) -> None:
            tell()  # only when rows are done: if the command fails before, the error is its only line
            bar.update(before + done - bar.n)
            if options.stops:
                raise KeyboardInterrupt

        with tqdm(total=rows.count, initial=before, unit=" rows", unit_scale=True, disable=None) as bar:
            chunks = rows.chunks(before, run.done["place"])
            evaluate_rows(mlp, chunks, out=write, tile=tile, devices=devices, progress=report)
            tell()
        if facts and fingerprint(options.rows) != facts["rows"]:
            raise ValueError(f"{options.rows}: must not change while it is read, but did; run again")
        writer.finish(run.done["rows"])
    done, seconds = run.done, time.perf_counter() - started
    now = f", the last {done['rows'] - before:,} of them" if before else ""
    print(
        f"jaxneuron: {done['rows']:,} rows, {done['nan_rows']:,} with NaN{now} in {seconds:.1f} s",
        file=sys.stderr,
    )


def _columns(mlp: MLP, row: tuple[int, ...]) -> Sequence[str]:
    """The names of the columns of outputs; for a stack, those of every member."""
    *members, n_out = row
    names = mlp.outputs or [f"y{i}" for i in range(n_out)]
    return [f"member{m}_{name}" for m in range(*members) for name in names] if members else names


def _devices(n: int | None) -> list[jax.Device]:
    devices = jax.local_devices()
    if n is not None and not 1 <= n <= len(devices):
        raise ValueError(
            f"run: --devices must be from 1 to {len(devices)}, the number of devices here, got {n}; "
            f"leave it out for all"
        )
    return devices[:n]


def _facts(
    options: argparse.Namespace, tile: int, devices: list[jax.Device], evaluator: str
) -> dict[str, object] | None:
    """All that determines the bits of OUT; None if ROWS or OUT is not a file: then no run can be resumed."""
    if STREAM in (options.rows, options.out) or not options.rows.is_file():
        return None
    with open(options.model, "rb") as model:
        digest = hashlib.file_digest(model, "sha256").hexdigest()
    settings = ("jax_enable_x64", "jax_default_matmul_precision")
    return {
        "model": digest,
        "rows": fingerprint(options.rows),
        "header": options.header,
        "tile": tile,
        "jaxneuron": jaxneuron.__version__,
        "jax": jax.__version__,
        "device": f"{devices[0].device_kind}, {platform.node()}",
        "evaluator": evaluator,
        **{name: getattr(jax.config, name) for name in settings},
    }
