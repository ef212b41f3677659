"""Networks from and to the other libraries.

Every `from_` function reads a trained network into an `MLP`. What the source says is read from it: the
orientation of the weights, the order of the layers, activations, normalisation. What it does not say is a
required argument. Nothing is guessed, no code in a file is run.
"""

from jaxneuron.convert._export import export, load_exported
from jaxneuron.convert._jax import from_brax, from_equinox, from_flax, from_haiku, from_nnx, from_pairs
from jaxneuron.convert._keras import from_keras
from jaxneuron.convert._onnx import from_onnx
from jaxneuron.convert._out import to_equinox, to_flax_params, to_keras, to_torch_state_dict
from jaxneuron.convert._sklearn import from_sklearn
from jaxneuron.convert._to_onnx import to_onnx
from jaxneuron.convert._torch import from_torch

__all__ = [
    "export",
    "from_brax",
    "from_equinox",
    "from_flax",
    "from_haiku",
    "from_keras",
    "from_nnx",
    "from_onnx",
    "from_pairs",
    "from_sklearn",
    "from_torch",
    "load_exported",
    "to_equinox",
    "to_flax_params",
    "to_keras",
    "to_onnx",
    "to_torch_state_dict",
]
