"""A network gets the right columns of a table. The first line of CSV is taken for a header or for a row."""

import contextlib
import io
import sys

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxneuron import MLP, RowEvaluator, evaluate, save
from jaxneuron._evaluate.columns import Inputs
from jaxneuron._evaluate.readers import CHUNK, read_rows
from jaxneuron.cli import main
from tests.row_files import run

SUMS = MLP([([[1.0], [10.0]], [0.0])], final_activation="identity")  # a + 10 b
NAMED = MLP(SUMS.layers, final_activation="identity", inputs=("a", "b"), outputs=("total",))
ROW = (
    "line 1 holds only numbers and is evaluated as a row; pass --header yes or --header no to say what it is"
)
EITHER = "which may be either; pass --header yes or --header no"
BY_POSITION = "columns are taken by position, because the network has no names for its inputs: "


@pytest.fixture
def sums(tmp_path, monkeypatch):
    """Returns a function that evaluates a + 10 b on a file of the given content.

    It returns the outputs, or None if they were refused, and the text on standard error.
    """
    monkeypatch.chdir(tmp_path)
    save("sums.safetensors", SUMS)
    save("named.safetensors", NAMED)

    def evaluated(content, *options, suffix=".csv", named=False):
        if isinstance(content, str):
            (tmp_path / f"rows{suffix}").write_text(content)
        elif suffix == ".parquet":
            pa.parquet.write_table(content, tmp_path / f"rows{suffix}")
        else:
            np.save(tmp_path / f"rows{suffix}", content)
        model = "named.safetensors" if named else "sums.safetensors"
        (tmp_path / "out.npy").unlink(missing_ok=True)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = main(["run", model, f"rows{suffix}", "-o", "out.npy", *options])
        assert status in (0, 2)
        outputs = np.load("out.npy")[:, 0].tolist() if status == 0 else None
        notes = [line for line in said.getvalue().splitlines() if "with NaN" not in line]
        assert all(line.startswith("jaxneuron: rows") for line in notes), notes
        return outputs, "\n".join(line.removeprefix("jaxneuron: ") for line in notes)

    return evaluated


# --- the first line of CSV ---


@pytest.mark.parametrize(("content", "outputs", "message"), [
    ("0.5,1\n2,3\n", [10.5, 32], f"rows.csv: {ROW}"),
    ("\n\n5,6\n", None, "rows.csv: line 3: must be names or a row of numbers, got 5,6, " + EITHER),
    ("0,1\n5,7\n", None, "rows.csv: line 1: must be names or a row of numbers, got 0,1, " + EITHER),
    ("0,1\n5,7\n8,9\n", [10, 75, 98], f"rows.csv: {ROW}"),  # 8,9 could be names too, so 0,1 is a row
    ("2019,2025\n5,6\n", None, "rows.csv: line 1: must be names or a row of numbers, got 2019,2025, " + EITHER),
    ("2019,2025\n2020,1999\n", [22269, 22010], f"rows.csv: {ROW}"),
    ("2019,2019\n5,6\n", [22209, 65], f"rows.csv: {ROW}"),  # names differ from each other
    ("0,1", None, "rows.csv: line 1: must be names or a row of numbers, got 0,1, " + EITHER),
    ("1,0\n5,7\n", [1, 75], f"rows.csv: {ROW}"),
    ("0.0,1.0\n5,7\n", [10, 75], f"rows.csv: {ROW}"),
    ("a,b\n5,7\n", [75], f"rows.csv: line 1: {BY_POSITION}'a', 'b'"),
    ("'a',\"b, in m\"\n5,7\n", [75], f"rows.csv: line 1: {BY_POSITION}'a', 'b, in m'"),
    ("a,b\n", [], f"rows.csv: line 1: {BY_POSITION}'a', 'b'\nrows.csv: its only line is taken for a header; pass --header yes or --header no to say what it is"),
    ("", [], ""),
    ("\n \n", [], ""),
    ("a,0\n5,7\n", None, "rows.csv: line 1: column 1 must be a number, got 'a'; pass --header yes or --header no to say what it is"),
    ("0,1,2\n5,7\n", None, "rows.csv: line 1: must have 2 columns for this network, got 3; pass --header yes or --header no to say what it is"),
    ("a,b,c\n5,7,1\n", None, "rows.csv: line 1: must have 2 columns for this network, got 3: 'a', 'b', 'c'; keep one column for each input, in the network's order"),
    ("a,b\n5,7,1\n", None, "rows.csv: line 2: must have 2 columns for this network, got 3; correct it, or write the file again"),
])  # fmt: skip
def test_the_first_line_is_a_header_a_row_or_refused(sums, content, outputs, message):
    assert sums(content) == (outputs, message)


