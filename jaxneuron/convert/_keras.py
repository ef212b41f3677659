"""Keras 3: models, both ways, and `.keras` files, whose configuration is read as data, never run."""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._activations import ELU, HardTanh, LeakyReLU
from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, Missing, inside, missing, public
from jaxneuron._file_kinds import check_kind
from jaxneuron._math.formats import LEAKY_SLOPE
from jaxneuron._names import BY_NAME
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._archives import members
from jaxneuron.convert._check import Check, compare, compare_given
from jaxneuron.convert._keras_models import computed_in, file_names, forward, live_arrays
from jaxneuron.convert._units import batch_norm
from jaxneuron.convert.steps import Scaling, Step, assemble, network

# Keras's names that are not ours, or mean something else; the others are the same in both.
DIFFERENT: dict[str, Step] = {
    "linear": "identity",
    "swish": "silu",
    "exponential": "exp",
    "leaky_relu": LeakyReLU(0.2),
    "celu": "elu",  # of alpha 1
    "hard_silu": "hard_swish",
}
READ: dict[str, Step] = {**dict(zip(BY_NAME, BY_NAME, strict=True)), **DIFFERENT}
EPSILON = 1e-7  # keras.config.epsilon(), the smallest deviation that Normalization divides by
DEEPEST = 20  # levels of models in models
MOST_CONFIG = 2**20  # bytes; a layer takes about a thousand
# Raised by h5py, and by reading a configuration that Keras did not write.
STRANGE = (OSError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)
Arrays = Callable[[str], Sequence[Any]]  # a layer's, by its path in the weights file


@public
@concrete
def from_keras(source: Any, *, dtype: DTypeLike | None = None, check: Check = True) -> MLP:
    """A network from a Keras 3 model or a `.keras` file, activations and scalings included.

    Args:
      source: a `Sequential`, or a functional model that is one chain, of `Dense`, `Normalization`,
        `BatchNormalization`, `Rescaling`, `Activation` and other activation layers, `Dropout`, and
        `Flatten` in front, for which the network takes its rows flattened; or the path of a `.keras` file
        of one, for which Keras is not needed. LoRA's kernels are added to the layer's own.
      dtype: to convert the layers to; None keeps theirs.
      check: True compares the network with a model's own outputs on eight fixed rows, and False does not.
        `(rows, outputs)`, of the source, compares with those, whatever the source is.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: a file that is not whole, a layer that can't be part of an MLP or whose call or activation
        is not Keras's own, quantised layers, code in the file, a number too large for `dtype`; outputs that
        differ from the source's by more than rounding. TypeError: another kind of source, another dtype.
        OSError: what the file system says. ImportError: without the extra `keras`, for a file.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Scalings are folded in
    float64 and their layer rounded once; a mean of more than 16 deviations is subtracted in a layer of its
    own. Held by tests/interop/test_keras.py.

    Example:
      `from_keras("model.keras")`
    """
    if isinstance(source, (str, os.PathLike)):
        steps = list(_file_steps(source))
        mlp = assemble(steps, "source", dtype=dtype)
        compare_given(mlp, None if check is True else check, steps=steps)
        return mlp
    if not hasattr(source, "layers") or not type(source).__module__.startswith("keras."):
        raise BadType(
            f"source must be a Sequential, a functional model, or the path of a .keras file, "
            f"got {type(source).__name__}; a subclassed model records no order of layers: use from_pairs"
        )
    import keras

    content = json.loads(json.dumps(keras.saving.serialize_keras_object(source)))
    if not source.built:
        raise BadValue("source must be a built model; begin it with keras.Input, or call it once")
    with inside("source"):
        arrays = dict(live_arrays(source, "", keras))
        steps = list(_model_steps(content, "", arrays.__getitem__))
    mlp = assemble(steps, "source", dtype=dtype)
    if check is True:
        compare(mlp, forward(source, keras), "source", steps=steps, computed_in=computed_in(source, keras))
    else:
        compare_given(mlp, check, steps=steps)
    return mlp


