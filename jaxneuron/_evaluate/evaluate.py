"""A network on any number of rows: `evaluate`.

    rows  ->  batches of one shape, the last padded  ->  one program on every device  ->  outputs, in order

The calling thread cuts batches and dispatches them, the devices compute, and one more thread waits for
outputs and writes them: one batch is read while another is computed and a third is written. A batch is a
tile of rows for each device.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxneuron._arrays import ArrayLike, as_operand, concrete
from jaxneuron._errors import BadType, BadValue, TooLarge, missing, public
from jaxneuron._evaluate import batches, gpus
from jaxneuron._forward import _mlp_forward
from jaxneuron._params import MLP, as_layers, check_mlp

IN_FLIGHT = 2  # batches that may wait to be written while one more is read

Write = Callable[[np.ndarray], object]
Copy = Callable[[np.ndarray, np.ndarray], None]
Progress = Callable[[int, int | None], object]


@public
@concrete
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
      mlp: an `MLP`.
      rows: inputs, `(n, n_in)`: an array, a memory map, or anything sliced like one, such as an HDF5 data
        set. Or an iterable of such chunks, of any sizes and one dtype; the calling thread reads it.
      out: where outputs go. None for a new array; an array or a memory map `(n, n_out)` to fill; or a
        function of a chunk `(m, n_out)`, read-only, called for one chunk after the other, in order, in a
        thread of its own.
      tile: rows that a device evaluates at a time, rounded up to a multiple of 16. By default the power of
        two that puts about 2^19 numbers in the widest layer, on a GPU 2^23.
      devices: devices of this process; by default all of them. The weights are copied to each, once.
      progress: True for a bar with rows, rate and time left (tqdm, extra `cli`), or a function of the
        number of rows done and of all rows, None if unknown.

    Returns:
      `out`, or None if that is a function; in the promoted dtype of the network and `rows`.

    Raises:
      ValueError: shapes that do not fit, integers too large for JAX's, an `out` that is read-only or
        overlaps `rows`, devices of another process or twice the same, a `tile` below 1.
      TypeError: an `mlp` that is not an `MLP`, tracers, an argument that is not an array of real numbers, or
        carries more than numbers, such as a mask or units; a `tile` that is not an integer.
      MemoryError: a network or a tile that does not fit on a device, as far as its memory is known.
      ImportError: `progress=True` without the extra `cli`.

      Errors are raised before anything is computed where they can be known by then. Whatever `rows`, `out`
      or `progress` raise comes through once every thread has ended; until then whole chunks were written.

    Numerics: each row within the bounds of `mlp_forward`. With the same `tile` on one kind of machine a
    row has the same bits whatever the number of rows, its place, the chunks they come in and the number
    of devices, because every batch has one shape and goes to one program, which is compiled once. Held
    by tests/evaluate/test_evaluate.py.

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
    as_layers(mlp.layers)  # a transform can leave anything in them
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (*jax.tree.leaves(mlp), rows)):
        raise BadType("mlp and rows must hold numbers, got tracers; inside jit call mlp_forward")
    mesh = _mesh(devices)
    if not any(np.size(leaf) for leaf in jax.tree.leaves(mlp)):
        mesh = _mesh(list(mesh.devices.flat[:1]))  # XLA refuses a program without operands on several devices
    on_gpus = gpus.are_of(mesh)
    numbers = gpus.NUMBERS if on_gpus else batches.NUMBERS
    tile = batches.default_tile(mlp, numbers) if tile is None else batches.whole_lanes(tile)
    cut, n, dtype = batches.cut(rows, mlp.layers[0].w.shape[0], tile * mesh.size)
    row = output_row(mlp, dtype)
    _check_memory(mlp, tile, row, mesh)
    program, by_rows = _program(mesh), NamedSharding(mesh, PartitionSpec("rows"))
    weights = jax.device_put(mlp, NamedSharding(mesh, PartitionSpec()))
    with contextlib.ExitStack() as stack:
        copy = stack.enter_context(gpus.copying()) if on_gpus else np.copyto
        write, written = _destination(out, rows, n, row, copy)
        report = stack.enter_context(_reporting(progress, n))
        computing = gpus.computing if on_gpus else _computing
        begin = stack.enter_context(computing(program, weights, by_rows))
        _stream(cut, begin, write, report, gpus.IN_FLIGHT if on_gpus else IN_FLIGHT)
    return written()


def output_row(mlp: MLP, dtype: np.dtype) -> jax.ShapeDtypeStruct:
    """The shape and dtype of the outputs for one row of `dtype`; refuses what `mlp_forward` would refuse."""
    x = as_operand(np.empty((0, mlp.layers[0].w.shape[0]), dtype), "rows")
    y = jax.eval_shape(_mlp_forward, mlp, x)
    return jax.ShapeDtypeStruct(y.shape[1:], y.dtype)


@functools.cache
def _program(mesh: Mesh) -> Callable[[MLP, Array], Array]:
    """`mlp_forward` of each device's rows: mapped, not partitioned, so that no device waits for another."""
    rows, everywhere = PartitionSpec("rows"), PartitionSpec()
    return jax.jit(
        jax.shard_map(_mlp_forward, mesh=mesh, in_specs=(everywhere, rows), out_specs=rows, check_vma=False)
    )


