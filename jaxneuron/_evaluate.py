"""A network on any number of rows: `evaluate`.

    rows -> tiles of one shape, the last padded -> one program on every device -> outputs, in order

The calling thread cuts tiles and dispatches them, devices compute, and one more thread waits for outputs
and writes them: a tile is read while another is computed and a third is written.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxneuron import _tiles
from jaxneuron._arrays import ArrayLike, as_operand
from jaxneuron._forward import mlp_forward
from jaxneuron._params import MLP

NUMBERS = 2**19  # in a tile's widest layer: enough to outweigh a call, few enough for the caches
LANES = 16  # a tile is a multiple: XLA computes the rows of a remainder by other instructions
IN_FLIGHT = 2  # tiles that may wait to be written while one more is read

Write = Callable[[np.ndarray], object]
Progress = Callable[[int, int | None], object]


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
      rows: inputs, `(n, n_in)`: an array, a memory map, or what is sliced like one, such as an HDF5 data
        set. Or an iterable of such chunks, of any sizes and one dtype, which the calling thread reads.
      out: where outputs go. None for a new array; an array or a memory map `(n, n_out)` to fill; or a
        function of a chunk `(m, n_out)`, read-only, called for one after the other, in order, in a
        thread of its own.
      tile: rows that a device evaluates at a time, rounded up to a multiple of 16; 2^19 numbers in the
        widest layer unless given.
      devices: of this process; all of them unless given. The weights are placed on each, once.
      progress: True for a bar with rows, rate and time left (tqdm, extra `cli`), or a function of the
        rows done and of all rows, None where unknown.

    Returns:
      `out`, or None where that is a function; in the promoted dtype of the network and `rows`.

    Raises:
      ValueError, TypeError: shapes, dtypes and arguments that do not fit, before anything is computed
        where that can be known. MemoryError: a network or a tile that fits no device. Else what `rows`,
        `out` or `progress` raised, once every thread has ended; until there whole chunks were written.

    Numerics: each row within the bounds of `mlp_forward`. With the same `tile` on one kind of machine a
    row has the same bits whatever the number of rows, its place, the chunks they come in and the number
    of devices, because every tile is of one shape and goes to one program, which is compiled once. Held
    by tests/test_evaluate.py.

    JAX has threads: a process that has evaluated anything must not fork. Start others with spawn.

    Example:
      >>> evaluate(jaxneuron.gates.XOR, [[0, 0], [0, 1], [1, 0], [1, 1]]) > 0.5
      array([[False],
             [ True],
             [ True],
             [False]])
    """
    if not isinstance(mlp, MLP):
        raise TypeError(
            f"evaluate: mlp must be an MLP, got {type(mlp).__name__}; pass MLP(layers), parameters first"
        )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in (*jax.tree.leaves(mlp), rows)):
        raise TypeError("evaluate: mlp and rows must hold numbers, got tracers; inside jit call mlp_forward")
    mesh = _mesh(devices)
    if not any(np.size(leaf) for leaf in jax.tree.leaves(mlp)):
        mesh = _mesh(list(mesh.devices.flat[:1]))  # XLA refuses a program without operands on several devices
    tile = default_tile(mlp) if tile is None else _whole_lanes(tile)
    tiles, n, dtype = _tiles.cut(rows, mlp.layers[0].w.shape[-2], tile * mesh.size)
    row = output_row(mlp, dtype)
    _check_memory(mlp, tile, row, mesh)
    write, written = _destination(out, rows, n, row)
    program, by_rows = _program(mesh), NamedSharding(mesh, PartitionSpec("rows"))
    weights = jax.device_put(mlp, NamedSharding(mesh, PartitionSpec()))
    with _reporting(progress, n) as report:
        _stream(tiles, lambda x: program(weights, jax.device_put(x, by_rows)), write, report)
    return written()


def default_tile(mlp: MLP) -> int:
    """The rows of a tile: a power of two, with some `NUMBERS` numbers in the widest layer."""
    widest = max(mlp.layers[0].w.shape[-2], *(layer.w.shape[-1] for layer in mlp.layers), 1)
    return max(LANES, 2 ** round(math.log2(NUMBERS / widest)))


def output_row(mlp: MLP, dtype: np.dtype) -> jax.ShapeDtypeStruct:
    """The shape and dtype of the outputs for a row of `dtype`, after `mlp_forward`'s own checks."""
    x = as_operand(np.empty((0, mlp.layers[0].w.shape[-2]), dtype), "evaluate: rows")
    y = jax.eval_shape(mlp_forward, mlp, x)
    return jax.ShapeDtypeStruct(y.shape[1:], y.dtype)


@functools.cache
def _program(mesh: Mesh) -> Callable[[MLP, Array], Array]:
    """`mlp_forward` of the rows on each device: mapped, not partitioned, so that none waits for another."""
    rows, everywhere = PartitionSpec("rows"), PartitionSpec()
    return jax.jit(
        jax.shard_map(mlp_forward, mesh=mesh, in_specs=(everywhere, rows), out_specs=rows, check_vma=False)
    )


