"""The steps that every reader yields, and the one function that makes a network of them.

x -> x @ w + b                      Affine
x -> (x - mean) * scale + shift     Scaling
x -> activation(x)                  a name or a callable

A scaling is folded into the layer before it, or, where an activation lies between, into the one after it.
A scaling or an activation that has no layer to go into becomes a layer of its own, of diagonal weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._activations import Activation
from jaxneuron._arrays import FLOATS
from jaxneuron._files import on_device
from jaxneuron._params import MLP, Affine, as_activations, as_affine, each_activation
from jaxneuron._scaling import round_once, rounded
from jaxneuron.convert._functions import known

# A mean of so many deviations is still folded: in x @ w' + b' numbers of its size cancel, which costs log2 of
# it in bits, four at most. Beyond it, x - mean is a layer of its own, where nothing is rounded but mean.
MOST_DEVIATIONS = 16.0
MOST_UNITS = 2048  # of layers that are made here, together: their weights are mostly zeros


class Scaling(NamedTuple):
    """(x - mean) * scale + shift, each a float64 array `(n,)` or one number."""

    mean: Any = 0.0
    scale: Any = 1.0
    shift: Any = 0.0


Step = Affine | Scaling | str | Callable[..., Any]
Activations = Activation | Sequence[Activation]


def assemble(
    steps: Iterable[Step],
    where: str,
    *,
    n_in: int | None = None,
    like: DTypeLike = np.float32,
    dtype: DTypeLike | None = None,
) -> MLP:
    """The network that does what `steps` do, one after the other.

    Args:
      steps: what a reader has found.
      where: opens every message.
      n_in: how many inputs there are, where the source says so; needed if no layer does.
      like: the dtype of a network that has no layer from the source.
      dtype: to convert all layers to; None keeps theirs.

    Raises:
      ValueError: steps that make no network, a scaling that does not fit, numbers too large for `dtype`.
    """
    steps = [step for step in steps if not _does_nothing(step)]
    narrow = None if dtype is None else _checked_dtype(dtype, where)
    if narrow is not None:  # folded in float64, and rounded to it alone
        like, steps = np.float64, [_wide(step) if isinstance(step, Affine) else step for step in steps]
    network = _Network(steps, where, n_in, like)
    for i, step in enumerate(steps):
        if isinstance(step, Affine):
            network.affine(step)
        elif isinstance(step, Scaling):
            network.scaling(step, i)
        else:
            network.activation(step)
    network.close()
    layers = network.layers if narrow is None else [_converted(a, narrow, where) for a in network.layers]
    *hidden, final = (name or "identity" for name in network.activations)
    if "softmax" in hidden:
        raise ValueError(
            f"{where}: softmax must come last, got a softmax before other steps; "
            f"pick it as the end, or cut the network after it in two"
        )
    mlp = MLP(layers, hidden[0] if hidden and hidden.count(hidden[0]) == len(hidden) else hidden, final)
    _warn_of_nan(mlp, where)
    return on_device(mlp)


def chain(layers: Sequence[Affine], activation: Activations, final_activation: Activation) -> list[Step]:
    """Steps for layers that come without activations, and the activations."""
    if isinstance(activation, Sequence) and not isinstance(activation, str):
        activation = tuple(known(a) for a in activation)
    else:
        activation = known(activation)
    hidden = max(len(layers) - 1, 0)
    each = each_activation(hidden, *as_activations(hidden, activation, known(final_activation)))
    return [step for pair in zip(layers, each, strict=True) for step in pair] if layers else []


def required(
    where: str, holder: str, activation: Activations | None, final_activation: Activation | None
) -> tuple[Activations, Activation]:
    """Both activations, which only a `holder` would hold."""
    if activation is None or final_activation is None:
        raise ValueError(
            f"{where}: activation and final_activation must be given, as only {holder} holds them; "
            f"pass activation='relu', final_activation='identity', or whichever they are"
        )
    return activation, final_activation


def refused(where: str, holder: str, *given: Any) -> None:
    """What a `holder` says itself must not be given."""
    if any(value is not None for value in given):
        raise ValueError(
            f"{where}: activations and names must not be given for {holder}, which holds them; leave them out"
        )


class _Network:
    """Layers and their activations so far (None: none yet), and a scaling that waits for its layer."""

    def __init__(self, steps: Sequence[Step], where: str, n_in: int | None, like: DTypeLike) -> None:
        self.layers: list[Affine] = []
        self.activations: list[Activation | None] = []
        self._waiting: Scaling | None = None
        self._where, self._n_in = where, n_in
        affines = [step for step in steps if isinstance(step, Affine)]
        dtypes = (np.dtype(step.w.dtype) for step in affines)
        self._dtype = next((d for d in dtypes if d.name in FLOATS), jnp.dtype(like))
        # What comes before the first layer keeps its width.
        self._first = affines[0].w.shape[0] if affines and affines[0].w.ndim else None
        self._own = 0  # numbers in layers of diagonal weights

    def affine(self, step: Affine) -> None:
        layer = as_affine(step, f"{self._where}: layer {len(self.layers)}")
        if layer.w.ndim != 2:
            raise ValueError(
                f"{self._where}: layer {len(self.layers)}: w must have two axes, n_in and n_out, "
                f"got {layer.w.shape}; other kinds of layer make no MLP"
            )
        self._settle()
        if not layer.w.size and max(layer.w.shape) > MOST_UNITS:
            raise ValueError(
                f"{self._where}: layer {len(self.layers)}: w must hold numbers, got none in {layer.w.shape}"
            )
        if self._waiting is not None:
            mean = np.asarray(self._waiting.mean, np.float64)
            if np.max(np.abs(mean * self._waiting.scale), initial=0.0) > MOST_DEVIATIONS:
                self._diagonal(1.0, -mean, len(layer.w), layer)
                self._waiting = self._waiting._replace(mean=0.0)
            layer = _before(layer, self._waiting, self._where)
            self._waiting = None
        self._push(layer)

    def scaling(self, step: Scaling, i: int) -> None:
        step = _checked(step, self._width(step), f"{self._where}: step {i}")
        # Not folded before all of them have come: they are rounded once.
        self._waiting = step if self._waiting is None else _composed(self._waiting, step)

    def activation(self, step: Activation) -> None:
        self._settle()
        if self._waiting is not None or not self.layers or self.activations[-1] is not None:
            self._own_layer()
        self.activations[-1] = step

    def close(self) -> None:
        self._settle()
        if self._waiting is not None or not self.layers:
            self._own_layer()

    def _settle(self) -> None:
        """Fold the waiting scaling into the layer before it, if that has no activation yet."""
        if self._waiting is not None and _does_nothing(self._waiting):
            self._waiting = None
        if self._waiting is not None and self.layers and self.activations[-1] is None:
            self.layers[-1] = _after(self.layers[-1], self._waiting, self._where)
            self._waiting = None

    def _push(self, layer: Affine) -> None:
        self.layers.append(layer)
        self.activations.append(None)

    def _own_layer(self) -> None:
        n = self._width()
        if n is None:
            raise ValueError(
                f"{self._where}: the number of inputs must be known where no layer tells it, got none; "
                f"a network needs at least one layer with weights"
            )
        mean, scale, shift = self._waiting or Scaling()
        exact = shift - np.asarray(mean, np.float64) * scale
        self._diagonal(scale, exact, n, self.layers[-1] if self.layers else None)
        self._waiting = None

    def _diagonal(self, scale: Any, shift: Any, n: int, beside: Affine | None) -> None:
        self._own += n * n
        if self._own > MOST_UNITS**2:
            raise ValueError(
                f"{self._where}: a step on {n} numbers that no layer takes up needs {n} x {n} weights of its "
                f"own, and {MOST_UNITS} x {MOST_UNITS} are the most; convert the part without it"
            )
        dtype = beside.w.dtype if beside is not None and beside.w.dtype.name in FLOATS else self._dtype
        w = np.diag(np.broadcast_to(np.asarray(scale, np.float64), n))
        b = np.broadcast_to(np.asarray(shift, np.float64), n)
        self._push(rounded(w, b, like=Affine(np.zeros(w.shape, dtype))))

    def _width(self, step: Scaling | None = None) -> int | None:
        """How many numbers there are now, if anything says so; `step` scales them."""
        if self.layers:
            return int(self.layers[-1].w.shape[1])
        if self._first is not None:
            return self._first
        arrays = (np.asarray(array) for scaling in (self._waiting, step) if scaling for array in scaling)
        return next((len(array) for array in arrays if array.size > 1), self._n_in)


def _wide(layer: Affine) -> Affine:
    return Affine(*(None if array is None else np.asarray(array, np.float64) for array in layer))


def _does_nothing(step: Step) -> bool:
    if isinstance(step, Scaling):
        return all(np.all(np.equal(a, neutral)) for a, neutral in zip(step, Scaling(), strict=True))
    return isinstance(step, str) and step == "identity"


def _checked(step: Scaling, n: int | None, where: str) -> Scaling:
    arrays = [np.asarray(array, np.float64) for array in step]
    for name, array in zip(Scaling._fields, arrays, strict=True):
        if array.ndim > 1 or (array.ndim == 1 and n is not None and len(array) not in (1, n)):
            wanted = "one number" if n is None else f"shape ({n},) or be one number"
            raise ValueError(
                f"{where}: {name} must have {wanted}, got {array.shape}; there are {n} numbers to scale"
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"{where}: {name} must be finite, got {array[~np.isfinite(array)].flat[0]}; "
                f"a scaling by 0, or by what is no number, cannot be folded"
            )
    return Scaling(*(array.reshape(()) if array.size == 1 else array for array in arrays))


def _composed(one: Scaling, two: Scaling) -> Scaling:
    return Scaling(one.mean, one.scale * two.scale, (one.shift - two.mean) * two.scale + two.shift)


def _after(layer: Affine, scaling: Scaling, where: str) -> Affine:
    """The layer that does `scaling` after `layer`."""
    mean, scale, shift = scaling
    w = np.asarray(layer.w, np.float64)
    b = np.broadcast_to(-mean if layer.b is None else np.asarray(layer.b, np.float64) - mean, w.shape[1:])
    with np.errstate(all="ignore"):
        return rounded(w * scale, b * scale + shift if np.any(shift) else b * scale, like=layer)


def _before(layer: Affine, scaling: Scaling, where: str) -> Affine:
    """The layer that does `scaling` before `layer`."""
    mean, scale, shift = (np.broadcast_to(a, len(layer.w)) for a in scaling)
    w = np.asarray(layer.w, np.float64)
    b = 0.0 if layer.b is None else np.asarray(layer.b, np.float64)
    offset = shift - mean * scale
    with np.errstate(all="ignore"):
        folded = rounded(w * scale[:, None], b + offset @ w, like=layer)
    return folded if offset.any() or layer.b is not None else Affine(folded.w)


def _checked_dtype(dtype: DTypeLike, where: str) -> np.dtype:
    try:
        name = jnp.dtype(dtype).name
    except TypeError:  # no dtype at all
        name = repr(dtype)
    if name not in FLOATS:
        raise TypeError(f"{where}: dtype must be one of {', '.join(FLOATS)}, got {name}; pass one of them")
    return jnp.dtype(name)


def _converted(layer: Affine, dtype: np.dtype, where: str) -> Affine:
    arrays = []
    for name, array in layer._asdict().items():
        if array is None:
            continue
        exact = np.asarray(array, np.float64)
        with np.errstate(over="ignore"):
            narrow = round_once(exact, dtype)
        if (np.isfinite(exact) & ~np.isfinite(narrow)).any():
            raise ValueError(
                f"{where}: {name} must fit in {dtype.name}, got {np.abs(exact[np.isfinite(exact)]).max():g}; "
                f"convert to a wider dtype"
            )
        arrays.append(narrow)
    return Affine(*arrays)


def _warn_of_nan(mlp: MLP, where: str) -> None:
    for i, layer in enumerate(mlp.layers):
        for name, array in layer._asdict().items():
            if isinstance(array, jax.core.Tracer) or array is None:
                continue
            if jnp.issubdtype(array.dtype, jnp.floating) and np.isnan(np.asarray(array)).any():
                who = 4  # called the reader, which called assemble
                warnings.warn(f"{where}: layer {i}: {name} holds NaN; it is kept", stacklevel=who)
