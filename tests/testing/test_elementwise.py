"""Laws of elementwise functions fail for wrong functions. The doctests show that right functions pass."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxneuron
from jaxneuron.testing import (
    assert_bounded,
    assert_monotone,
    assert_odd_about,
    floats,
    max_ulp_error,
)

pytestmark = pytest.mark.usefixtures("x64")
DTYPES = ("bfloat16", "float16", "float32", "float64")


def test_floats_reach_every_exponent():
    for dtype in DTYPES:
        x = floats(dtype)
        info = jnp.finfo(dtype)
        assert x.dtype == jnp.dtype(dtype)
        values = x.astype(np.float64)
        assert (np.diff(values) > 0).all()
        exponents = set(np.frexp(values[np.isfinite(values) & (values > 0)])[1])
        assert set(range(info.minexp + 1, info.maxexp + 1)) <= exponents
        assert np.isinf(values[[0, -1]]).all()
    assert len(floats("float16")) == 2 * (2**15 - 2**10 + 1) - 1
    assert floats("float32", -1, 1).min() == -1


def test_bounded_names_where_it_fails():
    with pytest.raises(
        AssertionError, match=r"f must stay in \[0, 1\]: f\(.*\) = nan, and \d+ more of \d+ outside"
    ):
        assert_bounded(lambda z: jnp.exp(z) / (1 + jnp.exp(z)), 0, 1)
    with pytest.raises(
        AssertionError, match=re.escape("f must stay in [-1, 1]: f(-2.0) = -2.0, and 1 more of 3 outside")
    ):
        assert_bounded(lambda z: z, -1, 1, over=np.array([-2.0, 0.0, 2.0], np.float32))


def test_monotone_sees_one_ulp_between_neighbours():
    def dented(z):
        return jnp.where(z == 1, np.nextafter(np.float32(1), np.float32(0)), z) - 0 * z

    x = np.nextafter(np.float32(1), np.array([0, 1, 2], np.float32))
    with pytest.raises(
        AssertionError, match=r"f must never decrease: f\(0.99999994\) = 0.9999999403953552, but"
    ):
        assert_monotone(lambda z: jnp.where(z == 1, 0.9999998, z), over=x)
    assert_monotone(dented, over=x)
    with pytest.raises(AssertionError, match="f must never decrease"):
        assert_monotone(jnp.negative)


def test_odd_about_counts_ulps():
    with pytest.raises(
        AssertionError, match=r"f must be odd about \(0.0, 0.5\): .* ULP from 1.0 where 3 are allowed"
    ):
        assert_odd_about(lambda z: jaxneuron.sigmoid(z) + 1e-6, 0.5, ulps=3)
    assert_odd_about(
        lambda z: (z - 2) ** 3 + 1, 1.0, at=2.0, ulps=64, over=np.linspace(0, 1, 50, dtype=np.float32)
    )


@pytest.mark.parametrize(
    "law",
    [
        lambda f, x: assert_bounded(f, 0, 1, over=x),
        lambda f, x: assert_monotone(f, over=x),
        lambda f, x: assert_odd_about(f, 0.5, ulps=1, over=x),
        lambda f, x: max_ulp_error(f, "sigmoid", over=x),
    ],
)
def test_results_without_a_float_for_each_input_are_refused(law):
    x = np.array([1, 2, 3], np.float32)
    for f, got in (
        (lambda z: 0.5, "float64 ()"),
        (lambda z: z[:2], "float32 (2,)"),
        (lambda z: z > 0, "bool (3,)"),
    ):
        with pytest.raises(
            AssertionError, match=re.escape(f"f must give a float for each of (3,) inputs, got {got}")
        ):
            law(f, x)
    with pytest.raises(ValueError, match=r"over must be floats in one axis, got float32 \(0,\); pass floats"):
        law(jaxneuron.sigmoid, x[:0])


def test_max_ulp_error_finds_the_worst():
    x = np.array([1.0, 2.0, 4.0], np.float32)
    worst = max_ulp_error(
        lambda z: np.where(z == 2, np.nextafter(np.float32(2), np.float32(3)), z), lambda z: z, over=x
    )
    assert worst == (1.0, 2.0)
    assert max_ulp_error(lambda z: z * np.nan, "tanh", over=x)[0] == np.inf
    assert max_ulp_error(lambda z: np.float16(0) * z.astype(np.float16), lambda z: z, over=np.array([2.0**-24]).astype(np.float16)) == (1.0, 2.0**-24)  # fmt: skip
    # jax.nn.sigmoid at inputs where its error is large
    ulps, _ = max_ulp_error(jax.nn.sigmoid, "sigmoid", over=np.array([-16.6357, -16.650114], np.float32))
    assert 2 < ulps < 2.5
