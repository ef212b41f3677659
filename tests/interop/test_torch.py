"""Networks from and to PyTorch, if it is installed: the extra bench installs it."""

import copy
import re
import warnings

import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron.convert import from_torch, to_torch_state_dict
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs

torch = pytest.importorskip("torch", reason="PyTorch is in the extra bench")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import utils  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402


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


def test_modules_state_dicts_and_files_give_the_same_bits(tmp_path):
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
def test_to_torch_then_from_torch_keeps_the_bits(dtype):
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
    nn.CELU(), nn.CELU(0.4), nn.Hardtanh(), nn.Hardtanh(-0.5, 2.0), nn.ReLU6(), nn.Mish(), nn.Hardswish(), nn.LogSigmoid(),
    nn.LogSoftmax(-1),
], ids=str)  # fmt: skip
def test_activations_equal_those_of_pytorch(module):
    z = np.linspace(-6, 6, 48, dtype=np.float32).reshape(12, 4)
    mlp = from_torch(nn.Sequential(nn.Linear(4, 4), module))
    assert len(mlp.layers) == 1  # not folded: a value has the parameters
    eye = jaxneuron.MLP([(np.eye(4, dtype=np.float32), None)], final_activation=mlp.final_activation)
    np.testing.assert_allclose(
        jaxneuron.mlp_forward(eye, z), module(torch.tensor(z)).numpy(), rtol=40 * 2**-24, atol=40 * 2**-24
    )


def old_weight_norm(layer, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, but in many saved models
        return utils.weight_norm(layer, **options)


REPARAMETRISED = {
    "weight_norm": old_weight_norm,
    "weight_norm of all": lambda layer: old_weight_norm(layer, dim=None),
    "spectral_norm": utils.spectral_norm,
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.4),
    "prune the bias": lambda layer: prune.random_unstructured(layer, "bias", amount=0.4),
    "prune twice": lambda layer: prune.ln_structured(prune.l1_unstructured(layer, "weight", amount=0.4), "weight", 0.2, 2, 0),
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "spectral_norm of weight_norm": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
}  # fmt: skip


@pytest.mark.parametrize("reparametrised", REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_reparametrised_weights_are_read_as_a_call_computes_them(reparametrised):
    """A fresh module with a trained state: until it is called, `weight` still holds the fresh weights."""

    def net(seed):
        torch.manual_seed(seed)
        return nn.Sequential(reparametrised(nn.Linear(4, 5)), nn.Tanh(), reparametrised(nn.Linear(5, 2)))

    trained, module = net(0), net(1)
    trained(torch.tensor(ROWS))
    module.load_state_dict(trained.state_dict())
    module[0].eval()
    modes, state = [part.training for part in module.modules()], copy.deepcopy(module.state_dict())
    rng = torch.get_rng_state()
    mlp = from_torch(module)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())
    assert torch.equal(torch.get_rng_state(), rng)
    module.eval()(torch.tensor(X))
    assert_bits(
        mlp, *(a.detach().numpy().T for layer in (module[0], module[2]) for a in (layer.weight, layer.bias))
    )


def test_weights_that_change_with_each_call_are_refused():
    """If weight_norm runs before pruning, it uses the mask from the call before."""
    torch.manual_seed(0)
    trained = nn.Sequential(old_weight_norm(nn.Linear(3, 3)))
    prune.l1_unstructured(trained[0], "weight_v", amount=0.4)
    torch.manual_seed(1)
    fresh = nn.Sequential(old_weight_norm(nn.Linear(3, 3)))
    prune.l1_unstructured(fresh[0], "weight_v", amount=0.4)
    fresh.load_state_dict(trained.state_dict())
    with pytest.raises(ValueError, match="source must compute what its layers say"):
        from_torch(fresh)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(2 * x)


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.first(torch.tanh(self.second(x)))


def changed(change, layer=0):
    module = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2)))
    change(module[1][layer] if layer else module[0])
    return module


def hook(module):
    module.register_forward_hook(lambda module, inputs, outputs: 10 * outputs)


def pre_hook(module):
    module.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))


def pre_hook_with_kwargs(module):
    module.register_forward_pre_hook(lambda module, inputs, given: (inputs, given), with_kwargs=True)


def patched(module):
    module.forward = lambda x: x


def hooked(module):
    hook(module)
    return module


