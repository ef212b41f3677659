"""Choices of a layer's units: the step that importers yield for a choice, and `outputs=`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxneuron._errors import BadType, BadValue
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._params import MLP, Affine, as_mlp
from jaxneuron._scaling import rounded

MOST_ZEROS = 2**22  # the most zeros added to the first layer, for inputs that it does not read


class Units(NamedTuple):
    """x[..., chosen]: some units of x, in this order.

    If a layer comes before, its other columns are left out. Otherwise the inputs that are not chosen get
    weights of 0 in the layer after it.
    """

    chosen: Any  # integers, or a slice
    of: int | None = None  # how many units x has; needed if there is not a layer before it


def with_outputs(mlp: MLP, outputs: Any) -> MLP:
    """The network that computes only the units `outputs` of the last layer."""
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


def columns(layer: Affine, index: Any) -> Affine:
    n = layer.w.shape[-1]
    if isinstance(index, np.ndarray) and index.size and not -n <= index.min() <= index.max() < n:
        raise BadValue(f"a choice of units must be among {n}, got {index}; convert the part without it")
    return Affine(layer.w[..., index], None if layer.b is None else layer.b[..., index])


def reading(inputs: Units, layer: Affine) -> Affine:
    """`layer`, changed to read all `inputs.of` units, with weights of 0 for those that it did not read."""
    w = spread(inputs, layer.w)
    if w.dtype == layer.w.dtype:
        return Affine(w, layer.b)
    like = Affine(np.zeros(w.shape, layer.w.dtype))
    return Affine(rounded(w, np.zeros(w.shape[1]), like=like).w, layer.b)


def spread(inputs: Units, w: np.ndarray) -> np.ndarray:
    """The weights of all `inputs.of` units. If a unit is read twice, its weights are added, in float64."""
    index, n = inputs.chosen, inputs.of or 0
    if len(index) != len(w):
        raise BadValue(
            f"a choice of inputs must give the next layer its {len(w)}, got {len(index)}; "
            f"convert the part without it"
        )
    distinct = len(np.unique(index))
    more = (n - distinct) * w.shape[1]
    if more > MOST_ZEROS:
        raise BadValue(
            f"a choice of {len(index)} of {n} inputs needs {more} weights of 0, at most {MOST_ZEROS} are "
            f"made; convert the part without it"
        )
    if distinct == len(index):
        wide = np.zeros((n, w.shape[1]), w.dtype)
        wide[index] = w
    else:
        wide = np.zeros((n, w.shape[1]))
        np.add.at(wide, index, np.asarray(w, np.float64))
    return wide
