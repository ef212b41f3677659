"""The public names of the package, and that importing it has no effects."""

import inspect
import subprocess
import sys
import types

import jaxneuron
from jaxneuron import gates
from jaxneuron._math.activations import ACTIVATIONS
from jaxneuron._names import BY_FAMILY

PUBLIC = [
    *ACTIVATIONS,
    *(value.__name__ for value in BY_FAMILY.values()),
    "MLP",
    "Affine",
    "Evaluator",
    "RowEvaluator",
    "affine",
    "dense_parameter_count",
    "evaluate",
    "explain",
    "fold_input_scaling",
    "fold_output_scaling",
    "gates",
    "init_mlp",
    "load",
    "mlp_forward",
    "mlp_laplacian",
    "mlp_value_and_jacobian",
    "neuron",
    "parameter_count",
    "save",
    "stack_neurons",
    "summary",
]


def test_public_names_are_the_documented_ones():
    assert sorted(jaxneuron.__all__) == sorted(PUBLIC)
    visible = {name for name in vars(jaxneuron) if not name.startswith("_")}
    submodules = {name for name in visible if isinstance(getattr(jaxneuron, name), types.ModuleType)}
    assert visible - submodules == set(PUBLIC) - {"gates"}
    assert sorted(gates.__all__) == ["AND", "NAND", "OR", "XOR", "truth_table"]


def test_everything_public_is_documented_with_an_example():
    for name in set(PUBLIC) - {"gates"}:
        doc = inspect.getdoc(getattr(jaxneuron, name))
        assert doc, name
        assert ">>>" in doc or name == "load", f"{name} has no example"  # the example of `save` shows `load`


def test_importing_has_no_effect():
    program = """
import sys, threading
import jax
from jax._src import xla_bridge
before = dict(jax.config.values), threading.active_count()
import jaxneuron, jaxneuron.cli
assert (dict(jax.config.values), threading.active_count()) == before, "configuration or threads changed"
assert not xla_bridge._backends, "a device was touched"
assert not {"safetensors", "tqdm", "matplotlib", "pyarrow", "ray"} & set(sys.modules), "an optional library was imported"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
