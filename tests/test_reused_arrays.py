"""NumPy arrays belong to their owner again as soon as a call has returned, whatever it made of them.

XLA on a CPU does not copy an array that stands at a multiple of 64 bytes. It reads that array where it is, often
after the call that started it has returned.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxneuron
from jaxneuron import MLP, Affine, LeakyReLU, RowEvaluator, affine, mlp_forward, neuron, stack_neurons
from jaxneuron._names import BY_NAME
from jaxneuron.convert import export, from_flax, from_pairs, from_torch, load_exported
from tests.pools import VALUES

RNG = np.random.default_rng(0)
ROWS, WIDE, NARROW = RNG.normal(size=(20_000, 64)), RNG.normal(size=(64, 64)), RNG.normal(size=64)


def in_place(array):
    """A float32 copy of `array` that XLA reads where it is."""
    memory = np.empty(4 * array.size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + 4 * array.size].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy


def layers(w, b):
    return MLP([(w, b), (w, b), (w, b)], activation="tanh")


X = jnp.asarray(ROWS, jnp.float32)
LAYERS = layers(jnp.asarray(WIDE, jnp.float32), jnp.asarray(NARROW, jnp.float32))
CALLS = {
    **{f"{name} of rows": (function, (ROWS,)) for name, function in BY_NAME.items()},
    **{f"{value} of rows": (value, (ROWS,)) for value in (*VALUES, LeakyReLU(0.01))},
    "affine, rows": (lambda x: affine(LAYERS.layers[0], x), (ROWS,)),
    "affine, layer": (lambda w, b: affine((w, b), X), (WIDE, NARROW)),
    "neuron, rows": (lambda x: neuron(LAYERS.layers[0], x), (ROWS,)),
    "neuron, layer": (lambda w, b: neuron((w, b), X), (WIDE, NARROW)),
    "mlp_forward, rows": (lambda x: mlp_forward(LAYERS, x), (ROWS,)),
    "mlp_forward, layers": (lambda w, b: mlp_forward(layers(w, b), X), (WIDE, NARROW)),
    "mlp_forward, one bias": (
        lambda b: mlp_forward(MLP([*LAYERS.layers[:2], (LAYERS.layers[2].w, b)]), X),
        (NARROW,),
    ),
    "mlp_value_and_jacobian, rows": (lambda x: jaxneuron.mlp_value_and_jacobian(LAYERS, x), (ROWS[:2000],)),
    "mlp_value_and_jacobian, layers": (
        lambda w, b: jaxneuron.mlp_value_and_jacobian(layers(w, b), X[:2000]),
        (WIDE, NARROW),
    ),
    "mlp_laplacian, rows": (lambda x: jaxneuron.mlp_laplacian(LAYERS, x), (ROWS[:2000],)),
    "stack_neurons": (lambda b: stack_neurons([Affine(b, np.float32(0))] * 2), (NARROW,)),
    "from_pairs": (
        lambda w, b: from_pairs([(w, b)], orientation="in_out", activation="relu", final_activation="relu"),
        (WIDE, NARROW),
    ),
    "from_flax": (
        lambda w, b: from_flax(
            {"Dense_0": {"kernel": w, "bias": b}}, activation="relu", final_activation="relu"
        ),
        (WIDE, NARROW),
    ),
    "from_torch": (
        lambda w, b: from_torch({"0.weight": w, "0.bias": b}, activation="relu", final_activation="relu"),
        (WIDE, NARROW),
    ),
    "RowEvaluator": (lambda w, b: RowEvaluator(layers(w, b)).mlp, (WIDE, NARROW)),
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_can_be_overwritten_after_a_call(name):
    call, arrays = CALLS[name]
    expected = jax.device_get(call(*(jnp.asarray(array, jnp.float32) for array in arrays)))
    lent = [in_place(array) for array in arrays]
    found = call(*lent)
    for array in lent:
        array[...] = np.nan
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


@pytest.mark.parametrize("weights", ["inside", "arguments"])
def test_arrays_can_be_overwritten_after_a_call_of_an_exported_program(tmp_path, weights):
    pytest.importorskip("flatbuffers")
    export(LAYERS, tmp_path / "m.stablehlo", weights=weights)
    run, x = load_exported(tmp_path / "m.stablehlo"), in_place(ROWS)
    lent = [in_place(np.asarray(leaf)) for leaf in jax.tree.leaves(LAYERS)]
    given = [lent] if weights == "arguments" else []
    expected = jax.device_get(run(*given, X))
    found = run(*given, x)
    for array in (x, *lent):
        array[...] = np.nan
    np.testing.assert_array_equal(found, expected)
