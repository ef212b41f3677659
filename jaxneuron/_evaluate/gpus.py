"""Batches on GPUs: several threads bring rows in and outputs out while the GPUs compute.

    rows  ->  pinned memory  ->  GPU: outputs  ->  pinned memory  ->  out

A GPU copies from and to pinned memory by itself, in both directions at once. The bottleneck is copying
between pinned memory and the caller's memory, so several threads do it. JAX copies rows into pinned memory
in the thread that calls the program, before the program starts: `computing` calls it in several threads.
`copying` copies outputs.
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

# Measured on an H100 with 2^22 rows of 64 bfloat16 numbers, both directions together: 16.3 GB/s; 11.3 GB/s
# with only one thread that calls the program, 11.5 with only one that copies outputs, and 11.5 with tiles
# half as large.
THREADS = 4  # so many call the program, and as many others copy outputs
IN_FLIGHT = 2 * THREADS  # batches between the thread that reads and the one that writes
NUMBERS = 2**23  # numbers in a tile's widest layer

Begin = Callable[[np.ndarray], Callable[[], np.ndarray]]


def are(devices: Sequence[jax.Device]) -> bool:
    """Whether the devices are GPUs."""
    return devices[0].platform == "gpu"


@contextlib.contextmanager
def computing(program: Any, weights: Any, by_rows: NamedSharding, outputs: NamedSharding) -> Iterator[Begin]:
    """Yields a function that starts to evaluate a batch, and returns a function that waits for the outputs.

    Args:
      program: a jitted function of the weights and a batch.
      weights: the weights, on the devices.
      by_rows: how a batch is divided among the devices.
      outputs: how its outputs are divided.
    """
    pinned = outputs.with_memory_kind("pinned_host")
    x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined] # a setting of the thread
    compiled: Any = None

    def evaluated(x: np.ndarray) -> Array:
        with jax.enable_x64(x64):
            return jax.device_put(compiled(weights, jax.device_put(x, by_rows)), pinned)

    def begin(x: np.ndarray) -> Callable[[], np.ndarray]:
        nonlocal compiled
        if compiled is None:  # compiled once, with the settings of the thread that called `evaluate`
            batch = jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype), sharding=by_rows)
            compiled = program.lower(weights, batch).compile()
        y = threads.submit(evaluated, x)
        return lambda: np.asarray(y.result())  # a view of pinned memory

    threads = ThreadPoolExecutor(THREADS, "jaxneuron-gpu")
    try:
        yield begin
    finally:
        threads.shutdown(cancel_futures=True)


@contextlib.contextmanager
def copying() -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Yields a function like `np.copyto` that copies with several threads."""
    with ThreadPoolExecutor(THREADS, "jaxneuron-copy") as threads:

        def copy(to: np.ndarray, values: np.ndarray) -> None:
            size = max(1, -(-len(values) // THREADS))
            parts = [slice(start, start + size) for start in range(0, len(values), size)]
            list(threads.map(lambda part: np.copyto(to[part], values[part]), parts))

        yield copy