@pytest.mark.parametrize(
    "content", ["0,1\n5,7\n", "2019,2020\n5,7\n", '"0","1"\n5,7\n', ",a\n5,7\n", "NA,x\n5,7\n", "a,a\n5,7\n"]
)
def test_header_yes_skips_any_first_line(sums, content):
    outputs, message = sums(content, "--header", "yes")
    assert outputs == [75]
    assert BY_POSITION in message


def test_header_no_reads_the_first_line_as_a_row(sums):
    assert sums("0,1\n5,7\n", "--header", "no") == ([10, 75], "")
    outputs, message = sums("a,b\n5,7\n", "--header", "no")
    assert (outputs, message[:54]) == (None, "rows.csv: line 1: column 1 must be a number, got 'a'; ")


def test_one_column_that_begins_with_0_or_a_year_is_ambiguous(tmp_path):
    """pandas writes 0 above a column without a name. A year may be a name too; other integers are rows."""

    def read(text):
        (tmp_path / "x.csv").write_text(text)
        return [x for chunk in read_rows(tmp_path / "x.csv", 1).chunks(0, []) for x in chunk[:, 0].tolist()]

    for text in ("0\n0.5\n", "2020\n0.5\n"):
        with pytest.raises(ValueError, match="which may be either"):
            read(text)
    assert read("0\n0.5\n0\n") == [0, 0.5, 0]
    assert read("5\n0.5\n") == [5, 0.5]


def test_messages_name_a_stream_as_a_dash(sums, monkeypatch, capsys):
    for text, status, message in (
        ("0.5,1\n", 0, f"jaxneuron: -: {ROW}\n"),
        ("0,1\n5,7\n", 2, f"jaxneuron: -: line 1: must be names or a row of numbers, got 0,1, {EITHER}\n"),
        (
            "PAR1\x15\x04",
            2,
            "jaxneuron: -: must be CSV, got a Parquet file; write it to a file, and pass the path\n",
        ),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["run", "sums.safetensors", "-", "-o", "out.npy", "--force"]) == status
        assert capsys.readouterr().err.startswith(message)
    done = run("run", "sums.safetensors", "-", "-o", "-", "--header", "yes", input="0,1\n5,7\n")
    assert (done.returncode, float(done.stdout)) == (0, 75)


def test_header_is_refused_for_npy_and_parquet(sums):
    for suffix, content, kind in (
        (".npy", np.ones((1, 2)), "a .npy file of one NumPy array"),
        (".parquet", pa.table({"a": [1.0], "b": [2.0]}), "a Parquet file"),
    ):
        message = f"rows{suffix}: --header is for CSV, got {kind}; leave it out"
        assert sums(content, "--header", "no", suffix=suffix) == (None, message)


# --- columns by name ---


def tables(**columns):
    """Yields the same columns for every kind of file that has names of columns, each with its suffix."""
    names = list(columns)
    text = "".join(f"{','.join(map(str, row))}\n" for row in zip(*columns.values(), strict=True))
    yield f"{','.join(names)}\n{text}", ".csv"
    yield pa.table({name: pa.array(column) for name, column in columns.items()}), ".parquet"
    if all(isinstance(column[0], (int, float)) for column in columns.values()):
        structure = [(name, np.asarray(column).dtype) for name, column in columns.items()]
        yield np.array(list(zip(*columns.values(), strict=True)), structure), ".npy"


def location(suffix):
    """Returns the file, and for CSV the line, that messages about names of columns begin with."""
    return f"rows{suffix}: line 1" if suffix == ".csv" else f"rows{suffix}"


def test_named_inputs_take_columns_by_name(sums):
    for content, suffix in tables(b=[7.0, 9.0], a=[5, 8]):
        said = f"{location(suffix)}: columns are taken by name: 'a', 'b'"
        assert sums(content, suffix=suffix, named=True) == ([75, 98], said)
        assert sums(content, suffix=suffix) == ([57, 89], f"{location(suffix)}: {BY_POSITION}'b', 'a'")


