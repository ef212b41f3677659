"""Sweeps: evaluates an activation for every float, or for an even sample of floats, and measures the errors.

    inputs -> exact values in float64, with a bound of their error -> the nearest floats -> a score

A result is correctly rounded if it is the float nearest to the exact value. NumPy computes the exact values
in float64. Where such a value is so close to the midpoint of two floats that its error matters, mpmath
decides which float is nearest. JAX never computes the exact values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxneuron._activations import CELU, ELU, LeakyReLU, Sin, Softplus
from jaxneuron._math import float64, oracle
from jaxneuron._math.activations import ACTIVATIONS, facts_of
from jaxneuron._names import Parametric
from jaxneuron._scaling import round_once

Array = np.ndarray
Call = Callable[[Array], Array]

# The activations that promise a few ULP. The others are exact, or have a bound of another kind.
FUNCTIONS = tuple(name for name, facts in ACTIVATIONS.items() if facts.ulp not in (None, (0, 0)))
# Two members of each family that promises a few ULP: the parameter's absolute value is below and above 1.
VALUES: tuple[Parametric, ...] = (
    LeakyReLU(0.2), LeakyReLU(-3.0), ELU(0.3), ELU(1.7), CELU(0.075), CELU(3.3), Softplus(0.7),
    Softplus(20.0), Sin(30.0), Sin(-0.37),
)  # fmt: skip
Function = str | Parametric
DTYPES: dict[str, Any] = {
    "bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32, "float64": np.float64,
}  # fmt: skip
BLOCK = 2**22  # inputs
# The inputs at which a formula changes: odd multiples of ln 2 / 2, and limits between two formulas.
EDGES = [(k + 0.5) * math.log(2) for k in range(-1075, 64)]
EDGES += [
    s * v for s in (-1, 1) for v in (2.0**-28, 2.0**-8, 0.275, 0.55, 12, 20, 40, 42, 701.4, 708.3964185322641)
]


class Score(NamedTuple):
    """The errors of one implementation on a range of inputs; scores can be added."""

    inputs: int = 0
    ulps: float = 0.0  # the largest error of a normal result for a normal input
    at: float = math.nan  # the input with that error
    nearest: int = 0  # results that are correctly rounded
    falls: int = 0  # results that are smaller than the result before
    outside: int = 0  # results outside the closed interval of the function's values
    flushed: int = 0  # results that are 0 although another number is nearest

    def __add__(self, other: Score) -> Score:  # type: ignore[override]
        worst = max(self, other, key=lambda score: score.ulps)
        return Score(
            self.inputs + other.inputs,
            worst.ulps,
            worst.at,
            *(a + b for a, b in zip(self[3:], other[3:], strict=True)),
        )


def score(function: Function, dtype: str, z: Array, calls: dict[str, Call]) -> dict[str, tuple[Score, bytes]]:
    """The score of each of `calls` on the inputs `z`, in order, with a hash of its outputs."""
    name = function.removeprefix("cr_") if isinstance(function, str) else oracle.in_format(function, dtype)
    with np.errstate(all="ignore"):
        nearest, exact, rest = _truth(name, dtype, z)
        found = {}
        for who, call in calls.items():
            y = np.asarray(call(z))
            found[who] = (
                _compare(name, dtype, z, y, nearest, exact, rest),
                hashlib.sha256(y.tobytes()).digest(),
            )
    return found


def _truth(name: Function, dtype: str, z: Array) -> tuple[Array, Array, Array | float]:
    """The nearest floats, the exact values rounded to float64, and the error of that rounding, in ULP."""
    if dtype == "float64":
        pairs = np.array([decided(name, v) for v in z.tolist()])
        return pairs[:, 0], pairs[:, 0], pairs[:, 1]
    wide = z.astype(np.float64)
    settled = rounded(name, wide[[0, -1]], *exact64(name, wide[[0, -1]]), dtype)
    facts = facts_of(name)
    flat = facts.rises or (facts.gates and bool((wide < -2).all()))
    if settled[0] == settled[1] and len(z) > 2 and flat:
        nearest = np.full(len(z), settled[0])  # the function is constant on this range
        return nearest, nearest, 0.0
    exact, error = exact64(name, wide)
    return rounded(name, wide, exact, error, dtype), exact, 0.0


def exact64(name: Function, z: Array) -> tuple[Array, float]:
    """The exact values, in float64, and a bound of their relative error."""
    try:
        return float64.activation(name, z)
    except KeyError:
        return oracle.activation(name, z), 2.0**-53  # by mpmath: about 10 us for each number


def decided(name: Function, z: float) -> tuple[float, float]:
    """The exact value by mpmath, rounded to float64, and the exact value minus that, in ULP."""
    exact = oracle.formula(name)(oracle.MP.mpf(z))
    first = float(exact)
    return first, float((exact - first) / float(oracle.ulp(first, "float64")))


def rounded(name: Function, z: Array, exact: Array, error: float, dtype: str) -> Array:
    """The floats nearest to the exact values; where `error` allows two floats, mpmath decides."""
    kind = np.dtype(DTYPES[dtype])
    with np.errstate(all="ignore"):
        low, high = (round_once(exact * (1 + side), kind) for side in (-error, error))
        nearest = round_once(exact, kind)
    for i in np.flatnonzero((low != high) & np.isfinite(z)):
        first, rest = decided(name, float(z[i]))
        below, above = round_once(np.nextafter([first, first], [-math.inf, math.inf]), kind)
        if rest and first == (float(below) + float(above)) / 2:  # rounded to the middle, but not the middle
            nearest[i] = above if rest > 0 else below
        else:
            nearest[i] = round_once(np.array([first]), kind)[0]
    return nearest


def _compare(
    name: Function, dtype: str, z: Array, y: Array, nearest: Array, exact: Array, rest: Array | float
) -> Score:
    right = y == nearest
    if exact is nearest:  # settled by `_truth`, and known only to half a ULP
        if right.all():
            return Score(len(z), 0.0, float(z[0]), len(z))
        exact = exact64(name, z.astype(np.float64))[0]
    values = y.astype(np.float64)
    small = oracle.SMALLEST_NORMAL[dtype]
    largest = oracle.LARGEST[dtype]
    normal = (np.abs(exact) >= small) & (np.abs(exact) <= largest) & (np.abs(z.astype(np.float64)) >= small)
    off = (values - exact.astype(np.float64)) / oracle.ulp(exact.astype(np.float64), dtype)
    ulps = np.where(normal, np.abs(off - rest), 0)
    ulps = np.where(np.isnan(ulps), np.inf, ulps)
    worst = int(np.argmax(ulps))
    low, high = (float(np.array(end, DTYPES[dtype])) for end in facts_of(name).values)
    return Score(
        len(z), float(ulps[worst]), float(z[worst]), int(right.sum()),
        int((values[1:] < values[:-1]).sum()) if facts_of(name).rises else 0,
        int(((values < low) | (values > high)).sum()), int(((y == 0) & (nearest != 0)).sum()),
    )  # fmt: skip


def blocks(dtype: str, stride: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of inputs, from -infinity up: the bit patterns of the first and last input, and the stride."""
    kind = np.dtype(f"u{np.dtype(DTYPES[dtype]).itemsize}")
    infinity, sign = int(np.array(np.inf, DTYPES[dtype]).view(kind)), 2 ** (8 * kind.itemsize - 1)
    size = BLOCK * stride
    edges = [(start, min(start + size, infinity), stride) for start in range(0, infinity, size)]
    yield from ((sign + first, sign + last, stride) for first, last, stride in reversed(edges))
    yield from edges


def block(dtype: str, first: int, last: int, stride: int = 1) -> Array:
    """The floats with the bit patterns `first` to `last`, in increasing order."""
    kind = np.dtype(f"u{np.dtype(DTYPES[dtype]).itemsize}")
    z = np.arange(first, last + 1, stride, dtype=np.uint64).astype(kind).view(DTYPES[dtype])
    return np.ascontiguousarray(z[::-1]) if np.signbit(z[0]) else z


def sample64(points: int) -> Array:
    """A sorted sample of float64 numbers: equally many from each exponent, and neighbours of EDGES."""
    rng = np.random.default_rng(0)
    exponents = np.arange(-60, 10)
    values = np.ldexp(rng.uniform(0.5, 1, (points // 140, len(exponents))), exponents + 1).ravel()
    edges = (np.array(EDGES).view(np.int64)[:, None] + np.arange(-16, 16)).ravel().view(np.float64)
    return np.unique(np.concatenate([values, -values, edges, [0.0]]))
