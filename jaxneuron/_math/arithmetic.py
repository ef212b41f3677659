"""Numbers in two parts: the arithmetic on which elementary.py and the other formulas are built.

    exp(x + low) = 2^m (1 + r + rest)          m = round(x / ln 2),  r = x - m ln2_first, exactly
    1 / d = q + q p                            q is 1 / d in half a significand, p comes from a Newton step

Where a rounding error matters, a value is kept as an unevaluated sum of two floats (Dekker 1971). The larger
one has half the bits of a significand, so that its products are exact, whether XLA contracts a product and a
sum into a fused multiply-add or not. The other bits are cleared in the bit pattern, because XLA simplifies
(1 + x) - 1 to x. The argument of exp is reduced by the method of Cody and Waite (1980).

All arrays here are float32 or float64. XLA flushes subnormal numbers to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxneuron._math.formats import FLOAT32, FLOAT64, LOG2_E, Format, Polynomial

Function = Callable[[Array], Array]


def exp_parts(x: Array, low: Array | float = 0.0) -> tuple[Array, Array, Array]:
    """n, r, rest with exp(x + low) = 2^m (1 + r + rest); n is m shifted into the exponent field."""
    n, r, s = reduced(x, low)
    u = r - s
    return n, r, (u * u) * polynomial(format_of(x).exp, u) - s


def reduced(x: Array, low: Array | float = 0.0) -> tuple[Array, Array, Array]:
    """n, r, s with x + low = m ln 2 + r - s, r exact, s rounded; n is m shifted into the exponent field."""
    f = format_of(x)
    shift = 1.5 * 2.0**f.fraction_bits  # adding it rounds to an integer and leaves m in the lowest bits
    pattern = bits_of(x * LOG2_E + shift)
    m = (pattern - int(f.number(shift).view(f.integer))).astype(x.dtype)
    return pattern << f.fraction_bits, x - m * f.ln2[0], m * f.ln2[1] - low


def one_plus(r: Array, rest: Array, bits: int | None = None) -> tuple[Array, Array, Array]:
    """1 + r + rest as one rounded number, and again in two parts: its leading bits and the rest."""
    y = 1 + (r + rest)
    first = leading(y, bits)
    return y, first, (r - (first - 1)) + rest


def quotient(d: Array) -> Array:
    """1 / d, rounded to half a significand: half a unit of its last bit is added, later bits are cleared."""
    return leading((1 + 2.0 ** -format_of(d).half_bits) / d)


def newton(residual: Array) -> Array:
    """p with 1 / d = q + q p, where residual = 1 - q d."""
    return residual + residual * residual


def power_of_two(k: int, n: Array, sign: int) -> Array:
    """2^(k + sign m), or 0 where this is below the normal numbers; n is that of `exp_parts`."""
    f = FLOAT64 if n.dtype == jnp.int64 else FLOAT32
    width = 8 * n.dtype.itemsize
    start = (f.exponent_bias + k) << f.fraction_bits
    start -= (start >> (width - 1)) << width  # wrapped to the integers of n.dtype, as n is
    return number_of(jnp.maximum(start + n if sign > 0 else start - n, 0))


def subnormal(shifted: Array) -> Array:
    """k times the smallest subnormal number, whose bit pattern is k, for shifted = 2^fraction_bits + k."""
    f = format_of(shifted)
    return number_of(bits_of(shifted) - ((f.exponent_bias + f.fraction_bits) << f.fraction_bits))


def leading(x: Array, bits: int | None = None) -> Array:
    """x with its leading `bits` kept and all others cleared; by default half a significand is kept."""
    f = format_of(x)
    return number_of(bits_of(x) & -(1 << (f.fraction_bits + 1 - (bits or f.half_bits))))


def split(constant: tuple[float, float], f: Format, bits: int | None = None) -> tuple[float, float]:
    """A constant, given as the sum of two float64, as its leading bits and the rest."""
    scale = 2.0 ** ((bits or f.half_bits) - math.frexp(constant[0])[1])
    first = math.floor(constant[0] * scale) / scale
    return first, (constant[0] - first) + constant[1]


def polynomial(coefficients: Polynomial, x: Array) -> Array:
    """The sum of coefficients[k] x^k, by Horner's rule."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def at_most(x: Array, bound: float) -> Array:
    """The smaller of x and bound, or NaN if x is NaN; it takes half the time of jnp.minimum."""
    return jnp.where(x > bound, bound, x)


def at_least(x: Array, bound: float) -> Array:
    """The larger of x and bound, or NaN if x is NaN."""
    return jnp.where(x < bound, bound, x)


def format_of(x: Array) -> Format:
    """The format of a float32 or float64 array."""
    return FLOAT64 if x.dtype == jnp.float64 else FLOAT32


def bits_of(x: Array) -> Array:
    """The bit pattern of x."""
    return lax.bitcast_convert_type(x, format_of(x).integer)


def number_of(bits: Array) -> Array:
    """The number with this bit pattern."""
    return lax.bitcast_convert_type(bits, jnp.float64 if bits.dtype == jnp.int64 else jnp.float32)


def has_slope(function: jax.custom_jvp[Array], slope: Function) -> None:
    """Sets the derivative of `function`, dy = slope(z) dz: JAX can't differentiate through bit patterns."""

    def jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        return function(*primals), tangents[0] * slope(*primals)

    function.defjvp(jvp)


def differentiable(slope: Function) -> Callable[[Function], Function]:
    """Decorates a function with its slope; the slope may itself be decorated so."""

    def decorate(function: Function) -> Function:
        with_slope = jax.custom_jvp(function)
        has_slope(with_slope, slope)
        return with_slope

    return decorate
