"""`jaxneuron run` on files of any length: formats, resuming, and what may go wrong on the way."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import jaxneuron
from jaxneuron import _journal, cli, evaluate, init_mlp, save
from jaxneuron._rows import CHUNK, read_rows
from jaxneuron.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(path, init_mlp(jax.random.key(0), (3, 300, 2), activation="tanh", final_activation="identity"))
    return path


def numbers(n, columns=3):
    return np.random.default_rng(0).normal(size=(n, columns)).astype(np.float32)


def write_rows(path, rows):
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".csv":
        path.write_text("a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows.tolist()))
    else:
        table = pa.table(dict(zip("abc", np.ascontiguousarray(rows.T), strict=True)))
        pa.parquet.write_table(table, path, row_group_size=10_000)
    return path


def read_outputs(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".csv":
        return np.loadtxt(path, np.float32, delimiter=",", ndmin=2)
    return np.stack([column.to_numpy() for column in pa.parquet.read_table(path).columns], axis=1)


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "jaxneuron", "run", *map(str, arguments)],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


# --- truth ---


@pytest.mark.parametrize("target", [".npy", ".csv", ".parquet"])
@pytest.mark.parametrize("source", [".npy", ".csv", ".parquet"])
def test_every_format_gives_the_bits_of_evaluate(model, tmp_path, source, target):
    rows, out = numbers(25_003), tmp_path / f"out{target}"
    assert main(["run", str(model), str(write_rows(tmp_path / f"rows{source}", rows)), "-o", str(out)]) == 0
    assert read_outputs(out).tobytes() == evaluate(jaxneuron.load(model), rows).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"rows{source}"]


def test_rows_in_columns_order_and_of_many_dtypes(model, tmp_path):
    expected = evaluate(jaxneuron.load(model), numbers(CHUNK // 12 + 1000))
    np.save(tmp_path / "rows.npy", np.asfortranarray(numbers(CHUNK // 12 + 1000)))
    main(["run", str(model), str(tmp_path / "rows.npy"), "-o", str(tmp_path / "out.npy")])
    assert np.load(tmp_path / "out.npy").tobytes() == expected.tobytes()
    table = pa.table({"a": pa.array([1, 2], pa.int8()), "b": [True, False], "c": pa.array([0.5, 0.25])})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    (rows,) = read_rows(tmp_path / "rows.parquet", 3).chunks(0, [])
    assert (rows.dtype, rows.tolist()) == (np.float64, [[1, 1, 0.5], [2, 0, 0.25]])


def test_streams(model, tmp_path):
    rows = numbers(1000)
    text = write_rows(tmp_path / "rows.csv", rows).read_text()
    done = run(model, "-", "-o", "-", input=text)
    assert (done.returncode, "1,000 rows, 0 with NaN" in done.stderr) == (0, True)
    y = np.loadtxt(done.stdout.splitlines(), np.float32, delimiter=",")
    assert y.tobytes() == evaluate(jaxneuron.load(model), rows).tobytes()
    done = run(model, "-", "-o", tmp_path / "out.npy", input=text)
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


def test_a_bar_on_a_terminal(model, tmp_path):
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


# --- killed and resumed ---

KILLS = {(".npy", ".npy"): 8, (".csv", ".csv"): 6, (".parquet", ".parquet"): 6}


def child(arguments):
    _journal.INTERVAL = 0  # a line for each chunk, so that there is much to tear
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def start():
    """Starts the command in a fresh process: forked from one that has only imported, before JAX has threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxneuron.cli", "pyarrow.csv", "pyarrow.parquet", __name__])

    def start(*arguments):
        process = context.Process(target=child, args=([str(a) for a in arguments],))
        process.start()
        return process

    return start


@pytest.mark.parametrize(("source", "target"), KILLS)
def test_killed_at_random_moments_and_resumed(model, tmp_path, start, source, target):
    rows = numbers(80_000)
    arguments = ["run", model, write_rows(tmp_path / f"rows{source}", rows), "--tile", "128", "-o"]
    whole, out = (tmp_path / f"{name}{target}" for name in ("whole", "out"))
    assert main([str(a) for a in (*arguments, whole)]) == 0
    journal, chance, reached = tmp_path / f"{out.name}.journal", random.Random(0), []
    for _ in range(KILLS[source, target]):
        process = start(*arguments, out, "--resume")
        before = journal.stat().st_size if journal.exists() else 0
        while process.is_alive() and (not journal.exists() or journal.stat().st_size <= before):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not out.exists()
        reached.append(len(journal.read_bytes().splitlines()))
    assert sorted(reached) == reached
    assert reached[-1] > reached[0]
    process = start(*arguments, out, "--resume")
    process.join()
    assert process.exitcode == 0
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {f"rows{source}", whole.name, out.name}


# --- the journal refuses what would give other bits ---


