"""Networks as the other libraries' own: what they compute, and back."""

import jax
import numpy as np
import pytest

from jaxneuron import MLP, Affine, init_mlp, mlp_forward
from jaxneuron._activations import BY_NAME
from jaxneuron.convert import from_equinox, from_flax, from_keras, to_equinox, to_flax_params, to_keras
from tests.interop.exact import X, assert_bits, assert_outputs

keras = pytest.importorskip("keras", reason="keras is in the extra interop")
equinox = pytest.importorskip("equinox", reason="equinox is in the extra interop")
linen = pytest.importorskip("flax.linen", reason="flax is in the extra interop")


def network(name="tanh", sizes=(4, 6, 6, 2)):
    mlp = init_mlp(
        jax.random.key(0), sizes, activation="relu" if name == "softmax" else name, final_activation=name
    )
    return MLP((mlp.layers[0], Affine(mlp.layers[1].w), *mlp.layers[2:]), mlp.activation, name)


def test_flax():
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


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_equinox(name):
    mlp = network(name)
    module = to_equinox(mlp)
    assert_bits(from_equinox(module), *jax.tree.leaves(mlp))
    assert from_equinox(module).activations == mlp.activations
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64) if equinox.is_array(a) else a, module)
        assert_outputs(mlp, X, jax.vmap(wide)(X.astype(np.float64)))


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"gelu_tanh", "cr_sigmoid", "cr_tanh"}))
def test_keras(name):
    mlp = network(name)
    model = to_keras(mlp)
    again = from_keras(model)
    assert_bits(again, *jax.tree.leaves(mlp))
    assert again.activations == mlp.activations
    np.testing.assert_allclose(model(X), mlp_forward(mlp, X), rtol=2e-5, atol=2e-6)


def test_refusals():
    with pytest.raises(
        ValueError, match=r"to_keras: activations must be one of .*, got 'gelu_tanh'; export runs any"
    ):
        to_keras(network("gelu_tanh"))
