"""The fused kernels as a JAX primitive: all layers in one call of cpu/ffi.cc, or of the kernels in gpu/.

    y = activation(x @ w + b), layer after layer            x (rows, n_in), w (n_in, n_out), b (n_out,)

Any operand may have a leading axis of members, and then y has it too. vmap folds a mapped axis of x into the
rows, and a mapped axis of the parameters into the members. The primitive becomes XLA's own path on other
platforms, in exported programs, and where the kernels can't evaluate the network. derivatives.py says what
becomes of it under differentiation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from jaxneuron._arrays import result_dtype
from jaxneuron._kernels import gpu, library, xla
from jaxneuron._kernels.private_jax import (
    Primitive,
    batching,
    custom_partitioning,
    is_for_export,
    like,
    mlir,
    requires_devices_during_lowering,
    traced,
    varying_alike,
)
from jaxneuron._names import NAMES, Parametric, resolve

# In multiplications; they take about 3 ms. A larger call is computed outside the calling thread, so that
# `evaluate` can read the next rows meanwhile. Shorter calls stay in the calling thread: when calls from 50 us
# on were handed over, QLKNN on 4096 rows took 6.5 ms instead of 3.4, because three threads shared two CPUs.
LONG = 2**28

forward_p = Primitive("jaxneuron_forward")


def reason_against(layers: Sequence[xla.Layer], activations: Sequence[Any], x: Any) -> str | None:
    """Why the kernel can't evaluate these layers; None if it can."""
    for i, activation in enumerate(activations):
        if activation not in NAMES and not isinstance(activation, Parametric):
            cost = f", which sends all {len(layers)} layers to XLA" if len(layers) > 1 else ""
            return f"layer {i}'s activation is not in the kernel's list{cost}"
    if len({a.dtype for a in (x, *(a for layer in layers for a in layer if a is not None))}) == 1:
        return None  # saves 20 us
    results = [x]
    for w, b in layers:
        dtype = result_dtype(*(a for a in (w, b, results[-1]) if a is not None))
        results.append(jax.ShapeDtypeStruct((), dtype))
    if len(dtypes := dict.fromkeys(str(result.dtype) for result in results[1:])) > 1:
        return f"its layers are of different dtypes, {' and '.join(dtypes)}"
    return None


def forward(
    layers: Sequence[xla.Layer],
    activations: Sequence[Callable[[Array], Array]],
    x: Array,
    instruction_set: int | None = None,
) -> Array:
    """Computes x = activation(x @ w + b) for every layer, where `reason_against` is None.

    `instruction_set` is an index into `library.instruction_sets()`; None takes the best that this CPU has.
    """
    operands, params = bound(layers, activations, x, instruction_set)
    y: Array = forward_p.bind(*operands, **params)
    return y.reshape(*x.shape[:-1], *layers[-1][0].shape[1:])


def bound(
    layers: Sequence[xla.Layer],
    activations: Sequence[Callable[[Array], Array]],
    x: Array,
    instruction_set: int | None = None,
) -> tuple[list[Array], dict[str, Any]]:
    """The operands and parameters that `forward_p` takes; x is reshaped to (rows, n_in)."""
    dtype = result_dtype(x, *jax.tree.leaves(layers))
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    # A neuron is evaluated as a layer of one unit.
    columns = [
        (w.reshape(len(w), math.prod(w.shape[1:])), None if b is None else b.reshape(math.prod(b.shape)))
        for w, b in layers
    ]
    best = len(library.instruction_sets()) - 1
    return varying_alike([a.astype(dtype) for a in jax.tree.leaves((rows, columns))]), {
        "activations": tuple(NAMES.get(activation, activation) for activation in activations),
        "biases": tuple(b is not None for _, b in layers),
        "instruction_set": best if instruction_set is None else instruction_set,
        "partitioned": False,
    }


def pairs(operands: Sequence[Any], biases: Sequence[bool]) -> list[tuple[Any, Any]]:
    """The operands after x, as (w, b) for each layer."""
    each = iter(operands)
    return [(next(each), next(each) if has_bias else None) for has_bias in biases]


def ranks_of(biases: Sequence[bool], of_rows: Sequence[int] = (2,)) -> list[int]:
    """The ranks of all operands, an axis of members not counted: those with rows first, then each w and b.

    `of_rows`: the ranks of the operands that have rows, which is x alone in most primitives.
    """
    return [*of_rows, *(rank for has_bias in biases for rank in ((2, 1) if has_bias else (2,)))]


def on_xla(
    *operands: Array,
    activations: Sequence[Any],  # names and values
    biases: Sequence[bool],
    on_gpu: bool | None = None,
    **_: Any,
) -> Array:
    def one(x: Array, *arrays: Array) -> Array:
        functions = [resolve(activation) for activation in activations]
        return xla.forward(pairs(arrays, biases), functions, x, on_gpu)

    y: Array = of_each_member(one, operands, ranks_of(biases))
    return y