def _stream(
    tiles: _tiles.Tiles,
    compute: Callable[[np.ndarray], Array],
    write: Write,
    report: Callable[[int], object],
) -> None:
    """Computes tiles and writes their rows in order. Whatever fails, no thread and no gap is left behind."""

    def write_after(previous: Future[int] | None, y: Array, count: int) -> int:
        done = previous.result() if previous else 0  # raises what that raised: nothing follows a failure
        write(np.asarray(y)[:count])
        return done + count

    last, pending = None, collections.deque[Future[int]]()
    writer = ThreadPoolExecutor(1, "jaxneuron-evaluate")
    try:
        for x, count in tiles:
            last = writer.submit(write_after, last, compute(x), count)
            pending.append(last)
            if len(pending) > IN_FLIGHT:
                report(pending.popleft().result())
        for each in pending:
            report(each.result())
    finally:
        writer.shutdown(cancel_futures=True)


def _destination(
    out: Any, rows: Any, n: int | None, row: jax.ShapeDtypeStruct
) -> tuple[Write, Callable[[], np.ndarray | None]]:
    """What to call with each chunk of outputs, and in the end for what `evaluate` returns."""
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
            raise ValueError(
                f"evaluate: out must have a row for each of rows, got {len(array)} for more than {filled}"
            )
        array[filled : filled + len(chunk)] = chunk
        filled += len(chunk)

    def full() -> np.ndarray:
        if filled < len(array):
            raise ValueError(f"evaluate: out must have a row for each of rows, got {len(array)} for {filled}")
        return array

    return fill, full


def _check_out(out: Any, rows: Any, n: int | None, row: jax.ShapeDtypeStruct) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(
            f"evaluate: out must be a NumPy array, a function of a chunk, or None, got {type(out).__name__}"
        )
    if out.ndim != 2 or out.shape[1:] != row.shape or n not in (None, len(out)):
        raise ValueError(
            f"evaluate: out must have shape ({'n' if n is None else n}, {row.shape[0]}), got {out.shape}"
        )
    if out.dtype != row.dtype:
        raise TypeError(
            f"evaluate: out must hold {row.dtype}, the promoted dtype of mlp and rows, got {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError("evaluate: out must be writeable, got a read-only array; map files with mode='r+'")
    # In place is fine, for a tile is read before it is written; anything else would read outputs.
    overlap = isinstance(rows, np.ndarray) and np.may_share_memory(rows, out)
    if overlap and (rows.ctypes.data, rows.strides) != (out.ctypes.data, out.strides):
        raise ValueError("evaluate: out must be rows or lie apart from them, got arrays that overlap")


def _check_memory(mlp: MLP, tile: int, row: jax.ShapeDtypeStruct, mesh: Mesh) -> None:
    """Refuses what no device can hold: a lower bound, so that only the impossible is refused."""
    leaves = jax.tree.leaves(mlp)
    weights = sum(
        math.prod(leaf.shape) * jax.dtypes.canonicalize_dtype(leaf.dtype).itemsize for leaf in leaves
    )
    rows = tile * (mlp.layers[0].w.shape[0] + row.shape[0]) * row.dtype.itemsize
    device = mesh.devices.flat[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None:  # CPU devices share the machine's memory
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // mesh.size
    if weights + rows > limit:
        raise MemoryError(
            f"evaluate: mlp and a tile must fit in the {limit:,} bytes of {device}, got {weights:,} bytes of "
            f"weights and {rows:,} of {tile:,} rows; pass a smaller tile or network, or fewer CPU devices"
        )


def _mesh(devices: Sequence[jax.Device] | None) -> Mesh:
    chosen = jax.local_devices() if devices is None else list(devices)
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or any(
            not isinstance(device, jax.Device) or device.process_index != jax.process_index()
            for device in chosen
        )
    ):
        raise ValueError(
            f"evaluate: devices must be one or more of this process's, each once, got {chosen}; "
            f"jax.local_devices() lists them"
        )
    return Mesh(np.array(chosen), ("rows",))


def _whole_lanes(tile: int) -> int:
    try:
        rows = operator.index(tile)
    except TypeError:
        raise TypeError(f"evaluate: tile must be a number of rows, got {tile!r}") from None
    if rows < 1:
        raise ValueError(f"evaluate: tile must be at least 1 row, got {rows}; leave it out for the default")
    return -(-rows // LANES) * LANES


@contextlib.contextmanager
def _reporting(progress: bool | Progress, n: int | None) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of rows done."""
    if callable(progress):
        yield lambda done: progress(done, n)
    elif progress:
        try:
            from tqdm import tqdm
        except ImportError:
            raise ImportError(
                "evaluate: progress needs the tqdm library; pip install 'jaxneuron[cli]'"
            ) from None
        with tqdm(total=n, unit=" rows", unit_scale=True) as bar:
            yield lambda done: bar.update(done - bar.n)
    else:
        yield lambda done: None
