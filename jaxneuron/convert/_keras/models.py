"""Keras models in memory: their arrays, checks beyond their configuration, and their own forward pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxneuron._errors import BadValue
from jaxneuron.convert._torch_modules import torch_precision


def live_arrays(model: Any, path: str, keras: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The arrays of a model's layers, by the path that they would have in a file."""
    _check_layer(model, keras)
    for layer, name in zip(model.layers, file_names(type(x).__name__ for x in model.layers), strict=True):
        if sum(other is layer for other in model.layers) > 1:
            raise BadValue(
                f"layers must be called once each, got {layer.name!r:.60} several times, which Keras's "
                f"configuration doesn't record; pass a model with a copy of it for each call"
            )
        _check_layer(layer, keras)
        values = [variable.value for variable in layer.variables]
        if isinstance(layer, keras.layers.Dense) and layer.lora_enabled:
            values = [layer.kernel, *([layer.bias] if layer.use_bias else [])]  # kernel includes LoRA's
        yield f"{path}layers/{name}", [keras.ops.convert_to_numpy(value) for value in values]
        if hasattr(layer, "layers"):
            yield from live_arrays(layer, f"{path}layers/{name}/", keras)


def _check_layer(layer: Any, keras: Any) -> None:
    """Refuses a layer with a property that its configuration does not record."""
    where = f"{type(layer).__name__} {layer.name!r:.60}"
    if "call" in vars(layer):
        raise BadValue(
            f"layers must compute what their class does, got a call of its own on {where}; "
            f"remove it, or convert the part without it"
        )
    if getattr(layer, "quantization_mode", None):
        raise BadValue(
            f"layers must not be quantised, got {layer.quantization_mode} in {where}; "
            f"convert the model as it was before"
        )
    function = getattr(layer, "activation", None)
    name = keras.activations.serialize(function) if function is not None else None
    if isinstance(name, str) and keras.activations.get(name) is not function:
        raise BadValue(
            f"activations must be Keras's own, got another function named {name!r} in {where}; "
            f"use from_pairs with your own function"
        )


def file_names(classes: Any) -> Iterator[str]:
    """The names that Keras gives layers of these classes in a file: dense, dense_1, ..."""
    seen: dict[str, int] = {}
    for name in classes:
        name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
        name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
        seen[name] = seen.get(name, -1) + 1
        yield f"{name}_{seen[name]}" if seen[name] else name


def forward(model: Any, keras: Any) -> Callable[[np.ndarray], Any]:
    """The model's own forward pass. Rows are reshaped to the shape that it takes, before a first Flatten."""
    wide = np.float64 if model.variable_dtype == "float64" else np.float32

    def call(rows: np.ndarray) -> Any:
        rows = rows.astype(wide).reshape(len(rows), *model.input_shape[1:])
        return keras.ops.convert_to_numpy(model(rows, training=False))

    return call


def computed_in(model: Any, keras: Any) -> Iterator[str]:
    """The dtypes that a call computes in, including the dtypes to which models cast their rows."""
    yield model.compute_dtype
    for layer in getattr(model, "layers", ()):
        yield from computed_in(layer, keras)
    if keras.config.backend() == "torch":
        yield from torch_precision()
        yield "float32"  # PyTorch's softplus is only as exact as that
