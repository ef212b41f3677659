"""Keras models and files as networks."""

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
    """A network from a Keras 3 model or a file of Keras, activations and scalings included.

    Args:
      source: a `Sequential`, or a functional model that is one chain, of `Dense`, `Normalization`,
        `BatchNormalization`, `Rescaling`, `Activation` and other activation layers, activations of
        `keras.ops`, layers that do nothing in inference such as `Dropout`, and `Flatten` or `Reshape` in
        front, for which the network takes its rows flattened; or the path of a `.keras` or `.h5` file of
        one, or of a `.weights.h5` file, of Keras 3 or 2, for which Keras is not needed. LoRA's kernels are
        added to the layer's own.
      activation: for a file of weights alone, the hidden layers' activation, one for all, or a sequence with
        one for each.
      final_activation: for a file of weights alone, the last layer's activation.
      layers: for a file of weights alone, the names of the network's layers in order, as the file has them,
        such as "layers/dense"; all others are left out. None takes all, in the order of their numbers.
      dtype: to convert the layers to; None keeps theirs.
      check: True compares the network with a model's own outputs on eight fixed rows, and False does not.
        `(rows, outputs)`, of the source, compares with those, whatever the source is.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: a file that is not whole, a layer that can't be part of an MLP or whose call or activation
        is not Keras's own, quantised layers, code in the file, a number too large for `dtype`; activations
        that are missing for weights alone, or given for a model; outputs that differ from the source's by
        more than rounding. TypeError: another kind of source, another dtype.
        OSError: what the file system says. ImportError: without the extra `keras`, for a file.

    Warns:
      UserWarning: of a file of weights alone, without `check`, of normalisations beside the layers in
        `layers`, which are left out.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Scalings are folded in
    float64 and their layer rounded once; a mean of more than 16 deviations is subtracted in a layer of its
    own. Held by tests/interop/test_keras.py and tests/interop/test_keras_files.py.

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
    except Exception as error:  # of Keras, of many kinds
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
