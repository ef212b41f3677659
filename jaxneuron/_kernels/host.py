"""The CPU kernel called from NumPy, without JAX: a plan of a network, and the function that runs it.

    plan = Plan(arrays, activations, ...)
    forward(plan.address, x, y)               x (..., n_in), y (..., n_out), contiguous, of the plan's dtype

The library gives its functions as Python's own (cpu/host.cc): a call takes 0.1 us, where ctypes takes 0.6.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence

import numpy as np

from jaxneuron._errors import TooLarge
from jaxneuron._kernels import library

DTYPES = ("float32", "float64", "bfloat16", "float16")  # as Dtype in cpu/network.h
FUNCTIONS = (  # as Python in cpu/host.cc
    "PyObject_GetBuffer",
    "PyBuffer_Release",
    "PyErr_Clear",
    "PyLong_FromLongLong",
    "PyLong_AsLongLong",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyCFunction_NewEx",
)
OK, NO_MEMORY = 0, 2  # as Code in cpu/plan.h

Arrays = tuple[np.ndarray, np.ndarray | None]  # w (n_in, n_out), b (n_out,), or with members before them


class _Layer(ctypes.Structure):
    _fields_ = (
        ("w", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("n_in", ctypes.c_int64),
        ("n_out", ctypes.c_int64),
        ("w_stride", ctypes.c_int64),
        ("b_stride", ctypes.c_int64),
        ("activation", ctypes.c_int64),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("members", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
    )


class _Call(ctypes.Structure):
    _fields_ = (("plan", ctypes.c_void_p), ("most_threads", ctypes.c_int64), ("each", ctypes.c_int64))


class Plan:
    """How the kernel evaluates a network. It reads the arrays where they are, and keeps them."""

    __slots__ = ("_arrays", "_call", "address", "dtype")

    def __init__(
        self,
        layers: Sequence[Arrays],
        activations: Sequence[str],
        most_threads: int,
        each: bool = False,
        instruction_set: int | None = None,
    ) -> None:
        """All arrays are of one of DTYPES; `each`: every member has rows of its own."""
        self._arrays: list[np.ndarray] = []
        self.dtype = layers[0][0].dtype
        codes = library.codes()
        described = []
        for (w, b), activation in zip(layers, activations, strict=True):
            *members, n_in, n_out = w.shape
            described.append(
                _Layer(
                    self._address(w),
                    None if b is None else self._address(b),
                    n_in,
                    n_out,
                    n_in * n_out if members else 0,
                    n_out if members else 0,
                    codes[activation],
                )
            )
        table = (_Layer * len(described))(*described)
        members = layers[0][0].shape[:-2]
        network = _Network(
            ctypes.addressof(table), len(table), members[0] if members else 1, DTYPES.index(self.dtype.name)
        )
        best = len(library.instruction_sets()) - 1
        plan, error = ctypes.c_void_p(), ctypes.create_string_buffer(256)
        make = library.functions().jaxneuron_plan_make
        code = make(
            ctypes.byref(network),
            ctypes.c_int64(best if instruction_set is None else instruction_set),
            ctypes.byref(plan),
            error,
        )
        if code:
            kind = TooLarge if code == NO_MEMORY else RuntimeError
            raise kind(error.value.decode())
        self._call = _Call(plan, most_threads, each)
        self.address = ctypes.addressof(self._call)

    def _address(self, array: np.ndarray) -> int:
        """Where the numbers of an array lie, or of a contiguous copy."""
        found = functions()[1](array, array.itemsize)
        if found == -1:
            array = np.require(array, requirements="CA")
            found = functions()[1](array, array.itemsize)
        self._arrays.append(array)
        return found

    def __del__(self) -> None:
        if hasattr(self, "_call"):
            library.functions().jaxneuron_plan_free(ctypes.c_void_p(self._call.plan))


@functools.cache
def functions() -> tuple[Callable[[int, np.ndarray, np.ndarray], int], Callable[[np.ndarray, int], int]]:
    """The library's functions for Python, forward and address."""
    addresses = [ctypes.cast(ctypes.pythonapi[name], ctypes.c_void_p) for name in FUNCTIONS]
    table = (ctypes.c_void_p * len(FUNCTIONS))(*addresses)
    loaded = library.functions()
    assert loaded is not None
    function = ctypes.PyDLL(loaded._name)["jaxneuron_host_function"]  # which keeps the GIL, as CDLL doesn't
    function.restype = ctypes.py_object
    return function(table, ctypes.c_int64(0)), function(table, ctypes.c_int64(1))
