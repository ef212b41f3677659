"""Runs an exported XOR where jaxneuron is not installed: `run_exported.py FILE`."""

import importlib.util
import sys
from pathlib import Path

import jax.export
import numpy as np

assert importlib.util.find_spec("jaxneuron") is None
program = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes()))
found = (program.call(np.array([[0.0, 0.0], [0.0, 1.0]])) > 0.5).tolist()
assert found == [[False], [True]], found
print(found)
