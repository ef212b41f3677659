"""A network called from NumPy: `Evaluator`.

    y = evaluator(x)        x (..., n_in) -> y (..., n_out), the kernel's plan made once, no JAX in the call
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy import empty, ndarray

from jaxneuron._arrays import FLOATS, ArrayLike, as_array, as_operand, result_dtype
from jaxneuron._errors import REFUSALS, BadType, BadValue, TooLarge, public, with_name
from jaxneuron._forward import _checked, _mlp_forward
from jaxneuron._kernels import host, library, primitive
from jaxneuron._kernels.threads import most_threads
from jaxneuron._names import resolve
from jaxneuron._params import MLP, as_layers, check_mlp

Layers = Sequence[tuple[ndarray, ndarray | None]]  # w and b, of a stacked network with an axis of members

NATIVE = frozenset(map(np.dtype, FLOATS))  # dtypes of rows that are taken as they are
NARROW = frozenset(map(np.dtype, ("bfloat16", "float16", "float32")))  # whatever jax_enable_x64 is


class Evaluator:
    """A network to be called from NumPy, on the CPU, often and with few rows.

        y = evaluator(x)
        y[...] = mlp_forward(mlp, x[...])

    For a control loop, a solver, a game. On making one the weights are copied and the fused CPU kernel plans
    how to evaluate them; a call then is the kernel's, without JAX: of one row some 0.5 us, and the network's
    own time. Threads may share an Evaluator; it can be pickled, and called in a forked process.

    Args:
      mlp: an `MLP`; or `members` networks of one structure stacked into one, each of whose arrays has a
        leading axis of members.
      each: whether every member has rows of its own.
      threads: how many threads a call may have at most, the calling one included. By default as many as
        the environment variable `JAXNEURON_NUM_THREADS` says, and without it as the CPU quota of this
        process's control groups allows; never more than the CPUs of its affinity. Helpers are started by
        the first call that repays them, of some 20 us, and sleep between calls.

    Calling it:
      x: inputs, `(..., n_in)`: any number of leading batch axes, none included. With `each`,
        `(members, ..., n_in)`. A NumPy array, or whatever `mlp_forward` takes.
      out: an array for the outputs, which is returned. None for a new one.

    Returns:
      `(..., n_out)`, of a stacked network `(members, ..., n_out)`: a NumPy array in the promoted dtype of
      the network and `x`. float64 rounds to float32 while `jax_enable_x64` is off.

    Raises:
      ValueError: shapes that do not fit, members that differ in number, an `out` of another shape or
        read-only, fewer threads than 1. TypeError: an `mlp` that is not an `MLP`, tracers, an argument that is
        not an array of real numbers, an `out` of another dtype. MemoryError: a network or outputs that do not
        fit in memory.

    Numerics: bit for bit `mlp_forward` on the CPU, whatever the number of rows and threads. Where the kernel
    can't serve, as `explain` says, each call goes through `mlp_forward` and JAX, and is not for forked
    processes. Held by tests/evaluate/test_evaluator.py.

    A call longer than some 10 us lets other Python threads run meanwhile.

    Example:
      >>> xor = Evaluator(jaxneuron.gates.XOR)
      >>> xor(np.array([0.0, 1.0])) > 0.5
      array([ True])
    """

    @public
    def __init__(self, mlp: MLP, *, each: bool = False, threads: int | None = None) -> None:
        check_mlp(mlp)
        layers, members = _layers(mlp)
        if not isinstance(each, (bool, np.bool_)):
            raise BadType(f"each must be True or False, got {each!r}")
        if each and members is None:
            raise BadValue(
                "each needs stacked networks, whose arrays have a leading axis of members, got a single network"
            )
        check_memory(layers)
        copies = [(np.array(w, order="C"), None if b is None else np.array(b, order="C")) for w, b in layers]
        self._set(mlp, copies, members, bool(each), threads)

    def _set(self, mlp: MLP, layers: Layers, members: int | None, each: bool, threads: int | None) -> None:
        leaves = [array for layer in layers for array in layer if array is not None]
        self._mlp = jax.tree.unflatten(jax.tree.structure(mlp), leaves)
        self._layers, self._members, self._each, self._threads = layers, members, each, threads
        self._most = most_threads(threads)
        self._functions = [resolve(activation) for activation in mlp.activations]
        self._plans: dict[tuple[np.dtype, bool], host.Plan | None] = {}
        self._on_device: dict[bool, MLP] = {}
        self._before = () if members is None or each else (members,)  # y has these axes, then those of x
        self._units = layers[-1][0].shape[-1:]
        # The one dtype of rows that every call evaluates in the same way, and how.
        self._dtype, self._address, self._forward = None, 0, None
        own = layers[0][0].dtype
        if own in NARROW and (plan := self._plan(own)) and plan.dtype in NARROW:
            self._dtype, self._address, self._forward = plan.dtype, plan.address, host.functions()[0]

    def __call__(self, x: ArrayLike, out: ndarray | None = None) -> ndarray:
        try:
            if type(x) is ndarray and x.dtype is self._dtype:
                shape = self._before + x.shape[:-1] + self._units
                if out is None:
                    y = empty(shape, self._dtype)
                    if self._forward(self._address, x, y) == host.OK:
                        return y
                elif type(out) is ndarray and out.dtype is self._dtype and out.shape == shape:
                    if self._forward(self._address, x, out) == host.OK:
                        return out
            return self._call(x, out)
        except REFUSALS as error:  # what `public` does, without its 0.2 us
            raise with_name("Evaluator", error) from None
        except MemoryError as error:
            raise MemoryError(f"Evaluator: x must leave memory for the outputs ({error}); pass fewer rows") from None

    def __reduce__(self) -> Any:
        return functools.partial(Evaluator, each=self._each, threads=self._threads), (self._mlp,)

    def __repr__(self) -> str:
        return f"Evaluator({self._mlp!r})"

    def _call(self, x: Any, out: Any) -> ndarray:
        """A call with any `x` and `out`."""
        if type(x) is not ndarray or x.dtype not in NATIVE:
            x = as_operand(x, "x")
            if isinstance(x, jax.core.Tracer):
                raise BadType("x must hold numbers, got a tracer; inside jit call mlp_forward")
            x = np.asarray(x)
        self._check(x.shape)
        plan = self._plan(x.dtype)
        dtype = plan.dtype if plan else self._result(x.dtype)
        shape = (*self._before, *x.shape[:-1], *self._units)
        if out is not None:
            check_out(out, shape, dtype, "mlp and x")
        if plan is None:
            y = self._by_jax(x)
        else:
            if x.dtype != dtype:
                with np.errstate(over="ignore"):
                    x = x.astype(dtype, "C")
            forward = host.functions()[0]
            y = empty(shape, dtype) if out is None else out
            code = forward(plan.address, x, y)
            if code < 0:  # x or out is not contiguous, or out overlaps x
                y = empty(shape, dtype)
                code = forward(plan.address, np.require(x, requirements="CA"), y)
            if code != host.OK:
                raise MemoryError("no memory for a tile of rows")
        if out is None or y is out:
            return y
        out[...] = y
        return out

    def _check(self, shape: tuple[int, ...]) -> None:
        """Refuses a shape that x can't have."""
        n_in = self._layers[0][0].shape[-2]
        if self._each and (len(shape) < 2 or shape[0] != self._members):
            raise BadValue(
                f"x must have shape ({self._members}, ..., {n_in}), rows for each of the {self._members} members, "
                f"got {shape}; leave out each=True if they share their rows"
            )
        if not shape or shape[-1] != n_in:
            _checked(_one(self._layers), self._functions, shape, "x")

    def _result(self, dtype: np.dtype) -> np.dtype:
        """The dtype of outputs for rows of this dtype."""
        arrays = [array for layer in self._layers for array in layer if array is not None]
        return result_dtype(jax.ShapeDtypeStruct((), dtype), *arrays)

    def _plan(self, dtype: np.dtype) -> host.Plan | None:
        """The kernel's plan for rows of this dtype; None where it can't evaluate them."""
        key = dtype, jax.config.jax_enable_x64
        if key not in self._plans:
            self._plans[key] = self._planned(dtype)
        return self._plans[key]

    def _planned(self, dtype: np.dtype) -> host.Plan | None:
        x = jax.ShapeDtypeStruct((), dtype)
        if library.functions() is None or primitive.reason_against(self._layers, self._functions, x):
            return None
        result = self._result(dtype)

        def convert(array: ndarray) -> ndarray:
            return np.asarray(as_operand(array, "mlp")).astype(result, copy=False)

        layers = [(convert(w), None if b is None else convert(b)) for w, b in self._layers]
        return host.Plan(layers, [primitive.NAMES[each] for each in self._functions], self._most, self._each)

    def _by_jax(self, x: ndarray) -> ndarray:
        """What `mlp_forward` gives."""
        x64 = jax.config.jax_enable_x64
        if x64 not in self._on_device:
            self._on_device[x64] = jax.device_put(self._mlp)
        mlp = self._on_device[x64]
        return np.array(_mlp_forward(mlp, x) if self._members is None else _of_members(mlp, x, self._each))


