"""The CPU kernel called from NumPy, without JAX.

    network = Network(layers, functions, most_threads)
    forward(network.plan(x.dtype), x, y)                  x (..., n_in) -> y (..., n_out)
    forward_and_jacobian(plan, x, y, j)                   j (..., n_out, n_in); needs plan.has_jacobian

The library provides built-in Python functions (cpu/host.cc). A call takes 0.1 us; by ctypes it takes 0.6 us.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxneuron._arrays import as_operand, result_dtype
from jaxneuron._errors import TooLarge
from jaxneuron._kernels import library, primitive, products, xla_derivatives
from jaxneuron._names import NAMES

DTYPES = {
    np.dtype(name): i for i, name in enumerate(("float32", "float64", "bfloat16", "float16"))
}  # the codes of Dtype in cpu/network.h
FUNCTIONS = (  # in the order of the struct Python in cpu/host.cc
    "PyObject_GetBuffer",
    "PyBuffer_Release",
    "PyErr_Clear",
    "PyLong_FromLongLong",
    "PyLong_AsLongLong",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyCFunction_NewEx",
)
OK, NO_MEMORY = 0, 2  # the same values as Code in cpu/plan.h
Error = ctypes.c_char * 256  # the same size as in cpu/plan.h
FLOATING = frozenset(DTYPES)  # the kernel reads rows of these dtypes without conversion
NARROW = FLOATING - {np.dtype(np.float64)}  # these promote to the same dtypes whatever jax_enable_x64 is

# w (n_in, n_out) and b (n_out,), or with an axis of members before them
Layers = Sequence[tuple[np.ndarray, np.ndarray | None]]
Forward = Callable[[int, np.ndarray, np.ndarray], int]


def x64() -> bool:
    """Whether 64-bit numbers are enabled in JAX now, in this thread."""
    return jax.config.jax_enable_x64  # type: ignore[attr-defined]


class Plan:
    """How the kernel evaluates layers of one dtype. It reads the layers' arrays in place and keeps them.

    An array that is not contiguous is copied. `packs`: the library may hold copies of 16-bit weights, in the
    order in which it reads them. `each`: every member has its own rows. `instruction_set`: see
    `primitive.forward`.
    """

    __slots__ = ("_arrays", "_call", "_free", "address", "dtype", "has_jacobian", "n_out")

    def __init__(
        self,
        layers: Layers,
        activations: Sequence[Any],  # names and values
        most_threads: int,
        each: bool = False,
        instruction_set: int | None = None,
        packs: bool = True,
    ) -> None:
        self.dtype, self.n_out = layers[0][0].dtype, layers[-1][0].shape[-1]
        self._arrays: list[np.ndarray] = []
        functions, members = _functions(), layers[0][0].shape[:-2]
        table = array("q")  # of Layer, as in cpu/network.h
        for (w, b), activation in zip(layers, activations, strict=True):
            n_in, n_out = w.shape[-2:]
            strides = (n_in * n_out, n_out) if members else (0, 0)
            place = 0 if b is None else self._address(b)
            code, parameters = library.coded(activation)
            table.extend((self._address(w), place, n_in, n_out, *strides, code))
            table.frombytes(parameters.tobytes())
        # Network, as in cpu/network.h
        network = array("q", (table.buffer_info()[0], len(layers), *(members or (1,)), DTYPES[self.dtype]))
        widths = [layers[0][0].shape[-2], *(w.shape[-1] for w, _ in layers)]
        self.has_jacobian = products.reason_against(widths, self.dtype) is None
        backward = xla_derivatives.backward_is_cheaper(widths)
        self._call = array("q", (0, most_threads, each, backward))  # Call, as in cpu/host.cc
        error = Error()
        code = functions.make(
            network.buffer_info()[0],
            functions.best if instruction_set is None else instruction_set,
            packs,
            self._call.buffer_info()[0],
            error,
        )
        if code:
            raise (TooLarge if code == NO_MEMORY else RuntimeError)(error.value.decode())
        self.address, self._free = self._call.buffer_info()[0], functions.free

    def _address(self, numbers: np.ndarray) -> int:
        """The address of an array's numbers, or of a contiguous copy if the array is not contiguous."""
        address = _functions().address
        if (found := address(numbers, numbers.itemsize)) < 0:
            numbers = np.require(numbers, requirements=("C", "A"))
            found = address(numbers, numbers.itemsize)
        self._arrays.append(numbers)
        return found

    def reads(self, layers: Layers) -> bool:
        """Whether a plan that packs nothing reads the arrays of `layers`, so that it sees changes to them."""
        theirs = {id(array) for layer in layers for array in layer}
        return all(id(array) in theirs for array in self._arrays)

    def __del__(self) -> None:
        if hasattr(self, "_free"):
            self._free(self._call[0])


