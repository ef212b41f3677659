"""Reads Keras files: `.keras` archives, HDF5 files of models, and HDF5 files of weights alone.

    config.json, model.weights.h5 in a zip archive    a .keras file, of Keras 3 and the last of Keras 2
    model_config, model_weights/NAME/.../kernel       an .h5 file of a model, of Keras 3 and 2
    layers/dense_1/vars/0                             a .weights.h5 file, and model.weights.h5, likewise
    _layer_checkpoint_dependencies/dense_2/vars/0     the same, of Keras 2.12 and 2.13
    layer_names, NAME/.../kernel:0                    an .h5 file of weights, of Keras 2

The files may come from strangers: links are not followed, and sizes are checked before unpacking.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from jaxneuron._errors import REFUSALS, BadValue, inside, missing
from jaxneuron._file_kinds import check_kind, kind_of
from jaxneuron._params import Affine
from jaxneuron.convert._archives import members
from jaxneuron.convert._keras.layers import MODELS, Reader, layers_of
from jaxneuron.convert._keras.models import file_names
from jaxneuron.convert._names import named_layers
from jaxneuron.convert.steps import Step, chain, required

MOST_CONFIG = 2**20  # bytes; a layer takes about a thousand bytes
MOST_MEMBERS = 10000  # in a file; a layer has three or four members
DEEPEST = 60  # levels of groups in groups
MOST_NAMES = 2**26  # bytes that HDF5 may unpack a list of names to
# Errors that h5py raises, or that reading a configuration raises if Keras did not write it.
STRANGE = (OSError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)
EARLIER = "_layer_checkpoint_dependencies"
CONTAINERS = {"layers", EARLIER}  # their groups have the names of the layers' classes
DENSE = re.compile(r"dense(_\d+)?")
# A layer's variables, in the order in which other files number them.
VARIABLES = ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "mean", "variance", "count"]


def file_steps(
    path: str | os.PathLike[str],
    activation: Any,
    final_activation: Any,
    layers: Sequence[str] | None,
    compared: bool,
) -> Iterator[Step]:
    """The steps of the network in a file. The options in `given` are for a file of weights alone.

    `compared`: whether the network will be compared with outputs of its source.
    """
    kind = kind_of(path)
    check_kind(path, "hdf5" if kind == "hdf5" else "keras", "a .keras file, or an .h5 file of Keras")
    h5py = _library()
    given = {"activation": activation, "final_activation": final_activation, "layers": layers}
    if kind != "hdf5":
        refused(str(path), given)
        yield from _archive(path, h5py)
        return
    with open(path, "rb") as raw, _sound(path, "HDF5 file of Keras"), h5py.File(raw, "r") as file:
        store = _Store(file, os.fstat(raw.fileno()).st_size, h5py)
        if "model_config" in file.attrs:
            refused(str(path), given)
            with inside("source"):
                yield from _model(store)
        else:
            affines = _weights(store, layers, compared)
            yield from chain(affines, *required("a file of a model", activation, final_activation))


def is_weights(path: str | os.PathLike[str]) -> bool:
    """Whether an HDF5 file holds weights without the configuration of a model."""
    h5py = _library()
    with open(path, "rb") as raw, contextlib.suppress(*STRANGE), h5py.File(raw, "r") as file:
        return "model_config" not in file.attrs
    return False


def arrays_of(path: str | os.PathLike[str]) -> dict[str, tuple[str, list[int]]]:
    """The dtypes and shapes of the arrays in a file of weights, by their paths in the file."""
    h5py = _library()
    with open(path, "rb") as raw, _sound(path, "HDF5 file"), h5py.File(raw, "r") as file:
        found = {"/".join(place): data for place, data in _Store(file, 0, h5py).leaves()}
        return {name: (data.dtype.name, list(data.shape)) for name, data in sorted(found.items())}


def _library() -> Any:
    try:
        import h5py
    except ImportError:
        raise missing("h5py", "keras") from None
    return h5py


def refused(holder: str, given: dict[str, Any]) -> None:
    """Refuses options, if given, whose values a `holder` records itself."""
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise BadValue(
            f"{' and '.join(named)} must not be given for {holder}, which records its layers; leave it out"
        )


def _archive(path: str | os.PathLike[str], h5py: Any) -> Iterator[Step]:
    found = members(path, lambda name: name in ("config.json", "metadata.json", "model.weights.h5"))
    about = found.pop("metadata.json", b"{}")
    if len(found) != 2:
        raise BadValue(
            f"{path} must hold config.json and model.weights.h5, "
            f"got {', '.join(found) or 'neither'}; save the model with model.save('name.keras')"
        )
    try:
        content, about = _parsed(found["config.json"]), _parsed(about)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{path} is not a sound .keras file (config.json: {error}); save it again") from None
    weights = found["model.weights.h5"]
    with _sound(path, ".keras file"), h5py.File(io.BytesIO(weights), "r") as file, inside("source"):
        store = _Store(file, len(weights), h5py)
        yield from Reader(store.numbered, _is_keras_2(about.get("keras_version"))).steps(content)


def _parsed(text: bytes | str) -> Any:
    if len(text) > MOST_CONFIG:
        raise ValueError(f"more than {MOST_CONFIG} bytes")
    return json.loads(text)


def _is_keras_2(version: Any) -> bool:
    return str(version).startswith(("1.", "2."))


def _model(store: _Store) -> Iterator[Step]:
    """The steps of an HDF5 file that holds a model."""
    try:
        content = _parsed(store.text("model_config"))
    except (ValueError, RecursionError) as error:
        raise _Unsound(f"model_config: {error}") from None
    places: dict[str, tuple[str, str]] = {}

    def arrays(path: str) -> list[np.ndarray]:
        places.update({} if places else _places(content))  # once the reader has seen that it is a model
        return store.named(*places[path])

    keras_2 = _is_keras_2(store.text("keras_version"))
    yield from Reader(arrays, keras_2).steps(content)


def _places(content: Any, path: str = "", outer: str | None = None) -> Iterator[tuple[str, tuple[str, str]]]:
    """For the path of every layer: the names of the outermost layer that contains it, and of the layer."""
    if path.count("layers/") > DEEPEST or not isinstance(content, dict):
        return
    layers = layers_of(content)
    for name, layer in zip(file_names(layer["class_name"] for layer in layers), layers, strict=True):
        own = layer["config"]["name"] if isinstance(layer["config"], dict) else layer["name"]
        yield f"{path}layers/{name}", (outer or own, own)
        if layer["class_name"] in MODELS:
            yield from _places(layer, f"{path}layers/{name}/", outer or own)


def _weights(store: _Store, layers: Sequence[str] | None, compared: bool) -> list[Affine]:
    """The layers of an HDF5 file that holds weights alone."""
    by_name = any(key.startswith("layer_names") for key in store.file.attrs)
    tree: dict[str, dict[str, Any]] = {}
    for path, dataset in store.leaves():
        if path[0] == "optimizer" or dataset.ndim == 0 or (dataset.ndim == 1 and dataset.dtype.kind in "iu"):
            continue  # the states of optimizers, metrics and random numbers
        layer, variable = _by_name(path) if by_name else _by_number(path, dataset.ndim)
        tree.setdefault(layer, {})[variable] = dataset
    names = store.layer_names() if by_name and layers is None else []
    if tree and tree.keys() <= set(names):
        layers = [name for name in names if name in tree]
    return named_layers(
        tree,
        "source",
        layers=layers,
        remedy="a file of weights doesn't say what such a layer computes: read a file of the whole model, "
        "or pass layers=[...] with the names of the network's layers in order",
        first=0 if all(DENSE.fullmatch(path.rpartition("/")[2]) for path in tree) else None,
        array=store.array,
        compared=compared,
    )


def _by_number(path: tuple[str, ...], ndim: int) -> tuple[str, str]:
    """The layer and the variable at a path such as layers/dense_1/vars/0, which names the layer's class."""
    if len(path) < 3 or path[-2] != "vars":
        raise BadValue(
            f"source must be a file of Keras, got an HDF5 file with {'/'.join(path)!r:.80}; "
            f"read its arrays with h5py, and pass them to from_pairs"
        )
    *outer, layer = path[:-2]
    is_dense = DENSE.fullmatch(layer) or not {*outer[-1:]} & CONTAINERS
    variable = {("0", 2): "kernel", ("1", 1): "bias"}.get((path[-1], ndim)) if is_dense else None
    return "/".join((*outer, layer)), variable or path[-1]


