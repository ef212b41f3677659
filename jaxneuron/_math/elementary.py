"""The formulas of the activations on float32 and float64 arrays, with errors of at most one or two ULP.

Names that end in `_first` and `_rest` are the two parts of one number (see arithmetic.py). docs/numerics.md
says how rounding errors are avoided, and tests/test_numerics.py tests the bounds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._math.arithmetic import (
    at_least,
    at_most,
    bits_of,
    differentiable,
    exp_parts,
    format_of,
    leading,
    newton,
    number_of,
    one_plus,
    polynomial,
    power_of_two,
    quotient,
    split,
    subnormal,
)
from jaxneuron._math.formats import (
    GELU_PLACE,
    LARGE_TANH,
    LN2,
    SELU_LIMIT,
    SELU_SCALE,
    SIXTH,
    SQRT_8_PI,
    SQRT_8_PI_CUBIC,
)

BITS = 64  # slopes are computed times 2^BITS: they may be subnormal where their products with z are not
SCALE = 2.0**-BITS


@jax.custom_jvp
def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), from the smaller of sigmoid(z) and sigmoid(-z), subnormal results included."""
    f = format_of(z)
    a = at_most(jnp.abs(z), f.zero)
    n, r, rest = exp_parts(a)
    c, q, p = smaller_half(n, r, rest)
    y = q + q * p
    # Below the normal numbers 2^-m y is an integer times the smallest number: the sum rounds to that integer.
    tiny = subnormal(y * power_of_two(f.exponent_bias + f.fraction_bits - 1, n, -1) + 2.0**f.fraction_bits)
    small = jnp.where(a > f.normal, tiny, c * y)
    return jnp.where(z < 0, small, 1 - small)


@jax.custom_jvp
def sigmoid_16(z: Array) -> Array:
    """sigmoid of float16 or bfloat16 numbers in float32, never the midpoint of two such numbers.

    Near 0, sigmoid rounded to float32 is 1/2 + z/4, which may be such a midpoint. The exact value is slightly
    nearer to 1/2, and so is the value here.
    """
    return jnp.where(jnp.abs(z) < 2.0**-5, 0.5 + z * (0.25 - 2.0**-14), sigmoid(z))


