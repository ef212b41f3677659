"""What counts as an array, and which dtype a result has."""

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
PLAIN = {bool, int, float, np.ndarray, np.float32, np.float64}  # of which lists of rows are made
KINDS = {"U": "text", "S": "bytes", "O": "Python objects", "M": "dates", "m": "durations"}  # of NumPy dtypes

P = ParamSpec("P")
R = TypeVar("R")
ArrayLike = jax.typing.ArrayLike | Sequence[Any]  # numbers, arrays, and nested sequences of numbers


def result_dtype(*arrays: Array) -> np.dtype:
    """The promoted dtype of `arrays`; integers and booleans alone promote to JAX's default float."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
        return np.dtype(dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float))


def sum_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype that sums are kept in: float32 for bfloat16 and float16, `dtype` itself otherwise."""
    return np.dtype(np.float32 if np.dtype(dtype).itemsize == 2 else dtype)


@functools.cache
def is_jax_array(kind: type[Any]) -> bool:
    """Whether arrays of this type are JAX's: `isinstance(x, jax.Array)` at half its price."""
    return issubclass(kind, jax.Array)


def concrete(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which builds or writes a network, outside of any trace around it.

    Inside `jit`, operations on concrete arrays give tracers, which leak where they are kept. Here they give
    arrays; operations on tracers give tracers, and where numbers are needed tracers are refused.
    """

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with jax.ensure_compile_time_eval():
                return function(*args, **kwargs)
        except jax.errors.TracerArrayConversionError:
            raise BadType(
                "arrays must hold numbers here, got tracers; call it outside jit, vmap and other transforms"
            ) from None

    return outside


def as_array(value: Any, argument: str) -> Array | np.ndarray:
    """`value` as a JAX or NumPy array of a dtype this package evaluates.

    Arrays are returned as they are; numbers and nested sequences become NumPy arrays, so that no
    device is touched. `argument` opens the message where `value` is refused.
    """
    array = value if type(value) is np.ndarray or isinstance(value, jax.Array) else _gathered(value, argument)
    _check_dtype(array, value, argument)
    if isinstance(array, np.ndarray) and not array.dtype.isnative:  # JAX reads the bytes as they lie
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def as_operand(value: Any, argument: str) -> Array | np.ndarray:
    """`as_array`, in a dtype that JAX holds now: without x64, float64 rounds to float32 in silence."""
    array = as_array(value, argument)
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if isinstance(array, np.ndarray) and narrow != array.dtype:
        with np.errstate(over="ignore"):
            array = array.astype(narrow)
    return array


def _gathered(value: Any, argument: str) -> Array | np.ndarray:
    try:
        check_plain(value, argument)
        array = _converted(value)
        if isinstance(array, np.ndarray):
            check_plain(array, argument)  # a conversion of its own may give a mask or units
            return np.asarray(array)
        return array
    except BadType:
        raise
    except Exception as error:  # whatever a conversion of its own raises
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
    """The types of what `value` is or lists that has a conversion of its own, which fails, and why."""
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
        with contextlib.suppress(jax.errors.TracerArrayConversionError):  # a tracer further on
            return np.asanyarray(value)
    with jax.ensure_compile_time_eval():  # inside a trace too, arrays stay arrays
        return jnp.asarray(value)


def _first(value: Any) -> Any:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value


def check_plain(value: Any, argument: str) -> None:
    """Refuses a value, or one in a list, that means more than its numbers: NumPy would drop the rest."""
    kind = type(value)
    if isinstance(value, (list, tuple)):
        kinds = set(map(type, value)) - PLAIN
        for each in value if kinds else ():
            if type(each) in kinds:
                check_plain(each, argument)
    elif more := _more_than_numbers(value, kind):
        raise BadType(f"{argument} must hold plain numbers, got {kind.__name__}, {more}")


def _more_than_numbers(value: Any, kind: type[Any]) -> str | None:
    """What a value has besides numbers, and how to pass the numbers that are meant."""
    if isinstance(value, np.ma.MaskedArray):
        return "which has a mask; pass .filled(number), with a number that the network knows"
    # Looked for in the type, as an instance may have attributes of any name.
    for method in ("toarray", "todense"):
        if hasattr(kind, method):
            return f"which is sparse; pass .{method}()"
    if any(hasattr(value if isinstance(value, np.ndarray) else kind, name) for name in ("units", "unit")):
        numbers = next((n for n in ("magnitude", "value") if hasattr(kind, n)), "data")
        return f"which has units; convert it to the network's units and pass .{numbers}"
    if _is_tensor(kind):
        if getattr(value, "is_meta", False):
            return "on the device meta, which holds no numbers; load them first"
        if getattr(value, "is_quantized", False):
            return "which is quantized; pass .dequantize()"
        if getattr(value, "is_nested", False):
            return "which is nested; pass its tensors one by one, by .unbind()"
        if "sparse" in str(getattr(value, "layout", "")):
            return "which is sparse; pass .to_dense()"
        if kind.__name__ not in ("Tensor", "Parameter"):
            return "which is a kind of tensor of its own; pass a plain torch.Tensor"
    elif isinstance(value, np.ndarray) and kind.__array_ufunc__ is not np.ndarray.__array_ufunc__:
        return "whose arithmetic is its own; pass np.asarray of it if the numbers alone are meant"
    return None


def _is_tensor(kind: type[Any]) -> bool:
    """Whether these are PyTorch's, without importing it."""
    return any(each.__module__ == "torch" and each.__name__ == "Tensor" for each in kind.__mro__)


def _check_dtype(array: Array | np.ndarray, value: Any, argument: str) -> None:
    dtype = array.dtype
    if dtype.name in FLOATS or dtype.name == "bool":
        return
    if getattr(dtype, "kind", "V") not in "iu":  # JAX's keys have none
        remedy = "pass numbers"
        if jnp.issubdtype(dtype, jnp.complexfloating):
            remedy = "pass its real and imaginary parts as separate inputs"
        elif jnp.issubdtype(dtype, jnp.number) and dtype.kind != "m":
            remedy = "convert it with .astype"
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
