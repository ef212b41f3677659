"""`jaxneuron convert` and `info` on ONNX and Keras files, as real processes."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxneuron

pytest.importorskip("onnx", reason="onnx is in the extra interop")
pytest.importorskip("keras", reason="keras is in the extra interop")

QLKNN = Path(__file__).parents[1] / "data" / "qlknn_7_11.onnx"


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "jaxneuron", *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, env=os.environ, check=False,
    )  # fmt: skip


def test_a_trained_network_through_every_kind_of_file(tmp_path):
    done = run(tmp_path, "convert", QLKNN, "q.keras")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "node '/Gather' (Gather) is no part of an MLP" in done.stderr
    assert not list(tmp_path.iterdir())
    for arguments in (
        (QLKNN, "q.keras", "--output", "/Add_output_0"),
        ("q.keras", "q.onnx"),
        ("q.onnx", "q.safetensors"),
    ):
        done = run(tmp_path, "convert", *arguments)
        assert done.returncode == 0, done.stderr
        assert "73,823 parameters" in done.stdout
    assert run(tmp_path, "info", "q.keras").stdout == done.stdout
    direct = jaxneuron.convert.from_onnx(QLKNN, output="/Add_output_0")
    again = jaxneuron.load(tmp_path / "q.safetensors")
    assert again.activations == direct.activations
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(direct), strict=True)
    )
    assert "73,823 parameters" in run(tmp_path, "info", QLKNN, "--output", "/Add_output_0").stdout
