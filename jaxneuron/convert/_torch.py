"""PyTorch's networks: a state_dict, a safetensors file of one, an `nn.Sequential`. No pickle is opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._activations import Activation
from jaxneuron._files import DTYPES, header, safetensors_library
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._functions import elu, leaky_relu
from jaxneuron.convert._names import named_layers
from jaxneuron.convert._steps import Activations, Scaling, Step, assemble, chain, refused, required

PLAIN: dict[str, Step] = {
    "ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "SiLU": "silu", "SELU": "selu",
    "Identity": "identity", "Dropout": "identity", "Hardsigmoid": "hard_sigmoid",
    "Softsign": jax.nn.soft_sign,
}  # fmt: skip


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
      activation, final_activation: as for `MLP`; read from an `nn.Sequential`, required otherwise.
      prefix: the part of the names before the network's own, such as "actor.net.".
      layers: the names of the layers in order, "fc1", where they are not numbered.
      dtype: to convert the layers to; None keeps theirs.

    Returns, Numerics: as for `from_pairs`; the weights are transposed.

    Raises:
      ValueError: a file that is not whole or no safetensors file, tensors of something else than linear
        layers, names that tell no order. ImportError: without the extra `files`, for a file.

    Example:
      >>> state = {"net.0.weight": np.ones((2, 3)), "net.2.weight": np.ones((1, 2)), "net.2.bias": np.ones(1)}
      >>> from_torch(state, activation="tanh", final_activation="identity")
      MLP(float64[3,2] tanh, float64[2,1]+float64[1] identity)
    """
    where = "from_torch"
    if not isinstance(source, (str, os.PathLike, Mapping)):
        refused(where, "an nn.Sequential", activation, final_activation, layers, prefix or None)
        return assemble(_module_steps(source), where, dtype=dtype)
    if isinstance(source, Mapping):
        state = {n.removeprefix(prefix): v for n, v in source.items() if n.startswith(prefix)}
    elif os.fspath(source).endswith(".safetensors"):
        state = _tensors(source, where, prefix)
    else:
        raise ValueError(
            f"{where}: source must be a .safetensors file, got {os.path.basename(source)!r}, which may hold "
            f"a pickle, and that runs code; load it where you trust it, and save its state_dict with "
            f"safetensors.torch"
        )
    if not state:
        raise ValueError(
            f"{where}: prefix must begin the names of tensors, got {prefix!r}, which begins none; "
            f"see the state_dict's keys"
        )
    found = named_layers(state, where, names=("weight", "bias"), separator=".", layers=layers, array=_array)
    transposed = [Affine(w.T, b) for w, b in found]
    given = required(where, "an nn.Sequential", activation, final_activation)
    return assemble(chain(transposed, *given), where, dtype=dtype)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], where: str) -> Iterator[Any]:
    """Any safetensors file, open, its header looked at before the library believes it."""
    library = safetensors_library()
    header(path)
    try:
        with library.safe_open(path, framework="numpy") as file:
            yield file
    except library.SafetensorError as error:
        raise ValueError(
            f"{where}: {path} is not a whole safetensors file ({error}); copy or save it again"
        ) from None


def _tensors(path: str | os.PathLike[str], where: str, prefix: str) -> dict[str, np.ndarray]:
    """The tensors whose names begin with `prefix`, by what follows it."""
    found = {}
    with opened(path, where) as file:
        for name in file.keys():  # noqa: SIM118 # no mapping
            if not name.startswith(prefix):
                continue
            dtype = file.get_slice(name).get_dtype()
            if dtype not in DTYPES:
                raise ValueError(f"{where}: {path} must hold {', '.join(sorted(DTYPES))}, got {dtype}")
            found[name.removeprefix(prefix)] = file.get_tensor(name)
    return found


def _array(tensor: Any) -> Any:
    if not hasattr(tensor, "detach"):
        return tensor
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has none: by its bits
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
    elif name in PLAIN:
        yield PLAIN[name]
    elif name == "LeakyReLU":
        yield leaky_relu(module.negative_slope)
    elif name == "ELU":
        yield elu(module.alpha)
    elif name == "GELU":
        yield "gelu" if module.approximate == "none" else "gelu_tanh"
    elif name == "Softplus":
        # log(1 + exp(beta z)) / beta; above its threshold, 20, PyTorch leaves out log1p(exp(-20)) = 2e-9
        yield from (Scaling(scale=module.beta), "softplus", Scaling(scale=1 / module.beta))
    elif name == "Softmax" and module.dim in (-1, 1):
        yield "softmax"
    else:
        raise ValueError(
            f"from_torch: source must be a state_dict, a .safetensors file, or an nn.Sequential of Linear, "
            f"BatchNorm1d and activations, got {name or type(module).__name__}; "
            f"pass module.state_dict() and the activations"
        )


def _batch_norm(module: Any) -> Scaling:
    mean, variance = (np.asarray(_array(a), np.float64) for a in (module.running_mean, module.running_var))
    scale = 1 / np.sqrt(variance + module.eps)
    if not module.affine:
        return Scaling(mean, scale)
    return Scaling(
        mean, scale * _array(module.weight).astype(np.float64), _array(module.bias).astype(np.float64)
    )
