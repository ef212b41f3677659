"""The example tests of the documentation pass, and fail for each bug that is put into the tested code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"

BUGS = {
    "transposed square weights": (
        "x = sigmoid(x @ v + c)",
        "x = sigmoid(x @ (v.T if v.shape[0] == v.shape[1] else v) + c)",
        ["test_outputs_are_right"],
        r"y must be within its error bound: row \(\d,\), unit \d is .* where .* are allowed",
    ),
    "an overflow in a naive sigmoid": (
        "1 / (1 + jnp.exp(-z))",
        "jnp.exp(z) / (1 + jnp.exp(z))",
        ["test_outputs_are_right", "test_sigmoid"],
        r"f must stay in \[0, 1\]: f\(.*\) = nan",
    ),
    "a batch-axis mix-up": (
        "axis=-1",
        "axis=0",
        ["test_outputs_are_right", "test_rows_keep_apart", "test_vmap_and_jit_change_nothing"],
        r"f must keep its rows apart: changing row \d of 3 changed row \d",
    ),
}


def run_suite(folder):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_network.py"],
        cwd=folder, env=os.environ | {"CI": "true", "PYTHONPATH": str(EXAMPLES.parents[1])}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return sorted(set(re.findall(r"FAILED test_network.py::(\w+)", done.stdout))), done.stdout


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path / "examples"


def test_the_example_suite_passes(folder):
    failed, printed = run_suite(folder)
    assert failed == []
    assert "4 passed" in printed


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(folder, bug):
    right, wrong, tests, message = BUGS[bug]
    source = (folder / "network.py").read_text()
    assert right in source
    (folder / "network.py").write_text(source.replace(right, wrong))
    # Hypothesis does not shrink examples here, because that takes a minute. It tries more examples than
    # usual, because it also draws numbers that it finds in the package's source, which changes.
    suite = (folder / "test_network.py").read_text()
    plain = "profile(max_examples=100)"
    assert plain in suite
    once = 'profile(max_examples=400, phases=[__import__("hypothesis").Phase.generate])'
    (folder / "test_network.py").write_text(suite.replace(plain, once))
    failed, printed = run_suite(folder)
    assert failed == sorted(tests)
    assert re.search(message, printed)
