"""Batches on GPUs: rows go in and outputs come out by several threads, while the GPUs compute.

    rows  ->  pinned memory  ->  GPU: outputs  ->  pinned memory  ->  out

A GPU copies from and to pinned memory by itself, both ways at once. What keeps it waiting is the copy between
pinned memory and the caller's, which a CPU makes: JAX makes that of rows in the thread that hands them over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

THREADS = 4  # batches that are handed over at a time
IN_FLIGHT = 8  # batches between the reader and the writer
NUMBERS = 2**22  # in a tile's widest layer: large enough to amortise a call and three copies

Outputs = Callable[[], np.ndarray]


@contextlib.contextmanager
def computing(
    program: Callable[[Any, Array], Array], weights: Any, by_rows: NamedSharding
) -> Iterator[Callable[[np.ndarray], Outputs]]:
    """A function that begins to evaluate a batch, and returns one that waits for the outputs."""
    pinned = by_rows.with_memory_kind("pinned_host")

    def evaluated(x: np.ndarray) -> Array:
        return jax.device_put(program(weights, jax.device_put(x, by_rows)), pinned)

    compiled = False

    def begin(x: np.ndarray) -> Outputs:
        nonlocal compiled
        y = threads.submit(evaluated, x)
        if not compiled:  # by the first batch, not by a batch in every thread
            wait([y])
            compiled = True
        return lambda: np.asarray(y.result())  # pinned memory as it lies

    threads = ThreadPoolExecutor(THREADS, "jaxneuron-gpu")
    try:
        yield begin
    finally:
        threads.shutdown(cancel_futures=True)
