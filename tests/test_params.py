import copy
import dataclasses
import math
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxneuron
from jaxneuron import (
    MLP,
    Affine,
    dense_parameter_count,
    init_mlp,
    mlp_forward,
    parameter_count,
    stack_neurons,
    summary,
)
from jaxneuron.testing import neurons
from tests.pools import SIZES, mlps

pytestmark = pytest.mark.usefixtures("x64")


def network(sizes=(2, 3, 1), **kwargs):
    return init_mlp(jax.random.key(0), sizes, **kwargs)


# --- truth: counts ---


def test_counts_equal_those_of_the_class_notes():
    neuron = Affine([0.5, 0.5], -0.7)
    layer = stack_neurons([neuron, neuron, neuron])
    assert parameter_count(neuron) == dense_parameter_count((2, 1)) == 3
    assert parameter_count(layer) == dense_parameter_count((2, 3)) == 9
    assert parameter_count(network((2, 3, 1))) == dense_parameter_count((2, 3, 1)) == 13
    assert dense_parameter_count((10, 133, 133, 133, 133, 133, 8)) == 73_823


@given(mlps())
def test_parameter_count_is_the_formula_less_missing_biases(mlp):
    sizes = [len(mlp.layers[0].w), *(layer.w.shape[1] for layer in mlp.layers)]
    without = sum(layer.w.shape[1] for layer in mlp.layers if layer.b is None)
    total = sum(leaf.size for leaf in jax.tree.leaves(mlp))
    assert parameter_count(mlp) == total == dense_parameter_count(sizes) - without
    assert sum(parameter_count(layer) for layer in mlp.layers) == total


@given(neurons(SIZES))
def test_a_neuron_has_n_plus_one_parameters(neuron):
    n = len(neuron.w)
    assert parameter_count(neuron) == dense_parameter_count((n, 1)) - (neuron.b is None)
    assert dense_parameter_count((n, 1)) == n + 1


def test_parameter_count_is_exact_beyond_int32():
    shapes = [
        Affine(jax.ShapeDtypeStruct((10**6, 10**6), np.float32), jax.ShapeDtypeStruct((10**6,), np.float32))
    ]
    mlp = jax.tree.unflatten(jax.tree.structure(MLP([([[1.0]], [1.0])])), shapes[0])
    assert parameter_count(mlp) == dense_parameter_count((10**6, 10**6)) == 10**12 + 10**6


def test_summary_is_a_table_of_the_layers():
    mlp = MLP([(np.ones((2, 1000), np.float32), None), (np.ones((1000, 1)), [0.5])], jnp.tanh, "identity")
    assert summary(mlp).splitlines() == [
        "layer  w          b     activation  parameters",
        "    0  (2, 1000)  none  <tanh>           2,000",
        "    1  (1000, 1)  (1,)  identity         1,001",
        "total: 3,001 parameters, 16,008 bytes (float32, float64), 3,000 multiply-adds a row",
    ]


# --- truth: stacking and random weights ---


@given(st.sampled_from(SIZES).flatmap(lambda n: st.lists(neurons(n), min_size=1, max_size=4)))
def test_stacked_neurons_are_columns(neurons):
    layer = stack_neurons(neurons)
    for i, neuron in enumerate(neurons):
        assert np.array_equal(np.asarray(layer.w)[:, i], neuron.w)
        if layer.b is not None:
            assert np.asarray(layer.b)[i] == (0 if neuron.b is None else neuron.b)
    assert (layer.b is None) == all(neuron.b is None for neuron in neurons)


@pytest.mark.parametrize(
    ("activation", "gain"), [("sigmoid", 1), ("tanh", 1), ("silu", 1), ("relu", 2), ("elu", 2)]
)
def test_initial_weights_have_the_variance_for_their_activation(activation, gain):
    mlp = network((400, 500, 3), activation=activation, final_activation="identity")
    w = np.asarray(mlp.layers[0].w, np.float64)
    # 200,000 draws: the sample variance is within 5 standard errors of a normal distribution. The standard
    # errors of the truncated normal distribution, from which the weights are drawn, are smaller.
    assert abs(w.var() * 400 / gain - 1) < 5 * math.sqrt(2 / w.size)
    assert abs(w.mean()) < 5 * math.sqrt(gain / 400 / w.size)
    assert not any(np.asarray(layer.b).any() for layer in mlp.layers)


def test_init_mlp_takes_a_dtype_and_splits_its_key():
    assert {leaf.dtype.name for leaf in jax.tree.leaves(network())} == {jnp.zeros(()).dtype.name}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(network(dtype=jnp.bfloat16))} == {"bfloat16"}
    assert not np.array_equal(network((3, 3, 3)).layers[0].w, network((3, 3, 3)).layers[1].w)
    assert network((0, 3, 0)).layers[0].w.shape == (0, 3)


# --- laws: the tree ---


def test_leaves_are_arrays_with_named_paths():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(network())]
    assert paths == [".layers[0].w", ".layers[0].b", ".layers[1].w", ".layers[1].b"]


