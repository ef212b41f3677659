"""The installed Flax NNX: modules, states and stacks of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import mlp_forward
from jaxneuron.convert import from_nnx
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, trained

pytest.importorskip("flax", reason="flax is in the extra interop")

from flax import nnx

from tests.interop.nnx_modules import GIVEN, forward64


def test_a_sequential_is_read_with_its_activations():
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


def test_modules_and_states_give_the_same_network():
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
        ValueError,
        match=r"from_nnx: module: layers must be nnx.Linear, nnx.BatchNorm or activations, got Custom",
    ):
        from_nnx(nnx.Sequential(module))


# --- stacks ---


def make(key):
    rngs = nnx.Rngs(key)
    return nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), nnx.tanh, nnx.Linear(4, 4, rngs=rngs), nnx.relu)


class Scanned(nnx.Module):
    def __init__(self):
        self.a = nnx.Linear(4, 5, rngs=nnx.Rngs(0))
        self.b = nnx.vmap(lambda key: nnx.Linear(5, 5, rngs=nnx.Rngs(key)))(
            jax.random.split(jax.random.key(1), 3)
        )
        self.c = nnx.Linear(5, 2, rngs=nnx.Rngs(2))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def block(layer, x):
            return nnx.relu(layer(x))

        return self.c(block(self.b, nnx.relu(self.a(x))))


def test_members_of_an_ensemble_are_stacked():
    ensemble = nnx.vmap(make)(jax.random.split(jax.random.key(0), 3))
    y = nnx.vmap(lambda module, x: module(x), in_axes=(0, None))(ensemble, X)
    for source, given in (
        (ensemble, {}),
        (nnx.state(ensemble), {"activation": "tanh", "final_activation": "relu"}),
    ):
        with pytest.raises(
            ValueError, match=r"must have (kernels of )?two axes, got \(3, 4, 4\).*; pass stacked='members'"
        ):
            from_nnx(source, **given)
        stack = from_nnx(source, stacked="members", **given)
        np.testing.assert_allclose(jax.vmap(mlp_forward, (0, None))(stack, X), y, rtol=1e-5, atol=1e-6)
    in_turn = from_nnx(ensemble, stacked="layers")  # the same module, as layers
    x = X
    for i in range(3):
        x = nnx.merge(nnx.graphdef(ensemble), jax.tree.map(lambda a, i=i: a[i], nnx.state(ensemble)))(x)
    np.testing.assert_allclose(mlp_forward(in_turn, X), x, rtol=1e-5, atol=1e-6)


def test_scanned_layers_are_read_in_turn():
    module = Scanned()
    given = {"layers": ["a", "b", "c"], **GIVEN}
    with pytest.raises(
        ValueError, match=r"'b/kernel' must have two axes, got \(3, 5, 5\); pass stacked='members'"
    ):
        from_nnx(module, **given)
    mlp = from_nnx(module, stacked="layers", **given)  # compared with the module
    assert len(mlp.layers) == 5
    np.testing.assert_allclose(mlp_forward(mlp, X), module(X), rtol=1e-5, atol=1e-6)


# --- inside a trace ---


def test_from_nnx_reads_tracers_and_arrays_inside_jit():
    module = make(jax.random.key(0))
    graph, state = nnx.split(module)
    kept = []

    @jax.jit
    def forward(state, x):
        kept.append(from_nnx(module))
        return mlp_forward(from_nnx(nnx.merge(graph, state)), x), mlp_forward(kept[0], x)

    for y in (*forward(state, X), mlp_forward(kept[0], X)):
        np.testing.assert_allclose(y, module(X), rtol=1e-5, atol=1e-6)


class ActorCritic(nnx.Module):
    def __init__(self, rngs):
        self.torso, self.mean = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)
        self.value, self.norm = nnx.Linear(6, 1, rngs=rngs), nnx.LayerNorm(6, rngs=rngs)
        self.log_std = nnx.Param(jnp.zeros(2))

    def __call__(self, x):
        hidden = jnp.tanh(self.torso(x))
        return jnp.concatenate([self.mean(hidden), self.value(hidden)], axis=-1)


def test_only_named_layers_are_read():
    module, given = ActorCritic(nnx.Rngs(0)), {"activation": "tanh", "final_activation": "identity"}
    check = X, module(X)[:, :2]
    for source in (module, nnx.state(module)):
        assert from_nnx(source, layers=["torso", "mean"], check=check, **given)
        assert from_nnx(
            source, layers=["torso", "mean"], outputs=slice(1), check=(X, check[1][:, :1]), **given
        )
    with pytest.raises(
        ValueError, match=r"^from_nnx: module must compute what its layers say, got outputs of"
    ):
        from_nnx(module, layers=["torso", "mean"], **given)
    with pytest.raises(
        ValueError, match=r"^from_nnx: module must hold its weights in nnx.Linear, got 'norm/"
    ):
        from_nnx(module, layers=["torso", "norm"], **given)
    net = nnx.Sequential(nnx.Linear(4, 6, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(6, 3, rngs=nnx.Rngs(1)))
    assert from_nnx(net, outputs=slice(2)).layers[-1].w.shape == (6, 2)
