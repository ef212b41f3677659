"""A formula that the GPU kernel does not use, timed by `python -m bench --gpu`: tanh partly by a polynomial.

The special function unit of a multiprocessor computes 16 results of tanh per clock cycle. So the tanh of 64
rows of 128 units keeps it as busy as their product keeps the tensor cores. Here tanh is therefore computed in
one of eight, or in one of four, groups of 8 columns by

    tanh(z) = x P(x^2),  x = min(max(z, -4), 4)       error at most 2^-10.5; of the instruction 2^-11

The compiler knows which columns a register has, and computes only one of the two. For five layers of 128
units, compiled for an H100, a thread executes 320 instructions of that unit and 1704 instructions in all;
with P in an eighth of the columns, 280 and 2224.
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
PARTS = {"an eighth": 56, "a quarter": 24}  # the columns whose index has all of these bits set


def polynomial() -> tuple[float, ...]:
    """P, which interpolates tanh(x) / x at the Chebyshev nodes of [0, END^2]; lowest coefficient first."""
    square = END**2 * (0.5 + 0.5 * np.cos(np.pi * (2 * np.arange(TERMS) + 1) / (2 * TERMS)))
    x = np.sqrt(square)
    found = np.linalg.solve(np.vander(square, TERMS, increasing=True), np.tanh(x) / x)
    return tuple(float(c) for c in found)


def tanh_in_part(bits: int) -> Callable[[Array], Array]:
    """tanh of the sums in registers, by the polynomial in the columns whose index has `bits` set."""
    coefficients = polynomial()

    def tanh(z: Array) -> Array:
        from jax.experimental.pallas import mosaic_gpu as plgpu

        x = jnp.minimum(jnp.maximum(z, -END), END)
        near = x * activations.polynomial(coefficients, x * x)
        column = plgpu.broadcasted_iota(jnp.int32, z.shape, 1, layout=plgpu.Layout.WGMMA)
        return jnp.where(column & bits == bits, near, lax.tanh(z))

    return tanh


def with_tanh(part: str, compiled: Callable[..., Any]) -> Callable[..., Any]:
    """The contender `compiled`, with a kernel that computes tanh partly by the polynomial."""

    def contender(*arguments: Any) -> Any:
        with mock.patch.dict(activations.FORMULAS, tanh=tanh_in_part(PARTS[part])):
            return compiled(*arguments)

    return contender
