"""Flax linen and NNX, as installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron.convert import from_flax, from_nnx, to_flax_params
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, network, trained

pytest.importorskip("flax", reason="flax is in the extra interop")

from flax import linen, nnx


def forward64(apply, params, x):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        return np.asarray(apply(wide, np.asarray(x, np.float64)))


class Wide(linen.Module):
    """Twelve layers, some square, some not: names from Dense_0 to Dense_11."""

    @linen.compact
    def __call__(self, x):
        for width in (5, 5, 3, 3, 3, 7, 4, 4, 5, 2, 3):
            x = linen.tanh(linen.Dense(width, param_dtype=x.dtype)(x))
        return linen.Dense(2, use_bias=False, param_dtype=x.dtype)(x)


class Nested(linen.Module):
    @linen.compact
    def __call__(self, x):
        return Wide(name="trunk")(x)


def test_linen():
    params = Wide().init(jax.random.key(0), ROWS)
    params = trained(lambda p: jnp.mean((Wide().apply(p, ROWS) - TARGETS) ** 2), params)
    named = params["params"]
    arrays = [
        named[f"Dense_{i}"][n] for i in range(12) for n in ("kernel", "bias") if n in named[f"Dense_{i}"]
    ]
    y = forward64(Wide().apply, params, X)
    for given in (params, named, {"params": {"trunk": named}}):
        mlp = from_flax(given, activation=linen.tanh, final_activation="identity")
        assert_bits(mlp, *arrays)
    assert_outputs(mlp, X, y)
    assert np.array_equal(y, forward64(Nested().apply, {"params": {"trunk": named}}, X))


def test_linen_sequential_has_gaps():
    module = linen.Sequential([linen.Dense(4), linen.relu, linen.Dense(4), linen.relu, linen.Dense(2)])
    params = module.init(jax.random.key(1), ROWS)
    assert sorted(params["params"]) == ["layers_0", "layers_2", "layers_4"]
    mlp = from_flax(params, activation="relu", final_activation="identity")
    assert_outputs(mlp, X, forward64(module.apply, params, X))


def test_nnx_sequential_says_its_activations():
    module = nnx.Sequential(
        nnx.Linear(4, 6, rngs=nnx.Rngs(0)),
        nnx.gelu,
        nnx.Dropout(0.5, deterministic=True),
        nnx.Sequential(nnx.Linear(6, 6, use_bias=False, rngs=nnx.Rngs(1)), nnx.tanh),
        nnx.Linear(6, 2, rngs=nnx.Rngs(2)),
        nnx.softmax,
    )
    graph, state = nnx.split(module)
    params = trained(lambda p: jnp.mean((nnx.merge(graph, p)(ROWS) - TARGETS) ** 2), state)
    module = nnx.merge(graph, params)
    mlp = from_nnx(module)
    assert mlp.activations == ("gelu_tanh", "tanh", "softmax")
    inner = module.layers[3].layers[0]
    first, last = module.layers[0], module.layers[4]
    assert_bits(mlp, first.kernel[...], first.bias[...], inner.kernel[...], last.kernel[...], last.bias[...])
    assert_outputs(mlp, X, forward64(lambda p, x: nnx.merge(graph, p)(x), params, X))


class Custom(nnx.Module):
    def __init__(self, rngs):
        self.linear2 = nnx.Linear(5, 5, rngs=rngs)
        self.linear10 = nnx.Linear(5, 2, rngs=rngs)
        self.linear1 = nnx.Linear(4, 5, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.linear10(nnx.relu(self.linear2(nnx.relu(self.linear1(x)))))


def test_nnx_module_and_state():
    module = Custom(nnx.Rngs(0))
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    y = forward64(lambda p, x: nnx.merge(graph, p, rest)(x), params, X)
    for source in (module, params, nnx.to_pure_dict(params)):
        mlp = from_nnx(source, activation="relu", final_activation="identity")
        assert_outputs(mlp, X, y)
    with pytest.raises(
        ValueError, match=r"from_nnx: activation and final_activation must be given, because only an nnx"
    ):
        from_nnx(module)
    with pytest.raises(
        ValueError, match=r"from_nnx: activations and names must not be given for an nnx.Sequential"
    ):
        from_nnx(nnx.Sequential(module.linear1), activation="relu")
    with pytest.raises(
        ValueError, match=r"from_nnx: module: layers must be nnx.Linear or activations, got Custom"
    ):
        from_nnx(nnx.Sequential(module))


def test_other_layers_are_named():
    class Normed(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.LayerNorm()(linen.Dense(3)(x))

    params = Normed().init(jax.random.key(0), ROWS)
    with pytest.raises(ValueError, match=r"got 'LayerNorm_0/scale'; pass the part that is an MLP"):
        from_flax(params, activation="relu", final_activation="identity")
    conv = linen.Conv(3, (2,)).init(jax.random.key(0), ROWS[None])
    with pytest.raises(ValueError, match=r"from_flax: params: 'kernel' must have two axes, got \(2, 4, 3\)"):
        from_flax(conv, activation="relu", final_activation="identity")


def test_there_and_back():
    mlp = network()

    class Module(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.tanh(linen.Dense(6)(x))
            x = linen.tanh(linen.Dense(6, use_bias=False)(x))
            return linen.tanh(linen.Dense(2)(x))

    params = to_flax_params(mlp)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        assert_outputs(mlp, X, Module().apply(wide, X.astype(np.float64)))
    assert_bits(from_flax(params, activation="tanh", final_activation="tanh"), *jax.tree.leaves(mlp))
