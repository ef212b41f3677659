"""Reads the network in a tree of named parameters, which does not record activations: Flax linen's, Haiku's.

The tree holds a BatchNorm's scale and shift; another tree holds its statistics. Modules are taken in the
order of `layers`, each followed by its activation:

    Dense_0  identity  BatchNorm_0  relu  Dense_1  identity
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import as_array
from jaxneuron._errors import BadType, BadValue, warn
from jaxneuron._names import Activation
from jaxneuron._params import MLP
from jaxneuron.convert._check import Check, compare_given
from jaxneuron.convert._names import Path, leaves, named_layers, paths_of, quoted
from jaxneuron.convert._scalings import Scaling, batch_norm
from jaxneuron.convert._stacks import check_stacked, in_turn
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import Activations, Step, assemble, chain


class Convention(NamedTuple):
    """How a library names the arrays of its layers and BatchNorms."""

    weights: tuple[str, str]
    scale: str  # of a BatchNorm; both scale and shift may be absent
    shift: str
    statistics: str  # the tree that holds them, for messages
    by_creation: Callable[[Sequence[str]], bool]  # see `named_layers`
    first: int | None = None
    with_rows: bool = False  # whether a BatchNorm's arrays keep the batch's axes, with length 1
    array: Callable[[Any], Any] = lambda leaf: leaf


Norms = Mapping[Path, Mapping[str, Any]]  # the "mean" and "var" of each BatchNorm


def statistics(tree: Any, argument: str, at: Callable[[Path], Path | None] = lambda path: path) -> Norms:
    """The mean and the variance of each BatchNorm, by its path.

    Args:
      tree: nested mappings with the statistics.
      argument: the importer's argument that holds the tree. Messages about the tree begin with it.
      at: maps the path of an array to the path of its BatchNorm, with "mean" or "var" at the end, or to None
        if the array is not used in inference.
    """
    found: dict[Path, dict[str, Any]] = {}
    for place, leaf in leaves(tree, argument, "/"):
        path = at(place)
        if path is not None and path[-1] not in ("mean", "var"):
            raise BadValue(
                f"{argument} must hold statistics of BatchNorms, got {'/'.join(place)!r:.80}; "
                f"those of SpectralNorm and its like change the weights: pass the weights that it makes"
            )
        if path is not None:
            found.setdefault(path[:-1], {})[path[-1]] = leaf
    for path, each in found.items():
        if len(each) < 2:
            raise BadValue(
                f"{argument} must hold both a mean and a variance, got {list(each)} alone of "
                f"{'/'.join(path)!r:.80}; pass it as the library made it"
            )
    return found


def from_tree(
    params: Any,
    norms: Norms,
    convention: Convention,
    *,
    activation: Activations,
    final_activation: Activation,
    layers: Sequence[str] | None,
    epsilon: float | None,
    outputs: slice | None,
    stacked: str | None,
    dtype: DTypeLike | None,
    check: Check,
) -> MLP:
    """The network in `params`; the other arguments are the same as the public importer's."""
    check_stacked(stacked, check)
    if norms and layers is None:
        raise BadValue(
            f"layers must name the layers and BatchNorms in order where there are {convention.statistics}, "
            f"got None; pass layers=[...], with {'/'.join(next(iter(norms)))!r:.80} in its place"
        )
    chosen = None if layers is None else paths_of(layers, "/")
    read = [path for path in chosen or () if path in norms]
    if check is None:
        _warn_of_others(norms, chosen or ())
    _check_epsilon(epsilon, bool(read))
    dense = None if chosen is None else ["/".join(path) for path in chosen if path not in norms]
    found: list[Step] = []
    if dense != []:
        found += named_layers(
            params,
            "params",
            names=convention.weights,
            layers=dense,
            remedy="pass the part that is an MLP, or layers=[...] with the names of its layers in order; "
            f"a BatchNorm is read with {convention.statistics}",
            first=convention.first,
            array=convention.array,
            stacked=stacked,
            by_creation=convention.by_creation if check is None else None,
            compared=check is not None,
            elsewhere=norms,
        )
    if chosen and read:
        scalings = {path: _scaling(params, path, norms[path], epsilon, stacked, convention) for path in read}
        affines = iter(found)
        found = [scalings[path] if path in scalings else next(affines) for path in chosen]
    steps = chain(in_turn(found) if stacked == "layers" else found, activation, final_activation)
    mlp = assemble(steps, "params", dtype=dtype, stacked=stacked, outputs=outputs)
    if outputs is not None:
        steps.append(Units(outputs))
    compare_given(mlp, check, steps=steps)
    return mlp


