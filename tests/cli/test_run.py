"""`jaxneuron run` on files of any length and on streams."""

import os
import re
import signal
import subprocess
import sys
import termios
import time

import jax
import numpy as np
import pytest
import tqdm

import jaxneuron
from jaxneuron import MLP, evaluate, gates, mlp_forward, save
from jaxneuron._evaluate.readers import CHUNK
from jaxneuron.cli import main
from jaxneuron.testing import assert_within_error_bound
from tests import make_qlknn
from tests.row_files import numbers, read_outputs, run, write_rows


@pytest.fixture
def rows(tmp_path):
    """The path of a file with 40 rows of three numbers."""
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    return path


# --- truth ---


@pytest.mark.parametrize("source", ["npy", "csv", "csv with header"])
@pytest.mark.parametrize("target", ["npy", "csv"])
def test_run_writes_outputs_within_bound(model, rows, tmp_path, source, target):
    x = np.load(rows)
    if source != "npy":
        rows = tmp_path / "rows.csv"
        np.savetxt(rows, x, "%.9g", ",", header="a,b,c" if "header" in source else "", comments="")
    out = tmp_path / f"out.{target}"
    done = run("run", model, rows, "-o", out)
    assert (done.returncode, done.stdout) == (0, "")
    said = {
        "csv": f"jaxneuron: {rows}: line 1 holds only numbers and is evaluated as a row; pass --header yes or --header no to say what it is\n",
        "csv with header": f"jaxneuron: {rows}: line 1: columns are taken by position, because the network has no names for its inputs: 'a', 'b', 'c'\n",
    }.get(source, "")
    assert re.fullmatch(re.escape(said) + r"jaxneuron: 40 rows, 0 with NaN in \d+\.\d s\n", done.stderr)
    y = np.load(out) if target == "npy" else np.loadtxt(out, delimiter=",", dtype=np.float32)
    assert y.dtype == np.float32
    assert_within_error_bound(jaxneuron.load(model), x, y)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"rows.npy", rows.name, out.name})


@pytest.mark.parametrize("n", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 2**17 + 7])
def test_run_takes_any_number_of_rows(model, tmp_path, n):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", x)
    for suffix in (".npy", ".csv"):
        out = tmp_path / f"out{suffix}"
        assert main(["run", str(model), str(tmp_path / "rows.npy"), "-o", str(out)]) == 0
        y = np.load(out) if suffix == ".npy" else np.loadtxt(out.read_text().splitlines() or ["0,0"], np.float32, delimiter=",", ndmin=2)[:n]  # fmt: skip
        assert y.shape == (n, 2)
        np.testing.assert_allclose(y, np.asarray(mlp_forward(jaxneuron.load(model), x)), rtol=2e-5, atol=1e-6)


def test_rows_are_converted_to_the_dtype_of_the_model(model, tmp_path):
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


@pytest.mark.parametrize("target", [".npy", ".csv", ".parquet"])
@pytest.mark.parametrize("source", [".npy", ".csv", ".parquet"])
def test_every_format_gives_the_bits_of_evaluate(model, tmp_path, source, target):
    rows, out = numbers(25_003), tmp_path / f"out{target}"
    assert main(["run", str(model), str(write_rows(tmp_path / f"rows{source}", rows)), "-o", str(out)]) == 0
    assert read_outputs(out).tobytes() == evaluate(jaxneuron.load(model), rows).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"rows{source}"]


