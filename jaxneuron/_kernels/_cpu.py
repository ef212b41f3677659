"""The fused CPU kernel as a JAX primitive: all layers in one call of cpu/ffi.cc.

    y = activation(x @ w + b), layer after layer            x (rows, n_in), w (n_in, n_out), b (n_out,)

Any operand may have a leading axis of members, and then y has it too: vmap folds rows into rows, and networks into
members. On other platforms than CPU, under differentiation and in exported programs it becomes XLA's own path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from jaxneuron._activations import BY_NAME
from jaxneuron._arrays import FLOATS
from jaxneuron._kernels import _library, _xla

# As cpu/network.h has them.
ACTIVATIONS = tuple(
    BY_NAME[name]
    for name in (
        "identity", "relu", "leaky_relu", "hard_sigmoid", "sigmoid", "cr_sigmoid", "tanh", "cr_tanh", "silu",
        "gelu", "gelu_tanh", "softplus", "elu", "selu", "softmax",
    )
)  # fmt: skip
CODES = {function: code for code, function in enumerate(ACTIVATIONS)}

mlp_p = Primitive("jaxneuron_forward")


def reason_against(layers: Sequence[_xla.Layer], activations: Sequence[Any], x: Any) -> str | None:
    """Why the kernel can't evaluate these layers; None if it can."""
    for i, activation in enumerate(activations):
        if activation not in CODES:
            return f"layer {i}'s activation {activation} is not the package's own"
    dtypes = {str(a.dtype) for a in (x, *jax.tree.leaves(layers))}
    if len(dtypes) > 1 or not dtypes <= set(FLOATS):
        return f"arrays are of dtype {', '.join(sorted(dtypes))}, not of one floating-point dtype"
    return _library.reason_against()


def forward(layers: Sequence[_xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array) -> Array:
    """As `_xla.forward`, for what `reason_against` has nothing against."""
    units = layers[-1][0].shape[1:]
    rows = x.reshape(-1, x.shape[-1])
    # A neuron is a layer of one.
    columns = [(w.reshape(w.shape[0], -1), None if b is None else b.reshape(-1)) for w, b in layers]
    y = mlp_p.bind(
        rows,
        *jax.tree.leaves(columns),
        activations=tuple(CODES[activation] for activation in activations),
        biases=tuple(b is not None for _, b in layers),
        instructions=_library.instructions(),
        partitioned=False,
    )
    return y.reshape(*x.shape[:-1], *units)


def _pairs(operands: Sequence[Any], biases: Sequence[bool]) -> list[tuple[Any, Any]]:
    """The operands after x, as (w, b) for each layer."""
    each = iter(operands)
    return [(next(each), next(each) if has_bias else None) for has_bias in biases]


def _ranks(operands: Sequence[Any], biases: Sequence[bool]) -> list[int]:
    """The ranks of x and of each w and b, without an axis of members."""
    return [2] + [rank for has_bias in biases for rank in ((2, 1) if has_bias else (2,))]


def _on_xla(*operands: Array, activations: Sequence[int], biases: Sequence[bool], **_: Any) -> Array:
    def one(x: Array, *arrays: Array) -> Array:
        functions = [ACTIVATIONS[code] for code in activations]
        return _xla.forward(_pairs(arrays, biases), functions, x, [""] * len(biases))

    ranks = _ranks(operands, biases)
    axes = [0 if a.ndim > rank else None for a, rank in zip(operands, ranks, strict=True)]
    return jax.vmap(one, axes)(*operands) if 0 in axes else one(*operands)


@mlp_p.def_abstract_eval
def _shape(*operands: Any, biases: Sequence[bool], **_: Any) -> Any:
    ranks = _ranks(operands, biases)
    members = [a.shape[0] for a, rank in zip(operands, ranks, strict=True) if a.ndim > rank]
    n_out = operands[-2 if biases[-1] else -1].shape[-1]
    x = operands[0]
    return jax.core.ShapedArray((*members[:1], x.shape[-2], n_out), x.dtype)


@mlp_p.def_impl
def _now(*operands: Array, **params: Any) -> Array:
    with jax.disable_jit(False):
        return jax.jit(functools.partial(mlp_p.bind, **params))(*operands)


def _batch(operands: Sequence[Array], axes: Sequence[int | None], **params: Any) -> tuple[Array, int]:
    """Mapped rows alone become more rows; mapped parameters make members, of those there are already."""
    ranks = _ranks(operands, params["biases"])
    size = next(a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None)
    has_members = [
        a.ndim - (axis is not None) > rank for a, axis, rank in zip(operands, axes, ranks, strict=True)
    ]
    x = operands[0]
    if axes[0] is not None and not any(axis is not None for axis in axes[1:]):
        rows = jnp.moveaxis(x, axes[0], -3)  # (members,) size, rows, n_in
        rows = rows.reshape(*rows.shape[:-3], size * rows.shape[-2], rows.shape[-1])
        y = mlp_p.bind(rows, *operands[1:], **params)  # (members,) size rows, n_out
        return y.reshape(*y.shape[:-2], size, -1, y.shape[-1]), y.ndim - 2
    count = next((a.shape[a.ndim - rank - 1 + 0] for a, rank in ()), None)
    mapped = [
        a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(operands, axes, strict=True)
    ]
    if not any(has_members):
        return mlp_p.bind(*mapped, **params), 0
    members = next(
        a.shape[-rank - 1] for a, rank, has in zip(mapped, ranks, has_members, strict=True) if has
    )
    folded = []
    for a, axis, rank, has in zip(mapped, axes, ranks, has_members, strict=True):
        if axis is not None or has:
            core = a.shape[a.ndim - rank :]
            a = a.reshape(size if axis is not None else 1, members if has else 1, *core)
            a = jnp.broadcast_to(a, (size, members, *core)).reshape(size * members, *core)
        folded.append(a)
    y = mlp_p.bind(*folded, **params)
    return y.reshape(size, members, *y.shape[1:]), 0


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], **params: Any) -> tuple[Array, Any]:
    varying = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def function(*values: Array) -> Array:
        operands = list(primals)
        for i, value in zip(varying, values, strict=True):
            operands[i] = value
        return _on_xla(*operands, **params)

    return jax.jvp(function, [primals[i] for i in varying], [tangents[i] for i in varying])


