"""Removes from Python what Windows lacks, then uses the whole package in the current folder.

`test_windows.py` runs this file. Other libraries are imported first, because on Linux they need functions
that are then removed. On Windows they do not need them.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from pathlib import Path

import filelock  # noqa: F401
import flatbuffers  # noqa: F401
import jax
import matplotlib.pyplot as plt  # noqa: F401
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import tqdm  # noqa: F401

WINDOWS = {"SIGABRT", "SIGBREAK", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}


def remove_what_windows_lacks():
    sys.modules["fcntl"] = None
    del os.sysconf, os.fchmod, os.geteuid, os.getuid, os.fork
    for name in dir(signal):
        if name.startswith("SIG") and not name.startswith("SIG_") and name not in WINDOWS:
            delattr(signal, name)
    original = os.open

    def open_no_folder(path, *arguments, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return original(path, *arguments, **options)

    os.open = open_no_folder
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, unless_open(getattr(os, name)))


def unless_open(change):
    """Returns `change` as a function that refuses files that this process has open."""

    def changed(path, *others, **options):
        for each in (path, *others):
            if is_open(each):
                raise PermissionError(errno.EACCES, "used by this process", str(path))
        return change(path, *others, **options)

    return changed


def is_open(path):
    """Returns whether this process has the file open or mapped into memory."""
    real = os.path.realpath(path)
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(descriptor) == real:
                return True
    return real in Path("/proc/self/maps").read_text()


def files():
    # Lock files are left out: filelock removes them only on Windows.
    return sorted(path.name for path in Path().iterdir() if path.suffix != ".lock")


def use_the_package():
    import jaxneuron
    from jaxneuron import evaluate, gates, init_mlp, load, save
    from jaxneuron.cli import main

    def run(*arguments, status=0):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            assert main([str(each) for each in arguments]) == status, errors.getvalue()
        return errors.getvalue()

    sizes = (3, 30, 2)
    save("m.safetensors", init_mlp(jax.random.key(0), sizes, activation="tanh", final_activation="identity"))
    mlp = load("m.safetensors")
    save("m.safetensors", mlp)
    assert jaxneuron.summary(load("m.safetensors")) == jaxneuron.summary(mlp)
    assert (evaluate(gates.XOR, [[0, 1], [1, 1]]) > 0.5).tolist() == [[True], [False]]

    rows = np.random.default_rng(0).normal(size=(200_000, 3)).astype(np.float32)
    expected = evaluate(mlp, rows, tile=128)
    np.save("x.npy", rows)
    run("run", "m.safetensors", "x.npy", "-o", "y.csv", "--tile", "128")
    assert np.loadtxt("y.csv", np.float32, delimiter=",").tobytes() == expected.tobytes()
    pyarrow.parquet.write_table(pyarrow.table(dict(zip("abc", rows.T.copy(), strict=True))), "x.parquet")
    run("run", "m.safetensors", "x.parquet", "-o", "x.parquet", "--force", "--tile", "128")
    columns = pyarrow.parquet.read_table("x.parquet").columns
    assert np.stack([column.to_numpy() for column in columns], axis=1).tobytes() == expected.tobytes()

    is_nan, calls = np.isnan, []

    def interrupt(chunk):
        calls.append(None)
        if len(calls) == 50:
            raise KeyboardInterrupt
        return is_nan(chunk)

    np.isnan = interrupt
    assert "rows are kept; pass --resume to continue" in run(
        "run", "m.safetensors", "x.npy", "-o", "y.npy", "--tile", "128", status=130
    )
    np.isnan = is_nan
    assert {"y.npy.partial", "y.npy.journal"} < set(files())
    assert "the last" in run("run", "m.safetensors", "x.npy", "-o", "y.npy", "--tile", "128", "--resume")
    assert np.load("y.npy").tobytes() == expected.tobytes()
    run("run", "m.safetensors", "y.csv", "-o", "z.npy", status=2)  # y.csv has 2 columns, the network 3 inputs
    Path("bad.csv").write_text("1,2,3\n" * 1_000_000 + "1,2,oops\n")
    run("run", "m.safetensors", "bad.csv", "-o", "z.npy", status=2)
    assert files() == ["bad.csv", "m.safetensors", "x.npy", "x.parquet", "y.csv", "y.npy"]

    activations = ("--activation", "tanh", "--final-activation", "identity")
    run("convert", "m.safetensors", "m.npz")
    run("convert", "m.npz", "t.safetensors", "--torch", "--orientation", "in_out", *activations)
    run("convert", "t.safetensors", "m.safetensors", "--force", *activations)
    run("convert", "m.safetensors", "m.safetensors", "--force", "--dtype", "float64")
    run("convert", "m.safetensors", "m.stablehlo")
    for source in ("m.safetensors", "m.npz", "t.safetensors", "m.stablehlo"):
        run("info", source)
    for what in ("gates", "sigmoid", "error", "m.safetensors"):
        run("plot", what, "-o", "picture.svg", "--force")
    run("plot", "xor", "-o", "picture.png")
    run("demo")


if __name__ == "__main__":
    remove_what_windows_lacks()
    use_the_package()
