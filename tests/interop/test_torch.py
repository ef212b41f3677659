"""PyTorch, where it is installed: the extra bench brings it."""

import copy

import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron.convert import from_torch, to_torch_state_dict
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs

torch = pytest.importorskip("torch", reason="PyTorch is in the extra bench")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402


def fitted(module):
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        ((module(torch.tensor(ROWS)) - torch.tensor(TARGETS)) ** 2).mean().backward()
        optimizer.step()
    return module.eval()


def forward64(module, x):
    with torch.no_grad():
        return copy.deepcopy(module).double()(torch.tensor(x, dtype=torch.float64)).numpy()


def transposed(module):
    parameters = [p.detach().numpy() for p in module.parameters()]
    return [p.T if p.ndim == 2 else p for p in parameters]


NET = fitted(
    nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5, bias=False), nn.Tanh(), nn.Linear(5, 2))
)


def test_sequential_state_dict_and_file(tmp_path):
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.value = NET, nn.Linear(4, 1)

    save_file(Agent().state_dict(), tmp_path / "agent.safetensors")
    given = {"activation": "tanh", "final_activation": "identity"}
    for mlp in (
        from_torch(NET),
        from_torch(NET.state_dict(), **given),
        from_torch(Agent().state_dict(), prefix="net.", **given),
        from_torch(tmp_path / "agent.safetensors", prefix="net.", **given),
    ):
        assert mlp.activations == ("tanh", "tanh", "identity")
        assert_bits(mlp, *transposed(NET))
    assert_outputs(mlp, X, forward64(NET, X))


def test_batch_norm_is_folded():
    module = fitted(
        nn.Sequential(
            nn.BatchNorm1d(4, affine=False), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.BatchNorm1d(6),
            nn.Dropout(0.1), nn.Linear(6, 2),
        )
    )  # fmt: skip
    mlp = from_torch(module)
    assert mlp.activations == ("relu", "identity")
    assert_outputs(mlp, X, forward64(module, X), folded=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_out_and_back(dtype):
    mlp = from_torch(NET, dtype=dtype)
    module = nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5, bias=False), nn.Tanh(), nn.Linear(5, 2)
    )
    module.to(getattr(torch, dtype)).load_state_dict(to_torch_state_dict(mlp))
    assert_bits(from_torch(module), *jax.tree.leaves(mlp))
    assert list(to_torch_state_dict(mlp, prefix="net."))[:2] == ["net.0.weight", "net.0.bias"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_are_kept(dtype):
    state = nn.Linear(3, 2).to(dtype).state_dict()
    mlp = from_torch(state, activation="relu", final_activation="identity")
    assert mlp.layers[0].w.dtype.name == str(dtype).removeprefix("torch.")
    assert np.array_equal(np.asarray(mlp.layers[0].w.T, np.float64), state["weight"].double().numpy())


@pytest.mark.parametrize("module", [
    nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Softplus(), nn.Softplus(2.0), nn.ELU(),
    nn.ELU(0.5), nn.SELU(), nn.LeakyReLU(), nn.LeakyReLU(0.3), nn.Hardsigmoid(), nn.Softsign(), nn.Softmax(-1), nn.Identity(),
])  # fmt: skip
def test_activations_are_pytorchs(module):
    z = np.linspace(-6, 6, 48, dtype=np.float32).reshape(12, 4)
    mlp = from_torch(nn.Sequential(nn.Linear(4, 4), module))
    eye = jaxneuron.MLP(
        [(np.eye(4, dtype=np.float32) * scale(mlp, module), None), *mlp.layers[1:]], *activations(mlp)
    )
    np.testing.assert_allclose(
        jaxneuron.mlp_forward(eye, z), module(torch.tensor(z)).numpy(), rtol=40 * 2**-24, atol=40 * 2**-24
    )


def scale(mlp, module):
    return module.beta if isinstance(module, nn.Softplus) else 1.0


def activations(mlp):
    return (*mlp.activations[:-1],) or "identity", mlp.final_activation


def test_refusals():
    with pytest.raises(
        ValueError,
        match=r"from_torch: source: layers must be .*, got Conv1d; pass module.state_dict\(\) and the activations",
    ):
        from_torch(nn.Sequential(nn.Conv1d(1, 1, 1)))
    with pytest.raises(ValueError, match=r"'1.running_mean'; pass the part that is an MLP"):
        from_torch(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).state_dict(),
            activation="relu",
            final_activation="relu",
        )