def of_each_member(one: Callable[..., Any], operands: Sequence[Array], ranks: Sequence[int]) -> Any:
    """Calls `one`, which takes operands without an axis of members, for each member."""
    axes = [0 if a.ndim > rank else None for a, rank in zip(operands, ranks, strict=True)]
    return jax.vmap(one, axes)(*operands) if 0 in axes else one(*operands)


def members_of(operands: Sequence[Any], ranks: Sequence[int]) -> tuple[int, ...]:
    """The shape of a result's axis of members: (members,), or () if no operand has this axis."""
    return next(((a.shape[0],) for a, rank in zip(operands, ranks, strict=True) if a.ndim > rank), ())


def n_out_of(operands: Sequence[Any], biases: Sequence[bool]) -> int:
    n_out: int = operands[-2 if biases[-1] else -1].shape[-1]
    return n_out


def _shape(*operands: Any, biases: Sequence[bool], **_: Any) -> Any:
    x = operands[0]
    members = members_of(operands, ranks_of(biases))
    return like(x, (*members, x.shape[-2], n_out_of(operands, biases)))


def eager(primitive: Any) -> Callable[..., Any]:
    """A function that calls a primitive outside of jit: it compiles a program with this one operation."""

    def call(*operands: Array, **params: Any) -> Any:
        with jax.disable_jit(False):
            return jax.jit(functools.partial(primitive.bind, **params))(*operands)

    return call


def _batch(operands: Sequence[Array], axes: Sequence[int | None], **params: Any) -> tuple[Array, int]:
    bind = functools.partial(forward_p.bind, **params)
    (y,), (axis,) = batched(lambda *a: [bind(*a)], operands, axes, ranks_of(params["biases"]), 1)
    return y, axis


def batched(
    bind: Callable[..., Sequence[Array]],
    operands: Sequence[Array],
    axes: Sequence[int | None],
    ranks: Sequence[int],
    with_rows: int,
) -> tuple[list[Array], list[int]]:
    """The results of `bind` under vmap, and their mapped axes. All results have rows.

    The first `with_rows` operands have rows. If only these are mapped, the mapped axis is folded into the
    rows. If a parameter is mapped, the mapped axis becomes the axis of members, or multiplies it.
    """
    mapped = [axis is not None for axis in axes]
    front = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(operands, axes, strict=True)]
    size = next(len(a) for a, m in zip(front, mapped, strict=True) if m)
    if not any(mapped[with_rows:]):
        rows = front[0].shape[-2]
        for i, rank in enumerate(ranks[:with_rows]):
            if not mapped[i]:
                front[i] = jnp.broadcast_to(front[i], (size, *front[i].shape))
            a = jnp.moveaxis(front[i], 0, -rank - 1)  # (members,) size, rows, ...
            front[i] = a.reshape(*a.shape[: -rank - 1], size * a.shape[-rank], *a.shape[a.ndim - rank + 1 :])
        several = len(members_of(front, ranks))
        found = bind(*front)
        return [y.reshape(*y.shape[:several], size, rows, *y.shape[several + 1 :]) for y in found], [
            several
        ] * len(found)
    apart = [a.ndim - m > rank for a, m, rank in zip(front, mapped, ranks, strict=True)]
    if not any(apart):
        found = list(bind(*front))
        return found, [0] * len(found)
    members = next(a.shape[-rank - 1] for a, rank, has in zip(front, ranks, apart, strict=True) if has)
    # Every member at every place of the mapped axis. An operand without one of the axes is repeated along it.
    for i, rank in enumerate(ranks):
        if mapped[i] or apart[i]:
            shape = front[i].shape[-rank:]
            both = front[i].reshape(size if mapped[i] else 1, members if apart[i] else 1, *shape)
            front[i] = jnp.broadcast_to(both, (size, members, *shape)).reshape(size * members, *shape)
    found = bind(*front)
    return [y.reshape(size, members, *y.shape[1:]) for y in found], [0] * len(found)


def _on_cpu(ctx: Any, *operands: Any, **params: Any) -> Any:
    function: Callable[..., Array] = _call if params["partitioned"] else _partitioned
    if is_for_export(ctx) or library.missing():  # an exported program must run without this library
        function = functools.partial(on_xla, on_gpu=False)
    return mlir.lower_fun(functools.partial(function, **params), multiple_results=False)(ctx, *operands)


@traced
def _on_gpu(ctx: Any, *operands: Any, **params: Any) -> Any:
    function: Callable[..., Array] = _call_gpu if params["partitioned"] else _partitioned
    # An exported program must run on other GPUs too.
    if is_for_export(ctx) or _reason_against_gpu(ctx.avals_in, **params):
        function = functools.partial(on_xla, on_gpu=True)
    return mlir.lower_fun(functools.partial(function, **params), multiple_results=False)(ctx, *operands)


def _reason_against_gpu(
    operands: Sequence[Any], activations: Sequence[Any], biases: Sequence[bool], **_: Any
) -> str | None:
    x = operands[0]
    if 0 in _shape(*operands, biases=biases).shape:
        return "the result is empty"
    widths = xla.widths_of(x, pairs(operands[1:], biases))
    return gpu.reason_against(widths, x.dtype, biases, [resolve(activation) for activation in activations])


