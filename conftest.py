"""How the suite runs: strict JAX, two CPU devices, Hypothesis without a deadline."""

import jax
import numpy as np
import pytest
from hypothesis import Phase, settings

import jaxneuron
from jaxneuron.testing import profile
from tests import draws

jax.config.update("jax_num_cpu_devices", 2)
# Strictness is ours to bear, not our users': no silent broadcast or promotion inside the package.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# derandomised everywhere, not in CI alone: a red run means the change, not the seed
# without the phase that varies what does not matter to a failure, which takes longer than to find it
phases = [phase for phase in Phase if phase is not Phase.explain]
settings.register_profile("jaxneuron", profile(max_examples=40, derandomize=True, phases=phases))
settings.load_profile("jaxneuron")


@pytest.fixture(scope="module", params=[False, True], ids=["x32", "x64"])
def x64(request):
    """Runs a module's tests with jax_enable_x64 off and on."""
    with jax.enable_x64(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def _the_same_random_numbers():
    draws.begin_anew()


@pytest.fixture(autouse=True)
def _on_the_cpu(request):
    """Tests marked cpu are of the fused CPU kernel: they run there even if another device is the default."""
    if request.node.get_closest_marker("cpu") and jax.default_backend() != "cpu":
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def _doctest_folder(request, monkeypatch, doctest_namespace):
    """Doctests see `jax` and `jaxneuron`, and write into a folder of their own."""
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace.update(jax=jax, jaxneuron=jaxneuron, np=np)
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))