@pytest.fixture
def stopped(model, tmp_path):
    """The arguments of a run that was interrupted with some of its rows done."""

    def stop(name="out.npy", n=200_000):
        rows, out = write_rows(tmp_path / "rows.npy", numbers(n)), tmp_path / name
        arguments = [str(a) for a in ("run", model, rows, "--tile", "128", "-o", out)]

        def interrupt(chunk):
            if interrupt.calls == 50:
                raise KeyboardInterrupt
            interrupt.calls += 1
            return original(chunk)

        interrupt.calls = 0
        original = np.isnan
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli.np, "isnan", interrupt)
            assert main(arguments) == 130
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
            ["rows.npy", f"{name}.partial", f"{name}.journal"]
        )
        return arguments, out

    return stop


def test_interrupted_and_resumed(stopped, model, tmp_path, capsys):
    arguments, out = stopped()
    rows = 50 * 128 * len(jax.devices())
    assert (
        f"jaxneuron: interrupted; {rows:,} rows are kept and --resume goes on from there\n"
        in capsys.readouterr().err
    )
    assert (tmp_path / "out.npy.partial").stat().st_size == 128 + 8 * rows
    assert main([*arguments, "--resume", "--devices", "1"]) == 0
    assert f"200,000 rows, 0 with NaN, the last {200_000 - rows:,} of them in" in capsys.readouterr().err
    assert np.load(out).tobytes() == evaluate(jaxneuron.load(model), numbers(200_000), tile=128).tobytes()


