"""`jaxneuron convert` and `info` on ONNX and Keras files, as real processes."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron.cli import main
from jaxneuron.convert import from_onnx

pytest.importorskip("onnx", reason="onnx is in the extra interop")
pytest.importorskip("keras", reason="keras is in the extra interop")

QLKNN = Path(__file__).parents[1] / "data" / "qlknn_7_11.onnx"


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "jaxneuron", *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, env=os.environ, check=False,
    )  # fmt: skip


def test_convert_through_onnx_keras_and_safetensors_keeps_the_bits(tmp_path, monkeypatch, capsys):
    done = run(tmp_path, "convert", QLKNN, "q.keras")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "node '/Mul_1' (Mul) can't be part of an MLP" in done.stderr
    assert not list(tmp_path.iterdir())
    done = run(tmp_path, "convert", QLKNN, "q.keras", "--output", "/Add_output_0")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ("convert", "q.keras", "q.onnx"),
        ("convert", "q.onnx", "q.safetensors"),
        ("info", "q.keras"),
        ("info", str(QLKNN), "--output", "/Add_output_0"),
    ):
        assert main(list(arguments)) == 0
        assert capsys.readouterr() == (done.stdout, "")
    assert (
        main(["convert", str(QLKNN), "part.safetensors", "--output", "/Add_output_0", "--outputs", "2:5"])
        == 0
    )
    part = from_onnx(QLKNN, output="/Add_output_0", outputs=slice(2, 5))
    for found, leaf in zip(
        jax.tree.leaves(jaxneuron.load("part.safetensors")), jax.tree.leaves(part), strict=True
    ):
        assert np.array_equal(found, leaf)
    direct = from_onnx(QLKNN, output="/Add_output_0")
    again = jaxneuron.load("q.safetensors")
    assert again.activations == direct.activations
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(direct), strict=True)
    )
