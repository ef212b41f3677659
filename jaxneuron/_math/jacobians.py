"""The exact Jacobian and Laplacian of a network, and how far computed ones may be off. Never uses jax.

    v +- e          a number v that was computed as some v' with |v' - v| <= e

The result of an operation has the errors that come from its operands, and a new one: u |v'| for rounding,
and s for underflow. This is running error analysis (Wilkinson 1963). A slope is taken at the computed z, so
its error includes the error of z times the largest derivative of the slope, and the whole jump of the slope
if a kink is within the error of z. The bound holds whether the layers are multiplied from the first to the
last or from the last to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxneuron._math import oracle
from jaxneuron._math.activations import OF_ROWS, Member

Array = np.ndarray

# The largest |f''| and |f'''| outside the kinks.
BENDS: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0963, 0.125),
    "tanh": (0.77, 2.0),
    "silu": (0.5, 0.309),
    "gelu": (0.798, 0.779),
    "gelu_tanh": (0.798, 0.779),
    "mish": (0.645, 0.589),
    "softplus": (0.25, 0.0963),
    "log_sigmoid": (0.25, 0.0963),
    "elu": (1.0, 1.0),
    "selu": (1.759, 1.759),
    "softsign": (2.0, 6.0),
    "squareplus": (0.25, 0.1074),
    "square": (2.0, 0.0),
    "sin": (1.0, 1.0),
    "hard_swish": (1 / 3, 0.0),
}
BENDS |= {f"cr_{name}": BENDS[name] for name in ("sigmoid", "tanh")}
FAMILY_BENDS: dict[str, Callable[..., tuple[float, float]]] = {
    "elu": lambda alpha: (abs(alpha), abs(alpha)),
    "celu": lambda alpha: (1 / alpha, alpha**-2),
    "softplus": lambda beta: (0.25 * beta, 0.0963 * beta**2),
    "sin": lambda frequency: (frequency**2, abs(frequency) ** 3),
}
# The z at which f' or f'' jumps, and the sizes of the jumps of f' and f''.
Kinks = dict[float, tuple[float, float]]
KINKS: dict[str, Kinks] = {
    "relu": {0.0: (1.0, 0.0)},
    "leaky_relu": {0.0: (1.0, 0.0)},
    "relu6": {0.0: (1.0, 0.0), 6.0: (1.0, 0.0)},
    "hard_tanh": {-1.0: (1.0, 0.0), 1.0: (1.0, 0.0)},
    "hard_sigmoid": {-3.0: (0.167, 0.0), 3.0: (0.167, 0.0)},
    "hard_swish": {-3.0: (0.5, 0.334), 3.0: (0.5, 0.334)},
    "elu": {0.0: (0.0, 1.0)},
    "selu": {0.0: (0.708, 1.759)},
    "softsign": {0.0: (0.0, 4.0)},
}
FAMILY_KINKS: dict[str, Callable[..., Kinks]] = {
    "leaky_relu": lambda slope: {0.0: (abs(1 - slope), 0.0)},
    "elu": lambda alpha: {0.0: (abs(1 - alpha), abs(alpha))},
    "celu": lambda alpha: {0.0: (0.0, 1 / alpha)},
    "hard_tanh": lambda low, high: {low: (1.0, 0.0), high: (1.0, 0.0)},
}


@dataclass(frozen=True)
class Off:
    """v +- e, computed in `dtype`. If a number may overflow, e is not finite, and v' may be anything."""

    v: Array
    e: Array
    dtype: str

    def _rounded(self, v: Array, e: Array, times: float = 1.0, size: Array | None = None) -> Off:
        largest = (np.abs(v) if size is None else size) + e
        e = e + times * (oracle.U[self.dtype] * largest + oracle.SMALLEST_NORMAL[self.dtype])
        return Off(v, np.where(largest <= oracle.LARGEST[self.dtype], e, np.inf), self.dtype)

    def __mul__(self, other: Off) -> Off:
        e = np.abs(self.v) * other.e + self.e * (np.abs(other.v) + other.e)
        return self._rounded(self.v * other.v, e)

    def __add__(self, other: Off) -> Off:
        return self._rounded(self.v + other.v, self.e + other.e)

    def __sub__(self, other: Off) -> Off:
        return self._rounded(self.v - other.v, self.e + other.e)

    def sum(self, axis: int, keepdims: bool = False) -> Off:
        """The sum over an axis, in any order."""
        v, e, size = (np.sum(a, axis=axis, keepdims=keepdims) for a in (self.v, self.e, np.abs(self.v)))
        return self._rounded(v, e, self.v.shape[axis], size)

    def product(self, w: Array) -> Off:
        """The product with a matrix of exact numbers, summed in any order, fused or not."""
        return self._rounded(self.v @ w, self.e @ np.abs(w), len(w) + 2, np.abs(self.v) @ np.abs(w))

    def __getitem__(self, key: Any) -> Off:
        return Off(self.v[key], self.e[key], self.dtype)

    def exchanged(self) -> Off:
        """The same numbers with the last two axes exchanged."""
        return Off(np.swapaxes(self.v, -1, -2), np.swapaxes(self.e, -1, -2), self.dtype)


class Layer(NamedTuple):
    w: Array
    slope: Off  # (..., units), or the outputs of softmax
    curvature: Off | None
    name: str | Member


@np.errstate(all="ignore")
def jacobian(layers: Sequence[Any], names: Sequence[str | Member], x: Any, dtype: str) -> tuple[Array, Array]:
    """The exact J, and how far off a J may be that is computed in `dtype`."""
    done, own = (_layers(layers, names, x, each, False) for each in (dtype, "float64"))
    forward, backward, exact = _forward(done)[0], _backward(done), _forward(own)[0]
    return exact.v, np.maximum(forward.e, backward.e) + exact.e


