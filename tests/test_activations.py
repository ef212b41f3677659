import dataclasses
import functools
import json
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxneuron
from jaxneuron import CELU, ELU, MLP, HardTanh, LeakyReLU
from jaxneuron._math import float64, oracle
from jaxneuron._math.activations import ACTIVATIONS, FAMILIES, OF_ROWS, facts_of
from jaxneuron._names import (
    BY_FAMILY,
    BY_NAME,
    canonical,
    described,
    from_description,
    from_text,
    resolve,
)
from jaxneuron.convert._activations import JAX_FUNCTIONS
from jaxneuron.testing import _sweeps as sweeps
from jaxneuron.testing import (
    assert_bounded,
    assert_jit_consistent,
    assert_monotone,
    assert_odd_about,
    floats,
    max_ulp_error,
)
from jaxneuron.testing._laws import _assert_within
from tests.pools import DTYPES, ELEMENTWISE, VALUES

pytestmark = pytest.mark.usefixtures("x64")


LAYER = ([[1.0]], None)


def jax_holds(dtype):
    """Returns whether JAX has arrays of this dtype: float64 only if x64 is on."""
    return dtype != "float64" or jax.config.jax_enable_x64


def widest():
    return np.float64 if jax.config.jax_enable_x64 else np.float32


def floats_between(low=-np.inf, high=np.inf):
    return floats(np.dtype(widest()).name, low, high)


# --- truth ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ELEMENTWISE, *VALUES, *OF_ROWS], ids=str)
def test_activations_within_bound(name, dtype):
    if not jax_holds(dtype):
        pytest.skip("JAX holds no float64 with x64 off")
    if jnp.finfo(dtype).bits == 16 and name in (*sweeps.FUNCTIONS, *sweeps.VALUES):
        pytest.skip("every 16-bit number is swept in test_numerics.py")
    z = np.concatenate([np.logspace(-6, 4, 100), np.linspace(0.05, 30, 97), [0.0, 3.0, 6.0]])
    z = np.concatenate([z, -z]).astype(jnp.dtype(dtype))
    if name in OF_ROWS:
        z = np.random.default_rng(0).permuted(z[np.abs(z.astype(float)) < 100]).reshape(-1, 2)
    y = resolve(name)(z)
    assert y.dtype == z.dtype
    wide = oracle.sum_dtype(dtype)
    name = oracle.in_format(name, dtype)
    exact = oracle.activation(name, z)
    error = oracle.activation_error(name, z.astype(np.float64), exact, wide)
    if dtype != wide:
        error = oracle.rounded_error(exact, error, dtype)
    # selu of the largest float16 number overflows.
    _assert_within(np.asarray(y), exact, error, float(jnp.finfo(dtype).max))


def test_sigmoid_of_known_values_within_2_ulp():
    z = np.array([-5, -3, 0, 3, 5], widest())
    y = np.asarray(jaxneuron.sigmoid(z))
    truth = np.array(
        [0.0066928509242848554, 0.04742587317756678, 0.5, 0.9525741268224334, 0.9933071490757153]
    )
    assert (np.abs(y - truth) <= 2 * np.spacing(truth.astype(z.dtype))).all()


def test_sigmoid_within_its_ulps():
    x64 = jax.config.jax_enable_x64
    z = np.concatenate([np.linspace(-87, 17.5, 4001), [-16.6357], floats_between(-87, 40)[::7]])
    assert max_ulp_error(jaxneuron.sigmoid, "sigmoid", over=z.astype(widest()))[0] <= (1.0 if x64 else 2.5)
    if x64:
        assert max_ulp_error(jaxneuron.sigmoid, "sigmoid", over=np.linspace(-708, 0, 4001))[0] <= 1.0


# --- laws ---

FLOATS = st.floats(allow_nan=False)


def as_widest(numbers):
    with np.errstate(over="ignore"):
        return np.array(numbers).astype(widest())


@given(FLOATS)
def test_sigmoid_stays_in_the_closed_unit_interval(z):
    assert_bounded(jaxneuron.sigmoid, 0, 1, over=as_widest([z]))


@given(FLOATS, FLOATS)
def test_sigmoid_never_decreases(z1, z2):
    assert_monotone(jaxneuron.sigmoid, over=as_widest(sorted([z1, z2])))


def neighbours(z, count):
    """Returns the floats next to z, in increasing order: `count` on each side."""
    bits = np.array(abs(z), widest()).view(np.int64 if widest() is np.float64 else np.int32)
    return np.sort(
        np.copysign((bits + np.arange(-count, count).astype(bits.dtype)).view(widest()), widest()(z))
    )


