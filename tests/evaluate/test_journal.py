"""The file OUT appears only when it is complete. A killed run can be resumed, unless bits could differ."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron import evaluate, init_mlp, save
from jaxneuron._evaluate import journal as journals
from jaxneuron.cli import main
from tests.row_files import numbers, read_outputs, write_rows

# --- killed and resumed ---


KILLS = {(".npy", ".npy"): 8, (".csv", ".csv"): 6, (".parquet", ".parquet"): 6}


def child(arguments):
    journals.INTERVAL = 0  # writes a line for each chunk, so that a kill often hits a write
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def start():
    """Returns a function that runs the command in a new process.

    That process is forked from one that has imported the package but has not started any thread.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxneuron.cli", "pyarrow.csv", "pyarrow.parquet", __name__])

    def start(*arguments):
        process = context.Process(target=child, args=([str(a) for a in arguments],))
        process.start()
        return process

    return start


@pytest.mark.parametrize(("source", "target"), KILLS)
def test_a_killed_and_resumed_run_writes_the_same_file(model, tmp_path, start, source, target):
    rows = numbers(160_000)
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
        if process.exitcode == 0:  # the run ended before the kill
            break
        assert process.exitcode == -signal.SIGKILL
        assert not out.exists()
        reached.append(len(journal.read_bytes().splitlines()))
    assert reached
    assert sorted(reached) == reached
    if not out.exists():
        process = start(*arguments, out, "--resume")
        process.join()
    assert process.exitcode == 0
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {f"rows{source}", whole.name, out.name}


# --- a run is not resumed if its bits could differ ---


@pytest.fixture
def stopped(model, tmp_path):
    """Returns a function that interrupts a run after some rows, and returns the run's arguments and OUT."""

    def stop(name="out.npy", n=200_000, source="rows.npy", model=model):
        rows, out = write_rows(tmp_path / source, numbers(n)), tmp_path / name
        arguments = [str(a) for a in ("run", model, rows, "--tile", "128", "-o", out)]

        def interrupt(chunk):
            if interrupt.calls == 50:
                raise KeyboardInterrupt
            interrupt.calls += 1
            return original(chunk)

        interrupt.calls = 0
        original = np.isnan
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np, "isnan", interrupt)
            assert main(arguments) == 130
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
            [source, f"{name}.partial", f"{name}.journal"]
        )
        return arguments, out

    return stop


def test_an_interrupted_and_resumed_run_has_the_same_bits(stopped, model, tmp_path, capsys):
    arguments, out = stopped()
    rows = 50 * 128 * len(jax.devices())
    assert (
        f"jaxneuron: interrupted; {rows:,} rows are kept; pass --resume to continue from there\n"
        in capsys.readouterr().err
    )
    assert (tmp_path / "out.npy.partial").stat().st_size == 128 + 8 * rows
    assert main([*arguments, "--resume", "--devices", "1"]) == 0
    assert f"200,000 rows, 0 with NaN, the last {200_000 - rows:,} of them in" in capsys.readouterr().err
    assert np.load(out).tobytes() == evaluate(jaxneuron.load(model), numbers(200_000), tile=128).tobytes()


