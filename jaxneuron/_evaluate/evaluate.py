"""A network on any number of rows: `evaluate`.

    rows  ->  batches  ->  the CPU kernel, or one program on every device  ->  outputs, in order

From array to array the kernel evaluates rows where they are. Otherwise the calling thread cuts batches, the
kernel in a thread of its own or the devices compute, and one more thread waits for outputs and writes them:
one batch is read while another is computed and a third is written. A batch is a tile of rows for each device.
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
UNBROKEN = 8  # batches at a time, some 0.1 s, where nothing is converted or counted: threads meet less often
IN_FLIGHT = 2  # batches that may wait to be written while one more is read

# Begins to evaluate a batch, and gives a function that waits for its outputs.
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
    """The outputs of a network for any number of rows, in bounded memory, on every device.

        out[i] = mlp_forward(mlp, rows[i])

    Args:
      mlp: an `MLP`; or `members` networks of one structure stacked into one, each of whose arrays has a
        leading axis of members. All members get the same rows, and `out[k]` is member k's.
      rows: inputs, `(n, n_in)`: an array, a memory map, or anything sliced like one, such as an HDF5 data
        set. Or an iterable of such chunks, of any sizes and one dtype; the calling thread reads it.
      out: where outputs go. None for a new array; an array or a memory map `(n, n_out)` to fill; or a
        function of a chunk `(m, n_out)`, read-only, called for one chunk after the other, in order, in a
        thread of its own. Of stacked networks `(members, n, n_out)` and `(members, m, n_out)`.
      tile: rows that a device evaluates at a time, rounded up to a multiple of 16. By default the power of
        two that puts about 2^19 numbers in the widest layer (of all members), on a GPU 2^23.
      devices: devices of this process; by default all of them. The weights are copied to each, once. On
        CPUs the fused kernel evaluates, on as many threads as an `Evaluator` has, and reads weights where
        they are.
      progress: True for a bar with rows, rate and time left (tqdm, extra `cli`), or a function of the
        number of rows done and of all rows, None if unknown.

    Returns:
      `out`, or None if that is a function; in the promoted dtype of the network and `rows`.

    Raises:
      ValueError: shapes that do not fit, members that differ in number, integers too large for JAX's, an
        `out` that is read-only or overlaps `rows`, devices of another process or twice the same, a `tile`
        below 1.
      TypeError: an `mlp` that is not an `MLP`, tracers, an argument that is not an array of real numbers, or
        carries more than numbers, such as a mask or units; a `tile` that is not an integer.
      MemoryError: a network or a tile that does not fit on a device, as far as its memory is known.
      ImportError: `progress=True` without the extra `cli`.

      Errors are raised before anything is computed where they can be known by then. Whatever `rows`, `out`
      or `progress` raise comes through once every thread has ended; until then whole chunks were written.

    Numerics: each row within the bounds of `mlp_forward`. A row has the same bits whatever the number of
    rows, its place, the chunks they come in and the number of devices: on CPUs by the fused kernel, those of
    `mlp_forward`; where JAX evaluates, with the same `tile` on one kind of machine, because every batch has
    one shape and goes to one program, which is compiled once. Held by tests/evaluate/test_evaluate.py.

    JAX has threads: a process that has evaluated anything must not fork. Start others with spawn.

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
    """`evaluate`, for functions of the package, which give refusals their own names."""
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
    """The outputs for all batches, from memory to memory: no thread of Python's, and no copy."""
    start = 0
    for x in cut:
        all_of_them = len(x) == array.shape[-2]
        host.forward(plan, x, array if all_of_them else array[..., start : start + len(x), :])
        start += len(x)
        report(start)


@contextlib.contextmanager
def _kernel(plan: host.Plan, shape: Callable[[int], tuple[int, ...]]) -> Iterator[Compute]:
    """A function that has a batch evaluated by the kernel, in a thread of its own."""

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
    """Computes batches and writes their rows in order. Whatever fails, it leaves no thread and no gap."""

    def write_after(previous: Future[int] | None, wait: Callable[[], np.ndarray]) -> int:
        done = previous.result() if previous else 0  # raises again: nothing is written after a failure
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
