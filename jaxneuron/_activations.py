"""The activations: elementwise functions on any real array, and softmax over the last axis.

Each takes a number, a sequence or an array of any shape. Integers and booleans are promoted to JAX's
default float. bfloat16 and float16 are evaluated in float32 and rounded once more. NaN gives NaN, and
nothing but NaN does (softmax apart). Anything that is not a real array raises TypeError or ValueError.

Bounds are in ULP, the distance of neighbouring floats at the exact result, for float32 and float64, and hold
wherever sums, products and quotients are rounded as IEEE 754 says, contracted or not. XLA takes subnormal
inputs for 0 and gives 0 for subnormal results, unless an activation says that it doesn't.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron._arrays import ArrayLike, as_operand, result_dtype, sum_dtype
from jaxneuron._errors import BadType, BadValue, public
from jaxneuron._math import correct, elementary
from jaxneuron._math.formats import LEAKY_SLOPE

Activation = str | Callable[[Array], Array]

BY_NAME: dict[str, Callable[[Any], Array]] = {}


def _activation(
    formula: Callable[[Array], Array], narrow: Callable[[Array], Array] | None = None
) -> Callable[[ArrayLike], Array]:
    """Give `formula`, written for float32 and float64 arrays, the package's dtype policy and a name.

    `narrow` takes its place where the result will be rounded to bfloat16 or float16.
    """
    name = formula.__name__

    @functools.partial(jax.jit, inline=True)
    def evaluate(z: Array) -> Array:
        dtype = result_dtype(z)
        function = narrow if narrow and dtype.itemsize == 2 else formula
        return function(jnp.asarray(z, sum_dtype(dtype))).astype(dtype)

    @public
    @functools.wraps(formula)
    def activation(z: ArrayLike) -> Array:
        return evaluate(as_operand(z, "z"))

    BY_NAME[name] = activation
    return activation


@functools.partial(_activation, narrow=elementary.sigmoid_16)
def sigmoid(z: Array) -> Array:
    """The logistic function.

        sigmoid(z) = 1 / (1 + exp(-z))

    Args:
      z: array of any shape, real.

    Returns:
      An array like `z`, in the closed interval [0, 1]: exactly 1/2 at 0, 0 and 1 at the infinities,
      and 1 from the point on where the true value rounds to it (z = 17.3287 in float32).

    Numerics: at most 1 ULP off, subnormal results included; correctly rounded in bfloat16 and float16; never
    decreasing between neighbouring floats. Held by tests/test_numerics.py.

    Example:
      >>> sigmoid(0.0)
      Array(0.5, dtype=float32)
    """
    return elementary.sigmoid(z)


@functools.partial(_activation, narrow=elementary.sigmoid_16)
def cr_sigmoid(z: Array) -> Array:
    """The logistic function, correctly rounded: of all floats the one nearest to the exact value.

        cr_sigmoid(z) = round(1 / (1 + exp(-z))), to nearest, ties to even

    Args, Returns: as for `sigmoid`.

    Numerics: the right bits for every bfloat16, float16 and float32 number, subnormal results included, on
    every backend with float64 arithmetic; without it, nothing is promised. float64 results are not claimed to
    be correctly rounded: at most 0.53 ULP off. It costs several times as much as `sigmoid`, see
    docs/numerics.md. Held by tests/test_numerics.py and, for all of float32, `python -m bench.accuracy`.

    Example:
      >>> cr_sigmoid([-100.0, -1.0])
      Array([3.7835059e-44, 2.6894143e-01], dtype=float32)
    """
    return correct.cr_sigmoid(z)


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

    Numerics: at most 1.5 ULP off, 2 in float64, for subnormal numbers too; never decreasing between
    neighbouring float32 numbers. Held by tests/test_numerics.py.

    Example:
      >>> tanh([0.0, 100.0])
      Array([0., 1.], dtype=float32)
    """
    return elementary.tanh(z)


