"""The policies that Brax trains, tested without Brax; tests/interop/test_brax.py tests them with it."""

import itertools
import re
import types

import numpy as np
import pytest

from jaxneuron import Affine, mlp_forward
from jaxneuron._math import oracle
from jaxneuron.convert import from_brax
from jaxneuron.convert._scalings import Scaling
from tests.convert.networks import bits, dense, normal, run


class Normalizer:
    """The two fields of Brax's RunningStatisticsState that Brax's normalisation reads."""

    def __init__(self, mean, std):
        self.mean, self.std = mean, std


def policy(*sizes):
    return {"params": {f"hidden_{i}": dense(*pair) for i, pair in enumerate(itertools.pairwise(sizes))}}


def test_a_policy_is_read_with_its_normalizer():
    params = policy(3, 5, 5, 4)
    normalizer = Normalizer(normal(3), 1 + normal(3) ** 2)
    value = policy(3, 1)
    mlp = from_brax((normalizer, params, value), activation="silu")
    assert mlp.activations == ("silu", "silu", "tanh")
    x = normal(4, 3)
    steps = [Scaling(normalizer.mean, 1 / normalizer.std.astype(np.float64))]
    for i in range(3):
        layer = params["params"][f"hidden_{i}"]
        steps += [Affine(layer["kernel"], layer["bias"]), "silu" if i < 2 else "identity"]
    truth = np.tanh(run(steps, x)[0][:, :2])
    _, error = oracle.mlp(mlp.layers, mlp.activations, x, "float32")
    assert (np.abs(np.asarray(mlp_forward(mlp, x)) - truth) <= error * 4 / 3).all()
    several = Normalizer({"state": normalizer.mean, "extra": None}, {"state": normalizer.std, "extra": None})
    assert bits(from_brax((several, params), activation="silu", obs_key="state")) == bits(mlp)


@pytest.mark.parametrize(
    "spread", [{"std_param": {"value": normal(2)}}, {"std_logparam": {"log_value": normal(2)}}, {"Dense_1": dense(5, 2)}]
)  # fmt: skip
def test_a_policy_with_a_normal_distribution_is_read(spread):
    """With distribution_type="normal" the actions are the outputs of a separate layer, without a tanh."""
    hidden, mean = policy(3, 5, 5)["params"], dense(5, 2)
    params = {"params": {"MLP_0": hidden, "Dense_0": mean, **spread}}
    unscaled = types.SimpleNamespace(mean=0.0, std=1.0)
    rows = normal(6, 3)
    y = rows
    for layer in hidden.values():
        y = np.maximum(y @ layer["kernel"] + layer["bias"], 0)
    actions = y @ mean["kernel"] + mean["bias"]
    mlp = from_brax((unscaled, params), activation="relu", check=(rows, actions))
    assert mlp.activations == ("relu", "relu", "identity")
    assert bits(mlp) == bits([array for layer in (*hidden.values(), mean) for array in layer.values()])
    hidden["LayerNorm_0"] = {"scale": normal(5), "bias": normal(5)}
    with pytest.raises(ValueError, match=r"got 'LayerNorm_0/scale'; only policies of dense layers are read"):
        from_brax((unscaled, params), activation="relu")


def test_check_finds_a_normalizer_that_the_policy_does_not_use():
    """Brax returns a normalizer also if normalize_observations=False, its default."""
    params, rows = policy(3, 5, 4), 1 + normal(6, 3)
    given = (Normalizer(1 + normal(3), 1 + normal(3) ** 2), params)
    unscaled = (types.SimpleNamespace(mean=0.0, std=1.0), params)
    layers = params["params"].values()
    (w0, b0), (w1, b1) = (layer.values() for layer in layers)
    actions = np.tanh(np.maximum(rows @ w0 + b0, 0) @ w1[:, :2] + b1[:2])
    assert from_brax(unscaled, activation="relu", check=(rows, actions))
    with pytest.raises(
        ValueError, match=r"^from_brax: check must hold what the network gives, got outputs that"
    ):
        from_brax(given, activation="relu", check=(rows, actions))
    scaled = ((rows.astype(np.float64) - given[0].mean) / given[0].std).astype(np.float32)
    actions = np.tanh(np.maximum(scaled @ w0 + b0, 0) @ w1[:, :2] + b1[:2])
    assert from_brax(given, activation="relu", check=(rows, actions))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ((1,), "from_brax: params must be (normalizer, policy, value) or (normalizer, policy), got tuple; pass what the training function returned"),
        ((Normalizer({"state": 1}, 1), policy(3, 2)), "from_brax: obs_key must be one of 'state', got None; pass the observations that the policy sees"),
        ((None, policy(3, 2)), "from_brax: params[0] must be a normalizer with mean and std, got NoneType; use from_flax on the policy"),
        ((Normalizer(normal(3), normal(3)), {"params": {"hidden_0": {"kernel": normal(5, 3, 2), "bias": normal(5, 2)}}}), "from_brax: params[1]: 'hidden_0/kernel' must have two axes, got (5, 3, 2); convert one member of an ensemble at a time"),
        ((Normalizer(normal(3), normal(3)), policy(3, 3)), "from_brax: params[1] must have an even number of outputs, location and spread of each action, got 3"),
        ((Normalizer(normal(3), np.zeros(3)), policy(3, 2)), "from_brax: params: step 0: scale must be finite, got inf"),
        ((Normalizer(normal(2), 1 + normal(2) ** 2), policy(3, 2)), "from_brax: params: step 0: mean must have shape (3,) or be one number, got (2,)"),
    ],
)  # fmt: skip
def test_bad_policies_are_refused(params, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_brax(params, activation="silu")