@given(st.floats(1e-30, 800), st.sampled_from([1, -1]))
def test_sigmoid_never_decreases_between_neighbours(z, sign):
    assert_monotone(jaxneuron.sigmoid, over=neighbours(sign * z, 500))


@pytest.mark.parametrize("z", [0.1, -0.1, 0.25, -0.5, 1.0, -1.0, 3.0, 17.0, -40.0])
def test_sigmoid_never_decreases_where_that_of_xla_does(z):
    # XLA's float64 logistic function decreases 555 times between a million neighbours of 0.1.
    assert_monotone(jaxneuron.sigmoid, over=neighbours(z, 200_000))


def test_sigmoid_never_decreases_where_its_reduction_switches():
    edges = (np.arange(1022) + 0.5) * np.log(2)
    for edge in edges if jax.config.jax_enable_x64 else edges[:150]:
        assert_monotone(jaxneuron.sigmoid, over=neighbours(-edge, 8))


def test_sigmoid_is_bounded_monotone_and_odd_over_all_exponents():
    assert_bounded(jaxneuron.sigmoid, 0, 1, over=floats_between())
    assert_monotone(jaxneuron.sigmoid, over=floats_between())
    assert_odd_about(jaxneuron.sigmoid, 0.5, ulps=3, over=floats_between(0))
    assert_bounded(jaxneuron.tanh, -1, 1, over=floats_between())
    assert_bounded(jaxneuron.hard_sigmoid, 0, 1, over=floats_between())


@given(FLOATS)
def test_sigmoid_is_odd_about_one_half_within_rounding(z):
    assert_odd_about(jaxneuron.sigmoid, 0.5, ulps=3, over=as_widest([abs(z)]))


def test_sigmoid_of_0_infinities_and_huge_numbers_is_exact():
    assert jaxneuron.sigmoid(0.0) == 0.5
    assert jaxneuron.sigmoid([-jnp.inf, jnp.inf]).tolist() == [0.0, 1.0]
    assert jaxneuron.sigmoid([-1e300, -1e30, 1e30, 1e300]).tolist() == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("name", [*ELEMENTWISE, *VALUES], ids=str)
def test_nan_comes_from_nan_alone(name):
    big = float(jnp.finfo(jnp.float32).max)
    y = resolve(name)(np.array([-np.inf, -big, -100, -1, -0.0, 0, 1, 100, big, np.inf, np.nan], widest()))
    ends = not facts_of(name).has_limits  # a sine has no limit at infinity
    assert np.isnan(y).tolist() == [ends, *[False] * 8, ends, True]


@pytest.mark.parametrize("name", [*ELEMENTWISE, *VALUES, *OF_ROWS], ids=str)
def test_shapes_and_dtypes_are_kept_also_under_vmap_and_jit(name):
    f = resolve(name)
    assert f([True, False]).dtype == jnp.asarray(0.0).dtype
    for shape, dtype in [((2, 3), jnp.bfloat16), ((0, 3), np.float32), ((3, 0), np.float32)]:
        y = jax.eval_shape(f, jax.ShapeDtypeStruct(shape, dtype))
        assert (y.shape, y.dtype) == (shape, dtype)
    assert f(np.zeros((0, 3), np.float32)).shape == (0, 3)
    z = np.linspace(-3, 3, 12, dtype=widest()).reshape(3, 4)
    assert_jit_consistent(jax.vmap(f), z, ulps=2)


@pytest.mark.parametrize("name", ["relu", "square", LeakyReLU(0.2), "log_softmax"], ids=str)
def test_lists_give_jax_arrays_if_jit_is_disabled(name):
    with jax.disable_jit():
        assert isinstance(resolve(name)([1, 2]), jax.Array)


@pytest.mark.parametrize("name", [*ELEMENTWISE, *VALUES], ids=str)
def test_gradients_equal_difference_quotients(name):
    f, h = resolve(name), 1e-3
    for z in (-2.0, -0.35, 0.7, 4.0):
        exact = oracle.activation(name, [z - h, z + h])
        assert float(jax.grad(f)(z)) == pytest.approx((exact[1] - exact[0]) / (2 * h), rel=1e-3, abs=2e-3)


PLACES = np.array([-6.0, -3.0, -1.0, -0.0, 0.0, 1.0, 3.0, 6.0])  # among them all kinks of JAX's activations
TWINS = {
    **{name: function for function, name in JAX_FUNCTIONS.items() if name not in OF_ROWS},
    **{LeakyReLU(slope): functools.partial(jax.nn.leaky_relu, negative_slope=slope) for slope in (0.2, -3.0)},
    ELU(0.3): functools.partial(jax.nn.elu, alpha=0.3),
    CELU(0.3): functools.partial(jax.nn.celu, alpha=0.3),
}