def test_run_reads_stdin_and_writes_stdout(model, tmp_path):
    rows = numbers(1000)
    text = write_rows(tmp_path / "rows.csv", rows).read_text()
    done = run("run", model, "-", "-o", "-", input=text)
    assert (done.returncode, "1,000 rows, 0 with NaN" in done.stderr) == (0, True)
    y = np.loadtxt(done.stdout.splitlines(), np.float32, delimiter=",")
    assert y.tobytes() == evaluate(jaxneuron.load(model), rows).tobytes()
    done = run("run", model, "-", "-o", tmp_path / "out.npy", input=text)
    assert np.load(tmp_path / "out.npy").tobytes() == y.tobytes()
    shell = f"{sys.executable} -m jaxneuron run {model} - -o - < {tmp_path / 'rows.csv'} | head -n 1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_nan_rows_are_counted(model, tmp_path, capsys):
    rows = numbers(5000)
    rows[[7, 4000], 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    assert (
        main(["run", str(model), str(tmp_path / "rows.npy"), "-o", str(tmp_path / "out.npy"), "--tile", "64"])
        == 0
    )
    assert re.search(r"5,000 rows, 2 with NaN in \d", capsys.readouterr().err)


def test_run_shows_a_progress_bar_on_a_terminal(model, tmp_path):
    np.save(tmp_path / "rows.npy", numbers(5000))
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [
        sys.executable,
        "-m",
        "jaxneuron",
        "run",
        model,
        tmp_path / "rows.npy",
        "-o",
        tmp_path / "out.npy",
    ]
    process = subprocess.Popen(command, stderr=theirs)
    assert process.wait(60) == 0
    os.close(theirs)
    assert b"5.00k/5.00k" in os.read(ours, 10_000)
    os.close(ours)


def test_rows_of_a_million_columns_are_evaluated(tmp_path):
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


def test_run_evaluates_the_xor_gate(tmp_path):
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


def test_force_may_replace_the_input_file(model, rows):
    x = np.load(rows)
    assert main(["run", str(model), str(rows), "-o", str(rows), "--force"]) == 0
    assert_within_error_bound(jaxneuron.load(model), x, np.load(rows))


# --- interrupted ---


# A shell makes a background process ignore SIGINT, and so do the processes that it starts. This undoes that.
IN_FRONT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_rows_and_writes_no_output(model, tmp_path, sent):
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
            r"jaxneuron: interrupted; [\d,]+ rows are kept; pass --resume to continue from there\n", error
        )
        assert left == ["out.csv.journal", "out.csv.partial", "rows.npy"]
    else:
        assert error == "jaxneuron: interrupted\n"
        assert left == ["rows.npy"]


def test_an_interrupt_lost_in_a_finaliser_stops_the_run(model, tmp_path, monkeypatch, capsys):
    class WithLostInterrupt(tqdm.tqdm):
        def update(self, n=1):
            class Finalised:
                def __del__(self):
                    signal.raise_signal(signal.SIGINT)  # Python ignores an exception raised in __del__

            if not self.n:
                Finalised()
            return super().update(n)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(tqdm, "tqdm", WithLostInterrupt)
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


# --- refusals ---


@pytest.mark.parametrize("source", [".npy", ".csv", ".parquet"])
def test_an_input_cut_short_while_it_is_read_is_refused(model, tmp_path, source, capsys, monkeypatch):
    rows = write_rows(tmp_path / f"rows{source}", numbers(500_000))
    size, original = rows.stat().st_size, np.isnan

    def cut(chunk):
        os.truncate(rows, size // 2)
        return original(chunk)

    monkeypatch.setattr(np, "isnan", cut)
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy"), "--tile", "64"]) == 2
    error = capsys.readouterr().err
    if source == ".npy":
        assert (
            error
            == f"jaxneuron: {rows}: must hold 500000 rows, but was cut short while it was read; write it again, then run again\n"
        )
    assert str(rows) in error
    assert [path.name for path in tmp_path.iterdir()] == [rows.name]


def test_an_input_that_changes_while_it_is_read_is_refused(model, tmp_path, capsys, monkeypatch):
    rows, original = write_rows(tmp_path / "rows.npy", numbers(50)), np.isnan
    monkeypatch.setattr(np, "isnan", lambda chunk: (os.utime(rows), original(chunk))[1])
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert (
        capsys.readouterr().err
        == f"jaxneuron: {rows}: must not change while it is read, but did; run again\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npy"]


def test_bad_arguments_are_refused(model, tmp_path, capsys):
    rows = write_rows(tmp_path / "rows.npy", numbers(5))
    for extra, message in (
        (("--tile", "0"), "tile must be at least 1 row, got 0; leave it out for the default"),
        (
            ("--devices", "3"),
            "run: --devices must be from 1 to 2, the number of devices here, got 3; leave it out for all",
        ),
        (
            ("--devices", "0"),
            "run: --devices must be from 1 to 2, the number of devices here, got 0; leave it out for all",
        ),
    ):
        assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy"), *extra]) == 2
        assert capsys.readouterr().err == f"jaxneuron: {message}\n"
    assert main(["run", str(model), str(rows), "-o", "-", "--resume"]) == 2
    assert (
        capsys.readouterr().err
        == f"jaxneuron: run: --resume must have files as ROWS and OUT, got {rows} and -; leave it out\n"
    )
    (tmp_path / "rows.csv").write_text("1," * CHUNK * 2)
    assert main(["run", str(model), str(tmp_path / "rows.csv"), "-o", str(tmp_path / "out.npy")]) == 2
    assert "rows.csv: line 1: must end within" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.npy"]


def test_run_without_tqdm_names_the_extra(model, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert capsys.readouterr().err == "jaxneuron: run: needs the tqdm library; pip install 'jaxneuron[cli]'\n"
