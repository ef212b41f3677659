"""The slopes of the activations, for JAX's derivatives of any order.

    sigmoid' = bell(z)                    bell(z) = sigmoid(z) sigmoid(-z),  bell' = -bell tanh(z / 2)
    tanh'    = 4 bell(2z)
    softplus' = sigmoid(z)
    silu'    = sigmoid(z) + z bell(z)
    gelu'    = Phi(z) + z phi(z)          phi(z) = exp(-z^2 / 2) / sqrt(2 pi),  phi' = -z phi
    gelu_tanh' = sigmoid(u) + z bell(u) u'
    mish'    = T + z T'                   T = tanh(softplus(z))
    elu'     = 1, and exp(z) below 0

The slope y (1 - y) of textbooks is 0 where y has been rounded to 1. Here each slope is a product of factors
whose relative error stays small far into the tails. If the slope is a sum, its error is small relative to the
terms. bell, phi and exp are multiplied by 2^BITS, because z bell(z) may be a normal number where bell(z) is
subnormal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxneuron._math import correct, elementary
from jaxneuron._math.arithmetic import (
    Function,
    at_least,
    at_most,
    differentiable,
    exp_parts,
    format_of,
    has_slope,
    one_plus,
    power_of_two,
    split,
)
from jaxneuron._math.elementary import BITS, SCALE
from jaxneuron._math.formats import SELU_LIMIT, SELU_SCALE, SQRT_8_PI, SQRT_8_PI_CUBIC


def bell_of(half: Function, tanh: Function, rate: Function | float = 1.0, bits: int = BITS) -> Function:
    """bell(u) 2^bits, from half(z) = sigmoid(-|u|) 2^bits, tanh(z) = tanh(u / 2) and rate = u'."""

    def slope(z: Array) -> Array:
        return -(bell(z) * tanh(z)) * (rate(z) if callable(rate) else rate)

    @differentiable(slope)
    def bell(z: Array) -> Array:
        small = half(z)
        return small * (1 - small * 2.0**-bits)

    return bell


def _half(z: Array) -> Array:
    return elementary.scaled_half(*exp_parts(at_most(jnp.abs(z), format_of(z).zero)))


bell = bell_of(_half, lambda z: elementary.tanh(0.5 * z))
double_bell = bell_of(lambda z: elementary.tanh_half(jnp.abs(z)), elementary.tanh, 2.0)  # u = 2z


def sigmoid(z: Array) -> Array:
    return bell(z) * SCALE


def tanh(z: Array) -> Array:
    return double_bell(z) * (4 * SCALE)


def _finite(z: Array, bound: float) -> Array:
    """z cut off where the slope no longer changes: infinity times 0 would be NaN."""
    return at_least(at_most(z, bound), -bound)


def gate(z: Array, small: Array, change: Array) -> Array:
    """G + z G' for a gate G that rises from 0 to 1.

    `small` is 1 - G for z above 0, else G, and `change` is z G'; both times 2^BITS.
    """
    return jnp.where(z < 0, (small + change) * SCALE, 1 + (change - small) * SCALE)


@differentiable(lambda z: _silu_curvature(_finite(z, max(format_of(z).gated_zero))))
def silu(z: Array) -> Array:
    z = _finite(z, max(format_of(z).gated_zero))
    small = elementary.scaled_half(*exp_parts(jnp.abs(z)))
    return gate(z, small, z * (small * (1 - small * SCALE)))


def _silu_curvature(z: Array) -> Array:
    return (bell(z) * (2 - z * elementary.tanh(0.5 * z))) * SCALE


@differentiable(lambda z: -z * phi(z))
def phi(z: Array) -> Array:
    """exp(-z^2 / 2) / sqrt(2 pi) 2^BITS."""
    n, r, rest = elementary.exp_of_square(at_most(jnp.abs(z), max(format_of(z).gelu_zero)))
    return power_of_two(BITS, n, 1) * ((1 + (r + rest)) * (2 * jnp.pi) ** -0.5)


@differentiable(lambda z: _gelu_curvature(_finite(z, max(format_of(z).gelu_zero))))
def gelu(z: Array) -> Array:
    z = _finite(z, max(format_of(z).gelu_zero))
    n, q, _, first, rest = elementary.normal_tail(jnp.abs(z))
    return gate(z, power_of_two(BITS - 1, n, 1) * (q * first + q * rest), z * phi(z))


def _gelu_curvature(z: Array) -> Array:
    return (phi(z) * (2 - z * z)) * SCALE


def _cubic_slope_parts(z: Array) -> tuple[Array, Array]:
    """u' = 3 u / z - 2 sqrt(8 / pi) in two parts, u = sqrt(8 / pi) (z + 0.044715 z^3)."""
    ratio, rest = elementary.cubic_ratio(jnp.abs(z))
    first, first_rest = split(SQRT_8_PI, format_of(z))
    return 3 * ratio - 2 * first, 3 * rest - 2 * first_rest


@differentiable(lambda z: (6 * SQRT_8_PI_CUBIC[0]) * z)
def _cubic_slope(z: Array) -> Array:
    first, rest = _cubic_slope_parts(z)
    return first + rest


def _cubic_half(z: Array) -> Array:
    a = at_most(jnp.abs(z), max(format_of(z).gelu_tanh_zero))
    return elementary.scaled_half(*exp_parts(*elementary.cubic(a)))


@differentiable(lambda z: (cubic_bell(z) * _cubic_slope(z)) * (2 * SCALE))
def cubic_tanh(z: Array) -> Array:
    """tanh(u / 2)."""
    y = 1 - _cubic_half(z) * (2 * SCALE)
    return jnp.where(z < 0, -y, y)


