"""The fused CPU kernel: a row has the same bits in every batch; all ways to call it; and its refusals."""

import functools
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxneuron import MLP, Affine, affine, explain, mlp_forward, neuron
from jaxneuron._kernels import library, primitive
from jaxneuron._math.activations import FORMULAS, OF_ROWS
from jaxneuron._names import resolve
from jaxneuron.testing import assert_within_error_bound
from tests.pools import DTYPES, ELEMENTWISE, VALUES, mlps_and_inputs

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(library.missing() is not None, reason=str(library.missing())),
]
SETS = () if library.missing() else library.instruction_sets()
FUSED = [i for i, name in enumerate(SETS) if name != "baseline"]
# Widths near those of vectors and of blocks of sums. 300 is packed; 1 to 7 are narrower than a vector.
WIDTHS = (1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 70, 133, 300)


def network(sizes, dtype="float32", activation="tanh", members=(), seed=0, bias=True):
    """An MLP of these sizes, or a stack of them."""
    rng = np.random.default_rng(seed)
    layers = [
        (
            jnp.asarray(rng.normal(size=(*members, m, n)) / np.sqrt(m or 1), dtype),
            jnp.asarray(rng.normal(size=(*members, n)), dtype) if bias else None,
        )
        for m, n in itertools.pairwise(sizes)
    ]
    single = MLP(
        [(np.zeros((m, n)), np.zeros(n) if bias else None) for m, n in itertools.pairwise(sizes)],
        activation,
        "identity",
    )
    return jax.tree.unflatten(jax.tree.structure(single), jax.tree.leaves(layers))


def rows(count, n_in, dtype="float32", seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, n_in)), dtype)


@functools.partial(jax.jit, static_argnums=2)
def evaluate_by(mlp, x, instruction_set):
    """The result of mlp_forward with this instruction set."""
    return primitive.forward(mlp.layers, [resolve(a) for a in mlp.activations], x, instruction_set)


def assert_same(found, expected):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


# --- truth ---


# The sets between them give the bits of the best one, which test_the_same_bits_in_any_batch checks.
least_and_best = pytest.mark.parametrize("instruction_set", dict.fromkeys((0, len(SETS) - 1)))


@least_and_best
@given(mlps_and_inputs())
def test_within_bound(instruction_set, mlp_and_x):
    mlp, x = jax.tree.map(jnp.asarray, mlp_and_x)
    assert_within_error_bound(mlp, x, evaluate_by(mlp, x, instruction_set))


@least_and_best
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 17, 133, 300])
def test_widths_within_bound(instruction_set, dtype, width):
    with jax.enable_x64(dtype == "float64"):
        mlp = network((width, 9, width, 2), dtype, bias=width % 2 == 0)
        for count in (1, 40):
            x = rows(count, width, dtype)
            assert_within_error_bound(mlp, x, evaluate_by(mlp, x, instruction_set))


# --- the same bits for a row ---


@given(
    st.lists(st.sampled_from(WIDTHS), min_size=2, max_size=4), st.sampled_from(DTYPES),
    st.sampled_from((*ELEMENTWISE, *VALUES, *OF_ROWS)), st.booleans(), st.sampled_from((1, 2, 13, 64, 65, 200)), st.data(),
)  # fmt: skip
def test_the_same_bits_in_any_batch(sizes, dtype, final, bias, count, data):
    with jax.enable_x64(dtype == "float64"):
        mlp, x = network(sizes, dtype, bias=bias), rows(count, sizes[0], dtype)
        mlp = MLP(mlp.layers, "silu", final)
        y = np.asarray(mlp_forward(mlp, x))
        first = data.draw(st.integers(0, count - 1))
        last = data.draw(st.integers(first + 1, count))
        assert_same(mlp_forward(mlp, x[first:last]), y[first:last])
        assert_same(mlp_forward(mlp, x[first]), y[first])
        assert_same(jax.vmap(mlp_forward, (None, 0))(mlp, x), y)
        for instruction_set in FUSED:
            assert_same(evaluate_by(mlp, x, instruction_set), y)