@pytest.mark.cpu
def test_resuming_with_other_settings_is_refused(stopped, tmp_path, capsys, model, monkeypatch):
    arguments, out = stopped()
    partial, journal = (tmp_path / f"out.npy.{end}" for end in ("partial", "journal"))
    before = partial.read_bytes(), journal.read_bytes()

    def refused(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        assert (partial.read_bytes(), journal.read_bytes()) == before
        assert not out.exists()
        return capsys.readouterr().err

    left = f"jaxneuron: {partial}: belongs to an unfinished run; pass --resume to continue it, or --force to begin again\n"
    assert refused(*arguments) == left
    other = tmp_path / "other.safetensors"
    save(other, init_mlp(jax.random.key(1), (3, 300, 2)))
    assert "must be of a run with the same model, " in refused("run", other, *arguments[2:], "--resume")
    error = refused(*arguments, "--tile", "256", "--resume")
    assert (
        error
        == f"jaxneuron: {journal}: must be of a run with the same tile, 256, got 128; pass --force without --resume to begin again\n"
    )
    with monkeypatch.context() as patch:  # as on a machine without the compiled kernel
        patch.setattr("jaxneuron._kernels.library.missing", lambda: "gone")
        assert "with the same evaluator, XLA, layer by layer: gone, got " in refused(*arguments, "--resume")
    with jax.default_matmul_precision("bfloat16"):
        assert "with the same jax_default_matmul_precision, bfloat16, got None" in refused(
            *arguments, "--resume"
        )
    rows = tmp_path / "rows.npy"
    kept = rows.stat()
    os.utime(rows)
    assert "must be of a run with the same rows, " in refused(*arguments, "--resume")
    os.utime(rows, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    with filelock.FileLock(tmp_path / "out.npy.lock"):
        assert "another run is writing it; wait until that has ended, or pass another OUT" in refused(
            *arguments, "--resume"
        )
    journal.write_bytes(b"{")
    before = partial.read_bytes(), journal.read_bytes()
    assert "must be the journal of an unfinished run, got one that can't be read" in refused(
        *arguments, "--resume"
    )
    assert main([*arguments, "--force"]) == 0
    assert out.exists()
    assert main([*arguments, "--resume"]) == 2
    assert capsys.readouterr().err.endswith(f"jaxneuron: {out}: exists; pass --force to replace it\n")


def test_a_resumed_run_takes_the_same_columns_and_header(stopped, model, tmp_path, tmp_path_factory, capsys):
    mlp = jaxneuron.load(model)
    named = tmp_path_factory.mktemp("named") / "named.safetensors"
    save(named, jaxneuron.MLP(mlp.layers, mlp.activation, mlp.final_activation, inputs=("c", "b", "a")))
    arguments, out = stopped(n=120_000, source="rows.csv", model=named)
    kept = (tmp_path / "out.npy.partial").read_bytes()
    for header in ("yes", "no"):
        capsys.readouterr()
        assert main([*arguments, "--resume", "--header", header]) == 2
        assert f"must be of a run with the same header, {header}, got auto" in capsys.readouterr().err
    assert (tmp_path / "out.npy.partial").read_bytes() == kept
    assert main([*arguments, "--resume"]) == 0
    said = capsys.readouterr().err
    assert "rows.csv: line 1: columns are taken by name: 'c', 'b', 'a'\n" in said
    assert ", the last " in said
    expected = evaluate(mlp, np.ascontiguousarray(numbers(120_000)[:, ::-1]), tile=128)
    assert np.load(out).tobytes() == expected.tobytes()


def test_a_journal_cut_off_anywhere_can_be_resumed(stopped, tmp_path, model):
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
def test_a_run_that_filled_the_disk_can_be_resumed(model, tmp_path, name):
    """Limits files to 600 kB. The outputs need 1 MB or more, so for this process the disk seems full."""
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
        rf"jaxneuron: {out}: File too large; [\d,]+ rows are kept; pass --resume to continue from there\n",
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


def test_a_second_run_is_refused_until_the_first_is_killed(model, tmp_path, capsys):
    rows, out = write_rows(tmp_path / "rows.npy", numbers(50)), tmp_path / "out.npy"
    command = [sys.executable, "-m", "jaxneuron", "run", model, "-", "-o", out]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while not (tmp_path / "out.npy.partial").exists() and first.poll() is None:
        time.sleep(0.01)
    arguments = ["run", str(model), str(rows), "-o", str(out), "--force"]
    assert main(arguments) == 2
    assert (
        capsys.readouterr().err
        == f"jaxneuron: {out}.partial: another run is writing it; wait until that has ended, or pass another OUT\n"
    )
    first.kill()
    first.communicate()
    assert main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "rows.npy"]


def test_a_file_that_another_run_took_over_is_left_alone(model, tmp_path, capsys, monkeypatch):
    rows, original = write_rows(tmp_path / "rows.npy", numbers(50)), np.isnan
    partial = tmp_path / "out.npy.partial"
    monkeypatch.setattr(
        np, "isnan", lambda chunk: (partial.unlink(), partial.write_bytes(b"theirs"), original(chunk))[-1]
    )
    assert main(["run", str(model), str(rows), "-o", str(tmp_path / "out.npy")]) == 2
    assert (
        "must stay in its place during a run, but was moved or removed; run again" in capsys.readouterr().err
    )
    assert partial.read_bytes() == b"theirs"


def test_a_read_only_folder_is_refused(model, capsys):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.safetensors").write_bytes(model.read_bytes())
        rows = write_rows(folder / "rows.npy", numbers(5))
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0  # root may write everywhere
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
