import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxneuron
from jaxneuron import MLP, Affine, affine, init_mlp, mlp_forward, neuron, stack_neurons
from jaxneuron._math import oracle
from jaxneuron.testing import (
    assert_compiles_once,
    assert_rows_independent,
    assert_vmap_consistent,
    assert_within_error_bound,
    ensembles,
    inputs,
    layers,
    neurons,
    params_and_inputs,
)
from tests import make_qlknn
from tests.pools import ELEMENTWISE, SIZES, mlps_and_inputs

pytestmark = pytest.mark.usefixtures("x64")


affines = st.one_of(neurons(SIZES), layers(SIZES, SIZES))


# --- truth ---


def test_examples_of_the_class_notes_are_right():
    neuron_11 = Affine([1, 1], -1.5)
    assert affine(neuron_11, [0, 1]) == -0.5
    assert affine(Affine([-1, -1], 0.5), [0, 0]) == 0.5
    assert (affine(neuron_11, [[0, 0], [0, 1], [1, 0], [1, 1]]) > 0).tolist() == [False, False, False, True]
    np.testing.assert_array_max_ulp(
        *in_the_same_dtype(neuron(Affine([0.5, 0.5], -0.7), [1, 1]), 0.574442516811659), 2
    )
    layer = stack_neurons([jaxneuron.gates.AND, jaxneuron.gates.OR, jaxneuron.gates.NAND])
    truth = [0.45016600268752216, 0.574442516811659, 0.549833997312478]
    np.testing.assert_array_max_ulp(*in_the_same_dtype(neuron(layer, [0, 1]), truth), 2)


def in_the_same_dtype(found, truth):
    return np.asarray(found), np.asarray(truth, found.dtype)


# Marked cpu: on a GPU, 16-bit sums have another error bound, which tests/kernels/test_gpu.py checks.
@pytest.mark.cpu
@given(params_and_inputs(affines))
def test_affine_within_bound(params_and_x):
    params, x = params_and_x
    z = affine(params, x)
    assert z.dtype == x.dtype
    assert_within_error_bound(params, x, z)


@pytest.mark.cpu
@given(params_and_inputs(affines), st.sampled_from(ELEMENTWISE))
def test_neuron_within_bound(params_and_x, name):
    params, x = params_and_x
    y = neuron(params, x, name)
    assert y.dtype == x.dtype
    assert_within_error_bound(params, x, y, activation=name)


@given(mlps_and_inputs())
def test_mlp_forward_within_bound(mlp_and_x):
    mlp, x = mlp_and_x
    y = mlp_forward(mlp, x)
    assert y.dtype == x.dtype
    assert y.shape == (*x.shape[:-1], mlp.layers[-1].w.shape[1])
    assert_within_error_bound(mlp, x, y)


@pytest.mark.cpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_wide_sums_within_bound(dtype):
    rng = np.random.default_rng(0)
    w, b, x = (rng.normal(size=shape).astype(jnp.dtype(dtype)) for shape in ((1000, 5), 5, (3, 1000)))
    assert_within_error_bound(Affine(w, b), x, affine(Affine(w, b), x))


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ([2.0**100, 1], [2.0**-130, 0]),
        ([2.0**-130, 1], [2.0**100, 0]),
        ([2.0**-70, 1], [2.0**-60, 2.0**-126]),
    ],
)
def test_bfloat16_within_bound_whether_subnormal_numbers_count(x, w):
    x, w = np.array(x, jnp.bfloat16), np.array(w, jnp.bfloat16)
    for layer in (Affine(w), Affine(w[:, None])):
        z = affine(layer, x)
        assert_within_error_bound(layer, x, z)
        assert_within_error_bound(layer, x, np.zeros_like(z))
        assert_within_error_bound(layer, x, (x.astype(np.float64) @ np.float64(layer.w)).astype(z.dtype))


