"""Writes a file of rows that appears only when it is complete, even if that takes several runs.

    OUT.partial   the rows written so far
    OUT.journal   a line of facts that determine the rows; then, each second, a line with the number on disk
    OUT.lock      locked while a run writes
    OUT           the rows, once all are there

A run that is killed leaves the first two, and the next run continues from the journal's last line. The
operating system releases the lock when the process ends, so an OUT.lock that is left behind locks nobody out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxneuron._atomic import destination, keep_mode, naming, publish, sync_folder, to_disk
from jaxneuron._errors import missing

INTERVAL = 1.0  # seconds between lines of the journal, and so the most work that a killed run loses
SAMPLE = 2**20  # bytes at the start and at the end of a file that its fingerprint covers
VERSION = 1

Facts = dict[str, Any]
START: Facts = {"rows": 0, "nan_rows": 0, "bytes": 0, "place": []}


class Run:
    """Rows that go to `file`: how many are written, and what a later run must know to continue."""

    def __init__(self, file: BinaryIO, journal: BinaryIO | None = None, done: Facts = START) -> None:
        self.file, self.journal, self.done = file, journal, done
        self.saved = time.monotonic()

    def start(self, facts: Facts | None, end: int) -> None:
        """Cut both files to what `done` counts, the journal to `end` bytes; if that is 0, write `facts`."""
        self.file.truncate(self.done["bytes"])
        self.file.seek(self.done["bytes"])
        if self.journal:
            self.journal.truncate(end)
            self.journal.seek(end)
            if not end:
                _append(self.journal, {"version": VERSION, **(facts or {})})

    def advance(self, rows: int, nan_rows: int, place: Callable[[int], list[int]]) -> None:
        """Count rows that have been written; `place` gives the position of the next row in the input."""
        rows, nan_rows = rows + self.done["rows"], nan_rows + self.done["nan_rows"]
        self.done = self.done | {"rows": rows, "nan_rows": nan_rows}
        if self.journal:
            self.done = self.done | {"bytes": self.file.tell(), "place": place(rows)}
            if time.monotonic() - self.saved > INTERVAL:
                self.save()

    def save(self) -> None:
        """Bring the rows to the disk, then a line that counts them: it counts only rows on the disk."""
        if self.journal:
            to_disk(self.file)
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
    """Yields a `Run` whose file becomes `path` when the block ends.

    Args:
      facts: what determines the rows; None if the input can't be read again, and then no journal is kept.
      force: whether to replace what is there.
      resume: whether to continue with the rows that an earlier run with the same `facts` left.
      pack: writes the content of `path` from the finished file of rows, which is then removed.

    If the block fails, its rows and the journal stay for a later run. After a ValueError or a TypeError they
    are removed, because a later run would raise it again. Symbolic links are followed, and a file that is
    replaced keeps its mode.
    """
    target = destination(path)
    if target.exists() and not force:
        raise ValueError(f"{path}: exists; pass --force to replace it")
    partial, journal, packed, lock = (
        target.with_name(target.name + end) for end in (".partial", ".journal", ".packed", ".lock")
    )
    with naming(path, target.parent, partial, journal, packed, lock), _alone(lock, partial):
        left = partial.exists() and partial.stat().st_size > 0
        if left and not (resume or force):
            raise ValueError(
                f"{partial}: belongs to an unfinished run; "
                f"pass --resume to continue it, or --force to begin again"
            )
        done, end = _read(journal, facts or {}) if left and resume else (START, 0)
        if not end:
            journal.unlink(missing_ok=True)  # before the rows that it counts are cut off
        identity = run = None
        try:
            partial.touch()
            identity = partial.stat()
            with contextlib.ExitStack() as files:
                rows = files.enter_context(open(partial, "r+b", buffering=0))
                lines = None
                if facts is not None:
                    lines = files.enter_context(open(journal, "r+b" if end else "xb", buffering=0))
                run = Run(rows, lines, done)
                run.start(facts, end)
                sync_folder(target.parent)
                try:
                    yield run
                    run.save()
                except BaseException as error:
                    if _worth_keeping(run, error) and _is_at(partial, identity):
                        with contextlib.suppress(OSError):  # the first error is the one to report
                            rows.truncate(run.done["bytes"])
                            run.save()
                    raise
                to_disk(rows)
            # The files are closed from here on: Windows doesn't rename or remove open ones.
            if not _is_at(partial, identity):
                raise ValueError(
                    f"{partial}: must stay in its place during a run, but was moved or removed; run again"
                )
            if pack:
                with open(packed, "wb") as content:
                    pack(partial, content)
                    to_disk(content)
            whole = packed if pack else partial
            keep_mode(whole, target)
            publish(whole, target)
        except BaseException as error:
            if (left and run is None) or (identity and not _is_at(partial, identity)):
                raise
            packed.unlink(missing_ok=True)
            if run and _worth_keeping(run, error):
                error.add_note(f"{run.done['rows']:,} rows are kept; pass --resume to continue from there")
            else:
                partial.unlink(missing_ok=True)
                journal.unlink(missing_ok=True)
            raise
        partial.unlink(missing_ok=True)
        journal.unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """A text that differs for different files of rows, made without reading the whole file."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        ends = file.read(SAMPLE)
        file.seek(max(0, status.st_size - SAMPLE))
        digest = hashlib.sha256(ends + file.read(SAMPLE)).hexdigest()
    return f"{status.st_size} bytes of {status.st_mtime_ns} ns, ends {digest[:32]}"


@contextlib.contextmanager
def _alone(lock: Path, partial: Path) -> Iterator[None]:
    """Holds the lock during the block; raises if another run that writes `partial` holds it."""
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        raise missing("filelock", "cli", "run:") from None
    lock.parent.stat()  # raises if the folder is missing, which filelock would make
    # Not a soft lock: after a run that was killed, its file would lock out every other run.
    held = FileLock(lock, timeout=0, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        raise ValueError(
            f"{partial}: another run is writing it; wait until that has ended, or pass another OUT"
        ) from None
    try:
        yield
    finally:
        # Removed before the release, so that no other run locks a file that is about to be removed. On
        # Windows, where an open file can't be removed, the release removes it.
        with contextlib.suppress(OSError):
            lock.unlink()
        held.release()


def _worth_keeping(run: Run, error: BaseException) -> bool:
    return bool(run.journal and run.done["rows"]) and not isinstance(error, (ValueError, TypeError))


def _is_at(path: Path, identity: os.stat_result) -> bool:
    return path.exists() and os.path.samestat(path.stat(), identity)


def _append(journal: BinaryIO, line: Facts) -> None:
    journal.write(json.dumps(line).encode() + b"\n")
    to_disk(journal)


def _read(journal: Path, facts: Facts) -> tuple[Facts, int]:
    """The counts of the earlier run, and the place where the journal's last whole line ends."""
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    if lines and not lines[-1].endswith(b"\n"):  # cut short when its writer was killed
        lines.pop()
    try:
        begun, *each = map(json.loads, lines)
    except ValueError:
        raise ValueError(
            f"{journal}: must be the journal of an unfinished run, got one that can't be read; "
            f"pass --force without --resume to begin again"
        ) from None
    for name, value in {"version": VERSION, **facts}.items():
        if begun.get(name) != value:
            raise ValueError(
                f"{journal}: must be of a run with the same {name}, {value}, got {begun.get(name)}; "
                f"pass --force without --resume to begin again"
            )
    return each[-1] if each else START, sum(map(len, lines))