STATE_DICT = "if it calls its layers one after the other, pass its state_dict(), the activations, and check=(rows, outputs) to see that it does"
REFUSED = {
    "a hook": (lambda: changed(hook), "compute what their class does, got a forward hook on Linear '0'; remove it, or convert the part without it"),
    "an inner hook": (lambda: changed(hook, 1), "got a forward hook on Linear '1.1'; "),
    "a hook on the whole": (lambda: hooked(nn.Sequential(nn.Linear(2, 2))), "got a forward hook on Sequential; "),
    "a pre-hook": (lambda: changed(pre_hook), "got a forward pre-hook on Linear '0'; "),
    "a pre-hook with kwargs": (lambda: changed(pre_hook_with_kwargs), "got a forward pre-hook on Linear '0'; "),
    "a patched forward": (lambda: changed(patched), "got a forward of its own on Linear '0'; "),
    "a subclass of a layer": (lambda: nn.Sequential(Doubled(2, 2)), "got tests.interop.test_torch.Doubled; convert the part without it"),
    "a subclass of Sequential": (lambda: Residual(nn.Linear(2, 2)), f"got tests.interop.test_torch.Residual; {STATE_DICT}"),
    "an activation of one's own": (lambda: nn.Sequential(nn.Linear(2, 2), Swish()), "got tests.interop.test_torch.Swish; convert the parts before and after it, or use from_pairs with a function that computes it"),
    "a module of one's own": (Agent, f"got tests.interop.test_torch.Agent; {STATE_DICT}"),
    "one with a hook": (lambda: hooked(Agent()), "got tests.interop.test_torch.Agent; convert the part without it"),
    "one with a hook inside": (lambda: nn.DataParallel(changed(pre_hook)), "got DataParallel(); convert the part without it"),
    "one with reparametrised weights": (lambda: nn.DataParallel(nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)))), "got DataParallel(); convert the part without it"),
    "DataParallel": (lambda: nn.DataParallel(nn.Sequential(nn.Linear(2, 2))), f"got DataParallel(); {STATE_DICT}"),
    "a compiled module": (lambda: torch.compile(nn.Sequential(nn.Linear(2, 2))), "OptimizedModule; pass the module that was compiled, module._orig_mod"),
    "a script": (lambda: torch.jit.script(nn.Sequential(nn.Linear(2, 2))), "got torch.jit._script.RecursiveScriptModule; convert the part without it"),
    "a quantised layer": (lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear}), "Linear; convert the part without it"),
    "a lazy layer": (lambda: nn.Sequential(nn.LazyLinear(2)), "hold numbers, got none yet in LazyLinear '0'; call the module on rows first"),
    "no mean": (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), "track_running_stats=False); convert the part without it"),
    "a convolution": (lambda: nn.Sequential(nn.Conv1d(1, 1, 1)), "got Conv1d(1, 1, kernel_size=(1,), stride=(1,)); convert the part without it"),
    "a low threshold": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Softplus(threshold=10)), "got Softplus(beta=1.0, threshold=10); convert the parts before and after it"),
    "no slope": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Softplus(beta=0)), "got Softplus(beta=0, threshold=20.0); "),
    "a slope in a tensor": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Softplus(torch.tensor(2.0))), "got Softplus(beta=2.0, threshold=20.0); "),
    "a parameter that ours does not take": (lambda: nn.Sequential(nn.Linear(2, 2), nn.CELU(-0.5)), "got CELU(alpha=-0.5); convert the parts"),
}  # fmt: skip