def test_columns_without_an_input_are_left_out(sums):
    for content, suffix in tables(b=[7.0], name=["x"], a=[5.0]):
        said = f"{location(suffix)}: columns are taken by name: 'a', 'b'; left out: 'name'"
        assert sums(content, suffix=suffix, named=True) == ([75], said)
        outputs, message = sums(content, suffix=suffix)
        assert (outputs, "must have 2 columns for this network, got 3: 'b', 'name', 'a'" in message) == (
            None,
            True,
        )


def test_missing_columns_are_refused(sums):
    for content, suffix in tables(a=[5.0], c=[7.0]):
        assert sums(content, suffix=suffix, named=True) == (
            None, f"{location(suffix)}: must have a column for each input of the network, got none named 'b' among "
            "'a', 'c'; rename the columns, or remove their names",
        )  # fmt: skip


def test_two_columns_with_the_name_of_an_input_are_refused(sums):
    table = pa.table([[5.0], [7.0], [8.0]], names=["a", "b", "b"])
    for content, suffix in (("a,b,b\n5,7,8\n", ".csv"), (table, ".parquet")):
        message = f"{location(suffix)}: must have one column named 'b', got several; rename the others"
        assert sums(content, suffix=suffix, named=True) == (None, message)
    assert sums(pa.table([[5.0], [7.0]], names=["x", "x"]), suffix=".parquet")[0] == [75]


def test_names_of_inputs_are_a_header_even_if_they_are_numbers(sums):
    save("named.safetensors", MLP(SUMS.layers, final_activation="identity", inputs=("2020", "nan")))
    said = "rows.csv: line 1: columns are taken by name: '2020', 'nan'"
    assert sums("nan,2020\n7,5\n", named=True) == ([75], said)


def test_a_table_without_names_is_read_by_position(sums):
    assert sums(np.array([[5.0, 7.0]]), suffix=".npy", named=True) == ([75], "")
    assert sums("5.0,7\n", named=True) == ([75], f"rows.csv: {ROW}")


def test_a_column_name_may_contain_a_dot(sums):
    save("named.safetensors", MLP(SUMS.layers, final_activation="identity", inputs=("x.a", "x")))
    table = pa.table({"x": [7.0], "y": [0.0], "x.a": [5.0], "x.b": [1.0]})
    assert sums(table, suffix=".parquet", named=True)[0] == [75]


def test_parquet_columns_have_the_names_of_the_outputs(sums):
    sums("a,b\n5,7\n")
    for model, names in (("named.safetensors", ["total"]), ("sums.safetensors", ["y0"])):
        assert main(["run", model, "rows.csv", "-o", "out.parquet", "--force"]) == 0
        assert pa.parquet.read_table("out.parquet").column_names == names
    assert main(["run", "named.safetensors", "rows.csv", "-o", "out.csv"]) == 0
    assert np.loadtxt("out.csv") == 75  # CSV is written without a header


def test_messages_list_at_most_10_names():
    said = []
    names = tuple(f"x{i}" for i in range(300))
    Inputs(300, names, say=said.append).places("t", names)
    assert said == [
        "t: columns are taken by name: " + ", ".join(f"'x{i}'" for i in range(10)) + ", and 290 more"
    ]


def test_row_evaluator_needs_columns_in_the_order_of_the_inputs():
    batch = {"a": np.array([5.0]), "b": np.array([7.0])}
    assert RowEvaluator(NAMED, ["a", "b"])(batch)["y"].tolist() == [[75]]
    with pytest.raises(
        ValueError,
        match=r"RowEvaluator: column must name the inputs in the network's order, 'a', 'b', got 'b', 'a'",
    ):
        RowEvaluator(NAMED, ["b", "a"])
    assert RowEvaluator(SUMS, ["b", "a"])(batch)["y"].tolist() == [[57]]
    assert RowEvaluator(NAMED, ["b", "c"])({"b": batch["a"], "c": batch["b"]})["y"].tolist() == [[75]]


def test_a_resumed_reader_takes_the_same_columns(tmp_path):
    """The reader resumes in the middle of a file of several blocks, which begins with blank lines."""
    path, names = tmp_path / "rows.csv", ("a", "b")
    lines = [f"{i},{i / 8},text" for i in range(400_000)]
    path.write_text("\n" * 5 + "b,a,name\n" + "\n".join(lines))
    assert path.stat().st_size > CHUNK
    reader = read_rows(path, Inputs(2, names))
    whole = np.concatenate(list(reader.chunks(0, [])))
    assert whole[-1].tolist() == [399_999 / 8, 399_999]
    for row in (1, 399_000):
        place = reader.place(row)
        later = read_rows(path, Inputs(2, names))
        assert np.array_equal(np.concatenate(list(later.chunks(row, place))), whole[row:])
    assert place[0] > 0
    lines[-1] = "1,oops,text"
    path.write_text("\n" * 5 + "b,a,name\n" + "\n".join(lines))
    with pytest.raises(ValueError, match=r"rows.csv: line 400006: column 2 must be a number, got 'oops'"):
        list(read_rows(path, Inputs(2, names)).chunks(row, place))