def has_kinks(name):
    before, at, after = (float64.activation(name, PLACES + step)[0] for step in (-1e-6, 0, 1e-6))
    return (np.abs(before - 2 * at + after) > 1e-8).any()


def test_gradients_at_kinks_equal_those_of_jax_nn():
    pairs = {str(name): (resolve(name), twin) for name, twin in TWINS.items() if has_kinks(name)}
    assert {"relu", "relu6", "hard_sigmoid", "hard_swish", "hard_tanh", "leaky_relu", "selu"} <= pairs.keys()
    found = jax.jit(lambda z: jax.tree.map(lambda f: jax.vmap(jax.grad(f))(z), pairs))
    for name, (ours, theirs) in found(PLACES.astype(widest())).items():
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=name)


def test_hard_tanh_has_slope_0_at_its_ends():
    z = np.array([-2.5, -1.0, 2.0, 2.5], widest())
    assert jax.vmap(jax.grad(HardTanh(-1, 2)))(z).tolist() == [0, 0, 0, 0]


def test_every_activation_is_public():
    assert set(BY_NAME) == {*ELEMENTWISE, *OF_ROWS}
    for name, function in BY_NAME.items():
        assert getattr(jaxneuron, name) is function


def test_arrays_in_the_other_byte_order_are_read():
    x = np.array([1.0, -2.0], ">f4")
    assert jaxneuron.relu(np.array([1, 2], np.float32)).tolist() == [1, 2]  # compiles for native byte order
    assert jaxneuron.relu(x).tolist() == [1, 0]
    assert (
        jaxneuron.affine(([1.0, 2.0], 0.5), x) == jaxneuron.affine((np.array([1, 2], ">f8"), 0.5), x) == -2.5
    )


# --- values with parameters ---


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_values_are_equal_if_their_parameters_are(value):
    again = type(value)(*value.parameters)
    assert again == value
    assert hash(again) == hash(value)
    assert from_description(json.loads(json.dumps(described(value)))) == value
    assert from_text(str(value)) == value
    assert eval(repr(value), vars(jaxneuron)) == value
    other = type(value)(*(2 * parameter for parameter in value.parameters))
    assert other != value
    assert jax.tree.structure(MLP([LAYER], final_activation=value)) != jax.tree.structure(
        MLP([LAYER], final_activation=other)
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, FAMILIES[value.family].parameters[0], 1.0)


def test_values_that_have_a_name_are_stored_by_it():
    z = np.array([-np.inf, -2.0, -0.0, 0.5, np.inf], widest())
    for family, members in ((BY_FAMILY[name], each.names) for name, each in FAMILIES.items()):
        for parameters, name in members.items():
            value = family(*parameters)
            assert canonical(value, "activation") == name
            assert value(z).tobytes() == BY_NAME[name](z).tobytes()
            assert MLP([LAYER], final_activation=value).final_activation == name
    # Every activation with parameters that has a name is among them.
    named = {name for each in FAMILIES.values() for name in each.names.values()}
    assert {name for name, facts in ACTIVATIONS.items() if facts.parameters} <= named


def test_parameters_are_rounded_to_the_dtype_first():
    slope = 0.1
    assert float(LeakyReLU(slope)(np.float32(-1))) == -float(np.float32(slope))
    for dtype in (np.float16, jnp.bfloat16):  # computed in float32
        assert LeakyReLU(slope)(np.array([-3], dtype)) == (np.float32(slope) * np.float32(-3)).astype(dtype)


