"""The activations on a GPU: formulas for float32 sums, whose results are rounded to bfloat16 or float16.

For a 16-bit result a relative error of about 2^-16 is small enough. So exponentials, logarithms, reciprocals,
square roots and tanh are single instructions of the GPU's special function unit. The formulas only have to
avoid cancellation:

    sigmoid(z) = 1 / (1 + exp(-z))
    exp(z) - 1 = z + z^2 EXP(z), and exp(z) - 1 itself below -0.34
    log1p(x) = x - x^2/2 + x^3/3, and log(1 + x) from x = 1/64 on
    sin(k pi / 2 + r) = +-(r + r^3 SIN(r^2)) or +-(1 - r^2/2 + r^4 COS(r^2)), |r| <= pi / 4

The formulas are written in jax.numpy, so tests/kernels/test_gpu.py can check on a CPU the same lines that are
traced into the kernel. EXP, GELU, SIN and COS are the polynomials of _math/formats.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxneuron._math.activations import facts_of, in_kernel
from jaxneuron._math.formats import (
    FLOAT32,
    GELU_PLACE,
    SELU_LIMIT,
    SELU_SCALE,
    SQRT_8_PI,
    SQRT_8_PI_CUBIC,
    Polynomial,
)
from jaxneuron._math.sine import half_pi
from jaxneuron._names import NAMES, Parametric

LN2_HALF = 0.34  # the polynomial EXP is valid down to minus this
SERIES = 2.0**-6  # below, log1p is its series: the first term left out is x^3 / 4 of the result
FAR = 1e10  # farther out the formulas would multiply infinity by 0; here they have reached their limits
QUARTERS = half_pi(8)  # pi / 2 in parts; the products of the first parts with a k below 2^16 are exact
SHIFT = 1.5 * 2.0**23  # adding it rounds a number to an integer, and leaves the integer in the last bits


def identity(z: Array) -> Array:
    """z."""
    return z


def relu(z: Array) -> Array:
    """max(z, 0)."""
    return jnp.maximum(z, 0)


def leaky_relu(z: Array, slope: float) -> Array:
    """z, but slope z below 0."""
    return jnp.where(z >= 0, z, slope * z)


def hard_sigmoid(z: Array) -> Array:
    """min(max(z + 3, 0), 6) / 6."""
    return jnp.minimum(jnp.maximum(z + 3, 0), 6) * (1 / 6)


def hard_tanh(z: Array, low: float, high: float) -> Array:
    """min(max(z, low), high)."""
    return jnp.minimum(jnp.maximum(z, low), high)


def hard_swish(z: Array) -> Array:
    """z hard_sigmoid(z); -infinity gives -0."""
    z = jnp.maximum(z, -FAR)
    return z * hard_sigmoid(z)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)). Where exp overflows it gives 0; there it is below the smallest normal number."""
    return _reciprocal(1 + jnp.exp(-z))


def silu(z: Array) -> Array:
    """z sigmoid(z); -infinity gives -0."""
    z = jnp.maximum(z, -FAR)
    return z * sigmoid(z)


def gelu_tanh(z: Array) -> Array:
    """z sigmoid(u), u = sqrt(8 / pi) (z + 0.044715 z^3)."""
    z = jnp.maximum(z, -FAR)
    return z * sigmoid(z * (SQRT_8_PI.value + SQRT_8_PI_CUBIC.value * (z * z)))


def gelu(z: Array) -> Array:
    """z/2 erfc(-z / sqrt(2)), from a/2 erfc(a / sqrt(2)), a = |z|.

    That is a/2 exp(-a^2/2) (13/16 + t GELU(t - 3/8)) / (13/16 + a), t = a / (a + 4).
    """
    a = jnp.minimum(jnp.abs(z), FLOAT32.gelu_zero.xla)
    q = _reciprocal((a + 4) * (a + GELU_PLACE))  # the denominators of both quotients
    t = a * ((a + GELU_PLACE) * q)
    scale = GELU_PLACE + t * polynomial(FLOAT32.gelu, t - 0.375)
    small = (0.5 * a * scale) * ((a + 4) * q) * jnp.exp(-0.5 * (a * a))
    return jnp.where(z < 0, -small, z - small)


def mish(z: Array) -> Array:
    """z tanh(softplus(z)) = z n / (n + 2), n = e (e + 2), e = exp(min(z, 20)); -infinity gives -0."""
    z = jnp.maximum(z, -FAR)
    e = jnp.exp(jnp.minimum(z, 20))
    n = e * (e + 2)
    return z * (n * _reciprocal(n + 2))


def softplus(z: Array) -> Array:
    """max(z, 0) + log1p(exp(-|z|))."""
    return jnp.maximum(z, 0) + _log_1_plus_exp(-jnp.abs(z))


def scaled_softplus(z: Array, beta: float) -> Array:
    """softplus(beta z) / beta."""
    return jnp.maximum(z, 0) + _log_1_plus_exp(-jnp.abs(beta * z)) * (1 / beta)


def log_sigmoid(z: Array) -> Array:
    """-softplus(-z)."""
    return jnp.minimum(z, 0) - _log_1_plus_exp(-jnp.abs(z))


def elu(z: Array) -> Array:
    """z, but exp(z) - 1 below 0."""
    return celu(z, 1.0)


def celu(z: Array, alpha: float) -> Array:
    """z, but alpha (exp(z / alpha) - 1) below 0."""
    return jnp.where(z > 0, z, _exp_minus_1(jnp.minimum(z, 0), 1 / alpha, alpha))


def scaled_elu(z: Array, alpha: float) -> Array:
    """z, but alpha (exp(z) - 1) below 0."""
    return jnp.where(z > 0, z, _exp_minus_1(jnp.minimum(z, 0), 1.0, alpha))


