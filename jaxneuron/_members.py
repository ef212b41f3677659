"""Stacked networks: an `MLP` whose arrays have a leading axis of members.

    y[m] = mlp_forward(member m, x)          w (members, n_in, n_out), b (members, n_out)

`jax.tree.map` over networks of one structure makes a stack, and so does `jax.vmap` of a function that returns
a network. Activations and names are part of the structure, which all members share. `MLP(...)` makes one
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxneuron._arrays import as_array
from jaxneuron._errors import BadValue
from jaxneuron._params import MLP, Affine, as_layers, as_mlp, check_mlp


def members_of(mlp: MLP) -> int | None:
    """The number of members of a stack; None for one network."""
    w = mlp.layers[0].w
    return int(w.shape[0]) if len(getattr(w, "shape", ())) == 3 else None


def as_members(layers: Sequence[Affine], members: int | None = None) -> tuple[Affine, ...]:
    """The layers of a stack, checked: shapes fit and chain, and every array has a leading axis of `members`.

    If `members` is None, the first layer's w says how many there are.
    """
    checked = tuple(
        Affine(as_array(w, f"layer {i}: w"), None if b is None else as_array(b, f"layer {i}: b"))
        for i, (w, b) in enumerate(layers)
    )
    as_layers(one_of(checked))
    first = checked[0].w.shape
    n, like = (first[0], f", as layer 0's w {first}") if members is None else (members, "")
    for i, layer in enumerate(checked):
        for name, array, rank in zip("wb", layer, (3, 2), strict=True):
            if array is not None and (array.ndim != rank or array.shape[0] != n):
                raise BadValue(
                    f"layer {i}: {name} must have a leading axis of {n} members{like}, got {array.shape}; "
                    f"stack networks with the same shapes"
                )
    return checked


def as_stack(layers: Sequence[Affine], members: int, *structure: Any) -> MLP:
    """`as_mlp` for a stack of `members` networks."""
    checked = as_members(layers, members)
    one = as_mlp(one_of(checked), *structure)
    return jax.tree.unflatten(jax.tree.structure(one), jax.tree.leaves(checked))


def one_of(layers: Sequence[Any]) -> tuple[Affine, ...]:
    """Layers with the shapes of one member, or of one network, whose arrays take no memory."""

    def blank(array: Any, rank: int) -> np.ndarray:
        return np.broadcast_to(np.zeros((), array.dtype), array.shape[-rank:])

    return tuple(Affine(blank(w, 2), None if b is None else blank(b, 1)) for w, b in layers)


def blank_one(mlp: MLP) -> MLP:
    """A network with the shapes of one member, or of `mlp` if it is one network, that takes no memory."""
    return jax.tree.unflatten(jax.tree.structure(mlp), jax.tree.leaves(one_of(mlp.layers)))


def check_one(
    mlp: Any, remedy: str = "pass a member, such as the first, jax.tree.map(lambda a: a[0], mlp)"
) -> MLP:
    """`mlp`, which must be one network."""
    members = members_of(check_mlp(mlp, "pass MLP([layer]) for a layer"))
    if members is not None:
        raise BadValue(f"mlp must be one network, got a stack of {members} networks; {remedy}")
    return mlp