def test_qlknn_gives_its_published_outputs(x64):
    with np.load(make_qlknn.SHIPPED.with_name("qlknn_7_11_reference.npz")) as reference:
        inputs, published = reference["inputs"], reference["outputs"]
    y = np.asarray(mlp_forward(jaxneuron.load(make_qlknn.SHIPPED), inputs), np.float64)
    scale = np.abs(published).max(axis=0)
    assert (np.abs(y - published) / scale).max() < (1e-9 if x64 else 1e-4)


# --- laws ---


@given(
    st.sampled_from(SIZES).flatmap(lambda n: st.lists(neurons(n, dtype="float32"), min_size=1, max_size=7)),
    st.data(),
)
def test_a_layer_is_its_neurons_side_by_side(several, data):
    x = data.draw(inputs(several[0]))
    y = neuron(stack_neurons(several), x)
    for j, one in enumerate(several):
        assert_within_error_bound(one, x, y[..., j], activation="sigmoid")
        assert_within_error_bound(one, x, neuron(one, x), activation="sigmoid")


@given(mlps_and_inputs(batch=[(0,), (1,), (7,)]))
def test_batch_vmap_and_loop_within_bound(mlp_and_x):
    mlp, x = mlp_and_x
    assert_within_error_bound(mlp, x, mlp_forward(mlp, x))
    assert_within_error_bound(mlp, x, jax.vmap(mlp_forward, in_axes=(None, 0))(mlp, x))
    for row in x:
        assert_within_error_bound(mlp, row, mlp_forward(mlp, row))


def test_rows_do_not_affect_each_other():
    mlp = init_mlp(jax.random.key(0), (3, 4, 2), activation="tanh", final_activation="softmax")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert_rows_independent(lambda rows: mlp_forward(mlp, rows), x)
    assert_vmap_consistent(mlp_forward, mlp, x)


@pytest.mark.parametrize("function", [affine, neuron])
def test_vmap_over_parameters_within_bound(function):
    rng = np.random.default_rng(0)
    stack = Affine(rng.normal(size=(5, 3, 2)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32))
    x = rng.normal(size=(4, 3)).astype(np.float32)
    y = jax.vmap(function, in_axes=(0, None))(stack, x)
    assert y.shape == (5, 4, 2)
    for i in range(5):
        name = "identity" if function is affine else "sigmoid"
        assert_within_error_bound(Affine(stack.w[i], stack.b[i]), x, y[i], activation=name)


@given(ensembles((1, 3)), st.booleans(), st.data())
def test_vmap_over_members_within_bound(stack, own_rows, data):
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], stack) for i in range(len(stack.layers[0].w))]
    x = np.stack([data.draw(inputs(mlp, batch=[(2,)])) for mlp in members])
    y = jax.vmap(mlp_forward, in_axes=(0, 0) if own_rows else (0, None))(stack, x if own_rows else x[0])
    for i, mlp in enumerate(members):
        assert_within_error_bound(mlp, x[i] if own_rows else x[0], y[i])


def test_jit_scan_and_shard_map_give_the_same_outputs():
    mlp = init_mlp(jax.random.key(0), (3, 4, 3))
    x = jnp.linspace(-1, 1, 12).reshape(4, 3)
    expected = np.asarray(mlp_forward(mlp, x))
    u = oracle.U[expected.dtype.name]
    close = functools.partial(
        np.testing.assert_allclose, rtol=100 * u
    )  # test_mlp_forward_within_bound checks the error bound itself
    close(jax.jit(mlp_forward)(mlp, x), expected)
    close(jax.lax.scan(lambda carry, row: (carry, mlp_forward(mlp, row)), 0, x)[1], expected)
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    rows, all_of_it = PartitionSpec("rows"), PartitionSpec()
    mapped = jax.shard_map(mlp_forward, mesh=mesh, in_specs=(all_of_it, rows), out_specs=rows)
    close(jax.jit(mapped)(mlp, x), expected)
    sharded = mlp_forward(mlp, jax.device_put(x, NamedSharding(mesh, rows)))
    assert sharded.sharding.is_equivalent_to(NamedSharding(mesh, rows), 2)
    close(sharded, expected)
    assert (
        jax.grad(lambda x: mlp_forward(mlp, x).sum())(x).shape == x.shape
    )  # the forward pass stays differentiable


