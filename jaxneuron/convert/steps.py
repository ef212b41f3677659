"""The steps that every importer yields, and the function that joins them into an MLP.

    x -> x @ w + b                      Affine
    x -> (x - mean) * scale + shift     Scaling
    x -> x[..., chosen]                 Units
    x -> activation(x)                  a name or a callable

A scaling is folded into the layer before it or, if an activation stands between them, into the layer after
it. A scaling or an activation without such a layer gets a layer of its own, with diagonal weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import FLOATS
from jaxneuron._errors import BadType, BadValue, inside, warn
from jaxneuron._files import on_device
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._members import check_one
from jaxneuron._names import Activation
from jaxneuron._params import (
    MLP,
    Affine,
    as_activations,
    as_affine,
    as_mlp,
    each_activation,
    with_layers,
)
from jaxneuron._scaling import round_once, rounded
from jaxneuron.convert._activations import known
from jaxneuron.convert._scalings import Scaling, after, before, checked, chosen, composed, does_nothing
from jaxneuron.convert._stacks import members, on_host, stack
from jaxneuron.convert._units import Units, columns, reading, with_outputs

# A mean of up to so many deviations is folded. x @ w' and b' then cancel, which costs log2 of this number in
# bits: four at most. A larger mean is subtracted in a layer of its own, where only the mean is rounded.
MOST_DEVIATIONS = 16.0
MOST_UNITS = 2048  # of all layers made here together, because nearly all of their weights are zeros


Step = Affine | Scaling | Units | str | Callable[..., Any]
Activations = Activation | Sequence[Activation]


def assemble(
    steps: Iterable[Step],
    argument: str,
    *,
    n_in: int | None = None,
    like: DTypeLike = np.float32,
    dtype: DTypeLike | None = None,
    stacked: str | None = None,
    outputs: slice | None = None,
) -> MLP:
    """The network that performs `steps` in order.

    Args:
      steps: the steps that an importer found.
      argument: the importer's argument in which it found them. Every message about them begins with it.
      n_in: the number of inputs, if the source records it. Required if there is not a layer.
      like: the dtype of a network without a layer from the source.
      dtype: the dtype to convert all layers to; None keeps the dtypes that they have.
      stacked: "members" if the layers of the steps are stacks of members; then the network is a stack too.
      outputs: the units of the last layer to keep; None keeps all.
    """
    narrow = None if dtype is None else _checked_dtype(dtype)
    with inside(argument):
        named = [step if isinstance(step, (Affine, Scaling, Units)) else known(step) for step in steps]
        done = [step for step in named if not _does_nothing(step)]
        each = members(done) if stacked == "members" else [done]
        networks = [_joined(member, n_in, like, narrow) for member in each]
        if len(set(map(jax.tree.structure, networks))) > 1:  # some members need a layer that others don't
            networks = [_joined(member, n_in, like, narrow, apart=True) for member in each]
    if outputs is not None:
        networks = [with_outputs(network, outputs) for network in networks]
    mlp = stack(networks) if stacked == "members" else networks[0]
    _warn_of_nan(mlp)
    return on_device(mlp)


def _joined(
    steps: list[Step], n_in: int | None, like: DTypeLike, narrow: np.dtype | None, apart: bool = False
) -> MLP:
    if narrow is not None:  # folded in float64, then rounded once to this dtype
        like, steps = np.float64, [_wide(step) if isinstance(step, Affine) else step for step in steps]
    steps, inputs = _first_units(steps)
    network = _Network(steps, n_in if inputs is None else len(inputs.chosen), like, apart, inputs)
    for i, step in enumerate(steps):
        if isinstance(step, Affine):
            network.affine(step)
        elif isinstance(step, Scaling):
            with inside(f"step {i}"):
                network.scaling(step)
        elif isinstance(step, Units):
            network.units(step)
        else:
            network.activation(step)
    network.close()
    layers = network.layers if narrow is None else _converted(network.layers, narrow)
    *hidden, final = (name or "identity" for name in network.activations)
    if early := next((name for name in hidden if name in OF_ROWS), None):
        raise BadValue(
            f"{early} must come last, got a {early} before other steps; "
            f"end the network at it, or cut the network in two after it"
        )
    return as_mlp(layers, hidden[0] if hidden and hidden.count(hidden[0]) == len(hidden) else hidden, final)


def chain(layers: Sequence[Step], activation: Activations, final_activation: Activation) -> list[Step]:
    """The steps for layers and BatchNorms with these activations, which the source does not record."""
    if isinstance(activation, Sequence) and not isinstance(activation, str):
        activation = tuple(known(a) for a in activation)
    else:
        activation = known(activation)
    hidden = max(len(layers) - 1, 0)
    given = len(activation) if isinstance(activation, tuple) else None
    if hidden and given != hidden and any(isinstance(layer, Scaling) for layer in layers):
        raise BadValue(
            f"activation must be a list where a BatchNorm is read, one for each of the {hidden} modules "
            f"before the last, got {repr(activation)[:80] if given is None else given}; nothing else says "
            f"whether one stands before or after a BatchNorm: pass 'identity' for a module without one"
        )
    each = each_activation(hidden, *as_activations(hidden, activation, known(final_activation)))
    return [step for pair in zip(layers, each, strict=True) for step in pair] if layers else []


def required(
    holder: str, activation: Activations | None, final_activation: Activation | None
) -> tuple[Activations, Activation]:
    """Both activations. Refuses None, because only a `holder` records its activations itself."""
    if activation is None or final_activation is None:
        raise BadValue(
            f"activation and final_activation must be given, because only {holder} records them; "
            f"pass activation='relu', final_activation='identity', or whichever the network has"
        )
    return activation, final_activation


def refused(holder: str, *given: Any) -> None:
    """Refuses options, if given, whose values a `holder` records itself."""
    if any(value is not None for value in given):
        raise BadValue(
            f"activations and names must not be given for {holder}, which records them; leave them out"
        )


def network(mlp: Any) -> MLP:
    """Checks `mlp` for an exporter. Refuses a stack of networks, which JAX's transforms may return."""
    check_one(mlp)
    with inside("mlp"):
        return with_layers(mlp, mlp.layers)


