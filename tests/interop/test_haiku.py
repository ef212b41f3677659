"""Networks from the installed Haiku."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import mlp_forward
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
def test_networks_are_read_with_their_bits(name):
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


GIVEN = {"activation": "tanh", "final_activation": "identity"}


def module(function):
    return haiku.without_apply_rng(haiku.transform(function))


def test_layers_created_in_another_order_than_called_warn():
    net = module(lambda x: haiku.Linear(4)(jnp.tanh(haiku.Linear(4)(x))))
    params = net.init(jax.random.key(0), X)
    check = X, net.apply(params, X)
    with pytest.warns(UserWarning, match=r"params: 'linear', 'linear_1' are numbered as they were created"):
        from_haiku(params, **GIVEN)
    with pytest.raises(
        ValueError, match=r"^from_haiku: check must hold what the network gives, got outputs that"
    ):
        from_haiku(params, check=check, **GIVEN)
    assert from_haiku(params, layers=["linear_1", "linear"], check=check, **GIVEN)


def test_an_actor_and_a_critic_are_not_read_as_one_network():
    net = module(
        lambda x: (haiku.nets.MLP((5, 2), name="actor")(x), haiku.nets.MLP((5, 1), name="critic")(x))
    )
    params = net.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"or the part that is one network, such as what is under 'actor'$"):
        from_haiku(params, **GIVEN)
    actor = from_haiku(
        haiku.data_structures.filter(lambda name, *_: name.startswith("actor"), params), **GIVEN
    )
    assert_bits(actor, *(params[f"actor/~/linear_{i}"][n] for i in range(2) for n in ("w", "b")))


def test_stacked_members_and_layers_are_read():
    def scanned(x):
        x = jnp.tanh(haiku.Linear(5)(x))
        x = haiku.experimental.layer_stack(3)(lambda x: jnp.tanh(haiku.Linear(5)(x)))(x)
        return haiku.Linear(2)(x)

    net = module(lambda x: haiku.nets.MLP((5, 2), activation=jnp.tanh)(x))
    params = jax.vmap(net.init, (0, None))(jax.random.split(jax.random.key(0), 3), X)
    with pytest.raises(
        ValueError, match=r"'mlp/~/linear_0/w' must have two axes, got \(3, 4, 5\); pass stacked="
    ):
        from_haiku(params, **GIVEN)
    y = jax.vmap(net.apply, (0, None))(params, X)
    stack = from_haiku(params, stacked="members", **GIVEN)
    np.testing.assert_allclose(jax.vmap(mlp_forward, (0, None))(stack, X), y, rtol=1e-5, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"^from_haiku: check must be left out for members, whose outputs differ"
    ):
        from_haiku(params, stacked="members", check=(X, y), **GIVEN)

    net = module(scanned)
    params = net.init(jax.random.key(0), X)
    (name,) = (name for name in params if "layer_stack" in name)
    given = {"layers": ["linear", name, "linear_1"], "stacked": "layers", **GIVEN}
    assert len(from_haiku(params, check=(X, net.apply(params, X)), **given).layers) == 5
