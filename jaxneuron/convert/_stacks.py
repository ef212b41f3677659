"""Weights with a leading axis: members of an ensemble, or layers that a scan calls one after another.

    w (members, n_in, n_out)    jax.vmap of init over keys, nn.vmap, nnx.vmap, hk.vmap
    w (layers, n, n)            nn.scan, nnx.scan, hk.layer_stack

The arrays of BatchNorms are stacked in the same way, and have two axes instead of one. The arrays don't show
whether they hold members or layers, so the user says it by `stacked=`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._errors import BadValue
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._scalings import Scaling

T = TypeVar("T")

STACKED = (
    "pass stacked='members' for the members of an ensemble (nn.vmap), stacked='layers' for layers called in "
    "turn (nn.scan); only dense layers make an MLP"
)


def check_stacked(stacked: Any, check: Any) -> None:
    """Refuses an unknown `stacked`, and a `check` with the outputs of one network if there are members."""
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


def in_turn(layers: Sequence[T]) -> list[T]:
    """`layers`, with a stack among them replaced by the layers in it."""
    stacks = sum(map(_is_stack, layers))
    if stacks != 1:
        raise BadValue(
            f"stacked='layers' needs one w of three axes, (layers, n, n), beside those of two, got {stacks}; "
            f"with several, nothing says in which order they are called: give each layer a name of its own, "
            f"or pass all layers to from_pairs"
        )
    return [each for layer in layers for each in (_each(layer) if _is_stack(layer) else [layer])]


def members(steps: Iterable[Any]) -> list[list[Any]]:
    """The steps of each member, from steps whose `Affine`s are all stacked."""
    steps = list(steps)
    layers = [step for step in steps if isinstance(step, (Affine, Scaling))]
    lengths = {step[0].shape[0] if _is_stack(step) else 0 for step in layers}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(str(np.shape(step[0])) for step in layers)
        raise BadValue(
            f"stacked weights must all have three axes, the first of one length, at least 1, and a "
            f"BatchNorm's two, got {shapes or 'no layer'}; copy layers that members share with jnp.stack"
        )
    (n,) = lengths
    apart = [_each(step) if isinstance(step, (Affine, Scaling)) else [step] * n for step in steps]
    return [list(member) for member in zip(*apart, strict=True)]


def stack(networks: Sequence[MLP]) -> MLP:
    """One network whose leaves have a leading axis, from networks of the same structure."""

    def along_first(*arrays: Any) -> Any:
        return (jnp if any(isinstance(a, jax.Array) for a in arrays) else np).stack(arrays)

    return jax.tree.map(along_first, *networks)


def _is_stack(step: Any) -> bool:
    return isinstance(step, (Affine, Scaling)) and np.ndim(step[0]) == (3 if isinstance(step, Affine) else 2)


def _each(layer: Any) -> list[Any]:
    if isinstance(layer, Scaling):
        return [Scaling(*numbers) for numbers in zip(*layer, strict=True)]
    w, b = (on_host(a) for a in layer)
    if b is not None and b.shape[:1] != w.shape[:1]:
        raise BadValue(
            f"stacked weights must have a bias for each, got w {w.shape} and b {b.shape}; "
            f"pass only dense layers"
        )
    return [Affine(w[i], None if b is None else b[i]) for i in range(len(w))]


def on_host(array: Any, dtype: Any = None) -> Any:
    """The array as a NumPy array; None and tracers are returned unchanged."""
    return array if array is None or isinstance(array, jax.core.Tracer) else np.asarray(array, dtype)
