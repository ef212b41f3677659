"""Where `evaluate` puts outputs, and says how far it is."""

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


def as_target(out: Any, rows: Any, n: int | None, n_out: int, dtype: np.dtype) -> np.ndarray | None:
    """The array that outputs go to; None if that is a function's to say, or rows must be counted first."""
    if callable(out):
        return None
    if out is None:
        if n is None:
            return None
        return np.empty((n, n_out), dtype)
    if not isinstance(out, np.ndarray):
        raise BadType(f"out must be a NumPy array, a function of a chunk, or None, got {type(out).__name__}")
    if out.ndim != 2 or out.shape[1] != n_out or n not in (None, len(out)):
        raise BadValue(f"out must have shape ({'n' if n is None else n}, {n_out}), got {out.shape}")
    check_takes(out, dtype, "mlp and rows")
    # In place is fine: a batch is read before it is written. Any other overlap would read outputs as inputs.
    overlap = isinstance(rows, np.ndarray) and np.may_share_memory(rows, out)
    if overlap and (rows.ctypes.data, rows.strides) != (out.ctypes.data, out.strides):
        raise BadValue("out must be rows itself or share no memory with it, got arrays that overlap")
    return out


def destination(
    out: Any, array: np.ndarray | None, n_out: int, dtype: np.dtype, copy: Copy
) -> tuple[Write, Callable[[], np.ndarray | None]]:
    """The function that takes each chunk of outputs, and the one that gives what `evaluate` returns."""
    if callable(out):
        return out, lambda: None
    if array is None:
        chunks = [np.empty((0, n_out), dtype)]
        return chunks.append, lambda: np.concatenate(chunks)
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


@contextlib.contextmanager
def reporting(progress: bool | Progress, n: int | None) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of rows done."""
    if callable(progress):
        yield lambda done: progress(done, n)
    else:
        try:
            from tqdm import tqdm
        except ImportError:
            raise missing("tqdm", "cli", "progress") from None
        with tqdm(total=n, unit=" rows", unit_scale=True) as bar:
            yield lambda done: bar.update(done - bar.n)