def test_parameters_may_be_any_real_number():
    assert LeakyReLU(np.float64(0.25)) == LeakyReLU(1 / 4) == LeakyReLU(Fraction(1, 4)) != LeakyReLU(0.2)
    assert ELU(2) == ELU(2.0)
    assert LeakyReLU(-0.0).slope.hex() == "0x0.0p+0"


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "leaky_relu"}, "an activation must have a name of leaky_relu, elu, celu, softplus, hard_tanh, sin and that family's parameters, got {'name': 'leaky_relu'}"),
        ({"name": "leaky_relu", "slope": 0.1, "more": 1}, "and that family's parameters"),
        ({"name": "prelu", "slope": 0.1}, "read it with a newer jaxneuron"),
        ({"name": ["elu"], "alpha": 0.1}, "read it with a newer jaxneuron"),
        ({"name": "elu", "alpha": "0.1"}, "ELU: alpha must be a number, got str; pass a float"),
        ({"name": "softplus", "beta": -1}, "Softplus: beta must be from 1e-30 to 1e30, got -1; scale the layer's weights instead"),
        ({"name": "hard_tanh", "low": 1, "high": 1}, "HardTanh: low must be less than high, got 1 and 1; pass the smaller number first"),
        ({"name": "sin", "frequency": 1e300}, "Sin: frequency must be a finite number that float32 holds, got 1e+300; pass another one"),
    ],
)  # fmt: skip
def test_bad_descriptions_are_refused(description, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        from_description(description)


def test_activations_are_read_from_text():
    assert from_text("LeakyReLU( 0.2 )") == LeakyReLU(0.2)
    assert from_text("HardTanh(-1, 2e0)") == HardTanh(-1, 2)
    assert from_text("tanh") == "tanh"
    assert from_text("os.system('true')") == "os.system('true')"
    for text in ("ELU()", "ELU(1, 2)", "HardTanh(a, 1)", "CELU(0)"):
        with pytest.raises(ValueError, match=re.escape(repr(text)) + " must have "):
            from_text(text)


# --- refusals ---


def test_refusals_of_a_value_name_its_class():
    with pytest.raises(TypeError, match=r"^LeakyReLU: z must hold .* got complex128"):
        LeakyReLU(0.2)(1j)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1j, TypeError, "sigmoid: z must hold booleans, integers, or one of bfloat16, float16, float32, float64, got complex128 (1j); pass its real and imaginary parts as separate inputs"),
        ("x", TypeError, "got text ('x'); pass numbers"),
        (None, TypeError, "got Python objects (None); pass numbers"),
        ([[1.0], [1.0, 2.0]], ValueError, "sigmoid: z must be an array or an evenly nested sequence of numbers, got [[1.0], [1.0, 2.0]]"),
        (np.array(["2020"], "M8"), TypeError, "pass numbers"),
        (np.array([1], "m8[D]"), TypeError, "got durations"),
        (np.ones(2, jnp.int4), TypeError, "got int4"),
        (jnp.ones(2, jnp.float8_e4m3fn), TypeError, "convert it with .astype(float)"),
        ([10**400], TypeError, "got Python objects"),
        ([jnp.ones(2), jnp.ones(3)], ValueError, "give every row the same length"),
        ([jnp.float32(1), None], ValueError, "evenly nested sequence of numbers"),
        (np.ones(2, np.longdouble), TypeError, "convert it with .astype(float)"),
    ],
)  # fmt: skip
def test_anything_that_is_not_a_real_array_is_refused(value, error, message):
    with pytest.raises(error, match=re.escape(message)):
        jaxneuron.sigmoid(value)


def test_complex_jax_arrays_are_refused_under_jit_too():
    with pytest.raises(TypeError, match=r"sigmoid: z must hold .* got complex64"):
        jax.jit(jaxneuron.sigmoid)(jnp.ones(2, jnp.complex64))


def test_integers_beyond_int32_are_refused_if_x64_is_off():
    if jax.config.jax_enable_x64:
        assert jaxneuron.relu(np.array([2**40])).tolist() == [2.0**40]
    else:
        with pytest.raises(ValueError, match="z must fit in int32 while jax_enable_x64 is off, got integers from 1 to 1099511627776; pass them as floats"):  # fmt: skip
            jaxneuron.relu(np.array([1, 2**40]))


def test_softmax_of_a_scalar_is_refused():
    with pytest.raises(ValueError, match=re.escape("softmax: z must have an axis of units (..., units), got a scalar; pass [z]")):  # fmt: skip
        jaxneuron.softmax(1.0)


def test_unknown_activations_name_the_nearest():
    with pytest.raises(ValueError, match=r"^activation must be a callable or one of cr_sigmoid, .*, got 'rleu'; did you mean 'relu'\?"):  # fmt: skip
        resolve("rleu")


def test_unhashable_callables_are_refused():
    class Unhashable:
        __hash__ = None

        def __call__(self, z):
            return z

    with pytest.raises(TypeError, match=r"^activation must be a name or a hashable callable, got Unhashable"):
        resolve(Unhashable())
    with pytest.raises(TypeError, match="got int"):
        resolve(3)


def test_our_functions_are_stored_by_name():
    assert canonical(jaxneuron.tanh, "activation") == "tanh"
    assert canonical(jnp.tanh, "activation") is jnp.tanh


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"softmax", "log_softmax", "exp"}))
def test_second_derivatives_are_finite_for_large_z(name):
    for z in (0.0, 89.0, -89.0, 1000.0, -1000.0):
        assert np.isfinite(jax.grad(BY_NAME[name])(z))
        assert np.isfinite(jax.grad(jax.grad(BY_NAME[name]))(z))