def with_names(mlp: MLP, inputs: Any, outputs: Any) -> MLP:
    """The network with the source's names for its units, if these are distinct strings, one for each unit."""
    n_in, n_out = mlp.layers[0].w.shape[-2], mlp.layers[-1].w.shape[-1]
    names = (_distinct(inputs, n_in), _distinct(outputs, n_out))
    return as_mlp(mlp.layers, mlp.activation, mlp.final_activation, *names)


def _distinct(names: Any, count: int) -> list[str] | None:
    found = [] if names is None else list(names)
    sound = all(isinstance(name, str) for name in found) and len(set(found)) == len(found) == count
    return found if sound else None


class _Network:
    """The layers so far, their activations (None until there is one), and a scaling that waits to be folded.

    `apart`: the numbers of a scaling don't decide whether it is left out or folded into the layer after it,
    so that all members of a stack get the same structure. `inputs`: the choice of units that the first layer
    reads, if there is one.
    """

    def __init__(
        self, steps: Sequence[Step], n_in: int | None, like: DTypeLike, apart: bool, inputs: Units | None
    ) -> None:
        self._apart, self._inputs = apart, inputs
        self.layers: list[Affine] = []
        self.activations: list[Activation | None] = []
        self._waiting: Scaling | None = None
        self._n_in = n_in
        affines = [step for step in steps if isinstance(step, Affine)]
        dtypes = (np.dtype(step.w.dtype) for step in affines)
        self._dtype = next((d for d in dtypes if d.name in FLOATS), jnp.dtype(like))
        # Before the first layer, only a choice of units changes the number of units.
        begun = next((step for step in steps if isinstance(step, (Affine, Units))), None)
        self._first = begun.w.shape[0] if isinstance(begun, Affine) and begun.w.ndim else None
        self._own = 0  # how many weights the layers made here have

    def affine(self, step: Affine) -> None:
        name = f"layer {len(self.layers)}"
        layer = as_affine(step, name)
        if layer.w.ndim != 2:
            raise BadValue(
                f"{name}: w must have two axes, n_in and n_out, got {layer.w.shape}; pass only dense layers"
            )
        self._settle()
        if not layer.w.size and max(layer.w.shape) > MOST_UNITS:
            raise BadValue(
                f"{name}: w must hold numbers, got none in {layer.w.shape}; pass the network's own weights"
            )
        if self._waiting is not None:
            mean = np.asarray(self._waiting.mean, np.float64)
            if self._apart or np.max(np.abs(mean * self._waiting.scale), initial=0.0) > MOST_DEVIATIONS:
                self._diagonal(1.0, -mean, len(layer.w), layer)
                self._waiting = self._waiting._replace(mean=0.0)
            with inside(f"layer {len(self.layers)}"):
                layer = before(layer, self._waiting, self._apart, None if self.layers else self._inputs)
            self._waiting, self._inputs = None, self._inputs if self.layers else None
        self._push(layer)

    def scaling(self, step: Scaling) -> None:
        step = checked(step, self._width(step))
        # All scalings in a row are folded together, so that the layer is rounded once.
        self._waiting = step if self._waiting is None else composed(self._waiting, step)

    def units(self, step: Units) -> None:
        """Leaves out columns of the last layer, although an activation and a scaling may follow it."""
        self._settle()
        if self.activations[-1] in OF_ROWS:
            raise BadValue(
                f"{self.activations[-1]} must come last, got a choice of its units, each of which depends "
                f"on all of them; end the network before the choice"
            )
        self.layers[-1] = columns(self.layers[-1], step.chosen)
        self._waiting = None if self._waiting is None else chosen(self._waiting, step.chosen)

    def activation(self, step: Activation) -> None:
        self._settle()
        if self._waiting is not None or not self.layers or self.activations[-1] is not None:
            self._own_layer()
        self.activations[-1] = step

    def close(self) -> None:
        self._settle()
        if self._waiting is not None or not self.layers:
            self._own_layer()
        if self._inputs is not None:
            self.layers[0] = reading(self._inputs, self.layers[0])

    def _settle(self) -> None:
        """Folds the waiting scaling into the layer before it, if that does not have an activation yet."""
        if self._waiting is not None and not self._apart and does_nothing(self._waiting):
            self._waiting = None
        if self._waiting is not None and self.layers and self.activations[-1] is None:
            with inside(f"layer {len(self.layers) - 1}"):
                self.layers[-1] = after(self.layers[-1], self._waiting)
            self._waiting = None

    def _push(self, layer: Affine) -> None:
        self.layers.append(layer)
        self.activations.append(None)

    def _own_layer(self) -> None:
        n = self._width()
        if n is None:
            raise BadValue(
                "the number of inputs must be known where no layer tells it, got none; "
                "pass at least one layer with weights"
            )
        mean, scale, shift = self._waiting or Scaling()
        exact = shift - np.asarray(mean, np.float64) * scale
        self._diagonal(scale, exact, n, self.layers[-1] if self.layers else None)
        self._waiting = None

    def _diagonal(self, scale: Any, shift: Any, n: int, beside: Affine | None) -> None:
        self._own += n * n
        if self._own > MOST_UNITS**2:
            raise BadValue(
                f"a step on {n} units that no layer can absorb needs {n} x {n} weights of its own, "
                f"at most {MOST_UNITS} x {MOST_UNITS} are made; convert the part without it"
            )
        dtype = beside.w.dtype if beside is not None and beside.w.dtype.name in FLOATS else self._dtype
        w = np.diag(np.broadcast_to(np.asarray(scale, np.float64), n))
        b = np.broadcast_to(np.asarray(shift, np.float64), n)
        with inside(f"layer {len(self.layers)}"):
            self._push(rounded(w, b, like=Affine(np.zeros(w.shape, dtype))))

    def _width(self, step: Scaling | None = None) -> int | None:
        """The number of units at this place, if a layer or `step`, which scales them, tells it."""
        if self.layers:
            return int(self.layers[-1].w.shape[1])
        if self._first is not None:
            return self._first
        arrays = (np.asarray(array) for scaling in (self._waiting, step) if scaling for array in scaling)
        return next((len(array) for array in arrays if array.size > 1), self._n_in)


