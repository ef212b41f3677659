"""Layers found by their names in nested parameters: `{"Dense_0": {"kernel": ..., "bias": ...}, ...}`.

The order of layers is read from numbers in their names, and only where the names differ in one place and
by the number alone: `Dense_10` comes after `Dense_9`. Nothing else says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxneuron._arrays import as_array
from jaxneuron._params import Affine

Path = tuple[str, ...]
MOST_NAMED = 5  # in a message


def named_layers(
    tree: Mapping[Any, Any],
    where: str,
    *,
    names: tuple[str, str] = ("kernel", "bias"),
    separator: str = "/",
    layers: Sequence[str] | None = None,
    first: int | None = None,
    array: Callable[[Any], Any] = lambda value: value,
) -> list[Affine]:
    """The layers in `tree`, in order.

    Args:
      tree: nested mappings, whose innermost hold a layer's weights and bias under `names`.
      where: opens every message.
      separator: what splits a name into its places.
      layers: the names of the layers in order, where their numbers don't tell it.
      first: the number of a name that has none, where the source's convention gives it one.
      array: makes an array of a leaf.
    """
    weight, bias = names
    found: dict[Path, dict[str, Any]] = {}
    for path, leaf in _leaves(tree, separator, where):
        if path[-1] not in names:
            raise ValueError(
                f"{where}: params must hold layers of {weight!r} and {bias!r} alone, "
                f"got {separator.join(path)!r:.80}; pass the part that is an MLP"
            )
        if leaf is not None:
            found.setdefault(path[:-1], {})[path[-1]] = leaf
    if not found:
        raise ValueError(
            f"{where}: params must hold at least one layer of {weight!r}, got none; pass the params"
        )
    order = (
        _numeric(list(found), where, separator, first)
        if layers is None
        else _given(found, layers, where, separator)
    )
    affines = []
    for path in order:
        name = separator.join((*path, weight))
        if weight not in found[path]:
            raise ValueError(
                f"{where}: {name!r:.80} must be there beside its {bias!r}, got none; pass whole layers"
            )
        w = as_array(array(found[path][weight]), f"{where}: {name}")
        if w.ndim != 2:
            raise ValueError(
                f"{where}: {name!r:.80} must have two axes, got {w.shape}; "
                f"layers that are not dense make no MLP"
            )
        b = found[path].get(bias)
        affines.append(
            Affine(w, None if b is None else as_array(array(b), f"{where}: {separator.join((*path, bias))}"))
        )
    return affines


def _leaves(tree: Any, separator: str, where: str, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if not isinstance(tree, Mapping):
        if not path:
            raise TypeError(
                f"{where}: params must be a mapping, got {type(tree).__name__}; pass nested dicts"
            )
        yield path, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, separator, where, (*path, *str(name).split(separator)))


def _numeric(paths: list[Path], where: str, separator: str, first: int | None) -> list[Path]:
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
    raise ValueError(
        f"{where}: layers must be numbered under one name to have an order, "
        f"got {', '.join(f'{name!r:.80}' for name in named)}{more}; "
        f"pass the part that is one network, or layers=[...] with their names in order"
    )


def _given(found: Mapping[Path, Any], layers: Sequence[str], where: str, separator: str) -> list[Path]:
    order = [tuple(name.split(separator)) for name in layers]
    for path in order:
        if path not in found:
            raise ValueError(
                f"{where}: layers must name layers of params, got {separator.join(path)!r}; "
                f"there are {', '.join(repr(separator.join(p)) for p in list(found)[:MOST_NAMED])}"
            )
    named = [separator.join(path) for path in order]
    wrong = [f"{name!r} twice" for name in named if named.count(name) > 1]
    wrong += [f"{separator.join(path)!r} left out" for path in found if path not in order]
    if wrong:
        raise ValueError(
            f"{where}: layers must name each of the {len(found)} layers once, got {wrong[0]}; "
            f"pass the part that is one network"
        )
    return order
