"""Folds the scaling of inputs and outputs into a network's first and last layers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._arrays import ArrayLike, as_array, concrete
from jaxneuron._errors import BadType, BadValue, public
from jaxneuron._members import check_one
from jaxneuron._params import MLP, Affine, with_layers

APART = "fold each network, then stack them"


@public
@concrete
def fold_input_scaling(mlp: MLP, mean: ArrayLike, std: ArrayLike) -> MLP:
    """Folds the standardisation of the inputs into the first layer. The network then takes raw inputs.

        fold_input_scaling(mlp, mean, std)(x) = mlp((x - mean) / std)
        w' = w / std,  b' = b - (mean / std) @ w

    Args:
      mlp: an `MLP`, whose first layer is replaced.
      mean: the mean of each input, `(n_in,)`, or one number for all inputs.
      std: the standard deviation of each input, `(n_in,)`, or one number for all inputs.

    Returns:
      An `MLP` whose arrays are NumPy's or JAX's, as in `mlp`, with the same dtypes. A first layer without a
      bias gets one.

    Raises:
      ValueError: if a shape does not fit, a value is not finite, a std is 0, or a result is too large for the
        network's dtype.
      TypeError: if an argument is a tracer: call it once, outside jit.

    Numerics: computed in float64, and rounded once to the layer's dtype. If a mean is many times its std,
    every way of folding loses precision, because b' and x @ w' cancel. Tested by tests/test_scaling.py.

    Example:
      >>> fold_input_scaling(MLP([([[1.0]], [0.0])]), 3.0, 2.0).layers[0]
      Affine(w=array([[0.5]]), b=array([-1.5]))
    """
    first = check_one(mlp, APART).layers[0]
    w, b = _float64(first.w, "w"), _float64(first.b, "b")
    shape = w.shape[:1]
    shift, unit = _scaling(mean, shape, "mean"), _scaling(std, shape, "std")
    if not unit.all():
        raise BadValue(
            f"std must not be 0, got 0 for input {np.flatnonzero(unit == 0)[0]}; "
            f"pass 1 for an input that is constant"
        )
    with np.errstate(all="ignore"):
        layer = rounded(w / unit[:, None], b - (shift / unit) @ w, like=first)
    return with_layers(mlp, (layer, *mlp.layers[1:]))


@public
@concrete
def fold_output_scaling(mlp: MLP, scale: ArrayLike, shift: ArrayLike) -> MLP:
    """Folds a scaling of the outputs into the last layer. The network then returns scaled outputs.

        fold_output_scaling(mlp, scale, shift)(x) = mlp(x) * scale + shift
        w' = w * scale,  b' = b * scale + shift

    Args:
      mlp: an `MLP` whose final activation is the identity; its last layer is replaced.
      scale: the factor for each output, `(n_out,)`, or one number for all outputs.
      shift: the number to add to each output, `(n_out,)`, or one number for all outputs.

    Returns:
      An `MLP` whose arrays are NumPy's or JAX's, as in `mlp`, with the same dtypes. A last layer without a
      bias gets one.

    Raises:
      ValueError: if `mlp` has another final activation, a shape does not fit, a value is not finite, or a
        result is too large for the network's dtype.
      TypeError: if an argument is a tracer: call it once, outside jit.

    Numerics: computed in float64, and rounded once to the layer's dtype. Tested by tests/test_scaling.py.

    Example:
      >>> fold_output_scaling(MLP([([[1.0]], [0.5])], final_activation="identity"), 2.0, 3.0).layers[0]
      Affine(w=array([[2.]]), b=array([4.]))
    """
    if check_one(mlp, APART).final_activation != "identity":
        raise BadValue(
            f"mlp must have the final activation 'identity', got {mlp.final_activation!r}; "
            f"scale the outputs after it instead"
        )
    last = mlp.layers[-1]
    w, b = _float64(last.w, "w"), _float64(last.b, "b")
    unit, offset = (_scaling(v, w.shape[1:], name) for v, name in ((scale, "scale"), (shift, "shift")))
    with np.errstate(all="ignore"):
        layer = rounded(w * unit, b * unit + offset, like=last)
    return with_layers(mlp, (*mlp.layers[:-1], layer))


def _float64(array: Any, argument: str) -> np.ndarray:
    if array is None:
        return np.zeros(())
    if isinstance(array, jax.core.Tracer):
        raise BadType(f"{argument} must be a concrete array, got a tracer; fold outside jit and vmap")
    return np.asarray(array, np.float64)


def _scaling(value: ArrayLike, shape: tuple[int, ...], argument: str) -> np.ndarray:
    array = _float64(as_array(value, argument), argument)
    if array.shape not in ((), shape):
        raise BadValue(
            f"{argument} must have shape {shape} or be one number, got {array.shape}; "
            f"pass an array of that shape"
        )
    if not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)].flat[0]
        raise BadValue(f"{argument} must be finite, got {wrong}; replace it with a finite number")
    return np.broadcast_to(array, shape)


def rounded(w: np.ndarray, b: np.ndarray, like: Affine) -> Affine:
    """`w` and `b` in the dtypes of `like`, and as JAX arrays if `like` holds JAX arrays."""
    dtypes = [
        leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else np.dtype(float)
        for leaf in like
        if leaf is not None
    ]
    # Numbers that were not finite in the layer stay as they are. Numbers that become infinite are refused.
    sound = np.isfinite(np.asarray(like.w, np.float64))
    bias_sound = sound.all(axis=0) & np.isfinite(_float64(like.b, "b"))
    arrays = []
    for name, exact, dtype, finite in (("w", w, dtypes[0], sound), ("b", b, dtypes[-1], bias_sound)):
        array = round_once(exact, dtype)
        if (finite & ~np.isfinite(array)).any():
            raise BadValue(
                f"{name} must fit in {dtype.name}, got {np.abs(exact[finite]).max():g}; "
                f"convert the network to a wider dtype first, or check the scaling"
            )
        arrays.append(jnp.asarray(array) if isinstance(like.w, jax.Array) else array)
    return Affine(*arrays)


@np.errstate(all="ignore")
def round_once(exact: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The float64 array `exact`, rounded once to `dtype`: to nearest, ties to even."""
    if dtype.name != "bfloat16":
        return exact.astype(dtype)
    # ml_dtypes rounds twice, to float32 first. Where the first rounding is to odd, the second is correct.
    single = exact.astype(np.float32)
    single = np.where(np.abs(single) > np.abs(exact), np.nextafter(single, np.float32(0)), single)
    odd = single.view(np.uint32) | (single != exact).astype(np.uint32)
    return odd.view(np.float32).astype(dtype)
