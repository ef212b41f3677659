"""All commands: their help, errors of one line, and closed pipes."""

import subprocess
import sys

import numpy as np
import pytest

import jaxneuron
from tests import make_qlknn
from tests.row_files import run


@pytest.fixture
def rows(tmp_path):
    """The path of a file with 40 rows of three numbers."""
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    return path


def test_every_command_has_help():
    for arguments in ((), ("demo",), ("info",), ("run",), ("plot",)):
        done = run(*arguments, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage: jaxneuron")
    assert run("--version").stdout == f"jaxneuron {jaxneuron.__version__}\n"


# --- refusals: one line, status 2, no incomplete file ---


def test_a_refusal_is_one_line_on_stderr_and_status_2(model, rows, tmp_path):
    for arguments in (("run", model, rows), ("run", model, rows, "-o", rows), ("info", tmp_path / "none")):
        done = run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


def test_bad_files_and_arguments_are_refused(model, rows, tmp_path, refused):
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
        (
            ("info", rows),
            "rows.npy: must be a safetensors file, got a .npy file of one NumPy array; it holds no network",
        ),
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
        (
            ("run", model, tmp_path / "several.npy", "-o", out),
            "several.npy: rows must be in a .npy, .csv or .parquet file, got '.npy', an .npz archive of NumPy arrays; save the array of rows by itself",
        ),
        (
            ("run", model, model, "-o", out),
            "rows must be in a .npy, .csv or .parquet file, got '.safetensors', a safetensors file; it holds no rows",
        ),
    ):
        assert message in refused(*arguments)


def test_a_closed_pipe_gives_no_traceback():
    program = f"{sys.executable} -m jaxneuron info {make_qlknn.SHIPPED} | true"
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_missing_device_gives_no_traceback():
    done = run("demo", JAX_PLATFORMS="nonsense")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nonsense" in done.stderr
