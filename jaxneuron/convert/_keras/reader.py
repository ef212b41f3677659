"""Reads Keras models and files as networks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, inside, public
from jaxneuron._names import Activation
from jaxneuron._params import MLP
from jaxneuron.convert._check import Check, compare, compare_given
from jaxneuron.convert._keras.files import file_steps, refused
from jaxneuron.convert._keras.layers import Reader
from jaxneuron.convert._keras.models import computed_in, forward, live_arrays
from jaxneuron.convert.steps import Activations, assemble


@public
@concrete
def from_keras(
    source: Any,
    *,
    activation: Activations | None = None,
    final_activation: Activation | None = None,
    layers: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
    check: Check = True,
) -> MLP:
    """A network from a Keras 3 model or a Keras file, with its activations and scalings.

    Args:
      source: a `Sequential` model, or a functional model that is one chain; or the path of a `.keras` or
        `.h5` file of one, or of a `.weights.h5` file, of Keras 3 or 2, for which Keras is not needed. Its
        layers may be `Dense`, `Normalization`, `BatchNormalization`, `Rescaling`, `Activation` and other
        activation layers, activations of `keras.ops`, layers that do nothing in inference such as `Dropout`,
        and `Flatten` or `Reshape` at the beginning: the network then takes its rows flattened. LoRA's kernels
        are added to the layers' own.
      activation: for a file of weights alone: the activation of the hidden layers. One for all hidden layers,
        or a sequence with one for each.
      final_activation: for a file of weights alone: the activation of the last layer.
      layers: for a file of weights alone: the names of the network's layers in order, as they are in the
        file, such as "layers/dense". All others are left out. None takes all layers, in the order of their
        numbers.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: True compares the network with a model's own outputs on eight fixed rows. False does not.
        `(rows, outputs)` compares it with these outputs of the source, whatever the source is.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded.

    Raises:
      ValueError: the file is incomplete; a layer can't be part of an MLP, or its call or activation is not
        Keras's own; layers are quantised; the file contains code; a weight is too large for `dtype`;
        activations are missing for a file of weights alone, or given for a model; the network's outputs
        differ from the source's by more than rounding explains.
      TypeError: `source` is of another type, or `dtype` is not one of float64, float32, float16 and bfloat16.
      OSError: the file can't be read.
      ImportError: `source` is a file, and the extra `keras` is not installed.

    Warns:
      UserWarning: for a file of weights alone without `check`, if there are normalisations beside the layers
        in `layers`, which are left out.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Scalings are folded into
    a layer in float64, and the layer is rounded once. A mean of more than 16 deviations is subtracted in a
    layer of its own. Tested by tests/interop/test_keras.py and tests/interop/test_keras_files.py.

    Example:
      `from_keras("model.keras")`
    """
    if isinstance(source, (str, os.PathLike)):
        steps = list(file_steps(source, activation, final_activation, layers, compared=check is not True))
        mlp = assemble(steps, "source", dtype=dtype)
        compare_given(mlp, None if check is True else check, steps=steps)
        return mlp
    if not hasattr(source, "layers") or not type(source).__module__.startswith("keras."):
        raise BadType(
            f"source must be a Sequential, a functional model, or the path of a .keras or .h5 file, "
            f"got {type(source).__name__}; a subclassed model records no order of layers: use from_pairs"
        )
    refused("a model", {"activation": activation, "final_activation": final_activation, "layers": layers})
    import keras

    try:
        content = json.loads(json.dumps(keras.saving.serialize_keras_object(source)))
    except Exception as error:  # Keras raises errors of many types
        raise BadValue(
            f"source must be a model that Keras can save, got {type(source).__name__} with a part that it "
            f"can't ({' '.join(str(error).split()):.120}); use layers of Keras's own in its place, such as "
            f"LeakyReLU(0.3) for a function of yours"
        ) from None
    if not source.built:
        raise BadValue("source must be a built model; begin it with keras.Input, or call it once")
    with inside("source"):
        arrays = dict(live_arrays(source, "", keras))
        steps = list(Reader(arrays.__getitem__).steps(content))
    mlp = assemble(steps, "source", dtype=dtype)
    if check is True:
        compare(mlp, forward(source, keras), "source", steps=steps, computed_in=computed_in(source, keras))
    else:
        compare_given(mlp, check, steps=steps)
    return mlp
