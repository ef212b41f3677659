"""PyTorch: reads a state_dict, a file of one, or an `nn.Sequential`, but not pickles; writes a state_dict."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._activations import CELU, ELU, HardTanh, LeakyReLU, Softplus
from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, Missing, inside, public
from jaxneuron._file_kinds import kind_of
from jaxneuron._files import DTYPES, header, is_ours, safetensors_library
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._activations import SAME
from jaxneuron.convert._check import Check, compare, compare_given
from jaxneuron.convert._names import named_layers, of_layers
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert._torch_modules import (
    advice,
    as_called,
    described,
    evaluating,
    forward,
    plain,
    torch_precision,
)
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import (
    Activations,
    Step,
    assemble,
    chain,
    network,
    refused,
    required,
)

# torch.nn's modules whose names differ from jaxneuron's, or that hold parameters.
DIFFERENT: dict[str, Callable[[Any], Step]] = {
    "Dropout": lambda module: "identity",
    "LeakyReLU": lambda module: LeakyReLU(module.negative_slope),
    "ELU": lambda module: ELU(module.alpha),
    "CELU": lambda module: CELU(module.alpha),
    "Hardtanh": lambda module: HardTanh(module.min_val, module.max_val),
    "ReLU6": lambda module: "relu6",
    "GELU": lambda module: "gelu" if module.approximate == "none" else "gelu_tanh",
}
# Names in a state_dict of the tensors from which weight_norm, spectral_norm, prune and parametrizations
# compute weights.
MADE = re.compile(r"(weight|bias)_(g|v|u|orig|mask)$|(^|\.)parametrizations\.")


@public
@concrete
def from_torch(
    source: Any,
    *,
    activation: Activations | None = None,
    final_activation: Activation | None = None,
    prefix: str = "",
    layers: Sequence[str] | None = None,
    outputs: slice | None = None,
    dtype: DTypeLike | None = None,
    check: Check = True,
) -> MLP:
    """A network from PyTorch: from a state_dict, from a safetensors file of one, or from an `nn.Sequential`.

    Args:
      source: a state_dict of tensors or of arrays; the path of a `.safetensors` file, for which PyTorch is
        not needed; or an `nn.Sequential`, read as it computes in `eval()`. Weights that weight_norm,
        spectral_norm, prune or a parametrization compute are computed anew.
      activation: the activation of the hidden layers: a name such as "tanh", or a hashable callable. One for
        all hidden layers, or a sequence with one for each. It is read from an `nn.Sequential`, and required
        otherwise.
      final_activation: the activation of the last layer. It is read from an `nn.Sequential`, and required
        otherwise.
      prefix: the part of the names before the network's own, such as "actor.net.".
      layers: the names of the network's layers in order, without the prefix, such as "fc1". Everything that
        is not named, such as a critic or `log_std`, is left out. None takes all layers, in the order of their
        numbers.
      outputs: the units of the last layer to keep, such as `slice(0, 6)` for an actor's means without their
        deviations. None keeps all.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: True compares the network with an `nn.Sequential`'s own outputs on eight fixed rows. False does
        not. `(rows, outputs)` compares it with these outputs of the source, whatever the source is.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded.

    Raises:
      ValueError: the file is incomplete, or not a safetensors file; there are tensors of other layers than
        linear ones; the names don't tell the order of the layers; the layers do not chain; activations are
        missing, or given though the source has them; a weight is too large for `dtype`; a module's class is
        not torch.nn's own, or a module has hooks or a forward method of its own; the network's outputs differ
        from the source's by more than rounding explains.
      TypeError: `source` is of another type, or `dtype` is not one of float64, float32, float16 and bfloat16.
      OSError: the file can't be read.
      ImportError: `source` is a file, and the extra `files` is not installed.

    Warns:
      UserWarning: for a state_dict or a file without `check`, if there are normalisations, LoRA or running
        means beside the layers in `layers`, which are left out.

    Numerics: the weights are the source's transposed, bit for bit, or rounded once to `dtype`. BatchNorm1d is
    folded in float64, and its layer is rounded once. A mean of more than 16 deviations is subtracted in a
    layer of its own. Softplus is log(1 + exp(z)) everywhere; above 20 PyTorch's own is z, which is 2e-9 less.
    Tested by tests/convert/test_torch.py and tests/interop/test_torch.py.

    Example:
      >>> state = {"net.0.weight": np.ones((2, 3)), "net.2.weight": np.ones((1, 2)), "net.2.bias": np.ones(1)}
      >>> from_torch(state, activation="tanh", final_activation="identity")
      MLP(float64[3,2] tanh, float64[2,1]+float64[1] identity)
    """
    if not isinstance(source, (str, os.PathLike, Mapping)):
        if not _is_module(source):
            raise BadType(
                f"source must be a state_dict, the path of a .safetensors file, or an nn.Sequential, "
                f"got {type(source).__name__}; pass one of them"
            )
        refused("an nn.Sequential", activation, final_activation, layers, prefix or None)
        with evaluating(source):
            with inside("source"):
                steps = list(_module_steps(source))
            mlp = assemble(steps, "source", dtype=dtype, outputs=outputs)
            kept = slice(None) if outputs is None else outputs
            steps += [] if outputs is None else [Units(outputs)]
            if check is True:
                called = forward(source)
                compare(
                    mlp,
                    lambda rows: called(rows)[:, kept],
                    "source",
                    steps=steps,
                    computed_in=_computed_in(source),
                )
            else:
                compare_given(mlp, check, steps=steps)
        return mlp
    _check_prefix(prefix)
    if isinstance(source, Mapping):
        named = {str(name): tensor for name, tensor in source.items()}
        state = {n.removeprefix(prefix): tensor for n, tensor in named.items() if n.startswith(prefix)}
    elif os.fspath(source).endswith(".safetensors") or kind_of(source) not in (None, "torch", "pickle"):
        state = _tensors(source, prefix, layers)
    else:
        raise BadValue(
            f"source must be a .safetensors file, got {os.path.basename(source)!r}, which may hold a pickle, "
            f"and opening a pickle can run code; load it where you trust it, and save its state_dict with "
            f"safetensors.torch"
        )
    if prefix and not state:
        raise BadValue(
            f"prefix must begin the names of tensors, got {prefix!r}, which begins none; "
            f"look at the state_dict's keys"
        )
    for name in filter(MADE.search, of_layers(state, layers)):
        raise BadValue(
            f"source must hold weights as they are used, got {name!r:.80}, from which a call makes them; "
            f"pass the nn.Sequential, or take the state_dict after remove_parametrizations, "
            f"remove_weight_norm, remove_spectral_norm or prune.remove"
        )
    with inside("source"):
        state |= {name: _array(state[name], name) for name in of_layers(state, layers)}
    found = named_layers(
        state, "source", names=("weight", "bias"), separator=".", layers=layers, compared=check is not True
    )
    transposed = [Affine(w.T, b) for w, b in found]
    given = required("an nn.Sequential", activation, final_activation)
    mlp = assemble(chain(transposed, *given), "source", dtype=dtype, outputs=outputs)
    compare_given(mlp, None if check is True else check)
    return mlp


def _is_module(source: Any) -> bool:
    torch = sys.modules.get("torch")  # it has been imported if `source` is a module
    return torch is not None and isinstance(source, torch.nn.Module)


def _check_prefix(prefix: str) -> None:
    if not isinstance(prefix, str):
        raise BadType(f"prefix must be a string, got {type(prefix).__name__}; pass one such as 'net.'")


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Opens any safetensors file. Its header is checked before the safetensors library reads it."""
    library = safetensors_library()
    if is_ours(header(path)):
        raise BadValue(f"{path} is a file of jaxneuron.save; read it with jaxneuron.load")
    try:
        with library.safe_open(path, framework="numpy") as file:
            yield file
    except library.SafetensorError as error:
        raise BadValue(f"{path} is not a whole safetensors file ({error}); copy or save it again") from None


