"""Equinox, as installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron._names import BY_NAME
from jaxneuron.convert import from_equinox, to_equinox
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, network, trained

equinox = pytest.importorskip("equinox", reason="equinox is in the extra interop")
nn, KEY = equinox.nn, jax.random.key(0)


def fitted(module):
    arrays, rest = equinox.partition(module, equinox.is_array)
    loss = lambda a: jnp.mean((jax.vmap(equinox.combine(a, rest))(ROWS) - TARGETS) ** 2)  # noqa: E731
    return equinox.combine(trained(loss, arrays), rest)


def forward64(module, x):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64) if equinox.is_array(a) else a, module)
        return np.asarray(jax.vmap(wide)(np.asarray(x, np.float64)))


@pytest.mark.parametrize("scan", [False, True])
def test_mlp(scan):
    module = fitted(nn.MLP(4, 2, 6, 3, activation=jnp.tanh, scan=scan, key=KEY))
    mlp = from_equinox(module)
    assert mlp.activations == ("tanh", "tanh", "tanh", "identity")
    layers = module.layers
    if scan:
        layers = [layers[0], *(jax.tree.map(lambda a, i=i: a[i], layers[1]) for i in range(2)), layers[2]]
    assert_bits(mlp, *(a for layer in layers for a in (layer.weight.T, layer.bias)))
    assert_outputs(mlp, X, forward64(module, X))


def test_the_defaults_have_names():
    assert from_equinox(nn.MLP(4, 2, 6, 1, key=KEY)).activations == ("relu", "identity")
    assert from_equinox(nn.MLP("scalar", "scalar", 3, 0, use_final_bias=False, key=KEY)).layers[0].b is None


def test_sequential():
    keys = jax.random.split(KEY, 3)
    module = fitted(
        nn.Sequential([
            nn.Linear(4, 5, key=keys[0]), nn.Lambda(jax.nn.silu), nn.Dropout(0.5, inference=True),
            nn.Linear(5, 5, use_bias=False, key=keys[1]), nn.Lambda(jax.nn.sigmoid), nn.Identity(),
            nn.Linear(5, 2, key=keys[2]), nn.Lambda(jax.nn.softmax),
        ])
    )  # fmt: skip
    mlp = from_equinox(module)
    assert mlp.activations == ("silu", "sigmoid", "softmax")
    one, two, three = (layer for layer in module.layers if isinstance(layer, nn.Linear))
    assert_bits(mlp, one.weight.T, one.bias, two.weight.T, three.weight.T, three.bias)
    assert_outputs(mlp, X, forward64(module, X))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_there_and_back(name):
    mlp = network(name)
    module = to_equinox(mlp)
    assert_bits(from_equinox(module), *jax.tree.leaves(mlp))
    assert from_equinox(module).activations == mlp.activations
    assert_outputs(mlp, X, forward64(module, X))


def test_refusals():
    with pytest.raises(
        ValueError, match=r"from_equinox: module: activations must have no parameters, got PReLU"
    ):
        from_equinox(nn.MLP(4, 2, 6, 1, activation=nn.PReLU(), key=KEY))
    with pytest.raises(
        ValueError,
        match=r"from_equinox: module: layers must be Linear, Lambda, or an MLP or Sequential of them, got LayerNorm; pass",
    ):
        from_equinox(nn.Sequential([nn.LayerNorm(3)]))
