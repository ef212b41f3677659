"""Evaluates a network from NumPy with the least overhead: `Evaluator`.

y = evaluator(x)        x (..., n_in) -> y (..., n_out): the kernel's plan is made once, calls need no JAX
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from numpy import empty, ndarray

from jaxneuron._arrays import ArrayLike, as_operand, is_jax_array
from jaxneuron._derivatives import _value_and_jacobian
from jaxneuron._errors import REFUSALS, BadType, BadValue, TooLarge, public, with_name
from jaxneuron._forward import _mlp_forward, checked
from jaxneuron._kernels import host
from jaxneuron._kernels.threads import most_threads
from jaxneuron._members import as_members, members_of, one_of
from jaxneuron._names import resolve
from jaxneuron._params import MLP, Affine, as_layers, check_columns, check_mlp


class Evaluator:
    """Evaluates a network from NumPy, on the CPU: for many calls with few rows each.

        evaluator = Evaluator(mlp)
        y = evaluator(x)                # the bits of mlp_forward(mlp, x) on the CPU

    It suits a control loop, a solver or a game. Making one copies the weights, and the fused CPU kernel plans
    how to evaluate them. A call then goes to the kernel without JAX: for one row, it takes about 0.5 us in
    addition to the time for the network itself. Threads may share an `Evaluator`; it can be pickled, and
    called in a forked process.

    Args:
      mlp: an `MLP`, or a stack of networks: one `MLP` whose arrays all have a leading axis of `members`.
      each: for a stack: True if each member gets rows of its own, False if all members get the same rows.
      threads: the largest number of threads in a call, the calling thread included. The default is the
        environment variable `JAXNEURON_NUM_THREADS`, or else the CPU quota of the process's control groups.
        There are never more threads than the CPUs to which the process may be scheduled. Helper threads are
        started by the first call that is long enough to gain from them, about 40 us, and sleep between calls.

    Calling it:
      x: the inputs, `(..., n_in)`: any number of leading batch axes, also none. With `each=True`,
        `(members, ..., n_in)`. A NumPy array, or anything that `mlp_forward` takes.
      out: an array to write the outputs to; the call returns it. None for a new array.

    Returns:
      The outputs, `(..., n_out)`, for a stack `(members, ..., n_out)`: a NumPy array in the promoted dtype of
      the network and `x`. float64 is rounded to float32 while `jax_enable_x64` is off.

    Raises:
      ValueError: if shapes do not fit, members differ in number, `out` has another shape or is read-only, or
        `threads` is below 1.
      TypeError: if `mlp` is not an `MLP`, `x` is not an array of real numbers or has more than numbers, such
        as a mask or units, `out` has another dtype, or anything is a tracer.
      MemoryError: if the network or the outputs do not fit in memory.

    Numerics: bit for bit `mlp_forward` on the CPU, whatever the number of rows and threads. If the kernel
    can't evaluate the network (see `explain`), each call goes through `mlp_forward` and JAX instead; the
    `Evaluator` must then not be called in a forked process. Tested by tests/evaluate/test_evaluator.py.

    During a call that takes more than about 10 us, other Python threads can run.

    Example:
      >>> xor = Evaluator(jaxneuron.gates.XOR)
      >>> xor(np.array([0.0, 1.0])) > 0.5
      array([ True])
    """

    @public
    def __init__(self, mlp: MLP, *, each: bool = False, threads: int | None = None) -> None:
        check_mlp(mlp)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(mlp)):
            raise BadType("mlp must hold numbers, got tracers; call mlp_forward inside jit")
        members, layers = members_of(mlp), as_numpy(fitting(mlp))
        if not isinstance(each, (bool, np.bool_)):
            raise BadType(f"each must be True or False, got {each!r}; pass a bool")
        if each and members is None:
            raise BadValue(
                "each needs stacked networks, whose arrays have a leading axis of members, "
                "got a single network; leave it out"
            )
        check_memory(layers)
        copies = [(np.array(w, order="C"), None if b is None else np.array(b, order="C")) for w, b in layers]
        functions = [resolve(activation) for activation in mlp.activations]
        network = host.Network(copies, functions, most_threads(threads), bool(each))
        leaves = [array for layer in copies for array in layer if array is not None]
        self._mlp = jax.tree.unflatten(jax.tree.structure(mlp), leaves)
        self._network, self._members, self._threads = network, members, threads
        self._on_device: dict[bool, MLP] = {}
        self._before = () if members is None or each else (members,)  # y has these axes, then those of x
        self._units = copies[-1][0].shape[-1:]
        # The dtype of rows whose plan does not depend on jax_enable_x64, and that plan, for __call__.
        self._dtype: np.dtype | None = None
        same = len(network.dtypes) == 1 and network.dtypes <= host.NARROW
        if same and (plan := network.plan(*network.dtypes)):
            self._dtype, self._address, self._forward = plan.dtype, plan.address, host.function()

    def __call__(self, x: ArrayLike, out: ndarray | None = None) -> ndarray:
        """Evaluates the network on `x`; see the class."""
        try:
            if type(x) is ndarray and x.dtype is self._dtype:
                shape = self._before + x.shape[:-1] + self._units
                fits = out is None or (type(out) is ndarray and out.dtype is x.dtype and out.shape == shape)
                y = empty(shape, self._dtype) if out is None else out
                if fits and self._forward(self._address, x, y) == host.OK:
                    return y
            return self._call(x, out)
        except REFUSALS as error:  # does what `public` does, without its 0.2 us
            raise with_name("Evaluator", error) from None
        except MemoryError as error:
            raise MemoryError(
                f"Evaluator: the outputs must fit in memory, which they don't ({error}); pass fewer rows"
            ) from None

    @public
    def value_and_jacobian(self, x: ArrayLike) -> tuple[ndarray, ndarray]:
        """The outputs for `x` and their derivatives with respect to it, as NumPy arrays.

            J[..., j, i] = d y[..., j] / d x[..., i]

        An implicit solver needs them in its Newton iterations, for instance
        `scipy.integrate.solve_ivp(jac=)`. In float32 and float64 they come from the fused CPU kernel, without
        JAX, if it can evaluate the network.

        Args:
          x: the inputs, as in a call: `(..., n_in)`, with `each=True` `(members, ..., n_in)`.

        Returns:
          `(y, J)`, NumPy arrays `(..., n_out)` and `(..., n_out, n_in)`; for a stack both have a leading axis
          of `members`. J has the dtype of y, or float32 where that is bfloat16 or float16.

        Raises:
          ValueError: if shapes do not fit.
          TypeError: if `x` is not an array of real numbers, has more than numbers, such as a mask or
            physical units, or is a tracer.

        Numerics: those of `mlp_value_and_jacobian` on the CPU. Tested by tests/evaluate/test_jacobians.py.

        Example:
          >>> square = Evaluator(MLP([([[1.0, 2.0]], None)], final_activation="square"))
          >>> y, jacobian = square.value_and_jacobian(np.array([3.0]))
          >>> jacobian.tolist()
          [[6.0], [24.0]]
        """
        x = self._rows(x)
        plan = self._network.plan(x.dtype)
        if plan and plan.has_jacobian:
            y = empty(self._before + x.shape[:-1] + self._units, plan.dtype)
            jacobian = empty((*y.shape, x.shape[-1]), plan.dtype)
            host.forward_and_jacobian(plan, x, y, jacobian)
            return y, jacobian
        found = self._by_jax(x, _value_and_jacobian)
        y, jacobian = (np.array(each) for each in found)  # copies, so that the caller may write to them
        return y, jacobian

    def __reduce__(self) -> Any:
        return functools.partial(Evaluator, each=self._network.each, threads=self._threads), (self._mlp,)

    def __repr__(self) -> str:
        return f"Evaluator({self._mlp!r})"

    def _call(self, x: Any, out: Any) -> ndarray:
        """A call with any `x` and `out`."""
        x = self._rows(x)
        plan = self._network.plan(x.dtype)
        dtype = plan.dtype if plan else self._network.result(x.dtype)
        shape = self._before + x.shape[:-1] + self._units
        if out is None:
            out = empty(shape, dtype)
        else:
            check_out(out, shape, dtype, "mlp and x")
        if plan:
            host.forward(plan, x, out)
        else:
            out[...] = self._by_jax(x, _mlp_forward)
        return out

    def _rows(self, x: Any) -> ndarray:
        """`x`, of any kind, as a NumPy array whose shape and dtype were checked."""
        if type(x) is not ndarray or x.dtype not in host.FLOATING:
            check_columns(self._mlp, x, "x")
            x = as_operand(x, "x")
            if isinstance(x, jax.core.Tracer):
                raise BadType("x must hold numbers, got a tracer; call mlp_forward inside jit")
            x = np.asarray(x)
        self._check(x.shape)
        return x

    def _check(self, shape: tuple[int, ...]) -> None:
        """Refuses a shape of x that doesn't fit the network."""
        layers, members = self._network.layers, self._members
        n_in = layers[0][0].shape[-2]
        if self._network.each and (len(shape) < 2 or shape[0] != members):
            raise BadValue(
                f"x must have shape ({members}, ..., {n_in}), rows for each of the {members} members, "
                f"got {shape}; leave out each=True if they share their rows"
            )
        if not shape or shape[-1] != n_in:
            checked(one_of(layers), self._network.functions, shape, "x")

    def _by_jax(self, x: ndarray, function: Callable[..., Any]) -> Any:
        """The outputs of `function(mlp, x)`, such as `_mlp_forward`, evaluated by JAX."""
        key = host.x64()
        with jax.core.eval_context():  # works inside a trace too
            if key not in self._on_device:
                self._on_device[key] = jax.device_put(self._mlp)
            mlp = self._on_device[key]
            return jax.tree.map(np.asarray, _of_any(mlp, as_operand(x, "x"), function, self._network.each))