def _tensors(
    path: str | os.PathLike[str], prefix: str, layers: Sequence[str] | None = None
) -> dict[str, Any]:
    """The tensors whose names begin with `prefix`, by the rest of the name.

    Tensors of layers that are not among `layers` are not read: a shape stands in for each.
    """
    found: dict[str, Any] = {}
    with opened(path) as file:
        for name in file.keys():  # noqa: SIM118 # not a mapping
            if not name.startswith(prefix):
                continue
            short, part = name.removeprefix(prefix), file.get_slice(name)
            dtype = part.get_dtype()
            if not of_layers([short], layers):
                found[short] = jax.ShapeDtypeStruct(part.get_shape(), float if "F" in dtype else int)
                continue
            if dtype not in DTYPES:
                raise BadValue(
                    f"{path} must hold {', '.join(sorted(DTYPES))}, got {dtype}; "
                    f"save the tensors in one of these"
                )
            found[short] = file.get_tensor(name)
    return found


def _array(tensor: Any, name: str) -> Any:
    if not hasattr(tensor, "detach"):
        return tensor
    tensor = plain(tensor, name).detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy and PyTorch can't exchange it
        import torch

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.numpy(force=True)  # also for a view with a pending negation
    except TypeError:
        raise BadType(f"{name!r:.80} must hold floats, got {tensor.dtype}; pass tensor.float()") from None


