"""Networks from and to other libraries, with one file for each library.

Every `from_` function reads a trained network into an `MLP`. Whatever the source records is read from it: the
orientation of the weights, the order of the layers, activations, normalisation. Whatever the source does not
record is a required argument. These functions never guess, and never run code in a file.
"""

from jaxneuron.convert._brax import from_brax
from jaxneuron.convert._equinox import from_equinox, to_equinox
from jaxneuron.convert._flax import from_flax, to_flax_params
from jaxneuron.convert._haiku import from_haiku
from jaxneuron.convert._keras.reader import from_keras
from jaxneuron.convert._keras.writer import to_keras
from jaxneuron.convert._nnx import from_nnx
from jaxneuron.convert._onnx.reader import from_onnx
from jaxneuron.convert._onnx.writer import to_onnx
from jaxneuron.convert._pairs import from_pairs
from jaxneuron.convert._sklearn import from_sklearn
from jaxneuron.convert._stablehlo import export, load_exported
from jaxneuron.convert._torch import from_torch, to_torch_state_dict

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
