"""The errors of float32 functions, in units in the last place (ULP), against an exact reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxneuron._arrays import ArrayLike
from jaxneuron._errors import BadValue, missing
from jaxneuron._names import Activation, Parametric


def ulp_error(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """`|y - exact|` in ULP of float32 at `exact`; infinite if only one of the two is infinite or NaN."""
    with np.errstate(all="ignore"):
        error = np.abs(y.astype(np.float64) - exact) / _oracle().ulp(exact, "float32")
        same = (y == exact.astype(np.float32)) | (np.isnan(y) & np.isnan(exact))
    return np.where(np.isfinite(error), error, np.where(same, 0, np.inf))


def reference_of(
    reference: str | Callable[[np.ndarray], ArrayLike] | None, names: Sequence[Activation]
) -> Callable[[np.ndarray], ArrayLike]:
    """`reference` as a function; if None, the exact value of the first of `names` that is jaxneuron's."""
    if callable(reference):
        return reference
    oracle = _oracle()
    wanted = names if reference is None else [reference]
    ours = [name for name in wanted if isinstance(name, (str, Parametric))]
    known = [name for name in ours if not isinstance(name, str) or name in oracle.FORMULAS]
    if not known:
        given = ", ".join(map(name_of, names)) if reference is None else f"reference {reference!r}"
        raise BadValue(
            f"reference must be a function of a float64 array or one of {', '.join(oracle.FORMULAS)}, "
            f"or the functions must include one of these, got {given}; pass reference="
        )
    return lambda z: oracle.activation(oracle.in_format(known[0], "float32"), z)


def name_of(activation: Activation) -> str:
    if isinstance(activation, (str, Parametric)):
        return str(activation)
    return getattr(activation, "__name__", repr(activation))


def interval(span: Any) -> tuple[float, float]:
    """`span` as two increasing finite numbers."""
    try:
        low, high = (float(end) for end in span)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        raise BadValue(f"span must be (low, high), low < high, both finite, got {span!r}; pass (-8, 8)")
    return low, high


def _oracle() -> Any:
    try:
        from jaxneuron._math import oracle
    except ImportError:
        raise missing("mpmath", "plot") from None
    return oracle
