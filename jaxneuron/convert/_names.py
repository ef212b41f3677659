"""Layers found by their names in nested parameters: `{"Dense_0": {"kernel": ..., "bias": ...}, ...}`.

Layers are ordered by the numbers in their names, and only if the names differ in one place and there by the
number alone: `Dense_10` comes after `Dense_9`. Nothing else is taken for an order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxneuron._arrays import as_array
from jaxneuron._errors import BadType, BadValue
from jaxneuron._params import Affine

Path = tuple[str, ...]
MOST_NAMED = 5  # in a message


def named_layers(
    tree: Mapping[Any, Any],
    argument: str,
    *,
    names: tuple[str, str] = ("kernel", "bias"),
    separator: str = "/",
    layers: Sequence[str] | None = None,
    first: int | None = None,
    array: Callable[[Any], Any] = lambda value: value,
) -> list[Affine]:
    """The layers in `tree`, in order.

    Args:
      tree: nested mappings; the innermost ones hold a layer's weights and bias under `names`.
      argument: the importer's argument that holds the tree; opens the messages about it.
      separator: stands between the places of a name.
      layers: the names of the layers in order, if their numbers don't tell it.
      first: the number of a name without one, where the source's convention has such a name.
      array: converts a leaf to an array.
    """
    weight, bias = names
    found: dict[Path, dict[str, Any]] = {}
    for path, leaf in _leaves(tree, argument, separator):
        if path[-1] not in names:
            raise BadValue(
                f"{argument} must hold only layers of {weight!r} and {bias!r}, "
                f"got {separator.join(path)!r:.80}; pass the part that is an MLP"
            )
        if leaf is not None:
            found.setdefault(path[:-1], {})[path[-1]] = leaf
    if not found:
        raise BadValue(
            f"{argument} must hold at least one layer of {weight!r}, got none; pass the network's parameters"
        )
    order = (
        _numeric(list(found), separator, first)
        if layers is None
        else _given(found, layers, argument, separator)
    )
    affines = []
    for path in order:
        name = f"{argument}: {separator.join((*path, weight))!r:.80}"
        if weight not in found[path]:
            raise BadValue(f"{name} must be there beside its {bias!r}, got none; pass whole layers")
        w = as_array(array(found[path][weight]), name)
        if w.ndim != 2:
            raise BadValue(f"{name} must have two axes, got {w.shape}; only dense layers make an MLP")
        b = found[path].get(bias)
        name = f"{argument}: {separator.join((*path, bias))!r:.80}"
        affines.append(Affine(w, None if b is None else as_array(array(b), name)))
    return affines


def _leaves(tree: Any, argument: str, separator: str, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if not isinstance(tree, Mapping):
        if not path:
            raise BadType(f"{argument} must be a mapping, got {type(tree).__name__}; pass nested dicts")
        yield path, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, argument, separator, (*path, *str(name).split(separator)))


def _numeric(paths: list[Path], separator: str, first: int | None) -> list[Path]:
    """`paths` in the order of the numbers in the one place where they differ."""
    if len(paths) == 1:
        return paths
    even = len({len(path) for path in paths}) == 1
    places = [i for i, names in enumerate(zip(*paths, strict=even)) if even and len(set(names)) > 1]
    if len(places) == 1:
        matches = [re.fullmatch(r"(.*?)_?(\d{0,9})", path[places[0]], re.ASCII | re.DOTALL) for path in paths]
        stems, numbers = zip(*((m[1], int(m[2]) if m[2] else first) for m in matches if m), strict=True)
        if len(set(stems)) == 1 and None not in numbers and len(set(numbers)) == len(numbers):
            return [path for _, path in sorted(zip(numbers, paths, strict=True))]
    named = [separator.join(path) for path in paths[:MOST_NAMED]]
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    raise BadValue(
        f"layers must be given where the names of layers are not one name with numbers, "
        f"got {', '.join(f'{name!r:.80}' for name in named)}{more}; "
        f"pass layers=[...] with their names in order, or the part that is one network"
    )


def _given(found: Mapping[Path, Any], layers: Sequence[str], argument: str, separator: str) -> list[Path]:
    if not isinstance(layers, (tuple, list)) or not all(isinstance(name, str) for name in layers):
        raise BadType(
            f"layers must be a list of names, got {type(layers).__name__}; pass strings, in the layers' order"
        )
    order = [tuple(name.split(separator)) for name in layers]
    for path in order:
        if path not in found:
            raise BadValue(
                f"layers must name layers of {argument}, got {separator.join(path)!r}; "
                f"there are {', '.join(repr(separator.join(p)) for p in list(found)[:MOST_NAMED])}"
            )
    named = [separator.join(path) for path in order]
    wrong = [f"{name!r} twice" for name in named if named.count(name) > 1]
    wrong += [f"{separator.join(path)!r} left out" for path in found if path not in order]
    if wrong:
        raise BadValue(
            f"layers must name each of the {len(found)} layers once, got {wrong[0]}; "
            f"pass the part that is one network"
        )
    return order
