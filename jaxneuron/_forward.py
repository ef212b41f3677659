"""The forward pass: `affine`, `neuron`, `mlp_forward`.

z = x @ w + b          affine
y = activation(z)      neuron, or a layer of them
x = y                  mlp_forward: y is the input of the next layer
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxneuron import _kernels
from jaxneuron._activations import identity, log_softmax, sigmoid, softmax
from jaxneuron._arrays import ArrayLike, as_array, as_operand, complete, holds_numpy, is_jax_array
from jaxneuron._errors import REFUSALS, BadType, BadValue, check_transform, public, with_name
from jaxneuron._names import Activation, resolve
from jaxneuron._params import MLP, Affine, AffineLike, as_affine, check_columns, check_mlp

OF_ROWS = (softmax, log_softmax)


@public
def affine(params: AffineLike, x: ArrayLike) -> Array:
    """Evaluates the affine function of a neuron, or of a layer of neurons.

        z = x @ w + b

    Args:
      params: an `Affine` with `w (n_in,)`, `b ()` for a neuron, or `w (n_in, n_out)`, `b (n_out,)` for a
        layer; b can be None.
      x: the inputs, `(..., n_in)`.

    Returns:
      z, of shape `(...)` for a neuron, `(..., n_out)` for a layer, in the promoted dtype of `params` and `x`.

    Raises:
      ValueError: if shapes do not fit.
      TypeError: if an argument is not an array of real numbers, or has more than numbers, such as a mask or
        physical units.

    Numerics: |z - exact| <= (n_in + 2) (u (|x| @ |w| + |b|) + s), with u = 2^-24, s = 2^-126 for float32
    and u = 2^-53, s = 2^-1022 for float64. `exact` is the exact result for the arguments, converted to the
    dtype of the result; s is the most that a product loses by underflow. bfloat16 and float16 numbers are
    summed in float32, within the bound of float32, and the result is rounded once. Sums of bfloat16 numbers
    treat subnormal numbers, those below s, as 0, which adds s (sum |x| + sum |w|) to the bound. On a GPU,
    when XLA evaluates, it also rounds sums of 16-bit numbers before it adds the bias: see docs/guides/gpu.md.
    TF32 is used only if `jax.default_matmul_precision` says so. Tested by tests/test_forward.py.

    Example:
      >>> affine(Affine([1, 1], -1.5), [0, 1])
      Array(-0.5, dtype=float32)
    """
    params, x = _operands(params), as_operand(x, "x")
    z = _affine(params, x)
    return complete(z) if holds_numpy(x, *params) else z


@public
def neuron(params: AffineLike, x: ArrayLike, activation: Activation = sigmoid) -> Array:
    """Evaluates an artificial neuron, or a layer of them: an activation applied to an affine function.

        y = activation(x @ w + b)

    Args:
      params: an `Affine` with `w (n_in,)`, `b ()` for a neuron, or `w (n_in, n_out)`, `b (n_out,)` for a
        layer; b can be None.
      x: the inputs, `(..., n_in)`.
      activation: a name such as "tanh", a value such as `LeakyReLU(0.2)`, or any hashable callable. A
        callable gets float32 values if the result is bfloat16 or float16.

    Returns:
      y, of shape `(...)` for a neuron, `(..., n_out)` for a layer, in the promoted dtype of `params` and `x`.

    Raises:
      ValueError: if shapes do not fit, or the activation is unknown or changes the shape.
      TypeError: if an argument is not an array of real numbers or has more than numbers, such as a mask or
        physical units, or if the activation can't be called or hashed.

    Numerics: the activation is within its own bound at the computed z, and z is within the bound of `affine`.
    bfloat16 and float16 results are rounded only once, after the activation; `affine` has the exception on
    GPUs. Tested by tests/test_forward.py.

    Example:
      >>> neuron(Affine([0.5, 0.5], -0.7), [1, 1])
      Array(0.5744425, dtype=float32)
    """
    function = resolve(activation)
    params, x = _operands(params), as_operand(x, "x")
    y = _neuron(params, x, function)
    return complete(y) if holds_numpy(x, *params) else y


def mlp_forward(mlp: MLP, x: ArrayLike) -> Array:
    """Evaluates a multilayer perceptron.

        for every layer:  x = activation(x @ w + b)

    Args:
      mlp: an `MLP`.
      x: the inputs, `(..., n_in)`: any number of leading batch axes, also none.

    Returns:
      The outputs, `(..., n_out)`, in the promoted dtype of the network and `x`.

    Raises:
      ValueError: if shapes do not fit or an activation changes the shape (the message names the layer), or if
        `x` is a data frame whose columns are not the network's `inputs`, in order.
      TypeError: if `mlp` is not an `MLP`, or `x` is not an array of real numbers or has more than numbers,
        such as a mask or physical units.

    Numerics: each layer is within the bounds of `affine` and of its activation. If the fused CPU kernel
    evaluates the network, the outputs of a row have the same bits in any batch, at any position, under
    `jax.vmap` or not, with any number of threads. If XLA evaluates it, the last bits of a row may depend on
    the batch. `explain` tells which of the two evaluates it. Tested by tests/test_forward.py and
    tests/kernels/test_primitive.py.

    Example:
      >>> mlp_forward(jaxneuron.gates.XOR, [[0, 1], [1, 1]]) > 0.5
      Array([[ True],
             [False]], dtype=bool)
    """
    try:  # does what `public` does, without its 0.2 us: a call with one row takes 6 us
        if not isinstance(mlp, MLP):
            check_mlp(mlp, "pass MLP(layers), parameters first")
        if is_jax_array(type(x)) and not mlp._holds_numpy:  # type: ignore[arg-type,attr-defined]
            return _mlp_forward(mlp, x)
        check_columns(mlp, x, "x")
        return complete(_mlp_forward(mlp, as_operand(x, "x")))
    except REFUSALS as error:
        raise with_name("mlp_forward", error) from None
    except Exception as error:
        check_transform("mlp_forward", (x,), error)
        raise


@public
def explain(mlp: MLP, batch: ArrayLike | jax.ShapeDtypeStruct, *, derivatives: bool = False) -> str:
    """Tells what evaluates `mlp_forward(mlp, batch)`, and why.

    Args:
      mlp: an `MLP`.
      batch: the inputs, `(..., n_in)`, or a `jax.ShapeDtypeStruct` with their shape and dtype; the numbers do
        not matter.
      derivatives: True to tell what evaluates `mlp_value_and_jacobian(mlp, batch)` and
        `mlp_laplacian(mlp, batch)` instead.

    Returns:
      One line: the fused CPU kernel with its instruction set, the fused GPU kernel, or XLA with the reason.

    Raises:
      ValueError: if shapes do not fit.
      TypeError: if `mlp` is not an `MLP`, `batch` is not an array of real numbers, or `derivatives` is not
        True or False.

    Example:
      >>> explain(MLP([([[1.0], [2.0]], None)], final_activation=jnp.sin), [1.0, 2.0])
      "XLA, layer by layer: layer 0's activation is not in the kernel's list"
    """
    check_mlp(mlp)
    if not isinstance(derivatives, bool):
        raise BadType(f"derivatives must be True or False, got {derivatives!r}; pass a bool")
    choice, found = _kernels.derivative_choice if derivatives else _kernels.choice, []

    def forward(mlp: MLP, x: Array) -> None:
        activations = [resolve(activation) for activation in mlp.activations]
        found.append(choice(checked(mlp.layers, activations, x.shape, "batch"), activations, x))

    x = batch if isinstance(batch, jax.ShapeDtypeStruct) else as_operand(batch, "batch")
    jax.eval_shape(forward, mlp, x)
    return found[0]


@functools.partial(jax.jit, inline=True)
def _affine(params: Affine, x: Array) -> Array:
    return _forward([params], [identity], x)


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _neuron(params: Affine, x: Array, activation: Any) -> Array:
    return _forward([params], [activation], x)


@functools.partial(jax.jit, inline=True)
def _mlp_forward(mlp: MLP, x: Array) -> Array:
    return _forward(mlp.layers, [resolve(activation) for activation in mlp.activations], x)


def _forward(
    layers: Sequence[AffineLike],
    activations: Sequence[Callable[[Array], Array]],
    x: ArrayLike,
) -> Array:
    arrays = jnp.asarray(as_array(x, "x"))
    return _kernels.forward(checked(layers, activations, arrays.shape, "x"), activations, arrays)


def checked(
    layers: Sequence[AffineLike],
    activations: Sequence[Callable[[Array], Array]],
    shape: tuple[int, ...],
    argument: str,
) -> list[tuple[Array, Array | None]]:
    """Returns the arrays of the layers, after checking that they fit each other and inputs of this shape.

    Messages call the inputs `argument`.
    """
    checked = []
    for i, (params, activation) in enumerate(zip(layers, activations, strict=True)):
        w, b = as_affine(params, f"layer {i}")
        if not shape or shape[-1] != w.shape[0]:
            raise BadValue(
                f"{argument} must have shape (..., {w.shape[0]}), one number for each row of w {w.shape}, "
                f"got {shape}; {'put the inputs on the last axis' if shape else 'pass [x]'}"
            )
        if activation in OF_ROWS and w.ndim == 1:
            raise BadValue(
                f"{activation.__name__} needs the units of a layer, w (n_in, n_out), got a neuron, "
                f"w {w.shape}; pass a layer"
            )
        shape = shape[:-1] + w.shape[1:]
        checked.append((w, b))
    return checked


def _operands(params: AffineLike) -> Affine:
    w, b = as_affine(params)
    return Affine(as_operand(w, "params: w"), None if b is None else as_operand(b, "params: b"))