def _module_steps(module: Any, path: str = "") -> Iterator[Step]:
    name, made = as_called(module, path.removesuffix("."))
    if name == "Sequential":
        for key, part in zip(module._modules, module, strict=True):
            yield from _module_steps(part, f"{path}{key}.")
    elif name == "Linear":
        b = None if made.bias is None else _array(made.bias, f"{path}bias")
        yield Affine(_array(made.weight, f"{path}weight").T, b)
    elif name == "BatchNorm1d" and made.running_mean is not None:
        yield _batch_norm(made, path)
    elif (activation := _activation(name, module)) is not None:
        yield activation
    elif name == "Softplus" and module.threshold >= 20 and module.beta < 0:
        yield from (Scaling(scale=module.beta), "softplus", Scaling(scale=1 / module.beta))
    else:
        raise BadValue(
            f"layers must be Linear, BatchNorm1d, activations or an nn.Sequential of them, "
            f"got {described(module)}; {advice(module)}"
        )


def _activation(name: str, module: Any) -> Step | None:
    """The activation that a torch.nn module of this name is; None if jaxneuron does not have it."""
    try:
        if name in DIFFERENT:
            return DIFFERENT[name](module)
        if name == "Softplus" and module.threshold >= 20 and module.beta > 0:
            return Softplus(module.beta)  # above its threshold, 20, PyTorch omits log1p(exp(-20)) = 2e-9
    except (TypeError, ValueError):  # parameters that jaxneuron doesn't take
        return None
    if name in ("Softmax", "LogSoftmax") and module.dim in (-1, 1):
        return "softmax" if name == "Softmax" else "log_softmax"
    same = set(getattr(module, "__constants__", ())) <= {"inplace"}  # and no other settings
    return SAME.get(name.lower()) if same else None


def _computed_in(module: Any) -> Iterator[str]:
    """The dtypes whose rounding a call is as exact as, if it is less exact than its own dtype."""
    yield from torch_precision()
    if any(type(part).__name__ == "Softplus" for part in module.modules()):
        yield "float32"  # its rounding exceeds the 2e-9 that PyTorch omits


def _batch_norm(module: Any, path: str) -> Scaling:
    def numbers(name: str) -> np.ndarray:
        return np.asarray(_array(getattr(module, name), f"{path}{name}"), np.float64)

    mean, variance = numbers("running_mean"), numbers("running_var")
    scale = 1 / np.sqrt(variance + module.eps)
    if not module.affine:
        return Scaling(mean, scale)
    return Scaling(mean, scale * numbers("weight"), numbers("bias"))


@public
@concrete
def to_torch_state_dict(mlp: MLP, prefix: str = "") -> dict[str, Any]:
    """The state_dict of the PyTorch `nn.Sequential` with these layers.

    Args:
      mlp: an `MLP`.
      prefix: the text to put before each name, such as "net.".

    Returns:
      `{"0.weight": tensor (n_out, n_in), "0.bias": ..., "2.weight": ...}`. Each layer has an index, and so
      has the activation after it unless it is the identity. A state_dict does not contain activations.

    Raises:
      TypeError: `mlp` is not an `MLP`.
      ValueError: `mlp` is a stack of networks.
      ImportError: PyTorch is not installed.

    Numerics: the weights are the network's transposed, bit for bit. Tested by tests/interop/test_torch.py.

    Example:
      `module.load_state_dict(to_torch_state_dict(mlp))`
    """
    _check_prefix(prefix)
    try:
        import torch
    except ImportError:
        raise Missing("needs PyTorch; pip install torch") from None
    state = {}
    for name, array in torch_arrays(mlp, prefix).items():
        if array.dtype == ml_dtypes.bfloat16:  # NumPy and PyTorch can't exchange it
            state[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            state[name] = torch.from_numpy(array)
    return state


def torch_arrays(mlp: MLP, prefix: str) -> dict[str, np.ndarray]:
    """The state_dict of an `nn.Sequential`, as new NumPy arrays."""
    arrays, index = {}, 0
    for (w, b), activation in zip(network(mlp).layers, mlp.activations, strict=True):
        arrays[f"{prefix}{index}.weight"] = np.array(np.asarray(w).T, order="C")
        if b is not None:
            arrays[f"{prefix}{index}.bias"] = np.array(b)
        index += 1 if activation == "identity" else 2
    return arrays
