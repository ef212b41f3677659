import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

import jaxneuron
from jaxneuron import MLP, Affine, mlp_forward, testing
from jaxneuron.testing import (
    assert_bounded,
    assert_compiles_once,
    assert_jit_consistent,
    assert_monotone,
    assert_odd_about,
    assert_rows_independent,
    assert_vmap_consistent,
    assert_within_error_bound,
    count_compilations,
    ensembles,
    floats,
    inputs,
    layers,
    max_ulp_error,
    mlps,
    neurons,
    numbers,
    params_and_inputs,
    profile,
)
from jaxneuron.testing._strategies import NETWORKS

pytestmark = pytest.mark.usefixtures("x64")
DTYPES = ("bfloat16", "float16", "float32", "float64")


# --- strategies ---


@given(st.data(), st.sampled_from(DTYPES))
def test_numbers_are_ordinary_unless_switched_on(data, dtype):
    v = data.draw(numbers(dtype))
    assert v == 0 or 2**-14 <= abs(v) <= 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "has"),
    [
        ("nan", lambda v, info: np.isnan(v)),
        ("infinity", lambda v, info: np.isinf(v) and v < 0),
        ("subnormal", lambda v, info: 0 < -v < float(info.smallest_normal)),
        ("huge", lambda v, info: np.isfinite(v) and abs(v) > float(info.max) / 4),
        ("tiny", lambda v, info: 0 < abs(v) <= 4 * float(info.smallest_normal)),
    ],
)
def test_kinds_are_drawn_when_on_and_only_then(kind, has, dtype):
    info = jnp.finfo(dtype)
    layer = find(layers(1, 1, dtype=dtype, bias=False, **{kind: True}), lambda p: has(float(p.w[0, 0]), info))
    assert layer.w.dtype == jnp.dtype(dtype)
    if (kind, dtype) != ("tiny", "float16"):  # float16's smallest normal number is an ordinary one
        quick = settings(max_examples=200, database=None, derandomize=True)
        with pytest.raises(NoSuchExample):
            find(numbers(dtype), lambda v: has(v, info), settings=quick)


@given(mlps())
def test_mlps_are_of_their_pools(mlp):
    sizes = (mlp.layers[0].w.shape[0], *(layer.w.shape[1] for layer in mlp.layers))
    assert sizes in NETWORKS
    assert set(mlp.activations) <= {"identity", "sigmoid", "relu", "tanh"}
    assert len({leaf.dtype for leaf in jax.tree.leaves(mlp)}) == 1
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(mlp))


def test_dtypes_are_those_that_jax_holds_when_drawing(x64):
    drawn = set()

    @settings(max_examples=200, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(STRATEGY_MADE_AT_IMPORT)
    def draw(neuron):
        drawn.add(neuron.w.dtype.name)

    draw()
    assert drawn == set(DTYPES) - (set() if x64 else {"float64"})


STRATEGY_MADE_AT_IMPORT = neurons()


def test_examples_shrink_to_the_simplest():
    mlp = find(mlps(dtypes="float32"), lambda mlp: len(mlp.layers) == 2 and mlp.layers[0].w.any())
    assert repr(mlp) == "MLP(float32[2,3]+float32[3] identity, float32[3,1]+float32[1] identity)"
    assert sorted(set(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(mlp)]).tolist())) == [0, 1]


@given(st.data())
def test_inputs_fit_their_parameters(data):
    params = data.draw(st.one_of(neurons(), layers(), mlps()))
    x = data.draw(inputs(params, batch=[(2,)]))
    w = params.layers[0].w if isinstance(params, MLP) else params.w
    assert x.shape == (2, len(w))
    assert x.dtype == w.dtype


@settings(max_examples=5)
@given(params_and_inputs(ensembles(3, sizes=[(2, 1)], dtypes="float32"), batch=[(4,)]))
def test_inputs_fit_an_ensemble(stack_and_x):
    stack, x = stack_and_x
    assert jax.vmap(mlp_forward, in_axes=(0, None))(stack, x).shape == (3, 4, 1)


@given(ensembles((1, 3), nan=True))
def test_ensembles_stack_one_architecture(stack):
    members = {len(leaf) for leaf in jax.tree.leaves(stack)}
    assert members in ({1}, {3})
    jax.tree.map(lambda leaf: leaf[0], stack)
    assert (
        jax.vmap(mlp_forward, in_axes=(0, None))(stack, np.ones(stack.layers[0].w.shape[1], np.float32)).ndim
        == 2
    )


