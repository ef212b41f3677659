"""Forms that the GPU kernel does not have, timed by `python -m bench --gpu`: tanh in part by a polynomial.

The special function unit gives a multiprocessor 16 results of tanh a clock: 64 rows of 128 units keep it as
busy as their product keeps the tensor cores. So in one of eight, or four, groups of 8 columns tanh is

    tanh(z) = x P(x^2),  x = min(max(z, -4), 4)       off by 2^-10.5 at most, the instruction by 2^-11

The compiler knows which columns a register has, and computes one of the two. Compiled for an H100, 128 wide
and five layers, a thread executes 320 instructions of that unit and 1704 in all; with an eighth by P, 280
and 2224.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxneuron._kernels.gpu import activations

END = 4.0
TERMS = 11
PARTS = {"an eighth": 56, "a quarter": 24}  # of the columns: those that have all of these bits set


def polynomial() -> tuple[float, ...]:
    """P through tanh(x) / x at the Chebyshev nodes of [0, END^2], lowest coefficient first."""
    square = END**2 * (0.5 + 0.5 * np.cos(np.pi * (2 * np.arange(TERMS) + 1) / (2 * TERMS)))
    x = np.sqrt(square)
    found = np.linalg.solve(np.vander(square, TERMS, increasing=True), np.tanh(x) / x)
    return tuple(float(c) for c in found)


def tanh_in_part(bits: int) -> Callable[[Array], Array]:
    """tanh of sums as they lie in registers, by the polynomial in the columns that have `bits`."""
    coefficients = polynomial()

    def tanh(z: Array) -> Array:
        from jax.experimental.pallas import mosaic_gpu as plgpu

        x = jnp.minimum(jnp.maximum(z, -END), END)
        near = x * activations.polynomial(coefficients, x * x)
        column = plgpu.broadcasted_iota(jnp.int32, z.shape, 1, layout=plgpu.Layout.WGMMA)
        return jnp.where(column & bits == bits, near, lax.tanh(z))

    return tanh


def with_tanh(part: str, compiled: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, a contender, whose kernel has tanh in part by the polynomial."""

    def contender(*arguments: Any) -> Any:
        with mock.patch.dict(activations.FORMULAS, tanh=tanh_in_part(PARTS[part])):
            return compiled(*arguments)

    return contender