def selu(z: Array) -> Array:
    """1.0507 z, but 1.7581 (exp(z) - 1) below 0."""
    return jnp.where(z > 0, SELU_SCALE.value * z, scaled_elu(z, SELU_LIMIT))


def softsign(z: Array) -> Array:
    """z / (1 + |z|)."""
    z = hard_tanh(z, -FAR, FAR)
    return z * _reciprocal(1 + jnp.abs(z))


def squareplus(z: Array) -> Array:
    """(z + sqrt(z^2 + 4)) / 2: t below 0 and |z| + t above, t = 2 / (|z| + sqrt(z^2 + 4))."""
    a = jnp.abs(z)
    root = jnp.where(a < FAR, jnp.sqrt(a * a + 4), a)
    t = 2 * _reciprocal(a + root)
    return jnp.where(z < 0, t, a + t)


def square(z: Array) -> Array:
    """z^2."""
    return z * z


def sin(z: Array, frequency: float) -> Array:
    """The sine of the rounded product frequency z. Beyond 2^22 it gives 0, and for an infinity NaN.

    The product is k pi / 2 + r with an integer k, which says whether the result is +-sin(r) or +-cos(r).
    """
    x = frequency * z
    x = jnp.where(jnp.abs(x) <= 2.0**22, x, 0 * x)
    pattern = lax.bitcast_convert_type(x * (1 / sum(QUARTERS)) + SHIFT, jnp.int32)
    quarter = pattern - np.float32(SHIFT).view(np.int32)
    k = quarter.astype(jnp.float32)
    for part in QUARTERS:
        x = x - k * part
    s = x * x
    sine = x + (x * s) * polynomial(FLOAT32.sin, s)
    cosine = (1 - 0.5 * s) + (s * s) * polynomial(FLOAT32.cos, s)
    y = jnp.where(quarter & 1 == 0, sine, cosine)
    return jnp.where(quarter & 2 == 0, y, -y)


def softmax(z: Array) -> Array:
    """e / (the sum of e) for each row of z (rows, units), with e = exp(z - max z)."""
    e = jnp.exp(_below_greatest(z))
    return e * lax.broadcast_in_dim(_reciprocal(jnp.sum(e, axis=1)), z.shape, [0])


def log_softmax(z: Array) -> Array:
    """d - log(the sum of exp(d)) for each row of z (rows, units), with d = z - max z."""
    d = _below_greatest(z)
    return d - lax.broadcast_in_dim(jnp.log(jnp.sum(jnp.exp(d), axis=1)), z.shape, [0])


def _below_greatest(z: Array) -> Array:
    return z - lax.broadcast_in_dim(jnp.max(z, axis=1), z.shape, [0])


def _log_1_plus_exp(z: Array) -> Array:
    """log1p(exp(z)) for z <= 0."""
    x = jnp.exp(z)
    return jnp.where(x < SERIES, x * (1 - x * (0.5 - x * (1 / 3))), jnp.log(1 + x))


def _exp_minus_1(z: Array, inner: float, outer: float) -> Array:
    """outer (exp(inner z) - 1) for z <= 0. Where inner z underflows, the result is still accurate."""
    x = inner * z
    near = (inner * outer) * (z + (z * x) * polynomial(FLOAT32.exp, x))
    return jnp.where(x > -LN2_HALF, near, outer * (jnp.exp(x) - 1))


def _reciprocal(d: Array) -> Array:
    """1 / d for d >= 1, in two instructions, 1 / sqrt(d) and its square; IEEE division takes about ten."""
    r = lax.rsqrt(d)
    return r * r


def polynomial(coefficients: Polynomial, x: Array) -> Array:
    """The sum of coefficients[k] x^k, by Horner's rule. The coefficients stay scalars, not arrays."""
    *others, highest = coefficients
    total = highest * x + others.pop()
    while others:
        total = total * x + others.pop()
    return total


@dataclass(frozen=True)
class Formula:
    """A formula with its parameters, applied to an array."""

    function: Callable[..., Array]
    parameters: tuple[float, ...]
    of_rows: bool  # a unit's value depends on the other units of its row

    def __call__(self, z: Array) -> Array:
        return self.function(z, *self.parameters)


# The names and parameters are those of the CPU kernel's formulas, which `in_kernel` returns. cr_tanh and
# cr_sigmoid are not correctly rounded here: for a float32 sum they promise only as much as tanh and sigmoid.
FORMULAS: dict[str, Callable[..., Array]] = {
    function.__name__: function
    for function in (
        identity, relu, leaky_relu, hard_sigmoid, hard_tanh, hard_swish, sigmoid, silu, gelu, gelu_tanh,
        mish, softplus, scaled_softplus, log_sigmoid, elu, celu, scaled_elu, selu, softsign, squareplus,
        square, sin, softmax, log_softmax,
    )
} | {"exp": jnp.exp, "tanh": lax.tanh, "cr_tanh": lax.tanh, "cr_sigmoid": sigmoid}  # fmt: skip

# Activations made of straight lines and parabolas, which need almost no time and few registers.
STRAIGHT = (identity, relu, leaky_relu, hard_sigmoid, hard_tanh, hard_swish, square)


def formula_of(activation: Any) -> Formula | None:
    """The formula for one of this package's activations; None if there is not one for GPUs."""
    known = NAMES.get(activation, activation)
    if not isinstance(known, str | Parametric):
        return None
    name, parameters = in_kernel(known)
    return Formula(FORMULAS[name], parameters, facts_of(known).of_rows) if name in FORMULAS else None
