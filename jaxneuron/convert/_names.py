"""Layers found by their names in nested parameters: `{"Dense_0": {"kernel": ..., "bias": ...}, ...}`.

Layers are ordered by the numbers in their names: `Dense_10` comes after `Dense_9`. That requires that the
names differ in one place, and there only by the number. Nothing else is taken as an order. If a library
numbered the layers as they were created, the numbers don't tell the order of the calls: in
`Dense(2)(tanh(Dense(8)(x)))` the last layer is `Dense_0`. If the shapes don't tell it either, a warning says
so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
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
    compared: bool = True,
    elsewhere: Container[Path] = (),
) -> list[Affine]:
    """The layers in `tree`, in order.

    Args:
      tree: nested mappings. The innermost ones hold a layer's weights and bias under `names`.
      argument: the importer's argument that holds the tree. Messages about the tree begin with it.
      names: the names of a layer's weights and of its bias in the tree.
      separator: the text between the parts of a name.
      layers: the names of the network's layers in order; all others are left out. None takes all layers in
        `tree`, in the order of their numbers.
      remedy: the advice for a tree that holds other arrays.
      first: the number that a name without a number stands for, if the library gives such names.
      array: converts a leaf to an array.
      stacked: the meaning of a leading axis of the weights, if the user gave it; False if the importer does
        not have this argument.
      by_creation: tells whether a library gives such names to layers by itself, as they are created; None if
        the order is checked in another way.
      compared: whether the network will be compared with outputs of its source. If not, a warning names the
        arrays that `layers` leaves out although they may change the outputs.
      elsewhere: the paths of modules that this warning leaves out.
    """
    weight, bias = names
    found: dict[Path, dict[str, Any]] = {}
    chosen = None if layers is None else paths_of(layers, separator)
    each: dict[Path, Any] = {}
    for path, leaf in leaves(tree, argument, separator):
        if path in each:
            raise BadValue(
                f"{argument} must hold each array once, got two of {separator.join(path)!r:.80}; "
                f"pass nested dicts, or a flat one"
            )
        each[path] = leaf
        if path[-1] in names:
            if leaf is not None:
                found.setdefault(path[:-1], {})[path[-1]] = leaf
        elif chosen is None or any(path[: len(layer)] == layer for layer in chosen):
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
    if chosen is not None and not compared:
        _warn_of_others(argument, each, chosen, weight, separator, elsewhere, bool(stacked))
    if layers is None and by_creation and len(order) > 1:
        (numbered,) = (names for names in zip(*order, strict=True) if len(set(names)) > 1)
        if by_creation(numbered):
            _check_order(argument, affines, [separator.join(path) for path in order])
    return affines


def of_layers(names: Iterable[str], layers: Any, separator: str = ".") -> list[str]:
    """The names of the arrays that belong to `layers`; all names if `layers` is not given."""
    if not isinstance(layers, (tuple, list)):
        return list(names)
    return [name for name in names if name.startswith(tuple(f"{layer}{separator}" for layer in layers))]


def _warn_of_others(
    argument: str,
    leaves: Mapping[Path, Any],
    chosen: Iterable[Path],
    weight: str,
    separator: str,
    elsewhere: Container[Path],
    stacked: bool,
) -> None:
    """Warns of arrays beside the chosen layers that are not a layer's, but a normalisation's or LoRA's."""
    beside = {path[:-1] for path in chosen}
    modules: dict[Path, bool] = {}  # whether each holds layers of its own, as a critic does
    for path, leaf in leaves.items():
        module = next((path[: n + 1] for n in range(len(path), -1, -1) if path[:n] in beside), path)
        is_lora = any("lora" in name.lower() for name in path[len(module) - 1 :])
        is_bare = module == path  # such as the deviations of a policy's actions
        if module in chosen or module in elsewhere or "float" not in str(getattr(leaf, "dtype", "")):
            continue
        if path[: len(module) - 1] in beside and (is_lora or not is_bare):
            is_weight = path[-1] == weight and len(leaf.shape) > 1
            is_layer = is_weight or sum(n != 1 for n in leaf.shape) > 1 + stacked
            modules[module] = modules.get(module, False) or (is_layer and not is_lora)
    if left := [separator.join(module) for module, has_layers in modules.items() if not has_layers]:
        warn(
            f"{argument}: left out, because layers= does not name it: {quoted(left)}; if the network uses "
            f"it, as it does a normalisation or LoRA, the layers alone compute something else: pass "
            f"check=(rows, outputs) of the source to see"
        )


def _check_order(argument: str, layers: Sequence[Affine], names: Sequence[str]) -> None:
    """Refuses, or warns of, an order of creation that may not be the order of the calls."""
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

    Any chain can be turned into any other chain with the same ends, by exchanging the layers between one pair
    of equal widths with those between another pair (Ukkonen 1992 and Pevzner 1995, on Eulerian paths). So
    there is another chain if a width occurs in three places, or if two widths alternate: a, b, a, b. If the
    first width occurs again after a hidden layer, it may be the end of the chain, which can then begin
    anywhere, or the inputs of a second network.
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
        parts = map(str, name) if isinstance(name, tuple) else str(name).split(separator)  # of a flat dict
        yield from leaves(branch, argument, separator, (*path, *parts))


def _numeric(paths: list[Path], separator: str, first: int | None) -> list[Path]:
    """`paths` in the order of the numbers in the only place where the paths differ."""
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
    """The paths for `layers`, the names of a network's layers in order."""
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
