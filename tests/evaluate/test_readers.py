"""Readers of `.npy`, `.csv` and `.parquet` files read every number. Errors name the line or the row."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import jaxneuron
from jaxneuron import evaluate
from jaxneuron._evaluate.readers import CHUNK, read_rows
from jaxneuron.cli import main
from tests.row_files import numbers, write_rows


def test_fortran_order_and_mixed_dtypes_are_read(model, tmp_path):
    expected = evaluate(jaxneuron.load(model), numbers(CHUNK // 12 + 1000))
    np.save(tmp_path / "rows.npy", np.asfortranarray(numbers(CHUNK // 12 + 1000)))
    main(["run", str(model), str(tmp_path / "rows.npy"), "-o", str(tmp_path / "out.npy")])
    assert np.load(tmp_path / "out.npy").tobytes() == expected.tobytes()
    table = pa.table({"a": pa.array([1, 2], pa.int8()), "b": [True, False], "c": pa.array([0.5, 0.25])})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    (rows,) = read_rows(tmp_path / "rows.parquet", 3).chunks(0, [])
    assert (rows.dtype, rows.tolist()) == (np.float64, [[1, 1, 0.5], [2, 0, 0.25]])


def test_csv_with_a_bom_spaces_and_blank_lines_is_read(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfa, b\r\n1, 2\r\n\r\n3e0,-4.5\r\nnan,inf\r\n\r\n")
    (rows,) = read_rows(path, 2).chunks(0, [])
    np.testing.assert_array_equal(rows, [[1, 2], [3, -4.5], [np.nan, np.inf]])
    for text in ("", "a,b\n", "\n \n"):
        path.write_text(text)
        assert list(read_rows(path, 2).chunks(0, [])) == []
    path.write_text(" \n1\n  \n+2\n")
    (rows,) = read_rows(path, 1).chunks(0, [])
    assert rows.tolist() == [[1], [2]]


# --- refusals ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2\n", "rows.csv: line 1: must have 3 columns for this network, got 2"),
        ("1,2,3\n\n4,x,6\n", "rows.csv: line 3: column 2 must be a number, got 'x'"),
        ("1,2,3\n4,5\n", "rows.csv: line 2: must have 3 columns for this network, got 2"),
        ("1,2,3\n4,5,\n", "rows.csv: line 2: column 3 must be a number, got ''"),
        ("a,b\n1,2,3\n", "rows.csv: line 1: must have 3 columns for this network, got 2"),
        ("1,b,3\n1,2,3\n", "rows.csv: line 1: column 2 must be a number, got 'b'"),
        ("1;2;3\n", "rows.csv: line 1: must have 3 columns for this network, got 1"),
        ("1,2,3\n1_0,2,3\n", "rows.csv: line 2: column 1 must be a number, got '1_0'"),
        (b"1,2,3\n\xff\xfe,2,3\n", "rows.csv: line 2: column 1 must be a number, got '\ufffd\ufffd'"),
        (",,\n1,2,3\n", "rows.csv: line 1: column 1 must be a number, got ''"),
        ("NA,NA,NA\n1,2,3\n", "rows.csv: line 1: column 1 must be a number, got 'NA'"),
        ('"1","2","3"\n', "rows.csv: line 1: column 1 must be a number, got '\"1\"'"),
        (b"\x00\x01\x02", "rows.csv: line 1: must have 3 columns for this network, got 1"),
    ],
)
def test_bad_csv_is_refused(model, tmp_path, refused, content, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refused("run", model, path, "-o", tmp_path / "out.npy")


def test_a_bad_line_far_down_is_named(model, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    lines = ["1,2,3"] * 1_000_000
    lines[950_000] = "1,2,oops"
    path.write_text("\n".join(lines))
    assert main(["run", str(model), str(path), "-o", str(tmp_path / "out.npy")]) == 2
    assert (
        capsys.readouterr().err
        == f"jaxneuron: {path}: line 1 holds only numbers and is evaluated as a row; pass --header yes or --header no to say what it is\n"
        f"jaxneuron: {path}: line 950001: column 3 must be a number, got 'oops'; correct it, or write the file again\n"
    )
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 2)), "must have shape (rows, 3) for this network, got (4, 2)"),
        (np.ones(3), "must have shape (rows, 3) for this network, got (3,)"),
        (np.ones((4, 3), complex), "rows must hold booleans, integers, or one of"),
        (np.array([["a", "b", "c"]]), "rows must hold booleans, integers, or one of"),
        (np.array([[1, 2, 2**40]]), "rows.npy: rows 0 to 0 must fit in int32 while jax_enable_x64 is off"),
    ],
)
def test_bad_npy_is_refused(model, tmp_path, refused, array, message):
    np.save(tmp_path / "rows.npy", array)
    assert message in refused("run", model, tmp_path / "rows.npy", "-o", tmp_path / "out.npy")


def test_a_file_of_several_arrays_is_refused(model, tmp_path, refused):
    """equinox.tree_serialise_leaves writes such files. Their first weights must not be read as rows."""
    with open(tmp_path / "rows.npy", "wb") as file:
        np.save(file, np.ones((2, 3)))
        np.save(file, np.ones(3))
    message = refused("run", model, tmp_path / "rows.npy", "-o", tmp_path / "out.npy")
    assert "must hold one array of rows, got 152 bytes after it, as a file of several arrays has" in message


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("rows.parquet", {"a": [1.0], "b": [1.0]}, "rows.parquet: must have 3 columns for this network, got 2"),
        ("rows.parquet", {"a": [1.0], "b": [1.0], "c": ["x"]}, "rows.parquet: column 'c' must hold numbers, got string"),
        ("rows.parquet", {"a": [1.0] * 3, "b": [1.0, 2.0, None], "c": [1.0] * 3}, "rows.parquet: row 2: column 'b' must be a number, got null"),
        ("rows.parquet", None, "rows.parquet: must be a whole Parquet file ("),
        ("rows.npy", None, "rows.npy: must be a .npy file of numbers ("),
    ],
)  # fmt: skip
def test_bad_parquet_and_cut_files_are_refused(model, tmp_path, capsys, name, table, message):
    if table is None:
        (tmp_path / name).write_bytes(write_rows(tmp_path / name, numbers(1000)).read_bytes()[:2000])
    else:
        pa.parquet.write_table(pa.table(table), tmp_path / name)
    assert main(["run", str(model), str(tmp_path / name), "-o", str(tmp_path / "out.npy")]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_reading_csv_without_pyarrow_names_the_extra(model, tmp_path, monkeypatch, capsys):
    rows = write_rows(tmp_path / "rows.csv", numbers(5))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert (
        capsys.readouterr().err
        == "jaxneuron: run: CSV needs the pyarrow library; pip install 'jaxneuron[cli]'\n"
    )
