"""Zip archives from strangers (`.keras`, `.npz`): the members asked for, bounded, and nothing written."""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

MOST_MEMBERS = 10_000
MOST_EXPANSION = 10  # times the bytes in the archive; Keras and NumPy store their members as they are
FLOOR = 2**20  # bytes that any member may have
MOST_BYTES = 2**31  # in a member that is text


def members(path: str | os.PathLike[str], where: str, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The members of the zip archive at `path` whose names are `wanted`, by name.

    Raises a ValueError that names the file where it is no archive, or one that a sound program would not
    write: names that lead out of a folder, members that unpack to many times their bytes.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                listed = archive.infolist()
                if len(listed) > MOST_MEMBERS:
                    raise ValueError(f"at most {MOST_MEMBERS} members are read, got {len(listed)}")
                for info in listed:
                    _check(info)
                return {info.filename: _content(archive, info) for info in listed if wanted(info.filename)}
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
            OverflowError,
        ) as error:
            raise ValueError(f"{where}: {path} is not a sound archive ({error}); save it again") from None
        except Exception as error:  # zlib.error, lzma.LZMAError, struct.error, ...
            if isinstance(error, OSError) and error.errno:
                raise
            raise ValueError(f"{where}: {path} is not a sound archive ({error}); save it again") from None


def _check(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    if ".." in re.split(r"[/\\]", name) or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"the member {name[:60]!r} lies outside it")
    if info.file_size > max(FLOOR, MOST_EXPANSION * info.compress_size):
        raise ValueError(
            f"the member {name[:60]!r} unpacks to {info.file_size} bytes, more than {MOST_EXPANSION} times its "
            f"{info.compress_size}"
        )


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        content = member.read(info.file_size)
    if len(content) != info.file_size:
        raise ValueError(f"the member {info.filename[:60]!r} is shorter than it says")
    return content


def npy_array(content: bytes) -> np.ndarray:
    """The array in a `.npy` member; a ValueError where its header and its bytes do not fit. No pickles."""
    import io

    stream: Any = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
    except Exception as error:  # a header can make NumPy raise almost anything
        raise ValueError(f"no .npy header: {str(error)[:100]}") from None
    rest = content[stream.tell() :]
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"an array of {dtype} and shape {shape} does not have {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
