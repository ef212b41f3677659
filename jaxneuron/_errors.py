"""Errors that say which function refused which argument.

    check(x) raises BadValue("x must ...")  ->  public(f) raises ValueError("f: x must ...")

A check knows the argument and the numbers, but not the function that the user called: it raises `BadValue` or
`BadType` without a name. The decorator `public`, on every function that users call, puts its name in front.
The package's own code calls undecorated functions, so that the name is always that of the user's call.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class BadValue(ValueError):
    """A shape or a value that doesn't fit, before the function has its name."""

    named = ValueError


class BadType(TypeError):
    """A dtype or a type that doesn't fit, before the function has its name."""

    named = TypeError


class TooLarge(MemoryError):
    """A size that no device can hold, before the function has its name."""

    named = MemoryError


class Missing(ImportError):
    """An optional library that isn't installed, before the function has its name."""

    named = ImportError


REFUSALS = (BadValue, BadType, TooLarge, Missing)


def missing(library: str, extra: str, what: str = "") -> Missing:
    """The error where `what`, or else the function, needs a `library` that the extra `extra` installs."""
    return Missing(f"{what} needs the {library} library; pip install 'jaxneuron[{extra}]'".lstrip())


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates `function` so that its errors open with its name: `mlp_forward: x must ...`."""
    name = function.__qualname__.removesuffix(".__init__").removesuffix(".__call__")

    @functools.wraps(function)
    def edge(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except REFUSALS as error:
            raise with_name(name, error) from None
        except Exception as error:
            check_transform(name, (*args, *kwargs.values()), error)
            raise

    return edge


def with_name(name: str, error: BadValue | BadType | TooLarge | Missing) -> Exception:
    """The error as users see it: it opens with the name of the function they called."""
    return error.named(f"{name}: {error}")


def check_transform(name: str, arguments: tuple[object, ...], error: Exception) -> None:
    """Explains an `error` that is raised because jax.experimental.jet can't use custom derivatives."""
    if any(type(argument).__name__ == "JetTracer" for argument in arguments):
        raise NotImplementedError(
            f"{name}: jax.experimental.jet can't take these activations; nest jax.jvp instead, as in "
            f"jax.jvp(lambda x: jax.jvp(f, (x,), (v,))[1], (x,), (v,))"
        ) from error


def listed(words: Iterable[str]) -> str:
    """Words for a message: all of them, or the first ten and the number of the others."""
    words = list(words)
    more = [f"and {len(words) - 10} more"] if len(words) > 10 else []
    return ", ".join(words[:10] + more)


def warn(message: str) -> None:
    """Warns with the line of the user's code that called the package, however deep inside it this is."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


@contextlib.contextmanager
def inside(part: str) -> Iterator[None]:
    """Errors raised in this block open with `part`, such as "layer 2"."""
    try:
        yield
    except REFUSALS as error:
        raise type(error)(f"{part}: {error}") from None
