"""Networks for the other libraries: Flax, Equinox, PyTorch, Keras."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxneuron._activations import resolve
from jaxneuron._params import MLP
from jaxneuron.convert._functions import JAX_FUNCTIONS, LeakyReLU
from jaxneuron.convert._keras import SAME

KERAS: dict[Any, Any] = {
    **dict(zip(SAME, SAME, strict=True)),
    "identity": "linear",
    "leaky_relu": LeakyReLU(0.01),
}


def to_flax_params(mlp: MLP) -> dict[str, Any]:
    """The parameters of the Flax linen module with these dense layers.

    Args:
      mlp: an `MLP`.

    Returns:
      `{"params": {"Dense_0": {"kernel", "bias"}, ...}}`, the arrays as they are; the activations are the
      module's, and stay behind. Flax is not needed.

    Raises:
      TypeError: what is no `MLP`. ValueError: a stack of networks.

    Example:
      >>> to_flax_params(jaxneuron.gates.XOR)["params"]["Dense_1"]["bias"].shape
      (1,)
    """
    layers = network(mlp, "to_flax_params").layers
    return {
        "params": {
            f"Dense_{i}": {"kernel": w} if b is None else {"kernel": w, "bias": b}
            for i, (w, b) in enumerate(layers)
        }
    }


def to_equinox(mlp: MLP) -> Any:
    """The Equinox module that computes what the network does.

    Args:
      mlp: an `MLP`.

    Returns:
      An `eqx.nn.Sequential` of `Linear` and `Lambda`, for one row; `jax.vmap` it over a batch.

    Raises:
      TypeError: what is no `MLP`. ValueError: a stack of networks. ImportError: without equinox.

    Numerics: the weights are the network's, bit for bit; held by tests/interop/test_out.py.
    """
    try:
        import equinox
    except ImportError:
        raise ImportError("to_equinox: needs the equinox library; pip install equinox") from None
    functions: dict[Any, Any] = {name: f for f, name in reversed(JAX_FUNCTIONS.items())}
    parts = []
    for layer, activation in zip(network(mlp, "to_equinox").layers, mlp.activations, strict=True):
        w, b = jnp.asarray(layer.w), None if layer.b is None else jnp.asarray(layer.b)
        linear = equinox.nn.Linear(*w.shape, use_bias=b is not None, dtype=w.dtype, key=jax.random.key(0))
        parts.append(
            equinox.tree_at(lambda m: (m.weight, m.bias), linear, (w.T, b), is_leaf=lambda leaf: leaf is None)
        )
        if activation != "identity":
            known = functions.get(activation, resolve(activation, "to_equinox: activation"))
            parts.append(equinox.nn.Lambda(known))
    return equinox.nn.Sequential(parts)


def to_torch_state_dict(mlp: MLP, prefix: str = "") -> dict[str, Any]:
    """The state_dict of the PyTorch `nn.Sequential` with these layers.

    Args:
      mlp: an `MLP`.
      prefix: what comes before each name, such as "net.".

    Returns:
      `{"0.weight": tensor (n_out, n_in), "0.bias": ..., "2.weight": ...}`: a layer has an index, and so has
      the activation after it, unless that is the identity.

    Raises:
      TypeError: what is no `MLP`. ValueError: a stack of networks. ImportError: without PyTorch.

    Numerics: the weights are the network's, bit for bit; held by tests/interop/test_torch.py.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("to_torch_state_dict: needs PyTorch; pip install torch") from None
    state = {}
    for name, array in torch_arrays(mlp, prefix).items():
        if array.dtype == ml_dtypes.bfloat16:  # which NumPy and PyTorch do not exchange
            state[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            state[name] = torch.from_numpy(array)
    return state


def torch_arrays(mlp: MLP, prefix: str) -> dict[str, np.ndarray]:
    """The state_dict of an `nn.Sequential`, as arrays of their own."""
    arrays, index = {}, 0
    for (w, b), activation in zip(network(mlp, "to_torch_state_dict").layers, mlp.activations, strict=True):
        arrays[f"{prefix}{index}.weight"] = np.array(np.asarray(w).T, order="C")
        if b is not None:
            arrays[f"{prefix}{index}.bias"] = np.array(b)
        index += 1 if activation == "identity" else 2
    return arrays


def to_keras(mlp: MLP) -> Any:
    """The Keras model that computes what the network does.

    Args:
      mlp: an `MLP` whose activations Keras has by name, or `leaky_relu`.

    Returns:
      A `keras.Sequential` of `Dense` and, for `leaky_relu`, `LeakyReLU`.

    Raises:
      TypeError: what is no `MLP`. ValueError: a stack of networks, an activation that Keras would save as
        code. ImportError: without Keras.

    Numerics: the weights are the network's, bit for bit; held by tests/interop/test_out.py.
    """
    network(mlp, "to_keras")
    try:
        import keras
    except ImportError as error:  # its backend may be what is missing
        raise ImportError(
            f"to_keras: needs the keras library and its backend ({error}); pip install keras"
        ) from None
    model = keras.Sequential([keras.Input((mlp.layers[0].w.shape[0],))])
    for (w, b), activation in zip(mlp.layers, mlp.activations, strict=True):
        known = activation if isinstance(activation, LeakyReLU) else KERAS.get(activation)
        if not isinstance(known, (str, LeakyReLU)):
            raise ValueError(
                f"to_keras: activations must be one of {', '.join(sorted(KERAS))}, got {activation!r}; "
                f"export runs any of them without jaxneuron"
            )
        plain = known if isinstance(known, str) else "linear"
        dense = keras.layers.Dense(w.shape[1], plain, use_bias=b is not None, dtype=np.dtype(w.dtype).name)
        model.add(dense)
        dense.set_weights([np.asarray(array) for array in (w, b) if array is not None])
        if isinstance(known, LeakyReLU):
            model.add(keras.layers.LeakyReLU(known.slope, dtype=np.dtype(w.dtype).name))
    return model


def network(mlp: MLP, where: str) -> MLP:
    if not isinstance(mlp, MLP):
        raise TypeError(
            f"{where}: mlp must be an MLP, got {type(mlp).__name__}; pass MLP([layer]) for a layer"
        )
    return MLP(mlp.layers, mlp.activation, mlp.final_activation)  # what a transform made may not be a network
