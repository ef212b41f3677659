"""Takes the outputs of `evaluate`, and reports its progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxneuron._errors import BadType, BadValue, missing
from jaxneuron._evaluate.evaluator import check_takes

Write = Callable[[np.ndarray], object]
Copy = Callable[[np.ndarray, np.ndarray], None]
Progress = Callable[[int, int | None], object]


def as_target(
    out: Any, rows: Any, n: int | None, shape: Callable[[Any], tuple[Any, ...]], dtype: np.dtype
) -> np.ndarray | None:
    """The array for the outputs; None if `out` is a function, or if the number of rows is unknown so far.

    `shape` is a function of n: the shape of the outputs for n rows.
    """
    if callable(out):
        return None
    if out is None:
        return None if n is None else np.empty(shape(n), dtype)
    if not isinstance(out, np.ndarray):
        raise BadType(
            f"out must be a NumPy array, a function of a chunk, or None, got {type(out).__name__}; "
            f"leave it out for a new array"
        )
    if out.shape != shape(n if n is not None or out.ndim < 2 else out.shape[-2]):
        wanted = ", ".join(map(str, shape("n" if n is None else n)))
        raise BadValue(f"out must have shape ({wanted}), got {out.shape}; leave it out for a new array")
    check_takes(out, dtype, "mlp and rows")
    # `out` may be `rows`: each batch is read before its outputs are written. With any other overlap, outputs
    # may replace rows that were not read yet.
    overlap = isinstance(rows, np.ndarray) and np.may_share_memory(rows, out)
    if overlap and (rows.ctypes.data, rows.strides) != (out.ctypes.data, out.strides):
        raise BadValue(
            "out must be rows itself or share no memory with it, got arrays that overlap; pass a new array"
        )
    return out


def destination(
    out: Any, array: np.ndarray | None, empty: tuple[int, ...], dtype: np.dtype, copy: Copy
) -> tuple[Write, Callable[[], np.ndarray | None]]:
    """A function that takes each chunk of outputs, and a function that returns what `evaluate` returns.

    `empty` is the shape of the outputs for 0 rows.
    """
    if callable(out):
        return out, lambda: None
    if array is None:
        chunks = [np.empty(empty, dtype)]
        return chunks.append, lambda: np.concatenate(chunks, axis=-2)
    filled, n = 0, array.shape[-2]

    def fill(chunk: np.ndarray) -> None:
        nonlocal filled
        end = filled + chunk.shape[-2]
        if end > n:
            raise BadValue(
                f"out must have one row for each of the rows, got {n} for at least {end}; "
                f"leave it out for a new array"
            )
        copy(array[..., filled:end, :], chunk)
        filled = end

    def full() -> np.ndarray:
        if filled < n:
            raise BadValue(
                f"out must have one row for each of the rows, got {n} for {filled}; "
                f"leave it out for a new array"
            )
        return array

    return fill, full


@contextlib.contextmanager
def reporting(progress: bool | Progress, n: int | None) -> Iterator[Callable[[int], object]]:
    """Yields a function that takes the number of rows done."""
    if callable(progress):
        yield lambda done: progress(done, n)
    else:
        try:
            from tqdm import tqdm
        except ImportError:
            raise missing("tqdm", "cli", "progress") from None
        with tqdm(total=n, unit=" rows", unit_scale=True) as bar:
            yield lambda done: bar.update(done - bar.n)
