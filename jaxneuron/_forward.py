"""The forward pass: `affine`, `neuron`, `mlp_forward`.

z = x @ w + b          affine
y = activation(z)      neuron, or a layer of them
x = y, and again       mlp_forward
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
from jaxneuron._arrays import ArrayLike, as_array, as_operand, is_jax_array
from jaxneuron._errors import REFUSALS, BadType, BadValue, check_transform, public, with_name
from jaxneuron._names import Activation, resolve
from jaxneuron._params import MLP, Affine, AffineLike, as_affine, check_columns, check_mlp

OF_ROWS = (softmax, log_softmax)


@public
def affine(params: AffineLike, x: ArrayLike) -> Array:
    """The affine function of a neuron, or of a layer of neurons.

        z = x @ w + b

    Args:
      params: `Affine` with `w (n_in,)`, `b ()` for a neuron or `w (n_in, n_out)`, `b (n_out,)` for a
        layer; `b` None for none.
      x: inputs, `(..., n_in)`.

    Returns:
      `(...)` for a neuron, `(..., n_out)` for a layer, in the promoted dtype of `params` and `x`.

    Raises:
      ValueError: shapes that do not fit. TypeError: an argument that is not an array of real numbers, or
      carries more than numbers, such as a mask or units.

    Numerics: |z - exact| <= (n_in + 2) (u (|x| @ |w| + |b|) + s), with u = 2^-24, s = 2^-126 for float32
    and u = 2^-53, s = 2^-1022 for float64, of arrays in the result's dtype; s is what a product may lose by
    underflow. bfloat16 and float16 are summed in float32, within its bound, and rounded once. bfloat16's
    sums take subnormal numbers, those below s, for 0, which adds s (sum |x| + sum |w|) to the bound. On a
    GPU, unless the fused kernel computes them, sums are also rounded before the bias is added, see
    docs/guides/gpu.md. Never TF32, unless `jax.default_matmul_precision` says so. Held by
    tests/test_forward.py.

    Example:
      >>> affine(Affine([1, 1], -1.5), [0, 1])
      Array(-0.5, dtype=float32)
    """
    return _affine(_operands(params), as_operand(x, "x"))


@public
def neuron(params: AffineLike, x: ArrayLike, activation: Activation = sigmoid) -> Array:
    """An artificial neuron, or a layer of them: an activation applied to an affine function.

        y = activation(x @ w + b)

    Args:
      params: `Affine` with `w (n_in,)`, `b ()` for a neuron or `w (n_in, n_out)`, `b (n_out,)` for a
        layer; `b` None for none.
      x: inputs, `(..., n_in)`.
      activation: a name such as "tanh", a value such as `LeakyReLU(0.2)`, or any hashable callable; it gets
        float32 values where the result is bfloat16 or float16.

    Returns:
      `(...)` for a neuron, `(..., n_out)` for a layer, in the promoted dtype of `params` and `x`.

    Raises:
      ValueError: shapes that do not fit, an unknown activation, an activation that changes the shape.
      TypeError: an argument that is not an array of real numbers, or carries more than numbers, such as a
        mask or units; an activation that can't be called or hashed.

    Numerics: the activation's own bound at the z that `affine` computes, which is within `affine`'s bound;
    bfloat16 and float16 are rounded once, after the activation; on a GPU as `affine` says. Held by
    tests/test_forward.py.

    Example:
      >>> neuron(Affine([0.5, 0.5], -0.7), [1, 1])
      Array(0.5744425, dtype=float32)
    """
    function = resolve(activation)
    return _neuron(_operands(params), as_operand(x, "x"), function)


def mlp_forward(mlp: MLP, x: ArrayLike) -> Array:
    """The output of a multilayer perceptron.

        for every layer:  x = activation(x @ w + b)

    Args:
      mlp: an `MLP`.
      x: inputs, `(..., n_in)`: any number of leading batch axes, none included.

    Returns:
      `(..., n_out)`, in the promoted dtype of the network and `x`.

    Raises:
      ValueError: shapes that do not fit, an activation that changes the shape; the message names the layer;
        a data frame whose columns are not the network's `inputs` in order.
      TypeError: an `mlp` that is not an `MLP`, an `x` that is not an array of real numbers, or carries more
        than numbers, such as a mask or units.

    Numerics: each layer within the bounds of `affine` and its activation. By the fused CPU kernel a row has
    the same bits in any batch, at any place, mapped or not, by any number of threads; on XLA's own path its
    last bits may depend on the batch. `explain` says which of them evaluates. Held by tests/test_forward.py
    and tests/kernels/test_primitive.py.

    Example:
      >>> mlp_forward(jaxneuron.gates.XOR, [[0, 1], [1, 1]]) > 0.5
      Array([[ True],
             [False]], dtype=bool)
    """
    try:  # what `public` does, without its 0.2 us: a call of one row takes 6
        if not isinstance(mlp, MLP):
            check_mlp(mlp, "pass MLP(layers), parameters first")
        if is_jax_array(type(x)):  # type: ignore[arg-type] # mypy holds types to be unhashable
            return _mlp_forward(mlp, x)
        check_columns(mlp, x, "x")
        return _mlp_forward(mlp, as_operand(x, "x"))
    except REFUSALS as error:
        raise with_name("mlp_forward", error) from None
    except Exception as error:
        check_transform("mlp_forward", (x,), error)
        raise


@public
def explain(mlp: MLP, batch: ArrayLike | jax.ShapeDtypeStruct, *, derivatives: bool = False) -> str:
    """Says what evaluates `mlp_forward(mlp, batch)`, and why.

    Args:
      mlp: an `MLP`.
      batch: inputs, `(..., n_in)`, or a `jax.ShapeDtypeStruct` in their place; no number is looked at.
      derivatives: whether to say it of `mlp_value_and_jacobian(mlp, batch)` and `mlp_laplacian(mlp, batch)`.

    Returns:
      One line: the fused CPU kernel with its instruction set, the fused GPU kernel, or XLA with the reason.

    Raises:
      ValueError: shapes that do not fit. TypeError: an `mlp` that is not an `MLP`, a `batch` that is not an
        array of real numbers, `derivatives` that are not True or False.

    Example:
      >>> explain(MLP([([[1.0], [2.0]], None)], final_activation=jnp.sin), [1.0, 2.0])
      "XLA, layer by layer: layer 0's activation is not in the kernel's list"
    """
    check_mlp(mlp)
    if not isinstance(derivatives, bool):
        raise BadType(f"derivatives must be True or False, got {derivatives!r}")
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
    """The arrays of layers that fit inputs of this shape, and each other."""
    checked = []
    for i, (params, activation) in enumerate(zip(layers, activations, strict=True)):
        w, b = as_affine(params, f"layer {i}")
        if not shape or shape[-1] != w.shape[0]:
            raise BadValue(
                f"{argument} must have shape (..., {w.shape[0]}), one number for each row of w {w.shape}, "
                f"got {shape}; {'inputs stand on the last axis' if shape else 'pass [x]'}"
            )
        if activation in OF_ROWS and w.ndim == 1:
            raise BadValue(f"{activation.__name__} needs a layer, w (n_in, n_out), got a neuron, w {w.shape}")
        shape = shape[:-1] + w.shape[1:]
        checked.append((w, b))
    return checked


def _operands(params: AffineLike) -> Affine:
    w, b = as_affine(params)
    return Affine(as_operand(w, "params: w"), None if b is None else as_operand(b, "params: b"))
