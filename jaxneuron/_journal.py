"""A file that appears when it is complete, however many runs that takes.

    OUT.partial   what has been written so far
    OUT.journal   a line of what it is made of, then once a second one of how much is done and on the disk
    OUT           in the end

A run that is killed leaves the first two, and another goes on from the last line.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

INTERVAL = 1.0  # seconds between lines, and so the work that may be lost
SAMPLE = 2**20  # bytes at either end of a file that its fingerprint covers
VERSION = 1

Facts = dict[str, Any]
START: Facts = {"rows": 0, "nan_rows": 0, "bytes": 0, "place": []}


class Run:
    """Rows that go to `file`: how many are written, and what a later run must know to go on."""

    def __init__(self, file: BinaryIO, journal: BinaryIO | None = None) -> None:
        self.file, self.journal = file, journal
        self.done = START
        self.saved = time.monotonic()

    def advance(self, rows: int, nan_rows: int, place: Callable[[int], list[int]]) -> None:
        """Count rows that have been written; `place` gives the place of the next one in the input."""
        rows, nan_rows = rows + self.done["rows"], nan_rows + self.done["nan_rows"]
        self.done = self.done | {"rows": rows, "nan_rows": nan_rows}
        if self.journal:
            self.done = self.done | {"bytes": self.file.tell(), "place": place(rows)}
            if time.monotonic() - self.saved > INTERVAL:
                self.save()

    def save(self) -> None:
        if self.journal:
            os.fsync(self.file.fileno())  # the rows first: the journal never runs ahead of them
            _append(self.journal, self.done)
            self.saved = time.monotonic()


@contextlib.contextmanager
def resumable(
    path: Path,
    facts: Facts | None,
    *,
    force: bool,
    resume: bool,
    pack: Callable[[Path, BinaryIO], object] | None = None,
) -> Iterator[Run]:
    """A `Run` whose file becomes `path` when the block ends.

    Args:
      facts: what the content follows from. None where it can't be made again: no journal is kept.
      force: replace what is there. resume: go on with what an earlier run of the same `facts` left.
      pack: makes the content of `path` from the finished file, which is then removed.

    A block that fails leaves its rows and the journal, if there are any and the failure may pass: a
    ValueError or TypeError would come again. Links are followed, and a file that is replaced keeps its
    mode.
    """
    target = Path(os.path.realpath(path))
    partial, journal, packed = (
        target.with_name(target.name + end) for end in (".partial", ".journal", ".packed")
    )
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not force:
        raise ValueError(f"{path}: exists; pass --force to replace it")
    with _naming(path, partial, journal, packed), contextlib.ExitStack() as stack:
        file = stack.enter_context(_locked(partial))
        run, left, ours = Run(file), os.fstat(file.fileno()).st_size > 0, False
        try:
            if left and not (resume or force):
                raise ValueError(
                    f"{partial}: an unfinished run has left this; "
                    f"pass --resume to go on, or --force to begin again"
                )
            if left and resume:
                run.done, end = _read(journal, facts or {})
                run.journal = stack.enter_context(open(journal, "r+b", buffering=0))
                run.journal.truncate(end)
                run.journal.seek(end)
            else:
                journal.unlink(missing_ok=True)  # before the rows that it tells of
                file.truncate(0)
                if facts is not None:
                    run.journal = stack.enter_context(open(journal, "xb", buffering=0))
                    _append(run.journal, {"version": VERSION, **facts})
            ours = True
            file.truncate(run.done["bytes"])
            file.seek(run.done["bytes"])
            _sync_folder(target)
            yield run
            run.save()
            whole = partial
            if pack:
                whole = packed
                with open(packed, "wb") as content:
                    pack(partial, content)
                    content.flush()
                    os.fsync(content.fileno())
            os.fsync(file.fileno())
            if not _is_at(partial, file):
                raise ValueError(
                    f"{partial}: must stay where it is during a run, was moved or removed; run again"
                )
            if target.exists():
                os.chmod(whole, stat.S_IMODE(target.stat().st_mode))
        except BaseException as error:
            if (left and not ours) or not _is_at(partial, file):
                raise
            packed.unlink(missing_ok=True)
            if run.journal and run.done["rows"] and not isinstance(error, (ValueError, TypeError)):
                with contextlib.suppress(OSError):  # the error at hand is the one to tell
                    file.truncate(run.done["bytes"])
                    run.save()
                error.add_note(f"{run.done['rows']:,} rows are kept and --resume goes on from there")
            else:
                partial.unlink(missing_ok=True)
                journal.unlink(missing_ok=True)
            raise
        os.replace(whole, target)
        _sync_folder(target)
        partial.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """What tells a file of rows from another, without reading it whole."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        ends = file.read(SAMPLE)
        file.seek(max(0, status.st_size - SAMPLE))
        digest = hashlib.sha256(ends + file.read(SAMPLE)).hexdigest()
    return f"{status.st_size} bytes of {status.st_mtime_ns} ns, ends {digest[:32]}"


@contextlib.contextmanager
def _naming(path: Path, *others: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, *map(str, others)):
            error.filename = str(path)  # the name that the caller knows
        raise


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[BinaryIO]:
    with open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = _is_at(partial, file)  # not if another run has just ended and renamed it
        except BlockingIOError:
            free = False
        if not free:
            raise ValueError(f"{partial}: another run is writing it; let it end, or write to another file")
        yield file


def _is_at(path: Path, file: BinaryIO) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _append(journal: BinaryIO, line: Facts) -> None:
    journal.write(json.dumps(line).encode() + b"\n")
    os.fsync(journal.fileno())


def _read(journal: Path, facts: Facts) -> tuple[Facts, int]:
    """How much was done, and where the journal's last whole line ends."""
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    if lines and not lines[-1].endswith(b"\n"):  # torn when its writer was killed
        lines.pop()
    try:
        begun, *each = map(json.loads, lines)
    except ValueError:
        raise ValueError(
            f"{journal}: must be the journal of an unfinished run, got none that can be read; "
            f"pass --force without --resume to begin again"
        ) from None
    for name, value in {"version": VERSION, **facts}.items():
        if begun.get(name) != value:
            raise ValueError(
                f"{journal}: must be of a run with this {name}, {value}, got {begun.get(name)}; "
                f"pass --force without --resume to begin again"
            )
    return each[-1] if each else START, sum(map(len, lines))


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
