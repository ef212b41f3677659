"""The activations on a GPU, of float32 sums whose results are rounded to bfloat16 or float16.

A 16-bit result asks for no more than some 2^-16 of relative error. So exponentials, logarithms, reciprocals
and tanh are single instructions of the special function unit, and the formulas only take care that
nothing cancels:

    sigmoid(z) = 1 / (1 + exp(-z))
    exp(z) - 1 = z + z^2 EXP(z), and as it stands below -0.34
    log1p(x) = x - x^2/2 + x^3/3, and log(1 + x) from x = 1/64 on

They are written in jax.numpy: the lines that are traced into the kernel are also swept on a CPU, by
tests/kernels/test_gpu.py. EXP and GELU are the polynomials of _math/formats.py.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from jaxneuron import _activations
from jaxneuron._math.arithmetic import at_least, at_most
from jaxneuron._math.formats import (
    FLOAT32,
    GELU_PLACE,
    LEAKY_SLOPE,
    SELU_LIMIT,
    SELU_SCALE,
    SQRT_8_PI,
    SQRT_8_PI_CUBIC,
    Polynomial,
)

LN2_HALF = 0.34  # EXP holds up to here
SERIES = 2.0**-6  # log1p by its series below: the next term is x^3 / 4 of the first
FAR = -1e10  # beyond, the formulas would meet infinity times 0; here they have reached their limits


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)); exp overflows where the result is below the smallest normal number, and gives 0."""
    return _reciprocal(1 + jnp.exp(-z))


def silu(z: Array) -> Array:
    """z sigmoid(z); -infinity gives -0."""
    z = at_least(z, FAR)
    return z * sigmoid(z)


def gelu_tanh(z: Array) -> Array:
    """z sigmoid(u), u = sqrt(8 / pi) (z + 0.044715 z^3)."""
    z = at_least(z, FAR)
    return z * sigmoid(z * (SQRT_8_PI.value + SQRT_8_PI_CUBIC.value * (z * z)))


def gelu(z: Array) -> Array:
    """z/2 erfc(-z / sqrt(2)), from a/2 erfc(a / sqrt(2)), a = |z|.

    That is a/2 exp(-a^2/2) (13/16 + t GELU(t - 3/8)) / (13/16 + a), t = a / (a + 4).
    """
    a = at_most(jnp.abs(z), FLOAT32.gelu_zero.xla)
    q = _reciprocal((a + 4) * (a + GELU_PLACE))  # both quotients from one reciprocal
    t = a * ((a + GELU_PLACE) * q)
    scale = GELU_PLACE + t * _polynomial(FLOAT32.gelu, t - 0.375)
    small = (0.5 * a * scale) * ((a + 4) * q) * jnp.exp(-0.5 * (a * a))
    return jnp.where(z < 0, -small, z - small)


def softplus(z: Array) -> Array:
    """max(z, 0) + log1p(exp(-|z|))."""
    x = jnp.exp(-jnp.abs(z))
    series = x * (1 - x * (0.5 - x * (1 / 3)))
    return jnp.maximum(z, 0) + jnp.where(x < SERIES, series, jnp.log(1 + x))


def elu(z: Array) -> Array:
    """z, and exp(z) - 1 below 0."""
    return jnp.where(z > 0, z, _exp_minus_1(jnp.minimum(z, 0)))


def selu(z: Array) -> Array:
    """1.0507 z, and 1.7581 (exp(z) - 1) below 0."""
    return jnp.where(z > 0, SELU_SCALE.value * z, SELU_LIMIT * _exp_minus_1(jnp.minimum(z, 0)))


def softmax(z: Array) -> Array:
    """exp(z - max z) over its sum on the last axis of two."""
    e = jnp.exp(z - lax.broadcast_in_dim(jnp.max(z, axis=1), z.shape, [0]))
    return e * lax.broadcast_in_dim(_reciprocal(jnp.sum(e, axis=1)), z.shape, [0])


def _exp_minus_1(z: Array) -> Array:
    near = z + (z * z) * _polynomial(FLOAT32.exp, z)
    return jnp.where(z > -LN2_HALF, near, jnp.exp(z) - 1)


def _reciprocal(d: Array) -> Array:
    """1 / d for d >= 1, by one instruction and a product; IEEE division takes about ten."""
    r = lax.rsqrt(d)
    return r * r


def _polynomial(coefficients: Polynomial, x: Array) -> Array:
    """The sum of coefficients[k] x^k, by Horner's rule, of numbers instead of arrays full of them."""
    *others, highest = coefficients
    total = highest * x + others.pop()
    while others:
        total = total * x + others.pop()
    return total


# The correctly rounded ones are so for 16-bit numbers; of a float32 sum they promise what the others do.
FORMULAS: dict[Callable[..., Array], Callable[[Array], Array]] = {
    _activations.identity: lambda z: z,
    _activations.relu: lambda z: jnp.maximum(z, 0),
    _activations.leaky_relu: lambda z: jnp.where(z >= 0, z, LEAKY_SLOPE * z),
    _activations.hard_sigmoid: lambda z: jnp.minimum(jnp.maximum(z + 3, 0), 6) * (1 / 6),
    _activations.sigmoid: sigmoid,
    _activations.cr_sigmoid: sigmoid,
    _activations.tanh: lax.tanh,
    _activations.cr_tanh: lax.tanh,
    _activations.silu: silu,
    _activations.gelu: gelu,
    _activations.gelu_tanh: gelu_tanh,
    _activations.softplus: softplus,
    _activations.elu: elu,
    _activations.selu: selu,
    _activations.softmax: softmax,
}


# Those of straight lines, which take next to no time and registers.
STRAIGHT = (_activations.identity, _activations.relu, _activations.leaky_relu, _activations.hard_sigmoid)