@jax.custom_jvp
def tanh(z: Array) -> Array:
    """z + z^3 TANH(z^2) for small z, and 1 - 2 / (1 + exp(2z)) for large z."""
    f = format_of(z)
    a = jnp.abs(z)
    large = 1 - tanh_half(a) * (2 * SCALE)
    sign = bits_of(z) & -(1 << (8 * z.dtype.itemsize - 1))
    square = z * z
    small = z + (z * square) * polynomial(f.tanh, square)
    y = jnp.where(a < LARGE_TANH, small, number_of(bits_of(large) | sign))
    return jnp.where(a < 2.0 ** -(f.fraction_bits // 2 + 2), z, y)


def tanh_half(a: Array) -> Array:
    """2^BITS / (1 + exp(2a)), a >= 0. tanh and its slope share it, so that XLA computes it only once."""
    n, r, rest = exp_parts(at_most(2 * a, max(format_of(a).gated_zero)))
    return power_of_two(BITS, n, -1) / ((1 + (r + rest)) + power_of_two(0, n, -1))


@jax.custom_jvp
def silu(z: Array) -> Array:
    """z sigmoid(z)."""
    a = at_most(jnp.abs(z), format_of(z).gated_zero.xla)
    return _gated(z, a, a, *exp_parts(a))


@jax.custom_jvp
def gelu_tanh(z: Array) -> Array:
    """z/2 (1 + tanh(u/2)) = z sigmoid(u), u = sqrt(8 / pi) (z + 0.044715 z^3)."""
    a = at_most(jnp.abs(z), max(format_of(z).gelu_tanh_zero))
    u, u_rest = cubic(a)
    return _gated(z, a, u, *exp_parts(u, u_rest))


def cubic(a: Array) -> tuple[Array, Array]:
    """u = sqrt(8 / pi) (a + 0.044715 a^3) in two parts."""
    first, (ratio, rest) = leading(a), cubic_ratio(a)
    return first * ratio, (a - first) * ratio + a * rest


def cubic_ratio(a: Array) -> tuple[Array, Array]:
    """u / a in two parts."""
    f = format_of(a)
    (k1, k1_rest), (k3, k3_rest) = split(SQRT_8_PI, f), split(SQRT_8_PI_CUBIC, f)
    first = leading(a)
    square, square_rest = first * first, (a - first) * (a + first)
    square_first = leading(square)
    ratio = leading((k1 + k1_rest) + (k3 + k3_rest) * (square + square_rest))
    ratio_rest = (k1 - ratio) + k3 * square_first
    return ratio, ratio_rest + (
        (k3 * ((square - square_first) + square_rest) + k3_rest * (square + square_rest)) + k1_rest
    )


@jax.custom_jvp
def gelu(z: Array) -> Array:
    """z/2 erfc(-z / sqrt(2)), from a/2 erfc(a / sqrt(2)) = a/2 exp(-a^2/2) (13/16 + t GELU) / (13/16 + a)."""
    a = at_most(jnp.abs(z), max(format_of(z).gelu_zero))
    n, q, y, y_first, y_rest = normal_tail(a)
    first = leading(a)
    x = first * q
    x_first = leading(x)
    x_rest = (x - x_first) + (a - first) * q
    small = power_of_two(-1, n, 1) * (x_first * y_first + (x_first * y_rest + x_rest * y))
    return _with_limit(z, jnp.where(z < 0, -small, z - small))


def exp_of_square(a: Array) -> tuple[Array, Array, Array]:
    """n, r, rest with exp(-a^2 / 2) = 2^m (1 + r + rest)."""
    first = leading(a)
    return exp_parts(-0.5 * (first * first), -0.5 * ((a - first) * (a + first)))


def normal_tail(a: Array) -> tuple[Array, Array, Array, Array, Array]:
    """n, q, y, and y in two parts, with Phi(-a) = erfc(a / sqrt(2)) / 2 = 2^(m - 1) q y."""
    f = format_of(a)
    n, r, rest = exp_of_square(a)
    # 1 / (13/16 + a) = q + q p,  13/16 + t GELU = 1 + scale
    d = a + GELU_PLACE
    d_first = leading(d)
    q = quotient(d)
    p = newton((1 - q * d_first) - q * (a - (d_first - GELU_PLACE)))
    t = a / (a + 4)
    scale = t * polynomial(f.gelu, t - 0.375) + (GELU_PLACE - 1)
    # The product 2^m (1 + r + rest) (1 + p) (1 + scale) is again of the form 2^m (1 + r + rest).
    rest = rest + (1 + (r + rest)) * (p + (scale + scale * p))
    return n, q, *one_plus(r, rest)


@jax.custom_jvp
def softplus(z: Array) -> Array:
    """max(z, 0) + log1p(exp(-|z|))."""
    total, rest, (c, y, y_rest) = softplus_parts(z)
    total = jnp.where(
        z < -40, c * (y + y_rest), total + rest
    )  # only exp(z) below -40, where `rest` underflows
    return jnp.where(z < jnp.inf, total, z)  # NaN and infinity are returned unchanged


def softplus_parts(z: Array, low: Array | None = None) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """softplus(z + low) in two parts, and c, y, y_rest with exp(-|z + low|) = c (y + y_rest).

    It is max(z, 0) + log1p(x), x = exp(-|z|), where log1p(x) = ln 2 + log1p((x - 1) / 2) for x > 1/2.
    """
    f = format_of(z)
    low_of_exponent = 0.0 if low is None else jnp.where(z < 0, low, -low)
    n, r, rest = exp_parts(-at_most(jnp.abs(z), f.zero), low_of_exponent)
    c = power_of_two(0, n, 1)
    _, y, y_rest = one_plus(r, rest, f.fraction_bits)
    large = c * y > 0.5
    ln2, ln2_rest = (jnp.where(large, part, 0) for part in split(LN2, f, f.fraction_bits - 5))
    x = jnp.where(large, 0.5 * (c * y - 1), c * y)
    x_rest = jnp.where(large, 0.5 * c, c) * y_rest
    s = x / (2 + x)
    half = 0.5 * (x * x)
    rest = (s * (half + (s * s) * polynomial(f.log, s * s)) - half) + (x_rest - (2 * s) * x_rest)
    # The two larger terms, their sum and its rounding error. All else is small, and is added to that error.
    terms = x + ln2, jnp.where(z > 0, z, 0)
    larger, smaller = jnp.maximum(*terms), jnp.minimum(*terms)
    total = larger + smaller
    return total, (smaller - (total - larger)) + (rest + ln2_rest), (c, y, y_rest)


@differentiable(lambda z: sigmoid(-z))
def log_sigmoid(z: Array) -> Array:
    """-softplus(-z)."""
    return -softplus(-z)


@jax.custom_jvp
def elu(z: Array) -> Array:
    """z above 0, exp(z) - 1 below."""
    f = format_of(z)
    n, r, rest = exp_parts(at_least(jnp.minimum(z, 0), -f.one))
    c = power_of_two(0, n, 1)
    return jnp.where(z > -(2.0 ** -(f.fraction_bits + 2)), z, c * (r + rest) + (c - 1))


@jax.custom_jvp
def selu(z: Array) -> Array:
    """1.0507 z above 0, 1.7581 (exp(z) - 1) below."""
    f = format_of(z)
    n, r, rest = exp_parts(at_least(jnp.minimum(z, 0), -f.one))
    c = power_of_two(0, n, 1)
    # Where exp(z) < 1/2, a rounded number minus SELU_LIMIT; else its product with all parts of exp(z) - 1.
    far = (SELU_LIMIT * c) * (1 + (r + rest)) - SELU_LIMIT
    first, (alpha, alpha_rest) = leading(r), split((SELU_LIMIT, 0.0), f)
    near = alpha * first + ((alpha * (r - first) + alpha_rest * r) + SELU_LIMIT * rest)
    negative = jnp.where(c < 0.5, far, c * near - jnp.where(c < 1, 0.5 * SELU_LIMIT, 0))
    negative = jnp.where(z > -(2.0 ** -(f.fraction_bits + 2)), SELU_LIMIT * z, negative)
    scale = float(f.number(SELU_SCALE.value))
    positive = z * scale + jnp.where(z < jnp.inf, z, 0) * ((SELU_SCALE.value - scale) + SELU_SCALE.rest)
    return jnp.where(z > 0, positive, negative)


@differentiable(lambda z: exp(z))
def exp(z: Array) -> Array:
    """2^m (1 + r + rest); where 2^m would overflow, in two factors."""
    f = format_of(z)
    largest = (f.exponent_bias + 1.4) * LN2.value  # for it, 2^m is just above all finite numbers
    n, r, rest = exp_parts(at_most(at_least(z, -f.zero), largest))
    y = 1 + (r + rest)
    return jnp.where(z < 0, y * power_of_two(0, n, 1), (y * power_of_two(-1, n, 1)) * 2)


@jax.custom_jvp
def softsign(z: Array) -> Array:
    """z / (1 + |z|), which is 1 from 2^60 on."""
    z = at_least(at_most(z, 2.0**60), -(2.0**60))
    return z / (1 + jnp.abs(z))


@differentiable(lambda z: jnp.where((z > -3) & (z < 3), 1 / 6, 0).astype(z.dtype))
def hard_sigmoid(z: Array) -> Array:
    """min(max(z + 3, 0), 6) / 6."""
    return jnp.clip(z + 3, 0, 6) / 6


@jax.custom_jvp
def squareplus(z: Array) -> Array:
    """(z + sqrt(z^2 + 4)) / 2: t below 0, |z| + t above, with t = 2 / (|z| + sqrt(z^2 + 4)).

    t (|z| + t) = 1. The error of a rounded t is, to first order, t e / (1 + t^2) with e = 1 - t (|z| + t).
    For very large |z|, t is 1 / |z|.
    """
    a = jnp.abs(z)
    x = at_most(a, 2.0**60)
    t = 1 / jnp.maximum(0.5 * x + 0.5 * jnp.sqrt(x * x + 4), a)
    larger, smaller = jnp.maximum(a, t), jnp.minimum(a, t)
    total = leading(larger + smaller)
    rest = (larger - total) + smaller
    first = leading(t)
    e = ((1 - first * total) - (t - first) * total) - t * rest
    t_rest = (t * e) * (16 / 17 - 8 / 17 * (t * t))  # 1 / (1 + t^2) within 6 %
    y = jnp.where(z < 0, t + t_rest, total + (rest + t_rest))
    return jnp.where(a > 2.0**60, jnp.where(z < 0, t, z), y)


@differentiable(lambda z: jnp.where(z >= 3, 1, jnp.where(z <= -3, 0, z / 3 + 0.5)))
def hard_swish(z: Array) -> Array:
    """0 up to -3, z (z + 3) / 6 up to 3, then z."""
    f = format_of(z)
    x = at_least(at_most(z, 3), -3)
    sum_first = leading(x + 3)
    sum_rest = x - (sum_first - 3)
    first = leading(x)
    product = first * sum_first
    product_first = leading(product)
    rest = (product - product_first) + (first * sum_rest + (x - first) * (sum_first + sum_rest))
    sixth, sixth_rest = split(SIXTH, f)
    y = product_first * sixth + (product_first * sixth_rest + rest * (1 / 6))
    return jnp.where(z >= 3, z, _with_limit(z, y))


@jax.custom_jvp
def mish(z: Array) -> Array:
    """z tanh(softplus(z)) = max(z, 0) - |z| N / D, with E = exp(-|z|).

    N / D is E (2 + E) / (2 + 2 E + E^2) below 0 and 2 E^2 / (1 + 2 E + 2 E^2) above.
    """
    f = format_of(z)
    a = at_most(jnp.abs(z), f.gated_zero.xla)
    n, r, rest = exp_parts(-a)
    y, y_first, y_rest = one_plus(r, rest)
    c = power_of_two(0, n, 1)
    e, e_first, e_rest = c * y, c * y_first, c * y_rest
    negative = z < 0
    square, square_rest = e_first * e_first, e_rest * (e_first + e)
    start, factor = jnp.where(negative, 2, 1), jnp.where(negative, 1, 2)
    small_terms = 2 * e_rest + factor * square_rest
    d = (start + 2 * e_first) + (factor * square + small_terms)
    d_first = leading(d)
    d_rest = (((start - d_first) + 2 * e_first) + factor * square) + small_terms
    q = quotient(d)
    p = newton((1 - q * d_first) - q * d_rest)
    # |z| q in two parts, and (1 + r + rest) m in two parts, with m = N / E
    a_first = leading(a)
    t = a_first * q
    t_first = leading(t)
    t_rest = (t - t_first) + (a - a_first) * q
    m_first = jnp.where(negative, leading(2 + e), 2 * e_first)
    m_rest = jnp.where(negative, (e_first - (m_first - 2)) + e_rest, 2 * e_rest)
    w = y_first * m_first
    w_first = leading(w)
    w_rest = (w - w_first) + (y_first * m_rest + y_rest * (m_first + m_rest))
    total_first = t_first * w_first
    total_rest = t_first * w_rest + t_rest * (w_first + w_rest)
    total = total_first + (total_rest + (total_first + total_rest) * p)
    # 2^m may be subnormal where the product is normal: in two factors.
    small = jnp.where(a > f.normal - 7, (total * 2.0**-64) * power_of_two(64, n, 1), c * total)
    return _with_limit(z, jnp.where(negative, -small, z - small), 0.6)


@jax.custom_jvp
def softmax(z: Array) -> Array:
    """exp(d), divided by its sum over the last axis, d = z - max z with its rounding error."""
    f = format_of(z)
    d, error = _below_greatest(z)
    n, r, rest = exp_parts(at_least(d, -f.zero), jnp.where(d < -f.zero, 0, error))
    e = power_of_two(0, n, 1) * (1 + (r + rest))
    return e / jnp.sum(e, axis=-1, keepdims=True)


@softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = softmax(*primals)
    weighted = y * tangents[0]
    return y, weighted - y * jnp.sum(weighted, axis=-1, keepdims=True)


@jax.custom_jvp
def log_softmax(z: Array) -> Array:
    """d - log(sum of exp(d) over the last axis), d = z - max z with its rounding error."""
    d, error = _below_greatest(z)
    f = format_of(z)
    n, r, rest = exp_parts(at_least(d, -f.zero), jnp.where(d < -f.zero, 0, error))
    total = jnp.sum(power_of_two(0, n, 1) * (1 + (r + rest)), axis=-1, keepdims=True)
    return d + (jnp.where(d < -(2.0**100), 0, error) - jnp.log(total))


@log_softmax.defjvp
def _log_softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weighted = softmax(*primals) * tangents[0]
    return log_softmax(*primals), tangents[0] - jnp.sum(weighted, axis=-1, keepdims=True)


def _below_greatest(z: Array) -> tuple[Array, Array]:
    """z minus the largest z on the last axis, and the rounding error of that difference."""
    greatest = jnp.broadcast_to(jnp.max(z, axis=-1, keepdims=True, initial=-jnp.inf), z.shape)
    d = z - greatest
    z_part = d + greatest
    return d, (z - z_part) - (greatest + (d - z_part))


def smaller_half(n: Array, r: Array, rest: Array) -> tuple[Array, Array, Array]:
    """c, q, p with 1 / (1 + 2^m (1 + r + rest)) = c (q + q p), m >= 0."""
    c = power_of_two(0, n, -1)
    y, first, y_rest = one_plus(r, rest)
    q = quotient(y + c)
    return c, q, newton(((1 - q * first) - q * c) - q * y_rest)


def scaled_half(n: Array, r: Array, rest: Array, bits: int = BITS) -> Array:
    """2^bits / (1 + 2^m (1 + r + rest)), m >= 0."""
    _, q, p = smaller_half(n, r, rest)
    return power_of_two(bits, n, -1) * (q + q * p)


def _gated(z: Array, x: Array, a: Array, n: Array, r: Array, rest: Array) -> Array:
    """z sigmoid(sign(z) a), with x = |z| and exp(a) = 2^m (1 + r + rest)."""
    c, q, p = smaller_half(n, r, rest)
    first = leading(x)
    y = first * q + ((x - first) * q + (x * q) * p)
    # 2^-m may be subnormal where the product is normal: in two factors.
    small = jnp.where(a > format_of(z).normal - 7, (y * 2.0**-64) * power_of_two(64, n, -1), c * y)
    return _with_limit(z, jnp.where(z < 0, -small, z - small))


def _with_limit(z: Array, y: Array, slope: float = 0.5) -> Array:
    """y, but slope z for small z, where the smaller parts of y would underflow."""
    return jnp.where(jnp.abs(z) < 2.0 ** -(format_of(z).fraction_bits + 3), slope * z, y)
