"""The shared library of the CPU kernel: what it reports about itself, and what happens without it."""

import ctypes.util
from pathlib import Path

import jax
import pytest

from jaxneuron import explain, init_mlp, mlp_forward
from jaxneuron._kernels import library
from jaxneuron._math.activations import FORMULAS
from jaxneuron.testing import assert_within_error_bound
from tests.kernels.test_primitive import calls, program, rows

needs_the_library = pytest.mark.skipif(library.missing() is not None, reason=str(library.missing()))


@pytest.fixture
def patch_and_reload(monkeypatch):
    """Returns monkeypatch. The library is loaded again in the test, and again after it."""
    library._load.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    library._load.cache_clear()


@needs_the_library
def test_the_library_has_every_activation():
    assert list(library.codes()) == list(FORMULAS)
    assert list(library.codes().values()) == list(range(len(FORMULAS)))


@needs_the_library
def test_the_header_has_the_interface_that_python_expects():
    header = Path(library.__file__).parent / "cpu" / "plan.h"
    if not header.exists():
        pytest.skip("the sources are not installed")
    assert f'#define JAXNEURON_INTERFACE "{library.INTERFACE}"\n' in header.read_text()


@needs_the_library
def test_a_library_of_other_sources_is_refused(patch_and_reload):
    found = library.expected_interface()
    patch_and_reload.setattr(library, "fingerprint", lambda: "0123456789abcdef")
    assert library.missing().endswith(
        "libjaxneuron_cpu.so was compiled from other sources than the Python beside it "
        f"(interface {found}, not {library.INTERFACE} 0123456789abcdef); install jaxneuron again"
    )
    assert library.instruction_sets() == ()
    assert library.codes() == {}


def test_a_library_without_an_interface_is_refused():
    older = Path(ctypes.util.find_library("c") or "libc.so.6")  # any library but jaxneuron's
    assert library._opened(older).missing == (
        f"{older} was compiled from other sources than the Python beside it "
        f"(interface None, not {library.expected_interface()}); install jaxneuron again"
    )


def test_an_installation_without_the_library_gives_the_reason(patch_and_reload, tmp_path):
    patch_and_reload.setattr("jaxneuron._kernels.__path__", [str(tmp_path)])
    patch_and_reload.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert library.missing() == (
        "jaxneuron was installed without its compiled kernel: no C++17 compiler, or it failed"
    )


def test_a_file_that_is_not_a_library_gives_the_reason(patch_and_reload, tmp_path):
    (tmp_path / "libjaxneuron_cpu.so").write_text("nothing")
    patch_and_reload.setattr("jaxneuron._kernels.__path__", [str(tmp_path)])
    assert library.missing().startswith(f"{tmp_path / 'libjaxneuron_cpu.so'} can't be used: ")


@pytest.mark.cpu
@needs_the_library
def test_without_the_library_xla_evaluates(monkeypatch):
    mlp, x = init_mlp(jax.random.key(0), (5, 20, 3)), rows(7, 5)
    monkeypatch.setattr(library, "missing", lambda: "it is not there")
    assert explain(mlp, x) == "XLA, layer by layer: it is not there"
    jax.clear_caches()
    assert calls(program(mlp_forward, mlp, x)) == 0
    assert_within_error_bound(mlp, x, mlp_forward(mlp, x))
    monkeypatch.undo()
    jax.clear_caches()
    assert calls(program(mlp_forward, mlp, x)) == 1
