"""The import example of the README, run as it is printed there."""

import re
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

from jaxneuron import init_mlp
from jaxneuron.convert._torch import torch_arrays

ROOT = Path(__file__).parents[2]
(BLOCK,) = [
    block
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if "convert" in block
]


def test_the_import_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mlp = init_mlp(jax.random.key(0), (4, 8, 8, 2))
    Path("policy.safetensors").write_bytes(safetensors.numpy.save(torch_arrays(mlp, "net.")))
    names = {"observations": np.ones((3, 4), np.float32)}
    exec(BLOCK, names)
    assert names["actions"].shape == (3, 2)