def test_the_same_bits_by_every_number_of_threads():
    # 2000 rows are divided among threads, 20 are not. Two threads have other tiles than one thread.
    mlp, x = network((64, 64, 64)), rows(2000, 64)
    y = np.asarray(mlp_forward(mlp, x))
    for first in range(0, 2000, 20):
        assert_same(mlp_forward(mlp, x[first : first + 20]), y[first : first + 20])


def test_calls_from_several_python_threads_are_right():
    cpu = jax.local_devices(backend="cpu")[0]  # the default device belongs to one thread
    mlps = [network((n, 64, 3)) for n in (3, 16, 40)]
    inputs = [jax.device_put(rows(700, n), cpu) for n in (3, 16, 40)]
    expected = [np.asarray(mlp_forward(mlp, x)) for mlp, x in zip(mlps, inputs, strict=True)]
    wrong = []

    def work(i):
        for k in range(50):
            j = (i + k) % 3
            if not np.array_equal(mlp_forward(mlps[j], inputs[j]), expected[j]):
                wrong.append((i, k))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- JAX's transforms ---


def program(f, *arguments):
    return jax.jit(f).lower(*arguments).compile().as_text()


def calls(text):
    return text.count('custom_call_target="jaxneuron_forward"')


def member(mlp, *i):
    return jax.tree.map(lambda a: a[i], mlp)


@pytest.mark.parametrize("bias", [True, False])
def test_vmap_is_one_call(bias):
    population = network((5, 20, 3), members=(4,), bias=bias)
    x, xs = rows(7, 5), rows(4 * 7, 5).reshape(4, 7, 5)
    shared = jnp.stack([mlp_forward(member(population, i), x) for i in range(4)])
    own = jnp.stack([mlp_forward(member(population, i), xs[i]) for i in range(4)])
    one = member(population, 0)
    for f, arguments, expected in (
        (jax.vmap(mlp_forward, (0, None)), (population, x), shared),
        (jax.vmap(mlp_forward, (0, 0)), (population, xs), own),
        (jax.vmap(mlp_forward, (None, 1), 1), (one, jnp.moveaxis(xs, 0, 1)), jax.vmap(mlp_forward, (None, 0), 1)(one, xs)),
        (jax.vmap(jax.vmap(mlp_forward, (None, 0)), (0, None)), (population, x), shared),
        (jax.vmap(jax.vmap(mlp_forward, (0, None)), (None, 0)), (population, x), jnp.moveaxis(shared, 0, 1)),
        (jax.vmap(jax.vmap(mlp_forward, (0, 0)), (None, 0)), (population, jnp.stack([xs, xs + 1])),
         jnp.stack([own, jax.vmap(mlp_forward)(population, xs + 1)])),
    ):  # fmt: skip
        assert_same(f(*arguments), expected)
        assert calls(program(f, *arguments)) == 1


def test_nested_vmap_over_members_is_right():
    populations = network((5, 20, 3), members=(2, 4))
    x = rows(7, 5)
    expected = jnp.stack(
        [jnp.stack([mlp_forward(member(populations, j, i), x) for i in range(4)]) for j in range(2)]
    )
    assert_same(jax.vmap(jax.vmap(mlp_forward, (0, None)), (0, None))(populations, x), expected)


def test_vmap_over_weights_with_a_shared_bias_is_right():
    w, b, x = rows(4 * 5, 3).reshape(4, 5, 3), jnp.ones(3, jnp.float32), rows(7, 5)
    expected = jnp.stack([neuron(Affine(each, b), x) for each in w])
    assert_same(jax.vmap(lambda w: neuron(Affine(w, b), x))(w), expected)
    assert_same(jax.vmap(lambda w: neuron(Affine(w, b), x), 2)(jnp.moveaxis(w, 0, 2)), expected)


def test_scan_donation_and_disabled_jit_have_the_same_bits():
    mlp, x = network((5, 20, 5)), rows(7, 5)
    y = mlp_forward(mlp, x)
    assert_same(jax.lax.scan(lambda _, row: (0, mlp_forward(mlp, row)), 0, x)[1], y)
    with jax.disable_jit():
        assert_same(mlp_forward(mlp, x), y)
    assert_same(jax.jit(lambda x: mlp_forward(mlp, x), donate_argnums=0)(jnp.array(x)), y)