def _warn_of_others(norms: Norms, chosen: Sequence[Path]) -> None:
    """Warns of BatchNorms beside the chosen layers, because the network may call these too."""
    beside = {path[:-1] for path in chosen}
    if left := ["/".join(path) for path in norms if path[:-1] in beside and path not in chosen]:
        warn(
            f"params: {quoted(left)} stand beside the layers and are left out; name them in layers=[...] if "
            f"the network calls them, or pass check=(rows, outputs) of the source"
        )


def _check_epsilon(epsilon: Any, read: bool) -> None:
    if not read and epsilon is not None:
        raise BadValue(
            f"epsilon must be None where no BatchNorm is read, got {epsilon!r:.80}; "
            f"name the BatchNorms in layers, or leave epsilon out"
        )
    if read and epsilon is None:
        raise BadValue(
            "epsilon must be given where a BatchNorm is read, because the parameters do not record it, "
            "got None; pass 1e-5, the library's default, or the module's own"
        )
    if read and (not isinstance(epsilon, Real) or isinstance(epsilon, bool)):
        raise BadType(f"epsilon must be a number, got {type(epsilon).__name__}; pass a float")
    if read and not (epsilon >= 0 and math.isfinite(epsilon)):
        raise BadValue(f"epsilon must be finite and at least 0, got {epsilon}; pass the module's own")


def _scaling(
    params: Any,
    path: Path,
    averages: Mapping[str, Any],
    epsilon: Any,
    stacked: str | None,
    convention: Convention,
) -> Scaling:
    """The scaling that the BatchNorm at `path` does in inference."""
    given = {at[len(path) :]: leaf for at, leaf in leaves(params, "params", "/") if at[: len(path)] == path}
    known: dict[Path, str] = {(convention.scale,): "scale", (convention.shift,): "shift"}
    name = "/".join(path)
    if other := sorted(given.keys() - known.keys()):
        raise BadValue(
            f"params: {name!r:.80} must hold {convention.scale!r} and {convention.shift!r}, as a BatchNorm "
            f"does, got {'/'.join(other[0])!r:.80}; pass the part that is an MLP"
        )
    fields = {**averages, **{known[at]: leaf for at, leaf in given.items() if leaf is not None}}
    arrays = {
        field: np.asarray(as_array(convention.array(leaf), f"params: {field} of {name!r:.80}"), np.float64)
        for field, leaf in fields.items()
    }
    if convention.with_rows:
        arrays = {field: _without_rows(array, stacked) for field, array in arrays.items()}
    shapes = {array.shape for array in arrays.values()}
    ranks = {None: (1,), "members": (2,), "layers": (1, 2)}[stacked]
    if len(shapes) > 1 or arrays["mean"].ndim not in ranks:
        raise BadValue(
            f"params: {name!r:.80} must have arrays of one shape, with {' or '.join(map(str, ranks))} axes, "
            f"got {', '.join(f'{field} {array.shape}' for field, array in arrays.items())}; "
            f"pass stacked= to say what a leading axis is"
        )
    mean, variance = arrays.pop("mean"), arrays.pop("var")
    return batch_norm(mean, variance, float(epsilon), **arrays)


def _without_rows(array: np.ndarray, stacked: str | None) -> np.ndarray:
    """`array` without its axes of length 1 before the last; the axis of a stack stays."""
    stack = stacked == "members" or (stacked == "layers" and array.shape[:1] != (1,))
    rows = array.shape[stack:-1]
    return array.reshape(array.shape[:stack] + array.shape[-1:]) if set(rows) == {1} else array