def _on_cpu(ctx: Any, *operands: Any, **params: Any) -> Any:
    if ctx.module_context.lowering_parameters.for_export:  # it shall run where this library is not
        return mlir.lower_fun(functools.partial(_on_xla, **params), multiple_results=False)(ctx, *operands)
    if not params["partitioned"]:
        return mlir.lower_fun(functools.partial(_partitioned, **params), multiple_results=False)(ctx, *operands)
    _library.register()
    lower = jax.ffi.ffi_lowering("jaxneuron_forward")
    return lower(
        ctx,
        *operands,
        activations=np.array(params["activations"], np.int64),
        biases=np.array(params["biases"], np.int64),
        instructions=np.int64(params["instructions"]),
    )


def _partitioned(*operands: Array, **params: Any) -> Array:
    """Each device evaluates its rows, of its members; nothing else is divided."""
    local = functools.partial(mlp_p.bind, **{**params, "partitioned": True})
    ranks = _ranks(operands, params["biases"])
    names = (f"n{i}" for i in range(2 * len(ranks) + 2))
    factors: list[str] = []

    def own(count: int) -> list[str]:
        factors.extend(found := [next(names) for _ in range(count)])
        return found

    sides = [
        ["members"] * (a.ndim > rank) + (["rows", *own(1)] if i == 0 else own(rank))
        for i, (a, rank) in enumerate(zip(operands, ranks, strict=True))
    ]
    members = any(a.ndim > rank for a, rank in zip(operands, ranks, strict=True))
    result = ["members"] * members + ["rows", *own(1)]

    def partition(mesh: Any, arguments: Any, y: Any) -> Any:
        *leading, _ = (*y.sharding.spec, *(None,) * (len(y.shape) - len(y.sharding.spec)))
        by_name = dict(zip(result, leading, strict=False))
        shardings = [
            NamedSharding(mesh, PartitionSpec(*(by_name.get(name) for name in side)))
            for side in (*sides, [*result[:-1], ""])
        ]
        return mesh, local, shardings[-1], tuple(shardings[:-1])

    function = custom_partitioning(local)
    function.def_partition(
        partition,
        sharding_rule=f"{', '.join(' '.join(side) for side in sides)} -> {' '.join(result)}",
        need_replication_factors=tuple(factors),
    )
    return function(*operands)


batching.primitive_batchers[mlp_p] = _batch
ad.primitive_jvps[mlp_p] = _jvp
mlir.register_lowering(mlp_p, mlir.lower_fun(_on_xla, multiple_results=False))
mlir.register_lowering(mlp_p, _on_cpu, platform="cpu")
