"""Networks in safetensors files: `save` and `load`.

    tensors     layers.0.w, layers.0.b, layers.1.w, ...
    metadata    format, format_version; activation and final_activation, as JSON
                in version 2 also, as JSON: inputs and outputs, the lists of names, if they are known;
                members, the number of networks in a stack, whose tensors have a leading axis of members

An activation is written as its name or, in version 2, as an object with parameters:
{"name": "leaky_relu", "slope": 0.2}. A network that needs nothing of version 2 is written as version 1, which
older releases read. No code is ever read from a file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._arrays import concrete
from jaxneuron._atomic import replacing
from jaxneuron._errors import BadType, BadValue, missing, public
from jaxneuron._file_kinds import check_kind, remedy
from jaxneuron._members import as_members, as_stack, members_of
from jaxneuron._names import Parametric, described, from_description
from jaxneuron._params import MLP, Affine, as_layers, as_mlp, check_mlp

FORMAT = "jaxneuron"
FORMAT_VERSIONS = ("1", "2")
NAMES = ("inputs", "outputs")
LONGEST_HEADER = 2**20  # bytes: enough for ten thousand tensors, and parsed within a second
DTYPES = {"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BF16", "F16", "F32", "F64"}


@public
@concrete
def save(path: str | os.PathLike[str], mlp: MLP) -> None:
    """Writes a network to a safetensors file.

    Args:
      path: the file. An existing file is replaced in one step, once the new file is complete.
      mlp: an `MLP`, or a stack of networks, whose activations are names or values with parameters such as
        `LeakyReLU(0.2)`.

    Raises:
      ValueError: if an activation is your own callable, or the arrays of a stack have different numbers of
        members.
      TypeError: if `mlp` is not an `MLP` of arrays, or `path` is not a path.
      OSError: if the file can't be written.
      ImportError: if safetensors, of the extra `files`, is not installed.

    Numerics: `load` returns the same bits. Tested by tests/test_files.py.

    Example:
      >>> save("xor.safetensors", jaxneuron.gates.XOR)
      >>> load("xor.safetensors")
      MLP(float64[2,2]+float64[2] sigmoid, float64[2,1]+float64[1] sigmoid)
    """
    library = safetensors_library()
    check_mlp(mlp, "pass MLP([layer]) for a layer")
    members = members_of(mlp)
    # Checked again: a JAX transform may have put anything in them.
    as_layers(mlp.layers) if members is None else as_members(mlp.layers)
    hidden = mlp.activation if isinstance(mlp.activation, tuple) else (mlp.activation,)
    activations = (*hidden, mlp.final_activation)
    for activation in activations:
        if not isinstance(activation, (str, Parametric)):
            raise BadValue(
                f"activations must have names to be saved, got {activation!r}; "
                f"use one of jaxneuron's, or save the network with 'identity' and apply yours after load"
            )
    tensors = {
        # In C order: safetensors writes an array's memory as it is, whatever its strides.
        f"layers.{i}.{name}": np.ascontiguousarray(array).reshape(array.shape)
        for i, layer in enumerate(mlp.layers)
        for name, array in layer._asdict().items()
        if array is not None
    }
    more = {name: getattr(mlp, name) for name in NAMES if getattr(mlp, name) is not None}
    more |= {} if members is None else {"members": members}
    plain = not more and all(isinstance(activation, str) for activation in activations)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSIONS[not plain],
        "activation": json.dumps(mlp.activation, default=described),
        "final_activation": json.dumps(mlp.final_activation, default=described),
        **{name: json.dumps(value) for name, value in more.items()},
    }
    content = library.numpy.save(tensors, metadata)
    with replacing(as_path(path)) as file:
        file.write(content)


@public
@concrete
def load(path: str | os.PathLike[str]) -> MLP:
    """Reads a network from a safetensors file that `save` wrote. Code in a file is never executed.

    Args:
      path: the file.

    Returns:
      An `MLP`, or the stack of networks that was saved, of JAX arrays on the default device. While
      `jax_enable_x64` is off, float64 arrays are NumPy arrays instead, so that no bit is lost;
      `jax.device_put(mlp)` rounds them to float32.

    Raises:
      ValueError: if the file is truncated, was not written by `save`, has a newer format, lacks a layer, or
        has shapes that do not fit.
      TypeError: if `path` is not a path.
      OSError: if the file can't be read.
      ImportError: if safetensors, of the extra `files`, is not installed.

    Numerics: every bit is the one that `save` wrote. Tested by tests/test_files.py.

    Example:
      >>> save("and.safetensors", jaxneuron.MLP([([[0.5], [0.5]], [-0.7])]))
      >>> load("and.safetensors").layers[0].b.tolist()
      [-0.7]
    """
    return on_device(read(path))


def on_device(mlp: MLP) -> MLP:
    """The network as JAX arrays; arrays whose dtype JAX would narrow at the moment become NumPy arrays.

    NumPy arrays are copied, because their owner may go on to change them.
    """

    def own(array: Any) -> Any:
        if isinstance(array, jax.Array):
            return array
        return (jnp if jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype else np).array(array)

    return jax.tree.map(own, mlp)


def read(path: str | os.PathLike[str]) -> MLP:
    """`load`, but with NumPy arrays in the file's own dtypes, and without touching a device."""
    library, path = safetensors_library(), as_path(path)
    header(path)  # also for an OSError that names the file: safetensors' own errors don't
    try:
        with library.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata)
            names = file.keys()
            if foreign := {file.get_slice(name).get_dtype() for name in names} - DTYPES:
                raise BadValue(
                    f"{path} must hold {', '.join(sorted(DTYPES))}, got {min(foreign)}; "
                    f"save the tensors in one of these"
                )
            tensors = {name: file.get_tensor(name) for name in names}
    except library.SafetensorError as error:
        raise BadValue(f"{path} is not a whole safetensors file ({error}); copy or save it again") from None
    try:
        structure = [json.loads(metadata[name]) for name in ("activation", "final_activation")]
        if metadata["format_version"] != FORMAT_VERSIONS[0]:
            structure = [from_description(each) for each in structure]
            structure += [json.loads(metadata.get(name, "null")) for name in NAMES]
            if "members" in metadata:
                return as_stack(_layers(tensors), json.loads(metadata["members"]), *structure)
        return as_mlp(_layers(tensors), *structure)
    except KeyError as error:
        raise BadValue(
            f"{path} holds no whole network: the metadata {error} is missing; save the network again"
        ) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise BadValue(f"{path} holds no whole network: {error}; save the network again") from None


