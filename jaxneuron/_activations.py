"""The activations: elementwise functions on any real array, and softmax over the last axis.

Each takes a number, a sequence or an array of any shape. Integers and booleans are promoted to JAX's
default float. bfloat16 and float16 are evaluated in float32 and rounded once more. NaN gives NaN, and
nothing but NaN does (softmax apart). Anything that is not a real array raises TypeError or ValueError.

Bounds are in ULP, the distance of neighbouring floats at the exact result, for float32 and float64, and hold
wherever sums, products and quotients are rounded as IEEE 754 says, contracted or not. XLA takes subnormal
inputs for 0 and gives 0 for subnormal results, unless an activation says that it doesn't.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._errors import BadValue
from jaxneuron._math import correct, elementary
from jaxneuron._math.formats import LEAKY_SLOPE
from jaxneuron._names import activation


@functools.partial(activation, narrow=elementary.sigmoid_16)
def sigmoid(z: Array) -> Array:
    """The logistic function.

        sigmoid(z) = 1 / (1 + exp(-z))

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`, in the closed interval [0, 1]: exactly 1/2 at 0, 0 and 1 at the infinities,
      and 1 from the point on where the true value rounds to it (z = 17.3287 in float32).

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1 ULP off, subnormal results included; correctly rounded in bfloat16 and float16; never
    decreasing between neighbouring floats. Held by tests/test_numerics.py.

    Example:
      >>> sigmoid(0.0)
      Array(0.5, dtype=float32)
    """
    return elementary.sigmoid(z)


@functools.partial(activation, narrow=elementary.sigmoid_16)
def cr_sigmoid(z: Array) -> Array:
    """The logistic function, correctly rounded: of all floats the one nearest to the exact value.

        cr_sigmoid(z) = round(1 / (1 + exp(-z))), to nearest, ties to even

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`, in the closed interval [0, 1].

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: the right bits for every bfloat16, float16 and float32 number, subnormal results included, on
    every backend with float64 arithmetic; without it, nothing is promised. float64 results are not claimed to
    be correctly rounded: at most 0.53 ULP off. It costs several times as much as `sigmoid`, see
    docs/numerics.md. Held by tests/test_numerics.py and, for all of float32, `python -m bench.accuracy`.

    Example:
      >>> cr_sigmoid([-100.0, -1.0])
      Array([3.7835059e-44, 2.6894143e-01], dtype=float32)
    """
    return correct.cr_sigmoid(z)


@activation
def relu(z: Array) -> Array:
    """The rectified linear unit.

        relu(z) = max(z, 0)

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`.

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: exact; held by tests/test_activations.py.

    Example:
      >>> relu([-1.0, 2.0])
      Array([0., 2.], dtype=float32)
    """
    return jax.nn.relu(z)


@activation
def tanh(z: Array) -> Array:
    """The hyperbolic tangent.

        tanh(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z))

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`, in the closed interval [-1, 1].

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64, for subnormal numbers too; never decreasing between
    neighbouring float32 numbers. Held by tests/test_numerics.py.

    Example:
      >>> tanh([0.0, 100.0])
      Array([0., 1.], dtype=float32)
    """
    return elementary.tanh(z)


@activation
def cr_tanh(z: Array) -> Array:
    """The hyperbolic tangent, correctly rounded.

        cr_tanh(z) = round(tanh(z)), to nearest, ties to even

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`.

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: the right bits for every bfloat16, float16 and float32 number, on every backend with float64
    arithmetic; without it, nothing is promised. float64 results are those of `tanh`: at most 2 ULP off. It
    costs several times as much as `tanh`, see docs/numerics.md. Held by tests/test_numerics.py and, for all
    of float32, `python -m bench.accuracy`.

    Example:
      >>> cr_tanh([-0.5, 0.5])
      Array([-0.46211717,  0.46211717], dtype=float32)
    """
    return correct.cr_tanh(z)


@activation
def identity(z: Array) -> Array:
    """The identity, for layers that end in their affine function.

        identity(z) = z

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`.

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: exact; held by tests/test_activations.py.

    Example:
      >>> identity([1, 2])
      Array([1., 2.], dtype=float32)
    """
    return z


@activation
def silu(z: Array) -> Array:
    """The sigmoid linear unit, also called swish.

        silu(z) = z sigmoid(z)

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`. -infinity gives the limit, -0.

    Source: Elfwing, Uchibe, Doya (2018), "Sigmoid-weighted linear units".

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; held by tests/test_numerics.py.

    Example:
      >>> silu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.silu(z)


@activation
def gelu(z: Array) -> Array:
    """The Gaussian error linear unit, in its exact form.

        gelu(z) = z Phi(z) = z/2 erfc(-z / sqrt(2))

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`. -infinity gives the limit, -0.

    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; held by tests/test_numerics.py.

    Example:
      >>> gelu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.gelu(z)


