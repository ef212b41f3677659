"""Stacks of networks: functions that make a stack, that take a stack, and that need a single network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxneuron
import jaxneuron.plot
from jaxneuron import (
    MLP,
    LeakyReLU,
    convert,
    evaluate,
    init_mlp,
    load,
    mlp_forward,
    parameter_count,
    save,
    summary,
)
from jaxneuron._files import read
from jaxneuron._kernels import library

SIZES = (3, 5, 2)
INIT = functools.partial(init_mlp, sizes=SIZES, activation=LeakyReLU(0.2), final_activation="identity")
ROWS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def stack(members=4, **names):
    """Returns a stack of networks made by jax.vmap, with the given names of inputs and outputs."""
    networks = jax.vmap(INIT)(jax.random.split(jax.random.key(0), members))
    named = MLP(INIT(jax.random.key(0)).layers, networks.activation, "identity", **names)
    return jax.tree.unflatten(jax.tree.structure(named), jax.tree.leaves(networks))


def bits(mlp):
    return [(type(a), a.dtype.name, a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(mlp)]


# --- functions that make a stack, one for each source (docs/guides/import.md) ---


def test_networks_stacked_in_any_way_give_the_same_outputs():
    networks = [INIT(key) for key in jax.random.split(jax.random.key(0), 4)]
    y = np.stack([mlp_forward(mlp, ROWS) for mlp in networks])
    pairs = [[np.stack([getattr(m.layers[i], n) for m in networks]) for n in "wb"] for i in range(2)]
    given = {"activation": LeakyReLU(0.2), "final_activation": "identity"}
    state = {f"{2 * i}.{n}": a.swapaxes(1, -1) for i, layer in enumerate(pairs) for n, a in zip(("weight", "bias"), layer, strict=True)}  # fmt: skip
    for found in (
        jax.tree.map(lambda *arrays: jnp.stack(arrays), *networks),
        jax.vmap(INIT)(jax.random.split(jax.random.key(0), 4)),
        jax.vmap(functools.partial(convert.from_pairs, orientation="in_out", **given))(pairs),
        jax.vmap(functools.partial(convert.from_torch, **given))(
            state
        ),  # the form that torch.func.stack_module_state gives
    ):
        if library.missing():  # XLA's bits depend on the number of rows
            np.testing.assert_allclose(evaluate(found, ROWS), y, rtol=1e-5, atol=1e-6)
        else:
            assert np.array_equal(evaluate(found, ROWS), y)


# --- functions that take a stack ---


def test_save_and_load_keep_every_bit_of_a_stack(tmp_path):
    path = tmp_path / "stack.safetensors"
    for mlp in (
        stack(),
        stack(1),
        stack(inputs=("a", "b", "c"), outputs=("y", "z")),
        jax.tree.map(lambda a: a.astype("bfloat16"), stack()),
        jax.tree.map(lambda a: a[:0], stack()),
        jax.tree.map(lambda a: np.asarray(a, np.float64) / 3, stack()),  # stays in NumPy while x64 is off
    ):
        save(path, mlp)
        assert jax.tree.structure(load(path)) == jax.tree.structure(mlp)
        assert bits(load(path)) == bits(mlp)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(read(path)))
    plain = jax.vmap(functools.partial(INIT, activation="tanh"))(jax.random.split(jax.random.key(0), 2))
    save(path, plain)
    import safetensors

    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["format_version"] == "2"
        assert file.metadata()["members"] == "2"
        assert file.get_tensor("layers.0.w").shape == (2, 3, 5)


def test_summary_counts_all_members():
    mlp = stack(inputs=("a", "b", "c"))
    one = 3 * 5 + 5 + 5 * 2 + 2
    assert parameter_count(mlp) == 4 * one
    for each in (mlp, jax.eval_shape(lambda: mlp)):
        assert summary(each).splitlines() == [
            "layer  w          b       activation      parameters",
            "    0  (4, 3, 5)  (4, 5)  LeakyReLU(0.2)          80",
            "    1  (4, 5, 2)  (4, 2)  identity                48",
            f"total: 4 members, 128 parameters, 512 bytes (float32), {4 * 25} multiply-adds a row",
            "inputs: a, b, c",
        ]


def test_row_evaluator_gives_each_row_the_outputs_of_all_members(tmp_path):
    save(tmp_path / "stack.safetensors", stack())
    y = evaluate(stack(), ROWS)
    for model in (stack(), tmp_path / "stack.safetensors"):
        found = jaxneuron.RowEvaluator(model)({"x": ROWS})["y"]
        assert found.shape == (7, 4, 2)
        assert np.array_equal(found.swapaxes(0, 1), y)


# --- refusals ---


def uneven():
    first, last = stack().layers
    layers = [first, (last.w[:3], last.b[:3])]
    return jax.tree.unflatten(jax.tree.structure(stack()), jax.tree.leaves(layers))


def of_vmap_twice():
    return jax.tree.map(lambda a: a[None], stack())


@pytest.mark.parametrize("take", [lambda mlp, path: save(path, mlp), lambda mlp, path: evaluate(mlp, ROWS), lambda mlp, path: jaxneuron.Evaluator(mlp), lambda mlp, path: jaxneuron.RowEvaluator(mlp)])  # fmt: skip
def test_all_arrays_must_have_the_same_number_of_members(take, tmp_path):
    with pytest.raises(ValueError, match=r"layer 1: w must have a leading axis of 4 members, as layer 0's w \(4, 3, 5\), got \(3, 5, 2\); stack"):  # fmt: skip
        take(uneven(), tmp_path / "x")
    with pytest.raises(ValueError, match=r"layer 0: w must have shape .* got \(1, 4, 3, 5\)"):
        take(of_vmap_twice(), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_networks_with_different_names_do_not_stack():
    with pytest.raises(ValueError, match=r"(?i)mismatch|metadata"):  # an error of JAX
        jax.tree.map(lambda *a: np.stack(a), *(MLP([([[1.0]], None)], inputs=[name]) for name in "ab"))
    with pytest.raises(ValueError, match="inputs must hold 3 names, one for each of the rows of the first"):
        stack(inputs=("a",))


@pytest.mark.parametrize("name", ["export", "to_equinox", "to_flax_params", "to_keras", "to_onnx", "to_torch_state_dict", "fold_input_scaling", "fold_output_scaling", "plot_network"])  # fmt: skip
def test_functions_of_one_network_say_how_to_pass_a_member(name, tmp_path):
    more = {"export": (tmp_path / "x",), "to_onnx": (tmp_path / "x",), "fold_input_scaling": (0.0, 1.0), "fold_output_scaling": (1.0, 0.0)}  # fmt: skip
    library = {
        "to_equinox": "equinox",
        "to_keras": "keras",
        "to_onnx": "onnx",
        "to_torch_state_dict": "torch",
    }
    pytest.importorskip(library.get(name, "numpy"))
    remedy = (
        "fold each network, then stack them"
        if "fold" in name
        else r"pass a member, such as the first, jax.tree.map\("
    )
    place = next(module for module in (jaxneuron, convert, jaxneuron.plot) if hasattr(module, name))
    with pytest.raises(
        ValueError, match=rf"^{name}: mlp must be one network, got a stack of 4 networks; {remedy}"
    ):
        getattr(place, name)(stack(), *more.get(name, ()))
