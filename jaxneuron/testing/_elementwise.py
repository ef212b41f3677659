"""Laws of elementwise functions, checked for floats of every size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxneuron._errors import BadValue, public
from jaxneuron._math import oracle
from jaxneuron.testing._arguments import as_dtypes

Function = Callable[..., Any]


@public
def floats(dtype: str = "float32", low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Floats for which to check a function: every exponent, both signs, infinities, subnormals, neighbours.

    Args:
      dtype: "bfloat16", "float16", "float32" or "float64".
      low, high: the ends of the closed interval in which all floats of the result are.

    Returns:
      A sorted array without duplicates and without NaN: all numbers of a 16-bit dtype in the interval. For a
      wider dtype, about 20,000 numbers if the interval has no ends, in groups of four neighbours.

    Raises:
      ValueError: if `dtype` is not one of these.

    Example:
      >>> floats("bfloat16", 1.0, 1.02).tolist()
      [1.0, 1.0078125, 1.015625]
    """
    as_dtypes("dtype", (dtype,))
    info = jnp.finfo(dtype)
    unsigned = np.dtype(f"u{info.bits // 8}")
    largest = int(np.array(np.inf, info.dtype).view(unsigned))  # the bits of infinity, above all finite ones
    if info.bits == 16:
        bits = np.arange(largest + 1, dtype=unsigned)
    else:
        # A larger positive float has a larger bit pattern: equal steps over the patterns reach every
        # exponent.
        starts = np.linspace(0, largest - 4, 2500).astype(unsigned)
        of_note = np.array([0.5, 1, 2, np.e, 3, 17.3287, 36.7, 87.3365, 88.7228, 103.972, 709.78, 745.13])
        near = of_note.astype(info.dtype).view(unsigned) - 2
        bits = np.concatenate(
            [(np.concatenate([starts, near])[:, None] + np.arange(4, dtype=unsigned)).ravel(), [largest]]
        )
    magnitudes = bits.astype(unsigned).view(info.dtype)
    values = np.unique(np.concatenate([-magnitudes, magnitudes]).astype(np.float64))
    return values[(values >= low) & (values <= high)].astype(info.dtype)


@public
def max_ulp_error(
    f: Function, reference: str | Callable[[np.ndarray], np.ndarray], *, over: np.ndarray | None = None
) -> tuple[float, float]:
    """The largest error of `f` in ULP, and the input for which it occurs.

    Args:
      f: an elementwise function.
      reference: the exact function, from float64 to float64, or the name of one of jaxneuron's activations,
        which mpmath then evaluates.
      over: the floats to try; `floats("float32")` by default. Infinities and NaN are left out, and so are
        floats whose exact result is not a finite number of the result's dtype.

    Returns:
      `(ulps, x)`: the error, and the input. A ULP is the distance between neighbouring floats of the result's
      dtype at the exact result, subnormal numbers included.

    Raises:
      ValueError: if `reference` is unknown, or `over` is not a one-dimensional array of floats or has none
        whose exact result is finite.
      AssertionError: if `f` does not give a float for each input.

    Example:
      >>> max_ulp_error(jaxneuron.relu, "relu", over=floats("float32", 1.0))[0]
      0.0
    """
    x = _checked(floats() if over is None else over)
    y = _values(f, x)
    exact = np.asarray(_reference(reference)(x.astype(np.float64)), np.float64)
    largest = oracle.LARGEST[y.dtype.name]
    use = np.isfinite(x.astype(np.float64)) & np.isfinite(exact) & (np.abs(exact) <= largest)
    x, y, exact = x[use], y[use], exact[use]
    ulps = np.abs(y.astype(np.float64) - exact) / oracle.ulp(exact, y.dtype.name)
    ulps = np.where(np.isnan(ulps), np.inf, ulps)
    if not ulps.size:
        raise BadValue("over must hold a number whose exact result is finite, got none; pass floats()")
    worst = int(np.argmax(ulps))
    return float(ulps[worst]), float(x[worst])


