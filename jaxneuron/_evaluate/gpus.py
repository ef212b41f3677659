"""Batches on GPUs: rows go in and outputs come out by several threads, while the GPUs compute.

    rows  ->  pinned memory  ->  GPU: outputs  ->  pinned memory  ->  out

A GPU copies from and to pinned memory by itself, both ways at once. What it waits for are the copies between
pinned memory and the caller's. JAX makes those of rows before it starts the program, and keeps the thread
that calls it; those of outputs are made here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

# 2^22 rows of 64 bfloat16 numbers, H100, both directions together: 16.3 GB/s. With one thread that calls the
# program 11.3, with one that copies outputs 11.5, with tiles half as large 11.5.
THREADS = 4  # that call the program, and as many that copy outputs
IN_FLIGHT = 2 * THREADS  # batches between the reader and the writer
NUMBERS = 2**23  # in a tile's widest layer

Begin = Callable[[np.ndarray], Callable[[], np.ndarray]]


def are(devices: Sequence[jax.Device]) -> bool:
    """Whether they are GPUs."""
    return devices[0].platform == "gpu"


@contextlib.contextmanager
def computing(program: Any, weights: Any, by_rows: NamedSharding, outputs: NamedSharding) -> Iterator[Begin]:
    """A function that begins to evaluate a batch, and returns one that waits for its outputs.

    `program` is jitted, of the weights and a batch, which lies as `by_rows` says, its outputs as `outputs`.
    """
    pinned = outputs.with_memory_kind("pinned_host")
    x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined] # a setting of the thread
    compiled: Any = None

    def evaluated(x: np.ndarray) -> Array:
        with jax.enable_x64(x64):
            return jax.device_put(compiled(weights, jax.device_put(x, by_rows)), pinned)

    def begin(x: np.ndarray) -> Callable[[], np.ndarray]:
        nonlocal compiled
        if compiled is None:  # once, by the settings of the thread that called `evaluate`
            batch = jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype), sharding=by_rows)
            compiled = program.lower(weights, batch).compile()
        y = threads.submit(evaluated, x)
        return lambda: np.asarray(y.result())  # pinned memory, as it lies

    threads = ThreadPoolExecutor(THREADS, "jaxneuron-gpu")
    try:
        yield begin
    finally:
        threads.shutdown(cancel_futures=True)


@contextlib.contextmanager
def copying() -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """`np.copyto` by several threads."""
    with ThreadPoolExecutor(THREADS, "jaxneuron-copy") as threads:

        def copy(to: np.ndarray, values: np.ndarray) -> None:
            size = max(1, -(-len(values) // THREADS))
            parts = [slice(start, start + size) for start in range(0, len(values), size)]
            list(threads.map(lambda part: np.copyto(to[part], values[part]), parts))

        yield copy
