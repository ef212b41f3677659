"""The three imports of the README, run as they stand there."""

import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxneuron import init_mlp
from jaxneuron.convert import to_flax_params
from jaxneuron.convert._torch import torch_arrays

pytest.importorskip("onnx", reason="onnx is in the extra interop")

ROOT = Path(__file__).parents[2]
BLOCKS = [
    block
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if "convert" in block
]


def test_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mlp = init_mlp(jax.random.key(0), (4, 8, 8, 2))
    Path("policy.safetensors").write_bytes(safetensors.numpy.save(torch_arrays(mlp, "net.")))
    shutil.copy(ROOT / "tests" / "data" / "qlknn_7_11.onnx", tmp_path)
    rows = np.ones((3, 4), np.float32)
    given = {
        "observations": rows,
        "params": to_flax_params(mlp),
        "rows": rows,
        "profiles": np.ones((3, 10), np.float32),
    }
    shapes = []
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line]) <= 5
        names = dict(given)
        exec(block, names)
        shapes.append(list(names.values())[-1].shape)
    assert shapes == [(3, 2), (3, 2), (3, 8)]
