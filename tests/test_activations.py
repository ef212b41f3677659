import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxneuron
from jaxneuron._activations import BY_NAME, canonical, resolve
from tests import oracle
from tests.strategies import DTYPES, ELEMENTWISE

pytestmark = pytest.mark.usefixtures("x64")


def held(dtype):
    return dtype != "float64" or jax.config.jax_enable_x64


def widest():
    return np.float64 if jax.config.jax_enable_x64 else np.float32


# --- truth ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activations_within_bound(name, dtype):
    if not held(dtype):
        pytest.skip("JAX holds no float64 with x64 off")
    magnitudes = np.concatenate([np.logspace(-6, 4, 300), np.linspace(0.05, 30, 300), [0.0, 3.0, 6.0]])
    z = np.concatenate([magnitudes, -magnitudes]).astype(DTYPES[dtype])
    y = getattr(jaxneuron, name)(z)
    assert y.dtype == DTYPES[dtype]
    truth = oracle.activation(name, z)
    wide = oracle.sum_dtype(dtype)
    error = oracle.activation_error(name, z.astype(np.float64), truth, wide)
    fits = np.abs(truth) <= float(jnp.finfo(dtype).max)  # selu carries the largest float16 over the edge
    if dtype != wide:
        error = oracle.rounded_error(truth, error, dtype)
    oracle.assert_within(np.asarray(y, np.float64)[fits], truth[fits], error[fits], name)


def test_sigmoid_values():
    z = np.array([-5, -3, 0, 3, 5], widest())
    y = np.asarray(jaxneuron.sigmoid(z))
    truth = np.array(
        [0.0066928509242848554, 0.04742587317756678, 0.5, 0.9525741268224334, 0.9933071490757153]
    )
    assert (np.abs(y - truth) <= 2 * np.spacing(truth.astype(z.dtype))).all()


