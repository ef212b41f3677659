"""Compares an imported network with its source: both evaluate a few rows.

    |y_source - y| <= sum over the steps of |dy/ds| e(s)

Here s are the numbers after a step; e(s) bounds the error that rounding adds to them, in the source's dtype
and in the network's; dy/ds are the network's slopes. The bound is true to first order. A sine adds how
much it bends within the error of its input. Rows in which this error is no small angle, as for z = 1e7 in
float32, can't be judged. The bound is computed in each row for the output with the largest difference. NumPy
evaluates the network in float64; nothing is compiled.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxneuron._arrays import FLOATS, as_array, check_plain
from jaxneuron._errors import BadType, BadValue
from jaxneuron._math import float64
from jaxneuron._math.activations import OF_ROWS, facts_of, in_kernel
from jaxneuron._names import Activation, Parametric, resolve
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import Step

Array = np.ndarray
Check = bool | tuple[Any, Any] | None  # compare with the source itself, or with (rows, outputs)
Slopes = Callable[[Array], Array]  # from slopes with respect to a step's outputs to slopes of its inputs

MAGNITUDES = (0.0, 2.0**-6, 0.25, 0.5, 1.0, 2.0, 8.0, 64.0)  # of the rows; with 0 only the biases count
BLOCK = 2**20  # how many weights are converted to float64 at a time
OF_A_MODULE = (
    "a hook, a subclass or a changed call may do more than the layers say: convert the part without it, "
    "or pass check=False to keep the layers alone"
)
OF_ARRAYS = (
    "see whether activations, orientation and the order of the layers are the source's, "
    "and whether it gave these outputs for these rows"
)


def compare(
    mlp: MLP,
    call: Callable[[Array], Any],
    argument: str,
    *,
    steps: Sequence[Step] | None = None,
    computed_in: Iterable[Any] = (),
    remedy: str = OF_A_MODULE,
) -> bool:
    """Refuses `mlp` if its outputs for eight fixed rows differ from the source's by more than rounding.

    Args:
      mlp: the imported network.
      call: the source's forward pass, from float64 rows `(8, n_in)` to outputs `(8, n_out)`. The source's
        dtype can hold these rows exactly. If `call` raises, or does not return numbers, nothing is checked.
        Its warnings are not shown.
      argument: the importer's argument that holds the source; the message begins with it.
      steps: the steps that `mlp` was assembled from, if scalings were folded: the source rounds every step.
      computed_in: the dtypes that the source computes in, if neither its weights nor its outputs have them.
      remedy: the advice at the end of the message.

    Returns:
      Whether both were compared.
    """
    if _traced(mlp):
        return False
    done = _chain(mlp) if steps is None else steps
    dtype = _coarsest([*_dtypes(done), *computed_in])
    rows = _rows(len(mlp.layers[0].w), done, dtype)
    try:
        with warnings.catch_warnings(), jax.default_matmul_precision("highest"):
            warnings.simplefilter("ignore")
            outputs, given = _numbers(call(rows.copy()), argument)
    except Exception:  # from code outside jaxneuron
        return False
    found = _difference(mlp, steps, rows, outputs, _coarsest([dtype, given]))
    if found:
        raise BadValue(f"{argument} must compute what its layers say, got {found}; {remedy}")
    return True


def compare_given(
    mlp: MLP,
    check: Any,
    argument: str = "check",
    *,
    steps: Sequence[Step] | None = None,
    remedy: str = OF_ARRAYS,
) -> None:
    """Refuses `mlp` if its outputs differ from those in `check` by more than rounding explains.

    Args:
      mlp: the imported network.
      check: `(rows, outputs)` of the source, `(rows, n_in)` and `(rows, n_out)`, as arrays of any library.
        One row may be `(n_in,)` and its outputs `(n_out,)`. The outputs of a network with one output may be
        `(rows,)`. For None and False nothing is checked.
      argument: the importer's argument that holds `check`; messages about its form begin with it.
      steps: the steps that `mlp` was assembled from, if scalings were folded: the source rounds every step.
      remedy: the advice at the end of the message about different outputs.
    """
    if check is None or check is False:
        return
    if not isinstance(check, (tuple, list)) or len(check) != 2:
        raise BadType(
            f"{argument} must be (rows, outputs), got {type(check).__name__}; "
            f"pass a few rows and the source's outputs for them"
        )
    (rows, _), (outputs, given) = (
        _numbers(array, f"{argument}: {name}") for name, array in zip(("rows", "outputs"), check, strict=True)
    )
    n_in, n_out = len(mlp.layers[0].w), mlp.layers[-1].w.shape[1]
    if rows.ndim == 1 and rows.size == n_in:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != n_in or not len(rows):
        raise BadValue(
            f"{argument}: rows must have shape (rows, {n_in}), got {rows.shape}; pass at least one row"
        )
    if not np.isfinite(rows).all():
        raise BadValue(f"{argument}: rows must be finite, got {rows[~np.isfinite(rows)][0]}; leave it out")
    flat = [(len(rows) * n_out,)] if 1 in (len(rows), n_out) else []
    if outputs.shape not in ((len(rows), n_out), *flat):
        raise BadValue(
            f"{argument}: outputs must have shape {(len(rows), n_out)}, got {outputs.shape}; "
            f"pass the source's outputs for these rows"
        )
    if _traced(mlp):
        return
    done = _chain(mlp) if steps is None else steps
    found = _difference(mlp, steps, rows, outputs, _coarsest([*_dtypes(done), given]))
    if found:
        raise BadValue(f"{argument} must hold what the network gives, got {found}; {remedy}")


def _difference(
    mlp: MLP, steps: Sequence[Step] | None, rows: Array, outputs: Array, dtype: np.dtype
) -> str | None:
    """Says, for a message, how the `outputs` of a source that computes in `dtype` differ; None if equal."""
    wanted = (len(rows), mlp.layers[-1].w.shape[1])
    if outputs.size != wanted[0] * wanted[1]:
        return f"outputs of shape {outputs.shape} instead of {wanted}"
    if not any(isinstance(step, Scaling | Units) for step in steps or ()):
        steps = None  # then the network's own steps are used: scalings were not folded
    ours, theirs = _Rounding.ours(mlp), _Rounding.theirs(dtype)
    both = _Rounding(*(a + b for a, b in zip(ours, theirs, strict=True)))
    try:
        with np.errstate(all="ignore"):
            y, trace = _forward(_chain(mlp), rows, ours if steps else both)
            off = np.abs(outputs.reshape(wanted) - y)
            furthest = np.argmax(np.nan_to_num(off / trace[-1].scale, nan=np.inf), axis=1)[:, None]
            slopes = (np.arange(wanted[1]) == furthest).astype(np.float64)
            allowed, largest = _bound(trace, slopes)
            if steps:
                more, larger = _bound(_forward(steps, rows, theirs)[1], slopes)
                allowed, largest = allowed + more, np.maximum(largest, larger)
    except _NotCalled:
        return None
    off = np.take_along_axis(off, furthest, 1)[:, 0]
    judged = np.isfinite(allowed) & (largest < float(ml_dtypes.finfo(dtype).max))
    wrong = judged & ~(off <= allowed)
    if not wrong.any():
        return None
    row = int(np.argmax(np.where(wrong, np.nan_to_num(off - allowed, nan=np.inf), -1)))
    return f"outputs that differ by {off[row]:.2g} in row {row}, where rounding allows {allowed[row]:.1g}"


class _Rounding(NamedTuple):
    """The errors that rounding adds, relative to the numbers that are rounded (`tiny`: absolute)."""

    sums: float  # by each addition of a sum
    stored: float  # by storing a sum or its weights
    result: float  # by each operation of an activation or a scaling
    tiny: float  # by each number that may be flushed to 0

    @staticmethod
    def theirs(dtype: np.dtype) -> _Rounding:
        """The source's: bfloat16 and float16 are summed in float32, then sums, parts and biases rounded."""
        u, tiny = _unit(dtype), float(ml_dtypes.finfo(dtype).tiny)
        return _Rounding(2.0**-24, 4 * u, u, tiny) if dtype.itemsize == 2 else _Rounding(u, 0.0, u, tiny)

    @staticmethod
    def ours(mlp: MLP) -> _Rounding:
        """The network's, in float64; its weights may have been rounded once.

        The relative error of each formula in _math/float64.py is at most 2^-43.
        """
        return _Rounding(2.0**-53, _unit(_coarsest(_dtypes(_chain(mlp)))), 2.0**-47, 0.0)


