"""Reads Keras configurations as data, never as code: the steps of the layers that a model calls in order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxneuron._activations import CELU, ELU, HardTanh, LeakyReLU
from jaxneuron._errors import BadValue
from jaxneuron._names import BY_NAME
from jaxneuron._params import Affine
from jaxneuron.convert._keras.models import file_names
from jaxneuron.convert._scalings import Scaling, batch_norm
from jaxneuron.convert.steps import Step

# Keras's names that jaxneuron does not have, or that mean something else; the others are the same in both.
DIFFERENT: dict[str, Step] = {
    "linear": "identity",
    "swish": "silu",
    "exponential": "exp",
    "leaky_relu": LeakyReLU(0.2),
    "celu": "elu",  # its alpha is 1
    "hard_silu": "hard_swish",
}
READ: dict[str, Step] = {**dict(zip(BY_NAME, BY_NAME, strict=True)), **DIFFERENT}
HARD_SIGMOID_2: list[Step] = [Scaling(scale=0.2, shift=0.5), HardTanh(0, 1)]  # Keras 2's formula
# Layers that return their inputs unchanged in inference.
NOTHING = (
    "InputLayer", "Identity", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization",
)  # fmt: skip
OPERATIONS = "keras.src.ops."  # the modules of keras.ops; a functional model has calls of them beside layers
# Activations as layers and as operations, by class: a function of the configuration returns the step, or None
# if jaxneuron does not have the activation.
LAYERS: dict[str, Callable[[Mapping[str, Any]], Step | None]] = {
    "LeakyReLU": lambda c: LeakyReLU(c["negative_slope"] if "negative_slope" in c else c["alpha"]),
    "ELU": lambda c: ELU(c["alpha"]),
    "ReLU": lambda c: _relu(c["max_value"], c["negative_slope"], c["threshold"]),
    "Softmax": lambda c: "softmax" if c["axis"] == -1 else None,
}
CALLS: dict[str, Callable[[Mapping[str, Any]], Step | None]] = {
    "Celu": lambda c: CELU(c["alpha"]),
    "Elu": lambda c: ELU(c["alpha"]),
    "LeakyRelu": lambda c: LeakyReLU(c["negative_slope"]),
    "Gelu": lambda c: "gelu_tanh" if c["approximate"] else "gelu",
    "Squareplus": lambda c: "squareplus" if c["b"] == 4 else None,
    "Clip": lambda c: HardTanh(c["x_min"], c["x_max"]),
    "Softmax": LAYERS["Softmax"],
    "LogSoftmax": lambda c: "log_softmax" if c["axis"] == -1 else None,
}
PLAIN: dict[str, Step] = {  # operations without parameters, by class, such as HardSilu
    name.title().replace("_", ""): READ[name]
    for name in (
        "relu", "relu6", "sigmoid", "silu", "softplus", "softsign", "selu", "hard_sigmoid", "hard_silu",
        "hard_tanh", "log_sigmoid", "tanh", "exp", "sin", "square",
    )
}  # fmt: skip
EPSILON = 1e-7  # keras.config.epsilon(), the smallest deviation that Normalization divides by
DEEPEST = 20  # levels of models in models
Arrays = Callable[[str], Sequence[Any]]  # the arrays of a layer, by its path in the weights file


class Reader:
    """The steps of a model.

    Args:
      arrays: gives the arrays of the layer at a path, such as "layers/dense_1".
      keras_2: whether Keras 2 wrote the configuration.
    """

    def __init__(self, arrays: Arrays, keras_2: bool = False) -> None:
        self._arrays = arrays
        self._keras_2 = keras_2
        self._begun = False  # whether a step that depends on the unit has been found
        self._rows = False  # whether the values here have one axis besides the batch's

    def steps(self, content: Any, path: str = "") -> Iterator[Step]:
        """The steps of the model whose configuration is `content`."""
        if not isinstance(content, dict) or content.get("class_name") not in MODELS:
            kind = content.get("class_name") if isinstance(content, dict) else content
            raise BadValue(
                f"models must be Sequential or functional, got {str(kind)[:60]!r}; "
                f"convert the part of it that is one"
            )
        if path.count("layers/") > DEEPEST:
            raise BadValue(f"models must be nested at most {DEEPEST} deep; convert the inner model")
        layers = layers_of(content)
        named = list(zip(file_names(layer["class_name"] for layer in layers), layers, strict=True))
        if content["class_name"] != "Sequential":
            named = _in_order(named, content["config"])
        for name, layer in named:
            if layer["class_name"] in MODELS:
                yield from self.steps(layer, f"{path}layers/{name}/")
                continue
            self._look_at_shape(layer)
            for step in self._layer(layer, functools.partial(self._arrays, f"{path}layers/{name}")):
                self._begun |= not isinstance(step, Scaling) or any(np.size(array) > 1 for array in step)
                yield step

    def _look_at_shape(self, layer: dict[str, Any]) -> None:
        config, built = layer["config"], layer.get("build_config") or {}
        shapes = config.get("batch_shape"), config.get("batch_input_shape"), built.get("input_shape")
        shape = next((shape for shape in shapes if isinstance(shape, list)), None)
        if shape is not None and not self._rows:
            self._rows = len(shape) == 2

    def _layer(self, layer: dict[str, Any], arrays: Callable[[], Sequence[Any]]) -> Iterator[Step]:
        kind, config = layer["class_name"], layer["config"]
        _check_own(layer)
        if _is_operation(layer) or kind in LAYERS:
            yield _activation_layer(layer)
        elif kind == "Dense":
            w, *b = _numbers(kind, arrays(), 1 + config["use_bias"])
            yield Affine(w, *b)
            yield from self._activation(config["activation"])
        elif kind == "Normalization":
            yield _normalization(config, arrays)
        elif kind == "BatchNormalization":
            yield self._batch_normalization(config, arrays)
        elif kind == "Rescaling":
            yield Scaling(scale=np.asarray(config["scale"], float), shift=np.asarray(config["offset"], float))
        elif kind == "Activation":
            yield from self._activation(config["activation"])
        elif kind == "Flatten" or (kind == "Reshape" and len(config["target_shape"]) == 1):
            if self._begun and not self._rows:
                raise BadValue(
                    f"{kind} must stand in front of an MLP, or flatten rows, got one after other layers; "
                    f"convert the part after it"
                )
            self._rows = True
        elif kind not in NOTHING:
            raise BadValue(
                f"the layer {str(kind)[:60]!r} can't be part of an MLP; convert the part without it"
            )

    def _activation(self, name: Any) -> Sequence[Step]:
        if isinstance(name, dict) and name.get("class_name") in LAYERS:
            _check_own(name)
            return [_activation_layer(name)]
        if not isinstance(name, str) or name not in READ:
            shown = name.get("class_name") if isinstance(name, dict) else name
            if shown == "function":  # a function that Keras saves by its name
                shown = name["config"]
            raise BadValue(
                f"activations must be one of {', '.join(sorted(READ))}, "
                f"got {str(shown)[:60]!r}; code in a file is not run: use from_pairs with your own function"
            )
        return HARD_SIGMOID_2 if self._keras_2 and name == "hard_sigmoid" else [READ[name]]

    def _batch_normalization(self, config: dict[str, Any], arrays: Callable[[], Sequence[Any]]) -> Scaling:
        axis = config["axis"][0] if isinstance(config["axis"], list) else config["axis"]
        if axis != -1 and not (axis == 1 and self._rows):
            raise BadValue(
                f"BatchNormalization must be over the last axis, got axis {str(axis)[:60]}; "
                f"convert the part without it"
            )
        count = 2 + bool(config["scale"]) + bool(config["center"])
        found = iter(_numbers("BatchNormalization", arrays(), count))
        gamma = next(found) if config["scale"] else 1.0
        beta = next(found) if config["center"] else 0.0
        mean, variance = found
        return batch_norm(mean, variance, config["epsilon"], gamma, beta)


MODELS = ("Sequential", "Functional", "Model")  # Model: a functional one of early Keras 2


def layers_of(content: dict[str, Any]) -> list[Any]:
    """The configurations of a model's layers. Early Keras 2 wrote a Sequential as a plain list of them."""
    config = content["config"]
    return config if isinstance(config, list) else config["layers"]


