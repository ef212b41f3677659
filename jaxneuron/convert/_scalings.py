"""Scalings of units, and how a layer absorbs one.

(x - mean) * scale + shift     before a layer   w' = scale w,  b' = b + (shift - mean scale) @ w
                               after it         w' = w scale,  b' = (b - mean) scale + shift
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxneuron._errors import BadValue
from jaxneuron._params import Affine
from jaxneuron._scaling import rounded
from jaxneuron.convert._units import Units, reading, spread


class Scaling(NamedTuple):
    """(x - mean) * scale + shift, each a float64 array `(n,)` or one number."""

    mean: Any = 0.0
    scale: Any = 1.0
    shift: Any = 0.0


def batch_norm(mean: Any, variance: Any, epsilon: float, scale: Any = 1.0, shift: Any = 0.0) -> Scaling:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift."""
    mean, variance, scale, shift = (np.asarray(array, np.float64) for array in (mean, variance, scale, shift))
    with np.errstate(all="ignore"):
        return Scaling(mean, scale / np.sqrt(variance + epsilon), np.broadcast_to(shift, mean.shape))


def does_nothing(scaling: Scaling) -> bool:
    return all(np.all(np.equal(a, neutral)) for a, neutral in zip(scaling, Scaling(), strict=True))


def checked(step: Scaling, n: int | None) -> Scaling:
    arrays = [np.asarray(array, np.float64) for array in step]
    for name, array in zip(Scaling._fields, arrays, strict=True):
        if array.ndim > 1 or (array.ndim == 1 and n is not None and len(array) not in (1, n)):
            wanted = "be one number" if n is None else f"have shape ({n},) or be one number"
            raise BadValue(
                f"{name} must {wanted}, got {array.shape}; pass one number for each unit: see whether the "
                f"scaling, or BatchNorm, stands in its place among the layers"
            )
        if not np.isfinite(array).all():
            raise BadValue(
                f"{name} must be finite, got {array[~np.isfinite(array)].flat[0]}; "
                f"a scaling by 0, infinity or NaN can't be folded: convert the part without it"
            )
    return Scaling(*(array.reshape(()) if array.size == 1 else array for array in arrays))


def composed(one: Scaling, two: Scaling) -> Scaling:
    return Scaling(one.mean, one.scale * two.scale, (one.shift - two.mean) * two.scale + two.shift)


def chosen(scaling: Scaling, index: np.ndarray) -> Scaling:
    """The scaling of the units `index` alone."""
    return Scaling(*(array[index] if np.size(array) > 1 else array for array in map(np.asarray, scaling)))


def after(layer: Affine, scaling: Scaling) -> Affine:
    """The layer that does what `layer`, followed by `scaling`, does."""
    mean, scale, shift = scaling
    w = np.asarray(layer.w, np.float64)
    b = np.broadcast_to(-mean if layer.b is None else np.asarray(layer.b, np.float64) - mean, w.shape[1:])
    with np.errstate(all="ignore"):
        return rounded(w * scale, b * scale + shift if np.any(shift) else b * scale, like=layer)


def before(layer: Affine, scaling: Scaling, biased: bool, inputs: Units | None = None) -> Affine:
    """The layer that does what `scaling`, followed by `layer`, does. If `biased`, it has a bias, even of 0.

    `inputs`: the choice of units that the scaling reads, if there is one. The result reads all units.
    """
    mean, scale, shift = (np.broadcast_to(a, len(layer.w)) for a in scaling)
    w = np.asarray(layer.w, np.float64)
    b = 0.0 if layer.b is None else np.asarray(layer.b, np.float64)
    offset = shift - mean * scale
    with np.errstate(all="ignore"):
        exact, bias = w * scale[:, None], b + offset @ w
        if inputs is not None:  # in float64, because a unit may be read twice
            exact, layer = spread(inputs, exact), reading(inputs, layer)
        folded = rounded(exact, bias, like=layer)
    return folded if biased or offset.any() or layer.b is not None else Affine(folded.w)
