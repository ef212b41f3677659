"""Writes rows of numbers to `.npy`, `.csv` and `.parquet` files, a chunk at a time.

Files are written, not mapped into memory: when the disk is full, writing to a file raises an error, but
writing to a map of it kills the process.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxneuron._evaluate.readers import PARQUET_ROWS, by_suffix, pyarrow_for


def row_writer(path: Path) -> type[Writer]:
    """The class that writes rows for `path`."""
    return by_suffix(path, {".npy": NpyWriter, ".csv": CsvWriter, ".parquet": ParquetWriter}, "go to")


class NpyWriter:
    """Appends rows to a `.npy` file."""

    def __init__(self, file: BinaryIO, columns: int, dtype: np.dtype) -> None:
        self.file, self.columns, self.dtype = file, columns, dtype
        if not file.tell():
            self._header(0)

    def _header(self, rows: int) -> None:
        # NumPy leaves room for the first axis to grow: a header has the same length for any number of rows.
        descr, shape = np.lib.format.dtype_to_descr(self.dtype), (rows, self.columns)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
        write_all(self.file, header.getvalue())

    def write(self, rows: np.ndarray) -> None:
        write_all(self.file, np.ascontiguousarray(rows).reshape(-1).view(np.uint8))

    def finish(self, rows: int) -> None:
        self.file.seek(0)
        self._header(rows)


class CsvWriter:
    """Appends rows to CSV, each number with the fewest digits from which every bit can be read back."""

    def __init__(self, file: BinaryIO, columns: int, dtype: np.dtype) -> None:
        self.file = file

    def write(self, rows: np.ndarray) -> None:
        arrow = pyarrow_for("CSV")
        text = arrow.BufferOutputStream()
        if rows.dtype == np.float16:
            rows = rows.astype(np.float32)
        arrow.csv.write_csv(_table(arrow, rows), text, arrow.csv.WriteOptions(include_header=False))
        write_all(self.file, text.getvalue())

    def finish(self, rows: int) -> None:
        pass


class ParquetWriter(NpyWriter):
    """Keeps rows as in a `.npy` file until all are there: nothing can be appended to a Parquet file."""

    @staticmethod
    def pack(source: Path, file: BinaryIO, names: Sequence[str] | None = None) -> None:
        """Writes the finished rows in `source` to `file`, in columns with these names, or y0, y1, ..."""
        arrow = pyarrow_for("Parquet")
        with open(source, "rb") as written:
            np.lib.format.read_magic(written)
            (n, columns), _, dtype = np.lib.format.read_array_header_1_0(written)
            empty = np.empty((0, columns), dtype)
            with arrow.parquet.ParquetWriter(file, _table(arrow, empty, names).schema) as parquet:
                for start in range(0, n, PARQUET_ROWS):
                    count = min(PARQUET_ROWS, n - start)
                    rows = np.fromfile(written, dtype, count * columns).reshape(count, columns)
                    parquet.write_table(_table(arrow, rows, names))


def _table(arrow: Any, rows: np.ndarray, names: Sequence[str] | None = None) -> Any:
    columns = list(np.ascontiguousarray(rows.T))
    return arrow.table(columns, names=list(names or (f"y{i}" for i in range(len(columns)))))


def write_all(file: BinaryIO, content: Any) -> None:
    """Writes all of `content`: an unbuffered file may take only a part of it at a time."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


Writer = NpyWriter | CsvWriter | ParquetWriter