# --- what a column holds ---


@pytest.mark.parametrize("suffix", [".npy", ".parquet", "structured.npy"])
def test_refused_wide_integers_name_their_column(sums, suffix):
    rows = np.array([[1, 2], [3, 2**40]])
    if suffix == ".parquet":
        rows = pa.table({"a": rows[:, 0], "b": rows[:, 1]})
    elif suffix == "structured.npy":
        rows = np.array(list(map(tuple, rows)), [("a", np.int64), ("b", np.int64)])
    name = "2" if suffix == ".npy" else "'b'"
    outputs, message = sums(rows, suffix=suffix)
    assert outputs is None
    assert message == (
        f"rows{suffix}: rows 0 to 1 must fit in int32 while jax_enable_x64 is off, "
        f"got {2**40} in row 1, column {name}; save the column as float64"
    )


def test_rounded_integers_are_reported(sums):
    outputs, message = sums(np.array([[1, 2**24 + 1], [2**24, 2]]), suffix=".npy")
    assert outputs == [10 * 2**24, 2**24 + 20]
    assert message == (
        "rows.npy: integers as large as 16777217, in column 2, are rounded, "
        "because float32 holds every integer only up to 16777216"
    )
    assert sums(np.array([[1, 2**24], [-(2**24), 2]]), suffix=".npy")[1] == ""
    mixed = pa.table({"a": [0.5], "b": [2**40 + 1]})  # the columns are read as float64
    assert (
        "integers as large as 1099511627777, in column 'b', are rounded" in sums(mixed, suffix=".parquet")[1]
    )
    with jax.enable_x64(True):
        assert "rounded" not in sums(mixed, suffix=".parquet")[1]
        wider = pa.table({"a": [0.5], "b": [2**53 + 1]})
        assert f"float64 holds every integer only up to {2**53}" in sums(wider, suffix=".parquet")[1]


@pytest.mark.parametrize(("rows", "message"), [
    (np.array([[1, None]], object), "rows.npy: must be a .npy file of numbers (Array can't be memory-mapped: Python objects in dtype.); load it where you trust it, and save np.asarray(rows, float)"),
    (np.zeros(2, [("a", float), ("b", "U3")]), "rows.npy: column 'b' must hold booleans, integers, or one of"),
    (np.zeros(2, [("a", float), ("b", float, 3)]), "rows.npy: column 'b' must hold one number for each row, got an array"),
    (np.zeros(2, [("a", float)]), "rows.npy: must have 2 columns for this network, got 1: 'a'"),
    (np.zeros((2, 2), [("a", float), ("b", float)]), "rows.npy: rows must hold booleans, integers, or one of"),
    (np.zeros(2, []), "rows.npy: must have 2 columns for this network, got 0"),
])  # fmt: skip
def test_arrays_without_rows_of_numbers_are_refused(sums, rows, message):
    outputs, said = sums(rows, suffix=".npy")
    assert (outputs, message in said) == (None, True), said


def test_structured_arrays_of_mixed_dtypes_are_read(sums):
    rows = np.array([(True, 7, 0.5), (False, 9, 1.5)], [("a", bool), ("b", ">i2"), ("c", "<f8")])
    assert sums(rows, suffix=".npy", named=True)[0] == [71, 90]
    assert sums(rows[["a", "b"]].copy(), suffix=".npy", named=True)[0] == [71, 90]
    many = np.zeros(CHUNK // 12 + 1000, [("b", np.float32), ("a", np.float64)])
    many["a"], many["b"] = np.arange(len(many)), 1
    outputs, _ = sums(many, suffix=".npy", named=True)
    assert outputs == (np.arange(len(many)) + 10.0).tolist()


def test_evaluate_refuses_a_path():
    for path in ("rows.csv", b"rows.csv", sys.executable):
        with pytest.raises(
            TypeError,
            match=r"evaluate: rows must be an array \(n, 2\) .*, got a path; read the file, .* or evaluate it with `jaxneuron run`",
        ):
            evaluate(SUMS, path)
