"""Numbers in two parts: the arithmetic under the elementary functions.

    exp(x + low) = 2^m (1 + r + rest)          m = round(x / ln 2),  r = x - m ln2_first, exactly
    1 / d = q + q p                            q a quotient of few digits, p by Newton's step

A number whose rounding would count is kept as two. The larger one has so few digits that its products are
exact: then it is the same whether XLA contracts a product and a sum into one rounding, or not. The digits
are cut off in the bit pattern, where XLA can't see that parts cancel, as it does in (1 + x) - 1.

Arrays are float32 or float64; numbers of XLA's flush to 0 below the smallest normal one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxneuron._math.formats import FLOAT32, FLOAT64, Format, Polynomial

Derivative = Callable[[Array, Array], Array]


def exp_parts(x: Array, low: Array | float = 0.0) -> tuple[Array, Array, Array]:
    """n, r, rest with exp(x + low) = 2^m (1 + r + rest); n is m where a pattern has its exponent."""
    n, r, s = reduced(x, low)
    u = r - s
    return n, r, (u * u) * polynomial(format_of(x).exp, u) - s


def reduced(x: Array, low: Array | float = 0.0) -> tuple[Array, Array, Array]:
    """n, r, s with x + low = m ln 2 + r - s, r exact, s rounded; n is m where a pattern has its exponent."""
    f = format_of(x)
    shift = 1.5 * 2.0**f.digits  # added, it leaves no place for a fraction, and m in the last bits
    pattern = bits_of(x * math.log2(math.e) + shift)
    m = (pattern - int(f.number(shift).view(f.integer))).astype(x.dtype)
    return pattern << f.digits, x - m * f.ln2[0], m * f.ln2[1] - low


def one_plus(r: Array, rest: Array, digits: int | None = None) -> tuple[Array, Array, Array]:
    """1 + r + rest: rounded, its first digits, and what is left of it."""
    y = 1 + (r + rest)
    first = leading(y, digits)
    return y, first, (r - (first - 1)) + rest


def quotient(d: Array) -> Array:
    """1 / d rounded to few digits: cut off, from a numerator half a digit larger."""
    return leading((1 + 2.0 ** -format_of(d).few) / d)


def newton(residual: Array) -> Array:
    """p with 1 / d = q + q p, where residual = 1 - q d."""
    return residual + residual * residual


def power_of_two(k: int, n: Array, sign: int) -> Array:
    """2^(k + sign m), and 0 where that is below the normal numbers; n as exp_parts gives it."""
    f = FLOAT64 if n.dtype == jnp.int64 else FLOAT32
    width = 8 * n.dtype.itemsize
    start = (f.bias + k) << f.digits
    start -= (start >> (width - 1)) << width  # to the integers that n.dtype holds; n has wrapped too
    return number_of(jnp.maximum(start + n if sign > 0 else start - n, 0))


def subnormal(shifted: Array) -> Array:
    """k times the smallest subnormal number, for shifted = 2^digits + k: the integer k is its pattern."""
    f = format_of(shifted)
    return number_of(bits_of(shifted) - ((f.bias + f.digits) << f.digits))


def leading(x: Array, digits: int | None = None) -> Array:
    """The first digits of x, half of them unless told; the others are cut off."""
    f = format_of(x)
    return number_of(bits_of(x) & -(1 << (f.digits + 1 - (digits or f.few))))


def split(constant: tuple[float, float], f: Format, digits: int | None = None) -> tuple[float, float]:
    """A constant, given as a float64 and what that lacks: its first digits and the rest."""
    scale = 2.0 ** ((digits or f.few) - math.frexp(constant[0])[1])
    first = math.floor(constant[0] * scale) / scale
    return first, (constant[0] - first) + constant[1]


def polynomial(coefficients: Polynomial, x: Array) -> Array:
    """The sum of coefficients[k] x^k, by Horner's rule."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def at_most(x: Array, bound: float) -> Array:
    """The lesser of both; NaN stays, at half the price of jnp.minimum."""
    return jnp.where(x > bound, bound, x)


def at_least(x: Array, bound: float) -> Array:
    """The greater of both; NaN stays."""
    return jnp.where(x < bound, bound, x)


def format_of(x: Array) -> Format:
    """The format of a float32 or float64 array."""
    return FLOAT64 if x.dtype == jnp.float64 else FLOAT32


def bits_of(x: Array) -> Array:
    """The bit pattern of x."""
    return lax.bitcast_convert_type(x, format_of(x).integer)


def number_of(bits: Array) -> Array:
    """The number of a bit pattern."""
    return lax.bitcast_convert_type(bits, jnp.float64 if bits.dtype == jnp.int64 else jnp.float32)


def derivative(slope: Derivative) -> Callable[[Callable[[Array], Array]], Any]:
    """dy = slope(z, y) dz, for those who differentiate: bit patterns have no derivative."""

    def decorate(function: Callable[[Array], Array]) -> Any:
        differentiable = jax.custom_jvp(function)

        def jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
            y = differentiable(*primals)
            return y, tangents[0] * slope(*primals, y)

        differentiable.defjvp(jvp)
        return differentiable

    return decorate