def _by_name(path: tuple[str, ...]) -> tuple[str, str]:
    """The layer and the variable at a path such as dense_1/model/dense_1/kernel:0, of Keras 2."""
    outermost, own = path[0], path[-2] if len(path) > 2 else path[0]
    return outermost if own == outermost else f"{outermost}/{own}", path[-1].removesuffix(":0")


@contextlib.contextmanager
def _sound(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    try:
        yield
    except REFUSALS:  # a value of a wrong type raises TypeError
        raise
    except (_Unsound, *STRANGE) as error:
        raise BadValue(f"{path} is not a sound {kind} ({error!s:.200}); save it again") from None


def _decoded(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


class _Unsound(Exception):
    """The file is not one that Keras writes."""


class _Store:
    """An HDF5 file. At most its `size` in bytes is unpacked from it."""

    def __init__(self, file: Any, size: int, h5py: Any) -> None:
        self.file, self._size, self._left, self._h5py = file, size, size, h5py

    def numbered(self, path: str) -> list[np.ndarray]:
        """The arrays of the layer at `path`, such as layers/dense_1."""
        if EARLIER in self.file:  # such a file lists a layer with arrays twice
            path = re.sub(r"_(\d+)(?=/|$)", lambda match: f"_{2 * int(match[1])}", path)
            path = re.sub(r"(^|/)layers/", rf"\1{EARLIER}/", path)
        try:
            group = self._group(f"{path}/vars")
            return [self.array(self._hard(group, str(i))) for i in range(len(group))]
        except (ValueError, *STRANGE) as error:  # from HDF5, if the bytes are not such a file
            raise _Unsound(f"{path[:60]}: {error}") from None

    def named(self, outermost: str, own: str) -> list[np.ndarray]:
        """The arrays of the layer `own`, in the group of the `outermost` layer that contains it."""
        found: dict[str, Any] = {}
        for path, dataset in self.leaves("model_weights", outermost):
            if outermost != own and path[-2:-1] != (own,):
                continue
            name = path[-1].removesuffix(":0")
            if name in found:
                raise _Unsound(f"two arrays {name[:60]!r} of {own[:60]!r}")
            found[name] = dataset
        order = sorted(found, key=lambda name: (VARIABLES.index(name) if name in VARIABLES else 99, name))
        return [self.array(found[name]) for name in order]

    def leaves(self, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
        """The datasets below the group at `path`, by their paths from there."""
        group = self._group("/".join(path))
        waiting: list[tuple[tuple[str, ...], Any]] = [((), group)]
        count = 0
        while waiting:
            place, group = waiting.pop()
            for name in group:
                count += 1
                if count > MOST_MEMBERS or len(place) > DEEPEST:
                    raise _Unsound(f"more than {MOST_MEMBERS} members, or {DEEPEST} groups in groups")
                member = self._hard(group, name)
                if isinstance(member, self._h5py.Group):
                    waiting.append(((*place, name), member))
                elif isinstance(member, self._h5py.Dataset):
                    yield (*place, name), member

    def array(self, data: Any) -> np.ndarray:
        plain = (
            data.chunks is None and not data.external and not data.is_virtual and data.dtype.kind in "fiubV"
        )
        if not plain or not data.nbytes == data.id.get_storage_size() <= self._left:
            raise _Unsound(f"{data.name[1:61]} is not a plain dataset, or not complete")
        self._left -= data.nbytes
        array = data[()]
        # HDF5 does not have bfloat16: h5py writes two bytes of an unknown type. In .h5 files of models
        # nothing else shows that they are bfloat16.
        is_bfloat16 = data.attrs.get("dtype") == "bfloat16" or data.dtype == np.dtype("V2")
        return array.view(ml_dtypes.bfloat16) if is_bfloat16 else array

    def text(self, name: str) -> str:
        """A text among the file's attributes, or ""."""
        if name not in self.file.attrs:
            return ""
        found = self.file.attrs.get_id(name)
        if found.shape != () or found.get_storage_size() > MOST_CONFIG:
            raise _Unsound(f"the attribute {name!r} is of shape {found.shape} or too large")
        return _decoded(self.file.attrs[name])

    def layer_names(self) -> list[str]:
        """The names of a model's layers in order, which Keras writes as one list or, if long, as several."""
        attributes = self.file.attrs
        keys = ["layer_names", *(f"layer_names{i}" for i in range(len(attributes)))]
        names: list[str] = []
        for key in (key for key in keys if key in attributes):
            found = attributes.get_id(key)
            most = max(found.get_storage_size(), math.prod(found.shape) * self._size)
            if most > MOST_NAMES:  # a name may be as long as the file; only unpacking tells
                raise BadValue(
                    f"layers must be given, because the file's list of {math.prod(found.shape)} names may "
                    f"unpack to {most} bytes, more than {MOST_NAMES}; pass layers=[...], the names in order"
                )
            names += map(_decoded, np.ravel(attributes[key]))
        return names

    def _group(self, path: str) -> Any:
        group = self.file
        for name in path.split("/") if path else ():
            group = self._hard(group, name)
        return group

    def _hard(self, group: Any, name: str) -> Any:
        """A member of a group. Refuses a link to another place or file."""
        if not isinstance(group.get(name, getlink=True), self._h5py.HardLink):
            raise _Unsound(f"no {name[:60]!r} in it")
        return group[name]