def _check_own(layer: dict[str, Any]) -> None:
    """Refuses layers that are not Keras's own. HDF5 files don't name modules, so there they pass."""
    kind, own = layer["class_name"], str(layer.get("module", "keras.")).startswith("keras.")
    if not own or (layer.get("registered_name") and not _is_operation(layer)):
        raise BadValue(f"the layer {str(kind)[:60]!r} is not one of Keras's own; convert the part without it")


def _is_operation(layer: dict[str, Any]) -> bool:
    own = layer.get("registered_name") == layer["class_name"]
    return own and str(layer.get("module")).startswith(OPERATIONS)


def _activation_layer(layer: dict[str, Any]) -> Step:
    kind, config = layer["class_name"], layer["config"]
    table = CALLS if _is_operation(layer) else LAYERS
    try:
        step = table[kind](config) if kind in table else PLAIN.get(kind)
    except (TypeError, ValueError):  # parameters that jaxneuron doesn't take
        step = None
    if step is None:
        more = {key: value for key, value in config.items() if key not in ("name", "trainable", "dtype")}
        raise BadValue(
            f"{kind!r:.60} with {str(more)[:100]} is not an activation of jaxneuron; "
            f"convert the part without it"
        )
    return step


def _relu(most: float | None, slope: float | None, threshold: float | None) -> Step | None:
    if threshold or (slope and most is not None):
        return None
    return LeakyReLU(slope or 0) if most is None else HardTanh(0, most)