def test_rows_and_members_stay_divided_among_devices():
    mesh = Mesh(np.array(jax.devices("cpu")), ("d",))
    divided = NamedSharding(mesh, PartitionSpec("d"))
    mlp, x = network((5, 20, 3)), rows(64, 5)
    population = network((5, 20, 3), members=(6,))
    ensemble = jax.vmap(mlp_forward, (0, None))
    for f, arguments, expected in (
        (mlp_forward, (mlp, jax.device_put(x, divided)), mlp_forward(mlp, x)),
        (ensemble, (jax.device_put(population, divided), x), ensemble(population, x)),
        (jax.shard_map(mlp_forward, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("d")), out_specs=PartitionSpec("d")),
         (mlp, x), mlp_forward(mlp, x)),
    ):  # fmt: skip
        text = program(f, *arguments)
        assert calls(text) == 1
        assert not any(
            word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute")
        )
        y = jax.jit(f)(*arguments)
        assert y.sharding.is_equivalent_to(divided, y.ndim)
        assert_same(y, expected)


def test_exported_programs_do_not_call_the_kernel():
    text = jax.export.export(jax.jit(mlp_forward))(network((5, 3)), rows(7, 5)).mlir_module()
    assert "custom_call" not in text
    assert "dot_general" in text


def test_a_hundred_layers_are_one_call():
    mlp, x = network((8,) * 101), rows(3, 8)
    assert calls(program(mlp_forward, mlp, x)) == 1
    assert_within_error_bound(mlp, x, mlp_forward(mlp, x))


def test_subnormal_numbers_are_kept_and_xlas_mode_is_restored():
    tiny = jax.jit(lambda x: x * jnp.float32(0.5))
    before = np.asarray(tiny(jnp.float32(1e-38)))
    assert neuron(Affine(jnp.ones((1, 1), jnp.float32)), jnp.float32([-100.0])) == np.float32(3.7835059e-44)
    assert affine(Affine(jnp.full((1, 1), 0.5, jnp.float32)), jnp.float32([1e-38])) == np.float32(5e-39)
    assert np.asarray(tiny(jnp.float32(1e-38))) == before


@pytest.mark.parametrize("count", [1, 40])  # with units in lanes, and with rows in lanes
def test_bfloat16_sums_take_subnormal_numbers_for_0(count):
    w = jnp.asarray([[2.0**-130, 1], [1, 2.0**-126], [1, 2.0**-70]], jnp.bfloat16)
    x = jnp.asarray([[2.0**100, 2.0**-130, 2.0**-126]] * count, jnp.bfloat16)
    for instruction_set in FUSED:
        y = evaluate_by(MLP([Affine(w)], final_activation="identity"), x, instruction_set)
        assert_same(y, jnp.asarray([[2.0**-126, 2.0**100]] * count, jnp.bfloat16))


def test_bfloat16_sums_add_pairs_with_the_second_input_first():
    # ((1 + 2^30) - 2^30) + 1 in 24 bits; summed in the order of the inputs it is 0
    w = jnp.asarray([[2.0**30], [1], [1], [-(2.0**30)]], jnp.bfloat16)
    for instruction_set in range(len(SETS)):
        y = evaluate_by(
            MLP([Affine(w)], final_activation="identity"), jnp.ones((2, 4), w.dtype), instruction_set
        )
        assert_same(y, [[1], [1]])


# --- when the kernel is chosen ---


def test_explain_follows_the_default_device(monkeypatch):
    mlp, x = network((5, 20, 3)), rows(7, 5)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with jax.default_device(jax.devices("cpu")[0]):
        assert explain(mlp, x).startswith("fused CPU kernel")
    if jax.config.jax_default_device is None:
        assert explain(mlp, x).startswith("XLA, layer by layer: the fused GPU kernel")


