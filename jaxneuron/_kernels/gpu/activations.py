"""The activations on a GPU, of float32 sums whose results are rounded to bfloat16 or float16.

For a 16-bit result a relative error of some 2^-16 is small enough. So exponentials, logarithms, reciprocals,
square roots and tanh are single instructions of the special function unit, and the formulas only take care
that nothing cancels:

    sigmoid(z) = 1 / (1 + exp(-z))
    exp(z) - 1 = z + z^2 EXP(z), and as it stands below -0.34
    log1p(x) = x - x^2/2 + x^3/3, and log(1 + x) from x = 1/64 on
    sin(k pi / 2 + r) = +-(r + r^3 SIN(r^2)) or +-(1 - r^2/2 + r^4 COS(r^2)), |r| <= pi / 4

They are written in jax.numpy: the lines that are traced into the kernel are also swept on a CPU, by
tests/kernels/test_gpu.py. EXP, GELU, SIN and COS are the polynomials of _math/formats.py.
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

LN2_HALF = 0.34  # EXP holds up to here
SERIES = 2.0**-6  # log1p by its series below: the next term is x^3 / 4 of the first
FAR = 1e10  # beyond, the formulas would meet infinity times 0; here they have reached their limits
QUARTERS = half_pi(8)  # the first parts times a k below 2^16 are exact
SHIFT = 1.5 * 2.0**23  # added, it leaves a number rounded to an integer in the last bits


def identity(z: Array) -> Array:
    """z."""
    return z


def relu(z: Array) -> Array:
    """max(z, 0)."""
    return jnp.maximum(z, 0)


def leaky_relu(z: Array, slope: float) -> Array:
    """z, and slope z below 0."""
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
    """1 / (1 + exp(-z)); exp overflows where the result is below the smallest normal number, and gives 0."""
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
    q = _reciprocal((a + 4) * (a + GELU_PLACE))  # both quotients from one reciprocal
    t = a * ((a + GELU_PLACE) * q)
    scale = GELU_PLACE + t * polynomial(FLOAT32.gelu, t - 0.375)
    small = (0.5 * a * scale) * ((a + 4) * q) * jnp.exp(-0.5 * (a * a))
    return jnp.where(z < 0, -small, z - small)


def mish(z: Array) -> Array:
    """z tanh(softplus(z)) = z n / (n + 2), n = e (e + 2), e = exp(z); from 20 on z; -infinity gives -0."""
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
    """z, and exp(z) - 1 below 0."""
    return celu(z, 1.0)


def celu(z: Array, alpha: float) -> Array:
    """z, and alpha (exp(z / alpha) - 1) below 0."""
    return jnp.where(z > 0, z, _exp_minus_1(jnp.minimum(z, 0), 1 / alpha, alpha))


def scaled_elu(z: Array, alpha: float) -> Array:
    """z, and alpha (exp(z) - 1) below 0."""
    return jnp.where(z > 0, z, _exp_minus_1(jnp.minimum(z, 0), 1.0, alpha))


def selu(z: Array) -> Array:
    """1.0507 z, and 1.7581 (exp(z) - 1) below 0."""
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
    """sin(frequency z), of the product as it is rounded; 0 beyond 2^22, and NaN of an infinity.

    |frequency z| = k pi / 2 + r, and sin(r) or cos(r) by k.
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
    """exp(z - max z) over its sum on the last axis of two."""
    e = jnp.exp(_below_greatest(z))
    return e * lax.broadcast_in_dim(_reciprocal(jnp.sum(e, axis=1)), z.shape, [0])


def log_softmax(z: Array) -> Array:
    """d - log(sum of exp(d)) on the last axis of two, d = z - max z."""
    d = _below_greatest(z)
    return d - lax.broadcast_in_dim(jnp.log(jnp.sum(jnp.exp(d), axis=1)), z.shape, [0])


def _below_greatest(z: Array) -> Array:
    return z - lax.broadcast_in_dim(jnp.max(z, axis=1), z.shape, [0])


def _log_1_plus_exp(z: Array) -> Array:
    """log1p(exp(z)) for z <= 0."""
    x = jnp.exp(z)
    return jnp.where(x < SERIES, x * (1 - x * (0.5 - x * (1 / 3))), jnp.log(1 + x))


def _exp_minus_1(z: Array, inner: float, outer: float) -> Array:
    """outer (exp(inner z) - 1) for z <= 0; only where it is not small may inner z underflow."""
    x = inner * z
    near = (inner * outer) * (z + (z * x) * polynomial(FLOAT32.exp, x))
    return jnp.where(x > -LN2_HALF, near, outer * (jnp.exp(x) - 1))


def _reciprocal(d: Array) -> Array:
    """1 / d for d >= 1, by one instruction and a product; IEEE division takes about ten."""
    r = lax.rsqrt(d)
    return r * r


def polynomial(coefficients: Polynomial, x: Array) -> Array:
    """The sum of coefficients[k] x^k, by Horner's rule, of numbers instead of arrays full of them."""
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


# By the names and with the parameters of the CPU kernel's formulas, as `in_kernel` gives them. The correctly
# rounded ones are so for 16-bit numbers; of a float32 sum they promise what the others do.
FORMULAS: dict[str, Callable[..., Array]] = {
    function.__name__: function
    for function in (
        identity, relu, leaky_relu, hard_sigmoid, hard_tanh, hard_swish, sigmoid, silu, gelu, gelu_tanh,
        mish, softplus, scaled_softplus, log_sigmoid, elu, celu, scaled_elu, selu, softsign, squareplus,
        square, sin, softmax, log_softmax,
    )
} | {"exp": jnp.exp, "tanh": lax.tanh, "cr_tanh": lax.tanh, "cr_sigmoid": sigmoid}  # fmt: skip

# Those of straight lines and parabolas, which take next to no time and registers.
STRAIGHT = (identity, relu, leaky_relu, hard_sigmoid, hard_tanh, hard_swish, square)


def formula_of(activation: Any) -> Formula | None:
    """The formula of one of the package's functions, or of a value; None if there is none for GPUs."""
    known = NAMES.get(activation, activation)
    if not isinstance(known, str | Parametric):
        return None
    name, parameters = in_kernel(known)
    return Formula(FORMULAS[name], parameters, facts_of(known).of_rows) if name in FORMULAS else None