def test_a_property_compiles_as_often_as_there_are_shapes():
    def compilations(strategy, examples=100):
        @settings(max_examples=examples, database=None, derandomize=True, deadline=None)
        @given(strategy)
        def prop(mlp_and_x):
            mlp_forward(*mlp_and_x)

        with count_compilations() as compiled:
            prop()
        return len(compiled)

    jax.clear_caches()
    one = mlps([(3, 5, 4)], activations=["tanh"], bias=True, dtypes="float32")
    assert compilations(params_and_inputs(one, batch=[(2,)])) == 1
    four = mlps([(3, 5, 4), (4, 5, 3)], activations=["tanh"], bias=True, dtypes="float32")
    assert compilations(params_and_inputs(four, batch=[(3,), (4,)])) == 4
    assert compilations(params_and_inputs(), 30) <= 30  # one an example, at most


def test_the_profile_is_not_installed(monkeypatch):
    program = "from hypothesis import settings; d = settings().deadline; import jaxneuron.testing; assert settings().deadline == d"
    subprocess.run([sys.executable, "-c", program], check=True)
    monkeypatch.setenv("CI", "true")
    assert profile().derandomize
    monkeypatch.delenv("CI")
    assert not profile().derandomize
    assert profile(max_examples=7, derandomize=True).max_examples == 7


# --- laws: right ones pass (their doctests show it), wrong ones are found and named ---


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
def test_a_law_does_not_hold_of_nothing(law):
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


def test_error_bound_names_row_and_unit():
    mlp = MLP([(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))], final_activation="identity")
    x = np.array([[1, 2], [3, 4]], np.float32)
    assert_within_error_bound(mlp, x, x)
    wrong = x + np.array([[0, 0], [1e-5, 0]], np.float32)
    message = r"row \(1,\), unit 0 is 3.0000\d+, exactly 3.0; off by \d+ ULP where .* are allowed \(1 of 4 outputs are outside\)"
    with pytest.raises(AssertionError, match=message):
        assert_within_error_bound(mlp, x, wrong)
    with pytest.raises(AssertionError, match=r"unit 1 is nan, exactly 4.0"):
        assert_within_error_bound(mlp, x[1], np.array([3, np.nan], np.float32))
    with pytest.raises(AssertionError, match=re.escape("y must have shape (2, 2), got (2,)")):
        assert_within_error_bound(mlp, x, x[0])
    neuron = Affine(np.ones(2, np.float32), None)
    assert_within_error_bound(neuron, x, np.array([3, 7], np.float32))
    with pytest.raises(AssertionError, match=r"the output is 4.0, exactly 3.0"):
        assert_within_error_bound(neuron, x[0], np.float32(4))


def test_error_bound_is_tight_enough_to_see_a_lower_precision():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(20, 50)).astype(np.float32)
    assert_within_error_bound(Affine(w), x, x @ w)
    with pytest.raises(AssertionError, match="y must be within its error bound"):
        assert_within_error_bound(
            Affine(w), x, (x.astype(jnp.bfloat16).astype(np.float32) @ w).astype(np.float32)
        )


def test_infinity_is_within_the_bound_where_the_truth_overflows():
    big = Affine(np.array([1e30], np.float32), None)
    assert_within_error_bound(big, np.array([1e30], np.float32), np.float32(np.inf))
    with pytest.raises(AssertionError, match="the output is inf"):
        assert_within_error_bound(big, np.array([1.0], np.float32), np.float32(np.inf))


def test_rows_independent_names_the_rows():
    x = np.ones((3, 2), np.float32)
    assert_rows_independent(lambda x: jax.nn.softmax(x, axis=-1), x)
    with pytest.raises(AssertionError, match="changing row 0 of 3 changed row 1"):
        assert_rows_independent(lambda x: jax.nn.softmax(x, axis=0), x)
    with pytest.raises(AssertionError, match="f must keep the 3 rows"):
        assert_rows_independent(lambda x: x.sum(axis=0), x)
    for value in (-1.5, 0, 1, 6e4, np.nan):  # whatever a row holds, the change is one
        rows = np.full((3, 2), value, np.float16)
        with pytest.raises(AssertionError, match="changing row 0 of 3 changed row 1"):
            assert_rows_independent(lambda x: np.full_like(x, (x == 1).sum()), rows)


def test_vmap_and_jit_consistency():
    w, x = np.array([[1, 2], [3, 4]], np.float32), np.array([[1, 0], [2, 1]], np.float32)
    assert_vmap_consistent(lambda w, x: x @ w, w, x)
    with pytest.raises(AssertionError, match="f on the batch must give row 0 what f gives it alone: unit"):
        assert_vmap_consistent(lambda w, x: (x.T if x.ndim == 2 else x) @ w, w, x)
    with pytest.raises(AssertionError, match="must have shape"):
        assert_vmap_consistent(lambda w, x: (x @ w).sum(axis=0), w, np.ones((3, 2), np.float32))
    calls = []

    def impure(x):
        calls.append(0)
        return x + len(calls)

    with pytest.raises(
        AssertionError, match=r"jax.jit\(f\) must give output 0 what f gives: unit 0 is 3.0 instead of 2.0"
    ):
        assert_jit_consistent(impure, np.ones(1, np.float32))


