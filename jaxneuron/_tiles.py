"""Rows in any form, cut into tiles of one shape.

A tile is a NumPy array `(size, n_in)` with the number of its rows that are real; the last row is repeated
to fill a last tile, so that padding brings no number that was not there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxneuron._arrays import as_operand

Tiles = Iterator[tuple[np.ndarray, int]]


def cut(rows: Any, n_in: int, size: int) -> tuple[Tiles, int | None, np.dtype]:
    """Tiles of `size` rows, how many rows there are if that is known, and their dtype."""
    if isinstance(rows, (list, tuple)) and rows and _depth(rows) < 3:
        rows = as_operand(rows, "evaluate: rows")
    if isinstance(rows, jax.Array) and not rows.is_fully_addressable:
        raise ValueError(
            "evaluate: rows must lie on this process's devices, got an array that spans several processes; "
            "evaluate each process's own rows, or call mlp_forward"
        )
    typed = isinstance(getattr(rows, "dtype", None), np.dtype)
    if isinstance(rows, jax.Array) or (hasattr(rows, "__array__") and not typed):  # a tensor, a data frame
        rows, typed = np.asarray(rows), True
    if typed:
        _check_shape(rows.shape, n_in, "rows")
        return _slices(rows, size), rows.shape[0], rows.dtype
    if not isinstance(rows, Iterable):
        raise TypeError(
            f"evaluate: rows must be an array (n, {n_in}) or an iterable of such chunks, "
            f"got {type(rows).__name__}"
        )
    chunks = _checked(rows, n_in)
    first = next(chunks, np.empty((0, n_in), bool))  # without rows the network's dtype decides
    return _gather(first, chunks, size), None, first.dtype


def _slices(rows: Any, size: int) -> Tiles:
    for start in range(0, rows.shape[0], size):
        x = np.asarray(rows[start : start + size])
        x = np.asarray(as_operand(x, f"evaluate: rows[{start}:{start + len(x)}]"))
        yield x if len(x) == size else np.pad(x, ((0, size - len(x)), (0, 0)), "edge"), len(x)


def _gather(first: np.ndarray, others: Iterator[np.ndarray], size: int) -> Tiles:
    # Always copied: a chunk may be a buffer that its owner fills again, and JAX may still be reading.
    tile, filled = np.empty((size, first.shape[1]), first.dtype), 0
    for chunk in itertools.chain([first], others):
        while len(chunk):
            fits = min(size - filled, len(chunk))
            tile[filled : filled + fits] = chunk[:fits]
            chunk, filled = chunk[fits:], filled + fits
            if filled == size:
                yield tile, size
                tile, filled = np.empty_like(tile), 0
    if filled:
        tile[filled:] = tile[filled - 1]
        yield tile, filled


def _checked(rows: Iterable[Any], n_in: int) -> Iterator[np.ndarray]:
    start, dtype = 0, None
    for i, each in enumerate(rows):
        name = f"chunk {i} (from row {start})"
        chunk = np.asarray(as_operand(each, f"evaluate: rows: {name}"))
        _check_shape(chunk.shape, n_in, f"rows: {name}")
        dtype = dtype or chunk.dtype
        if chunk.dtype != dtype:
            raise TypeError(
                f"evaluate: rows: {name} must hold {dtype} like the chunks before, got {chunk.dtype}; "
                f"convert every chunk with .astype"
            )
        yield chunk
        start += len(chunk)


def _check_shape(shape: tuple[int, ...], n_in: int, name: str) -> None:
    if len(shape) != 2 or shape[1] != n_in:
        remedy = "pass [row] for one row" if len(shape) == 1 else "inputs stand on the last axis"
        raise ValueError(
            f"evaluate: {name} must have shape (n, {n_in}), one column for each input of the network, "
            f"got {shape}; {remedy}"
        )


def _depth(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if value else 0)
    return getattr(value, "ndim", 0)