cubic_bell: Function = bell_of(_cubic_half, cubic_tanh, _cubic_slope)


@differentiable(lambda z: _gelu_tanh_curvature(_finite(z, max(format_of(z).gelu_tanh_zero))))
def gelu_tanh(z: Array) -> Array:
    z = _finite(z, max(format_of(z).gelu_tanh_zero))
    small = _cubic_half(z)
    return gate(z, small, (z * _cubic_slope(z)) * (small * (1 - small * SCALE)))


def _gelu_tanh_curvature(z: Array) -> Array:
    first, rest = _cubic_slope_parts(z)
    square = first * first + rest * (2 * first + rest)
    terms = (4 * (first + rest) - 2 * SQRT_8_PI[0]) - (z * square) * cubic_tanh(z)
    return (cubic_bell(z) * terms) * SCALE


def _mish_parts(z: Array) -> tuple[Array, Array, Array]:
    """1 - T for z above 0, else T; and T'; both times 2^BITS; and q with T'' = T' q.

    They are formed from E = exp(-|z|), and D = 2 + 2 E + E^2 below 0, 1 + 2 E + 2 E^2 above.
    """
    n, r, rest = exp_parts(-at_most(jnp.abs(z), max(format_of(z).gated_zero)))
    y = 1 + (r + rest)
    e, scaled, negative = power_of_two(0, n, 1) * y, power_of_two(BITS, n, 1) * y, z < 0
    one = 1 + e
    # For z below 0: quotients of E whose denominators tend to 1.
    low, low_rate = e * one / (2 + e), e * (4 + e * (8 + e * (4 + e))) / (4 * one)
    high = 1 + 2 * (e * one)
    small = scaled * jnp.where(negative, 1, 2 * e) / jnp.where(negative, 1 + low, high)
    rate = scaled * jnp.where(negative, 1, 4 * (e * one)) / jnp.where(negative, 1 + low_rate, high * high)
    d = jnp.where(negative, 2 + e * (1 + one), high)
    q = 1 + jnp.where(negative, e, 1) * (1 / one - (4 * one) / d)
    return small, rate, q


@differentiable(lambda z: _mish_curvature(_finite(z, max(format_of(z).gated_zero))))
def mish(z: Array) -> Array:
    z = _finite(z, max(format_of(z).gated_zero))
    small, rate, _ = _mish_parts(z)
    return gate(z, small, z * rate)


@differentiable(lambda z: _mish_parts(z)[2] * _mish_rate(z))
def _mish_rate(z: Array) -> Array:
    return _mish_parts(z)[1]


def _mish_curvature(z: Array) -> Array:
    _, _, q = _mish_parts(z)
    return (_mish_rate(z) * (2 + z * q)) * SCALE


def exp_below(slope: float, limit: float) -> Function:
    """`slope` above 0, limit exp(z) below."""
    bits = exponent(limit)
    exp = exp_scaled(bits)
    return lambda z: jnp.where(z > 0, slope, exp(jnp.where(z > 0, 0, z)) * (limit * 2.0**-bits))


def exponent(factor: float) -> int:
    """k, from 0 to 127, with |factor| up to 2^k: (exp(z) 2^k) (factor / 2^k) underflows as late as it can."""
    return min(max(0, math.frexp(factor)[1]), 127)


@functools.cache
def exp_scaled(bits: int) -> Function:
    """exp(z) 2^bits, for z up to 0."""

    @differentiable(lambda z: exp(z))
    def exp(z: Array) -> Array:
        n, r, rest = exp_parts(at_least(z, -(format_of(z).zero + bits)))
        return power_of_two(bits, n, 1) * (1 + (r + rest))

    return exp


@functools.cache
def one_plus_to(power: int) -> Function:
    """(1 + |z|)^-power, corrected for the rounding error of 1 + |z|."""

    @differentiable(lambda z: (-power * jnp.sign(z)) * one_plus_to(power + 1)(z))
    def function(z: Array) -> Array:
        a = at_most(
            jnp.abs(z), 2.0 ** (format_of(z).exponent_bias // 2 + 1)
        )  # the bound's square is infinite
        total, first, rest = one_plus(a, jnp.zeros_like(a))
        y = 1 / math.prod([total] * power)
        return y - y * (power * ((rest - (total - first)) / total))

    return function


@differentiable(lambda z: 2 / ((z * z + 4) * jnp.sqrt(z * z + 4)))
def squareplus(z: Array) -> Array:
    small = elementary.squareplus(-jnp.abs(z)) / jnp.sqrt(z * z + 4)
    return jnp.where(z < 0, small, 1 - small)


SLOPES: dict[Callable[[Array], Array], Function] = {
    elementary.sigmoid: sigmoid,
    elementary.sigmoid_16: sigmoid,
    correct.cr_sigmoid: sigmoid,
    elementary.tanh: tanh,
    correct.cr_tanh: tanh,
    elementary.silu: silu,
    elementary.gelu: gelu,
    elementary.gelu_tanh: gelu_tanh,
    elementary.mish: mish,
    elementary.softplus: elementary.sigmoid,
    elementary.elu: exp_below(1.0, 1.0),
    elementary.selu: exp_below(SELU_SCALE.value, SELU_LIMIT),
    elementary.softsign: one_plus_to(2),
    elementary.squareplus: squareplus,
}
for _function, _slope in SLOPES.items():
    has_slope(_function, _slope)  # type: ignore[arg-type]