def test_compiles_once():
    f = jax.jit(lambda x: x + 1)
    row = np.ones(3, np.float32)
    assert_compiles_once(f, (row,), (row + 1,))
    with pytest.raises(
        AssertionError, match="f must compile in its first call alone: call 1 compiled 1 programs"
    ):
        assert_compiles_once(f, (row,), (row.astype(np.float16),))


def test_max_ulp_error_finds_the_worst():
    x = np.array([1.0, 2.0, 4.0], np.float32)
    worst = max_ulp_error(
        lambda z: np.where(z == 2, np.nextafter(np.float32(2), np.float32(3)), z), lambda z: z, over=x
    )
    assert worst == (1.0, 2.0)
    assert max_ulp_error(lambda z: z * np.nan, "tanh", over=x)[0] == np.inf
    assert max_ulp_error(lambda z: np.float16(0) * z.astype(np.float16), lambda z: z, over=np.array([2.0**-24]).astype(np.float16)) == (1.0, 2.0**-24)  # fmt: skip
    # the figure of jax.nn.sigmoid that the project began with
    ulps, _ = max_ulp_error(jax.nn.sigmoid, "sigmoid", over=np.array([-16.6357, -16.650114], np.float32))
    assert 2 < ulps < 2.5


# --- refusals, where the strategy is defined ---