class Network:
    """Layers and their activations, with a plan for every dtype of rows that the kernel can evaluate.

    `constant`: the numbers in the layers' arrays will not change. If they may change, a plan that holds a
    copy of them is not kept.
    """

    def __init__(
        self,
        layers: Layers,
        functions: Sequence[Callable[..., Any]],
        most_threads: int,
        each: bool = False,
        constant: bool = True,
    ) -> None:
        self.layers, self.functions, self.most_threads, self.each = layers, functions, most_threads, each
        self.constant = constant
        self.dtypes = {array.dtype for layer in layers for array in layer if array is not None}
        self._plans: dict[tuple[np.dtype, bool], Plan | None] = {}

    def plan(self, dtype: np.dtype) -> Plan | None:
        """The plan for rows of this dtype, or None if XLA has to evaluate them."""
        key = dtype, x64()
        if key not in self._plans:
            plan = self._made(dtype) if self.serves(dtype) else None
            if plan and not (self.constant or plan.reads(self.layers)):
                return plan
            self._plans[key] = plan
        return self._plans[key]

    def result(self, dtype: np.dtype) -> np.dtype:
        """The dtype of the outputs for rows of this dtype."""
        if dtype in NARROW and self.dtypes == {dtype}:
            return dtype
        of_each: Any = [np.empty(0, each) for each in (dtype, *self.dtypes)]
        return result_dtype(*of_each)

    def serves(self, dtype: np.dtype) -> bool:
        """Whether the kernel can evaluate rows of this dtype."""
        if library.functions() is None:
            return False
        layers: Any = self.layers
        return primitive.reason_against(layers, self.functions, np.empty(0, dtype)) is None

    def _made(self, dtype: np.dtype) -> Plan:
        result = self.result(dtype)

        def convert(numbers: np.ndarray) -> np.ndarray:
            if numbers.dtype == result:
                return numbers
            return np.asarray(as_operand(numbers, "mlp")).astype(result, copy=False)

        layers = [(convert(w), None if b is None else convert(b)) for w, b in self.layers]
        activations = [NAMES.get(function, function) for function in self.functions]
        return Plan(layers, activations, self.most_threads, self.each, packs=self.constant)


def forward(plan: Plan, x: np.ndarray, y: np.ndarray) -> None:
    """Writes the outputs for x to y. Both may have any layout, and x any dtype."""
    x = _in_dtype(plan, x)
    run, target = _functions().forward, y
    code = run(plan.address, x, y)
    if code < 0:  # one of them is not contiguous or aligned, or they overlap
        target = np.empty(y.shape, y.dtype)
        code = run(plan.address, np.require(x, requirements=("C", "A")), target)
    if code != OK:
        raise MemoryError("no memory for a tile of rows; pass fewer rows")
    if target is not y:
        y[...] = target


def forward_and_jacobian(plan: Plan, x: np.ndarray, y: np.ndarray, j: np.ndarray) -> None:
    """Writes the outputs for x to y, and the Jacobians to j. y and j are contiguous, of the plan's dtype."""
    x = np.require(_in_dtype(plan, x), requirements=("C", "A"))
    if _functions().forward_and_jacobian(plan.address, x, y, j) != OK:
        raise MemoryError("no memory for a tile of rows; pass fewer rows")


def _in_dtype(plan: Plan, x: np.ndarray) -> np.ndarray:
    if x.dtype == plan.dtype:
        return x
    with np.errstate(all="ignore"):
        return x.astype(plan.dtype, "C")


def function() -> Forward:
    """The library's own forward(plan.address, x, y). It returns OK, or another code: then call `forward`."""
    return _functions().forward


class _Functions:
    """The library's functions: called by ctypes or, where every 0.1 us counts, built-in Python functions."""

    def __init__(self) -> None:
        loaded = library.functions()
        assert loaded is not None
        self.best = len(library.instruction_sets()) - 1
        self.make = loaded["jaxneuron_plan_make"]
        numbers, pointers = (ctypes.c_int64,) * 2, (ctypes.c_void_p,) * 2
        self.make.argtypes = (ctypes.c_void_p, *numbers, *pointers)
        self.free = loaded["jaxneuron_plan_free"]
        self.free.argtypes, self.free.restype = (ctypes.c_void_p,), None
        pythons = (ctypes.cast(ctypes.pythonapi[name], ctypes.c_void_p) for name in FUNCTIONS)
        table = (ctypes.c_void_p * len(FUNCTIONS))(*pythons)
        # PyDLL, unlike CDLL, keeps the GIL.
        function = ctypes.PyDLL(loaded._name)["jaxneuron_host_function"]
        function.restype = ctypes.py_object
        # forward(address of a Call, x, y) -> Code, or -1 if x or y has an unsuitable layout
        self.forward: Forward = function(table, ctypes.c_int64(0))
        # address(array, bytes of a number) -> int, or -1 if the array is not contiguous and aligned
        self.address: Callable[[np.ndarray, int], int] = function(table, ctypes.c_int64(1))
        # forward_and_jacobian(address of a Call, x, y, J) -> the same as forward
        self.forward_and_jacobian: Callable[..., int] = function(table, ctypes.c_int64(2))


_functions = functools.cache(_Functions)
