"""Layers found by their names in nested parameters: `{"Dense_0": {"kernel": ..., "bias": ...}, ...}`.

Layers are ordered by the numbers in their names, and only if the names differ in one place and there by the
number alone: `Dense_10` comes after `Dense_9`. Nothing else is taken for an order. Numbers that a library
gave the layers as they were created tell nothing of the order of the calls: in `Dense(2)(tanh(Dense(8)(x)))`
the last layer is `Dense_0`. Where shapes don't tell it either, a warning says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

from jaxneuron._arrays import as_array
from jaxneuron._errors import BadType, BadValue, listed, warn
from jaxneuron._params import Affine
from jaxneuron.convert._stacks import STACKED

Path = tuple[str, ...]
MOST_SIZES = 10  # in a message


def named_layers(
    tree: Mapping[Any, Any],
    argument: str,
    *,
    names: tuple[str, str] = ("kernel", "bias"),
    separator: str = "/",
    layers: Sequence[str] | None = None,
    remedy: str = "pass the part that is an MLP, or layers=[...] with the names of its layers in order",
    first: int | None = None,
    array: Callable[[Any], Any] = lambda value: value,
    stacked: str | bool | None = False,
    by_creation: Callable[[Sequence[str]], bool] | None = None,
) -> list[Affine]:
    """The layers in `tree`, in order.

    Args:
      tree: nested mappings; the innermost ones hold a layer's weights and bias under `names`.
      argument: the importer's argument that holds the tree; opens the messages about it.
      separator: stands between the places of a name.
      layers: the names of the network's layers in order; all others are left out. None takes all that
        `tree` holds, in the order of their numbers.
      remedy: for a tree that holds other arrays.
      first: the number of a name without one, where the source's convention has such a name.
      array: converts a leaf to an array.
      stacked: what a leading axis of the weights is, if that was said; False where it can't be said.
      by_creation: whether a library gives such names to layers by itself, as they are created; None where
        the order is checked.
    """
    weight, bias = names
    found: dict[Path, dict[str, Any]] = {}
    chosen = None if layers is None else paths_of(layers, separator)
    for path, leaf in leaves(tree, argument, separator):
        if path[-1] in names:
            if leaf is not None:
                found.setdefault(path[:-1], {})[path[-1]] = leaf
        elif chosen is None or any(path[: len(each)] == each for each in chosen):
            raise BadValue(
                f"{argument} must hold only layers of {weight!r} and {bias!r}, "
                f"got {separator.join(path)!r:.80}; {remedy}"
            )
    if not found:
        raise BadValue(
            f"{argument} must hold at least one layer of {weight!r}, got none; pass the network's parameters"
        )
    order = (
        _numeric(list(found), separator, first)
        if chosen is None
        else _given(found, chosen, argument, separator)
    )
    affines = []
    for path in order:
        name = f"{argument}: {separator.join((*path, weight))!r:.80}"
        if weight not in found[path]:
            raise BadValue(f"{name} must be there beside its {bias!r}, got none; pass whole layers")
        w = as_array(array(found[path][weight]), name)
        b = found[path].get(bias)
        if b is not None:
            b = as_array(array(b), f"{argument}: {separator.join((*path, bias))!r:.80}")
        stack = w.ndim == 3 and (b is None or b.ndim == 2)
        if w.ndim != 2 and not (stack and stacked):
            remedy = "pass only dense layers"
            if stack:
                remedy = "convert one member of an ensemble at a time" if stacked is False else STACKED
            raise BadValue(f"{name} must have two axes, got {w.shape}; {remedy}")
        affines.append(Affine(w, b))
    if layers is None and by_creation and len(order) > 1:
        (numbered,) = (names for names in zip(*order, strict=True) if len(set(names)) > 1)
        if by_creation(numbered):
            _check_order(argument, affines, [separator.join(path) for path in order])
    return affines


def of_layers(names: Iterable[str], layers: Any, separator: str = ".") -> list[str]:
    """Those of the arrays' names that belong to `layers`; all, if these are not chosen."""
    if not isinstance(layers, (tuple, list)):
        return list(names)
    return [name for name in names if name.startswith(tuple(f"{layer}{separator}" for layer in layers))]