@functools.partial(jax.jit, static_argnums=2)
def _of_members(mlp: MLP, x: Any, each: bool) -> Any:
    return jax.vmap(_mlp_forward, (0, 0 if each else None))(mlp, x)


def _layers(mlp: MLP) -> tuple[Layers, int | None]:
    """The arrays of a network, or of stacked ones, and how many these are."""
    layers = []
    for i, layer in enumerate(mlp.layers):
        arrays = [a if a is None else as_array(a, f"layer {i}: {n}") for n, a in zip("wb", layer, strict=True)]
        if any(isinstance(array, jax.core.Tracer) for array in arrays):
            raise BadType("mlp must hold numbers, got tracers; inside jit call mlp_forward")
        layers.append(tuple(array if array is None else np.asarray(array) for array in arrays))
    if layers[0][0].ndim != 3:
        return as_layers(layers), None
    members = len(layers[0][0])
    for i, layer in enumerate(layers):
        for name, array, rank in zip("wb", layer, (3, 2), strict=True):
            if array is not None and (array.ndim != rank or len(array) != members):
                raise BadValue(
                    f"layer {i}: {name} must have a leading axis of {members} members, as layer 0's w "
                    f"{layers[0][0].shape}, got {array.shape}; stack networks of one structure"
                )
    as_layers(_one(layers))
    return layers, members


