"""Derivatives of a network with respect to its inputs: the Jacobian and the Laplacian, with the value.

J = diag(a'(z)) w^T J_before                              for each layer, from the first on or from the last
L = a'(z) (w^T L_before) + a''(z) (sum_i (dz/dx_i)^2)     for each layer, from the first on
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxneuron import _kernels
from jaxneuron._arrays import ArrayLike, as_array, as_operand, complete
from jaxneuron._errors import public
from jaxneuron._forward import checked
from jaxneuron._names import resolve
from jaxneuron._params import MLP, check_columns, check_mlp

R = TypeVar("R")


@public
def mlp_value_and_jacobian(mlp: MLP, x: ArrayLike) -> tuple[Array, Array]:
    """Evaluates a multilayer perceptron and its derivatives with respect to the inputs.

        J[..., j, i] = d y[..., j] / d x[..., i],  the product of diag(activation'(z)) w^T over the layers

    The matrices are multiplied from the first layer to the last or from the last to the first, whichever
    takes fewer multiplications. That depends on the widths of the layers, not on the number of rows. JAX
    differentiates your own activations; each row of their result must depend only on the same row of their
    argument.

    Args:
      mlp: an `MLP`. For a single layer, pass `MLP([layer], final_activation=...)`.
      x: the inputs, `(..., n_in)`: any number of leading batch axes, also none.

    Returns:
      `(y, J)`: `y (..., n_out)` is what `mlp_forward` gives; `J (..., n_out, n_in)` has the same dtype, or
      float32 if that is bfloat16 or float16.

    Raises:
      ValueError: if shapes do not fit or an activation changes the shape (the message names the layer), or if
        `x` is a data frame whose columns are not the network's `inputs`, in order.
      TypeError: if `mlp` is not an `MLP`, or `x` is not an array of real numbers or has more than numbers,
        such as a mask or physical units.

    Numerics: the slopes (first derivatives) of the package's activations are at most 4 ULP off at the
    computed z or, if a slope is a sum of terms that cancel, at most 4 u times the sum of their absolute
    values. u is 2^-24 in float32 and 2^-53 in float64. Sums are computed in the dtype of J.
    `jaxneuron.testing.assert_jacobian_within_bound` checks the bound for J that follows. At a kink, the slope
    is that of jax.nn: see docs/numerics.md. Tested by tests/test_derivatives.py.

    Example:
      >>> square = MLP([([[1.0, 2.0]], None)], final_activation="square")
      >>> y, jacobian = mlp_value_and_jacobian(square, [3.0])
      >>> y, jacobian
      (Array([ 9., 36.], dtype=float32), Array([[ 6.],
             [24.]], dtype=float32))
    """
    return _evaluated(_value_and_jacobian, mlp, x)


@public
def mlp_laplacian(mlp: MLP, x: ArrayLike) -> tuple[Array, Array, Array]:
    """Evaluates a multilayer perceptron, its Jacobian, and the Laplacian of each output.

        L[..., j] = sum_i d^2 y[..., j] / d x[..., i]^2

    Args:
      mlp: an `MLP`. For a single layer, pass `MLP([layer], final_activation=...)`.
      x: the inputs, `(..., n_in)`: any number of leading batch axes, also none.

    Returns:
      `(y, J, L)`: `y (..., n_out)` and `J (..., n_out, n_in)` are what `mlp_value_and_jacobian` gives;
      `L (..., n_out)` has the dtype of J.

    Raises:
      ValueError: if shapes do not fit or an activation changes the shape (the message names the layer), or if
        `x` is a data frame whose columns are not the network's `inputs`, in order.
      TypeError: if `mlp` is not an `MLP`, or `x` is not an array of real numbers or has more than numbers,
        such as a mask or physical units.

    Numerics: the first and second derivatives of the package's activations are at most 4 ULP off at the
    computed z or, if a derivative is a sum of terms that cancel, at most 4 u times the sum of their absolute
    values. u is 2^-24 in float32 and 2^-53 in float64. `jaxneuron.testing.assert_laplacian_within_bound`
    checks the bound for L that follows. Tested by tests/test_derivatives.py.

    Source: Li, Ye, Chen and others (2024), "A computational framework for neural network-based variational
    Monte Carlo with Forward Laplacian".

    Example:
      >>> square = MLP([([[1.0], [2.0]], None)], final_activation="square")
      >>> mlp_laplacian(square, [3.0, 0.5])
      (Array([16.], dtype=float32), Array([[ 8., 16.]], dtype=float32), Array([10.], dtype=float32))
    """
    return _evaluated(_laplacian, mlp, x)


def _evaluated(function: Callable[[MLP, Any], R], mlp: MLP, x: ArrayLike) -> R:
    check_mlp(mlp, "pass MLP(layers), parameters first")
    check_columns(mlp, x, "x")
    x = as_operand(x, "x")
    y = function(mlp, x)
    return complete(y) if mlp._holds_numpy or isinstance(x, np.ndarray) else y  # type: ignore[attr-defined]


def _network(mlp: MLP, x: ArrayLike) -> tuple[Any, Any, Array]:
    activations = [resolve(activation) for activation in mlp.activations]
    arrays = jnp.asarray(as_array(x, "x"))
    return checked(mlp.layers, activations, arrays.shape, "x"), activations, arrays


@functools.partial(jax.jit, inline=True)
def _value_and_jacobian(mlp: MLP, x: Array) -> tuple[Array, Array]:
    return _kernels.value_and_jacobian(*_network(mlp, x))


@functools.partial(jax.jit, inline=True)
def _laplacian(mlp: MLP, x: Array) -> tuple[Array, Array, Array]:
    return _kernels.laplacian(*_network(mlp, x))
