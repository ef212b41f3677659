"""Checks that the package evaluates without its extras, and that errors name the extra that a call needs."""

import importlib.util
import sys

import jaxneuron

assert jaxneuron.__file__.startswith(sys.prefix), jaxneuron.__file__
for library in ("safetensors", "tqdm", "matplotlib", "hypothesis", "pyarrow", "ray"):
    assert importlib.util.find_spec(library) is None, library
print(jaxneuron.gates.truth_table(jaxneuron.gates.XOR)[1])
try:
    jaxneuron.save("xor.safetensors", jaxneuron.gates.XOR)
except ImportError as error:
    print(error)
else:
    raise SystemExit("save needs safetensors, which is not here")
