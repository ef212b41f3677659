"""Reads rows of numbers from `.npy`, `.csv` and `.parquet` files, a chunk at a time.

A chunk is an array `(rows, inputs)`: float64 from CSV, in the file's own dtype otherwise. The kind of a file
follows from its first bytes, or else from its suffix. CSV is comma-separated UTF-8, and blank lines are
skipped; columns.py decides whether the first line is a header, and which columns are the inputs.

Files are read, not mapped into memory: if another program shortens a file meanwhile, reading it raises an
error, but reading a map of it kills the process.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._arrays import as_array
from jaxneuron._errors import missing
from jaxneuron._evaluate.columns import OPTION, Inputs, is_number, names_in
from jaxneuron._file_kinds import HEAD, KINDS, described, kind_of, kind_of_bytes

STREAM = Path("-")  # standard input and output, in CSV
CHUNK = 2**22  # bytes read at a time
PARQUET_ROWS = 2**16  # rows of Parquet read or written at a time
BLANK = codecs.BOM_UTF8 + b" \t\r\n"  # the bytes of a blank line
NUMBER = 128  # bytes that a number in a long line of CSV may take, on average


def read_rows(path: Path, inputs: Inputs | int) -> Reader:
    """A reader of the rows in `path`, for a network with these inputs, or this number of inputs.

    Raises OSError, or a ValueError or TypeError that names the file and the line, row or column that the
    network can't take.
    """
    inputs = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
    kinds: dict[str, Any] = {".npy": Npy, ".csv": Csv, ".parquet": Parquet}
    kind = None if path == STREAM else kind_of(path)
    if kind and f".{kind}" not in kinds:
        raise ValueError(
            f"{path}: rows must be in a .npy, .csv or .parquet file, "
            f"got {path.suffix or 'no suffix'!r}, {described(path, kind, rows=True)}"
        )
    reader = kinds[f".{kind}"] if kind else by_suffix(path, kinds, "be in")
    if inputs.header != "auto" and reader is not Csv:
        raise ValueError(f"{path}: --header is for CSV, got {KINDS[kind or 'npy'].name}; leave it out")
    return reader(path, inputs)


def by_suffix(path: Path, kinds: dict[str, Any], must: str) -> Any:
    """The value of `kinds` for the suffix of `path`; `must` is "be in" or "go to", for the message."""
    suffix = ".csv" if path == STREAM else path.suffix.lower()
    if suffix not in kinds:
        raise ValueError(
            f"{path}: rows must {must} a .npy, .csv or .parquet file, got {suffix or 'no suffix'!r}; "
            f"pass the path of such a file"
        )
    return kinds[suffix]


def pyarrow_for(what: str) -> Any:
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        raise missing("pyarrow", "cli", f"run: {what}") from None
    return pyarrow


class _Table:
    """A file of rows.

    computed: the dtype in which the network computes, once it is known. A note tells the user if it rounds
      integers of the file.
    """

    computed = np.dtype(float)
    dtype: np.dtype

    def __init__(self, path: Path, inputs: Inputs) -> None:
        self.path, self.inputs, self.columns = path, inputs, inputs.n_in
        self._told = False

    def place(self, row: int) -> list[int]:
        """The position in the file from which a later run must read, so that it reaches this row."""
        return []

    def _joined(self, names: Sequence[str], columns: Sequence[np.ndarray], row: int) -> np.ndarray:
        """Columns of numbers side by side; the first number of each belongs to row `row`."""
        for name, column in zip(names, columns, strict=True):
            self._check_integers(column[:, None], row, [repr(name)], narrowed=self.dtype.kind in "iu")
        return _side_by_side(columns, self.dtype)

    def _check_integers(self, rows: np.ndarray, row: int, names: Sequence[Any], narrowed: bool) -> None:
        """Refuses integers that JAX would truncate, if they stay integers; tells of those that it rounds."""
        if rows.dtype.kind not in "iu" or not rows.size:
            return
        held = np.iinfo(jax.dtypes.canonicalize_dtype(rows.dtype))
        exact = 2 ** (jnp.finfo(self.computed).nmant + 1)
        if np.iinfo(rows.dtype).max <= min(held.max, exact):
            return
        low, high = int(rows.min()), int(rows.max())
        if narrowed and (low < held.min or high > held.max):
            i, column = np.argwhere((rows < held.min) | (rows > held.max))[0]
            raise ValueError(
                f"{self.path}: rows {row} to {row + len(rows) - 1} must fit in {held.dtype.name} while "
                f"jax_enable_x64 is off, got {rows[i, column]} in row {row + i}, column {names[column]}; "
                f"save the column as float64"
            )
        if max(-low, high) > exact and not self._told:
            self._told = True
            column = np.argwhere((rows < -exact) | (rows > exact))[0, 1]
            self.inputs.say(
                f"{self.path}: integers as large as {max(-low, high)}, in column {names[column]}, are "
                f"rounded, because {self.computed.name} holds every integer only up to {exact}"
            )


class Npy(_Table):
    """Rows of a `.npy` file, in C or Fortran order, or of named fields."""

    def __init__(self, path: Path, inputs: Inputs) -> None:
        super().__init__(path, inputs)
        with open(path, "rb"):
            pass  # for an OSError that names the file
        try:
            header = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # a damaged header can make NumPy raise almost anything
            raise ValueError(f"{path}: must be a .npy file of numbers ({error}); {_saved(error)}") from None
        self.fields: list[str] = []
        columns = [header[:0]]
        if header.dtype.names is not None and header.ndim == 1:
            named = header.dtype.names
            self.fields = [named[i] for i in inputs.places(str(path), named)]
            columns = [header[:0][name] for name in self.fields]
        elif header.ndim != 2 or header.shape[1] != self.columns:
            raise ValueError(
                f"{path}: must have shape (rows, {self.columns}) for this network, got {header.shape}; "
                f"save an array of rows, one column for each input"
            )
        for i, column in enumerate(columns):
            where = f"{path}: column {self.fields[i]!r}" if self.fields else f"{path}: rows"
            if self.fields and column.ndim != 1:
                raise ValueError(
                    f"{where} must hold one number for each row, got an array; save each number as a column"
                )
            as_array(column, where)
        self.count, self.stored = len(header), header.dtype
        self.dtype = np.result_type(*(column.dtype for column in columns)) if columns else np.dtype(bool)
        self.offset, self.by_columns = header.offset, not header.flags.c_contiguous
        if more := os.path.getsize(path) - header.offset - header.nbytes:
            raise ValueError(
                f"{path}: must hold one array of rows, got {more} bytes after it, as a file of several "
                f"arrays has (equinox.tree_serialise_leaves); save the rows by themselves, with np.save"
            )

    def chunks(self, start: int, place: list[int]) -> Iterator[np.ndarray]:
        numbers = 1 if self.fields else self.columns
        step = max(1, CHUNK // max(1, numbers * self.stored.itemsize))
        with open(self.path, "rb") as file:
            for row in range(start, self.count, step):
                n = min(step, self.count - row)
                if self.fields:
                    stored = self._read(file, row, n)
                    rows = self._joined(self.fields, [stored[name] for name in self.fields], row)
                elif self.by_columns:
                    rows = np.empty((n, self.columns), self.dtype)
                    for i in range(self.columns):
                        rows[:, i] = self._read(file, i * self.count + row, n)
                else:
                    rows = self._read(file, row * self.columns, n * self.columns).reshape(n, self.columns)
                self._check_integers(rows, row, range(1, self.columns + 1), narrowed=True)
                # In the machine's byte order, which JAX assumes.
                yield rows.astype(self.dtype.newbyteorder("="), copy=False)

    def _read(self, file: BinaryIO, first: int, n: int) -> np.ndarray:
        file.seek(self.offset + first * self.stored.itemsize)
        numbers = np.fromfile(file, self.stored, n)
        if len(numbers) < n:
            raise ValueError(
                f"{self.path}: must hold {self.count} rows, but was cut short while it was read; "
                f"write it again, then run again"
            )
        return numbers


class Csv(_Table):
    """Rows of a `.csv` file or of standard input."""

    count = None
    dtype = np.dtype(float)

    def __init__(self, path: Path, inputs: Inputs) -> None:
        super().__init__(path, inputs)
        if path != STREAM:
            os.stat(path)  # for an OSError that names the file
        self.fields, self.taken = self.columns, list(range(self.columns))  # fields in a line; those to take
        self.first = 0  # the number of the first line, if it was taken for numbers and may be names
        # For each block with rows that are not written yet: the numbers of bytes, lines and rows before it.
        self._blocks: collections.deque[list[int]] = collections.deque()

    def chunks(self, start: int, place: list[int]) -> Iterator[np.ndarray]:
        offset, line, row = place or (0, 0, 0)
        begun = offset > 0
        with (
            contextlib.nullcontext(sys.stdin.buffer) if self.path == STREAM else open(self.path, "rb") as file
        ):
            if begun:  # a resumed run needs the first line too: it may name the columns
                next(
                    self._begin(block, at)
                    for block, at in self._blocks_of_lines(file, 0)
                    if block.strip(BLANK)
                )
                file.seek(offset)
            for block, at in self._blocks_of_lines(file, line):
                if begun or not block.strip(BLANK):
                    rows = self._parse(block, at)
                else:
                    begun, rows = True, self._begin(block, at)
                self._blocks.append([offset, at, row])
                offset, row = offset + len(block), row + len(rows)
                if row > start:
                    yield rows[max(0, len(rows) - (row - start)) :]
        if begun and not row and self.inputs.header == "auto":
            self.inputs.say(f"{self.path}: its only line is taken for a header; {OPTION}")

    def _blocks_of_lines(self, file: BinaryIO, line: int) -> Iterator[tuple[bytes, int]]:
        """Blocks of whole lines, about `CHUNK` bytes each, and the number of lines before each block."""
        longest = CHUNK + NUMBER * self.fields
        while block := file.read(CHUNK):
            if not block.endswith(b"\n"):
                end = file.readline(longest)
                if len(end) == longest:
                    number = line + 1 + block.count(b"\n")
                    raise ValueError(
                        f"{self.path}: line {number}: must end within {longest} bytes; "
                        f"write each row on a line of its own"
                    )
                block += end
            yield block, line
            line += block.count(b"\n")

    def place(self, row: int) -> list[int]:
        while len(self._blocks) > 1 and self._blocks[1][2] <= row:
            self._blocks.popleft()
        return self._blocks[0]

    def _begin(self, block: bytes, line: int) -> np.ndarray:
        """The rows of the first block, whose first line may be a header."""
        kind = kind_of_bytes(block[:HEAD]) if self.path == STREAM else None
        if kind not in (None, "csv"):
            raise ValueError(f"{self.path}: must be CSV, got {described(self.path, kind, rows=True)}")
        block = block.removeprefix(codecs.BOM_UTF8)
        start = len(block) - len(block.lstrip())
        first, *others = re.split(rb"[\r\n]+", block[start:], maxsplit=1)
        self.first = line + 1 + block[:start].count(b"\n")
        text, where = first.decode(errors="replace"), f"{self.path}: line {self.first}"
        if self.inputs.are_names(text):
            names = names_in(text)
            self.fields, self.taken, self.first = len(names), self.inputs.places(where, names), 0
            return self._parse(block[:start] + block[start + len(first) :], line)
        rows = self._parse(block, line)
        after = (other.decode(errors="replace") for each in others for other in each.splitlines())
        self.inputs.check_row(where, text, after)
        return rows

    def _parse(self, block: bytes, line: int) -> np.ndarray:
        arrow = pyarrow_for("CSV")
        names = [str(i) for i in range(self.fields)]
        taken = [names[i] for i in self.taken]
        try:
            table = arrow.csv.read_csv(
                arrow.BufferReader(block),
                arrow.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
                arrow.csv.ParseOptions(quote_char=False),
                arrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(taken, arrow.float64()),
                    include_columns=taken,
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
            return _side_by_side(_columns(table), self.dtype)
        except (arrow.ArrowInvalid, ValueError):
            return self._parse_slowly(block, line)

    def _parse_slowly(self, block: bytes, line: int) -> np.ndarray:
        """Parses what Arrow refuses: lines of spaces, numbers that only Python reads, and mistakes."""
        # Bytes that are not UTF-8 become a character that no number has.
        lines = enumerate(io.TextIOWrapper(io.BytesIO(block), "utf-8", "replace"), line + 1)
        rows: list[list[float]] = []
        for number, text in lines:
            if not text.strip():
                continue
            fields, where = text.split(","), f"{self.path}: line {number}"
            hint = OPTION if number == self.first else "correct it, or write the file again"
            if len(fields) != self.fields:
                like = "for this network" if self.fields == self.columns else "like the header"
                raise ValueError(
                    f"{where}: must have {self.fields} columns {like}, got {len(fields)}; {hint}"
                )
            for i in self.taken:
                if not is_number(fields[i]):
                    got = fields[i].strip()
                    raise ValueError(f"{where}: column {i + 1} must be a number, got {got!r}; {hint}")
            rows.append([float(fields[i]) for i in self.taken])
        return np.array(rows).reshape(-1, self.columns)


class Parquet(_Table):
    """Rows of a `.parquet` file whose columns hold numbers."""

    def __init__(self, path: Path, inputs: Inputs) -> None:
        super().__init__(path, inputs)
        with open(path, "rb"):
            pass  # for an OSError that names the file
        with self._open() as file:
            schema, self.count = file.schema_arrow, file.metadata.num_rows
            self.groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        places = inputs.places(str(path), schema.names)
        # By name, only these columns are read. By position all are, because two may have the same name.
        self.names = [schema.names[i] for i in places] if inputs.names is not None else None
        types = pyarrow_for("Parquet").types
        for field in map(schema.field, places):
            if not (
                types.is_floating(field.type) or types.is_integer(field.type) or types.is_boolean(field.type)
            ):
                raise TypeError(
                    f"{path}: column {field.name!r} must hold numbers, got {field.type}; "
                    f"convert the column to float64"
                )
        dtypes = [schema.field(i).type.to_pandas_dtype() for i in places]
        self.dtype = np.result_type(*dtypes) if places else np.dtype(bool)

    def chunks(self, start: int, place: list[int]) -> Iterator[np.ndarray]:
        row = 0
        with self._open() as file:
            for group, n in enumerate(self.groups):
                if row + n <= start:
                    row += n
                    continue
                for batch in file.iter_batches(PARQUET_ROWS, [group], columns=self.names, use_threads=False):
                    row += batch.num_rows
                    if row > start:
                        yield self._numbers(batch, row - batch.num_rows)[
                            max(0, batch.num_rows - (row - start)) :
                        ]

    def _numbers(self, batch: Any, row: int) -> np.ndarray:
        if self.names is not None:
            batch = batch.select(self.names)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                first = int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
                raise ValueError(
                    f"{self.path}: row {row + first}: column {name!r} must be a number, got null; "
                    f"fill it, or leave out the row"
                )
        return self._joined(batch.schema.names, _columns(batch), row)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        arrow = pyarrow_for("Parquet")
        try:
            with arrow.parquet.ParquetFile(self.path) as file:
                yield file
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"{self.path}: must be a whole Parquet file ({error}); write it again") from None


def _columns(table: Any) -> list[np.ndarray]:
    return [column.to_numpy(zero_copy_only=False) for column in table.columns]


def _side_by_side(columns: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    rows = np.empty((len(columns[0]) if columns else 0, len(columns)), dtype)
    for target, column in zip(rows.T, columns, strict=True):
        target[:] = column
    return rows


def _saved(error: Exception) -> str:
    """The remedy for a file that NumPy does not read."""
    objects = "Python objects" in str(error)
    return f"{'load it where you trust it, and ' * objects}save np.asarray(rows, float)"


Reader = Npy | Csv | Parquet
