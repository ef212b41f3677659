"""Writes networks as Keras models."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxneuron._activations import CELU, ELU, HardTanh, LeakyReLU
from jaxneuron._arrays import concrete
from jaxneuron._errors import BadValue, Missing, public
from jaxneuron._math.formats import LEAKY_SLOPE
from jaxneuron._names import BY_NAME, Activation, Parametric
from jaxneuron._params import MLP
from jaxneuron.convert.steps import network


@public
@concrete
def to_keras(mlp: MLP) -> Any:
    """The Keras model that computes what the network does.

    Args:
      mlp: an `MLP` whose activations Keras has. These are the names in `keras.activations`; `LeakyReLU`,
        `ELU` and `HardTanh` from 0, as layers; other `HardTanh`, `CELU`, gelu_tanh, sin and square, as
        operations of `keras.ops`.

    Returns:
      A `keras.Sequential` of `Dense` layers, and of layers for activations with parameters; a functional
      model if an activation is an operation.

    Raises:
      TypeError: `mlp` is not an `MLP`.
      ValueError: `mlp` is a stack of networks; Keras would save an activation as code, or could express it
        only with other weights.
      ImportError: Keras or its backend is not installed.

    Numerics: the weights are the network's, bit for bit. Tested by tests/interop/test_keras.py.

    Example:
      `to_keras(jaxneuron.gates.XOR).save("xor.keras")`
    """
    network(mlp)
    try:
        import keras
    except ImportError as error:  # Keras's backend may be missing
        raise Missing(f"needs the keras library and its backend ({error}); pip install keras") from None
    written: dict[Any, str] = {name: name for name in BY_NAME if hasattr(keras.activations, name)}
    written |= {"identity": "linear", "exp": "exponential"}
    parts = []
    for (w, b), activation in zip(mlp.layers, mlp.activations, strict=True):
        dtype = np.dtype(w.dtype).name
        after = _after(activation, keras, dtype)
        if after is None and activation not in written:
            raise BadValue(_refusal(activation, sorted(written)))
        plain = "linear" if after else written[activation]
        dense = keras.layers.Dense(w.shape[1], plain, use_bias=b is not None, dtype=dtype)
        dense.build((None, w.shape[0]))
        dense.set_weights([np.asarray(array) for array in (w, b) if array is not None])
        parts += [dense, after] if after else [dense]
    inputs = keras.Input((mlp.layers[0].w.shape[0],))
    if all(isinstance(part, keras.layers.Layer) for part in parts):
        return keras.Sequential([inputs, *parts])
    values = inputs
    for part in parts:
        values = part(values)
    return keras.Model(inputs, values)


def _after(activation: Activation, keras: Any, dtype: str) -> Any:
    """The layer or operation for an activation; None if its name in Keras is enough, or nothing is needed."""
    if activation == "leaky_relu":
        return keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype)  # Keras's name means a slope of 0.2
    if isinstance(activation, LeakyReLU):
        return keras.layers.LeakyReLU(activation.slope, dtype=dtype)
    if isinstance(activation, ELU):
        return keras.layers.ELU(activation.alpha, dtype=dtype)
    if isinstance(activation, HardTanh) and activation.low == 0:
        return keras.layers.ReLU(activation.high, dtype=dtype)
    if isinstance(activation, HardTanh):
        return lambda z: keras.ops.clip(z, activation.low, activation.high)
    if isinstance(activation, CELU):
        return lambda z: keras.ops.celu(z, activation.alpha)
    if activation == "gelu_tanh":
        return lambda z: keras.ops.gelu(z, approximate=True)
    return getattr(keras.ops, activation) if activation in ("sin", "square") else None


def _refusal(activation: Activation, names: list[str]) -> str:
    reason = "export writes any of them as a program that runs without jaxneuron"
    if isinstance(activation, Parametric):  # Softplus, Sin
        reason = f"Keras has no such parameter, and folded into the weights it would round them; {reason}"
    return (
        f"activations must be one of {', '.join(names)}, gelu_tanh, sin, square, LeakyReLU, ELU, CELU, "
        f"HardTanh, got {activation!r}; {reason}"
    )
