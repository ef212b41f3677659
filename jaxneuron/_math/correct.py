"""Correctly rounded activations: the float nearest to the exact value, ties to even.

For float32 and narrower formats, the results are computed in float64 and then rounded. The error of float64
can matter only if the exact value is very close to the midpoint of two floats (Ziv 1991).
`python -m bench.accuracy` has checked all float32 inputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._math import elementary
from jaxneuron._math.arithmetic import (
    at_most,
    bits_of,
    exp_parts,
    leading,
    newton,
    number_of,
    polynomial,
    power_of_two,
    quotient,
    reduced,
    subnormal,
)
from jaxneuron._math.formats import FLOAT32, FLOAT64


@jax.custom_jvp
def cr_sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)) of a float32 or float64 array."""
    if z.dtype == jnp.float64:
        return _sigmoid64(z)
    with jax.enable_x64(True):
        x = z.astype(jnp.float64)
        n, r, rest = exp_parts(at_most(jnp.abs(x), FLOAT32.zero))
        c = power_of_two(0, n, -1)
        small = c / ((1 + (r + rest)) + c)
        y = jnp.where(x < 0, small, 1 - small)
        # Near 0 the difference from 1/2 comes from its series, and is rounded before it is added to 1/2: the
        # sum would lose the bits that say on which side of a midpoint the exact value is.
        difference = 0.25 * x * (1 - x * x * (1 / 12 - x * x / 120))
        ulp = jnp.where(x < 0, 2.0**-25, 2.0**-24)
        y = jnp.where(jnp.abs(x) < 2.0**-8, 0.5 + ulp * jnp.round(difference / ulp), y)
        # Below the normal numbers of float32 a result is an integer times the smallest number, and that
        # integer is its bit pattern.
        tiny = number_of(bits_of(small * 2.0**149 + 2.0**52).astype(jnp.int32))
        return jnp.where(x < -FLOAT32.normal, tiny, y.astype(jnp.float32))


@jax.custom_jvp
def cr_tanh(z: Array) -> Array:
    """tanh of a float32 or float64 array; float64 results are not correctly rounded."""
    if z.dtype == jnp.float64:
        return elementary.tanh(z)
    with jax.enable_x64(True):
        y = elementary.tanh(z.astype(jnp.float64)).astype(jnp.float32)
        return jnp.where(jnp.abs(z) < 2.0**-13, z, y)


def _sigmoid64(z: Array) -> Array:
    """sigmoid as in elementary.py, but exp, the denominator and results above 1/2 are kept in more parts."""
    f = FLOAT64
    a = at_most(jnp.abs(z), f.zero)
    n, r, s = reduced(a)
    first = leading(r - s)
    u_rest = (r - first) - s
    u = first + u_rest
    # exp(u) = 1 + u + u^2/2 + u^3 EXP, where first^2 / 2 is exact
    square = 0.5 * (first * first)
    rest = (0.5 * u_rest * (first + u) + (u * u * u) * polynomial(f.exp[1:], u)) - s
    c = power_of_two(0, n, -1)
    y = 1 + (r + (square + rest))
    y_first = leading(y)
    y_rest = ((r - (y_first - 1)) + square) + rest
    q = quotient(y + c)
    p = newton(((1 - q * y_first) - q * c) - q * y_rest)
    # Each result is rounded once. Below the normal numbers it is an integer, rounded from its whole part and
    # its fraction; above 1/2 it is the difference from 1, where 1 - half is exact because half has few bits.
    scaled = q * power_of_two(f.exponent_bias + f.fraction_bits - 1, n, -1)
    whole = jnp.floor(scaled)
    tiny = subnormal((whole + 2.0**f.fraction_bits) + ((scaled - whole) + scaled * p))
    small = jnp.where(a > f.normal, tiny, c * (q + q * p))
    half = c * q
    large = jnp.where(a < 12, (1 - half) - half * p, 1 - small)
    return jnp.where(z < 0, small, large)
