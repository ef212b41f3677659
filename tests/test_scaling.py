import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jaxneuron
from jaxneuron import MLP, fold_input_scaling, fold_output_scaling
from jaxneuron._math import oracle
from jaxneuron._scaling import round_once
from jaxneuron.testing._laws import _assert_within
from tests import make_qlknn
from tests.pools import DTYPES, mlps, mlps_and_inputs

pytestmark = pytest.mark.usefixtures("x64")

MEANS, STDS = st.floats(-2, 2, width=16), st.floats(0.25, 4, width=16)


def assert_within(found, exact, error):
    _assert_within(np.asarray(found, np.float64), exact, np.broadcast_to(error, exact.shape), np.inf)


def arrays(shape, elements):
    return hnp.arrays(np.float64, shape, elements=elements)


def as_float64(mlp):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), mlp)


# --- truth ---


def folding_error(layer, x, mean, std, scale=1.0):
    """Returns by how much a folded layer may differ from scaling apart, if both are evaluated exactly at x.

    Folding rounds each weight and bias once, with a relative error of at most u, or by less than the smallest
    subnormal number. Before that, a folded bias is a float64 sum of n products of quotients.
    """
    dtype = layer.w.dtype
    u, tiny = oracle.U[dtype.name], float(jnp.finfo(dtype).smallest_subnormal)
    w, b = np.abs(np.asarray(layer.w, np.float64)), 0.0 if layer.b is None else np.abs(layer.b)
    bias = np.abs(mean / std) @ w + b
    error = 2 * u * (np.abs(x / std) @ w + bias) + (len(w) + 4) * oracle.U["float64"] * bias
    return error * scale + tiny * (1 + np.abs(x).sum(-1, keepdims=True))


@given(mlps_and_inputs(final_activations=["identity"]), st.data())
def test_folding_equals_scaling(mlp_and_x, data):
    mlp, x = mlp_and_x
    x = np.asarray(x, np.float64)
    layer = mlp.layers[0]
    mean, std = data.draw(arrays(len(layer.w), MEANS)), data.draw(arrays(len(layer.w), STDS))
    folded = fold_input_scaling(mlp, mean, std).layers[0]
    truth = oracle.affine(layer.w, layer.b, (x - mean) / std)
    assert_within(oracle.affine(*folded, x), truth, folding_error(layer, np.abs(x) + np.abs(mean), mean, std))

    layer = mlp.layers[-1]
    scale, shift = data.draw(arrays(layer.w.shape[1], STDS)), data.draw(arrays(layer.w.shape[1], MEANS))
    folded = fold_output_scaling(mlp, scale, shift).layers[-1]
    hidden = np.ones((3, len(layer.w)))
    truth = oracle.affine(layer.w, layer.b, hidden) * scale + shift
    error = folding_error(layer, hidden, np.zeros(len(layer.w)), 1.0, scale)
    error = error + 2 * oracle.U[layer.w.dtype.name] * np.abs(shift)
    assert_within(oracle.affine(*folded, hidden), truth, error)


def test_folded_weights_equal_the_formula():
    mlp = as_float64(MLP([([[1.0, 3.0], [2.0, 4.0]], [0.5, -0.5])], final_activation="identity"))
    first = fold_input_scaling(mlp, [1.0, 2.0], [2.0, 4.0]).layers[0]
    assert first.w.tolist() == [[0.5, 1.5], [0.5, 1.0]]
    assert first.b.tolist() == [0.5 - 0.5 - 1.0, -0.5 - 1.5 - 2.0]
    last = fold_output_scaling(mlp, [2.0, 4.0], 1.0).layers[0]
    assert last.w.tolist() == [[2.0, 12.0], [4.0, 16.0]]
    assert last.b.tolist() == [2.0, -1.0]


def test_the_shipped_network_is_the_folded_published_one():
    with np.load(make_qlknn.WEIGHTS) as file:
        published = {name: file[name].astype(np.float64) for name in file.files}
    shipped = jaxneuron.load(make_qlknn.SHIPPED)
    assert shipped.activations == ("tanh",) * 5 + ("identity",)
    again = make_qlknn.folded_qlknn()
    for i, (layer, twin) in enumerate(zip(shipped.layers, again.layers, strict=True)):
        assert layer.w.dtype == layer.b.dtype == np.float64
        assert np.array_equal(layer.w, twin.w)
        if 0 < i < 5:
            assert np.array_equal(layer.w, published[f"w{i}"])
        # A folded bias is a sum, whose order of terms depends on the machine.
        assert_within(layer.b, twin.b, 20 * oracle.U["float64"] * np.abs(twin.b).max())


@given(hnp.arrays(np.float64, 50, elements=st.floats(-1e30, 1e30)), st.sampled_from(sorted(DTYPES)))
def test_numbers_are_rounded_once(exact, dtype):
    # Midpoints of bfloat16 and their float64 neighbours. Rounding first to float32 would give wrong results.
    midpoints = (
        (exact.astype(np.float32).view(np.uint32) & 0xFFFF0000 | 0x8000).view(np.float32).astype(np.float64)
    )
    for values in (exact, midpoints, np.nextafter(midpoints, np.inf), np.nextafter(midpoints, -np.inf)):
        with np.errstate(over="ignore"):
            rounded = round_once(values, jnp.dtype(dtype))
        for value, result in zip(values.tolist(), rounded, strict=True):
            if not np.isfinite(result):
                continue
            candidates = [np.nextafter(result, result.dtype.type(s)) for s in (-np.inf, np.inf)]
            distance = abs(Fraction(value) - Fraction(float(result)))
            others = [abs(Fraction(value) - Fraction(float(c))) for c in candidates if np.isfinite(c)]
            assert all(distance <= other for other in others)
            if distance in others:  # a tie goes to the even number
                assert int(result.view(f"u{result.dtype.itemsize}")) % 2 == 0


