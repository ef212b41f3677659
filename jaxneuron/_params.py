"""Parameters: `Affine` for a neuron or a layer, `MLP` for a network, and the checks that their shapes fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._arrays import ArrayLike, as_array, concrete, holds_numpy
from jaxneuron._errors import BadType, BadValue, listed, public
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._names import Activation, canonical


class Affine(NamedTuple):
    """The parameters of an affine function: of one neuron, or of a layer of neurons that share their input.

        z = x @ w + b

    Args:
      w: weights, `(n_in,)` for a neuron or `(n_in, n_out)` for a layer, one column for each neuron.
      b: bias, `()` for a neuron or `(n_out,)` for a layer; None for no bias.

    Both can be numbers, nested sequences, NumPy arrays or JAX arrays. They are checked by the function that
    uses them. An `Affine` is a pytree whose leaves are `w` and `b`.

    Example:
      >>> Affine(w=[0.5, 0.5], b=-0.7)
      Affine(w=[0.5, 0.5], b=-0.7)
    """

    w: Any
    b: Any = None


AffineLike = Affine | tuple[ArrayLike, ArrayLike | None] | list[ArrayLike]


@dataclass(frozen=True, eq=False, init=False, repr=False)
class MLP:
    """A multilayer perceptron: layers, each followed by its activation.

        x -> activation(x @ w + b), layer after layer; the last layer has final_activation

    Args:
      layers: a sequence of `Affine` or `(w, b)` pairs, with `w (n_in, n_out)` and `b (n_out,)` or None.
      activation: the activation of the hidden layers, one for all or a tuple with one for each. An activation
        is a name such as "tanh", a value such as `LeakyReLU(0.2)`, or any hashable callable. A callable gets
        float32 values if the layer is bfloat16 or float16.
      final_activation: the activation of the last layer.
      inputs: the names of the inputs, one for each row of the first layer's w, such as the columns of a
        table; None if they are unknown.
      outputs: the names of the outputs, one for each unit of the last layer; None if they are unknown.

    An `MLP` is a frozen dataclass, and a pytree whose leaves are the arrays; the activations and the names
    are part of its structure. `jax.tree.map` stacks networks with the same shapes, activations and names into
    an ensemble.

    Raises:
      ValueError: if there is no layer, the shapes of w and b do not fit, a layer's number of inputs is not
        the number of units before it, an activation is unknown, a hidden layer has softmax or log_softmax,
        or names are too many, too few or not distinct.
      TypeError: if `layers` is not a sequence, a w or b is not an array of numbers, or has more than numbers,
        such as a mask or physical units, or if a name is not a string.

    Example:
      >>> MLP([Affine([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), Affine([[1.0], [1.0]])], activation="relu")
      MLP(float64[2,2]+float64[2] relu, float64[2,1] sigmoid)
    """

    layers: tuple[Affine, ...]
    activation: Activation | tuple[Activation, ...]
    final_activation: Activation
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None

    @public
    def __init__(
        self,
        layers: Iterable[AffineLike],
        activation: Activation | Sequence[Activation] = "sigmoid",
        final_activation: Activation = "sigmoid",
        *,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        if isinstance(layers, Affine) or not isinstance(layers, Iterable):
            raise BadType(
                f"layers must be a sequence of Affine or (w, b) pairs, got {type(layers).__name__}; "
                f"pass [layer] for a single layer"
            )
        checked = as_layers(layers)
        _set(self, checked, *_structure(checked, activation, final_activation, inputs, outputs))

    @property
    def activations(self) -> tuple[Activation, ...]:
        """The activation of every layer, in order."""
        return each_activation(len(self.layers) - 1, self.activation, self.final_activation)

    def __repr__(self) -> str:
        each = zip(self.layers, self.activations, strict=True)
        return f"MLP({', '.join(f'{_describe(layer)} {activation}' for layer, activation in each)})"


def _set(mlp: MLP, layers: Any, *structure: Any) -> MLP:
    leaves = tuple(leaf for layer in layers for leaf in layer)
    for name, value in (
        ("layers", layers),
        *zip(("activation", "final_activation", "inputs", "outputs"), structure, strict=True),
        # The leaves and the structure. They are stored, in one flat tuple, because JAX asks for them in every
        # call. A tree node for each layer would cost 4 % of a call.
        ("_flat", (leaves, structure)),
        ("_holds_numpy", holds_numpy(*leaves)),
    ):
        object.__setattr__(mlp, name, value)
    return mlp


def _structure(
    layers: tuple[Affine, ...], activation: Any, final_activation: Any, inputs: Any, outputs: Any
) -> tuple[Any, ...]:
    """The activations and names of an MLP, checked."""
    return (
        *as_activations(len(layers) - 1, activation, final_activation),
        _as_names(inputs, "inputs", layers[0].w.shape[0], "rows of the first layer's w"),
        _as_names(outputs, "outputs", layers[-1].w.shape[1], "units of the last layer"),
    )


def _as_names(names: Any, argument: str, count: int, of: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise BadType(f"{argument} must be a sequence of names, got {type(names).__name__}; pass ['a', 'b']")
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str):
            raise BadType(
                f"{argument} must hold strings, got {type(name).__name__}; pass [str(n) for n in names]"
            )
    if len(checked) != count:
        raise BadValue(
            f"{argument} must hold {count} names, one for each of the {of}, got {len(checked)}; "
            f"pass {count}, or None"
        )
    if len(set(checked)) != count:
        twice = next(name for name in checked if checked.count(name) > 1)
        raise BadValue(f"{argument} must be distinct, got {twice!r} twice; rename one of them")
    return tuple(map(str, checked))


def _describe(node: Any) -> str:
    if isinstance(node, Affine):
        return "+".join(_describe(leaf) for leaf in node if leaf is not None)
    if hasattr(node, "shape") and hasattr(node, "dtype"):
        return f"{node.dtype}[{','.join(map(str, node.shape))}]"
    return repr(node)


def _flatten_with_keys(mlp: MLP) -> tuple[Any, Any]:
    leaves, structure = mlp._flat  # type: ignore[attr-defined]
    keys = (jax.tree_util.GetAttrKey(f"layers[{i // 2}].{'wb'[i % 2]}") for i in range(len(leaves)))
    return tuple(zip(keys, leaves, strict=True)), structure


def _unflatten(structure: Any, leaves: Any) -> MLP:
    # Nothing is checked here: JAX's transforms put axes, shapes and bare objects in the place of arrays.
    layers = tuple(Affine(w, b) for w, b in zip(leaves[::2], leaves[1::2], strict=True))
    return _set(object.__new__(MLP), layers, *structure)


jax.tree_util.register_pytree_with_keys(MLP, _flatten_with_keys, _unflatten, attrgetter("_flat"))


def as_activations(
    hidden: int, activation: Activation | Sequence[Activation], final_activation: Activation
) -> tuple[Activation | tuple[Activation, ...], Activation]:
    """Checks the activations of an MLP with `hidden` hidden layers; each becomes its name if it has one."""
    checked: Activation | tuple[Activation, ...]
    if isinstance(activation, Sequence) and not isinstance(activation, str):
        checked = tuple(canonical(a, f"activation[{i}]") for i, a in enumerate(activation))
        if len(checked) != hidden:
            raise BadValue(
                f"activation must have one entry for each of the {hidden} hidden layers, "
                f"got {len(checked)}; pass the last layer's as final_activation"
            )
    else:
        checked = canonical(activation, "activation")
    for hidden_one in checked if isinstance(checked, tuple) else (checked,):
        if hidden_one in OF_ROWS:
            raise BadValue(f"{hidden_one} can only be the final activation; pass it as final_activation")
    return checked, canonical(final_activation, "final_activation")


def each_activation(
    hidden: int, activation: Activation | tuple[Activation, ...], final_activation: Activation
) -> tuple[Activation, ...]:
    """The activation of every layer, in order."""
    return (*(activation if isinstance(activation, tuple) else (activation,) * hidden), final_activation)


def as_affine(params: Any, argument: str = "params") -> Affine:
    """`params` as an Affine of arrays whose shapes fit; error messages open with `argument`."""
    if not isinstance(params, (tuple, list)) or len(params) != 2:
        raise BadType(
            f"{argument} must be an Affine or a (w, b) pair, got {type(params).__name__}; "
            f"pass Affine(w, b), with b=None for no bias"
        )
    w, b = as_array(params[0], f"{argument}: w"), params[1]
    if b is not None:
        bare = type(b) in (int, float, bool) and jnp.issubdtype(w.dtype, jnp.floating)
        b = _beside(b, w.dtype, argument) if bare else as_array(b, f"{argument}: b")
    if w.ndim not in (1, 2):
        remedy = "pass [w]" if w.ndim == 0 else "evaluate stacked networks with jax.vmap"
        raise BadValue(
            f"{argument}: w must have shape (n_in,) for a neuron or (n_in, n_out) for a layer, "
            f"got {w.shape}; {remedy}"
        )
    if b is not None and b.shape != w.shape[1:]:
        raise BadValue(
            f"{argument}: b must have shape {w.shape[1:]}, one number for each column of w {w.shape}, "
            f"got {b.shape}; reshape it, or pass None for no bias"
        )
    return Affine(w, b)


def _beside(b: float, dtype: np.dtype, argument: str) -> np.ndarray:
    """A plain Python number as an array: it has no dtype of its own, and must not widen float16 weights."""
    try:
        with np.errstate(all="ignore"):
            array = np.asarray(float(b), dtype)
    except OverflowError:
        array = np.asarray(np.inf, dtype)
    if np.isinf(array) and abs(b) != np.inf:
        raise BadValue(f"{argument}: b must fit in {dtype.name} like w, got {b:.3g}; pass w in a wider dtype")
    return array


def as_layers(layers: Iterable[AffineLike]) -> tuple[Affine, ...]:
    """`layers` as Affines of arrays whose shapes fit and chain."""
    checked = tuple(as_affine(layer, f"layer {i}") for i, layer in enumerate(layers))
    _check_chain(checked)
    return checked


def as_mlp(
    layers: Iterable[AffineLike],
    activation: Any,
    final_activation: Any,
    inputs: Any = None,
    outputs: Any = None,
) -> MLP:
    """`MLP(layers, ...)` for the package's own functions: errors don't open with the name `MLP`."""
    checked = as_layers(layers)
    return _set(
        object.__new__(MLP), checked, *_structure(checked, activation, final_activation, inputs, outputs)
    )


def with_layers(mlp: MLP, layers: Iterable[AffineLike]) -> MLP:
    """The network `mlp` with other layers, which are checked; it keeps its activations and names."""
    return as_mlp(layers, mlp.activation, mlp.final_activation, mlp.inputs, mlp.outputs)


def check_mlp(mlp: Any, remedy: str = "pass MLP(layers)") -> MLP:
    """`mlp`, which must be an `MLP`."""
    if not isinstance(mlp, MLP):
        raise BadType(f"mlp must be an MLP, got {type(mlp).__name__}; {remedy}")
    return mlp


def check_columns(mlp: MLP, rows: Any, argument: str) -> None:
    """Refuses a data frame whose columns are not the network's inputs, in order: JAX drops their names."""
    if mlp.inputs is None or isinstance(rows, (np.ndarray, jax.Array)):
        return
    names = getattr(rows, "column_names", None) or getattr(rows, "columns", ())
    names = tuple(names) if isinstance(names, Iterable) else ()
    if names and all(isinstance(name, str) for name in names) and names != mlp.inputs:
        raise BadValue(
            f"{argument} must have the network's inputs as columns, in its order, {listed(mlp.inputs)}, "
            f"got {listed(names)}; pass {argument}[list(mlp.inputs)]"
        )


def _check_chain(layers: Sequence[Affine]) -> None:
    if not layers:
        raise BadValue("layers must hold at least 1 layer, got 0; pass [Affine(w, b), ...]")
    for i, layer in enumerate(layers):
        if layer.w.ndim != 2:
            raise BadValue(
                f"layer {i}: w must have shape (n_in, n_out), got {layer.w.shape}; "
                f"make the neuron a layer of one with stack_neurons([neuron])"
            )
        if i and layers[i - 1].w.shape[1] != layer.w.shape[0]:
            raise BadValue(
                f"layers {i - 1} and {i} must chain: layer {i - 1} has {layers[i - 1].w.shape[1]} units "
                f"(w {layers[i - 1].w.shape}), layer {i} takes {layer.w.shape[0]} (w {layer.w.shape}); "
                f"transpose weights that are not (n_in, n_out), "
                f"and pass the layers in the order in which they are evaluated"
            )


@public
@concrete
def stack_neurons(neurons: Sequence[Affine]) -> Affine:
    """Makes a layer of neurons that share their input.

        w = [w_1 | w_2 | ... | w_n],  b = (b_1, ..., b_n)

    Args:
      neurons: a sequence of `Affine`, each with `w (n_in,)` and `b ()` or None; all have the same `n_in`.

    Returns:
      An `Affine` with `w (n_in, n)`, `b (n,)`. The bias of a neuron without bias is 0; if no neuron has a
      bias, the layer has none.

    Raises:
      ValueError: if there is no neuron, one of them is a layer, or they differ in `n_in`.
      TypeError: if `neurons` is not a sequence, or holds anything but an `Affine` or a pair `(w, b)` of real
        numbers.

    Example:
      >>> stack_neurons([Affine([1.0, 2.0], 0.5), Affine([3.0, 4.0], -0.5)]).w.tolist()
      [[1.0, 3.0], [2.0, 4.0]]
    """
    if isinstance(neurons, Affine) or not isinstance(neurons, Iterable):
        raise BadType(f"neurons must be a sequence of Affine, got {type(neurons).__name__}; pass [neuron]")
    checked = [as_affine(n, f"neuron {i}") for i, n in enumerate(neurons)]
    if not checked:
        raise BadValue("neurons must hold at least 1 neuron, got 0; pass [Affine(w, b), ...]")
    for i, neuron in enumerate(checked):
        if neuron.w.ndim != 1 or neuron.w.shape != checked[0].w.shape:
            wanted = f"{checked[0].w.shape} like neuron 0's" if i else "(n_in,)"
            raise BadValue(
                f"neuron {i}: w must have shape {wanted}, got {neuron.w.shape}; "
                f"stack neurons that share an input"
            )
    # By NumPy if possible: the gates are stacked at import, which must not touch a device.
    leaves = jax.tree.leaves(checked)
    on_host = all(isinstance(leaf, np.ndarray) and leaf.dtype == leaves[0].dtype for leaf in leaves)
    stack = np.stack if on_host else jnp.stack
    with jax.numpy_dtype_promotion("standard"):
        w = stack([n.w for n in checked], axis=1)
        if all(n.b is None for n in checked):
            return Affine(w, None)
        return Affine(w, stack([np.zeros((), n.w.dtype) if n.b is None else n.b for n in checked]))