def _in_order(named: list[tuple[str, Any]], config: dict[str, Any]) -> list[tuple[str, Any]]:
    """The layers of a functional model from its input to its output."""
    by_name = {layer["config"]["name"]: (name, layer) for name, layer in named}
    ends = (
        list(end.values()) if isinstance(end, dict) else end
        for end in (config["output_layers"], config["input_layers"])
    )
    # One end is written as [name, 0, 0], several as a list of these.
    last, first = (end[0] if len(end) == 1 and isinstance(end[0], list) else end for end in ends)
    chain: list[tuple[str, Any]] = []
    name = last[0] if isinstance(last[0], str) and isinstance(first[0], str) else None
    while name in by_name and len(chain) <= len(named):
        chain.append(by_name[name])
        nodes = by_name[name][1]["inbound_nodes"]
        if name == first[0] and not nodes:
            return chain[::-1]
        name = _reads(nodes[0]) if len(nodes) == 1 else None
    at = chain[-1][1]["config"]["name"] if chain else "its ends"
    raise BadValue(
        f"a functional model must be one chain from one input to one output, got another at "
        f"{str(at)[:60]!r}; convert the part of it that is a chain"
    )


def _reads(node: Any) -> Any:
    """The name of the layer whose output a layer reads, if it reads exactly one."""
    if isinstance(node, list):  # Keras 2 writes lists
        return node[0][0] if len(node) == 1 else None
    tensors = node["args"]
    one = len(tensors) == 1 and isinstance(tensors[0], dict)
    is_tensor = one and tensors[0].get("class_name") == "__keras_tensor__"
    return tensors[0]["config"]["keras_history"][0] if is_tensor else None


def _numbers(kind: str, arrays: Sequence[Any], count: int) -> Sequence[Any]:
    if len(arrays) != count:
        raise BadValue(
            f"the layer {kind!r} must have {count} arrays, got {len(arrays)}; "
            f"quantised layers are not read, nor LoRA's parts in an .h5 file: save the model as it was before"
        )
    return arrays


def _normalization(config: dict[str, Any], arrays: Callable[[], Sequence[Any]]) -> Scaling:
    if config["axis"] not in ([-1], [1], None, []):
        raise BadValue(
            f"Normalization must be over the last axis, got axis {str(config['axis'])[:60]}; "
            f"convert the part without it"
        )
    if config["mean"] is None:
        mean, variance, _ = _numbers("Normalization", arrays(), 3)
    else:
        mean, variance = config["mean"], config["variance"]
    mean, variance = (np.asarray(a, np.float64).reshape(-1) for a in (mean, variance))
    with np.errstate(all="ignore"):
        deviation = np.maximum(np.sqrt(variance), EPSILON)
    return Scaling(scale=deviation, shift=mean) if config["invert"] else Scaling(mean, 1 / deviation)
