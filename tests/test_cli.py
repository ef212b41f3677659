"""The command line, as real processes on real files."""

import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tqdm

import jaxneuron
from jaxneuron import MLP, gates, init_mlp, mlp_forward, save
from jaxneuron._rows import read_rows, row_writer
from jaxneuron.cli import main
from jaxneuron.testing import assert_within_error_bound
from tests import make_qlknn


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "jaxneuron", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | environment, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(path, init_mlp(jax.random.key(0), (3, 5, 2), activation="tanh", final_activation="identity"))
    return path


@pytest.fixture
def rows(tmp_path):
    """A path with 40 rows of three numbers."""
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    return path


# --- truth ---


@pytest.mark.parametrize(("x64", "greatest"), [("0", 1e-4), ("1", 1e-9)])
def test_demo(x64, greatest):
    done = run("demo", JAX_ENABLE_X64=x64)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "  x1 x2           AND            OR          NAND           XOR",
        "   0  0  0.3318 False  0.4502 False  0.6682  True  0.0215 False",
        "   1  1  0.5744  True  0.6900  True  0.4256 False  0.0184 False",
        "total: 73,823 parameters, 590,584 bytes (float64), 73,150 multiply-adds a row",
    ):
        assert line in done.stdout.splitlines()
    error = re.search(
        r"25 published rows in float(\d\d): greatest error (\S+) of the output's scale", done.stdout
    )
    assert error[1] == ("64" if x64 == "1" else "32")
    assert float(error[2]) < greatest
    assert (
        float(re.search(r"100,000 random rows: (\S+) rows per second", done.stdout)[1].replace(",", "")) > 0
    )


def test_info():
    done = run("info", make_qlknn.SHIPPED)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == jaxneuron.summary(make_qlknn.folded_qlknn()) + "\n"


@pytest.mark.parametrize("source", ["npy", "csv", "csv with header"])
@pytest.mark.parametrize("target", ["npy", "csv"])
def test_run(model, rows, tmp_path, source, target):
    x = np.load(rows)
    if source != "npy":
        rows = tmp_path / "rows.csv"
        np.savetxt(rows, x, "%.9g", ",", header="a,b,c" if "header" in source else "", comments="")
    out = tmp_path / f"out.{target}"
    done = run("run", model, rows, "-o", out)
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"jaxneuron: 40 rows, 0 with NaN in \d+\.\d s\n", done.stderr)
    y = np.load(out) if target == "npy" else np.loadtxt(out, delimiter=",", dtype=np.float32)
    assert y.dtype == np.float32
    assert_within_error_bound(jaxneuron.load(model), x, y)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"rows.npy", rows.name, out.name})


@pytest.mark.parametrize("n", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 2**17 + 7])
def test_run_any_number_of_rows(model, tmp_path, n):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", x)
    for suffix in (".npy", ".csv"):
        out = tmp_path / f"out{suffix}"
        assert main(["run", str(model), str(tmp_path / "rows.npy"), "-o", str(out)]) == 0
        y = np.load(out) if suffix == ".npy" else np.loadtxt(out.read_text().splitlines() or ["0,0"], np.float32, delimiter=",", ndmin=2)[:n]  # fmt: skip
        assert y.shape == (n, 2)
        np.testing.assert_allclose(y, np.asarray(mlp_forward(jaxneuron.load(model), x)), rtol=2e-5, atol=1e-6)


def test_rows_of_any_dtype_take_the_models(model, tmp_path):
    for dtype in ("float64", "int32", "float16", "bool", ">f4"):
        np.save(tmp_path / "rows.npy", np.ones((3, 3), dtype))
        assert (
            main(["run", str(model), str(tmp_path / "rows.npy"), "-o", str(tmp_path / "out.npy"), "--force"])
            == 0
        )
        assert np.load(tmp_path / "out.npy").dtype == np.float32
        expected = mlp_forward(jaxneuron.load(model), np.ones((3, 3), np.float32))
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-6)
    half = jax.tree.map(lambda a: a.astype("bfloat16"), jaxneuron.load(model))
    save(tmp_path / "half.safetensors", half)
    for suffix in ("npy", "csv"):
        assert main(["run", str(tmp_path / "half.safetensors"), str(tmp_path / "rows.npy"), "-o", str(tmp_path / f"half.{suffix}")]) == 0  # fmt: skip
    assert np.load(tmp_path / "half.npy").dtype == np.float32
    assert np.loadtxt(tmp_path / "half.csv", delimiter=",").shape == (3, 2)
    done = run("run", make_qlknn.SHIPPED, tmp_path / "rows.npy", "-o", tmp_path / "x.npy", JAX_ENABLE_X64="1")
    assert "must have shape (rows, 10) for this network, got (3, 3)" in done.stderr


