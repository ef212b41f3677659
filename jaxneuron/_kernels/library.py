"""The shared library of the CPU kernel, loaded when a network first needs it.

The first call of `missing` registers it with XLA. host.py calls it without JAX.
"""

from __future__ import annotations

import ctypes
import functools
import sysconfig
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxneuron._kernels
from jaxneuron._math.activations import in_kernel
from jaxneuron._math.tables import fingerprint

# The handlers' names, in ffi.cc and in XLA.
TARGET = "jaxneuron_forward"
JACOBIAN = "jaxneuron_jacobian"
PRODUCT = "jaxneuron_product"
INTERFACE = 7  # the same number as JAXNEURON_INTERFACE in cpu/plan.h
MOST_PARAMETERS = 2  # the same number as in cpu/network.h

_lock = threading.Lock()


class Library(NamedTuple):
    """The loaded library, and what it reports about itself."""

    missing: str | None  # why the library can't be called, or None if it can
    functions: ctypes.CDLL | None = None
    instruction_sets: tuple[str, ...] = ()
    codes: Mapping[str, int] = MappingProxyType({})


def missing() -> str | None:
    """Why XLA can't call the kernel here, or None if it can. The first call loads and registers it."""
    with _lock:
        return _load().missing or _unregistered()


def functions() -> ctypes.CDLL | None:
    """The loaded library, without registering it with XLA; None if it is missing."""
    return _loaded().functions


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets of this CPU that the kernel was compiled for, the best one last.

    Empty if the library is missing.
    """
    return _loaded().instruction_sets


def codes() -> Mapping[str, int]:
    """The code of every activation that the kernel has, by name. Empty if the library is missing."""
    return _loaded().codes


def coded(activation: Any) -> tuple[int, np.ndarray]:
    """The kernel's code for an activation, and its parameters: float64, of shape (MOST_PARAMETERS,).

    `activation`: a name, or a value of a parametric activation.
    """
    formula, parameters = in_kernel(activation)
    numbers = np.zeros(MOST_PARAMETERS)
    numbers[: len(parameters)] = parameters
    return codes()[formula], numbers


def expected_interface() -> str:
    """The interface that a library reports if it was compiled from the sources beside this file."""
    return f"{INTERFACE} {fingerprint()}"


def _loaded() -> Library:
    with _lock:
        return _load()


@functools.cache
def _load() -> Library:
    # The library is usually beside this file. In an editable install it is in another of the package's
    # folders. If Python was started among the sources, it is beside the installed package instead.
    installed = Path(sysconfig.get_path("platlib"), "jaxneuron", "_kernels")
    folders = [*(Path(folder) for folder in jaxneuron._kernels.__path__), installed]
    path = next((path for folder in folders if (path := folder / "libjaxneuron_cpu.so").is_file()), None)
    if not path:
        return Library("jaxneuron was installed without its compiled kernel: no C++17 compiler, or it failed")
    try:
        return _opened(path)
    except (OSError, AttributeError) as error:  # compiled for another system
        return Library(f"{path} can't be used: {error}")


@functools.cache
def _unregistered() -> str | None:
    """Why XLA does not accept the loaded library's handlers, or None once it has accepted them."""
    library = _load().functions
    assert library is not None
    # Initialise the CPU backend first. Otherwise JAX only queues the handler, and if XLA rejects it, the
    # start of the backend fails.
    jax.local_devices(backend="cpu")
    try:
        for target in (TARGET, JACOBIAN, PRODUCT):
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(library[target]), platform="cpu")
    except (AttributeError, RuntimeError) as error:  # compiled for another version of XLA
        return f"{library._name} can't be used: {error}"
    return None


def _opened(path: Path) -> Library:
    library = ctypes.CDLL(str(path))
    interface = _text(library, "jaxneuron_interface") if hasattr(library, "jaxneuron_interface") else None
    if interface != expected_interface():
        return Library(
            f"{path} was compiled from other sources than the Python beside it "
            f"(interface {interface}, not {expected_interface()}); install jaxneuron again"
        )
    names = _texts(library, "jaxneuron_activations", "jaxneuron_activation_name")
    return Library(
        missing=None,
        functions=library,
        instruction_sets=_texts(library, "jaxneuron_instruction_sets", "jaxneuron_instruction_set_name"),
        codes=MappingProxyType({name: code for code, name in enumerate(names)}),
    )


def _text(library: ctypes.CDLL, function: str, *arguments: ctypes.c_int64) -> str:
    """The text that a function of the library returns."""
    call = library[function]
    call.restype = ctypes.c_char_p
    text: bytes = call(*arguments)
    return text.decode()


def _texts(library: ctypes.CDLL, count: str, each: str) -> tuple[str, ...]:
    """The texts that the function `each` returns for 0, 1, ...; the function `count` returns their number."""
    number = library[count]
    number.restype = ctypes.c_int64
    return tuple(_text(library, each, ctypes.c_int64(i)) for i in range(number()))
