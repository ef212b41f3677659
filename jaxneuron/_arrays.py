"""Converts arguments to arrays, refuses what is not an array of real numbers, and promotes dtypes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxneuron._errors import BadType, BadValue

FLOATS = ("bfloat16", "float16", "float32", "float64")
PLAIN = {bool, int, float, np.ndarray, np.float32, np.float64}  # the usual types in lists: nothing to check
# A word for the messages, by the kind of a NumPy dtype.
KINDS = {"U": "text", "S": "bytes", "O": "Python objects", "M": "dates", "m": "durations"}

P = ParamSpec("P")
R = TypeVar("R")
ArrayLike = jax.typing.ArrayLike | Sequence[Any]  # numbers, arrays, and nested sequences of numbers


def result_dtype(*arrays: Array) -> np.dtype:
    """The promoted dtype of `arrays`: JAX's default float if all of them are integers or booleans."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
        return np.dtype(dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float))


def sum_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype in which sums are computed: float32 for bfloat16 and float16, `dtype` itself otherwise."""
    return np.dtype(np.float32 if np.dtype(dtype).itemsize == 2 else dtype)


@functools.cache
def is_jax_array(kind: type[Any]) -> bool:
    """Whether arrays of this type are JAX's: `isinstance(x, jax.Array)` in half the time."""
    return issubclass(kind, jax.Array)


def holds_numpy(*arrays: Any) -> bool:
    """Whether one of them is a NumPy array."""
    return any(isinstance(array, np.ndarray) for array in arrays)


def complete(y: R) -> R:
    """`y`, an array or a tuple of them, computed to its end: for functions of NumPy arrays.

    XLA reads NumPy arrays where they are, and it may go on after the call that started it. Their owner may
    write to them as soon as that call returns.
    """
    try:
        return y.block_until_ready()  # type: ignore[attr-defined]
    except AttributeError:
        return jax.block_until_ready(y)  # takes tuples, and leaves tracers alone


