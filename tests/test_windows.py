"""The package works without functions that Windows lacks: fcntl, opening folders, renaming open files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="finds open files in /proc")
def test_the_package_works_without_what_windows_lacks(tmp_path):
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", root / "tests" / "as_on_windows.py"],
        cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
