"""The activations whose result for a unit depends on all units of the row: softmax and log_softmax."""

from __future__ import annotations

from jax import Array

from jaxneuron._errors import BadValue
from jaxneuron._math import elementary
from jaxneuron._names import activation


@activation
def softmax(z: Array) -> Array:
    """Exponentials, divided by their sum over the last axis; only for the last layer of a network.

        softmax(z)_i = exp(z_i) / sum_j exp(z_j)

    Args:
      z: an array `(..., units)`. A row whose largest entry is infinite gives NaN, because inf - inf is NaN.

    Returns:
      An array with the shape of `z`, of numbers from 0 to 1.

    Raises:
      ValueError: if `z` is a scalar.
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: within a factor of 1 + (units + 4) u of the exact result, u = 2^-24 in float32 and 2^-53 in
    float64. Tested by tests/test_numerics.py.

    Example:
      >>> softmax([0.0, 0.0])
      Array([0.5, 0.5], dtype=float32)
    """
    return elementary.softmax(_with_units(z))


@activation
def log_softmax(z: Array) -> Array:
    """The logarithm of softmax over the last axis; only for the last layer of a network.

        log_softmax(z)_i = z_i - log(sum_j exp(z_j))

    Args:
      z: an array `(..., units)`. A row whose largest entry is infinite gives NaN, because inf - inf is NaN.

    Returns:
      An array with the shape of `z`, of numbers from -infinity to 0.

    Raises:
      ValueError: if `z` is a scalar.
      TypeError or ValueError: if `z` is not an array of real numbers.

    Numerics: the error is at most (units + 6) u + 4 u |log_softmax(z)|, u = 2^-24 in float32 and 2^-53 in
    float64. Tested by tests/test_numerics.py.

    Example:
      >>> log_softmax([0.0, -200.0])
      Array([   0., -200.], dtype=float32)
    """
    return elementary.log_softmax(_with_units(z))


def _with_units(z: Array) -> Array:
    if z.ndim == 0:
        raise BadValue("z must have an axis of units (..., units), got a scalar; pass [z]")
    return z