@np.errstate(all="ignore")
def laplacian(
    layers: Sequence[Any], names: Sequence[str | Member], x: Any, dtype: str
) -> tuple[Array, Array]:
    """The exact L, and how far off an L may be that is computed in `dtype`."""
    found, exact = (_forward(_layers(layers, names, x, each, True))[1] for each in (dtype, "float64"))
    assert found is not None
    assert exact is not None
    return exact.v, found.e + exact.e


def _layers(
    layers: Iterable[Any], names: Iterable[str | Member], x: Any, dtype: str, curved: bool
) -> list[Layer]:
    x, x_error, done = np.asarray(x, np.float64), np.zeros(()), []
    wide = oracle.sum_dtype(dtype)
    for (w, b), name in zip(layers, names, strict=True):
        name = oracle.in_format(name, dtype)
        z, z_error = oracle.sums(w, b, x, dtype, x_error)
        x = oracle.activation(name, z)
        x_error = oracle.neuron_error(name, z, x, z_error, dtype)
        curvature = None
        if name in OF_ROWS:
            slope = _softmax(z, z_error, wide)
        else:
            slope, curvature = (_derivative(name, z, z_error, order, wide) for order in (0, 1))
        done.append(Layer(np.asarray(w, np.float64), slope, curvature if curved else None, name))
    return done


def _derivative(name: str | Member, z: Array, z_error: Array, order: int, dtype: str) -> Off:
    """f' (order 0) or f'' (order 1) at z, with its error if it is taken at the computed z instead."""
    u, s = oracle.U[dtype], oracle.SMALLEST_NORMAL[dtype]
    terms = [oracle.slopes(name, float(each))[order] for each in z.ravel()]
    v, size = (np.array([float(sum(map(f, t))) for t in terms]).reshape(z.shape) for f in (lambda t: t, abs))
    bends, kinks = _changes(name)
    change = z_error * (np.exp(z + z_error) if name == "exp" else bends[order])
    jumps = sum(
        (np.where(np.abs(z - at) <= z_error, jump[order], 0) for at, jump in kinks.items()), np.zeros(())
    )
    # 4 ULP are at most 8 u of the result, and 4 u of the terms, which change with z by less than 4 `change`.
    own = 8 * u * (size + 4 * change + jumps) + s
    return Off(v, change + jumps + own, dtype)


def _changes(name: str | Member) -> tuple[tuple[float, float], Kinks]:
    """The largest |f''| and |f'''|, and the kinks."""
    if isinstance(name, str):
        return BENDS.get(name, (0.0, 0.0)), KINKS.get(name, {})
    bends, kinks = FAMILY_BENDS.get(name.family), FAMILY_KINKS.get(name.family)
    return bends(*name.parameters) if bends else (0.0, 0.0), kinks(*name.parameters) if kinks else {}


def _softmax(z: Array, z_error: Array, dtype: str) -> Off:
    """softmax(z): its logarithm is off by at most twice the largest error of z."""
    y = oracle.activation("softmax", z)
    change = np.expm1(2 * np.max(z_error, axis=-1, keepdims=True, initial=0))
    u, s = oracle.U[dtype], oracle.SMALLEST_NORMAL[dtype]
    return Off(y, y * (change + (z.shape[-1] + 4) * u * (1 + change)) + s, dtype)


def _rows(slope: Off) -> Off:
    """The slopes in the shape (..., 1, units), for products with tangents (..., n_in, units)."""
    return slope[..., None, :]


def _pushed(layer: Layer, tangents: Off) -> Off:
    """The tangents of y = activation(z), from those of z."""
    if layer.name not in OF_ROWS:
        return tangents * _rows(layer.slope)
    centred = _centred(layer, tangents)
    return centred if layer.name == "log_softmax" else _rows(layer.slope) * centred


def _centred(layer: Layer, tangents: Off) -> Off:
    return tangents - (tangents * _rows(layer.slope)).sum(-1, keepdims=True)


def _bent(layer: Layer, tangents: Off, second: Off) -> Off:
    """The second derivatives of y = activation(z), from the first and second ones of z."""
    if layer.curvature is not None:
        return layer.slope * second + layer.curvature * (tangents * tangents).sum(-2)
    centred = _centred(layer, tangents)
    squares = centred * centred
    variance = (squares * _rows(layer.slope)).sum(-1, keepdims=True).sum(-2)
    log = _centred(layer, second[..., None, :])[..., 0, :] - variance
    return log if layer.name == "log_softmax" else layer.slope * (log + squares.sum(-2))


def _exact(w: Array, like: Off) -> Off:
    v = np.broadcast_to(w, (*like.v.shape[:-1], *w.shape))
    return Off(v, np.zeros_like(v), like.dtype)


def _forward(layers: Sequence[Layer]) -> tuple[Off, Off | None]:
    """J, and L if the layers come with their curvature."""
    first = layers[0]
    tangents = _exact(first.w, first.slope)
    second = _exact(np.zeros(first.w.shape[1:]), first.slope)
    curved = first.curvature is not None or first.name in OF_ROWS
    for i, layer in enumerate(layers):
        if i:
            tangents, second = tangents.product(layer.w), second.product(layer.w)
        second = _bent(layer, tangents, second) if curved else second
        tangents = _pushed(layer, tangents)
    return tangents.exchanged(), second if curved else None


def _backward(layers: Sequence[Layer]) -> Off:
    found = _pushed(layers[-1], _exact(layers[-1].w, layers[-1].slope)).exchanged()
    for layer in layers[-2::-1]:
        found = (found * _rows(layer.slope)).product(layer.w.T)
    return found
