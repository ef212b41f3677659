"""Activations made of comparisons, sums, products and quotients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._math import elementary, scaled
from jaxneuron._math.formats import LEAKY_SLOPE
from jaxneuron._names import activation


@activation
def identity(z: Array) -> Array:
    """The identity, for a layer without an activation.

        identity(z) = z

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: exact. Tested by tests/test_activations.py.

    Example:
      >>> identity([1, 2])
      Array([1., 2.], dtype=float32)
    """
    return z


@activation
def relu(z: Array) -> Array:
    """The rectified linear unit.

        relu(z) = max(z, 0)

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: exact. Tested by tests/test_activations.py.

    Example:
      >>> relu([-1.0, 2.0])
      Array([0., 2.], dtype=float32)
    """
    return jax.nn.relu(z)


@activation
def leaky_relu(z: Array) -> Array:
    """The leaky rectified linear unit with slope 0.01, `LeakyReLU(0.01)`. For another slope use `LeakyReLU`.

        leaky_relu(z) = z for z >= 0, 0.01 z otherwise

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 16 u |leaky_relu(z)| off, u = 2^-24 in float32 and 2^-53 in float64. Tested by
    tests/test_activations.py.

    Example:
      >>> leaky_relu([-100.0, 1.0])
      Array([-1.,  1.], dtype=float32)
    """
    return jnp.where(z >= 0, z, LEAKY_SLOPE * z)


@activation
def relu6(z: Array) -> Array:
    """The rectified linear unit, limited to 6: `HardTanh(0, 6)`.

        relu6(z) = min(max(z, 0), 6)

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [0, 6].

    Source: Krizhevsky (2010), "Convolutional deep belief networks on CIFAR-10".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: exact. Tested by tests/test_activations.py.

    Example:
      >>> relu6([-1.0, 2.0, 8.0])
      Array([0., 2., 6.], dtype=float32)
    """
    return scaled.hard_tanh(0.0, 6.0)(z)


@activation
def hard_tanh(z: Array) -> Array:
    """An approximation of tanh by straight lines: `HardTanh(-1, 1)`. For other limits use `HardTanh`.

        hard_tanh(z) = min(max(z, -1), 1)

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [-1, 1].

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: exact. Tested by tests/test_activations.py.

    Example:
      >>> hard_tanh([-2.0, 0.5, 8.0])
      Array([-1. ,  0.5,  1. ], dtype=float32)
    """
    return scaled.hard_tanh(-1.0, 1.0, at_ends=1.0)(z)


@activation
def hard_sigmoid(z: Array) -> Array:
    """A sigmoid of three straight lines, with slope 1/6 as in PyTorch and Keras (the default of ONNX is 1/5).

        hard_sigmoid(z) = min(max(z + 3, 0), 6) / 6

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [0, 1].

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 16 u off, u = 2^-24 in float32 and 2^-53 in float64. Tested by
    tests/test_activations.py.

    Example:
      >>> hard_sigmoid([-3.0, 0.0, 3.0])
      Array([0. , 0.5, 1. ], dtype=float32)
    """
    return elementary.hard_sigmoid(z)


@activation
def hard_swish(z: Array) -> Array:
    """An approximation of silu without exponentials: z times `hard_sigmoid(z)`.

        hard_swish(z) = z min(max(z + 3, 0), 6) / 6

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`. -infinity gives the limit, -0.

    Source: Howard and others (2019), "Searching for MobileNetV3".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64. Tested by tests/test_numerics.py.

    Example:
      >>> hard_swish([1.5, 3.0])
      Array([1.125, 3.   ], dtype=float32)
    """
    return elementary.hard_swish(z)


@activation
def softsign(z: Array) -> Array:
    """A curve like tanh, whose distance from its limits falls only as 1 / |z|.

        softsign(z) = z / (1 + |z|)

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, in the closed interval [-1, 1].

    Source: Bergstra, Desjardins, Lamblin, Bengio (2009), "Quadratic polynomials learn better image features".

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64. Tested by tests/test_numerics.py.

    Example:
      >>> softsign([-1.0, 3.0])
      Array([-0.5 ,  0.75], dtype=float32)
    """
    return elementary.softsign(z)


@activation
def squareplus(z: Array) -> Array:
    """A softplus without exponentials: one branch of a hyperbola, with the value 1 at 0.

        squareplus(z) = (z + sqrt(z^2 + 4)) / 2

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`, of numbers from 0 up. Up to rounding errors, squareplus(z) times
      squareplus(-z) is 1.

    Source: Barron (2021), "Squareplus: A softplus-like algebraic rectifier"; b = 4, as in jax.nn and Keras.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: at most 1 ULP off. Tested by tests/test_numerics.py.

    Example:
      >>> squareplus([-1.5, 0.0, 1.5])
      Array([0.5, 1. , 2. ], dtype=float32)
    """
    return elementary.squareplus(z)


@activation
def square(z: Array) -> Array:
    """The square.

        square(z) = z^2

    Args:
      z: a real array of any shape.

    Returns:
      An array with the shape of `z`.

    Raises:
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: correctly rounded. Tested by tests/test_numerics.py.

    Example:
      >>> square([-3.0, 2.0])
      Array([9., 4.], dtype=float32)
    """
    return z * z
