"""The exact outputs of a case, by the float64 oracle, and how far a contender's may be from them.

Only a few rows are checked, because an exact output takes a second if layers are wide. Products are exact for
float64. For narrower dtypes they are float64 sums, and their own error, (n + 2) 2^-53 |x| @ |w|, is added to
the bound.

jaxneuron must keep the bound of its tests. A peer may differ from jaxneuron in two documented ways, and its
bound is wider by these alone:

- A peer's activation may have an error of a few ULP of its largest value, 1; jaxneuron's error is a few ULP
  of the result. ONNX Runtime's sigmoid is 1/2 plus a rational function, and is exactly 0 where these cancel.
- With bfloat16, a peer rounds products, biases and activations to bfloat16; jaxneuron keeps float32 until the
  end.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import jax
import numpy as np

from bench.cases import Case
from jaxneuron import MLP
from jaxneuron._math import oracle
from jaxneuron._math.activations import facts_of


class Truth(NamedTuple):
    """Exact outputs at some places, `(member, row)` or `(row,)`, and the errors allowed there."""

    places: tuple[np.ndarray, ...]
    exact: np.ndarray
    ours: np.ndarray
    peers: np.ndarray


def truth(case: Case, mlp: MLP, x: Any) -> Truth:
    """The truth for the first, middle, last and four other rows, of the first, last and another member."""
    rng = random.Random(0)
    rows = sorted({0, case.rows // 2, case.rows - 1, *rng.choices(range(case.rows), k=4)})
    if not case.members:
        return Truth((np.array(rows),), *outputs(mlp, np.asarray(x)[rows], case.dtype))
    members = sorted({0, case.members - 1, rng.randrange(case.members)})
    found = []
    for member in members:
        own = np.asarray(x if case.shared else x[member])[rows]
        found.append(outputs(jax.tree.map(lambda leaf, m=member: leaf[m], mlp), own, case.dtype))
    places = np.repeat(members, len(rows)), np.tile(rows, len(members))
    return Truth(places, *(np.concatenate(each) for each in zip(*found, strict=True)))


def outputs(mlp: MLP, x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The exact outputs, how far jaxneuron's may be from them, and how far a peer's may be."""
    y, ours, peers = x.astype(np.float64), np.zeros(()), np.zeros(())
    for (w, b), name in zip(mlp.layers, mlp.activations, strict=True):
        w64, b64 = np.asarray(w).astype(np.float64), np.asarray(b).astype(np.float64)
        z = oracle.affine(w64, b64, y) if dtype == "float64" else y @ w64 + b64
        before, y = y, oracle.activation(name, z)
        own, theirs = (affine_error(w64, b64, before, error, dtype) for error in (ours, peers))
        ours = oracle.neuron_error(name, z, y, own, dtype)
        peers = peer_error(name, z, y, theirs, before @ w64, dtype)
    return y, ours, peers


def affine_error(w: np.ndarray, b: np.ndarray, x: np.ndarray, error: Any, dtype: str) -> np.ndarray:
    """The error of z if x has this `error`: from rounding, from x, and from the truth's float64 sums."""
    reach = np.abs(x) + error
    exact = 0 if dtype == "float64" else oracle.affine_error(w, b, reach, "float64")
    handed = np.broadcast_to(error, x.shape) @ np.abs(w)
    return oracle.affine_error(w, b, reach, dtype) + handed + exact


def peer_error(
    name: str, z: np.ndarray, y: np.ndarray, z_error: np.ndarray, product: np.ndarray, dtype: str
) -> np.ndarray:
    """`oracle.neuron_error` for a peer: relative to the activation's largest value, each step in `dtype`."""
    if dtype != oracle.sum_dtype(dtype):
        z_error = oracle.rounded_error(product, z_error, dtype)
        z_error = oracle.rounded_error(z, z_error, dtype)
    slope = facts_of(name).slope
    largest = np.ones_like(y) if name in ("sigmoid", "tanh", "sin") else np.abs(y) + slope * z_error
    error = slope * z_error + oracle.activation_error(name, np.abs(z) + z_error, largest, dtype)
    error = error + oracle.U["float64"] * np.abs(y)
    return oracle.rounded_error(y, error, dtype)


def check(who: str, found: Any, truth: Truth, ours: bool) -> None:
    """Raises AssertionError if an output is outside its bound."""
    y = found[truth.places].astype(np.float64)
    allowed = truth.ours if ours else truth.peers
    excess = np.abs(y - truth.exact) / allowed
    if y.shape != truth.exact.shape or not (excess <= 1).all():
        worst = np.unravel_index(int(np.argmax(np.where(np.isnan(excess), np.inf, excess))), excess.shape)
        raise AssertionError(
            f"{who} must be within its error bound: {y[worst]}, exactly {truth.exact[worst]}, "
            f"off by {np.abs(y - truth.exact)[worst]:.3g} where {allowed[worst]:.3g} is allowed"
        )


def as_numpy(result: Any) -> np.ndarray:
    """The result of any contender, as an array."""
    if type(result).__module__ == "torch":
        return result.float().numpy() if str(result.dtype) == "torch.bfloat16" else result.numpy()
    return np.asarray(result)
