"""Checks the arguments of strategies when a strategy is defined, not when it draws."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from jaxneuron._arrays import FLOATS
from jaxneuron._errors import BadType, BadValue
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._names import Activation, resolve

KINDS = ("nan", "infinity", "subnormal", "huge", "tiny")

Sizes = int | Sequence[int]


def as_sizes(argument: str, value: Sizes) -> tuple[int, ...]:
    sizes = _integers(value) or _integers((value,))
    if not sizes or min(sizes) < 0:
        raise BadValue(
            f"{argument} must be one size or several, none negative, got {value!r}; pass (1, 2, 7)"
        )
    return sizes


def as_architectures(sizes: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    architectures = tuple(_several(sizes))
    if not architectures:
        raise BadValue("sizes must hold at least 1 architecture, got none; pass [(2, 3, 1)]")
    for each in architectures:
        numbers = _integers(each) or ()
        if len(numbers) < 2 or min(numbers) < 0:
            raise BadValue(
                f"sizes must hold architectures (n_in, ..., n_out), none negative, got {each!r}; "
                f"pass [(2, 3, 1)]"
            )
    return architectures


def as_batches(batch: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    shapes = tuple(_several(batch))
    if not shapes:
        raise BadValue("batch must hold at least 1 shape, got none; pass [()] for single inputs")
    for each in shapes:
        sizes = _integers(each)
        if sizes is None or min(sizes, default=0) < 0:
            raise BadValue(f"batch must hold shapes, none negative, got {each!r}; pass [(7,)] for 7 rows")
    return shapes


def as_activations(argument: str, names: Sequence[Activation]) -> tuple[Activation, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable) or not tuple(names):
        raise BadValue(f"{argument} must hold at least 1 activation, got {names!r}; pass ['tanh']")
    for name in names:
        resolve(name, argument)
        if name in OF_ROWS and argument == "activations":
            raise BadValue(f"activations must suit hidden layers, got {name!r}; pass it in final_activations")
    return tuple(names)


def as_dtypes(argument: str, dtypes: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(_several(dtypes))
    for name in names or (None,):
        if name not in FLOATS:
            near = difflib.get_close_matches(str(name), FLOATS, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]!r}?" if near else "pass 'float32'"
            raise BadValue(f"{argument} must be one of {', '.join(FLOATS)}, got {name!r}; {hint}")
    return names


def as_biases(bias: bool | Sequence[bool]) -> tuple[bool, ...]:
    biases = tuple(_several(bias))
    if not biases or not all(isinstance(each, bool) for each in biases):
        raise BadValue(f"bias must be True, False or both, got {bias!r}; pass (True, False)")
    return biases


def check_kinds(kinds: dict[str, bool]) -> None:
    if unknown := set(kinds) - set(KINDS):
        raise BadType(f"got an unknown argument {min(unknown)!r}; pass some of {', '.join(KINDS)}")


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def _integers(value: Any) -> tuple[int, ...] | None:
    try:
        return tuple(map(operator.index, value))
    except TypeError:
        return None
