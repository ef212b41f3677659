"""The sine of frequency z on float32 and float64 arrays, computed in float64.

    |frequency z| = k pi / 2 + r,  sin(r) or cos(r), depending on k

Up to 2^17 each product of k and a part of pi / 2 is exact (Cody and Waite 1980). Above that, the backend's
own sine is used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxneuron._math.arithmetic import differentiable, leading, polynomial, split
from jaxneuron._math.formats import FLOAT64, HALF_PI, LARGE_SINE

PART_BITS = 36  # the bits of a part of pi / 2: its product with k, which has 17 bits, is exact


def half_pi(bits: int) -> list[float]:
    """pi / 2 in three parts of `bits` bits, and the difference between pi / 2 and their sum."""
    parts, left = [], HALF_PI
    for _ in range(3):
        scale = Fraction(2) ** (bits - 1 - math.floor(math.log2(left)))
        parts.append(float(Fraction(math.floor(left * scale)) / scale))
        left -= Fraction(parts[-1])
    return [*parts, float(left)]


PARTS = half_pi(PART_BITS)


@functools.cache
def sin(frequency: float, quarters: int = 0) -> Callable[[Array], Array]:
    """sin(frequency z + quarters pi / 2). Its slope is frequency times the sine with one more quarter."""

    @differentiable(lambda z: frequency * sin(frequency, (quarters + 1) % 4)(z))
    def formula(z: Array) -> Array:
        with jax.enable_x64(True):
            wide, number = z.astype(jnp.float64), float(z.dtype.type(frequency))
            x, low = (
                _product(wide, number) if z.dtype == jnp.float64 else (wide * number, jnp.zeros_like(wide))
            )
            large = ~(jnp.abs(x) <= LARGE_SINE)
            y = _sine(jnp.where(large, 0, x), low, quarters)
            if quarters % 2 == 0:
                y = jnp.where(jnp.abs(x) < 2.0**-30, (1 - quarters) * (wide * number), y)
            y = lax.cond(jnp.any(large), lambda: jnp.where(large, _large(x, low, quarters), y), lambda: y)
            return y.astype(z.dtype)

    return formula


def _large(x: Array, low: Array, quarters: int) -> Array:
    """sin(x + low + quarters pi / 2), by the backend's sine and cosine."""
    sine, cosine = jnp.sin(x), jnp.cos(x)
    for _ in range(quarters):
        sine, cosine = cosine, -sine
    return sine * jnp.cos(low) + cosine * jnp.sin(low)


def _product(z: Array, frequency: float) -> tuple[Array, Array]:
    """frequency z = x + low, where x has one bit less than float64."""
    if frequency == 1:
        return z, jnp.zeros_like(z)
    (first, rest), z_first = split((frequency, 0.0), FLOAT64), leading(z)
    x = leading(z * frequency, FLOAT64.fraction_bits)
    z_rest = z - z_first
    return x, ((z_first * first - x) + (z_first * rest + z_rest * first)) + z_rest * rest


def _sine(x: Array, low: Array, quarters: int) -> Array:
    shift = 1.5 * 2.0**FLOAT64.fraction_bits
    pattern = lax.bitcast_convert_type(x * float(1 / HALF_PI) + shift, jnp.int64)
    quarter = pattern - int(FLOAT64.number(shift).view(FLOAT64.integer))
    k = quarter.astype(x.dtype)
    # x - k pi / 2 = r + rest
    difference = x - k * PARTS[0]
    near = difference - k * PARTS[1]
    near_rest = (difference - near) - k * PARTS[1]
    more = (near_rest - k * PARTS[2]) + (low - k * PARTS[3])
    r = near + more
    rest = more - (r - near)
    square = r * r
    sine = r + (r * square * polynomial(FLOAT64.sin, square) + rest)
    half = 0.5 * square
    first = 1 - half
    cosine = first + (square * square * polynomial(FLOAT64.cos, square) + (((1 - first) - half) - r * rest))
    quarter = quarter + quarters
    y = jnp.where(quarter & 1 != 0, cosine, sine)
    return jnp.where(quarter & 2 != 0, -y, y)
