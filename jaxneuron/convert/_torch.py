"""PyTorch: a state_dict, both ways, a file of one, and an `nn.Sequential`. Pickles are not opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, Missing, public
from jaxneuron._files import DTYPES, header, safetensors_library
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._activations import SAME, elu, leaky_relu
from jaxneuron.convert._names import named_layers
from jaxneuron.convert.steps import Activations, Scaling, Step, assemble, chain, network, refused, required

# torch.nn's modules that are not called as our activation, and hold no parameter.
DIFFERENT: dict[str, Step] = {"Dropout": "identity", "Softsign": jax.nn.soft_sign}


@public
@concrete
def from_torch(
    source: Any,
    *,
    activation: Activations | None = None,
    final_activation: Activation | None = None,
    prefix: str = "",
    layers: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
) -> MLP:
    """A network from PyTorch: a state_dict, a safetensors file of one, or an `nn.Sequential`.

    Args:
      source: a state_dict, of tensors or of arrays; the path of a `.safetensors` file, for which PyTorch
        is not needed; or an `nn.Sequential`, evaluated as in `eval()`.
      activation: of the hidden layers, a name such as "tanh" or a hashable callable; one for all, or a
        sequence with one for each. Read from an `nn.Sequential`, required otherwise.
      final_activation: the last layer's, likewise.
      prefix: the part of the names before the network's own, such as "actor.net.".
      layers: the names of the layers in order, such as "fc1", if they are not numbered.
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: a file that is not whole or not a safetensors file, tensors of other than linear layers,
        names that tell no order, layers that do not chain, activations missing or given twice, a number too
        large for `dtype`. TypeError: another kind of source, another dtype. OSError: what the file system
        says. ImportError: without the extra `files`, for a file.

    Numerics: the weights are the source's transposed, bit for bit, or rounded once to `dtype`. BatchNorm1d
    is folded in float64 and its layer rounded once; a mean of more than 16 deviations is subtracted in a
    layer of its own. Held by tests/convert/test_torch.py and tests/interop/test_torch.py.

    Example:
      >>> state = {"net.0.weight": np.ones((2, 3)), "net.2.weight": np.ones((1, 2)), "net.2.bias": np.ones(1)}
      >>> from_torch(state, activation="tanh", final_activation="identity")
      MLP(float64[3,2] tanh, float64[2,1]+float64[1] identity)
    """
    if not isinstance(source, (str, os.PathLike, Mapping)):
        if not hasattr(source, "state_dict"):
            raise BadType(
                f"source must be a state_dict, the path of a .safetensors file, or an nn.Sequential, "
                f"got {type(source).__name__}; pass module.state_dict()"
            )
        refused("an nn.Sequential", activation, final_activation, layers, prefix or None)
        return assemble(_module_steps(source), "source", dtype=dtype)
    _check_prefix(prefix)
    if isinstance(source, Mapping):
        named = {str(name): tensor for name, tensor in source.items()}
        state = {n.removeprefix(prefix): tensor for n, tensor in named.items() if n.startswith(prefix)}
    elif os.fspath(source).endswith(".safetensors"):
        state = _tensors(source, prefix)
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
    found = named_layers(
        state, "source", names=("weight", "bias"), separator=".", layers=layers, array=_array
    )
    transposed = [Affine(w.T, b) for w, b in found]
    given = required("an nn.Sequential", activation, final_activation)
    return assemble(chain(transposed, *given), "source", dtype=dtype)


def _check_prefix(prefix: str) -> None:
    if not isinstance(prefix, str):
        raise BadType(f"prefix must be a string, got {type(prefix).__name__}; pass one such as 'net.'")


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A safetensors file of any kind, open. Its header is checked before the library trusts it."""
    library = safetensors_library()
    header(path)
    try:
        with library.safe_open(path, framework="numpy") as file:
            yield file
    except library.SafetensorError as error:
        raise BadValue(f"{path} is not a whole safetensors file ({error}); copy or save it again") from None


def _tensors(path: str | os.PathLike[str], prefix: str) -> dict[str, np.ndarray]:
    """The tensors whose names begin with `prefix`, by what follows it."""
    found = {}
    with opened(path) as file:
        for name in file.keys():  # noqa: SIM118 # not a mapping
            if not name.startswith(prefix):
                continue
            dtype = file.get_slice(name).get_dtype()
            if dtype not in DTYPES:
                raise BadValue(f"{path} must hold {', '.join(sorted(DTYPES))}, got {dtype}")
            found[name.removeprefix(prefix)] = file.get_tensor(name)
    return found


def _array(tensor: Any) -> Any:
    if not hasattr(tensor, "detach"):
        return tensor
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy and PyTorch do not exchange
        import torch

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _module_steps(module: Any) -> Iterator[Step]:
    name = type(module).__name__ if type(module).__module__.startswith("torch.nn.") else ""
    if name == "Sequential":
        for part in module:
            yield from _module_steps(part)
    elif name == "Linear":
        yield Affine(_array(module.weight).T, None if module.bias is None else _array(module.bias))
    elif name == "BatchNorm1d" and module.running_mean is not None:
        yield _batch_norm(module)
    elif name in DIFFERENT:
        yield DIFFERENT[name]
    elif name.lower() in SAME and set(getattr(module, "__constants__", ())) <= {"inplace"}:
        yield SAME[name.lower()]
    elif name == "LeakyReLU":
        yield leaky_relu(module.negative_slope)
    elif name == "ELU":
        yield elu(module.alpha)
    elif name == "GELU":
        yield "gelu" if module.approximate == "none" else "gelu_tanh"
    elif name == "Softplus":
        # log(1 + exp(beta z)) / beta. Above its threshold, 20, PyTorch omits log1p(exp(-20)) = 2e-9.
        yield from (Scaling(scale=module.beta), "softplus", Scaling(scale=1 / module.beta))
    elif name == "Softmax" and module.dim in (-1, 1):
        yield "softmax"
    else:
        raise BadValue(
            f"layers must be Linear, BatchNorm1d, activations or an nn.Sequential of them, "
            f"got {name or type(module).__name__}; pass module.state_dict() and the activations"
        )


def _batch_norm(module: Any) -> Scaling:
    mean, variance = (np.asarray(_array(a), np.float64) for a in (module.running_mean, module.running_var))
    scale = 1 / np.sqrt(variance + module.eps)
    if not module.affine:
        return Scaling(mean, scale)
    return Scaling(
        mean, scale * _array(module.weight).astype(np.float64), _array(module.bias).astype(np.float64)
    )


@public
@concrete
def to_torch_state_dict(mlp: MLP, prefix: str = "") -> dict[str, Any]:
    """The state_dict of the PyTorch `nn.Sequential` with these layers.

    Args:
      mlp: an `MLP`.
      prefix: put before each name, such as "net.".

    Returns:
      `{"0.weight": tensor (n_out, n_in), "0.bias": ..., "2.weight": ...}`: each layer has an index, and so
      has the activation after it unless that is the identity. The activations are not in a state_dict.

    Raises:
      TypeError: an `mlp` that is not an `MLP`. ValueError: a stack of networks. ImportError: PyTorch is not
        installed.

    Numerics: the weights are the network's transposed, bit for bit. Held by tests/interop/test_torch.py.

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
        if array.dtype == ml_dtypes.bfloat16:  # which NumPy and PyTorch do not exchange
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
