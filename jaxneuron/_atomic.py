"""Writes files that appear only when they are complete.

    write to a file beside `path`  ->  flush it to the disk  ->  rename it to `path`

A program that opens `path` meanwhile finds the old file or the new one, never a part of one, even if the
process is killed or the machine loses power. `replacing` takes all three steps; journal.py takes them one by
one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write. It takes the place of `path` when the block ends; if that fails, it is removed.

    Symbolic links are followed, a file that is replaced keeps its mode, and an OSError names `path`.
    """
    target = destination(path)
    partial = target.with_name(f".jaxneuron-{uuid.uuid4().hex[:12]}.partial")
    with naming(path, partial):
        try:
            with open(partial, "xb") as file:
                keep_mode(partial, target)  # before anyone can read the content
                yield file
                to_disk(file)
            publish(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def destination(path: Path) -> Path:
    """The file to write for `path`: the file to which symbolic links lead, so that they stay links."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return target


@contextlib.contextmanager
def naming(path: Path, *others: Path) -> Iterator[None]:
    """Makes an OSError that names one of `others`, or no file, name `path`, which the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, *map(str, others)):
            error.filename = str(path)
        raise


def keep_mode(file: Path, target: Path) -> None:
    """Gives `file` the permissions of `target`, the file that it will replace, if that exists."""
    if target.exists():
        os.chmod(file, stat.S_IMODE(target.stat().st_mode))


def to_disk(file: BinaryIO) -> None:
    """Brings all that has been written to the disk, past the caches of Python and of the operating system."""
    file.flush()
    os.fsync(file.fileno())


def publish(finished: Path, target: Path) -> None:
    """Renames a file that is on the disk and closed: Windows can't rename an open one."""
    os.replace(finished, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, where a folder can be opened: on Windows it can't."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