# --- laws ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_folding_keeps_the_dtype_and_numpy_or_jax_arrays(dtype):
    host = MLP([(np.ones((2, 1), jnp.dtype(dtype)), None)], final_activation="identity")
    for fold in (fold_input_scaling, fold_output_scaling):
        assert [a.dtype.name for a in fold(host, 1, 2).layers[0]] == [dtype] * 2
        assert all(isinstance(a, np.ndarray) for a in fold(host, 1, 2).layers[0])
        device = jax.device_put(host)
        assert all(isinstance(a, jax.Array) for a in fold(device, 1, 2).layers[0])
        assert [a.dtype for a in fold(device, 1, 2).layers[0]] == [device.layers[0].w.dtype] * 2


@given(mlps(final_activations=["identity"]))
def test_folding_mean_0_and_scale_1_changes_nothing(mlp):
    for folded in (fold_input_scaling(mlp, 0.0, 1.0), fold_output_scaling(mlp, 1.0, 0.0)):
        for layer, twin in zip(mlp.layers, folded.layers, strict=True):
            assert np.array_equal(layer.w, twin.w)
            assert np.array_equal(
                *(np.zeros(layer.w.shape[1]) if b is None else b for b in (layer.b, twin.b))
            )


def test_integer_weights_become_floats():
    assert fold_input_scaling(MLP([([[1]], [1])]), 1, 2).layers[0].w.dtype == np.float64


# --- refusals ---

ONE = MLP([(np.ones((2, 1), np.float16), np.zeros(1, np.float16))], final_activation="identity")

WIDE = MLP([(np.array([[1.0], [2.0]]), None)], final_activation="identity")
HALF_NAN = MLP([(np.array([[np.nan], [2.0]], np.float16), None)], final_activation="identity")


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (lambda: fold_input_scaling(ONE, [1, 2, 3], 1), "fold_input_scaling: mean must have shape (2,) or be one number, got (3,)"),
        (lambda: fold_input_scaling(ONE, 0, [[1], [2]]), "fold_input_scaling: std must have shape (2,) or be one number, got (2, 1)"),
        (lambda: fold_input_scaling(ONE, 0, [1, 0]), "fold_input_scaling: std must not be 0, got 0 for input 1; pass 1 for an input that is constant"),
        (lambda: fold_input_scaling(ONE, [np.nan, 0], 1), "fold_input_scaling: mean must be finite, got nan"),
        (lambda: fold_output_scaling(ONE, np.inf, 0), "fold_output_scaling: scale must be finite, got inf"),
        (lambda: fold_output_scaling(ONE, 1e6, 0), "fold_output_scaling: w must fit in float16, got 1e+06; convert the network to a wider dtype first, or check the scaling"),
        (lambda: fold_input_scaling(WIDE, 0, 1e-320), "fold_input_scaling: w must fit in float64, got inf; convert"),
        (lambda: fold_input_scaling(MLP([(np.array([[0.0], [2.0]]), None)]), 1e300, 1e-300), "fold_input_scaling: b must fit in float64"),
        (lambda: fold_output_scaling(HALF_NAN, 1e6, 0), "fold_output_scaling: w must fit in float16, got 2e+06"),
        (lambda: fold_input_scaling(jax.tree.map(lambda a: np.stack([a, a]), ONE), 0, 1), "fold_input_scaling: mlp must be one network, got a stack of 2 networks; fold each network, then stack them"),
        (lambda: fold_output_scaling(MLP(ONE.layers), 1, 0), "fold_output_scaling: mlp must have the final activation 'identity', got 'sigmoid'; scale the outputs after it instead"),
    ],
)  # fmt: skip
def test_refusals(fold, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fold()


def test_folding_keeps_nan_weights():
    w, _ = fold_output_scaling(HALF_NAN, 2.0, 0.0).layers[0]
    assert np.isnan(w[0, 0])
    assert w[1, 0] == 4


def test_a_layer_in_place_of_an_mlp_is_refused():
    with pytest.raises(TypeError, match="fold_input_scaling: mlp must be an MLP, got Affine; pass MLP"):
        fold_input_scaling(ONE.layers[0], 0, 1)


def test_tracers_are_refused():
    mlp = jax.device_put(MLP([(np.ones((2, 1), np.float32), None)]))
    with pytest.raises(
        TypeError, match="fold_input_scaling: w must be a concrete array, got a tracer; fold outside jit"
    ):
        jax.jit(lambda m: fold_input_scaling(m, 0.0, 1.0))(mlp)
    with pytest.raises(TypeError, match="fold_input_scaling: mean must be a concrete array, got a tracer"):
        jax.jit(lambda mean: fold_input_scaling(mlp, mean, 1.0))(jnp.ones(2))
