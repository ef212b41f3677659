"""Haiku, as installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron.convert import from_haiku
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, trained

haiku = pytest.importorskip("haiku", reason="dm-haiku is in the extra interop")


def by_hand(x):
    for width in (5, 5, 3):
        x = jnp.tanh(haiku.Linear(width)(x))
    return haiku.Linear(2, with_bias=False)(x)


NETWORKS = {
    "mlp": (lambda x: haiku.nets.MLP((5, 5, 3, 2), activation=jnp.tanh)(x), "mlp/~/linear_{}", True),
    "linears": (by_hand, "linear_{}", False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_haiku(name):
    function, names, biased = NETWORKS[name]
    module = haiku.without_apply_rng(haiku.transform(function))
    params = module.init(jax.random.key(0), ROWS)
    params = trained(lambda p: jnp.mean((module.apply(p, ROWS) - TARGETS) ** 2), params)
    params = dict(reversed(params.items()))  # the order of a dict says nothing
    mlp = from_haiku(params, activation="tanh", final_activation="identity")
    layers = [params[names.format(i)] if biased or i else params["linear"] for i in range(4)]
    assert_bits(mlp, *(layer[n] for layer in layers for n in ("w", "b") if n in layer))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        y = np.asarray(module.apply(wide, X.astype(np.float64)))
    assert_outputs(mlp, X, y)