@pytest.mark.parametrize(("module", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_modules_that_compute_something_else_are_refused(module, message):
    with pytest.raises(ValueError, match=r"^from_torch: source: layers must .*" + re.escape(message)):
        from_torch(module())


@pytest.mark.parametrize("register", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_global_hooks_are_refused(register):
    handle = getattr(nn.modules.module, register)(lambda *arguments: None)
    try:
        with pytest.raises(ValueError, match=r"got a forward (pre-)?hook on Sequential"):
            from_torch(nn.Sequential(nn.Linear(2, 2)))
    finally:
        handle.remove()


@pytest.mark.parametrize(("tensor", "message"), [
    (lambda: torch.ones(2, 2, device="meta"), "on the device meta, which holds no numbers; load its numbers first"),
    (lambda: torch.ones(2, 2).to_sparse(), "which is sparse; pass .to_dense()"),
    (lambda: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8), "which is quantized; pass .dequantize()"),
    (lambda: torch.ones(2, 2).to(torch.float8_e4m3fn), "floats, got torch.float8_e4m3fn; pass tensor.float()"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_without_plain_numbers_are_refused(tensor, message):
    with pytest.raises(TypeError, match="^from_torch: source: '0.weight' must hold .*" + re.escape(message)):
        from_torch({"0.weight": tensor()}, activation="relu", final_activation="relu")
    module = nn.Sequential(nn.Linear(2, 2))
    vars(module[0])["_parameters"]["weight"] = tensor()
    with pytest.raises(TypeError, match="^from_torch: source: '0.weight' must hold .*" + re.escape(message)):
        from_torch(module)


def test_the_state_dict_of_a_lazy_layer_is_refused():
    with pytest.raises(
        ValueError, match=r"'0.weight' must hold numbers, got none yet; call the module on rows"
    ):
        from_torch(nn.Sequential(nn.LazyLinear(3)).state_dict(), activation="relu", final_activation="relu")


@pytest.mark.parametrize("reparametrised", REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_a_state_dict_of_reparametrised_weights_is_refused(reparametrised):
    with pytest.raises(
        ValueError, match=r"^from_torch: source must hold weights as they are used, got '0\..*'"
    ):
        from_torch(
            nn.Sequential(reparametrised(nn.Linear(4, 4))).state_dict(),
            activation="relu",
            final_activation="relu",
        )


@pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning"
)  # torch raises it when compile is first used
def test_modules_with_backward_hooks_compile_and_autocast_are_read():
    """Cases: hooks of gradients, a layer that occurs twice, compilation by module.compile(), autocast."""
    layer = nn.Linear(4, 4)
    module = nn.Sequential(layer, nn.Tanh(), layer)
    layer.register_full_backward_hook(lambda *arguments: None)
    module.register_state_dict_pre_hook(lambda *arguments: None)
    module.compile()
    layer.compile()
    with torch.autocast("cpu"):
        mlp = from_torch(module)
    w, b = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
    assert_bits(mlp, w, b, w, b)


def test_check_finds_a_patched_class(monkeypatch):
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: torch.sin(x))
    with pytest.raises(
        ValueError, match=r"^from_torch: source must compute what its layers say, got outputs"
    ):
        from_torch(module)
    assert from_torch(module, check=False).final_activation == "tanh"

    def warns(self, x):
        warnings.warn("of the source", stacklevel=2)
        return torch.tanh(x)

    monkeypatch.setattr(nn.Tanh, "forward", warns)
    from_torch(module)


def test_check_allows_the_roundings_of_pytorch():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 64), nn.Softplus(), nn.Linear(64, 2)).double()
    with torch.no_grad():
        module[0].weight.mul_(8)  # sums above its threshold
    from_torch(module)
    before = torch.get_float32_matmul_precision()
    for coarser in (
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(
            torch.backends.mkldnn.matmul, "fp32_precision", "bf16"
        ),  # the old API can't be asked then
    ):
        coarser()
        try:
            from_torch(nn.Sequential(nn.Linear(300, 2)))
        finally:
            torch.backends.mkldnn.matmul.fp32_precision = "none"
            torch.set_float32_matmul_precision(before)


def test_check_compares_given_outputs(tmp_path):
    agent = Agent()
    rows = torch.tensor(X)
    given = {"activation": "tanh", "final_activation": "identity", "check": (rows, agent(rows))}
    save_file(agent.state_dict(), tmp_path / "agent.safetensors")
    for source in (agent.state_dict(), tmp_path / "agent.safetensors"):
        from_torch(source, layers=["second", "first"], **given)
        with pytest.raises(
            ValueError, match=r"^from_torch: check must hold what the network gives, got outputs"
        ):
            from_torch(source, layers=["first", "second"], **given)
    from_torch(NET, check=(X, NET(rows)))
    with pytest.raises(ValueError, match=r"^from_torch: check must hold what the network gives"):
        from_torch(NET, check=(X, 2 * NET(rows)))


def test_refusals():
    with pytest.raises(TypeError, match=r"^from_torch: source must be .*, got SGD; pass one of them"):
        from_torch(torch.optim.SGD([torch.ones(2, requires_grad=True)]))
    with pytest.raises(ValueError, match=r"'1.running_mean'; pass the part that is an MLP"):
        from_torch(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).state_dict(),
            activation="relu",
            final_activation="relu",
        )