def as_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise BadType(f"path must be a string or a path, got {type(path).__name__}; pass a string")
    return Path(path)


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a safetensors file: tensors by name, and `__metadata__`.

    Refuses a file of another kind, without a header, or with a header that is too long. The messages name the
    file.
    """
    try:
        return _header(path)
    except (BadValue, OSError):
        check_kind(path, "safetensors", "a safetensors file")
        raise


def _header(path: str | os.PathLike[str]) -> dict[str, Any]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise BadValue(
                f"{path} is not a whole safetensors file (it needs {8 + length if size >= 8 else 8} bytes "
                f"for its header, it has {size}); copy or save it again"
            )
        if length > LONGEST_HEADER:
            raise BadValue(
                f"{path} must have a header of at most {LONGEST_HEADER} bytes, got {length}; "
                f"save the part that is an MLP by itself"
            )
        text = file.read(length)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise BadValue(f"{path} is not a whole safetensors file (no header); copy or save it again")
    return content


def is_ours(content: dict[str, Any]) -> bool:
    """Whether `save` wrote the safetensors file with this header."""
    metadata = content.get("__metadata__")
    return isinstance(metadata, dict) and metadata.get("format") == FORMAT


def _check_metadata(path: Any, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise BadValue(
            f"{path} must be a file of jaxneuron.save, with the metadata format={FORMAT!r}, "
            f"got {metadata.get('format')!r}; {remedy(path, 'foreign')}"
        )
    version = metadata.get("format_version")
    if version not in FORMAT_VERSIONS:
        raise BadValue(
            f"{path} must have format version {' or '.join(FORMAT_VERSIONS)}, got {str(version)[:20]!r}; "
            f"read it with a newer jaxneuron"
        )


def _layers(tensors: dict[str, np.ndarray]) -> list[Affine]:
    count = sum(name.endswith(".w") for name in tensors)
    layers = []
    for i in range(count):
        if f"layers.{i}.w" not in tensors:
            raise BadValue(f"layers.{i}.w is missing among {count} layers")
        layers.append(Affine(tensors.pop(f"layers.{i}.w"), tensors.pop(f"layers.{i}.b", None)))
    if tensors:
        raise BadValue(f"unexpected tensor {min(tensors)!r}, which belongs to none of the {count} layers")
    return layers


def safetensors_library() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise missing("safetensors", "files") from None
    return safetensors
