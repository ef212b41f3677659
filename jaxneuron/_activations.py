"""The activations: elementwise functions on any real array, and softmax over the last axis.

Each takes a number, a sequence or an array of any shape. Integers and booleans are promoted to JAX's
default float. bfloat16 and float16 are evaluated in float32 and rounded once. NaN gives NaN, and
nothing but NaN does (softmax apart). What is no array of real numbers is a TypeError or a ValueError.

Bounds are in u, the unit roundoff: 2^-24 in float32, 2^-53 in float64, and in bfloat16 and float16 those of
float32 and one rounding to the nearest. Results below the smallest normal number may come out as 0.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxneuron._arrays import ArrayLike, as_operand, result_dtype, sum_dtype

Activation = str | Callable[[Array], Array]

BY_NAME: dict[str, Callable[[Any], Array]] = {}


def _activation(formula: Callable[[Array], Array]) -> Callable[[ArrayLike], Array]:
    """Give `formula`, written for float32 and float64 arrays, the package's dtype policy and a name."""
    name = formula.__name__

    @functools.partial(jax.jit, inline=True)
    def evaluate(z: Array) -> Array:
        dtype = result_dtype(z)
        return formula(jnp.asarray(z, sum_dtype(dtype))).astype(dtype)

    @functools.wraps(formula)
    def activation(z: ArrayLike) -> Array:
        return evaluate(as_operand(z, name, "z"))

    BY_NAME[name] = activation
    return activation


@_activation
def sigmoid(z: Array) -> Array:
    """The logistic function.

        sigmoid(z) = 1 / (1 + exp(-z))

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`, in the closed interval [0, 1]: exactly 1/2 at 0, 0 and 1 at the infinities,
      and 1 from the point on where the true value rounds to it (z = 17.3287 in float32).

    Numerics: never decreasing; at most 2.5 ULP off in float32 on CPU, 1 in float64; results below the
    smallest normal number are 0. Held by tests/test_activations.py.

    Example:
      >>> sigmoid(0.0)
      Array(0.5, dtype=float32)
    """
    return _sigmoid64(z) if z.dtype == jnp.float64 else jax.nn.sigmoid(z)


@_activation
def relu(z: Array) -> Array:
    """The rectified linear unit.

        relu(z) = max(z, 0)

    Exact. Args and result: an array of any shape.

    Example:
      >>> relu([-1.0, 2.0])
      Array([0., 2.], dtype=float32)
    """
    return jax.nn.relu(z)


@_activation
def tanh(z: Array) -> Array:
    """The hyperbolic tangent.

        tanh(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z))

    Args and result: an array of any shape; the result lies in the closed interval [-1, 1].

    Numerics: within 16 u of the result's size; held by tests/test_activations.py.

    Example:
      >>> tanh([0.0, 100.0])
      Array([0., 1.], dtype=float32)
    """
    return jnp.tanh(z)


@_activation
def identity(z: Array) -> Array:
    """The identity, for layers that end in their affine function.

        identity(z) = z

    Exact. Args and result: an array of any shape.

    Example:
      >>> identity([1, 2])
      Array([1., 2.], dtype=float32)
    """
    return z


@_activation
def silu(z: Array) -> Array:
    """The sigmoid linear unit, also called swish.

        silu(z) = z sigmoid(z)

    Args and result: an array of any shape. -infinity gives the limit, -0.
    Source: Elfwing, Uchibe, Doya (2018), "Sigmoid-weighted linear units".

    Numerics: within 16 u |z|; held by tests/test_activations.py.

    Example:
      >>> silu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return _finite_below(z) * sigmoid(z)


@_activation
def gelu(z: Array) -> Array:
    """The Gaussian error linear unit, in its exact form.

        gelu(z) = z Phi(z) = z/2 erfc(-z / sqrt(2))

    Args and result: an array of any shape. -infinity gives the limit, -0.
    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Numerics: within 16 u |z|; held by tests/test_activations.py.

    Example:
      >>> gelu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return 0.5 * _finite_below(z) * lax.erfc(-z * 0.5**0.5)


