"""Writers of `.npy`, `.csv` and `.parquet` files."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxneuron._evaluate.readers import read_rows
from jaxneuron._evaluate.writers import PARQUET_ROWS, ParquetWriter, row_writer


@pytest.mark.parametrize("n", [0, 1, PARQUET_ROWS, 2 * PARQUET_ROWS + 5])
def test_parquet_is_packed_from_the_kept_rows(tmp_path, n):
    y = np.random.default_rng(0).normal(size=(n, 3))
    with open(tmp_path / "kept", "w+b") as file:
        writer = ParquetWriter(file, 3, y.dtype)
        writer.write(y)
        writer.finish(n)
    with open(tmp_path / "y.parquet", "wb") as packed:
        ParquetWriter.pack(tmp_path / "kept", packed)
    table = pq.read_table(tmp_path / "y.parquet")
    assert table.column_names == ["y0", "y1", "y2"]
    assert np.stack([column.to_numpy() for column in table.columns], axis=1).tobytes() == y.tobytes()


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_file_that_accepts_7_bytes_at_a_time_gets_every_byte(tmp_path, suffix):
    class Slow(io.BytesIO):
        def write(self, content):
            return super().write(bytes(content)[:7])

    files = [Slow(), io.BytesIO()]
    for file in files:
        writer = row_writer(tmp_path / f"y{suffix}")(file, 2, np.dtype(np.float32))
        writer.write(np.arange(20, dtype=np.float32).reshape(10, 2))
        writer.finish(10)
    assert files[0].getvalue() == files[1].getvalue() != b""


def test_csv_keeps_every_bit(tmp_path):
    y = np.frombuffer(np.random.default_rng(0).bytes(8000), np.float64).reshape(-1, 4)
    y = np.where(np.isnan(y), 0, y)
    for dtype in (np.float16, np.float32, np.float64):
        with np.errstate(over="ignore"), open(tmp_path / "y.csv", "wb") as file:
            back = y.astype(dtype)
            row_writer(tmp_path / "y.csv")(file, 4, back.dtype).write(back)
        (read,) = read_rows(tmp_path / "y.csv", 4).chunks(0, [])
        assert np.array_equal(read.astype(dtype), back)