@activation
def gelu_tanh(z: Array) -> Array:
    """The Gaussian error linear unit, in its tanh approximation.

        gelu_tanh(z) = z/2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`. -infinity gives the limit, -0.

    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; held by tests/test_numerics.py.

    Example:
      >>> gelu_tanh([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.gelu_tanh(z)


@activation
def softplus(z: Array) -> Array:
    """A smooth form of relu.

        softplus(z) = log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|))

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`.

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers; held by tests/test_numerics.py.

    Example:
      >>> softplus([-200.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.softplus(z)


@activation
def elu(z: Array) -> Array:
    """The exponential linear unit.

        elu(z) = z for z > 0, exp(z) - 1 otherwise

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`.

    Source: Clevert, Unterthiner, Hochreiter (2015), "Fast and accurate deep network learning by ELUs".

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers; held by tests/test_numerics.py.

    Example:
      >>> elu([-200.0, 1.0])
      Array([-1.,  1.], dtype=float32)
    """
    return elementary.elu(z)


@activation
def selu(z: Array) -> Array:
    """The scaled exponential linear unit.

        selu(z) = 1.0507009873554805 (z for z > 0, 1.6732632423543772 (exp(z) - 1) otherwise)

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`.

    Source: Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks".

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers; held by tests/test_numerics.py.

    Example:
      >>> selu(0.0)
      Array(0., dtype=float32)
    """
    return elementary.selu(z)


@activation
def leaky_relu(z: Array) -> Array:
    """The leaky rectified linear unit with slope 0.01; for another slope pass a callable.

        leaky_relu(z) = z for z >= 0, 0.01 z otherwise

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`.

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: within 16 u of the result's size; held by tests/test_activations.py.

    Example:
      >>> leaky_relu([-100.0, 1.0])
      Array([-1.,  1.], dtype=float32)
    """
    return jnp.where(z >= 0, z, LEAKY_SLOPE * z)


@activation
def hard_sigmoid(z: Array) -> Array:
    """A sigmoid of straight lines, with slope 1/6 as in PyTorch and Keras (ONNX's default is 1/5).

        hard_sigmoid(z) = min(max(z + 3, 0), 6) / 6

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`, in the closed interval [0, 1].

    Raises: TypeError or ValueError where `z` is not an array of real numbers.

    Numerics: within 16 u; held by tests/test_activations.py.

    Example:
      >>> hard_sigmoid([-3.0, 0.0, 3.0])
      Array([0. , 0.5, 1. ], dtype=float32)
    """
    return jnp.clip(z + 3, 0, 6) / 6


@activation
def softmax(z: Array) -> Array:
    """Exponentials over the last axis, scaled to sum to 1; only for a network's last layer.

        softmax(z)_i = exp(z_i) / sum_j exp(z_j)

    Args:
      z: array `(..., units)`. A row whose greatest entry is infinite gives NaN, as inf - inf does.

    Returns:
      An array like `z`, in [0, 1].

    Raises:
      ValueError: `z` is a scalar. TypeError or ValueError: `z` is not an array of real numbers.

    Numerics: within a factor of 1 + (units + 4) u, u = 2^-24 in float32 and 2^-53 in float64; held by
    tests/test_numerics.py.

    Example:
      >>> softmax([0.0, 0.0])
      Array([0.5, 0.5], dtype=float32)
    """
    if z.ndim == 0:
        raise BadValue("z must have an axis of units (..., units), got a scalar; pass [z]")
    return elementary.softmax(z)
