import json
import subprocess
import sys

import numpy as np
import pytest

from bench import beside
from bench.cases import Case, network
from jaxneuron import mlp_forward

pytestmark = pytest.mark.once
SMALL = Case((3, 5, 2), "tanh", "sigmoid", 6, "quick to check")


class Fake:
    """Stands in for an installation. Its outputs are too large by `off`."""

    def __init__(self, off):
        self.about, self.off = {"from": "elsewhere"}, off

    def ask(self, case, places):
        y = np.asarray(mlp_forward(*network(Case(**case))))[tuple(places)]
        return {"mlp_forward": (y + self.off).tolist(), **({"new": y.tolist()} if self.off == 0 else {})}


def test_two_installations_are_timed_in_turn(tmp_path):
    """Compares this installation with itself. The file must have the printed numbers."""
    out, words = tmp_path / "beside.json", ["2-3-1 sigmoid x 1"]
    command = [sys.executable, "-m", "bench", "--beside", sys.executable, "--quick", *words, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(out.read_text())
    this, other = results["about"]
    assert this == other
    cases = [r for r in results["cases"] if r["case"] == words[0]]
    assert {r["way"] for r in cases} == {
        "mlp_forward",
        "jit(mlp_forward)",
        "weights inside",
        "evaluate",
        "Evaluator",
    }
    for r in cases:
        assert len(r["this"]["rounds"]) == len(r["other"]["rounds"]) >= 5
        assert f"{r['ratio']['median']:.3f}" in done.stdout
    assert f"all {results['geometric_mean']:.3f}" in done.stdout
    assert 0.2 < results["geometric_mean"] < 5


def test_ways_that_one_installation_lacks_are_left_out():
    assert beside.build(SMALL, [Fake(0), Fake(0)]) == ["mlp_forward", "new"]
    assert beside.build(SMALL, [Fake(0), Fake(1e-12)]) == ["mlp_forward"]


def test_wrong_outputs_are_not_timed():
    with pytest.raises(AssertionError, match="mlp_forward of elsewhere must be within its error bound"):
        beside.build(SMALL, [Fake(0), Fake(1e-3)])


def test_a_python_without_jaxneuron_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="it ended with 1"):
        beside.Installation(make_python(tmp_path))


def make_python(folder):
    """Makes an executable that fails like a Python without jaxneuron; returns its path."""
    program = folder / "python"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return str(program)