def forward_of(mlp: MLP, each: bool = False) -> Callable[[MLP, Any], Any]:
    """`mlp_forward` for one network or for a stack, whose members have rows of their own if `each`."""
    return _over_members(_mlp_forward, mlp, each)


def _over_members(function: Callable[..., Any], mlp: MLP, each: bool) -> Callable[[MLP, Any], Any]:
    return function if members_of(mlp) is None else jax.vmap(function, (0, 0 if each else None))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _of_any(mlp: MLP, x: Any, function: Callable[..., Any], each: bool) -> Any:
    return _over_members(function, mlp, each)(mlp, x)


def fitting(mlp: MLP) -> Sequence[Affine]:
    """Returns the layers of `mlp`, one network or a stack, after checking them.

    `MLP` has checked them before, but a JAX transform may have put anything in them since.
    """
    if _fit(mlp.layers):
        return mlp.layers
    return as_layers(mlp.layers) if members_of(mlp) is None else as_members(mlp.layers)


def _fit(layers: Sequence[Affine]) -> bool:
    """Whether the layers are certainly right. If not, `as_layers` decides, which takes ten times as long."""
    units = members = None
    for w, b in layers:
        for array in (w,) if b is None else (w, b):
            known = type(array) is ndarray or is_jax_array(type(array))  # type: ignore[arg-type]
            if not known or array.dtype not in host.FLOATING:
                return False
        shape = w.shape
        if len(shape) not in (2, 3) or units not in (None, shape[-2]) or members not in (None, shape[:-2]):
            return False
        units, members = shape[-1], shape[:-2]
        if b is not None and b.shape != (*members, units):
            return False
    return True