def _file_steps(path: str | os.PathLike[str]) -> Iterator[Step]:
    check_kind(path, "keras", "a .keras file")
    try:
        import h5py
    except ImportError:
        raise missing("h5py", "keras") from None
    found = members(path, lambda name: name in ("config.json", "model.weights.h5"))
    if len(found) != 2:
        raise BadValue(
            f"{path} must hold config.json and model.weights.h5, "
            f"got {', '.join(found) or 'neither'}; save the model with model.save('name.keras')"
        )
    most = len(found["model.weights.h5"])
    try:
        if len(found["config.json"]) > MOST_CONFIG:
            raise ValueError(f"more than {MOST_CONFIG} bytes")
        content = json.loads(found["config.json"])
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{path} is not a sound .keras file (config.json: {error})") from None
    try:
        with h5py.File(io.BytesIO(found["model.weights.h5"]), "r") as file, inside("source"):
            yield from _model_steps(content, "", lambda name: _stored(file, f"{name}/vars", most, h5py))
    except (_Unsound, *STRANGE) as error:
        raise BadValue(f"{path} is not a sound .keras file ({error!s:.200}); save it again") from None


class _Unsound(Exception):
    """Keras does not write such a file."""


def _stored(file: Any, path: str, most: int, h5py: Any) -> list[np.ndarray]:
    """The numbered datasets of the group at `path`, each stored whole in at most `most` bytes."""
    try:
        group = file
        for name in path.split("/"):
            group = _hard(group, name, h5py)
        arrays = []
        for i in range(len(group)):
            data = _hard(group, str(i), h5py)
            plain = (
                data.chunks is None
                and not data.external
                and not data.is_virtual
                and data.dtype.kind in "fiubV"
            )
            if not plain or not data.nbytes == data.id.get_storage_size() <= most:
                raise _Unsound(f"{path[:60]}/{i} is not a plain dataset, or not complete")
            array = data[()]
            arrays.append(array.view(ml_dtypes.bfloat16) if data.attrs.get("dtype") == "bfloat16" else array)
        return arrays
    except (ValueError, *STRANGE) as error:  # of HDF5 on bytes that are not a file
        raise _Unsound(f"{path[:60]}: {error}") from None


