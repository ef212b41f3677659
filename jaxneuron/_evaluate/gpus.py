"""Batches on GPUs: rows go in and outputs come out while the GPUs compute.

    rows  ->  pinned memory  ->  GPU: outputs  ->  pinned memory  ->  out

A GPU copies from and to pinned memory by itself, both ways at once. Rows are copied into it by JAX's own
threads, outputs out of it by those of this file.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding

NUMBERS = 2**23  # in a tile's widest layer: large enough to amortise a call and three copies
IN_FLIGHT = 6  # batches between the reader and the writer
THREADS = 8  # on an H100's host one copies 7 GB/s out of pinned memory, 4 copy 21, 8 copy 32; the bus, 51


def are_of(mesh: Mesh) -> bool:
    """Whether its devices are GPUs."""
    return bool(mesh.devices.flat[0].platform == "gpu")


def begin(
    program: Callable[[Any, Array], Array], weights: Any, by_rows: NamedSharding, x: np.ndarray
) -> Callable[[], np.ndarray]:
    """Begins to evaluate a batch, and returns a function that waits for its outputs."""
    y = program(weights, jax.device_put(x, by_rows))
    return functools.partial(np.asarray, jax.device_put(y, by_rows.with_memory_kind("pinned_host")))


@contextlib.contextmanager
def copying() -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """`np.copyto` by several threads."""
    with ThreadPoolExecutor(THREADS, "jaxneuron-copy") as threads:

        def copy(to: np.ndarray, values: np.ndarray) -> None:
            size = max(1, -(-len(values) // THREADS))
            parts = [slice(start, start + size) for start in range(0, len(values), size)]
            list(threads.map(lambda part: np.copyto(to[part], values[part]), parts))

        yield copy
