"""What importers yield for the units between layers, scaled or chosen; and `outputs=`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxneuron._errors import BadType, BadValue
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._params import MLP, Affine, as_mlp
from jaxneuron._scaling import rounded

MOST_ZEROS = 2**22  # that are added to the first layer, for inputs that it does not read


class Scaling(NamedTuple):
    """(x - mean) * scale + shift, each a float64 array `(n,)` or one number."""

    mean: Any = 0.0
    scale: Any = 1.0
    shift: Any = 0.0


def batch_norm(mean: Any, variance: Any, epsilon: float, scale: Any = 1.0, shift: Any = 0.0) -> Scaling:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift."""
    mean, variance, scale, shift = (np.asarray(array, np.float64) for array in (mean, variance, scale, shift))
    with np.errstate(invalid="ignore", divide="ignore"):
        return Scaling(mean, scale / np.sqrt(variance + epsilon), np.broadcast_to(shift, mean.shape))


class Units(NamedTuple):
    """x[..., chosen]: some of its units, in this order.

    The columns of the layer before it that are not named are left out. Where there is none, the inputs that
    are not named get weights of 0 in the layer after it.
    """

    chosen: Any  # integers, or a slice
    of: int | None = None  # how many units x has, needed where no layer tells it


def with_outputs(mlp: MLP, outputs: Any) -> MLP:
    """The network that computes only these units of the last layer."""
    if not isinstance(outputs, slice):
        raise BadType(
            f"outputs must be a slice, got {type(outputs).__name__}; pass slice(0, 3) for the first 3"
        )
    n = mlp.layers[-1].w.shape[-1]
    try:
        index = np.arange(n)[outputs]
    except (TypeError, ValueError):
        index = np.arange(0)
    if not index.size:
        raise BadValue(
            f"outputs must keep some of {n} units, got {outputs}; pass slice(0, {n}) for all of them"
        )
    if index.size < n and mlp.final_activation in OF_ROWS:
        raise BadValue(
            f"outputs must be None for a network that ends with {mlp.final_activation}, got {outputs}: "
            f"each of its units depends on all of them; choose from its outputs instead"
        )
    layers = *mlp.layers[:-1], columns(mlp.layers[-1], index)
    names = None if mlp.outputs is None else [mlp.outputs[i] for i in index]
    return as_mlp(layers, mlp.activation, mlp.final_activation, mlp.inputs, names)


def columns(layer: Affine, index: np.ndarray) -> Affine:
    return Affine(layer.w[..., index], None if layer.b is None else layer.b[..., index])


def reading(inputs: Units, layer: Affine) -> Affine:
    """The layer that reads `inputs.of` units, of which `layer` reads some."""
    index, n = inputs.chosen, inputs.of or 0
    more = (n - len(np.unique(index))) * layer.w.shape[1]
    if more > MOST_ZEROS:
        raise BadValue(
            f"a choice of {len(index)} of {n} inputs needs {more} weights of 0, at most {MOST_ZEROS} are "
            f"made; convert the part without it"
        )
    if len(np.unique(index)) == len(index):
        w = np.zeros((n, layer.w.shape[1]), layer.w.dtype)
        w[index] = layer.w
        return Affine(w, layer.b)
    wide = np.zeros((n, layer.w.shape[1]))
    np.add.at(wide, index, np.asarray(layer.w, np.float64))  # an input that is read twice
    like = Affine(np.zeros(wide.shape, layer.w.dtype))
    return Affine(rounded(wide, np.zeros(wide.shape[1]), like=like).w, layer.b)
