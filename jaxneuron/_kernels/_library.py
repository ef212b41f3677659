"""The shared library of the CPU kernel: loaded and made known to XLA when a network first asks for it."""

import ctypes
import functools
import sysconfig
import threading
from pathlib import Path

import jax

import jaxneuron._kernels

TARGET = "jaxneuron_forward"  # the handler's name in ffi.cc, and what XLA knows it by

_lock = threading.Lock()


def missing() -> str | None:
    """Why the kernel can't be called here, or None if it can: the first call loads and registers it."""
    with _lock:
        return _load()[0]


def instruction_sets() -> tuple[str, ...]:
    """Those of this processor that the kernel is compiled for, the best one last; none if it is missing."""
    with _lock:
        return _load()[1]


@functools.cache
def _load() -> tuple[str | None, tuple[str, ...]]:
    # The library lies beside this file; in an editable install in another of the package's folders; and with
    # the installed package where Python was started among the sources, which then come first.
    installed = Path(sysconfig.get_path("platlib"), "jaxneuron", "_kernels")
    folders = [*(Path(folder) for folder in jaxneuron._kernels.__path__), installed]
    path = next((path for folder in folders if (path := folder / "libjaxneuron_cpu.so").is_file()), None)
    if not path:
        return "jaxneuron was installed without its compiled kernel: no C++17 compiler, or it failed", ()
    try:
        library = ctypes.CDLL(str(path))
        name = library.jaxneuron_instructions_name
        name.restype = ctypes.c_char_p
        names = tuple(name(i).decode() for i in range(library.jaxneuron_instructions()))
        # Before JAX has its CPU devices it would only note the handler, and then have none if XLA refused it.
        jax.local_devices(backend="cpu")
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(library[TARGET]), platform="cpu")
    except (OSError, AttributeError, RuntimeError) as error:
        # It is of another system, another version, or for another XLA.
        return f"{path} can't be used: {error}", ()
    return None, names
