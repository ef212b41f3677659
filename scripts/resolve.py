"""Checks that wheels of all build and run requirements exist for every supported Python.

    python scripts/resolve.py [VERSION ...]

For each Python it prints the jaxlib from which the build takes its headers, and the jax with which the
package runs. It fails if the index lacks a wheel for a Python. It installs nothing.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
ROOT = Path(__file__).parents[1]


def wanted(requirements: list[str], python: str) -> list[str]:
    """The requirements for this Python. pip would evaluate the markers for the Python on which it runs."""
    parsed = [Requirement(each) for each in requirements]
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    return [f"{r.name}{r.specifier}" for r in parsed if r.marker is None or r.marker.evaluate(here)]


def resolved(requirements: list[str], python: str) -> dict[str, str]:
    """The versions that pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
            *("--disable-pip-version-check", "--only-binary=:all:", "--python-version", python),
            *("--target", folder, "--report", f"{folder}/report.json", *requirements),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"Python {python}: {', '.join(requirements)}: {done.stderr}")
        report = json.loads(Path(folder, "report.json").read_text())
    return {each["metadata"]["name"]: each["metadata"]["version"] for each in report["install"]}


def main() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for python in sys.argv[1:] or VERSIONS:
        build = resolved(wanted(table["build-system"]["requires"], python), python)
        run = resolved(wanted(table["project"]["dependencies"], python), python)
        print(f"Python {python}: built with jaxlib {build['jaxlib']}, runs with jax {run['jax']}")


if __name__ == "__main__":
    main()
