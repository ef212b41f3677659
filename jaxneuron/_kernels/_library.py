"""The shared library of the CPU kernel: loaded and made known to XLA when a network first asks for it."""

import ctypes
import functools
import threading
from pathlib import Path

import jax

import jaxneuron._kernels

TARGET = "jaxneuron_forward"  # the handler's name in ffi.cc, and what XLA knows it by

_lock = threading.Lock()


def missing() -> str | None:
    """Why the kernel can't be called here, or None if it can: the first call loads and registers it."""
    with _lock:
        return _register()


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Those of this processor that the kernel is compiled for, the best one last; `missing()` is None."""
    library = ctypes.CDLL(str(_path()))
    library.jaxneuron_instructions_name.restype = ctypes.c_char_p
    return tuple(
        library.jaxneuron_instructions_name(i).decode() for i in range(library.jaxneuron_instructions())
    )


def _path() -> Path | None:
    # The library lies beside this file; in an editable install in another of the package's folders.
    folders = [Path(folder) for folder in jaxneuron._kernels.__path__]
    return next((path for folder in folders if (path := folder / "libjaxneuron_cpu.so").is_file()), None)


@functools.cache
def _register() -> str | None:
    path = _path()
    if not path:
        return (
            "jaxneuron was installed without the compiled kernel: there was no C++17 compiler, or it failed"
        )
    try:
        handler = jax.ffi.pycapsule(ctypes.CDLL(str(path))[TARGET])
        # Before JAX has its CPU devices it would only note the handler, and then have none if XLA refused it.
        jax.local_devices(backend="cpu")
        jax.ffi.register_ffi_target(TARGET, handler, platform="cpu")
    except (OSError, AttributeError, RuntimeError) as error:  # made for another system, or another XLA
        return f"{path} can't be used: {error}"
    return None