def test_csv_gives_every_bit_back(tmp_path):
    y = np.frombuffer(np.random.default_rng(0).bytes(8000), np.float64).reshape(-1, 4)
    y = np.where(np.isnan(y), 0, y)
    for dtype in (np.float16, np.float32, np.float64):
        with np.errstate(over="ignore"), open(tmp_path / "y.csv", "wb") as file:
            back = y.astype(dtype)
            row_writer(tmp_path / "y.csv")(file, 4, back.dtype).write(back)
        (read,) = read_rows(tmp_path / "y.csv", 4).chunks(0, [])
        assert np.array_equal(read.astype(dtype), back)


def test_csv_as_people_write_it(tmp_path):
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


def test_help_everywhere():
    for arguments in ((), ("demo",), ("info",), ("run",), ("plot",)):
        done = run(*arguments, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage: jaxneuron")
    assert run("--version").stdout == f"jaxneuron {jaxneuron.__version__}\n"


# --- refusals: one line, status 2, nothing half-written ---


@pytest.fixture
def refused(tmp_path, capsys):
    def check(*arguments):
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as exit:  # argparse's way
            status = exit.code
        printed = capsys.readouterr()
        assert (status, printed.out, printed.err.count("\n")) == (2, "", 1), printed.err
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
        return printed.err

    return check


def test_a_refusal_as_a_user_sees_it(model, rows, tmp_path):
    for arguments in (("run", model, rows), ("run", model, rows, "-o", rows), ("info", tmp_path / "none")):
        done = run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


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
def test_bad_csv(model, tmp_path, refused, content, message):
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
        capsys.readouterr().err == f"jaxneuron: {path}: line 950001: column 3 must be a number, got 'oops'\n"
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
def test_bad_npy(model, tmp_path, refused, array, message):
    np.save(tmp_path / "rows.npy", array)
    assert message in refused("run", model, tmp_path / "rows.npy", "-o", tmp_path / "out.npy")


def test_bad_files_and_arguments(model, rows, tmp_path, refused):
    out = tmp_path / "out.npy"
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "folder.npy").mkdir()
    header = (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 3)}".ljust(117) + b"\n"
    )
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    np.save(tmp_path / "pickled.npy", np.array([{}], object))
    np.savez(tmp_path / "several.npz", a=np.ones(3))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    for arguments, message in (
        ((), "jaxneuron: the following arguments are required: COMMAND; see jaxneuron --help"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        (("run", model, rows), "the following arguments are required: -o; see jaxneuron run --help"),
        (("info", tmp_path / "none.safetensors"), "none.safetensors: No such file or directory"),
        (("info", tmp_path), "Is a directory"),
        (("info", rows), "is not a whole safetensors file"),
        (("run", model, tmp_path / "none.npy", "-o", out), "none.npy: No such file or directory"),
        (("run", model, tmp_path / "none.csv", "-o", out), "none.csv: No such file or directory"),
        (("run", model, rows, "-o", tmp_path / "no" / "out.npy"), "no/out.npy: No such file or directory"),
        (("run", model, rows, "-o", tmp_path / "folder.npy", "--force"), "folder.npy: Is a directory"),
        (("run", model, tmp_path / "header.npy", "-o", out), "header.npy: must be a .npy file of numbers"),
        (
            ("run", model, rows, "-o", tmp_path / "out.txt"),
            "rows must go to a .npy, .csv or .parquet file, got '.txt'",
        ),
        (
            ("run", model, rows, "-o", tmp_path / "out"),
            "rows must go to a .npy, .csv or .parquet file, got 'no suffix'",
        ),
        (("run", model, rows, "-o", rows), "rows.npy: exists; pass --force to replace it"),
        (("run", model, tmp_path / "text.npy", "-o", out), "text.npy: must be a .npy file of numbers"),
        (("run", model, tmp_path / "pickled.npy", "-o", out), "pickled.npy: must be a .npy file of numbers"),
        (("run", model, tmp_path / "several.npy", "-o", out), "several.npy: must be a .npy file of numbers"),
        (
            ("run", model, model, "-o", out),
            "rows must be in a .npy, .csv or .parquet file, got '.safetensors'",
        ),
    ):
        assert message in refused(*arguments)


def test_force_replaces_even_the_input(model, rows):
    x = np.load(rows)
    assert main(["run", str(model), str(rows), "-o", str(rows), "--force"]) == 0
    assert_within_error_bound(jaxneuron.load(model), x, np.load(rows))


def test_a_closed_pipe_is_no_traceback():
    program = f"{sys.executable} -m jaxneuron info {make_qlknn.SHIPPED} | true"
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""


# A process that a shell starts in the background inherits that SIGINT is ignored, and so does what it starts.
IN_FRONT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_leaves_what_is_done_and_no_output(model, tmp_path, sent):
    x = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (20_000_000, 3))
    x.flush()
    process = subprocess.Popen(
        [
            sys.executable, "-c", f"{IN_FRONT}; import sys; from jaxneuron.cli import main; sys.exit(main())",
            "run", model, tmp_path / "rows.npy", "-o", tmp_path / "out.csv",
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "out.csv.partial").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert process.returncode == 130
    if "kept" in error:
        assert re.fullmatch(
            r"jaxneuron: interrupted; [\d,]+ rows are kept and --resume goes on from there\n", error
        )
        assert left == ["out.csv.journal", "out.csv.partial", "rows.npy"]
    else:
        assert error == "jaxneuron: interrupted\n"
        assert left == ["rows.npy"]


def test_an_interrupt_that_python_loses(model, tmp_path, monkeypatch, capsys):
    class Loses(tqdm.tqdm):
        def update(self, n=1):
            class Finalised:
                def __del__(self):
                    signal.raise_signal(signal.SIGINT)  # what is raised here is ignored

            if not self.n:
                Finalised()
            return super().update(n)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(tqdm, "tqdm", Loses)
    np.save(tmp_path / "rows.npy", np.zeros((1000, 3), np.float32))
    arguments = ["run", model, tmp_path / "rows.npy", "-o", tmp_path / "out.npy", "--tile", "16"]
    try:
        status = main([*map(str, arguments)])
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert status == 130
    assert capsys.readouterr().err.startswith("jaxneuron: interrupted")
    assert not (tmp_path / "out.npy").exists()


def test_without_tqdm(model, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert capsys.readouterr().err == "jaxneuron: run: needs the tqdm library; pip install 'jaxneuron[cli]'\n"


def test_a_device_that_is_not_there_is_no_traceback():
    done = run("demo", JAX_PLATFORMS="nonsense")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nonsense" in done.stderr


def test_wide_rows_come_in_smaller_tiles(tmp_path):
    save(
        tmp_path / "wide.safetensors",
        MLP([(np.ones((2**20, 1), np.float32), None)], final_activation="identity"),
    )
    np.save(tmp_path / "rows.npy", np.ones((6, 2**20), np.float32))
    assert (
        main(
            [
                "run",
                str(tmp_path / "wide.safetensors"),
                str(tmp_path / "rows.npy"),
                "-o",
                str(tmp_path / "y.npy"),
            ]
        )
        == 0
    )
    assert np.load(tmp_path / "y.npy").tolist() == [[2**20]] * 6


def test_gates_are_a_network_like_any_other(tmp_path):
    save(tmp_path / "xor.safetensors", gates.XOR)
    (tmp_path / "x.csv").write_text("0,0\n0,1\n1,0\n1,1\n")
    assert isinstance(gates.XOR, MLP)
    assert (
        main(
            ["run", str(tmp_path / "xor.safetensors"), str(tmp_path / "x.csv"), "-o", str(tmp_path / "y.npy")]
        )
        == 0
    )
    assert (np.load(tmp_path / "y.npy") > 0.5)[:, 0].tolist() == [False, True, True, False]