def _one(layers: Layers) -> Layers:
    """Arrays with the shapes of one member, or of the only network, that take no memory."""

    def blank(array: ndarray, rank: int) -> ndarray:
        return np.broadcast_to(np.zeros((), array.dtype), array.shape[-rank:])

    return [(blank(w, 2), None if b is None else blank(b, 1)) for w, b in layers]


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, of: str) -> None:
    """Refuses an array that can't take outputs of this shape and dtype, which follows `of`."""
    if not isinstance(out, ndarray):
        raise BadType(f"out must be a NumPy array or None, got {type(out).__name__}")
    if out.shape != shape:
        raise BadValue(f"out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise BadType(f"out must hold {dtype}, the promoted dtype of {of}, got {out.dtype}")
    if not out.flags.writeable:
        raise BadValue("out must be writeable, got a read-only array; map files with mode='r+'")


def check_memory(layers: Layers) -> None:
    """Refuses weights that no copy of can fit in this machine's memory."""
    if hasattr(os, "sysconf"):  # not on Windows
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        weights = sum(array.nbytes for layer in layers for array in layer if array is not None)
        if weights > limit:
            raise TooLarge(
                f"mlp must fit in the {limit:,} bytes of this machine's memory, got {weights:,} bytes of weights; "
                f"pass a smaller network"
            )
