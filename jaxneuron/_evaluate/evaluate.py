"""Evaluates a network on any number of rows: `evaluate`.

    rows  ->  batches  ->  the CPU kernel, or one program on every device  ->  outputs, in order

If rows and outputs are arrays in memory, the kernel reads and writes them in place. Otherwise one batch is
read while another is computed and a third is written:

    the calling thread     cuts batches
    the kernel's thread    evaluates them; where the kernel can't, JAX's devices do
    the writing thread     waits for the outputs and writes them

A batch holds one tile of rows for each device.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jaxneuron._arrays import ArrayLike
from jaxneuron._errors import BadType, public
from jaxneuron._evaluate import batches, gpus
from jaxneuron._evaluate import devices as on_devices
from jaxneuron._evaluate.known import TRACERS, known
from jaxneuron._evaluate.outputs import Progress, Write, as_target, destination, reporting
from jaxneuron._kernels import host
from jaxneuron._params import MLP, check_columns, check_mlp

UNREPORTED = contextlib.nullcontext(lambda done: None)
# How many batches one call of the kernel takes, about 0.1 s of work, if rows need no conversion and no
# progress is reported. Fewer calls are quicker: the kernel's threads wait for each other at the end of each.
UNBROKEN = 8
IN_FLIGHT = 2  # batches that may wait to be written while one more is read

# Starts to evaluate a batch, and returns a function that waits for the outputs.
Compute = Callable[[np.ndarray], Callable[[], np.ndarray]]


@public
def evaluate(
    mlp: MLP,
    rows: ArrayLike | Iterable[ArrayLike],
    *,
    out: np.ndarray | Write | None = None,
    tile: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: bool | Progress = False,
) -> np.ndarray | None:
    """Evaluates a network on any number of rows, in bounded memory, on all devices.

        out[i] = mlp_forward(mlp, rows[i])

    Args:
      mlp: an `MLP`, or a stack of networks: one `MLP` whose arrays all have a leading axis of `members`. All
        members get the same rows, and `out[k]` holds the outputs of member k.
      rows: the inputs, `(n, n_in)`: an array, a memory map, or anything that can be sliced like one, such as
        an HDF5 data set. Or an iterable of such chunks, of any sizes and one dtype, which the calling thread
        reads.
      out: where the outputs go. None: to a new array. An array or a memory map `(n, n_out)`: it is filled. A
        function: it is called with each chunk of outputs `(m, n_out)`, a read-only array, one after the
        other, in order, in a thread of its own. For a stack the shapes are `(members, n, n_out)` and
        `(members, m, n_out)`.
      tile: how many rows a device evaluates at a time; rounded up to a multiple of 16. The default is a power
        of two, chosen so that a tile has about 2^19 numbers (2^23 on a GPU) in the widest layer, of all
        members together.
      devices: devices of this process; all of them by default. The weights are copied to each device once. On
        CPUs the fused kernel evaluates instead of XLA where it can: it reads the weights in place, and uses
        as many threads as an `Evaluator`.
      progress: True shows a bar with rows, rate and remaining time (tqdm, from the extra `cli`). A function
        is called with the number of rows done and the number of all rows, which is None if unknown.

    Returns:
      The outputs: `out`, or a new array, in the promoted dtype of the network and `rows`. None if `out` is a
      function.

    Raises:
      ValueError: if shapes do not fit, members differ in number, integers are too large for JAX's dtypes,
        `out` is read-only or overlaps `rows`, `tile` is below 1, or `devices` names a device twice or one of
        another process.
      TypeError: if `mlp` is not an `MLP`, `tile` is not an integer, an argument is not an array of real
        numbers or has more than numbers, such as a mask or physical units, or anything is a tracer.
      MemoryError: if the network or a tile does not fit on a device whose memory is known.
      ImportError: if `progress=True` and tqdm is not installed.

      Errors that can be known early are raised before anything is computed. An error that `rows`, `out` or
      `progress` raises reaches the caller once every thread has ended; all chunks before it have
      then been written.

    Numerics: each row is within the bounds of `mlp_forward`. A row has the same bits whatever the number of
    rows, its position, the chunks it comes in and the number of devices. Where the fused kernel evaluates,
    they are those of `mlp_forward`. Where JAX evaluates, they are the same for one `tile` on one kind of
    machine, because every batch has one shape and goes to one program. Tested by
    tests/evaluate/test_evaluate.py.

    A process that has evaluated anything must not fork, because JAX has threads. Start other processes with
    the method "spawn".

    Example:
      >>> evaluate(jaxneuron.gates.XOR, [[0, 0], [0, 1], [1, 0], [1, 1]]) > 0.5
      array([[False],
             [ True],
             [ True],
             [False]])
    """
    return evaluate_rows(mlp, rows, out=out, tile=tile, devices=devices, progress=progress)


def evaluate_rows(
    mlp: MLP,
    rows: Any,
    *,
    out: Any = None,
    tile: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: bool | Progress = False,
) -> np.ndarray | None:
    """`evaluate` for the package's own functions: errors don't open with the name `evaluate`."""
    check_mlp(mlp, "pass MLP(layers), parameters first")
    if isinstance(rows, jax.core.Tracer):
        raise BadType(TRACERS)
    check_columns(mlp, rows, "rows")
    of = known(mlp)
    used = on_devices.chosen(devices)
    on_gpus = gpus.are(used)
    if tile is None:
        tile = batches.default_tile(mlp, gpus.NUMBERS) if on_gpus else of.tile
    else:
        tile = batches.whole_lanes(tile)
    size = tile * len(used)
    source, n, dtype = batches.source(rows, of.n_in)
    on_cpu = all(device.platform == "cpu" for device in used)
    network = of.network if on_cpu and of.network.serves(dtype) else None
    result = network.result(dtype) if network else on_devices.output_row(mlp, dtype).dtype
    on_devices.check_memory(of.bytes(), tile * of.numbers * result.itemsize, tile, used)
    plan = network.plan(dtype) if network else None
    array = as_target(out, rows, n, of.shape, result)
    with reporting(progress, n) if progress else UNREPORTED as report:
        if plan and array is not None and isinstance(source, np.ndarray):
            unbroken = not progress and source.dtype == plan.dtype
            _fill(plan, batches.cut(source, n, UNBROKEN * size if unbroken else size), array, report)
            return array
        cut = batches.cut(source, n, size)
        with (
            gpus.copying() if on_gpus else contextlib.nullcontext(np.copyto) as copy,
            _kernel(plan, of.shape) if plan else on_devices.program(mlp, used, size) as compute,
        ):
            write, written = destination(out, array, of.shape(0), result, copy)
            _stream(cut, compute, write, report, gpus.IN_FLIGHT if on_gpus else IN_FLIGHT)
    return written()


def _fill(
    plan: host.Plan, cut: Iterator[np.ndarray], array: np.ndarray, report: Callable[[int], object]
) -> None:
    """Evaluates all batches from memory to memory, without another Python thread and without a copy."""
    start = 0
    for x in cut:
        all_of_them = len(x) == array.shape[-2]
        host.forward(plan, x, array if all_of_them else array[..., start : start + len(x), :])
        start += len(x)
        report(start)


@contextlib.contextmanager
def _kernel(plan: host.Plan, shape: Callable[[int], tuple[int, ...]]) -> Iterator[Compute]:
    """Yields a function that lets the kernel evaluate a batch in a thread of its own."""

    def outputs(x: np.ndarray) -> np.ndarray:
        y = np.empty(shape(len(x)), plan.dtype)
        host.forward(plan, x, y)
        return y

    with ThreadPoolExecutor(1, "jaxneuron-kernel") as thread:
        yield lambda x: thread.submit(outputs, x).result


def _stream(
    cut: Iterator[np.ndarray],
    compute: Compute,
    write: Write,
    report: Callable[[int], object],
    in_flight: int,
) -> None:
    """Computes batches and writes their outputs in order.

    Whatever fails, all threads have ended when it returns, and the rows that were written have no gap.
    """

    def write_after(previous: Future[int] | None, wait: Callable[[], np.ndarray]) -> int:
        done = (
            previous.result() if previous else 0
        )  # raises if that failed: nothing is written after a failure
        y = wait()
        y.flags.writeable = False
        write(y)
        return done + y.shape[-2]

    last, pending = None, collections.deque[Future[int]]()
    writer = ThreadPoolExecutor(1, "jaxneuron-evaluate")
    try:
        for x in cut:
            last = writer.submit(write_after, last, compute(x))
            pending.append(last)
            if len(pending) > in_flight:
                report(pending.popleft().result())
        for each in pending:
            report(each.result())
    finally:
        writer.shutdown(cancel_futures=True)
