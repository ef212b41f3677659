"""Tensors of any safetensors file, its header looked at before anything is believed."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from jaxneuron._files import DTYPES, safetensors_library

MOST_HEADER = 2**22  # bytes; thousands of tensors fit, and it is read in milliseconds


def header(path: str | os.PathLike[str], where: str) -> dict[str, Any]:
    """The header of a safetensors file: tensors by name, and `__metadata__`.

    Raises a ValueError that names the file where it is no header, or too long a one.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(
                f"{where}: {path} is not a whole safetensors file (its header should have {length} bytes, the "
                f"file has {size}); copy or save it again"
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


def tensors(path: str | os.PathLike[str], where: str, prefix: str = "") -> dict[str, np.ndarray]:
    """The tensors whose names begin with `prefix`, by what follows it."""
    library = safetensors_library(where)
    names = [n for n in header(path, where) if n.startswith(prefix) and n != "__metadata__"]
    found = {}
    try:
        with library.safe_open(path, framework="numpy") as file:
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype not in DTYPES:
                    raise ValueError(f"{where}: {path} must hold {', '.join(sorted(DTYPES))}, got {dtype}")
                found[name.removeprefix(prefix)] = file.get_tensor(name)
    except library.SafetensorError as error:
        raise ValueError(
            f"{where}: {path} is not a whole safetensors file ({error}); copy or save it again"
        ) from None
    return found
