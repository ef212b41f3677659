"""State dicts as collections of trained policies have them: an actor beside a critic and standard deviations.

The modules have the names and shapes of stable-baselines3's, CleanRL's and RSL-RL's. Their own actors, called
by PyTorch, compute the actions that the network must compute too.
"""

from itertools import pairwise

import jax
import numpy as np
import pytest

from jaxneuron import load
from jaxneuron.cli import main
from jaxneuron.convert import from_torch
from tests.interop.exact import assert_bits, assert_outputs

torch = pytest.importorskip("torch", reason="PyTorch is in the extra bench")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

N_OBS, N_ACT, N = 5, 2, 8
ROWS = np.random.default_rng(0).normal(size=(6, N_OBS)).astype(np.float32)


def mlp(*sizes, activation=nn.Tanh, last=True):
    """Linear layers with activations between them, and after the last one unless `last`."""
    parts = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), activation())]
    return nn.Sequential(*(parts[:-1] if last else parts))


class StableBaselinesPPO(nn.Module):
    layers = ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net")
    activations = ("tanh", "identity")

    def __init__(self):
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(N_ACT))
        self.mlp_extractor = nn.Module()
        self.mlp_extractor.policy_net = mlp(N_OBS, N, N, last=False)
        self.mlp_extractor.value_net = mlp(N_OBS, N, N, last=False)
        self.action_net, self.value_net = nn.Linear(N, N_ACT), nn.Linear(N, 1)

    def act(self, x):
        return self.action_net(self.mlp_extractor.policy_net(x))


class StableBaselinesSAC(nn.Module):
    layers = ("actor.latent_pi.0", "actor.latent_pi.2", "actor.mu")
    activations = ("relu", "tanh")

    def __init__(self):
        super().__init__()
        self.actor = nn.Module()
        self.actor.latent_pi = mlp(N_OBS, N, N, activation=nn.ReLU, last=False)
        self.actor.mu, self.actor.log_std = nn.Linear(N, N_ACT), nn.Linear(N, N_ACT)
        self.critic = nn.Module()
        self.critic.qf0 = mlp(N_OBS + N_ACT, N, N, 1, activation=nn.ReLU)

    def act(self, x):
        return torch.tanh(self.actor.mu(self.actor.latent_pi(x)))


class CleanRLPPO(nn.Module):
    layers = ("actor_mean.0", "actor_mean.2", "actor_mean.4")
    activations = ("tanh", "identity")

    def __init__(self):
        super().__init__()
        self.critic, self.actor_mean = mlp(N_OBS, N, N, 1), mlp(N_OBS, N, N, N_ACT)
        self.actor_logstd = nn.Parameter(torch.zeros(1, N_ACT))

    def act(self, x):
        return self.actor_mean(x)


class CleanRLSAC(nn.Module):
    layers = ("fc1", "fc2", "fc_mean")
    activations = ("relu", "tanh")

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(N_OBS, N), nn.Linear(N, N)
        self.fc_mean, self.fc_logstd = nn.Linear(N, N_ACT), nn.Linear(N, N_ACT)
        self.register_buffer("action_scale", torch.ones(N_ACT))
        self.register_buffer("action_bias", torch.zeros(N_ACT))

    def act(self, x):
        y = torch.relu(self.fc2(torch.relu(self.fc1(x))))
        return torch.tanh(self.fc_mean(y)) * self.action_scale + self.action_bias


class RSLRL(nn.Module):
    layers = ("actor.0", "actor.2", "actor.4", "actor.6")
    activations = ("elu", "identity")

    def __init__(self):
        super().__init__()
        self.actor = mlp(N_OBS, N, N, N, N_ACT, activation=nn.ELU)
        self.critic = mlp(N_OBS, N, N, N, 1, activation=nn.ELU)
        self.std = nn.Parameter(torch.ones(N_ACT))

    def act(self, x):
        return self.actor(x)


class RSLRLModel(nn.Module):
    """The newer form: the actor alone, in `actor_state_dict`."""

    layers = ("mlp.0", "mlp.2")
    activations = ("elu", "identity")

    def __init__(self):
        super().__init__()
        self.mlp, self.distribution = mlp(N_OBS, N, N_ACT, activation=nn.ELU), nn.Module()
        self.distribution.std_param = nn.Parameter(torch.ones(N_ACT))

    def act(self, x):
        return self.mlp(x)


POLICIES = [StableBaselinesPPO, StableBaselinesSAC, CleanRLPPO, CleanRLSAC, RSLRL, RSLRLModel]


