"""Weights with a leading axis: the members of an ensemble, or layers that a scan calls in turn.

    w (members, n_in, n_out)    jax.vmap of init over keys, nn.vmap, nnx.vmap, hk.vmap
    w (layers, n, n)            nn.scan, nnx.scan, hk.layer_stack

Nothing in the arrays tells the two apart: whoever has them says which, by `stacked=`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._errors import BadValue
from jaxneuron._params import MLP, Affine

STACKED = (
    "pass stacked='members' for the members of an ensemble (nn.vmap), stacked='layers' for layers called in "
    "turn (nn.scan); only dense layers make an MLP"
)


def check_stacked(stacked: Any, check: Any) -> None:
    """Refuses a `stacked` that is none, and outputs of one network for many."""
    if not (stacked is None or (isinstance(stacked, str) and stacked in ("members", "layers"))):
        raise BadValue(
            f"stacked must be 'members' for the members of an ensemble, 'layers' for layers called in turn, "
            f"or None, got {stacked!r:.80}; leave it out where every w has two axes"
        )
    if stacked == "members" and not (check is None or isinstance(check, bool)):
        raise BadValue(
            "check must be left out for members, whose outputs differ; "
            "read one, such as jax.tree.map(lambda a: a[0], params), with it"
        )


def in_turn(layers: Sequence[Affine]) -> list[Affine]:
    """`layers`, with those of the one stack among them in its place."""
    stacks = sum(layer.w.ndim == 3 for layer in layers)
    if stacks != 1:
        raise BadValue(
            f"stacked='layers' needs one w of three axes, (layers, n, n), beside those of two, got {stacks}; "
            f"with several, nothing says in which order they are called: pass all layers to from_pairs"
        )
    return [each for layer in layers for each in (_each(layer) if layer.w.ndim == 3 else [layer])]


def members(steps: Iterable[Any]) -> list[list[Any]]:
    """The steps of each member, of steps whose `Affine`s are all stacked."""
    steps = list(steps)
    layers = [step for step in steps if isinstance(step, Affine)]
    shapes = [layer.w.shape for layer in layers]
    if not layers or any(len(shape) != 3 or shape[0] != shapes[0][0] for shape in shapes) or not shapes[0][0]:
        raise BadValue(
            f"stacked weights must all have three axes, the first of one length, at least 1, "
            f"got {', '.join(map(str, shapes)) or 'no layer'}; copy layers that members share with jnp.stack"
        )
    apart = [_each(step) if isinstance(step, Affine) else [step] * shapes[0][0] for step in steps]
    return [list(member) for member in zip(*apart, strict=True)]


def stack(networks: Sequence[MLP]) -> MLP:
    """Networks of one structure as one whose leaves have a leading axis."""

    def along_first(*arrays: Any) -> Any:
        return (jnp if any(isinstance(a, jax.Array) for a in arrays) else np).stack(arrays)

    return jax.tree.map(along_first, *networks)


def _each(layer: Affine) -> list[Affine]:
    w, b = (on_host(a) for a in layer)
    if b is not None and b.shape[:1] != w.shape[:1]:
        raise BadValue(
            f"stacked weights must have a bias for each, got w {w.shape} and b {b.shape}; "
            f"only dense layers make an MLP"
        )
    return [Affine(w[i], None if b is None else b[i]) for i in range(len(w))]


def on_host(array: Any, dtype: Any = None) -> Any:
    """NumPy's array; None and tracers as they are."""
    return array if array is None or isinstance(array, jax.core.Tracer) else np.asarray(array, dtype)