def concrete(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that builds or writes a network, so that a trace around it has no effect.

    Inside `jit`, operations on concrete arrays give tracers, which are an error if they are kept. Inside
    `function` they give arrays. Operations on tracers still give tracers, and a TypeError says so where
    numbers are needed.
    """

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with jax.ensure_compile_time_eval():
                return function(*args, **kwargs)
        except jax.errors.TracerArrayConversionError:
            raise BadType(
                "arrays must hold numbers here, got tracers; "
                "call the function outside jit, vmap and other transforms"
            ) from None

    return outside


def as_array(value: Any, argument: str) -> Array | np.ndarray:
    """`value` as a JAX or NumPy array of a dtype this package evaluates.

    Arrays are returned unchanged. Numbers and nested sequences become NumPy arrays, so that no device is
    touched. Messages open with `argument`.
    """
    array = value if type(value) is np.ndarray or isinstance(value, jax.Array) else _gathered(value, argument)
    _check_dtype(array, value, argument)
    if isinstance(array, np.ndarray) and not array.dtype.isnative:  # JAX ignores the byte order
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def as_operand(value: Any, argument: str) -> Array | np.ndarray:
    """`as_array`, in a dtype that JAX has now: while x64 is off, float64 is rounded to float32, silently."""
    array = as_array(value, argument)
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if isinstance(array, np.ndarray) and narrow != array.dtype:
        with np.errstate(all="ignore"):
            array = array.astype(narrow)
    return array


def _gathered(value: Any, argument: str) -> Array | np.ndarray:
    try:
        check_plain(value, argument)
        array = _converted(value)
        if isinstance(array, np.ndarray):
            check_plain(array, argument)  # the value's own conversion may give a mask or units
            return np.asarray(array)
        return array
    except BadType:
        raise
    except Exception as error:  # the value's own conversion can raise anything
        if refused := next(_not_taken(value), None):
            kind, reason = refused
            remedy = "an array of its numbers"
            if _is_tensor(kind):  # .float() alone would round float64
                remedy = ".float()" * ("BFloat16" in str(reason)) + ".numpy(force=True)"
            remedy += " of each" if isinstance(value, (list, tuple)) else ""
            raise BadType(
                f"{argument} must hold numbers that NumPy takes, got {kind.__name__} ({_short(reason)}); "
                f"pass {remedy}"
            ) from None
        raise BadValue(
            f"{argument} must be an array or an evenly nested sequence of numbers, "
            f"got {_short(value)} ({_short(error)}); give every row the same length"
        ) from None


def _not_taken(value: Any) -> Iterator[tuple[type[Any], Exception]]:
    """The types in `value`, which may be a list, whose own conversion to an array fails, and the errors."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _not_taken(each)
    elif hasattr(type(value), "__array__"):
        try:
            np.asanyarray(value)
        except Exception as error:
            yield type(value), error


def _converted(value: Any) -> Array | np.ndarray:
    first = _first(value)
    if not isinstance(first, jax.Array) and not hasattr(first, "__jax_array__"):
        with contextlib.suppress(jax.errors.TracerArrayConversionError):  # a later entry is a tracer
            return np.asanyarray(value)
    with jax.ensure_compile_time_eval():  # arrays stay arrays, inside a trace too
        return jnp.asarray(value)


def _first(value: Any) -> Any:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def check_plain(value: Any, argument: str) -> None:
    """Refuses a value, or one in a list, that is more than its numbers: NumPy would drop a mask or units."""
    kind = type(value)
    if isinstance(value, (list, tuple)):
        kinds = set(map(type, value)) - PLAIN
        for each in value if kinds else ():
            if type(each) in kinds:
                check_plain(each, argument)
    elif more := _more_than_numbers(value, kind):
        raise BadType(f"{argument} must hold plain numbers, got {kind.__name__}, {more}")


def _more_than_numbers(value: Any, kind: type[Any]) -> str | None:
    """A text that says what a value has besides its numbers, and how to pass only those; None if nothing."""
    if isinstance(value, np.ma.MaskedArray):
        return "which has a mask; pass .filled(number), with a number that the network was trained with"
    # These are looked for in the type, because an instance may have attributes of any name.
    for method in ("toarray", "todense"):
        if hasattr(kind, method):
            return f"which is sparse; pass .{method}()"
    if any(hasattr(value if isinstance(value, np.ndarray) else kind, name) for name in ("units", "unit")):
        numbers = next((n for n in ("magnitude", "value") if hasattr(kind, n)), "data")
        return f"which has units; convert it to the network's units and pass .{numbers}"
    if _is_tensor(kind):
        if getattr(value, "is_meta", False):
            return "on the device meta, which holds no numbers; load its numbers first"
        if getattr(value, "is_quantized", False):
            return "which is quantized; pass .dequantize()"
        if getattr(value, "is_nested", False):
            return "which is nested; pass its tensors one by one, by .unbind()"
        if "sparse" in str(getattr(value, "layout", "")):
            return "which is sparse; pass .to_dense()"
        if kind.__name__ not in ("Tensor", "Parameter"):
            return "which is a subclass of Tensor; pass a plain torch.Tensor"
    elif isinstance(value, np.ndarray) and kind.__array_ufunc__ is not np.ndarray.__array_ufunc__:
        return "which has its own arithmetic; pass np.asarray of it if only its numbers matter"
    return None


def _is_tensor(kind: type[Any]) -> bool:
    """Whether this is a type of PyTorch tensors, found out without importing PyTorch."""
    return any(each.__module__ == "torch" and each.__name__ == "Tensor" for each in kind.__mro__)


def _check_dtype(array: Array | np.ndarray, value: Any, argument: str) -> None:
    dtype = array.dtype
    if dtype.name in FLOATS or dtype.name == "bool":
        return
    if getattr(dtype, "kind", "V") not in "iu":  # the dtype of JAX's random keys has no kind
        remedy = "pass numbers"
        if jnp.issubdtype(dtype, jnp.complexfloating):
            remedy = "pass its real and imaginary parts as separate inputs"
        elif jnp.issubdtype(dtype, jnp.number) and dtype.kind != "m":
            remedy = "convert it with .astype(float)"
        raise BadType(
            f"{argument} must hold booleans, integers, or one of {', '.join(FLOATS)}, "
            f"got {KINDS.get(getattr(dtype, 'kind', ''), dtype.name)} ({_short(value)}); {remedy}"
        )
    # JAX would keep the low bits of a wider integer: 2**40 would be evaluated as 0.
    narrow = jax.dtypes.canonicalize_dtype(dtype)
    if isinstance(array, np.ndarray) and narrow != dtype and array.size:
        low, high = array.min(), array.max()
        if low < np.iinfo(narrow).min or high > np.iinfo(narrow).max:
            raise BadValue(
                f"{argument} must fit in {narrow.name} while jax_enable_x64 is off, "
                f"got integers from {low} to {high}; pass them as floats"
            )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
