"""Reads zip archives from untrusted sources (`.keras`, `.npz`) with bounded sizes. It writes nothing."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxneuron._errors import BadValue

MOST_DIRECTORY = 2**20  # bytes: enough for the names of ten thousand members
MOST_EXPANSION = 10  # times the archive's size; Keras and NumPy don't compress their members
FLOOR = 2**20  # bytes: any archive may unpack to so many


def members(path: str | os.PathLike[str], wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The members of the zip archive at `path` whose names are `wanted`, by name.

    Refuses a file that is not an archive, and archives that a sound program would not write: with names that
    lead out of the folder, or with members that unpack to many times the file's size.
    """
    with open(path, "rb") as file:
        try:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                listed = archive.infolist()
                _check_members(listed, os.fstat(file.fileno()).st_size)
                return {info.filename: archive.read(info) for info in listed if wanted(info.filename)}
        except Exception as error:  # zlib, lzma and struct raise errors of their own
            if isinstance(error, OSError) and error.errno not in (
                None,
                errno.EINVAL,
            ):  # EINVAL: a seek to before the start
                raise
            raise BadValue(f"{path} is not a sound archive ({error}); save it again") from None


def _check_directory(file: Any) -> None:
    """Refuses a large directory, because Python reads the directory before any member."""
    file.seek(-min(os.fstat(file.fileno()).st_size, 2**16 + 22), os.SEEK_END)
    tail = file.read()
    for found in re.finditer(b"PK\x05\x06", tail):
        if int.from_bytes(tail[found.start() + 12 : found.start() + 16], "little") > MOST_DIRECTORY:
            raise ValueError(f"its directory has more than {MOST_DIRECTORY} bytes")


def _check_members(listed: list[zipfile.ZipInfo], size: int) -> None:
    for info in listed:
        name = info.orig_filename
        if ".." in re.split(r"[/\\]", name) or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
            raise ValueError(f"the member {name[:60]!r} lies outside it")
    total = sum(info.file_size for info in listed)
    if total > max(FLOOR, MOST_EXPANSION * size):
        raise ValueError(f"it unpacks to {total} bytes, more than {MOST_EXPANSION} times its {size}")


def npy_array(content: bytes) -> np.ndarray:
    """The array in a `.npy` member. Raises ValueError if header and bytes don't fit. Never opens pickles."""
    stream: Any = io.BytesIO(content)
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = formats[np.lib.format.read_magic(stream)](stream)
    except Exception as error:  # a header can make NumPy raise almost anything
        raise ValueError(f"not a .npy header: {str(error)[:100]}") from None
    rest = content[stream.tell() :]
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"an array of {dtype} and shape {shape} does not have {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