def _hard(group: Any, name: str, h5py: Any) -> Any:
    """A member of a group that is in the same file, not a link to elsewhere."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _Unsound(f"no {name[:60]!r} in it")
    return group[name]


def _model_steps(content: Any, path: str, arrays: Arrays) -> Iterator[Step]:
    if not isinstance(content, dict) or content.get("class_name") not in ("Sequential", "Functional"):
        kind = content.get("class_name") if isinstance(content, dict) else content
        raise BadValue(
            f"models must be Sequential or functional, got {str(kind)[:60]!r}; "
            f"convert the part of it that is one"
        )
    if path.count("layers/") > DEEPEST:
        raise BadValue(f"models must be nested at most {DEEPEST} deep")
    layers = content["config"]["layers"]
    named = list(zip(file_names(layer["class_name"] for layer in layers), layers, strict=True))
    if content["class_name"] == "Functional":
        named = _in_order(named, content["config"])
    at_start = not path
    for name, layer in named:
        if layer["class_name"] in ("Sequential", "Functional"):
            yield from _model_steps(layer, f"{path}layers/{name}/", arrays)
            at_start = False
            continue
        for step in _layer_steps(layer, functools.partial(arrays, f"{path}layers/{name}"), at_start):
            at_start = False
            yield step


def _in_order(named: list[tuple[str, Any]], config: dict[str, Any]) -> list[tuple[str, Any]]:
    """The layers of a functional model from its input to its output."""
    by_name = {layer["config"]["name"]: (name, layer) for name, layer in named}
    ends = (
        list(end.values()) if isinstance(end, dict) else end
        for end in (config["output_layers"], config["input_layers"])
    )
    # one end is written [name, 0, 0], several as a list of such
    last, first = (end[0] if len(end) == 1 and isinstance(end[0], list) else end for end in ends)
    chain: list[tuple[str, Any]] = []
    name = last[0] if isinstance(last[0], str) and isinstance(first[0], str) else None
    while name in by_name and len(chain) <= len(named):
        chain.append(by_name[name])
        nodes = by_name[name][1]["inbound_nodes"]
        if name == first[0] and not nodes:
            return chain[::-1]
        tensors = list(nodes[0]["args"]) if len(nodes) == 1 else []
        one = (
            len(tensors) == 1
            and isinstance(tensors[0], dict)
            and tensors[0].get("class_name") == "__keras_tensor__"
        )
        name = tensors[0]["config"]["keras_history"][0] if one else None
    at = chain[-1][1]["config"]["name"] if chain else "its ends"
    raise BadValue(
        f"a functional model must be one chain from one input to one output, got another at "
        f"{str(at)[:60]!r}; convert the part of it that is a chain"
    )


def _layer_steps(
    layer: dict[str, Any], arrays: Callable[[], Sequence[Any]], at_start: bool
) -> Iterator[Step]:
    kind, config = layer["class_name"], layer["config"]
    if not str(layer.get("module")).startswith("keras.") or layer.get("registered_name"):
        raise BadValue(f"the layer {str(kind)[:60]!r} is not one of Keras's own; convert the part without it")
    if kind == "Dense":
        w, *b = _numbers(kind, arrays(), 1 + config["use_bias"])
        yield Affine(w, *b)
        yield _activation(config["activation"])
    elif kind == "Normalization":
        yield _normalization(config, arrays)
    elif kind == "BatchNormalization":
        yield _batch_normalization(layer, arrays)
    elif kind == "Rescaling":
        yield Scaling(scale=np.asarray(config["scale"], float), shift=np.asarray(config["offset"], float))
    elif kind == "Activation":
        yield _activation(config["activation"])
    elif (kind == "ReLU" and config["max_value"] is None and not config["threshold"]) or kind == "LeakyReLU":
        yield LeakyReLU(config["negative_slope"])
    elif kind == "ReLU" and not config["threshold"] and not config["negative_slope"]:
        yield HardTanh(0, config["max_value"])
    elif kind == "ELU":
        yield ELU(config["alpha"])
    elif kind == "Softmax" and config["axis"] == -1:
        yield "softmax"
    elif kind == "Flatten" and not at_start and not _are_rows(layer):
        raise BadValue("Flatten must stand in front of an MLP, or flatten rows; got one after other layers")
    elif kind not in ("InputLayer", "Dropout", "Flatten"):
        raise BadValue(f"the layer {str(kind)[:60]!r} can't be part of an MLP; convert the part without it")


def _are_rows(layer: dict[str, Any]) -> bool:
    return len((layer.get("build_config") or {}).get("input_shape") or ()) == 2


def _activation(name: Any) -> Step:
    if not isinstance(name, str) or name not in READ:
        shown = name.get("class_name") if isinstance(name, dict) else name
        raise BadValue(
            f"activations must be one of {', '.join(sorted(READ))}, "
            f"got {str(shown)[:60]!r}; code in a file is not run: use from_pairs with your own function"
        )
    return READ[name]


def _numbers(kind: str, arrays: Sequence[Any], count: int) -> Sequence[Any]:
    if len(arrays) != count:
        raise BadValue(
            f"the layer {kind!r} must have {count} arrays, got {len(arrays)}; "
            f"quantised layers are not read: save the model as it was before"
        )
    return arrays


def _normalization(config: dict[str, Any], arrays: Callable[[], Sequence[Any]]) -> Scaling:
    if config["axis"] not in ([-1], [1], None, []):
        raise BadValue(f"Normalization must be over the last axis, got axis {str(config['axis'])[:60]}")
    if config["mean"] is None:
        mean, variance, _ = _numbers("Normalization", arrays(), 3)
    else:
        mean, variance = config["mean"], config["variance"]
    mean, variance = (np.asarray(a, np.float64).reshape(-1) for a in (mean, variance))
    with np.errstate(invalid="ignore"):
        deviation = np.maximum(np.sqrt(variance), EPSILON)
    return Scaling(scale=deviation, shift=mean) if config["invert"] else Scaling(mean, 1 / deviation)


def _batch_normalization(layer: dict[str, Any], arrays: Callable[[], Sequence[Any]]) -> Scaling:
    config = layer["config"]
    axis = config["axis"][0] if isinstance(config["axis"], list) else config["axis"]
    if axis != -1 and not (axis == 1 and _are_rows(layer)):
        raise BadValue(f"BatchNormalization must be over the last axis, got axis {str(axis)[:60]}")
    found = iter(_numbers("BatchNormalization", arrays(), 2 + bool(config["scale"]) + bool(config["center"])))
    gamma = next(found) if config["scale"] else 1.0
    beta = next(found) if config["center"] else 0.0
    mean, variance = found
    return batch_norm(mean, variance, config["epsilon"], gamma, beta)


@public
@concrete
def to_keras(mlp: MLP) -> Any:
    """The Keras model that computes what the network does.

    Args:
      mlp: an `MLP` whose activations Keras has by name, or as a layer: `LeakyReLU`, `ELU`, and `HardTanh`
        from 0.

    Returns:
      A `keras.Sequential` of `Dense` and, for activations with parameters, `LeakyReLU`, `ELU`, `ReLU`.

    Raises:
      TypeError: an `mlp` that is not an `MLP`. ValueError: a stack of networks, an activation that Keras
        would save as code. ImportError: Keras or its backend is not installed.

    Numerics: the weights are the network's, bit for bit. Held by tests/interop/test_keras.py.

    Example:
      `to_keras(jaxneuron.gates.XOR).save("xor.keras")`
    """
    network(mlp)
    try:
        import keras
    except ImportError as error:  # its backend may be what is missing
        raise Missing(f"needs the keras library and its backend ({error}); pip install keras") from None
    written: dict[Any, str] = {name: name for name in BY_NAME if hasattr(keras.activations, name)}
    written |= {"identity": "linear", "exp": "exponential"}
    model = keras.Sequential([keras.Input((mlp.layers[0].w.shape[0],))])
    for (w, b), activation in zip(mlp.layers, mlp.activations, strict=True):
        dtype = np.dtype(w.dtype).name
        value = (
            LeakyReLU(LEAKY_SLOPE) if activation == "leaky_relu" else activation
        )  # Keras's has a slope of 0.2
        after = _keras_layer(value, keras, dtype)
        if after is None and activation not in written:
            raise BadValue(
                f"activations must be one of {', '.join(sorted(written))}, LeakyReLU, ELU, HardTanh from 0, "
                f"got {activation!r}; export writes any of them as a program that runs without jaxneuron"
            )
        plain = "linear" if after else written[activation]
        dense = keras.layers.Dense(w.shape[1], plain, use_bias=b is not None, dtype=dtype)
        model.add(dense)
        dense.set_weights([np.asarray(array) for array in (w, b) if array is not None])
        if after:
            model.add(after)
    return model


def _keras_layer(activation: Any, keras: Any, dtype: str) -> Any:
    """Keras's layer for an activation with parameters; None where it has none."""
    if isinstance(activation, LeakyReLU):
        return keras.layers.LeakyReLU(activation.slope, dtype=dtype)
    if isinstance(activation, ELU):
        return keras.layers.ELU(activation.alpha, dtype=dtype)
    if isinstance(activation, HardTanh) and activation.low == 0:
        return keras.layers.ReLU(activation.high, dtype=dtype)
    return None
