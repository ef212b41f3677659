"""PyTorch modules, read as they compute when they are called: with computed weights, hooks and subclasses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxneuron._arrays import check_plain
from jaxneuron._errors import BadValue


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Puts all parts of `module` into eval mode, without gradients; afterwards each part has its old mode."""
    import torch

    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False  # a subclass may override eval()
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def as_called(module: Any, path: str) -> tuple[str, Any]:
    """The name of `module`'s class in torch.nn, or "", and a copy of it with the weights that a call uses.

    weight_norm, spectral_norm and prune compute the weights before each call, by hooks; here these run on the
    copy. Parametrizations compute weights whenever they are read. Anything else that changes a call is
    refused.
    """
    import torch
    from torch.nn.utils import parametrize

    kind = parametrize.type_before_parametrizations(module)
    name = kind.__name__
    if getattr(torch.nn, name, None) is not kind:
        return "", module
    where = f"{name} {path!r:.80}" if path else name
    if any(map(torch.nn.parameter.is_lazy, module.parameters(recurse=False))):
        raise BadValue(f"layers must hold numbers, got none yet in {where}; call the module on rows first")
    change = changed(module)
    if change:
        raise BadValue(
            f"layers must compute what their class does, got {change} on {where}; "
            f"remove it, or convert the part without it"
        )
    made = object.__new__(type(module))
    vars(made).update(vars(module))
    for hook in [*module._forward_pre_hooks.values()] * 2:  # a hook may need the result of a later one
        hook(made, ())
    return name, made


def changed(module: Any) -> str:
    """Says why a call of `module` may not compute its class's forward; "" if it does."""
    from torch.nn.modules import module as everywhere
    from torch.nn.utils import prune
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    if "forward" in vars(module):
        return "a forward of its own"
    if module._forward_hooks or everywhere._global_forward_hooks:
        return "a forward hook"
    makes_weights = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
    hooks = [*module._forward_pre_hooks.values(), *everywhere._global_forward_pre_hooks.values()]
    return "" if all(isinstance(hook, makes_weights) for hook in hooks) else "a forward pre-hook"


def described(module: Any) -> str:
    """The class of `module`, with its settings if it is one of torch.nn's."""
    import torch

    kind = type(module)
    if getattr(torch.nn, kind.__name__, None) is kind:
        return f"{kind.__name__}({module.extra_repr()})"
    return f"{kind.__module__}.{kind.__qualname__}"


def advice(module: Any) -> str:
    """Advice for a module that can't be read: to pass its state_dict, if that may record everything."""
    import torch

    if hasattr(module, "_orig_mod"):
        return "pass the module that was compiled, module._orig_mod"
    linear = {name for name, part in module.named_modules() if type(part) is torch.nn.Linear}
    keys = {name.rpartition(".")[0] for name in module.state_dict()}
    if not keys:
        return "convert the parts before and after it, or use from_pairs with a function that computes it"
    if keys - linear or any(changed(part) or part._forward_pre_hooks for part in module.modules()):
        return "convert the part without it"
    return (
        "if it calls its layers one after the other, pass its state_dict(), the activations, and "
        "check=(rows, outputs) to see that it does"
    )


def plain(tensor: Any, name: str) -> Any:
    """`tensor`. Refuses one that is not a plain tensor of numbers."""
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        raise BadValue(f"{name!r:.80} must hold numbers, got none yet; call the module on rows first")
    check_plain(tensor, f"{name!r:.80}")
    return tensor


def forward(module: Any) -> Callable[[np.ndarray], Any]:
    """The module's own forward pass on NumPy rows, on its device, in its dtype. RNG states are restored."""
    import torch

    tensor = next(iter([*module.parameters(), *module.buffers()]), torch.zeros(0))
    device = tensor.device
    kind, others = ("cuda", []) if device.type == "cpu" else (device.type, [device])
    compiled = any(part._compiled_call_impl for part in module.modules())  # a call would compile now

    def call(rows: np.ndarray) -> Any:
        with (
            torch.random.fork_rng(others, device_type=kind),
            torch.autocast(device.type, enabled=False),
            torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext(),
        ):
            return module(torch.from_numpy(rows).to(device, tensor.dtype))

    return call


def torch_precision() -> list[str]:
    """The dtype that products of float32 numbers may be rounded to."""
    import torch

    try:
        whole = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # it was set for one backend only
        whole = False
    return [] if whole else ["bfloat16"]