def test_outputs_have_the_promoted_dtype():
    default = jnp.zeros(()).dtype
    half = Affine(jnp.ones((2, 1), jnp.float16), jnp.ones(1, jnp.float16))
    assert affine(half, [1, 2]).dtype == affine(half, [True, False]).dtype == jnp.float16
    assert affine(half, jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
    assert affine(half, jnp.ones(2, jnp.float32)).dtype == jnp.float32
    assert affine(Affine([1, 2], 3), [4, 5]).dtype == default
    assert affine(Affine([1, 2], 3), jnp.ones(2, jnp.float16)).dtype == jnp.float16
    assert neuron(Affine(np.ones(2, np.float64), None), np.ones(2, np.float64)).dtype == default


def test_16_bit_products_are_summed_in_float32():
    # bfloat16 cannot hold 1 + 2^-9. The activation gets this sum in float32.
    seen = []

    def spy(z):
        seen.append(z.dtype)
        return (z - 1) * 512

    w = jnp.array([1, 2**-9], jnp.bfloat16)
    assert neuron(Affine(w, None), jnp.ones(2, jnp.bfloat16), spy) == 1
    assert seen == [jnp.float32]


def test_float32_products_have_full_precision_by_default():
    mlp, x = init_mlp(jax.random.key(0), (3, 4, 2)), jnp.ones((5, 3))

    def precisions():
        # Lowered for a GPU, because the fused CPU kernel has no precision setting.
        lowered = jax.jit(mlp_forward).trace(mlp, x).lower(lowering_platforms=("cuda",)).as_text()
        return re.findall(r"precision = \[(\w+), (\w+)\]", lowered)

    assert precisions() == [("HIGHEST", "HIGHEST")] * 2
    with jax.default_matmul_precision("tensorfloat32"):
        assert precisions() == [("HIGH", "HIGH")] * 2  # JAX calls tensorfloat32 HIGH


def test_a_network_compiles_once_for_each_shape():
    mlp, rows = init_mlp(jax.random.key(0), (2, 5, 1)), np.ones((4, 2), np.float32)
    other = init_mlp(jax.random.key(1), (2, 5, 1))
    assert_compiles_once(mlp_forward, (mlp, rows), (other, rows + 1), (mlp, rows))
    with pytest.raises(AssertionError, match="f must compile in its first call alone: call 1 compiled"):
        assert_compiles_once(mlp_forward, (mlp, rows), (mlp, rows[:3]))


def test_nan_stays_in_its_row_and_infinities_give_limits():
    params = Affine([1.0, 1.0], 0.0)
    assert np.isnan(affine(params, [jnp.nan, 1.0]))
    assert np.isnan(affine(params, [jnp.inf, -jnp.inf]))
    assert affine(params, [jnp.inf, 1.0]) == jnp.inf
    assert neuron(params, [-jnp.inf, 1.0]) == 0
    rows = mlp_forward(MLP([([[1.0], [1.0]], None)]), [[jnp.nan, 0.0], [0.0, 0.0]])
    assert np.isnan(np.asarray(rows))[:, 0].tolist() == [True, False]


def test_numbers_too_large_for_float32_become_infinity(x64):
    assert np.isinf(affine(Affine([1.0, 1.0], 0.0), [1e39, 1.0])) == (not x64)
    assert neuron(Affine([1.0, 1.0], 0.0), np.array([1e39, 1.0])) == 1


def test_jax_array_protocol_and_mixed_lists_are_read():
    class Wrapped:
        def __jax_array__(self):
            return jnp.ones(2)

    params = Affine([1.0, 1.0], 0.0)
    assert (
        affine(params, Wrapped()) == affine(params, [jnp.float32(1), 1.0]) == affine(params, (1.0, 1.0)) == 2
    )
    assert jax.jit(lambda a, b: affine(Affine([a, b], a), [a, 2.0]))(1.0, 3.0) == 8


# --- refusals ---

MLP_231 = MLP([(np.ones((2, 3)), np.zeros(3)), (np.ones((3, 1)), np.zeros(1))])
STACKED = jax.tree.map(lambda a: np.stack([a, a]), MLP_231)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: affine(Affine([1, 2], 0), [1, 2, 3]), ValueError, "affine: x must have shape (..., 2), one number for each row of w (2,), got (3,); put the inputs on the last axis"),
        (lambda: affine(Affine([1, 2], 0), 1.0), ValueError, "affine: x must have shape (..., 2), one number for each row of w (2,), got (); pass [x]"),
        (lambda: affine(Affine(1.0, 0), [1]), ValueError, "affine: params: w must have shape (n_in,) for a neuron or (n_in, n_out) for a layer, got (); pass [w]"),
        (lambda: affine(Affine([1, 2], [0]), [1, 2]), ValueError, "affine: params: b must have shape (), one number for each column of w (2,), got (1,); reshape it, or pass None for no bias"),
        (lambda: affine([1, 2, 3], [1, 2]), TypeError, "affine: params must be an Affine or a (w, b) pair, got list; pass Affine(w, b), with b=None for no bias"),
        (lambda: affine(Affine([[1], [1, 2]], 0), [1, 2]), ValueError, "affine: params: w must be an array or an evenly nested sequence of numbers, got [[1], [1, 2]]"),
        (lambda: neuron(Affine([1, 2], 0), "ab"), TypeError, "neuron: x must hold booleans, integers, or one of bfloat16, float16, float32, float64, got text ('ab'); pass numbers"),
        (lambda: neuron(Affine([1, 2], 0), [1, 2], "relo"), ValueError, "did you mean 'relu'?"),
        (lambda: neuron(Affine([1, 2], 0), [1, 2], "softmax"), ValueError, "neuron: softmax needs the units of a layer, w (n_in, n_out), got a neuron, w (2,)"),
        (lambda: neuron(Affine([1, 2], 0), [[1, 2]], jnp.sum), ValueError, "neuron: activation must keep the shape (1,), got (); use an elementwise function"),
        (lambda: mlp_forward(MLP_231, np.ones((5, 3))), ValueError, "mlp_forward: x must have shape (..., 2), one number for each row of w (2, 3), got (5, 3); put the inputs on the last axis"),
        (lambda: mlp_forward(MLP_231, jnp.ones(2, jnp.complex64)), TypeError, "mlp_forward: x must hold booleans, integers, or one of bfloat16, float16, float32, float64, got complex64"),
        (lambda: mlp_forward(MLP_231, object()), TypeError, "mlp_forward: x must hold booleans, integers, or one of"),
        (lambda: neuron(Affine([1, 2], 0), [1, 2], lambda z: jax.lax.complex(z, z)), TypeError, "neuron: activation must give an array of real numbers, got complex"),
        (lambda: neuron(Affine([1, 2], 0), [1, 2], lambda z: (z, z)), TypeError, "neuron: activation must give an array of real numbers, got tuple; use jax.numpy functions"),
        (lambda: mlp_forward("abc", [1, 2]), TypeError, "mlp_forward: mlp must be an MLP, got str; pass MLP(layers), parameters first"),
        (lambda: mlp_forward(MLP_231.layers, [1, 2]), TypeError, "mlp_forward: mlp must be an MLP, got tuple; pass MLP(layers), parameters first"),
        (lambda: mlp_forward([1, 2], MLP_231), TypeError, "mlp_forward: mlp must be an MLP, got list"),
        (lambda: mlp_forward(STACKED, [1, 2]), ValueError, "mlp_forward: layer 0: w must have shape (n_in,) for a neuron or (n_in, n_out) for a layer, got (2, 2, 3); evaluate stacked networks with jax.vmap"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