def _check_order(argument: str, layers: Sequence[Affine], names: Sequence[str]) -> None:
    """Refuses, or warns of, the order in which layers were created where it may not be that of the calls."""
    for i, (one, two) in enumerate(pairwise(layers)):
        if one.w.shape[-1] != two.w.shape[-2]:
            raise BadValue(
                f"{argument}: layers must chain, got {names[i]!r:.80} with {one.w.shape[-1]} units before "
                f"{names[i + 1]!r:.80}, which takes {two.w.shape[-2]}; they are numbered as they were "
                f"created: pass layers=[...], their names in the order of the calls, or the part that is one "
                f"network, an actor without its critic"
            )
    widths = [layers[0].w.shape[-2], *(layer.w.shape[-1] for layer in layers)]
    if fits_otherwise(widths):
        sizes = "-".join(map(str, widths[:MOST_SIZES])) + "-..." * (len(widths) > MOST_SIZES)
        warn(
            f"{argument}: {quoted(names)} are numbered as they were created, and layers of the sizes "
            f"{sizes} chain in another order too; pass layers=[...], their names in the order of the calls, "
            f"or check=(rows, outputs) of the source"
        )


def fits_otherwise(widths: Sequence[int]) -> bool:
    """Whether layers of these widths, `n_in` first, would chain in another order too, or make two networks.

    Of chains with the same ends, any can be had from another by exchanging the layers between one pair of
    equal widths and those between another (Ukkonen 1992, Pevzner 1995, of Eulerian paths). There is another
    where a width stands in three places, or two widths in turn: a, b, a, b. The first width again, after a
    hidden layer, may be the end of the chain, which can then begin anywhere, or the inputs of a network.
    """
    if widths[0] in widths[2:] or any(widths.count(width) > 2 for width in widths):
        return True
    places = [[i for i, width in enumerate(widths) if width == each] for each in set(widths)]
    pairs = sorted(pair for pair in places if len(pair) == 2)
    return any(start < end < last for (_, end), (start, last) in combinations(pairs, 2))


def quoted(names: Iterable[str]) -> str:
    return listed(f"{name!r:.80}" for name in names)


def leaves(tree: Any, argument: str, separator: str, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if not isinstance(tree, Mapping):
        if not path:
            raise BadType(f"{argument} must be a mapping, got {type(tree).__name__}; pass nested dicts")
        yield path, tree
        return
    for name, branch in tree.items():
        yield from leaves(branch, argument, separator, (*path, *str(name).split(separator)))


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
    parts = list(dict.fromkeys(path[0] for path in paths if len(path) > 1))
    such = f", such as what is under {parts[0]!r:.80}" if len(parts) > 1 else ""
    raise BadValue(
        f"layers must be given where the names of layers are not one name with numbers, "
        f"got {quoted(separator.join(path) for path in paths)}; "
        f"pass layers=[...] with their names in order, or the part that is one network{such}"
    )


def paths_of(layers: Sequence[str], separator: str) -> list[Path]:
    """The paths of `layers`, the names of a network's layers in order."""
    if not isinstance(layers, (tuple, list)) or not all(isinstance(name, str) for name in layers):
        raise BadType(
            f"layers must be a list of names, got {type(layers).__name__}; pass strings, in the layers' order"
        )
    if not layers:
        raise BadValue("layers must name at least one layer, got none; leave it out to take all layers")
    for name in layers:
        if layers.count(name) > 1:
            raise BadValue(
                f"layers must name each layer once, got {name!r:.80} twice; "
                f"pass the pairs of a layer that is called twice to from_pairs"
            )
    return [tuple(name.split(separator)) for name in layers]


def _given(found: Mapping[Path, Any], chosen: list[Path], argument: str, separator: str) -> list[Path]:
    for path in chosen:
        if path not in found:
            raise BadValue(
                f"layers must name layers of {argument}, got {separator.join(path)!r}; "
                f"pass some of {quoted(separator.join(each) for each in found)}"
            )
    return chosen
