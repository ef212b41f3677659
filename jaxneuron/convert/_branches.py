"""Turns branches that read the same inputs in parallel into steps that come one after another.

    x -> [branch(x) for each branch], joined
      =  x[..., chosen]  ->  (x - mean) * scale + shift  ->  x @ w + b

The choices of units and the scalings of all branches are joined. If one branch has a layer, the others pass
through it unchanged, by weights of 1. If all branches are without a layer, so is the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxneuron._errors import BadValue
from jaxneuron._params import Affine
from jaxneuron._scaling import rounded
from jaxneuron.convert._scalings import Scaling, after, chosen, composed
from jaxneuron.convert._units import Units, columns
from jaxneuron.convert.steps import Step


class _Branch(NamedTuple):
    """A branch: the units that it reads, their scaling, and the layer that takes them, or None."""

    reads: np.ndarray
    scaling: Scaling
    layer: Affine | None


def side_by_side(branches: Sequence[Sequence[Step]], of: int) -> list[Step]:
    """The steps that do what all `branches` do. Each begins with the `Units` that it reads, out of `of`."""
    if len(branches) == 1:
        return list(branches[0])
    each = [_reduced(branch) for branch in branches]
    scaling = Scaling(
        *(
            np.concatenate([np.broadcast_to(branch.scaling[i], len(branch.reads)) for branch in each])
            for i in range(len(Scaling._fields))
        )
    )
    steps: list[Step] = [Units(np.concatenate([branch.reads for branch in each]), of), scaling]
    return steps if all(branch.layer is None for branch in each) else [*steps, _block_diagonal(each)]


def _reduced(branch: Iterable[Step]) -> _Branch:
    """A branch of affine steps, reduced to a choice of units, a scaling and at most one layer."""
    reads, scaling, layer = np.arange(0), Scaling(), None
    for i, step in enumerate(branch):
        if i == 0 and isinstance(step, Units):
            reads = np.asarray(step.chosen)
        elif isinstance(step, Units):
            if layer is None:
                reads, scaling = reads[step.chosen], chosen(scaling, step.chosen)
            else:
                layer = columns(layer, step.chosen)
        elif isinstance(step, Scaling):
            if layer is None:
                scaling = composed(scaling, step)
            else:
                layer = after(layer, step)
        elif isinstance(step, Affine):
            layer = step if layer is None else _product(layer, step)
        else:
            raise BadValue(
                f"branches side by side must be affine, got the activation {step!r:.60} in one of them; "
                f"give it to all columns, or convert the part without it"
            )
    return _Branch(reads, scaling, layer)


def _product(one: Affine, two: Affine) -> Affine:
    """The layer that does what `one`, followed by `two`, does."""
    w = np.asarray(two.w, np.float64)
    b = 0.0 if one.b is None else np.asarray(one.b, np.float64) @ w
    exact = np.asarray(one.w, np.float64) @ w, b + (0.0 if two.b is None else np.asarray(two.b, np.float64))
    return rounded(exact[0], np.broadcast_to(exact[1], w.shape[1]), like=Affine(exact[0].astype(two.w.dtype)))


def _block_diagonal(branches: Sequence[_Branch]) -> Affine:
    """The layer whose blocks are the branches' layers; a branch without one has weights of 1."""
    blocks = [
        Affine(np.eye(len(branch.reads), dtype=np.float16)) if branch.layer is None else branch.layer
        for branch in branches
    ]
    dtype = np.result_type(*(block.w for block in blocks))
    w = np.zeros(np.sum([block.w.shape for block in blocks], axis=0), dtype)
    b = np.zeros(w.shape[1], dtype)
    row, column = 0, 0
    for block in blocks:
        n_in, n_out = block.w.shape
        w[row : row + n_in, column : column + n_out] = block.w
        if block.b is not None:
            b[column : column + n_out] = block.b
        row, column = row + n_in, column + n_out
    return Affine(w, b)
