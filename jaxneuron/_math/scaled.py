"""The activations with parameters on float32 and float64 arrays, as exact as those without parameters.

    softplus(beta z) / beta,  alpha (exp(z / alpha) - 1)

A parameter is rounded to the array's dtype. The error bounds are those of the function with the rounded
parameter. Products with a parameter and with its reciprocal are kept in two parts, so that scaling before or
after a function adds no rounding error to its result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction

import jax.numpy as jnp
from jax import Array

from jaxneuron._math import slopes
from jaxneuron._math.arithmetic import (
    at_least,
    at_most,
    differentiable,
    exp_parts,
    format_of,
    leading,
    power_of_two,
    split,
)
from jaxneuron._math.elementary import scaled_half, softplus_parts, tanh
from jaxneuron._math.formats import Format

Formula = Callable[[Array], Array]


@functools.cache
def leaky_relu(slope: float) -> Formula:
    """z above 0, slope z below."""
    return differentiable(lambda z: jnp.where(z >= 0, 1, slope).astype(z.dtype))(lambda z: _bent(z, slope))


@functools.cache
def hard_tanh(low: float, high: float, at_ends: float = 0.0) -> Formula:
    """z, cut off at low and high, where its derivative is `at_ends`."""

    def slope(z: Array) -> Array:
        ends = jnp.where((z == low) | (z == high), at_ends, 0)
        return jnp.where((z > low) & (z < high), 1, ends).astype(z.dtype)

    return differentiable(slope)(lambda z: at_most(at_least(z, low), high))


@functools.cache
def elu(alpha: float) -> Formula:
    """z above 0, alpha (exp(z) - 1) below."""

    @differentiable(lambda z: slopes.exp_below(1.0, float(format_of(z).number(alpha)))(z))
    def formula(z: Array) -> Array:
        x = at_least(at_most(z, 0), -format_of(z).one)
        y = _exp_minus_1(x, 0.0, alpha)
        near = z > -(2.0 ** -(format_of(z).fraction_bits + 2))
        return jnp.where(near, _bent(z, alpha), y)

    return formula


@functools.cache
def celu(alpha: float) -> Formula:
    """z above 0, alpha (exp(z / alpha) - 1) below."""

    bits = slopes.exponent(1 / alpha)

    def quotient(z: Array, least: float) -> tuple[Array, Array, float]:
        """z / alpha in two parts, cut off at `least` and 0, and alpha."""
        f = format_of(z)
        number = float(f.number(alpha))
        return *_product(at_least(at_most(z, 0), least * number), _reciprocal(number), f), number

    @differentiable(lambda z: power(z) / float(format_of(z).number(alpha)))
    def power(z: Array) -> Array:
        """exp(z / alpha) 2^bits."""
        x, low, _ = quotient(z, -(format_of(z).zero + bits))
        n, r, rest = exp_parts(x, low)
        return power_of_two(bits, n, 1) * (1 + (r + rest))

    @differentiable(
        lambda z: jnp.where(z > 0, 0, power(z) * (2.0**-bits / float(format_of(z).number(alpha))))
    )
    def slope(z: Array) -> Array:
        return jnp.where(z > 0, 1, power(z) * 2.0**-bits)

    @differentiable(slope)
    def formula(z: Array) -> Array:
        f = format_of(z)
        x, low, number = quotient(z, -f.one)
        y = _exp_minus_1(x, low, number)
        return jnp.where(z > -(2.0 ** -(f.fraction_bits + 2)) * number, z, y)

    return formula


@functools.cache
def softplus(beta: float) -> Formula:
    """softplus(beta z) / beta."""

    bits = slopes.exponent(beta)

    def product(z: Array, most: float = 0.0) -> tuple[Array, Array, float, float]:
        """beta z in two parts, cut off where its exponential underflows; the z at which it does; and beta."""
        f = format_of(z)
        number = float(f.number(beta))
        limit = (f.zero + most) / number
        return *_product(at_least(at_most(z, limit), -limit), (number, 0.0), f), limit, number

    def half(z: Array) -> Array:
        x, low, _, _ = product(z, bits)
        return scaled_half(*exp_parts(jnp.abs(x), jnp.where(x < 0, -low, low)), bits)

    bell = slopes.bell_of(half, lambda z: tanh(0.5 * product(z)[0]), beta, bits)

    @differentiable(lambda z: bell(z) * (beta * 2.0**-bits))
    def sigmoid(z: Array) -> Array:
        small = half(z) * 2.0**-bits
        return jnp.where(z < 0, small, 1 - small)

    @differentiable(sigmoid)
    def formula(z: Array) -> Array:
        f = format_of(z)
        x, low, limit, number = product(z)
        inverse, inverse_rest = split(_reciprocal(number), f)
        total, rest, (c, y, y_rest) = softplus_parts(x, low)
        rest = rest + jnp.where(x > 0, low, 0)
        first = leading(total)
        rest = (total - first) + rest
        middle = first * inverse + (rest * inverse + (first + rest) * inverse_rest)
        # For very negative x only exp(x), because `rest` underflows.
        y_first = leading(y)
        y_rest = (y - y_first) + y_rest
        tail = c * (y_first * inverse + (y_rest * inverse + (y_first + y_rest) * inverse_rest))
        return jnp.where(z < limit, jnp.where(x < -40, tail, middle), z)  # NaN and infinity are unchanged

    return formula


def _bent(z: Array, slope: float) -> Array:
    """z above 0, slope z below, as a sum: XLA then flushes subnormal numbers on both sides."""
    return at_least(z, 0) + slope * at_most(z, 0)


def _exp_minus_1(x: Array, low: Array | float, alpha: float) -> Array:
    """alpha (exp(x + low) - 1) for x <= 0, computed as in elementary.py's `selu`."""
    f = format_of(x)
    number = float(f.number(alpha))
    n, r, rest = exp_parts(x, low)
    c = power_of_two(0, n, 1)
    # Where exp(x) < 1/2, a rounded number minus alpha; else its product with all parts of exp(x) - 1.
    far = (number * c) * (1 + (r + rest)) - number
    first, (alpha_first, alpha_rest) = leading(r), split((number, 0.0), f)
    near = alpha_first * first + ((alpha_first * (r - first) + alpha_rest * r) + number * rest)
    return jnp.where(c < 0.5, far, c * near - jnp.where(c < 1, 0.5 * number, 0))


def _product(z: Array, factor: tuple[float, float], f: Format) -> tuple[Array, Array]:
    """z times a factor, in two parts, of which the first is exact."""
    first, (factor_first, factor_rest) = leading(z), split(factor, f)
    return first * factor_first, (z - first) * factor_first + z * factor_rest


def _reciprocal(number: float) -> tuple[float, float]:
    first = 1 / number
    return first, float(1 / Fraction(number) - Fraction(first))
