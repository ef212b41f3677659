"""Sigmoids, and the activations that multiply z by a sigmoid."""

from __future__ import annotations

import functools

from jax import Array

from jaxneuron._math import correct, elementary
from jaxneuron._names import activation


@functools.partial(activation, narrow=elementary.sigmoid_16)
def sigmoid(z: Array) -> Array:
    """The logistic function.

        sigmoid(z) = 1 / (1 + exp(-z))

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [0, 1]. It is exactly 1/2 at 0, 0 at -infinity,
      and 1 from the z on where the exact value rounds to 1 (17.3287 in float32).

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1 ULP off, subnormal results included; correctly rounded in bfloat16 and float16; never
    decreasing between neighbouring floats. Tested by tests/test_numerics.py.

    Example:
      >>> sigmoid(0.0)
      Array(0.5, dtype=float32)
    """
    return elementary.sigmoid(z)


@functools.partial(activation, narrow=elementary.sigmoid_16)
def cr_sigmoid(z: Array) -> Array:
    """The logistic function, correctly rounded: the float nearest to the exact value.

        cr_sigmoid(z) = round(1 / (1 + exp(-z))), to nearest, ties to even

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [0, 1].

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: correctly rounded for every bfloat16, float16 and float32 number, subnormal results included, on
    every backend with float64 arithmetic; on other backends nothing is promised. float64 results are at most
    0.53 ULP off. It takes several times as long as `sigmoid` (docs/numerics.md). Tested by
    tests/test_numerics.py and, for all of float32, `python -m bench.accuracy`.

    Example:
      >>> cr_sigmoid([-100.0, -1.0])
      Array([3.7835059e-44, 2.6894143e-01], dtype=float32)
    """
    return correct.cr_sigmoid(z)


@activation
def tanh(z: Array) -> Array:
    """The hyperbolic tangent.

        tanh(z) = (exp(z) - exp(-z)) / (exp(z) + exp(-z))

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [-1, 1].

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64, for subnormal numbers too; never decreasing between
    neighbouring float32 numbers. Tested by tests/test_numerics.py.

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
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: correctly rounded for every bfloat16, float16 and float32 number, on every backend with float64
    arithmetic; on other backends nothing is promised. float64 results are those of `tanh`, at most 2 ULP off.
    It takes several times as long as `tanh` (docs/numerics.md). Tested by tests/test_numerics.py and, for
    all of float32, `python -m bench.accuracy`.

    Example:
      >>> cr_tanh([-0.5, 0.5])
      Array([-0.46211717,  0.46211717], dtype=float32)
    """
    return correct.cr_tanh(z)


@activation
def silu(z: Array) -> Array:
    """The sigmoid linear unit, also called swish.

        silu(z) = z sigmoid(z)

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`. -infinity gives the limit, -0.

    Source: Elfwing, Uchibe, Doya (2018), "Sigmoid-weighted linear units".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64. Tested by tests/test_numerics.py.

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
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`. -infinity gives the limit, -0.

    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64. Tested by tests/test_numerics.py.

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
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`. -infinity gives the limit, -0.

    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64. Tested by tests/test_numerics.py.

    Example:
      >>> gelu_tanh([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.gelu_tanh(z)


@activation
def mish(z: Array) -> Array:
    """A smooth activation, close to silu.

        mish(z) = z tanh(softplus(z))

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`. -infinity gives the limit, -0.

    Source: Misra (2019), "Mish: a self regularized non-monotonic activation function".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64. Tested by tests/test_numerics.py.

    Example:
      >>> mish([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.mish(z)
