"""Networks in safetensors files.

Tensors `layers.0.w`, `layers.0.b`, `layers.1.w`, ...; metadata `format`, `format_version` and, as JSON,
`activation` and `final_activation`. No code is ever read from a file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._params import MLP, Affine

FORMAT = "jaxneuron"
FORMAT_VERSION = 1
MOST_HEADER = 2**20  # bytes; ten thousand tensors fit, and are read within a second
DTYPES = {"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BF16", "F16", "F32", "F64"}


def save(path: str | os.PathLike[str], mlp: MLP) -> None:
    """Write a network to a safetensors file.

    Args:
      path: the file; one that exists is replaced, in one step, when the new one is complete.
      mlp: an `MLP` whose activations have names.

    Raises:
      ValueError: an activation that is a callable of your own, a stack of networks. TypeError: what is no
        `MLP` of arrays. OSError: what the file system says. ImportError: without the extra `files`.

    Numerics: `load` gives every bit back; held by tests/test_files.py.

    Example:
      >>> save("xor.safetensors", jaxneuron.gates.XOR)
      >>> load("xor.safetensors")
      MLP(float64[2,2]+float64[2] sigmoid, float64[2,1]+float64[1] sigmoid)
    """
    library = safetensors_library("save")
    if not isinstance(mlp, MLP):
        raise TypeError(f"save: mlp must be an MLP, got {type(mlp).__name__}; pass MLP([layer]) for a layer")
    MLP(mlp.layers, mlp.activation, mlp.final_activation)  # what a transform made may not be a network
    for activation in mlp.activations:
        if not isinstance(activation, str):
            raise ValueError(
                f"save: activations must have names to be saved, got {activation!r}; "
                f"use one of jaxneuron's, or save the layers under 'identity' and apply yours after load"
            )
    tensors = {
        # A file holds rows; safetensors writes the memory of anything else as if it were rows.
        f"layers.{i}.{name}": np.ascontiguousarray(array).reshape(array.shape)
        for i, layer in enumerate(mlp.layers)
        for name, array in layer._asdict().items()
        if array is not None
    }
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "activation": json.dumps(mlp.activation),
        "final_activation": json.dumps(mlp.final_activation),
    }
    content = library.numpy.save(tensors, metadata)
    with replacing(Path(path)) as file:
        file.write(content)


def load(path: str | os.PathLike[str]) -> MLP:
    """Read a network from a safetensors file that `save` wrote.

    Args:
      path: the file.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no
      bit is lost; `jax.device_put(mlp)` rounds them to float32 once and for all.

    Raises:
      OSError: what the file system says. ValueError: a file that is truncated, of something else,
      of a newer format, with a layer missing, or with shapes that do not fit. ImportError: without
      the extra `files`.
    """
    return on_device(read(path))


def on_device(mlp: MLP) -> MLP:
    """The network in JAX arrays; a type that JAX does not hold now would be narrowed, and stays NumPy's."""
    return jax.tree.map(
        lambda a: jnp.asarray(a) if jax.dtypes.canonicalize_dtype(a.dtype) == a.dtype else a, mlp
    )


def read(path: str | os.PathLike[str]) -> MLP:
    """`load`, with NumPy arrays: the file as it is, and no device touched."""
    library = safetensors_library("load")
    header(path, "load")  # an OSError that names the file, too: safetensors has its own errors
    try:
        with library.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata)
            names = file.keys()
            if foreign := {file.get_slice(name).get_dtype() for name in names} - DTYPES:
                raise ValueError(f"load: {path} must hold {', '.join(sorted(DTYPES))}, got {min(foreign)}")
            tensors = {name: file.get_tensor(name) for name in names}
    except library.SafetensorError as error:
        raise ValueError(
            f"load: {path} is not a whole safetensors file ({error}); copy or save it again"
        ) from None
    try:
        activations = [json.loads(metadata[name]) for name in ("activation", "final_activation")]
        return MLP(_layers(tensors), *activations)
    except KeyError as error:
        raise ValueError(f"load: {path} holds no whole network: the metadata {error} is missing") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"load: {path} holds no whole network: {error}") from None


def header(path: str | os.PathLike[str], where: str) -> dict[str, Any]:
    """The header of a safetensors file: tensors by name, and `__metadata__`.

    Raises a ValueError that names the file where it is no header, or too long a one.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(
                f"{where}: {path} is not a whole safetensors file (its header should have {length} bytes, "
                f"the file has {size}); copy or save it again"
            )
        if length > MOST_HEADER:
            raise ValueError(
                f"{where}: {path} must have a header of at most {MOST_HEADER} bytes, got {length}; "
                f"save the part that is an MLP by itself"
            )
        text = file.read(length)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(
            f"{where}: {path} is not a whole safetensors file (no header); copy or save it again"
        )
    return content


def _check_metadata(path: Any, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"load: {path} must be a file of jaxneuron.save, with the metadata format={FORMAT!r}, "
            f"got {metadata.get('format')!r}; build an MLP from its tensors and save that"
        )
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise ValueError(
            f"load: {path} must have format version {FORMAT_VERSION}, got {str(version)[:20]!r}; "
            f"a newer jaxneuron may read it"
        )


def _layers(tensors: dict[str, np.ndarray]) -> list[Affine]:
    count = sum(name.endswith(".w") for name in tensors)
    layers = []
    for i in range(count):
        if f"layers.{i}.w" not in tensors:
            raise ValueError(f"layers.{i}.w is missing among {count} layers")
        layers.append(Affine(tensors.pop(f"layers.{i}.w"), tensors.pop(f"layers.{i}.b", None)))
    if tensors:
        raise ValueError(f"it has the tensor {min(tensors)!r} too, which is no part of {count} layers")
    return layers


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends, and vanishes if it fails.

    Links are followed, and a file that is replaced keeps its mode.
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".jaxneuron-{uuid.uuid4().hex[:12]}.partial")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with open(partial, "xb") as file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)  # the name that the caller knows
        raise


def safetensors_library(where: str) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError(f"{where}: needs the safetensors library; pip install 'jaxneuron[files]'") from None
    return safetensors
