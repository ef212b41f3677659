"""Settings of all tests: strict JAX, two CPU devices, reproducible Hypothesis without a deadline."""

import os

import jax
import numpy as np
import pytest
from hypothesis import Phase, settings

import jaxneuron
from jaxneuron.testing import profile
from tests import draws

jax.config.update("jax_num_cpu_devices", 2)
# Users may turn on JAX's strict settings, which forbid silent broadcasts and promotions. The package must
# work under them.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Hypothesis draws the same examples in every run, so a failing test is due to a change of the code, not to
# the seed. If HYPOTHESIS_EXAMPLES is set, it draws so many others in every run. The `explain` phase is left
# out: it varies the parts of an example that do not matter to its failure, which takes longer than finding
# the failure.
phases = [phase for phase in Phase if phase is not Phase.explain]
examples = int(os.environ.get("HYPOTHESIS_EXAMPLES", 0))
settings.register_profile(
    "jaxneuron", profile(max_examples=examples or 40, derandomize=not examples, phases=phases)
)
settings.load_profile("jaxneuron")


@pytest.fixture(scope="module", params=[False, True], ids=["x32", "x64"])
def x64(request):
    """Runs the tests of a module twice: with jax_enable_x64 off, then on."""
    with jax.enable_x64(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def _the_same_random_numbers():
    draws.reset()


@pytest.fixture(autouse=True)
def _on_the_cpu(request):
    """Runs tests of the fused CPU kernel, marked `cpu`, on the CPU even if another device is the default."""
    if request.node.get_closest_marker("cpu") and jax.default_backend() != "cpu":
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def _doctest_folder(request, monkeypatch, doctest_namespace):
    """Gives doctests the names `jax`, `jaxneuron` and `np`, and runs each in an empty folder of its own."""
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace.update(jax=jax, jaxneuron=jaxneuron, np=np)
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))
