"""Reads rows of numbers from `.npy`, `.csv` and `.parquet` files, a chunk at a time.

A chunk is an array `(rows, columns)`: float64 from CSV, in the file's own dtype from the others. CSV is
comma-separated UTF-8; blank lines are skipped; the first line is a header if it holds names only, each with a
letter, none a number or a word for a missing one.

Files are read, not mapped: cutting short a mapped file kills the process; this way it is an error.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxneuron._arrays import as_array
from jaxneuron._errors import missing

STREAM = Path("-")  # standard input and output, in CSV
CHUNK = 2**22  # bytes read at a time
PARQUET_ROWS = 2**16  # rows of Parquet read or written at a time
NUMBER = 128  # bytes that a number in CSV may take, on average
MISSING = {"na", "n/a", "null", "none", "missing"}


def read_rows(path: Path, columns: int) -> Reader:
    """A reader of the rows of `path`.

    Raises OSError, or a ValueError or TypeError that names the file, and the line or row that doesn't hold
    `columns` numbers.
    """
    return by_suffix(path, {".npy": Npy, ".csv": Csv, ".parquet": Parquet}, "be in")(path, columns)


def by_suffix(path: Path, kinds: dict[str, Any], must: str) -> Any:
    """The one of `kinds` for `path`; rows `must` "be in" or "go to" such a file."""
    suffix = ".csv" if path == STREAM else path.suffix.lower()
    if suffix not in kinds:
        raise ValueError(
            f"{path}: rows must {must} a .npy, .csv or .parquet file, got {suffix or 'no suffix'!r}"
        )
    return kinds[suffix]


def pyarrow_for(what: str) -> Any:
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise missing("pyarrow", "cli", f"run: {what}") from None
    return pyarrow


class Npy:
    """Rows of a `.npy` file, in C or Fortran order."""

    def __init__(self, path: Path, columns: int) -> None:
        with open(path, "rb"):
            pass  # for an OSError that names the file
        try:
            header = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # a header can make NumPy raise almost anything
            raise ValueError(f"{path}: must be a .npy file of numbers ({error})") from None
        if header.ndim != 2 or header.shape[1] != columns:
            raise ValueError(
                f"{path}: must have shape (rows, {columns}) for this network, got {header.shape}"
            )
        as_array(header[:0], f"{path}: rows")
        self.path, self.columns, self.count, self.dtype = path, columns, len(header), header.dtype
        self.offset, self.by_columns = header.offset, not header.flags.c_contiguous

    def chunks(self, start: int, place: list[int]) -> Iterator[np.ndarray]:
        step = max(1, CHUNK // max(1, self.columns * self.dtype.itemsize))
        with open(self.path, "rb") as file:
            for row in range(start, self.count, step):
                n = min(step, self.count - row)
                if self.by_columns:
                    rows = np.empty((n, self.columns), self.dtype)
                    for i in range(self.columns):
                        rows[:, i] = self._read(file, i * self.count + row, n)
                else:
                    rows = self._read(file, row * self.columns, n * self.columns).reshape(n, self.columns)
                yield np.asarray(as_array(rows, f"{self.path}: rows {row} to {row + n - 1}"))

    def _read(self, file: BinaryIO, first: int, n: int) -> np.ndarray:
        file.seek(self.offset + first * self.dtype.itemsize)
        numbers = np.fromfile(file, self.dtype, n)
        if len(numbers) < n:
            raise ValueError(f"{self.path}: must hold {self.count} rows, was cut short while it was read")
        return numbers

    def place(self, row: int) -> list[int]:
        return []


class Csv:
    """Rows of a `.csv` file or of standard input."""

    count = None
    dtype = np.dtype(float)

    def __init__(self, path: Path, columns: int) -> None:
        self.path, self.columns = path, columns
        if path != STREAM:
            os.stat(path)  # for an OSError that names the file
        # How many bytes, lines and rows come before each block that isn't done entirely.
        self._blocks: collections.deque[list[int]] = collections.deque()

    def chunks(self, start: int, place: list[int]) -> Iterator[np.ndarray]:
        offset, line, row = place or (0, 0, 0)
        longest = CHUNK + NUMBER * self.columns
        with (
            contextlib.nullcontext(sys.stdin.buffer) if self.path == STREAM else open(self.path, "rb") as file
        ):
            if place:
                file.seek(offset)
            while block := file.read(CHUNK):
                if not block.endswith(b"\n"):
                    end = file.readline(longest)
                    if len(end) == longest:
                        number = line + 1 + block.count(b"\n")
                        raise ValueError(f"{self.path}: line {number}: must end within {longest} bytes")
                    block += end
                rows = self._parse(block if row else self._without_header(block, line), line)
                self._blocks.append([offset, line, row])
                offset, line, row = offset + len(block), line + block.count(b"\n"), row + len(rows)
                if row > start:
                    yield rows[max(0, len(rows) - (row - start)) :]

    def place(self, row: int) -> list[int]:
        while len(self._blocks) > 1 and self._blocks[1][2] <= row:
            self._blocks.popleft()
        return self._blocks[0]

    def _without_header(self, block: bytes, line: int) -> bytes:
        """`block`, with its first line blank if that is a header."""
        block = block.removeprefix(codecs.BOM_UTF8)
        start = len(block) - len(block.lstrip())
        first = re.split(rb"[\r\n]", block[start:], maxsplit=1)[0]
        if not _is_header(first.decode(errors="replace")):
            return block
        self._fields(first.decode(errors="replace"), line + 1 + block[:start].count(b"\n"))
        return block[:start] + block[start + len(first) :]

    def _parse(self, block: bytes, line: int) -> np.ndarray:
        arrow = pyarrow_for("CSV")
        names = [str(i) for i in range(self.columns)]
        try:
            table = arrow.csv.read_csv(
                arrow.BufferReader(block),
                arrow.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
                arrow.csv.ParseOptions(quote_char=False),
                arrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, arrow.float64()),
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
            return _side_by_side(table, self.columns, self.dtype)
        except (arrow.ArrowInvalid, ValueError):
            return self._parse_slowly(block, line)

    def _parse_slowly(self, block: bytes, line: int) -> np.ndarray:
        """Parses what Arrow refuses: lines of spaces, numbers as only Python writes them, and mistakes."""
        # Bytes that are not UTF-8 are replaced by a character that no number has.
        lines = enumerate(io.TextIOWrapper(io.BytesIO(block), "utf-8", "replace"), line + 1)
        rows = []
        for number, text in lines:
            if text.strip():
                fields = self._fields(text, number)
                for column, field in enumerate(fields, 1):
                    if not _is_number(field):
                        raise ValueError(
                            f"{self.path}: line {number}: column {column} must be a number, "
                            f"got {field.strip()!r}"
                        )
                rows.append([float(field) for field in fields])
        return np.array(rows).reshape(-1, self.columns)

    def _fields(self, text: str, number: int) -> list[str]:
        fields = text.split(",")
        if len(fields) != self.columns:
            raise ValueError(
                f"{self.path}: line {number}: must have {self.columns} columns for this network, "
                f"got {len(fields)}"
            )
        return fields


class Parquet:
    """Rows of a `.parquet` file whose columns all hold numbers."""

    def __init__(self, path: Path, columns: int) -> None:
        with open(path, "rb"):
            pass  # for an OSError that names the file
        self.path = path
        with self._open() as file:
            schema, self.count = file.schema_arrow, file.metadata.num_rows
            self.groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        if len(schema) != columns:
            raise ValueError(f"{path}: must have {columns} columns for this network, got {len(schema)}")
        types = pyarrow_for("Parquet").types
        for field in schema:
            if not (
                types.is_floating(field.type) or types.is_integer(field.type) or types.is_boolean(field.type)
            ):
                raise TypeError(f"{path}: column {field.name!r} must hold numbers, got {field.type}")
        self.dtype = (
            np.result_type(*(field.type.to_pandas_dtype() for field in schema)) if columns else np.dtype(bool)
        )

    def chunks(self, start: int, place: list[int]) -> Iterator[np.ndarray]:
        row = 0
        with self._open() as file:
            for group, n in enumerate(self.groups):
                if row + n <= start:
                    row += n
                    continue
                for batch in file.iter_batches(PARQUET_ROWS, [group], use_threads=False):
                    row += batch.num_rows
                    if row > start:
                        yield self._numbers(batch, row - batch.num_rows)[
                            max(0, batch.num_rows - (row - start)) :
                        ]

    def _numbers(self, batch: Any, row: int) -> np.ndarray:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                first = int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
                raise ValueError(
                    f"{self.path}: row {row + first}: column {name!r} must be a number, got null"
                )
        return _side_by_side(batch, len(batch.columns), self.dtype)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        arrow = pyarrow_for("Parquet")
        try:
            with arrow.parquet.ParquetFile(self.path) as file:
                yield file
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"{self.path}: must be a whole Parquet file ({error})") from None

    def place(self, row: int) -> list[int]:
        return []


def _side_by_side(table: Any, columns: int, dtype: np.dtype) -> np.ndarray:
    rows = np.empty((table.num_rows, columns), dtype)
    for target, column in zip(rows.T, table.columns, strict=True):
        target[:] = column.to_numpy(zero_copy_only=False)
    return rows


def _is_header(line: str) -> bool:
    names = [field.strip().strip("\"'") for field in line.split(",")]
    return all(re.search(r"[^\W\d_]", n) and n.lower() not in MISSING and not _is_number(n) for n in names)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # only Python takes 1_000 for a number


Reader = Npy | Csv | Parquet