@contextlib.contextmanager
def _computing(program: Any, weights: MLP, by_rows: NamedSharding) -> Iterator[gpus.Begin]:
    """As `gpus.computing`, where rows and outputs are read as they lie."""
    yield lambda x: functools.partial(np.asarray, program(weights, jax.device_put(x, by_rows)))


def _stream(
    cut: batches.Batches,
    begin: gpus.Begin,
    write: Write,
    report: Callable[[int], object],
    in_flight: int,
) -> None:
    """Computes batches and writes their rows in order. Whatever fails, it leaves no thread and no gap."""

    def write_after(previous: Future[int] | None, outputs: Callable[[], np.ndarray], count: int) -> int:
        done = previous.result() if previous else 0  # raises again: nothing is written after a failure
        write(outputs()[:count])
        return done + count

    last, pending = None, collections.deque[Future[int]]()
    writer = ThreadPoolExecutor(1, "jaxneuron-evaluate")
    try:
        for x, count in cut:
            last = writer.submit(write_after, last, begin(x), count)
            pending.append(last)
            if len(pending) > in_flight:
                report(pending.popleft().result())
        for each in pending:
            report(each.result())
    finally:
        writer.shutdown(cancel_futures=True)


def _destination(
    out: Any, rows: Any, n: int | None, row: jax.ShapeDtypeStruct, copy: Copy
) -> tuple[Write, Callable[[], np.ndarray | None]]:
    """The function that takes each chunk of outputs, and the one that gives what `evaluate` returns."""
    if out is None and n is None:
        chunks = [np.empty((0, *row.shape), row.dtype)]
        return chunks.append, lambda: np.concatenate(chunks)
    if callable(out):
        return out, lambda: None
    array = np.empty((n or 0, *row.shape), row.dtype) if out is None else out
    _check_out(array, rows, n, row)
    filled = 0

    def fill(chunk: np.ndarray) -> None:
        nonlocal filled
        if filled + len(chunk) > len(array):
            raise BadValue(f"out must have a row for each of rows, got {len(array)} for more than {filled}")
        copy(array[filled : filled + len(chunk)], chunk)
        filled += len(chunk)

    def full() -> np.ndarray:
        if filled < len(array):
            raise BadValue(f"out must have a row for each of rows, got {len(array)} for {filled}")
        return array

    return fill, full


def _check_out(out: Any, rows: Any, n: int | None, row: jax.ShapeDtypeStruct) -> None:
    if not isinstance(out, np.ndarray):
        raise BadType(f"out must be a NumPy array, a function of a chunk, or None, got {type(out).__name__}")
    if out.ndim != 2 or out.shape[1:] != row.shape or n not in (None, len(out)):
        raise BadValue(f"out must have shape ({'n' if n is None else n}, {row.shape[0]}), got {out.shape}")
    if out.dtype != row.dtype:
        raise BadType(f"out must hold {row.dtype}, the promoted dtype of mlp and rows, got {out.dtype}")
    if not out.flags.writeable:
        raise BadValue("out must be writeable, got a read-only array; map files with mode='r+'")
    # In place is fine: a batch is read before it is written. Any other overlap would read outputs as inputs.
    overlap = isinstance(rows, np.ndarray) and np.may_share_memory(rows, out)
    if overlap and (rows.ctypes.data, rows.strides) != (out.ctypes.data, out.strides):
        raise BadValue("out must be rows itself or share no memory with it, got arrays that overlap")


def _check_memory(mlp: MLP, tile: int, row: jax.ShapeDtypeStruct, mesh: Mesh) -> None:
    """Refuses what can't fit on a device, by a lower bound, so that only the impossible is refused."""
    leaves = jax.tree.leaves(mlp)
    weights = sum(
        math.prod(leaf.shape) * jax.dtypes.canonicalize_dtype(leaf.dtype).itemsize for leaf in leaves
    )
    rows = tile * (mlp.layers[0].w.shape[0] + row.shape[0]) * row.dtype.itemsize
    device = mesh.devices.flat[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None and hasattr(os, "sysconf"):  # CPUs share the machine's memory, unknown on Windows
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // mesh.size
    if limit is not None and weights + rows > limit:
        raise TooLarge(
            f"mlp and a tile must fit in the {limit:,} bytes of {device}, got {weights:,} bytes of "
            f"weights and {rows:,} of {tile:,} rows; pass a smaller tile or network, or fewer CPU devices"
        )


def _mesh(devices: Sequence[jax.Device] | None) -> Mesh:
    if not isinstance(devices, Iterable | None):
        raise BadType(f"devices must be a sequence of devices, got {type(devices).__name__}; pass [device]")
    chosen = jax.local_devices() if devices is None else list(devices)
    ours = all(isinstance(each, jax.Device) and each.process_index == jax.process_index() for each in chosen)
    if not chosen or not ours or len(set(chosen)) < len(chosen):
        raise BadValue(
            f"devices must be one or more of this process's, each once, got {chosen}; "
            f"jax.local_devices() lists them"
        )
    return Mesh(np.array(chosen), ("rows",))


@contextlib.contextmanager
def _reporting(progress: bool | Progress, n: int | None) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of rows done."""
    if callable(progress):
        yield lambda done: progress(done, n)
    elif progress:
        try:
            from tqdm import tqdm
        except ImportError:
            raise missing("tqdm", "cli", "progress") from None
        with tqdm(total=n, unit=" rows", unit_scale=True) as bar:
            yield lambda done: bar.update(done - bar.n)
    else:
        yield lambda done: None