def test_structure_holds_the_activations():
    assert jax.tree.structure(network(activation="tanh")) != jax.tree.structure(network(activation="relu"))
    assert jax.tree.structure(network()) == jax.tree.structure(network())


def test_transforms_may_put_anything_into_the_tree():
    mlp = network()
    for put in (lambda _: 0, lambda _: None, str, np.shape, lambda _: object(), lambda a: [a, a]):
        assert isinstance(jax.tree.map(put, mlp), MLP)
        repr(jax.tree.map(put, mlp))
    shapes = jax.eval_shape(lambda key: init_mlp(key, (2, 3, 1)), jax.random.key(0))
    assert repr(shapes) == repr(mlp)
    assert summary(shapes) == summary(mlp)
    assert jax.tree.structure(shapes) == jax.tree.structure(mlp)
    repr(jax.tree.unflatten(jax.tree.structure(mlp), jax.tree.leaves(mlp)))
    repr(jax.tree_util.tree_structure(mlp).unflatten([None] * 4))
    axes = jax.tree.map(lambda _: 0, mlp)
    population = jax.vmap(lambda key: init_mlp(key, (2, 3, 1)))(jax.random.split(jax.random.key(1), 5))
    assert jax.vmap(mlp_forward, in_axes=(axes, None))(population, jnp.ones(2)).shape == (5, 1)


