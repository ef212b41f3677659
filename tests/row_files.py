"""Files of rows and of a network, for tests of `jaxneuron run` and of its readers and writers."""

import os
import subprocess
import sys

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxneuron import init_mlp, save
from jaxneuron.cli import main


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(path, init_mlp(jax.random.key(0), (3, 300, 2), activation="tanh", final_activation="identity"))
    return path


@pytest.fixture
def refused(tmp_path, capsys):
    """Returns a function that runs a command that must be refused, and returns the line that it prints.

    It asserts that the command leaves all files as they were.
    """

    def check(*arguments):
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as exit:  # argparse exits like this
            status = exit.code
        printed = capsys.readouterr()
        assert (status, printed.out, printed.err.count("\n")) == (2, "", 1), printed.err
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
        return printed.err

    return check


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


def run(*arguments, input=None, **environment):
    """Runs the command `jaxneuron` in a new process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "jaxneuron", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | environment, input=input, check=False,
    )  # fmt: skip