def test_resuming_something_else_is_refused(stopped, tmp_path, capsys, model, monkeypatch):
    arguments, out = stopped()
    partial, journal = (tmp_path / f"out.npy.{end}" for end in ("partial", "journal"))
    before = partial.read_bytes(), journal.read_bytes()

    def refused(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        assert (partial.read_bytes(), journal.read_bytes()) == before
        assert not out.exists()
        return capsys.readouterr().err

    left = f"jaxneuron: {partial}: an unfinished run has left this; pass --resume to go on, or --force to begin again\n"
    assert refused(*arguments) == left
    other = tmp_path / "other.safetensors"
    save(other, init_mlp(jax.random.key(1), (3, 300, 2)))
    assert "must be of a run with this model, " in refused("run", other, *arguments[2:], "--resume")
    error = refused(*arguments, "--tile", "256", "--resume")
    assert (
        error
        == f"jaxneuron: {journal}: must be of a run with this tile, 256, got 128; pass --force without --resume to begin again\n"
    )
    with monkeypatch.context() as patch:  # as where no kernel has been compiled
        patch.setattr("jaxneuron._kernels._library.missing", lambda: "gone")
        assert "with this evaluator, XLA, layer by layer: gone, got " in refused(*arguments, "--resume")
    with jax.default_matmul_precision("bfloat16"):
        assert "with this jax_default_matmul_precision, bfloat16, got None" in refused(*arguments, "--resume")
    rows = tmp_path / "rows.npy"
    kept = rows.stat()
    os.utime(rows)
    assert "must be of a run with this rows, " in refused(*arguments, "--resume")
    os.utime(rows, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    with open(partial, "rb") as file:
        _journal.fcntl.flock(file, _journal.fcntl.LOCK_EX)
        assert "another run is writing it; let it end, or write to another file" in refused(
            *arguments, "--resume"
        )
    journal.write_bytes(b"{")
    before = partial.read_bytes(), journal.read_bytes()
    assert "must be the journal of an unfinished run, got none that can be read" in refused(
        *arguments, "--resume"
    )
    assert main([*arguments, "--force"]) == 0
    assert out.exists()
    assert main([*arguments, "--resume"]) == 2
    assert capsys.readouterr().err.endswith(f"jaxneuron: {out}: exists; pass --force to replace it\n")


def test_a_journal_may_end_anywhere(stopped, tmp_path, model):
    arguments, out = stopped(n=20_000)
    partial, journal = (tmp_path / f"out.npy.{end}" for end in ("partial", "journal"))
    rows, lines = partial.read_bytes(), journal.read_bytes()
    expected = evaluate(jaxneuron.load(model), numbers(20_000), tile=128).tobytes()
    first = lines.index(b"\n") + 1
    for end in (first, first + 1, len(lines) - 1, len(lines)):
        partial.write_bytes(rows + b"and more that the journal doesn't know of")
        journal.write_bytes(lines[:end])
        assert main([*arguments, "--resume", "--force"]) == 0
        assert np.load(out).tobytes() == expected


# --- faults ---


@pytest.mark.parametrize("name", ["out.npy", "out.csv", "out.parquet"])
def test_a_full_disk(model, tmp_path, name):
    """A limit to the size of files, 600 kB of some 1 MB or more: what a full disk does, to one process."""
    rows, out = write_rows(tmp_path / "rows.npy", numbers(150_000)), tmp_path / name
    arguments = (model, rows, "-o", out, "--tile", "1024")
    program = """
import resource, sys
from jaxneuron.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, "run", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"jaxneuron: {out}: File too large; [\d,]+ rows are kept and --resume goes on from there\n",
        done.stderr,
    )
    last = json.loads((tmp_path / f"{name}.journal").read_bytes().splitlines()[-1])
    assert last["rows"] > 0
    assert last["rows"] % 1024 == 0
    assert last["bytes"] == (tmp_path / f"{name}.partial").stat().st_size <= 600_000
    assert not out.exists()
    assert main(["run", *map(str, arguments), "--resume"]) == 0
    assert (
        read_outputs(out).tobytes() == evaluate(jaxneuron.load(model), numbers(150_000), tile=1024).tobytes()
    )


@pytest.mark.parametrize("source", [".npy", ".csv", ".parquet"])
def test_an_input_that_is_cut_short_while_it_is_read(model, tmp_path, source, capsys, monkeypatch):
    rows = write_rows(tmp_path / f"rows{source}", numbers(500_000))
    size, original = rows.stat().st_size, np.isnan

    def cut(chunk):
        os.truncate(rows, size // 2)
        return original(chunk)

    monkeypatch.setattr(cli.np, "isnan", cut)
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy"), "--tile", "64"]) == 2
    error = capsys.readouterr().err
    if source == ".npy":
        assert error == f"jaxneuron: {rows}: must hold 500000 rows, was cut short while it was read\n"
    assert str(rows) in error
    assert [path.name for path in tmp_path.iterdir()] == [rows.name]


def test_an_input_that_changes_while_it_is_read(model, tmp_path, capsys, monkeypatch):
    rows, original = write_rows(tmp_path / "rows.npy", numbers(50)), np.isnan
    monkeypatch.setattr(cli.np, "isnan", lambda chunk: (os.utime(rows), original(chunk))[1])
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert (
        capsys.readouterr().err
        == f"jaxneuron: {rows}: must stay as it is while it is read, was changed; run again\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npy"]


def test_a_file_that_another_run_took_over_is_left_alone(model, tmp_path, capsys, monkeypatch):
    rows, original = write_rows(tmp_path / "rows.npy", numbers(50)), np.isnan
    partial = tmp_path / "out.npy.partial"
    monkeypatch.setattr(
        cli.np, "isnan", lambda chunk: (partial.unlink(), partial.write_bytes(b"theirs"), original(chunk))[-1]
    )
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert "must stay where it is during a run, was moved or removed; run again" in capsys.readouterr().err
    assert partial.read_bytes() == b"theirs"


def test_a_folder_that_is_not_writable(model, capsys):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.safetensors").write_bytes(model.read_bytes())
        rows = write_rows(folder / "rows.npy", numbers(5))
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0  # who may write anywhere
        if root:
            os.seteuid(65534)
        try:
            assert (
                main(["run", str(folder / "model.safetensors"), str(rows), "-o", str(folder / "out.npy")])
                == 2
            )
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)
        assert capsys.readouterr().err == f"jaxneuron: {folder}/out.npy: Permission denied\n"


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
def test_bad_rows(model, tmp_path, capsys, name, table, message):
    if table is None:
        (tmp_path / name).write_bytes(write_rows(tmp_path / name, numbers(1000)).read_bytes()[:2000])
    else:
        pa.parquet.write_table(pa.table(table), tmp_path / name)
    assert main(["run", str(model), str(tmp_path / name), "-o", str(tmp_path / "out.npy")]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_bad_arguments(model, tmp_path, capsys):
    rows = write_rows(tmp_path / "rows.npy", numbers(5))
    for extra, message in (
        (("--tile", "0"), "evaluate: tile must be at least 1 row, got 0; leave it out for the default"),
        (("--devices", "3"), "run: --devices must be from 1 to 2, the devices here, got 3"),
        (("--devices", "0"), "run: --devices must be from 1 to 2, the devices here, got 0"),
    ):
        assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy"), *extra]) == 2
        assert capsys.readouterr().err == f"jaxneuron: {message}\n"
    assert main(["run", str(model), str(rows), "-o", "-", "--resume"]) == 2
    assert (
        capsys.readouterr().err
        == f"jaxneuron: run: --resume must have files as ROWS and OUT, got {rows} and -\n"
    )
    (tmp_path / "rows.csv").write_text("1," * CHUNK * 2)
    assert main(["run", str(model), str(tmp_path / "rows.csv"), "-o", str(tmp_path / "out.npy")]) == 2
    assert "rows.csv: line 1: must end within" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.npy"]


def test_without_pyarrow(model, tmp_path, monkeypatch, capsys):
    rows = write_rows(tmp_path / "rows.csv", numbers(5))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert (
        capsys.readouterr().err
        == "jaxneuron: run: CSV needs the pyarrow library; pip install 'jaxneuron[cli]'\n"
    )