class _Done(NamedTuple):
    """The result of a step."""

    error: Array  # the error that rounding may leave in its outputs
    slopes: Slopes
    scale: Array  # the error of the last sum or scaling: the scale on which outputs differ
    largest: Array  # the largest number on the way, for each row


def _forward(steps: Iterable[Step], x: Array, rounding: _Rounding) -> tuple[Array, list[_Done]]:
    """The outputs of `steps`, and for each step the numbers that the bound needs."""
    trace = [_Done(np.zeros(x.shape), lambda v: v, np.ones(x.shape), np.abs(x).max(1, initial=0.0))]
    parts = np.abs(x)  # a source may have folded a scaling into the layer after it
    for step in steps:
        if isinstance(step, Affine):
            x, size, slopes = _affine(step, x, parts)
            n = len(step.w) + 2
            lost = (n + parts.sum(1, keepdims=True)) * rounding.tiny  # results and weights taken for 0
            error = (n * rounding.sums + rounding.stored) * size + lost
        elif isinstance(step, Scaling):
            mean, scale, shift = (np.asarray(a, np.float64) for a in step)
            size = (np.abs(x) + np.abs(mean)) * np.abs(scale) + np.abs(shift)
            x, slopes = (x - mean) * scale + shift, functools.partial(np.multiply, scale)
            error = 8 * rounding.result * size + rounding.tiny  # deviation and scale are computed too
        elif isinstance(step, Units):
            slopes = functools.partial(_put, step.chosen, x.shape[1])
            x, scale = x[:, step.chosen], trace[-1].scale[:, step.chosen]
            size, error = x, np.zeros(x.shape)
        else:
            x, error, slopes = _activation(step, x, trace[-1].error, rounding)
            size, scale = x, trace[-1].scale
        if isinstance(step, (Affine, Scaling)):
            scale = error + (error == 0)
        parts = size if isinstance(step, Scaling) else np.abs(x)
        trace.append(_Done(error, slopes, scale, np.abs(size).max(1, initial=0.0)))
    return x, trace