def as_numpy(layers: Iterable[Any]) -> host.Layers:
    """The layers as NumPy arrays, without a copy of those that are JAX arrays on the CPU."""
    return [(np.asarray(w), None if b is None else np.asarray(b)) for w, b in layers]


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, of: str) -> None:
    """Refuses an array that can't hold outputs of this shape and dtype, the promoted dtype of `of`."""
    if not isinstance(out, ndarray):
        raise BadType(f"out must be a NumPy array or None, got {type(out).__name__}; leave it out")
    if out.shape != shape:
        raise BadValue(f"out must have shape {shape}, got {out.shape}; pass np.empty of that shape")
    check_takes(out, dtype, of)


def check_takes(out: ndarray, dtype: np.dtype, of: str) -> None:
    """Refuses an array that can't take numbers of this dtype, the promoted dtype of `of`."""
    if out.dtype != dtype:
        raise BadType(
            f"out must hold {dtype}, the promoted dtype of {of}, got {out.dtype}; pass an array of that dtype"
        )
    if not out.flags.writeable:
        raise BadValue("out must be writeable, got a read-only array; map a file with mode='r+', or copy it")


def check_memory(layers: host.Layers) -> None:
    """Refuses weights so large that a copy of them can't fit in this machine's memory."""
    limit = machine_memory()
    weights = sum(array.nbytes for layer in layers for array in layer if array is not None)
    if limit is not None and weights > limit:
        raise TooLarge(
            f"mlp must fit in the {limit:,} bytes of this machine's memory, got {weights:,} bytes of "
            f"weights; pass a smaller network"
        )


def machine_memory() -> int | None:
    """The bytes of this machine's memory; None on Windows, where they are unknown."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