@_activation
def gelu_tanh(z: Array) -> Array:
    """The Gaussian error linear unit, in its tanh approximation.

        gelu_tanh(z) = z/2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))

    Args and result: an array of any shape. -infinity gives the limit, -0.
    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Numerics: within 16 u |z|; held by tests/test_activations.py.

    Example:
      >>> gelu_tanh([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return 0.5 * _finite_below(z) * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (z + 0.044715 * z**3)))


@_activation
def softplus(z: Array) -> Array:
    """A smooth form of relu.

        softplus(z) = log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|))

    Args and result: an array of any shape.

    Numerics: within 16 u of the result's size; held by tests/test_activations.py.

    Example:
      >>> softplus([-200.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return jnp.logaddexp(z, jnp.zeros_like(z))


@_activation
def elu(z: Array) -> Array:
    """The exponential linear unit.

        elu(z) = z for z > 0, exp(z) - 1 otherwise

    Args and result: an array of any shape.
    Source: Clevert, Unterthiner, Hochreiter (2015), "Fast and accurate deep network learning by ELUs".

    Numerics: within 16 u of the result's size; held by tests/test_activations.py.

    Example:
      >>> elu([-200.0, 1.0])
      Array([-1.,  1.], dtype=float32)
    """
    return jax.nn.elu(z)


@_activation
def selu(z: Array) -> Array:
    """The scaled exponential linear unit.

        selu(z) = 1.0507009873554805 (z for z > 0, 1.6732632423543772 (exp(z) - 1) otherwise)

    Args and result: an array of any shape.
    Source: Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks".

    Numerics: within 16 u of the result's size; held by tests/test_activations.py.

    Example:
      >>> selu(0.0)
      Array(0., dtype=float32)
    """
    return jax.nn.selu(z)


@_activation
def leaky_relu(z: Array) -> Array:
    """The leaky rectified linear unit with slope 0.01; for another slope pass a callable.

        leaky_relu(z) = z for z >= 0, 0.01 z otherwise

    Args and result: an array of any shape.

    Numerics: within 16 u of the result's size; held by tests/test_activations.py.

    Example:
      >>> leaky_relu([-100.0, 1.0])
      Array([-1.,  1.], dtype=float32)
    """
    return jnp.where(z >= 0, z, 0.01 * z)


@_activation
def hard_sigmoid(z: Array) -> Array:
    """A sigmoid of straight lines, with slope 1/6 as in PyTorch and Keras (ONNX's default is 1/5).

        hard_sigmoid(z) = min(max(z + 3, 0), 6) / 6

    Args and result: an array of any shape; the result lies in [0, 1].

    Numerics: within 16 u; held by tests/test_activations.py.

    Example:
      >>> hard_sigmoid([-3.0, 0.0, 3.0])
      Array([0. , 0.5, 1. ], dtype=float32)
    """
    return jnp.clip(z + 3, 0, 6) / 6


@_activation
def softmax(z: Array) -> Array:
    """Exponentials over the last axis, scaled to sum to 1; only for a network's last layer.

        softmax(z)_i = exp(z_i) / sum_j exp(z_j)

    Args:
      z: array `(..., units)`. A row whose greatest entry is infinite gives NaN, as inf - inf does.

    Returns:
      An array like `z`, in [0, 1].

    Raises:
      ValueError: `z` is a scalar.

    Numerics: within (16 + units) u; held by tests/test_activations.py.

    Example:
      >>> softmax([0.0, 0.0])
      Array([0.5, 0.5], dtype=float32)
    """
    if z.ndim == 0:
        raise ValueError("softmax: z must have an axis of units (..., units), got a scalar; pass [z]")
    e = jnp.exp(z - jnp.max(z, axis=-1, keepdims=True, initial=-jnp.inf))
    return e / jnp.sum(e, axis=-1, keepdims=True)


@jax.custom_jvp
def _sigmoid64(z: Array) -> Array:
    """sigmoid in float64, where XLA's decreases between some neighbours.

    With |z| = m ln 2 + r, c = 2^-m and t = exp(r) - 1, the smaller half is c / (1 + t + c). One Newton step
    from a quotient of few bits makes that division: its products are exact, so that all that is rounded is
    t and the end.
    """
    a = jnp.minimum(jnp.abs(z), 708.3964185322641)  # exp(-a) is normal
    m = jnp.round(a * 1.4426950408889634)
    r = (a - m * 0.693147180369123816490) - m * 1.90821492927058770002e-10  # ln 2, the first part in 32 bits
    series = jnp.full_like(r, 1 / math.factorial(14))
    for n in range(13, 1, -1):
        series = series * r + 1 / math.factorial(n)
    t = r + r * r * series
    c = lax.bitcast_convert_type((1023 - m.astype(jnp.int64)) << 52, jnp.float64)
    head = _few_bits(1 + t)
    tail = t - (head - 1)
    q = _few_bits(1 / (1 + t + c))
    left = ((1 - q * head) - q * c) - q * tail
    small = c * (q + q * (left + left * left))
    small = jnp.where(z < -708.3964185322641, 0, small)
    return jnp.where(jnp.isnan(z), z, jnp.where(z < 0, small, 1 - small))


@_sigmoid64.defjvp
def _sigmoid64_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = _sigmoid64(*primals)
    return y, tangents[0] * y * _sigmoid64(-primals[0])


def _few_bits(x: Array) -> Array:
    """`x` with the last 28 bits of its float64 significand cut off: products of two such are exact."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int64) & ~0xFFFFFFF, jnp.float64)


def _finite_below(z: Array) -> Array:
    """`z` with -infinity replaced by the least finite number, whose product with 0 is -0 and not NaN."""
    return jnp.maximum(z, float(np.finfo(z.dtype).min))


def resolve(activation: Activation, where: str, argument: str = "activation") -> Callable[[Array], Array]:
    """The function that a name or a callable stands for."""
    if isinstance(activation, str):
        if activation in BY_NAME:
            return BY_NAME[activation]
        near = difflib.get_close_matches(activation, BY_NAME, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "; pass one of these or a function"
        raise ValueError(
            f"{where}: {argument} must be a callable or one of {', '.join(sorted(BY_NAME))}, "
            f"got {activation!r}{hint}"
        )
    if not callable(activation) or not _is_hashable(activation):
        raise TypeError(
            f"{where}: {argument} must be a name or a hashable callable, got {type(activation).__name__}; "
            f"pass a plain function"
        )
    return activation


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def canonical(activation: Activation, where: str, argument: str) -> Activation:
    """`activation` by its name where it has one (so that it can be saved), checked."""
    function = resolve(activation, where, argument)
    return next((name for name, known in BY_NAME.items() if known is function), activation)