@pytest.mark.parametrize("kind", POLICIES, ids=lambda kind: kind.__name__)
def test_the_actor_of_a_policy_is_read(kind, tmp_path, capsys):
    torch.manual_seed(0)
    policy, path = kind(), tmp_path / "policy.safetensors"
    hidden, final = kind.activations
    given = {"layers": list(kind.layers), "activation": hidden, "final_activation": final}
    state = policy.state_dict()
    save_file(state, path)
    with torch.no_grad():
        actions = policy.act(torch.from_numpy(ROWS))
        exact = policy.double().act(torch.from_numpy(ROWS.astype(np.float64))).numpy()
    policy.float()
    for source in (state, path):
        actor = from_torch(source, check=(ROWS, actions), **given)
        arrays = [state[f"{name}.{part}"].numpy() for name in kind.layers for part in ("weight", "bias")]
        assert_bits(actor, *(array.T for array in arrays))
        assert_outputs(actor, ROWS, exact)
        one = from_torch(source, check=(ROWS, actions[:, 1:]), outputs=slice(1, None), **given)
        assert_bits(one.layers[-1], *(array[1:].T for array in arrays[-2:]))
        with pytest.raises(
            ValueError, match=r"pass layers=\[...\]|layers=\[...\] with the names of its layers"
        ):
            from_torch(source, activation=hidden, final_activation=final)
    flags = ("--layers", ",".join(kind.layers), "--activation", hidden, "--final-activation", final)
    out = tmp_path / "actor.safetensors"
    assert main(["convert", str(path), str(out), *flags]) == 0
    assert_bits(load(out), *jax.tree.leaves(actor))
    assert main(["convert", str(path), str(out), *flags, "--outputs=-1:", "--force"]) == 0
    assert_bits(load(out), *jax.tree.leaves(one))
    assert main(["convert", str(path), str(out), *flags, "--outputs", "5:", "--force"]) == 2
    assert "from_torch: outputs must keep some of 2 units" in capsys.readouterr().err


def test_only_named_layers_are_read(tmp_path):
    """The others may be of another kind: weights that a call makes, eight-bit floats, convolutions."""
    state = StableBaselinesPPO().state_dict()
    others = {
        "encoder.weight_g": torch.ones(3),
        "encoder.weight_v": torch.ones(3, 2),
        "vision.weight": torch.ones(2, 3, 4, 4),
        "quantized.weight": torch.ones(2, 2).to(torch.float8_e4m3fn),
    }
    given = {"layers": list(StableBaselinesPPO.layers), "activation": "tanh", "final_activation": "identity"}
    actor, path = from_torch(state, **given), tmp_path / "policy.safetensors"
    save_file(state | others, path)
    for source in (state | others, path):
        assert_bits(from_torch(source, **given), *jax.tree.leaves(actor))
        with pytest.raises(ValueError, match=r"^from_torch: layers must name layers of source, got 'actor'"):
            from_torch(source, **given | {"layers": ["actor"]})
        with pytest.raises(ValueError, match=r"^from_torch: source must hold weights as they are used"):
            from_torch(source, **given | {"layers": ["encoder"]})


def test_the_argument_outputs_keeps_means_without_deviations():
    """RSL-RL's HeteroscedasticGaussianDistribution: the last layer gives all means, then all deviations."""
    net = mlp(N_OBS, N, 2 * N_ACT, activation=nn.ELU)
    with torch.no_grad():
        means = net(torch.from_numpy(ROWS)).unflatten(-1, (2, N_ACT))[..., 0, :]
    state = {f"mlp.{name}": tensor for name, tensor in net.state_dict().items()}
    given = {"activation": "elu", "final_activation": "identity", "prefix": "mlp."}
    assert from_torch(state, outputs=slice(N_ACT), check=(ROWS, means), **given)


def test_the_argument_outputs_keeps_units_of_a_module():
    net = nn.Sequential(nn.Linear(N_OBS, N), nn.BatchNorm1d(N), nn.Tanh(), nn.Linear(N, 4), nn.BatchNorm1d(4))
    net(torch.from_numpy(ROWS))
    net.eval()
    whole, part = from_torch(net), from_torch(net, outputs=slice(1, 3))
    assert_bits(part.layers[-1], whole.layers[-1].w[:, 1:3], whole.layers[-1].b[1:3])
    with torch.no_grad():
        assert from_torch(net, outputs=slice(1, 3), check=(ROWS, net(torch.from_numpy(ROWS))[:, 1:3]))