@_activation
def cr_tanh(z: Array) -> Array:
    """The hyperbolic tangent, correctly rounded.

        cr_tanh(z) = round(tanh(z)), to nearest, ties to even

    Args and result: an array of any shape.

    Numerics: as for `cr_sigmoid`; float64 results are those of `tanh`.

    Example:
      >>> cr_tanh([-0.5, 0.5])
      Array([-0.46211717,  0.46211717], dtype=float32)
    """
    return correct.cr_tanh(z)


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

    Numerics: at most 1.5 ULP off, 2 in float64; held by tests/test_numerics.py.

    Example:
      >>> silu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.silu(z)


@_activation
def gelu(z: Array) -> Array:
    """The Gaussian error linear unit, in its exact form.

        gelu(z) = z Phi(z) = z/2 erfc(-z / sqrt(2))

    Args and result: an array of any shape. -infinity gives the limit, -0.
    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Numerics: at most 1.5 ULP off, 2 in float64; held by tests/test_numerics.py.

    Example:
      >>> gelu([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.gelu(z)


@_activation
def gelu_tanh(z: Array) -> Array:
    """The Gaussian error linear unit, in its tanh approximation.

        gelu_tanh(z) = z/2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))

    Args and result: an array of any shape. -infinity gives the limit, -0.
    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".

    Numerics: at most 1.5 ULP off, 2 in float64; held by tests/test_numerics.py.

    Example:
      >>> gelu_tanh([0.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.gelu_tanh(z)


@_activation
def softplus(z: Array) -> Array:
    """A smooth form of relu.

        softplus(z) = log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|))

    Args and result: an array of any shape.

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers; held by tests/test_numerics.py.

    Example:
      >>> softplus([-200.0, 100.0])
      Array([  0., 100.], dtype=float32)
    """
    return elementary.softplus(z)


@_activation
def elu(z: Array) -> Array:
    """The exponential linear unit.

        elu(z) = z for z > 0, exp(z) - 1 otherwise

    Args and result: an array of any shape.
    Source: Clevert, Unterthiner, Hochreiter (2015), "Fast and accurate deep network learning by ELUs".

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers; held by tests/test_numerics.py.

    Example:
      >>> elu([-200.0, 1.0])
      Array([-1.,  1.], dtype=float32)
    """
    return elementary.elu(z)


@_activation
def selu(z: Array) -> Array:
    """The scaled exponential linear unit.

        selu(z) = 1.0507009873554805 (z for z > 0, 1.6732632423543772 (exp(z) - 1) otherwise)

    Args and result: an array of any shape.
    Source: Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks".

    Numerics: at most 1.5 ULP off, 2 in float64; never decreasing between neighbouring float32
    numbers; held by tests/test_numerics.py.

    Example:
      >>> selu(0.0)
      Array(0., dtype=float32)
    """
    return elementary.selu(z)


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
    return jnp.where(z >= 0, z, LEAKY_SLOPE * z)


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

    Numerics: within a factor of 1 + (units + 4) u, u = 2^-24 in float32 and 2^-53 in float64; held by
    tests/test_numerics.py.

    Example:
      >>> softmax([0.0, 0.0])
      Array([0.5, 0.5], dtype=float32)
    """
    if z.ndim == 0:
        raise BadValue("z must have an axis of units (..., units), got a scalar; pass [z]")
    return elementary.softmax(z)


def resolve(activation: Activation, argument: str = "activation") -> Callable[[Array], Array]:
    """The function that a name or a callable stands for."""
    if isinstance(activation, str):
        if activation in BY_NAME:
            return BY_NAME[activation]
        near = difflib.get_close_matches(activation, BY_NAME, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "; pass one of these or a function"
        raise BadValue(
            f"{argument} must be a callable or one of {', '.join(sorted(BY_NAME))}, got {activation!r}{hint}"
        )
    if not callable(activation) or not _is_hashable(activation):
        raise BadType(
            f"{argument} must be a name or a hashable callable, got {type(activation).__name__}; "
            f"pass a plain function"
        )
    return activation


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def canonical(activation: Activation, argument: str) -> Activation:
    """`activation` by its name where it has one (so that it can be saved), checked."""
    function = resolve(activation, argument)
    return next((name for name, known in BY_NAME.items() if known is function), activation)