def test_sigmoid_within_three_ulp():
    z = np.concatenate([np.linspace(-87, 17.5, 4001), [-16.6357]]).astype(widest())
    truth = oracle.activation("sigmoid", z)
    ulps = np.abs(np.asarray(jaxneuron.sigmoid(z), np.float64) - truth) / np.spacing(truth.astype(z.dtype))
    assert ulps.max() <= (3 if jax.config.jax_enable_x64 else 2.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_within_bound(dtype):
    if not held(dtype):
        pytest.skip("JAX holds no float64 with x64 off")
    z = np.random.default_rng(0).normal(scale=8, size=(100, 7)).astype(DTYPES[dtype])
    truth = oracle.activation("softmax", z)
    error = oracle.activation_error("softmax", z, truth, oracle.sum_dtype(dtype))
    oracle.assert_within(jaxneuron.softmax(z), truth, oracle.rounded_error(truth, error, dtype))


# --- laws ---

FLOATS = st.floats(width=32, allow_nan=False)


@given(FLOATS)
def test_sigmoid_stays_in_the_closed_unit_interval(z):
    assert 0 <= float(jaxneuron.sigmoid(np.asarray(z, widest()))) <= 1


@given(FLOATS, FLOATS)
def test_sigmoid_never_decreases(z1, z2):
    low, high = jaxneuron.sigmoid(np.sort(np.array([z1, z2], widest())))
    assert low <= high


@given(st.floats(-110, 40, width=32))
def test_sigmoid_never_decreases_between_neighbours(z):
    steps = [np.asarray(z, widest())]
    for _ in range(63):
        steps.append(np.nextafter(steps[-1], widest()(np.inf)))
    assert (np.diff(np.asarray(jaxneuron.sigmoid(np.array(steps)))) >= 0).all()


@given(FLOATS)
def test_sigmoid_is_odd_about_one_half_within_rounding(z):
    s = np.asarray(jaxneuron.sigmoid(np.array([z, -z], widest())), np.float64)
    u = oracle.U[np.dtype(widest()).name]
    assert abs(s.sum() - 1) <= 6 * u * s.max()  # 3 ULP of the larger, and the smaller's are smaller


def test_sigmoid_at_the_edges():
    assert jaxneuron.sigmoid(0.0) == 0.5
    assert jaxneuron.sigmoid([-jnp.inf, jnp.inf]).tolist() == [0.0, 1.0]
    assert jaxneuron.sigmoid([-1e30, 1e30]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_comes_from_nan_alone(name):
    big = float(jnp.finfo(jnp.float32).max)
    y = BY_NAME[name](np.array([-np.inf, -big, -100, -1, -0.0, 0, 1, 100, big, np.inf, np.nan], widest()))
    assert np.isnan(y).tolist() == [False] * 10 + [True]


@pytest.mark.parametrize("name", [*ELEMENTWISE, "softmax"])
def test_shapes_dtypes_and_transforms(name):
    f = BY_NAME[name]
    default = jnp.asarray(0.0).dtype
    assert f([1, 0]).dtype == f([True, False]).dtype == default
    assert f(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16
    assert f(np.zeros((0, 3), np.float32)).shape == (0, 3)
    assert f(np.zeros((3, 0), np.float32)).shape == (3, 0)
    z = jnp.linspace(-3, 3, 12).reshape(3, 4)
    for transformed in (jax.jit(f), jax.vmap(f), jax.jit(jax.vmap(f))):
        np.testing.assert_array_max_ulp(np.asarray(transformed(z)), np.asarray(f(z)), 2)


def test_every_activation_is_public():
    assert set(BY_NAME) == {*ELEMENTWISE, "softmax"}
    for name, function in BY_NAME.items():
        assert getattr(jaxneuron, name) is function


# --- refusals ---


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1j, TypeError, "sigmoid: z must hold booleans, integers, or one of bfloat16, float16, float32, float64, got complex128 (1j); pass its real and imaginary parts as separate inputs"),
        ("x", TypeError, "got str32 ('x'); pass numbers"),
        (None, TypeError, "got object (None); pass numbers"),
        ([[1.0], [1.0, 2.0]], ValueError, "sigmoid: z must be an array or an evenly nested sequence of numbers, got [[1.0], [1.0, 2.0]]"),
        (np.array(["2020"], "M8"), TypeError, "pass numbers"),
        (np.ones(2, np.longdouble), TypeError, "convert it with .astype"),
    ],
)  # fmt: skip
def test_what_is_no_real_array_is_refused(value, error, message):
    with pytest.raises(error, match=re.escape(message)):
        jaxneuron.sigmoid(value)


def test_complex_jax_arrays_are_refused_under_jit_too():
    with pytest.raises(TypeError, match=r"sigmoid: z must hold .* got complex64"):
        jax.jit(jaxneuron.sigmoid)(jnp.ones(2, jnp.complex64))


def test_integers_that_jax_would_cut_are_refused():
    if jax.config.jax_enable_x64:
        assert jaxneuron.relu(np.array([2**40])).tolist() == [2.0**40]
    else:
        with pytest.raises(ValueError, match="z must fit in int32 while jax_enable_x64 is off, got integers from 1 to 1099511627776; pass them as floats"):  # fmt: skip
            jaxneuron.relu(np.array([1, 2**40]))


def test_softmax_of_a_scalar_is_refused():
    with pytest.raises(ValueError, match=re.escape("softmax: z must have an axis of units (..., units), got a scalar; pass [z]")):  # fmt: skip
        jaxneuron.softmax(1.0)


def test_unknown_activations_name_the_nearest():
    with pytest.raises(ValueError, match=r"here: activation must be a callable or one of elu, .*, got 'rleu'; did you mean 'relu'\?"):  # fmt: skip
        resolve("rleu", "here")


def test_unhashable_callables_are_refused():
    class Unhashable:
        __hash__ = None

        def __call__(self, z):
            return z

    with pytest.raises(
        TypeError, match="here: activation must be a name or a hashable callable, got Unhashable"
    ):
        resolve(Unhashable(), "here")
    with pytest.raises(TypeError, match="got int"):
        resolve(3, "here")


def test_our_functions_go_by_their_names():
    assert canonical(jaxneuron.tanh, "here", "activation") == "tanh"
    assert canonical(jnp.tanh, "here", "activation") is jnp.tanh