def _call_gpu(*operands: Array, activations: Sequence[Any], biases: Sequence[bool], **_: Any) -> Array:
    members = math.prod(_shape(*operands, biases=biases).shape[:-2])

    def one(x: Array, *arrays: Array) -> Array:
        functions = [resolve(activation) for activation in activations]
        return gpu.forward(x, pairs(arrays, biases), functions, members)

    y: Array = of_each_member(one, operands, ranks_of(biases))
    return y


def _call(*operands: Array, **params: Any) -> Array:
    y = _shape(*operands, **params)
    work = math.prod(y.shape[:-1]) * row_work(operands[1:], params["biases"])
    found: Array = kernel_call(library.TARGET, y, operands, work, **params)
    return found


def row_work(arrays: Sequence[Any], biases: Sequence[bool]) -> int:
    """The multiplications that one row takes."""
    return sum(math.prod(w.shape[-2:]) for w, _ in pairs(arrays, biases))


def kernel_call(
    target: str,
    results: Any,
    operands: Sequence[Array],
    work: int,
    activations: Sequence[Any],
    biases: Sequence[bool],
    instruction_set: int,
    **params: Any,
) -> Any:
    """Calls one of the library's handlers. `results` give the shapes, `work` is in multiplications."""
    codes, parameters = zip(*map(library.coded, activations), strict=True)
    shapes = jax.tree.map(lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype), results)
    call: Callable[..., Any] = jax.ffi.ffi_call(target, shapes)
    return call(
        *operands,
        *([_thousand_operations(operands[0])] if work > LONG else []),
        activations=np.array(codes, np.int64),
        parameters=np.concatenate(parameters),
        biases=np.array(biases, np.int64),
        instruction_set=np.int64(instruction_set),
        **{name: value for name, value in params.items() if name == "backward"},
    )


def _thousand_operations(x: Array) -> Array:
    """A number that the handler ignores, computed by a thousand operations that XLA can't leave out.

    When XLA compiles a program, it counts its operations. It runs a program of fewer than 1000 operations in
    the calling thread, which waits for the result, and hands larger programs to another thread. A custom call
    counts as nothing, so the caller would wait however long the kernel computes. Long calls therefore get one
    more operand, which takes a thousand additions. It depends on x, because XLA would fold a constant.
    """
    return (x.ravel()[:1].sum() + jnp.arange(1024, dtype=x.dtype)).sum()


def _partitioned(*operands: Array, **params: Any) -> Array:
    local = functools.partial(forward_p.bind, **{**params, "partitioned": True})
    y: Array = partitioned(local, operands, ranks_of(params["biases"]), 1, 2)
    return y


def partitioned(
    local: Callable[..., Any],
    operands: Sequence[Array],
    ranks: Sequence[int],
    with_rows: int,
    result_ranks: int | Sequence[int],
) -> Any:
    """Calls `local` on each device for the rows and members that this device holds.

    No other axis is divided among devices. The first `with_rows` operands have rows, and so have all results.
    There are several results if `result_ranks` is a sequence.
    """

    def names(i: str, rank: int, has_members: bool, has_rows: bool) -> list[str]:
        own = [f"whole{i}_{k}" for k in range(rank)]
        return ["members"] * has_members + (["rows", *own[1:]] if has_rows else own)

    sides = [
        names(str(i), rank, a.ndim > rank, i < with_rows)
        for i, (a, rank) in enumerate(zip(operands, ranks, strict=True))
    ]
    several = [result_ranks] if isinstance(result_ranks, int) else result_ranks
    has_members = any("members" in axes for axes in sides)
    results = [names(f"y{i}", rank, has_members, True) for i, rank in enumerate(several)]

    def partition(mesh: Any, _: Any, found: Any) -> tuple[Any, Any, Any, Any]:
        first = found if isinstance(result_ranks, int) else found[0]
        divided = dict(zip(results[0][: has_members + 1], getattr(first.sharding, "spec", ()), strict=False))

        def sharding(axes: Sequence[str]) -> NamedSharding:
            return NamedSharding(mesh, PartitionSpec(*(divided.get(name) for name in axes)))

        each = [sharding(axes) for axes in results]
        return mesh, local, each[0] if isinstance(result_ranks, int) else each, tuple(map(sharding, sides))

    function = custom_partitioning(local)
    function.def_partition(
        partition,
        sharding_rule=" -> ".join(", ".join(" ".join(axes) for axes in side) for side in (sides, results)),
        # in the order in which they appear, each once
        need_replication_factors=tuple(
            name for axes in (*sides, *results) for name in axes if name.startswith("whole")
        ),
    )
    return function(*operands)


forward_p.def_impl(eager(forward_p))
forward_p.def_abstract_eval(_shape)
batching.primitive_batchers[forward_p] = _batch
requires_devices_during_lowering(forward_p)  # as custom_partitioning does
mlir.register_lowering(
    forward_p, mlir.lower_fun(functools.partial(on_xla, on_gpu=False), multiple_results=False)
)
mlir.register_lowering(forward_p, _on_cpu, platform="cpu")
mlir.register_lowering(forward_p, _on_gpu, platform="cuda")
