"""The activations made of exponentials, logarithms or the sine, except those in smooth.py and rows.py."""

from __future__ import annotations

from jax import Array

from jaxneuron._math import elementary, sine
from jaxneuron._names import activation


@activation
def softplus(z: Array) -> Array:
    """A smooth form of relu.

        softplus(z) = log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|))

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers. Tested by tests/test_numerics.py.

    Example:
      >>> softplus([-200.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.softplus(z)


@activation
def log_sigmoid(z: Array) -> Array:
    """The logarithm of the logistic function.

        log_sigmoid(z) = log(sigmoid(z)) = -softplus(-z)

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers. Tested by tests/test_numerics.py.

    Example:
      >>> log_sigmoid([-100.0, 200.0])
      Array([-100.,   -0.], dtype=float32)
    """
    return elementary.log_sigmoid(z)


@activation
def elu(z: Array) -> Array:
    """The exponential linear unit, `ELU(1)`. For another alpha use `ELU`.

        elu(z) = z for z > 0, exp(z) - 1 otherwise

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Source: Clevert, Unterthiner, Hochreiter (2015), "Fast and accurate deep network learning by ELUs".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers. Tested by tests/test_numerics.py.

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
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Source: Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers. Tested by tests/test_numerics.py.

    Example:
      >>> selu(0.0)
      Array(0., dtype=float32)
    """
    return elementary.selu(z)


@activation
def exp(z: Array) -> Array:
    """The exponential function.

        exp(z) = e^z

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers. Tested by tests/test_numerics.py.

    Example:
      >>> exp([-200.0, 0.0])
      Array([0., 1.], dtype=float32)
    """
    return elementary.exp(z)


@activation
def sin(z: Array) -> Array:
    """The sine, `Sin(1)`. For another frequency use `Sin`.

        sin(z), z in radians

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [-1, 1]; NaN at the infinities, where there is no
      limit.

    Source: Sitzmann, Martel, Bergman, Lindell, Wetzstein (2020), "Implicit neural representations with
    periodic activation functions".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64, up to |z| = 2^17. Beyond that the fused CPU kernel uses the
    C library's sine, at most 1 ULP off, and XLA uses the backend's sine. Without the kernel the bound holds
    only on backends that have float64, because the sine is computed in it. Tested by tests/test_numerics.py.

    Example:
      >>> sin([0.0, 1.5707964])
      Array([0., 1.], dtype=float32)
    """
    return sine.sin(1.0)(z)
