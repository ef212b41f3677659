"""How networks are put together from steps; the readers that need no other library. Those that do: tests/interop."""

import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxneuron import MLP, Affine, convert, gates, mlp_forward
from jaxneuron._math import oracle
from jaxneuron.convert import (
    from_flax,
    from_pairs,
    to_equinox,
    to_flax_params,
    to_keras,
    to_onnx,
)
from jaxneuron.convert._functions import ELU, LeakyReLU, known
from jaxneuron.convert._steps import Scaling, assemble
from jaxneuron.testing._laws import _assert_within
from tests.pools import mlps

RNG = np.random.default_rng(0)
RELU = {"activation": "relu", "final_activation": "identity"}


def normal(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def bits(mlp):
    return [(np.asarray(a).dtype, a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(mlp)]


def dense(n_in, n_out, **extra):
    return {"kernel": normal(n_in, n_out), "bias": normal(n_out), **extra}


# --- truth: what the steps say, in 200 bits, and what the network does ---


def run(steps, x):
    """The steps one after the other, in mpmath; and the same with every sign positive."""
    exact = np.vectorize(oracle.MP.mpf, otypes=[object])
    wide = lambda a: exact(np.asarray(a, np.float64))  # noqa: E731
    x = wide(x)
    size = abs(x)
    for step in steps:
        if isinstance(step, Affine):
            w, b = wide(step.w), wide(np.zeros(step.w.shape[1]) if step.b is None else step.b)
            x, size = x @ w + b, size @ abs(w) + abs(b)
        elif isinstance(step, Scaling):
            mean, scale, shift = map(wide, step)
            x, size = (x - mean) * scale + shift, (size + abs(mean)) * abs(scale) + abs(shift)
        else:  # never steeper than 1, nor above 1 but where z is
            x, size = np.vectorize(oracle.FORMULAS[step], otypes=[object])(x), np.maximum(size, 1)
    return x.astype(np.float64), size.astype(np.float64)


SCALINGS = st.builds(
    Scaling,
    *(st.sampled_from([low, np.array([low, high])]) for low, high in ((0.0, 1.5), (1.0, -0.25), (0.0, 2.0))),
)
STEPS = st.lists(
    st.one_of(
        SCALINGS,
        st.sampled_from(["tanh", "relu", "identity", "sigmoid"]),
        st.builds(
            lambda seed, bias: Affine(
                *np.split(np.random.default_rng(seed).normal(size=(3, 2)), [2])[: 1 + bias]
            ),
            st.integers(0, 9),
            st.booleans(),
        ).map(lambda layer: Affine(layer.w, None if layer.b is None else layer.b[0])),
    ),
    max_size=7,
)


@given(STEPS)
def test_a_network_does_what_its_steps_do(steps):
    x = normal(3, 2)
    mlp = assemble(steps, "test", n_in=2)
    assert all(
        leaf.dtype == (np.float64 if any(isinstance(s, Affine) for s in steps) else np.float32)
        for leaf in jax.tree.leaves(mlp)
    )
    with jax.enable_x64(True):
        found = np.asarray(
            mlp_forward(assemble(steps, "test", n_in=2, dtype="float64"), x.astype(np.float64))
        )
    truth, size = run(steps, x)
    # Each step is folded by at most 8 roundings, summed over 2 inputs and applied by 4, its activation is off by 16.
    _assert_within(found, truth, 30 * (len(steps) + 1) * oracle.U["float64"] * size, np.inf)


def test_scalings_are_rounded_once():
    w, b = normal(3, 2), normal(2)
    one, two = Scaling(scale=np.float64(1) / 3), Scaling(mean=-0.1, scale=7.0)
    folded = assemble([Affine(w, b), one, two], "test").layers[0]
    w64, b64 = w.astype(np.float64), b.astype(np.float64)
    assert np.array_equal(folded.w, (w64 * (one.scale * 7.0)).astype(np.float32))
    assert np.array_equal(folded.b, (b64 * (one.scale * 7.0) + 0.1 * 7.0).astype(np.float32))


def test_scalings_go_before_they_come_after():
    steps = [
        Scaling(1.0, 2.0),
        Affine(normal(2, 2), None),
        Scaling(2.0),
        "tanh",
        Scaling(scale=3.0),
        Affine(normal(2, 1)),
    ]
    mlp = assemble(steps, "test")
    assert [layer.w.shape for layer in mlp.layers] == [(2, 2), (2, 1)]
    assert mlp.activations == ("tanh", "identity")
    assert mlp.layers[1].b is None  # nothing is shifted


def test_what_finds_no_layer_becomes_one():
    mlp = assemble(["relu", Affine(normal(2, 3)), "tanh", "elu", Scaling(0.0, 2.0, 1.0)], "test")
    assert mlp.activations == ("relu", "tanh", "elu", "identity")
    assert [layer.w.shape for layer in mlp.layers] == [(2, 2), (2, 3), (3, 3), (3, 3)]
    assert np.array_equal(mlp.layers[3].w, 2 * np.eye(3))
    assert mlp.layers[3].b.tolist() == [1, 1, 1]
    assert assemble([], "test", n_in=2, like="float16").layers[0].w.dtype == np.float16


@pytest.mark.parametrize(("mean", "layers"), [(16.0, 1), (16.1, 2), (-1e6, 2)])
def test_a_mean_of_many_deviations_stays_by_itself(mean, layers):
    w, b, std = normal(2, 3), normal(3), np.float64(0.5)
    mlp = assemble([Scaling(mean * std, 1 / std), Affine(w, b), "tanh"], "test")
    assert len(mlp.layers) == layers
    x = np.float32(mean * std + std * RNG.normal(size=(9, 2)))
    truth = np.tanh((x.astype(np.float64) - mean * std) / std @ w.astype(np.float64) + b)
    if layers == 2:  # nothing is lost but mean's own rounding: as exact as numbers of ordinary size
        lost = abs(np.float32(mean * std) - mean * std) / std * np.abs(w).sum(0)
        _, error = oracle.mlp([(w / np.float32(std), b)], ["tanh"], x - np.float32(mean * std), "float32")
        assert (np.abs(np.asarray(mlp_forward(mlp, x)) - truth) <= error * 4 / 3 + lost).all()


@given(mlps(activations=["tanh", "relu"], nan=False))
def test_weights_pass_bit_for_bit(mlp):
    for orientation in ("in_out", "out_in"):
        pairs = [(np.asarray(w).T if orientation == "out_in" else w, b) for w, b in mlp.layers]
        again = from_pairs(
            pairs, orientation=orientation, activation=mlp.activation, final_activation=mlp.final_activation
        )
        assert bits(again) == bits(mlp)
        assert again.activations == mlp.activations
    assert bits(from_flax(to_flax_params(mlp), activation="relu", final_activation="relu")) == bits(mlp)


def test_dtype_converts_and_rounds_once():
    w = np.array([[1 + 2**-8 + 2**-30]])  # in bfloat16 above the tie; through float32 it would be the tie
    mlp = from_pairs([(w, [0.1])], orientation="in_out", dtype="bfloat16", **RELU)
    assert mlp.layers[0].w.dtype == mlp.layers[0].b.dtype == jnp.bfloat16
    assert float(mlp.layers[0].w[0, 0]) == 1 + 2**-7
    folded = assemble([Affine(np.float32([[1.0]])), Scaling(scale=1 / 3)], "test", dtype="float64")
    assert float(folded.layers[0].w[0, 0]) == 1 / 3


# --- the rest ---


def test_jax_functions_have_names():
    for function, name in (
        (jax.nn.relu, "relu"),
        (jnp.tanh, "tanh"),
        (jax.nn.gelu, "gelu_tanh"),
        (jax.nn.swish, "silu"),
    ):
        assert known(function) == name
    partial = jax.tree_util.Partial
    assert known(functools.partial(jax.nn.gelu, approximate=False)) == "gelu"
    assert known(functools.partial(jax.nn.leaky_relu, negative_slope=0.2)) == LeakyReLU(0.2)
    assert known(functools.partial(jax.nn.elu, alpha=1.0)) == "elu"
    assert known(jnp.sin) is jnp.sin
    assert known(partial(jax.nn.gelu, approximate=True)).func is jax.nn.gelu


@given(st.floats(-30, 30, width=32), st.sampled_from([0.25, 1.5]))
def test_families_are_their_formulas(z, parameter):
    z32 = np.float32(z)
    leaky = z if z >= 0 else np.float32(parameter) * z
    elu = 3 * (z if z > 0 else parameter * np.expm1(z))
    for found, exact in ((LeakyReLU(parameter)(z32), leaky), (ELU(parameter, 3.0)(z32), elu)):
        assert abs(float(found) - float(exact)) <= 16 * 2**-24 * abs(float(exact)) + 2**-126
    assert hash(ELU(parameter)) == hash(ELU(parameter)) != hash(ELU(2 * parameter))


def test_inside_jit():
    params = {"params": {"Dense_0": dense(2, 3), "Dense_1": dense(3, 1)}}
    f = jax.jit(lambda p, x: mlp_forward(from_flax(p, **RELU), x))
    x = normal(5, 2)
    np.testing.assert_allclose(f(params, x), mlp_forward(from_flax(params, **RELU), x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_pairs([(np.ones((2, 2)), None)], orientation="rows", **RELU), ValueError, "from_pairs: orientation must be 'in_out' for w (n_in, n_out) or 'out_in' for w (n_out, n_in), got 'rows'"),
        (lambda: from_pairs([np.ones((2, 2))], orientation="in_out", **RELU), TypeError, "from_pairs: layer 0 must be a (w, b) pair, got ndarray; pass b=None for no bias"),
        (lambda: from_pairs(None, orientation="in_out", **RELU), TypeError, "from_pairs: pairs must be a sequence of (w, b) pairs, got NoneType; pass a list"),
        (lambda: from_pairs([], orientation="in_out", **RELU), ValueError, "from_pairs: the number of inputs must be known where no layer tells it"),
        (lambda: from_pairs([(np.ones((2, 2)), np.ones(3))], orientation="in_out", **RELU), ValueError, "from_pairs: layer 0: b must have shape (2,)"),
        (lambda: from_pairs([(np.ones((2, 2)), None)], orientation="in_out", dtype="int8", **RELU), TypeError, "from_pairs: dtype must be one of bfloat16, float16, float32, float64, got int8"),
        (lambda: from_pairs([(np.full((1, 1), 1e30), None)], orientation="in_out", dtype="float16", **RELU), ValueError, "from_pairs: w must fit in float16, got 1e+30; convert to a wider dtype"),
        (lambda: from_flax([1], **RELU), TypeError, "from_flax: params must be a mapping, got list; pass nested dicts"),
        (lambda: assemble([Affine(normal(2, 2)), Scaling(np.ones(3))], "test"), ValueError, "test: step 1: mean must have shape (2,) or be one number, got (3,)"),
        (lambda: assemble(["tanh", Affine(np.ones((3000, 1)))], "test"), ValueError, "test: a step on 3000 numbers that no layer takes up needs 3000 x 3000 weights of its own, and 2048 x 2048 are the most; convert the part without it"),
        (lambda: assemble([Affine(np.ones((0, 10**12))), Scaling(2.0)], "test"), ValueError, "test: layer 0: w must hold numbers, got none in (0, 1000000000000)"),
        (lambda: assemble([Scaling(np.ones(3)), Scaling(np.ones(2))], "test"), ValueError, "test: step 1: mean must have shape (3,) or be one number, got (2,)"),
        (lambda: assemble(["softmax", Affine(normal(2, 2))], "test"), ValueError, "test: softmax must come last"),
        (lambda: to_flax_params(gates.AND), TypeError, "to_flax_params: mlp must be an MLP, got Affine; pass MLP([layer]) for a layer"),
        (lambda: to_flax_params(jax.tree.map(lambda a: np.stack([a, a]), gates.XOR)), ValueError, "evaluate stacked networks with jax.vmap"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("flax", lambda: convert.from_nnx(None), "from_nnx: needs the flax library; pip install flax"),
        ("equinox", lambda: convert.from_equinox(None), "from_equinox: needs the equinox library; pip install equinox"),
        ("equinox", lambda: to_equinox(gates.XOR), "to_equinox: needs the equinox library; pip install equinox"),
        ("onnx", lambda: convert.from_onnx("a.onnx"), "from_onnx: needs the onnx library; pip install 'jaxneuron[onnx]'"),
        ("onnx", lambda: to_onnx(gates.XOR, "a.onnx"), "to_onnx: needs the onnx library; pip install 'jaxneuron[onnx]'"),
        ("h5py", lambda: convert.from_keras("a.keras"), "from_keras: needs the h5py library; pip install 'jaxneuron[keras]'"),
        ("keras", lambda: to_keras(gates.XOR), "to_keras: needs the keras library and its backend (import of keras halted"),
        ("flatbuffers", lambda: convert.export(gates.XOR, "a"), "export: needs the flatbuffers library; pip install 'jaxneuron[export]'"),
        ("flatbuffers", lambda: convert.load_exported("a"), "load_exported: needs the flatbuffers library; pip install 'jaxneuron[export]'"),
        ("torch", lambda: convert.to_torch_state_dict(gates.XOR), "to_torch_state_dict: needs PyTorch; pip install torch"),
    ],
)  # fmt: skip
def test_without_the_library(monkeypatch, module, call, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=re.escape(message)):
        call()


PUBLIC = [
    "export", "from_brax", "from_equinox", "from_flax", "from_haiku", "from_keras", "from_nnx", "from_onnx",
    "from_pairs", "from_sklearn", "from_torch", "load_exported", "to_equinox", "to_flax_params", "to_keras", "to_onnx",
    "to_torch_state_dict",
]  # fmt: skip


def test_public_names():
    assert sorted(convert.__all__) == PUBLIC
    assert all(getattr(convert, name).__doc__ for name in PUBLIC)
    assert isinstance(from_pairs([([[1.0]], None)], orientation="in_out", **RELU), MLP)
