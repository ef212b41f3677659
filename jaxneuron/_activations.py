"""The activations: elementwise functions on any real array, and softmax over the last axis.

Each takes a number, a sequence or an array of any shape. Integers and booleans are promoted to JAX's
default float. bfloat16 and float16 are evaluated in float32 and rounded once. NaN gives NaN, and
nothing but NaN does (softmax apart).
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxneuron._arrays import ArrayLike, as_array, result_dtype, sum_dtype

Activation = str | Callable[[Array], Array]

BY_NAME: dict[str, Callable[[Any], Array]] = {}


def _activation(formula: Callable[[Array], Array]) -> Callable[[ArrayLike], Array]:
    """Give `formula`, written for float32 and float64 arrays, the package's dtype policy and a name."""
    name = formula.__name__

    @functools.partial(jax.jit, inline=True)
    def evaluate(z: Array) -> Array:
        dtype = result_dtype(z)
        return formula(z.astype(sum_dtype(dtype))).astype(dtype)

    @functools.wraps(formula)
    def activation(z: ArrayLike) -> Array:
        return evaluate(as_array(z, name, "z"))

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

    Numerics: at most 2.5 ULP off in float32, 3 in float64, never decreasing; results below the
    smallest normal number are 0. Held by tests/test_activations.py.

    Example:
      >>> sigmoid(0.0)
      Array(0.5, dtype=float32)
    """
    return jax.nn.sigmoid(z)


@_activation
def relu(z: Array) -> Array:
    """The rectified linear unit.

        relu(z) = max(z, 0)

    Exact. Args and result: an array of any shape.

    Example:
      >>> relu([-1.0, 2.0])
      Array([0., 2.], dtype=float32)
    """
    return jnp.maximum(z, 0)


@_activation
def tanh(z: Array) -> Array:
    """The hyperbolic tangent.

        tanh(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z))

    Args and result: an array of any shape; the result lies in the closed interval [-1, 1].

    Example:
      >>> tanh([0.0, 100.0])
      Array([0., 1.], dtype=float32)
    """
    return jnp.tanh(z)


@_activation
def identity(z: Array) -> Array:
    """The identity, for layers that end in their affine function.

        identity(z) = z

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

    Example:
      >>> silu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return _finite_below(z) * jax.nn.sigmoid(z)


@_activation
def gelu(z: Array) -> Array:
    """The Gaussian error linear unit, in its exact form.

        gelu(z) = z Phi(z) = z/2 erfc(-z / sqrt(2))

    Args and result: an array of any shape. -infinity gives the limit, -0.
    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Example:
      >>> gelu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return 0.5 * _finite_below(z) * jax.lax.erfc(-z * 0.5**0.5)


@_activation
def gelu_tanh(z: Array) -> Array:
    """The Gaussian error linear unit, in its tanh approximation.

        gelu_tanh(z) = z/2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))

    Args and result: an array of any shape. -infinity gives the limit, -0.
    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

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

    Example:
      >>> softplus([-200.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))


@_activation
def elu(z: Array) -> Array:
    """The exponential linear unit.

        elu(z) = z for z > 0, exp(z) - 1 otherwise

    Args and result: an array of any shape.
    Source: Clevert, Unterthiner, Hochreiter (2015), "Fast and accurate deep network learning by ELUs".

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

    Example:
      >>> softmax([0.0, 0.0])
      Array([0.5, 0.5], dtype=float32)
    """
    if z.ndim == 0:
        raise ValueError("softmax: z must have an axis of units (..., units), got a scalar; pass [z]")
    e = jnp.exp(z - jnp.max(z, axis=-1, keepdims=True, initial=-jnp.inf))
    return e / jnp.sum(e, axis=-1, keepdims=True)


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
