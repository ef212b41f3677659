"""Cuts rows of any form into batches: arrays `(size, n_in)`, of which the last may have fewer rows."""

from __future__ import annotations

import itertools
import math
import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxneuron._arrays import as_array, as_operand, check_plain, concrete
from jaxneuron._errors import BadType, BadValue
from jaxneuron._kernels.host import FLOATING
from jaxneuron._members import members_of
from jaxneuron._params import MLP

# How many numbers a tile has in its widest layer: enough to amortise a call, few enough for the caches.
NUMBERS = 2**19
# The number of rows in a tile is a multiple of LANES, because XLA computes leftover rows by other
# instructions, which may give other bits.
LANES = 16


def default_tile(mlp: MLP, numbers: int = NUMBERS) -> int:
    """The number of rows in a tile.

    It is the power of two with which the widest layer, of all members together, has about `numbers` numbers.
    """
    widest = max(mlp.layers[0].w.shape[-2], *(layer.w.shape[-1] for layer in mlp.layers), 1)
    return max(LANES, 2 ** round(math.log2(numbers / (widest * (members_of(mlp) or 1)))))


def whole_lanes(tile: int) -> int:
    """`tile`, rounded up to a multiple of `LANES`."""
    try:
        rows = operator.index(tile)
    except TypeError:
        raise BadType(f"tile must be a whole number of rows, got {tile!r}; pass an int") from None
    if rows < 1:
        raise BadValue(f"tile must be at least 1 row, got {rows}; leave it out for the default")
    return -(-rows // LANES) * LANES


def source(rows: Any, n_in: int) -> tuple[Any, int | None, np.dtype]:
    """Returns the rows, their number and their dtype.

    The rows can be sliced; or they are an iterator of checked chunks, and their number is None (unknown).
    """
    return _sliceable(rows, n_in) if type(rows) is np.ndarray else _source(rows, n_in)


@concrete
def _source(rows: Any, n_in: int) -> tuple[Any, int | None, np.dtype]:
    check_plain(rows, "rows")
    if isinstance(rows, (str, bytes, os.PathLike)):
        raise BadType(
            f"rows must be an array (n, {n_in}) or an iterable of such chunks, got a path; "
            f"read the file, as with np.load(path, mmap_mode='r'), or evaluate it with `jaxneuron run`"
        )
    if isinstance(rows, (list, tuple, memoryview)) and rows and _depth(rows) < 3:
        rows = as_operand(rows, "rows")
    if isinstance(rows, jax.Array) and not rows.is_fully_addressable:
        raise BadValue(
            "rows must lie on this process's devices, got an array that spans several processes; "
            "evaluate each process's own rows, or call mlp_forward"
        )
    # `typed`: it has rows to slice, as a data set of h5py has; a jax.ShapeDtypeStruct has none.
    typed = isinstance(getattr(rows, "dtype", None), np.dtype) and hasattr(rows, "__getitem__")
    typed = typed and hasattr(rows, "shape")
    # A tensor or a data frame, for example, becomes a NumPy array.
    if isinstance(rows, jax.Array) or (hasattr(rows, "__array__") and not typed):
        rows, typed = np.asarray(as_array(rows, "rows")), True
    if typed:
        return _sliceable(rows, n_in)
    if not isinstance(rows, Iterable):
        raise BadType(
            f"rows must be an array (n, {n_in}) or an iterable of such chunks, got {type(rows).__name__}; "
            f"pass a NumPy array"
        )
    chunks = _checked(rows, n_in)
    # If there is no chunk, the dtype is bool, so that the outputs have the network's dtype.
    first = next(chunks, np.empty((0, n_in), bool))
    return itertools.chain([first], chunks), None, first.dtype


def _sliceable(rows: Any, n_in: int) -> tuple[Any, int, np.dtype]:
    _check_shape(rows.shape, n_in, "rows")
    dtype = rows.dtype
    if dtype not in FLOATING:
        dtype = as_operand(np.empty((0, n_in), dtype), "rows").dtype
    return rows, rows.shape[0], dtype


def cut(rows: Any, n: int | None, size: int) -> Iterator[np.ndarray]:
    """Yields batches of at most `size` rows, from the `rows` and their number `n` that `source` returned."""
    if n is None:
        yield from _gathered(rows, size)
        return
    for start in range(0, n, size):
        end = min(start + size, n)
        x = rows[start:end]
        plain = type(x) is np.ndarray and x.dtype in FLOATING
        yield x if plain else np.asarray(as_operand(x, f"rows[{start}:{end}]"))


def _gathered(chunks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    # Chunks are always copied: the iterable may fill the same array again while the batch is evaluated.
    first = next(chunks)
    batch, filled = np.empty((size, first.shape[1]), first.dtype), 0
    for chunk in itertools.chain([first], chunks):
        while len(chunk):
            fits = min(size - filled, len(chunk))
            batch[filled : filled + fits] = chunk[:fits]
            chunk, filled = chunk[fits:], filled + fits
            if filled == size:
                yield batch
                batch, filled = np.empty_like(batch), 0
    if filled:
        yield batch[:filled]


def _checked(rows: Iterable[Any], n_in: int) -> Iterator[np.ndarray]:
    start, dtype = 0, None
    for i, each in enumerate(rows):
        name = f"rows: chunk {i} (from row {start})"
        chunk = np.asarray(as_operand(each, name))
        _check_shape(chunk.shape, n_in, name)
        dtype = dtype or chunk.dtype
        if chunk.dtype != dtype:
            raise BadType(
                f"{name} must hold {dtype} like the chunks before, got {chunk.dtype}; "
                f"convert every chunk with .astype"
            )
        yield chunk
        start += len(chunk)


def _check_shape(shape: tuple[int, ...], n_in: int, name: str) -> None:
    if len(shape) != 2 or shape[1] != n_in:
        remedy = "pass [row] for one row" if len(shape) == 1 else "put the inputs on the last axis"
        raise BadValue(
            f"{name} must have shape (n, {n_in}), one column for each input of the network, "
            f"got {shape}; {remedy}"
        )


def _depth(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if value else 0)
    return getattr(value, "ndim", 0)
