"""Checks modules of Equinox and NNX, which are read as their class computes."""

from __future__ import annotations

from typing import Any

from jaxneuron._errors import BadValue


def is_a(module: Any, kind: Any, library: str, prefix: str) -> bool:
    """Whether `module` computes what a `kind` does. A subclass with a call of its own does not.

    `library` and `prefix`, such as "Equinox" and "eqx.nn.", name the owner of the class in messages.
    """
    if isinstance(module, kind) and type(module).__call__ is not kind.__call__:
        raise BadValue(
            f"modules must be called as {library}'s own, got {type(module).__name__}, an "
            f"{prefix}{kind.__name__} with another __call__; pass the part that is an MLP, or an "
            f"{prefix}{kind.__name__} with its fields"
        )
    return isinstance(module, kind)
