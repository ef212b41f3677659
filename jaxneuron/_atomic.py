"""Files that appear when they are complete.

    write to a file beside `path`  ->  flush it to the disk  ->  rename it to `path`

Whoever opens `path` meanwhile finds the old file or the new one, never a part of one, even if the process is
killed or the machine loses power. `replacing` is all three steps; the journal takes them one by one.
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
    """A file to write that takes the place of `path` when the block ends, and vanishes if it fails.

    Links are followed, a file that is replaced keeps its mode, and an OSError names `path`.
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
    """The file to write for `path`: where links lead, so that they stay links."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return target


@contextlib.contextmanager
def naming(path: Path, *others: Path) -> Iterator[None]:
    """An OSError about a file of no name or one of `others` names `path`, the file the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, *map(str, others)):
            error.filename = str(path)
        raise


def keep_mode(file: Path, target: Path) -> None:
    """Give `file` the permissions of `target`, which it is to replace, if that exists."""
    if target.exists():
        os.chmod(file, stat.S_IMODE(target.stat().st_mode))


def to_disk(file: BinaryIO) -> None:
    """Flush what has been written, past the caches of Python and of the operating system."""
    file.flush()
    os.fsync(file.fileno())


def publish(finished: Path, target: Path) -> None:
    """Rename a file that is on the disk and closed: Windows doesn't rename open ones."""
    os.replace(finished, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder, where the operating system lets a folder be opened: Windows doesn't."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