@pytest.mark.parametrize(
    ("define", "error", "message"),
    [
        (lambda: neurons(-1), ValueError, "neurons: n_in must be one size or several, none negative, got -1; pass (1, 2, 7)"),
        (lambda: neurons(()), ValueError, "neurons: n_in must be one size or several, none negative, got ()"),
        (lambda: layers(1, (2, -3)), ValueError, "layers: n_out must be one size or several, none negative, got (2, -3)"),
        (lambda: neurons(dtype="flaot32"), ValueError, "neurons: dtype must be one of bfloat16, float16, float32, float64, got 'flaot32'; did you mean 'float32'?"),
        (lambda: neurons(2.5), ValueError, "neurons: n_in must be one size or several, none negative, got 2.5"),
        (lambda: layers((1, 2.5)), ValueError, "layers: n_in must be one size or several, none negative, got (1, 2.5)"),
        (lambda: neurons("3"), ValueError, "neurons: n_in must be one size or several, none negative, got '3'"),
        (lambda: neurons(bias=()), ValueError, "neurons: bias must be True, False or both, got (); pass (True, False)"),
        (lambda: mlps(bias=None), ValueError, "mlps: bias must be True, False or both, got None"),
        (lambda: neurons(dtype=np.float32), ValueError, "neurons: dtype must be one of bfloat16, float16, float32, float64, got <class 'numpy.float32'>; pass 'float32'"),
        (lambda: floats("double"), ValueError, "floats: dtype must be one of bfloat16, float16, float32, float64, got 'double'"),
        (lambda: layers(dtype=()), ValueError, "layers: dtype must be one of"),
        (lambda: mlps([]), ValueError, "mlps: sizes must hold at least 1 architecture, got none; pass [(2, 3, 1)]"),
        (lambda: mlps((2, 3, 1)), ValueError, "mlps: sizes must hold architectures (n_in, ..., n_out), none negative, got 2; pass [(2, 3, 1)]"),
        (lambda: mlps([(2, -1)]), ValueError, "got (2, -1)"),
        (lambda: mlps([(2,)]), ValueError, "got (2,)"),
        (lambda: mlps([(2, 1.5)]), ValueError, "got (2, 1.5)"),
        (lambda: mlps(5), ValueError, "mlps: sizes must hold architectures (n_in, ..., n_out), none negative, got 5"),
        (lambda: mlps(activations=["tanh", "softmax"]), ValueError, "mlps: activations must suit hidden layers, got 'softmax'; pass it in final_activations"),
        (lambda: mlps(activations=jnp.tanh), ValueError, "mlps: activations must hold at least 1 activation, got <"),
        (lambda: mlps(activations=[]), ValueError, "mlps: activations must hold at least 1 activation, got []; pass ['tanh']"),
        (lambda: mlps(activations="tanh"), ValueError, "mlps: activations must hold at least 1 activation, got 'tanh'"),
        (lambda: mlps(activations=["tahn"]), ValueError, "did you mean 'tanh'?"),
        (lambda: mlps(dtypes="int8"), ValueError, "mlps: dtypes must be one of"),
        (lambda: mlps(nans=True), TypeError, "mlps: got an unknown argument 'nans'; numbers takes nan, infinity, subnormal, huge, tiny"),
        (lambda: numbers("double"), ValueError, "numbers: dtype must be one of"),
        (lambda: inputs(Affine(np.ones(2)), batch=[]), ValueError, "inputs: batch must hold at least 1 shape, got none; pass [()] for single inputs"),
        (lambda: inputs(Affine(np.ones(2)), batch=(7,)), ValueError, "inputs: batch must hold shapes, none negative, got 7; pass [(7,)] for 7 rows"),
        (lambda: inputs(Affine(np.ones(2)), batch=[(-1,)]), ValueError, "inputs: batch must hold shapes, none negative, got (-1,)"),
        (lambda: inputs(Affine(np.ones(2)), nans=True), TypeError, "inputs: got an unknown argument 'nans'"),
        (lambda: inputs(Affine([1, 2])), ValueError, "inputs: the dtype of for_ must be one of bfloat16, float16, float32, float64, got 'int64'"),
        (lambda: inputs(mlps()), TypeError, "inputs: for_ must be an Affine or an MLP, got LazyStrategy; pass what a strategy drew, or params_and_inputs(strategy)"),
        (lambda: params_and_inputs(batch=[]), ValueError, "params_and_inputs: batch must hold at least 1 shape, got none; pass [()] for single inputs"),
        (lambda: params_and_inputs(nans=True), TypeError, "params_and_inputs: got an unknown argument 'nans'"),
        (lambda: params_and_inputs(Affine([1.0])), TypeError, "params_and_inputs: params must be a strategy, got Affine; pass mlps(), or inputs(params) for parameters that you have"),
        (lambda: ensembles(0), ValueError, "ensembles: members must be at least 1, got 0; pass (1, 3)"),
        (lambda: assert_bounded(jnp.tanh, 0, 1, over=[1, 2]), ValueError, "assert_bounded: over must be floats in one axis, got int64 (2,); pass floats()"),
        (lambda: assert_rows_independent(jnp.tanh, np.ones(2)), ValueError, "assert_rows_independent: x must hold rows (rows, n_in), got shape (2,)"),
        (lambda: assert_monotone(jnp.tanh, over=np.array([2, 1], np.float32)), ValueError, "assert_monotone: over must be in increasing order; pass numpy.sort(over)"),
        (lambda: assert_vmap_consistent(jnp.dot, np.ones(2), np.ones(2)), ValueError, "assert_vmap_consistent: x must hold rows (rows, n_in), got shape (2,)"),
        (lambda: assert_compiles_once(jnp.tanh, np.ones(2), np.ones(2)), TypeError, "assert_compiles_once: calls must be tuples of arguments, got ndarray; pass (x,)"),
        (lambda: assert_within_error_bound([1.0], [1.0], 1.0), TypeError, "assert_within_error_bound: params must be an Affine or an MLP, got list; pass MLP(layers) for a list of layers"),
        (lambda: assert_within_error_bound(Affine([1.0, 2.0]), [1.0], 1.0), ValueError, "assert_within_error_bound: x must have shape (..., 2), got (1,)"),
        (lambda: assert_within_error_bound(Affine([1.0]), [1.0], 1), AssertionError, "y must hold floats, got int64"),
        (lambda: assert_compiles_once(jnp.tanh, (1.0,)), ValueError, "assert_compiles_once: calls must be at least 2 tuples of arguments, got 1"),
        (lambda: max_ulp_error(jnp.tanh, "tahn"), ValueError, "max_ulp_error: reference must be a function or one of sigmoid,"),
        (lambda: max_ulp_error(jnp.tanh, "tanh", over=np.array([np.inf], np.float32)), ValueError, "max_ulp_error: over must hold a number whose exact result is finite, got none"),
        (lambda: assert_within_error_bound(Affine([1.0]), [np.nan], 1.0), ValueError, "assert_within_error_bound: params and x must be finite"),
        (lambda: assert_within_error_bound(Affine([1.0]), [1.0], 1.0, activation="cube"), ValueError, "assert_within_error_bound: activations must be jaxneuron's, got 'cube'"),
    ],
)  # fmt: skip
def test_refusals(define, error, message):
    with pytest.raises(error, match=re.escape(message)):
        define()


def test_everything_public_is_documented_with_an_example():
    for name in testing.__all__:
        assert ">>>" in getattr(testing, name).__doc__, name


@pytest.mark.parametrize("absent", ["hypothesis", "mpmath"])
def test_without_the_extra(absent):
    program = f"import sys; sys.modules[{absent!r}] = None; import jaxneuron; import jaxneuron.testing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: jaxneuron.testing: needs hypothesis and mpmath; pip install 'jaxneuron[hypothesis]'"
    )
