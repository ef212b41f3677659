"""Rows of numbers in `.npy` and `.csv` files, read and written a tile at a time.

A tile is a float array `(rows, columns)`, `.npy` files also give integers and booleans. CSV is
comma-separated UTF-8; blank lines are skipped; a first line of names alone, each with a letter, none a
number or a word for a missing one, is a header.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxneuron._arrays import as_array
from jaxneuron._files import replacing

MISSING = {"na", "n/a", "null", "none", "missing"}
Write = Callable[[np.ndarray], None]


def read_rows(path: Path, columns: int, tile: int) -> Iterator[np.ndarray]:
    """The rows of `path`, at most `tile` at a time; one empty tile if there are none.

    Raises a ValueError that names the file, and for CSV the line, where there are not `columns`
    numbers in a row.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path, columns, tile)
    if path.suffix.lower() == ".csv":
        return _read_csv(path, columns, tile)
    raise ValueError(f"{path}: rows must be in a .npy or a .csv file, got {path.suffix or 'no suffix'!r}")


@contextlib.contextmanager
def writing_rows(path: Path, force: bool) -> Iterator[Write]:
    """A function that appends tiles to `path`, which appears when the block ends without an error."""
    writers = {".npy": _npy_writer, ".csv": _csv_writer}
    suffix = path.suffix.lower()
    if suffix not in writers:
        raise ValueError(f"{path}: rows must go to a .npy or a .csv file, got {path.suffix or 'no suffix'!r}")
    if os.path.lexists(path) and not force:
        raise ValueError(f"{path}: exists; pass --force to replace it")
    with replacing(path) as file, writers[suffix](file) as write:
        yield write


def _read_npy(path: Path, columns: int, tile: int) -> Iterator[np.ndarray]:
    with open(path, "rb"):
        pass  # for an OSError that names the file
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a header can make NumPy raise almost anything
        raise ValueError(f"{path}: must be a .npy file of numbers ({error})") from None
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ValueError(f"{path}: must have shape (rows, {columns}) for this network, got {rows.shape}")
    as_array(rows[:0], str(path), "rows")
    for start in range(0, max(len(rows), 1), tile):
        yield rows[start : start + tile]


def _read_csv(path: Path, columns: int, tile: int) -> Iterator[np.ndarray]:
    # What is not UTF-8 is replaced, and then it is no number: _parse names its line.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines: Iterator[tuple[int, str]] = filter(lambda numbered: numbered[1].strip(), enumerate(file, 1))
        first = list(itertools.islice(lines, 1))
        if first and _is_header(first[0][1]):
            _check_columns(path, *first[0], columns)
            first = []
        lines = itertools.chain(first, lines)
        yield _parse(path, list(itertools.islice(lines, tile)), columns)
        while more := list(itertools.islice(lines, tile)):
            yield _parse(path, more, columns)


def _is_header(line: str) -> bool:
    names = [field.strip().strip("\"'") for field in line.split(",")]
    return all(re.search(r"[^\W\d_]", n) and n.lower() not in MISSING and not _is_number(n) for n in names)


def _check_columns(path: Path, number: int, line: str, columns: int) -> list[str]:
    fields = line.split(",")
    if len(fields) != columns:
        raise ValueError(
            f"{path}: line {number}: must have {columns} columns for this network, got {len(fields)}"
        )
    return fields


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python reads 1_000, NumPy does not


def _parse(path: Path, lines: list[tuple[int, str]], columns: int) -> np.ndarray:
    if not lines:
        return np.empty((0, columns))
    try:
        tile = np.loadtxt((line for _, line in lines), delimiter=",", ndmin=2, comments=None)
        if tile.shape[1] == columns:
            return tile
    except ValueError:
        pass
    for number, line in lines:  # which one was it?
        for column, field in enumerate(_check_columns(path, number, line, columns), 1):
            if not _is_number(field):
                raise ValueError(
                    f"{path}: line {number}: column {column} must be a number, got {field.strip()!r}"
                )
    raise ValueError(f"{path}: lines {lines[0][0]} to {lines[-1][0]} must hold decimal numbers")


@contextlib.contextmanager
def _npy_writer(file: BinaryIO) -> Iterator[Write]:
    shape, dtype = (0, 0), np.dtype(float)

    def write_header() -> None:
        # NumPy leaves room for the first axis to grow: the final header takes as many bytes as the first.
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header)

    def write(tile: np.ndarray) -> None:
        nonlocal shape, dtype
        if not file.tell():
            shape, dtype = (0, tile.shape[1]), tile.dtype
            write_header()
        shape = (shape[0] + len(tile), shape[1])
        file.write(np.ascontiguousarray(tile).data)

    yield write
    write_header()


@contextlib.contextmanager
def _csv_writer(file: BinaryIO) -> Iterator[Write]:
    def write(tile: np.ndarray) -> None:
        digits = {2: 5, 4: 9, 8: 17}[tile.dtype.itemsize]  # enough to give every bit back
        np.savetxt(file, tile, fmt=f"%.{digits}g", delimiter=",")

    yield write