@public
def assert_bounded(f: Function, lo: float, hi: float, *, over: np.ndarray | None = None) -> None:
    """Asserts that all values of `f` are in the closed interval [lo, hi], and that none is NaN.

    Args:
      f: an elementwise function.
      lo, hi: the bounds, which `f` may reach.
      over: the floats to try; `floats("float32")` by default.

    Raises:
      AssertionError: if a value is outside the interval or NaN; the message names the first such input.
      ValueError: if `over` is not a one-dimensional array of floats.

    Example:
      >>> assert_bounded(jaxneuron.sigmoid, 0, 1)
    """
    x = _checked(floats() if over is None else over)
    y = _values(f, x).astype(np.float64)
    outside = np.flatnonzero(~((y >= lo) & (y <= hi)))
    if outside.size:
        i = outside[0]
        raise AssertionError(
            f"f must stay in [{lo}, {hi}]: f({x[i]!s}) = {y[i]!s}, "
            f"and {outside.size - 1} more of {x.size} outside"
        )


@public
def assert_monotone(f: Function, *, over: np.ndarray | None = None) -> None:
    """Asserts that `f` never decreases, not even between neighbouring floats.

    Args:
      f: an elementwise function.
      over: the floats to try, in increasing order; `floats("float32")` by default.

    Raises:
      AssertionError: if `f` decreases or is NaN; the message names the first two inputs where this happens.
      ValueError: if `over` is not a one-dimensional array of floats in increasing order.

    Example:
      >>> assert_monotone(jaxneuron.sigmoid)
    """
    x = _checked(floats() if over is None else over)
    if not (x[1:] >= x[:-1]).all():
        raise BadValue("over must be in increasing order; pass numpy.sort(over)")
    y = _values(f, x).astype(np.float64)
    falls = np.flatnonzero(~(y[1:] >= y[:-1]))
    if falls.size:
        i = falls[0]
        raise AssertionError(
            f"f must never decrease: f({x[i]!s}) = {y[i]!s}, but f({x[i + 1]!s}) = {y[i + 1]!s}; "
            f"{falls.size - 1} more falls over {x.size} floats"
        )


@public
def assert_odd_about(
    f: Function, centre: float, *, ulps: float, at: float = 0.0, over: np.ndarray | None = None
) -> None:
    """Asserts that `f` is odd about the point `(at, centre)`, up to rounding errors.

        f(at + d) + f(at - d) = 2 centre

    Args:
      f: an elementwise function, such as sigmoid, which is odd about (0, 1/2).
      centre: the value of `f` at that point.
      ulps: how far the sum may be from 2 centre, in ULP of the larger of the two terms of the sum.
      at: the input at that point.
      over: the distances d to try; `floats("float32", 0)` by default. Infinity and NaN are left out.

    Raises:
      AssertionError: if a sum is further off than `ulps`; the message names the two inputs with the largest
        error.
      ValueError: if `over` is not a one-dimensional array of floats.

    Example:
      >>> assert_odd_about(jaxneuron.sigmoid, 0.5, ulps=3)
    """
    d = _checked(floats(low=0) if over is None else over)
    d = d[np.isfinite(d.astype(np.float64))]
    middle = d.dtype.type(at)
    above, below = _values(f, middle + d), _values(f, middle - d)
    y, z = above.astype(np.float64), below.astype(np.float64)
    off = np.abs(y + z - 2 * centre) / oracle.ulp(np.maximum(np.abs(y), np.abs(z)), above.dtype.name)
    bad = np.flatnonzero(~(off <= ulps))
    if bad.size:
        i = bad[np.argmax(off[bad])]
        raise AssertionError(
            f"f must be odd about ({at}, {centre}): "
            f"f({middle + d[i]!s}) + f({middle - d[i]!s}) = {y[i]!s} + {z[i]!s}, "
            f"{off[i]:.3g} ULP from {2 * centre} where {ulps} are allowed"
        )


def _checked(over: Any) -> np.ndarray:
    x = np.asarray(over)
    if x.dtype.name not in oracle.U or x.ndim != 1 or not x.size:
        raise BadValue(f"over must be floats in one axis, got {x.dtype.name} {x.shape}; pass floats()")
    return x


def _values(f: Function, x: np.ndarray) -> np.ndarray:
    """f(x), which must be one float for each of `x`."""
    y = np.asarray(f(x))
    if y.shape != x.shape or y.dtype.name not in oracle.U:
        raise AssertionError(f"f must give a float for each of {x.shape} inputs, got {y.dtype} {y.shape}")
    return y


def _reference(reference: str | Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    if not isinstance(reference, str):
        return reference
    if reference not in oracle.FORMULAS:
        raise BadValue(
            f"reference must be a function or one of {', '.join(oracle.FORMULAS)}, "
            f"got {reference!r}; pass an exact function of float64"
        )
    return lambda x: oracle.activation(reference, np.where(np.isfinite(x), x, 0.0))