def _bound(trace: Sequence[_Done], slopes: Array) -> tuple[Array, Array]:
    """For each row: a bound of the error of `slopes` times the outputs, and the largest number on the way."""
    total = np.zeros(len(slopes))
    for done in reversed(trace):
        total += (np.abs(slopes) * done.error).sum(1)
        slopes = done.slopes(slopes)
    return total, np.max([done.largest for done in trace], axis=0)


def _put(chosen: Array, n: int, v: Array) -> Array:
    """The slopes of n units, from the slopes of the units that were chosen among them."""
    found = np.zeros((len(v), n))
    np.add.at(found.T, chosen, v.T)  # a unit may be chosen twice
    return found


def _affine(layer: Affine, x: Array, parts: Array) -> tuple[Array, Array, Slopes]:
    """x @ w + b; parts @ |w| + |b|, where `parts` are the sizes of the terms of x; and the slopes."""
    w = np.asarray(layer.w)
    step = max(1, BLOCK // max(1, w.shape[1]))

    def blocks() -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(w), step):
            part = slice(start, start + step)
            yield part, w[part].astype(np.float64)

    b = np.zeros(w.shape[1]) if layer.b is None else np.asarray(layer.b, np.float64)
    z, size = np.tile(b, (len(x), 1)), np.tile(np.abs(b), (len(x), 1))
    for part, block in blocks():
        z += x[:, part] @ block
        size += parts[:, part] @ np.abs(block)
    return z, size, lambda v: np.concatenate([v @ block.T for _, block in blocks()] or [v[:, :0]], axis=1)


