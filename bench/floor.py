"""The least time that a case can take on this machine, from rates that the machine reached in the same run.

    floor = operations / matmul peak + activations x their time + bytes / copy bandwidth

- The peak is the better of JAX's and PyTorch's products of 2048 x 2048 matrices in the case's dtype.
- An activation's time is measured with jaxneuron's activation on 2^15 numbers, which stay in a core's cache:
  by XLA, and by a layer with one weight of 1, which the fused kernel evaluates where it runs; the shorter
  time counts. It is CPU time, divided by the number of cores. bfloat16 networks use the time for float32.
- Bytes are the rows read, the results written and, for many networks, the weights. `numpy.copyto` copies
  arrays of this size repeatedly, with a part for each core, so small arrays come from the caches here too.

The sum assumes that these three parts do not overlap. In a kernel they may a little, so a case may take less
time than its floor.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxneuron
from bench.cases import Case, activation
from bench.timing import CORES
from jaxneuron._names import resolve


class Floor(NamedTuple):
    """The seconds of each part."""

    products: float
    activations: float
    copies: float

    @property
    def seconds(self) -> float:
        return sum(self)


def floor(case: Case) -> Floor:
    members = max(1, case.members)
    rows = case.rows * members
    names = [case.activation] * (len(case.sizes) - 2) + [case.final_activation]
    activations = sum(
        rows * width * activation_seconds(name, case.dtype)
        for width, name in zip(case.sizes[1:], names, strict=True)
        if name != "identity"
    )
    weights = sum((m + 1) * n for m, n in itertools.pairwise(case.sizes)) * members if case.members else 0
    numbers = (case.rows if case.shared else rows) * case.sizes[0] + rows * case.sizes[-1] + weights
    return Floor(
        case.operations / matmul_peak(case.dtype),
        activations,
        copy_seconds(numbers * jnp.dtype(case.dtype).itemsize),
    )


@functools.cache
def matmul_peak(dtype: str, n: int = 2048) -> float:
    """Operations per second of a product of n x n matrices, by the faster of JAX and PyTorch."""
    a = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(jnp.matmul)
    calls = [lambda: product(a, a).block_until_ready()]
    try:
        import torch

        torch.set_num_threads(CORES)
        b = torch.rand((n, n)).to(getattr(torch, dtype))
        calls.append(lambda: torch.mm(b, b))
    except ImportError:
        pass
    return 2 * n**3 / min(_least(call, 5) for call in calls)


@functools.cache
def activation_seconds(name: str, dtype: str, n: int = 2**15, repeats: int = 50) -> float:
    """Seconds per number for an activation, if all cores work."""
    wide = "float64" if dtype == "float64" else "float32"
    z = jax.random.normal(jax.random.key(0), (n // 16, 16), wide)
    one = jaxneuron.Affine(jnp.ones((1, 1), wide), jnp.zeros(1, wide))
    function = resolve(activation(name))
    ways = [function]
    if name != "softmax":
        ways.append(lambda z: jaxneuron.neuron(one, z.reshape(n, 1), function).reshape(z.shape))

    def over_and_over(way):
        jitted = jax.jit(lambda z: lax.fori_loop(0, repeats, lambda _, z: way(z), z))
        return lambda: jitted(z).block_until_ready()

    return min(_least(over_and_over(way), 5, time.process_time) for way in ways) / (n * repeats * CORES)


def copy_seconds(size: int, least: float = 0.02) -> float:
    """Seconds to move `size` bytes, half of them read and half written."""
    part = max(size, 2**18) // 2 // CORES  # a smaller part would time the call of copyto itself
    repeats = max(1, round(least / (2 * part / 1e10)))
    arrays = [(np.ones(part, np.uint8), np.zeros(part, np.uint8)) for _ in range(CORES)]

    def copy(source, target) -> None:
        for _ in range(repeats):
            np.copyto(target, source)

    def everyone() -> None:
        threads = [threading.Thread(target=copy, args=pair) for pair in arrays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _least(everyone, 5) / (repeats * 2 * part * CORES) * size


def _least(call, times: int, clock=time.perf_counter) -> float:
    """The seconds of the fastest of several calls, after a first call that is not counted."""
    call()
    best = float("inf")
    for _ in range(times):
        start = clock()
        call()
        best = min(best, clock() - start)
    return best
