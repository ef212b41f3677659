"""Rows in any form, cut into batches of one shape.

A batch is an array `(size, n_in)` and the number of its rows that are real. The last batch is filled up with
copies of its last row, so that padding brings in no number that was not there.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxneuron._arrays import as_array, as_operand, check_plain
from jaxneuron._errors import BadType, BadValue
from jaxneuron._params import MLP

NUMBERS = 2**19  # in a tile's widest layer: large enough to amortise a call, small enough for the caches
LANES = 16  # a tile is a multiple: XLA computes a remainder of rows by other instructions, with other bits

Batches = Iterator[tuple[np.ndarray, int]]


def default_tile(mlp: MLP, numbers: int = NUMBERS) -> int:
    """The rows of a tile: the power of two that puts about so many numbers in the widest layer."""
    widest = max(mlp.layers[0].w.shape[0], *(layer.w.shape[1] for layer in mlp.layers), 1)
    return max(LANES, 2 ** round(math.log2(numbers / widest)))


def whole_lanes(tile: int) -> int:
    """`tile`, rounded up to a multiple of `LANES`."""
    try:
        rows = operator.index(tile)
    except TypeError:
        raise BadType(f"tile must be a number of rows, got {tile!r}") from None
    if rows < 1:
        raise BadValue(f"tile must be at least 1 row, got {rows}; leave it out for the default")
    return -(-rows // LANES) * LANES


def cut(rows: Any, n_in: int, size: int) -> tuple[Batches, int | None, np.dtype]:
    """Batches of `size` rows, the number of all rows (None if unknown), and their dtype."""
    check_plain(rows, "rows")
    if isinstance(rows, (str, bytes, os.PathLike)):
        raise BadType(
            f"rows must be an array (n, {n_in}) or an iterable of such chunks, got a path; "
            f"read the file, as with np.load(path, mmap_mode='r'), or evaluate it with `jaxneuron run`"
        )
    if isinstance(rows, (list, tuple)) and rows and _depth(rows) < 3:
        rows = as_operand(rows, "rows")
    if isinstance(rows, jax.Array) and not rows.is_fully_addressable:
        raise BadValue(
            "rows must lie on this process's devices, got an array that spans several processes; "
            "evaluate each process's own rows, or call mlp_forward"
        )
    typed = isinstance(getattr(rows, "dtype", None), np.dtype)
    if isinstance(rows, jax.Array) or (hasattr(rows, "__array__") and not typed):  # a tensor, a data frame
        rows, typed = np.asarray(as_array(rows, "rows")), True
    if typed:
        _check_shape(rows.shape, n_in, "rows")
        return _slices(rows, size), rows.shape[0], rows.dtype
    if not isinstance(rows, Iterable):
        raise BadType(
            f"rows must be an array (n, {n_in}) or an iterable of such chunks, got {type(rows).__name__}"
        )
    chunks = _checked(rows, n_in)
    first = next(chunks, np.empty((0, n_in), bool))  # without rows, the dtype is the network's
    return _gather(first, chunks, size), None, first.dtype


def _slices(rows: Any, size: int) -> Batches:
    for start in range(0, rows.shape[0], size):
        end = min(start + size, rows.shape[0])
        x = np.asarray(as_operand(rows[start:end], f"rows[{start}:{end}]"))
        yield x if len(x) == size else np.pad(x, ((0, size - len(x)), (0, 0)), "edge"), len(x)


def _gather(first: np.ndarray, others: Iterator[np.ndarray], size: int) -> Batches:
    # Always copied: the owner of a chunk may fill it again while JAX is still reading.
    batch, filled = np.empty((size, first.shape[1]), first.dtype), 0
    for chunk in itertools.chain([first], others):
        while len(chunk):
            fits = min(size - filled, len(chunk))
            batch[filled : filled + fits] = chunk[:fits]
            chunk, filled = chunk[fits:], filled + fits
            if filled == size:
                yield batch, size
                batch, filled = np.empty_like(batch), 0
    if filled:
        batch[filled:] = batch[filled - 1]
        yield batch, filled


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
        remedy = "pass [row] for one row" if len(shape) == 1 else "inputs stand on the last axis"
        raise BadValue(
            f"{name} must have shape (n, {n_in}), one column for each input of the network, "
            f"got {shape}; {remedy}"
        )


def _depth(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if value else 0)
    return getattr(value, "ndim", 0)