def test_copies_and_pickles_equal_the_network():
    mlp = network(activation=("tanh",))
    for twin in (
        copy.copy(mlp),
        copy.deepcopy(mlp),
        pickle.loads(pickle.dumps(mlp)),
        dataclasses.replace(mlp),
    ):
        assert repr(twin) == repr(mlp)
        assert jax.tree.all(jax.tree.map(np.array_equal, twin, mlp))
    assert dataclasses.replace(mlp, final_activation="relu").activations == ("tanh", "relu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        mlp.activation = "relu"


def test_layers_may_be_lists_arrays_and_iterators():
    mlp = MLP([([[1, 2], [3, 4]], [0, 0]), Affine(jnp.ones((2, 1)), np.zeros(1))])
    assert [leaf.shape for leaf in jax.tree.leaves(mlp)] == [(2, 2), (2,), (2, 1), (1,)]
    assert MLP(iter([([[1.0]], None)]), activation=[]).activations == ("sigmoid",)


def test_a_bias_that_is_a_python_number_has_the_dtype_of_w():
    neuron = Affine(jnp.ones(2, jnp.float16), -0.5)
    assert jaxneuron.affine(neuron, jnp.ones(2, jnp.float16)).dtype == jnp.float16
    wide = Affine(jnp.ones(2, jnp.float16), np.float64(-0.5))
    assert jaxneuron.affine(wide, jnp.ones(2, jnp.float16)).dtype == jnp.zeros(()).dtype


def test_parameter_count_takes_numbers_and_lists():
    assert parameter_count(Affine(np.ones(2), -0.7)) == 3
    assert parameter_count(Affine(np.ones((2, 2)), [0.0, 0.0])) == 6


def test_huge_networks_are_counted_by_their_shapes():
    shapes = jax.eval_shape(lambda key: init_mlp(key, (500_000, 500_000, 2)), jax.random.key(0))
    assert parameter_count(shapes) == dense_parameter_count((500_000, 500_000, 2))


def test_neurons_of_different_dtypes_stack():
    half, wide = Affine(np.ones(2, jnp.bfloat16), 0.0), Affine(np.ones(2, np.float32), 0.0)
    assert stack_neurons([half, wide]).w.dtype == np.float32


# --- refusals ---

LAYER = ([[1.0, 2.0], [3.0, 4.0]], [0.0, 0.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MLP([]), ValueError, "MLP: layers must hold at least 1 layer, got 0; pass [Affine(w, b), ...]"),
        (lambda: MLP(Affine(*LAYER)), TypeError, "MLP: layers must be a sequence of Affine or (w, b) pairs, got Affine; pass [layer] for a single layer"),
        (lambda: MLP(3), TypeError, "MLP: layers must be a sequence of Affine or (w, b) pairs, got int; pass [layer] for a single layer"),
        (lambda: MLP([np.ones((2, 2))]), TypeError, "MLP: layer 0 must be an Affine or a (w, b) pair, got ndarray; pass Affine(w, b), with b=None for no bias"),
        (lambda: MLP([LAYER, ([[1.0]], [0.0])]), ValueError, "MLP: layers 0 and 1 must chain: layer 0 has 2 units (w (2, 2)), layer 1 takes 1 (w (1, 1)); transpose weights that are not (n_in, n_out), and pass the layers in the order"),
        (lambda: MLP([(LAYER[0], [0.0])]), ValueError, "MLP: layer 0: b must have shape (2,), one number for each column of w (2, 2), got (1,); reshape it, or pass None for no bias"),
        (lambda: MLP([(1.0, 2.0)]), ValueError, "MLP: layer 0: w must have shape (n_in,) for a neuron or (n_in, n_out) for a layer, got (); pass [w]"),
        (lambda: MLP([([1.0, 2.0], 0.0)]), ValueError, "MLP: layer 0: w must have shape (n_in, n_out), got (2,); make the neuron a layer of one with stack_neurons([neuron])"),
        (lambda: MLP([("ab", None)]), TypeError, "MLP: layer 0: w must hold booleans, integers, or one of bfloat16, float16, float32, float64, got text ('ab'); pass numbers"),
        (lambda: MLP([LAYER], "softmax"), ValueError, "MLP: softmax can only be the final activation; pass it as final_activation"),
        (lambda: MLP([LAYER] * 3, ("tanh", "softmax")), ValueError, "MLP: softmax can only be the final activation; pass it as final_activation"),
        (lambda: MLP([LAYER] * 3, ("tanh",)), ValueError, "MLP: activation must have one entry for each of the 2 hidden layers, got 1; pass the last layer's as final_activation"),
        (lambda: MLP([LAYER], final_activation="sigmod"), ValueError, "got 'sigmod'; did you mean 'sigmoid'?"),
        (lambda: MLP([LAYER], final_activation=None), TypeError, "MLP: final_activation must be a name or a hashable callable, got NoneType; pass a plain function"),
        (lambda: stack_neurons([]), ValueError, "stack_neurons: neurons must hold at least 1 neuron, got 0; pass [Affine(w, b), ...]"),
        (lambda: stack_neurons([Affine([1.0], 0.0), Affine([1.0, 2.0], 0.0)]), ValueError, "stack_neurons: neuron 1: w must have shape (1,) like neuron 0's, got (2,); stack neurons that share an input"),
        (lambda: stack_neurons([Affine(*LAYER)]), ValueError, "stack_neurons: neuron 0: w must have shape (n_in,), got (2, 2); stack neurons that share an input"),
        (lambda: parameter_count([LAYER]), TypeError, "parameter_count: params must be an Affine or an MLP, got list; pass MLP(layers) for a list of layers"),
        (lambda: summary(Affine(*LAYER)), TypeError, "summary: mlp must be an MLP, got Affine; pass MLP([layer]) for a layer"),
        (lambda: dense_parameter_count((3,)), ValueError, "dense_parameter_count: sizes must hold at least 2 numbers, none negative, got (3,); pass (n_in, ..., n_out)"),
        (lambda: dense_parameter_count((3, -1)), ValueError, "none negative, got (3, -1)"),
        (lambda: dense_parameter_count((3, 1.5)), TypeError, "dense_parameter_count: sizes must be a sequence of integers, got (3, 1.5); pass (n_in, ..., n_out)"),
        (lambda: stack_neurons(Affine([1.0], 0.0)), TypeError, "stack_neurons: neurons must be a sequence of Affine, got Affine; pass [neuron]"),
        (lambda: jaxneuron.affine(Affine(np.ones(2, np.float16), 1e6), [1, 2]), ValueError, "affine: params: b must fit in float16 like w, got 1e+06; pass w in a wider dtype"),
        (lambda: parameter_count(Affine([[1.0]], [1.0, 2.0])), ValueError, "parameter_count: params: b must have shape (1,)"),
        (lambda: init_mlp(0, (2, 1)), TypeError, "init_mlp: key must be one JAX random key, got 0; pass jax.random.key(0)"),
        (lambda: network((2,)), ValueError, "init_mlp: sizes must hold at least 2 numbers"),
        (lambda: network((2, 1), dtype=complex), TypeError, "init_mlp: dtype must be one of bfloat16, float16, float32, float64, got complex128; pass dtype=float"),
    ],
)  # fmt: skip
def test_refusals(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


# --- names ---


def test_names_are_part_of_the_structure():
    plain = network((2, 3, 1))
    named = MLP(plain.layers, inputs=["a", "b"], outputs=["y"])
    assert (plain.inputs, plain.outputs) == (None, None)
    assert (named.inputs, named.outputs) == (("a", "b"), ("y",))
    assert jax.tree.structure(named) != jax.tree.structure(plain)
    for again in (jax.tree.map(lambda a: a, named), pickle.loads(pickle.dumps(named)), copy.deepcopy(named)):
        assert (again.inputs, again.outputs) == (("a", "b"), ("y",))
        assert jax.tree.structure(again) == jax.tree.structure(named)
    assert "inputs: a, b\noutputs: y" in summary(named)
    np.testing.assert_array_equal(mlp_forward(named, [1.0, 2.0]), mlp_forward(plain, [1.0, 2.0]))


def test_networks_with_different_names_do_not_stack():
    one, two = (MLP([([[1.0], [2.0]], None)], inputs=names) for names in (["a", "b"], ["b", "a"]))
    with pytest.raises(ValueError, match=r"inputs|node data|structure"):
        jax.tree.map(lambda *a: np.stack(a), one, two)


def test_folding_keeps_names():
    named = MLP([([[1.0], [2.0]], [0.0])], final_activation="identity", inputs=["a", "b"], outputs=["y"])
    for folded in (
        jaxneuron.fold_input_scaling(named, 1.0, 2.0),
        jaxneuron.fold_output_scaling(named, 1.0, 2.0),
    ):
        assert (folded.inputs, folded.outputs) == (named.inputs, named.outputs)
