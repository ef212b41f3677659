"""Brax's own networks, normaliser and deterministic policy, if Brax is installed (.ci/run installs it)."""

import types

import jax
import numpy as np
import pytest

from jaxneuron.convert import from_brax
from tests.interop.exact import assert_bits, assert_outputs

pytest.importorskip("brax", reason="only .ci/run installs brax, because MuJoCo is large")

from brax.training.acme import running_statistics, specs
from brax.training.agents.ppo import networks as ppo
from brax.training.agents.sac import networks as sac


@pytest.mark.parametrize("noise", ["scalar", "log", "state"])
def test_a_policy_with_a_normal_distribution_is_read(noise):
    given = {"state_dependent_std": True} if noise == "state" else {"noise_std_type": noise}
    networks = ppo.make_ppo_networks(
        {"state": (6,), "privileged_state": (9,)}, 3, policy_hidden_layer_sizes=(8, 8),
        preprocess_observations_fn=running_statistics.normalize, distribution_type="normal", **given,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    seen = {name: 5 + 2 * rng.normal(size=(200, n)).astype(np.float32) for name, n in (("state", 6), ("privileged_state", 9))}  # fmt: skip
    normalizer = running_statistics.init_state(
        {name: specs.Array(rows.shape[1:], np.dtype("float32")) for name, rows in seen.items()}
    )
    normalizer = running_statistics.update(normalizer, seen)
    params = normalizer, networks.policy_network.init(jax.random.key(0)), None
    actions, _ = ppo.make_inference_fn(networks)(params, deterministic=True)(seen, jax.random.key(0))
    check = seen["state"], actions
    assert from_brax(params, activation="silu", obs_key="state", check=check).final_activation == "identity"


@pytest.mark.parametrize(("agent", "activation"), [(ppo, "silu"), (sac, "relu")], ids=["ppo", "sac"])
def test_policies_of_ppo_and_sac_are_read(agent, activation):
    make, inference = {
        ppo: (ppo.make_ppo_networks, ppo.make_inference_fn),
        sac: (sac.make_sac_networks, sac.make_inference_fn),
    }[agent]
    sizes = {ppo: "policy_hidden_layer_sizes", sac: "hidden_layer_sizes"}[agent]
    networks = make(6, 3, preprocess_observations_fn=running_statistics.normalize, **{sizes: (16, 16, 8)})
    params = networks.policy_network.init(jax.random.key(0))
    rows = 5 + 2 * np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    normalizer = running_statistics.init_state(specs.Array((6,), np.dtype("float32")))
    normalizer = running_statistics.update(normalizer, rows)
    given = (normalizer, params) if agent is sac else (normalizer, params, None)
    mlp = from_brax(given, activation=activation)
    inner = list(mlp.layers[1:-1])
    assert inner
    assert_bits([tuple(layer) for layer in inner], *(
        params["params"][f"hidden_{i + 1}"][name] for i in range(len(inner)) for name in ("kernel", "bias")
    ))  # fmt: skip
    x = rows[:2]
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda a: np.asarray(a, np.float64) if np.asarray(a).dtype == np.float32 else a, given
        )
        y, _ = inference(networks)(wide, deterministic=True)(x.astype(np.float64), jax.random.key(0))
        assert_outputs(mlp, x, np.asarray(y), folded=True)
    actions, _ = inference(networks)(given, deterministic=True)(rows, jax.random.key(0))
    assert from_brax(given, activation=activation, check=(rows, actions))
    unscaled = (types.SimpleNamespace(mean=0.0, std=1.0), params)
    with pytest.raises(ValueError, match="check must hold what the network gives"):
        from_brax(unscaled, activation=activation, check=(rows, actions))
    plain = make(6, 3, **{sizes: (16, 16, 8)})  # like normalize_observations=False
    actions, _ = inference(plain)(given, deterministic=True)(rows, jax.random.key(0))
    assert from_brax(unscaled, activation=activation, check=(rows, actions))
    with pytest.raises(ValueError, match="check must hold what the network gives"):
        from_brax(given, activation=activation, check=(rows, actions))