def _wide(layer: Affine) -> Affine:
    return Affine(*(on_host(array, np.float64) for array in layer))


def _does_nothing(step: Step) -> bool:
    if isinstance(step, Scaling):
        return does_nothing(step)
    if isinstance(step, Units):
        return step.of is not None and np.array_equal(step.chosen, np.arange(step.of))
    return isinstance(step, str) and step == "identity"


def _first_units(steps: list[Step]) -> tuple[list[Step], Units | None]:
    """The steps without the choices of units before the first layer, and these choices combined into one."""
    inputs: Units | None = None
    done: list[Step] = []
    for i, step in enumerate(steps):
        if isinstance(step, Units):
            done = [chosen(each, step.chosen) if isinstance(each, Scaling) else each for each in done]
            inputs = step if inputs is None else Units(inputs.chosen[step.chosen], inputs.of)
        elif isinstance(step, Scaling):
            done.append(step)
        else:
            return [*done, *steps[i:]], inputs
    return done, inputs


def _checked_dtype(dtype: DTypeLike) -> np.dtype:
    try:
        name = jnp.dtype(dtype).name
    except TypeError:  # not a dtype at all
        name = repr(dtype)
    if name not in FLOATS:
        raise BadType(f"dtype must be one of {', '.join(FLOATS)}, got {name}; pass one of them")
    return jnp.dtype(name)


def _converted(layers: Sequence[Affine], dtype: np.dtype) -> list[Affine]:
    found = []
    for i, layer in enumerate(layers):
        arrays: list[Any] = []
        for name, array in layer._asdict().items():
            if array is None:
                continue
            if isinstance(array, jax.core.Tracer):
                arrays.append(array.astype(dtype))
                continue
            exact = np.asarray(array, np.float64)
            with np.errstate(all="ignore"):
                narrow = round_once(exact, dtype)
            if (np.isfinite(exact) & ~np.isfinite(narrow)).any():
                raise BadValue(
                    f"layer {i}: {name} must fit in {dtype.name}, "
                    f"got {np.abs(exact[np.isfinite(exact)]).max():g}; convert to a wider dtype"
                )
            arrays.append(narrow)
        found.append(Affine(*arrays))
    return found


def _warn_of_nan(mlp: MLP) -> None:
    for i, layer in enumerate(mlp.layers):
        for name, array in layer._asdict().items():
            if isinstance(array, jax.core.Tracer) or array is None:
                continue
            if jnp.issubdtype(array.dtype, jnp.floating) and np.isnan(np.asarray(array)).any():
                warn(f"layer {i}: {name} holds NaN, which is kept; check the source")