def _activation(
    function: Activation, z: Array, error: Array, rounding: _Rounding
) -> tuple[Array, Array, Slopes]:
    """The activation at z, which has this `error`; the error that its own roundings add; and the slopes.

    A library may compute 1 - p, exp(z) - 1, z (1 + erf(z)) or z + sqrt(z^2 + 4). Their terms are as large as
    1 or z.
    """
    u = 16 * rounding.result
    if function in OF_ROWS:
        p = float64.activation("softmax", z)[0]
        error = np.full(p.shape, u + z.shape[1] * rounding.result)
        if function == "softmax":
            return p, error, lambda v: p * (v - (v * p).sum(1, keepdims=True))
        y = float64.activation("log_softmax", z)[0]
        return y, error + u * np.abs(y), lambda v: v - p * v.sum(1, keepdims=True)
    try:
        y = _value(function, z)
    except KeyError:  # it does not have a NumPy formula
        return _called(resolve(function), z, u)
    # The slope to the steeper side: within the error of z, relu at 0 has the slopes 0 and 1.
    step = np.maximum(error, 2.0**-20 * np.maximum(1, np.abs(z)))
    up, down = (_value(function, z + step) - y) / step, (y - _value(function, z - step)) / step
    slope = np.where(np.abs(up) > np.abs(down), up, down)
    named = cast("str | Parametric", function)  # _value has no others
    of_z = facts_of(named).gates or function == "squareplus"
    size = np.maximum(1, np.abs(z if of_z else y)) * (function not in ("identity", "relu"))
    frequency = _frequency(named)
    turn = frequency * error  # the angle by which rounding may turn a sine
    bend = np.where(turn < 0.5, turn * frequency * step, np.inf)
    return y, u * size + bend, lambda v: v * slope


def _frequency(function: str | Parametric) -> float:
    """Of a sine; 0 for the other activations, which hardly bend within an error."""
    formula, parameters = in_kernel(function)
    return abs(parameters[0]) if formula == "sin" else 0.0


def _value(function: Activation, z: Array) -> Array:
    if isinstance(function, (str, Parametric)):
        return float64.activation(function, z)[0]
    raise KeyError(function)


class _NotCalled(Exception):
    """A user's own function raised an error."""


def _called(function: Callable[[Any], Any], z: Array, u: float) -> tuple[Array, Array, Slopes]:
    """A user's own function at z: JAX evaluates it, as in the source, and computes its slopes."""

    def slopes(v: Array) -> Array:
        try:
            return np.asarray(pull(jnp.asarray(v, value.dtype))[0], np.float64)
        except Exception as error:
            raise _NotCalled from error

    try:
        value, pull = jax.vjp(function, jnp.asarray(z))
        y = np.asarray(value, np.float64).reshape(z.shape)
    except Exception as error:
        raise _NotCalled from error
    size = np.maximum(1, np.maximum(np.abs(y), np.abs(z)))
    return y, max(u, 16 * _unit(_coarsest([value.dtype]))) * size, slopes


def _rows(n: int, steps: Iterable[Step], dtype: np.dtype) -> Array:
    """Eight rows of several magnitudes, which `dtype` holds exactly, around the mean if one is subtracted."""
    rows = np.random.default_rng(0).standard_normal((len(MAGNITUDES), n)) * np.array(MAGNITUDES)[:, None]
    first, second = [*steps, None, None][:2]
    chosen, scaling = (first.chosen, second) if isinstance(first, Units) else (slice(None), first)
    with np.errstate(all="ignore"):
        if isinstance(scaling, Scaling):
            mean, scale = (np.asarray(a, np.float64) for a in scaling[:2])
            rows[:, chosen] = mean + rows[:, chosen] / scale
        return rows.astype(dtype).astype(np.float64)


def _numbers(value: Any, argument: str) -> tuple[Array, np.dtype]:
    """An array of any library as float64, and the float dtype that it had."""
    if hasattr(value, "detach"):  # PyTorch's
        check_plain(value, argument)
        value = value.detach().cpu()
        return value.double().numpy(force=True), _coarsest([str(value.dtype).removeprefix("torch.")])
    array = np.asarray(as_array(value, argument))
    return array.astype(np.float64), _coarsest([array.dtype])


def _chain(mlp: MLP) -> list[Step]:
    return [step for pair in zip(mlp.layers, mlp.activations, strict=True) for step in pair]


def _dtypes(steps: Iterable[Step]) -> Iterator[Any]:
    return (step.w.dtype for step in steps if isinstance(step, Affine))


def _coarsest(dtypes: Iterable[Any]) -> np.dtype:
    known = (np.dtype(jnp.dtype(dtype)) for dtype in dtypes)
    return max((d for d in known if d.name in FLOATS), key=_unit, default=np.dtype(np.float64))


def _unit(dtype: np.dtype) -> float:
    return float(ml_dtypes.finfo(dtype).eps) / 2


def _traced(mlp: MLP) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(mlp))