def test_explain_names_the_kernel_or_the_reason_against_it():
    mlp, x = network((5, 20, 3)), rows(7, 5)
    fused = f"fused CPU kernel, {SETS[-1]}: all 2 layers in one call"
    assert explain(mlp, x) == fused
    assert explain(mlp, jax.ShapeDtypeStruct((7, 5), jnp.int32)) == fused
    assert (
        explain(MLP(mlp.layers, jnp.sin), x)
        == "XLA, layer by layer: layer 0's activation is not in the kernel's list, which sends all 2 layers to XLA"
    )
    mixed = MLP([mlp.layers[0], jax.tree.map(lambda a: a.astype(jnp.bfloat16), mlp.layers[1])])
    assert explain(mixed, x) == fused  # all promote to float32
    widening = MLP([mixed.layers[1], Affine(jnp.ones((3, 1), jnp.float32))])
    assert explain(widening, jnp.ones((2, 20), jnp.bfloat16)) == (
        "XLA, layer by layer: its layers are of different dtypes, bfloat16 and float32"
    )


# --- the handler's refusals, which the package's own calls never reach ---

GOOD = {
    "activations": np.array([0]),
    "parameters": np.zeros(2),
    "biases": np.array([1]),
    "instruction_set": np.int64(0),
}


@pytest.mark.parametrize(
    ("operands", "attributes", "message"),
    [
        ([(7, 5), (4, 3), (3,)], {}, "layer 0: w (4,3) must be (5,n_out), of x's dtype"),
        ([(7, 5), (5, 3), (4,)], {}, "layer 0: b (4) must be (3), of x's dtype"),
        ([(7, 5), (5, 3)], {}, "layer 0: b is missing"),
        ([(7, 5), (5, 3), (3,), (3,)], {}, "more operands than layers take, and a number to ignore"),
        ([(7, 5), (5,), (3,)], {}, "layer 0: w must be (n_in, n_out)"),
        ([(5,), (5, 3), (3,)], {}, "x must be (rows, n_in), got (5)"),
        ([(2, 7, 5), (3, 5, 3), (3,)], {}, "layer 0: w (3,5,3) must be (5,n_out), of x's dtype"),
        ([(7, 5), (5, 2), (2,)], {}, "y (7,3) does not fit"),
        ([], {}, "x is missing"),
        ([(7, 5), (5, 3), (3,)], {"activations": np.array([len(FORMULAS)])}, f"layer 0: no activation has the code {len(FORMULAS)}"),
        ([(7, 5), (5, 3), (3,)], {"activations": np.array([-1])}, "layer 0: no activation has the code -1"),
        ([(7, 5), (5, 3), (3,)], {"activations": np.array([0, 0])}, "activations, their parameters and biases must be given for each layer"),
        ([(7, 5), (5, 3), (3,)], {"activations": np.array([], np.int64), "biases": np.array([], np.int64)}, "activations, their parameters and biases must be given for each layer"),
        ([(7, 5), (5, 3), (3,)], {"parameters": np.zeros(3)}, "activations, their parameters and biases must be given for each layer"),
        ([(7, 5), (5, 3), (3,)], {"instruction_set": np.int64(99)}, None),
        ([(7, 5), (5, 3), (3,)], {"instruction_set": np.int64(-99)}, None),
    ],
)  # fmt: skip
def test_the_handler_refuses(operands, attributes, message):
    call = jax.ffi.ffi_call(library.TARGET, jax.ShapeDtypeStruct((7, 3), jnp.float32))
    arrays = [jnp.ones(shape, jnp.float32) for shape in operands]
    if message is None:
        assert_same(call(*arrays, **{**GOOD, **attributes}), np.full((7, 3), 6, np.float32))
        return
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        call(*arrays, **{**GOOD, **attributes}).block_until_ready()
    assert f"jaxneuron_forward: {message}" in str(error.value)


@pytest.mark.parametrize(("x", "w"), [("int32", "int32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")])
def test_the_handler_refuses_dtypes(x, w):
    call = jax.ffi.ffi_call(library.TARGET, jax.ShapeDtypeStruct((7, 3), jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"dtype|must be float32|does not fit"):
        call(jnp.ones((7, 5), x), jnp.ones((5, 3), w), jnp.ones(3, w), **GOOD).block_until_ready()
