"""A network's derivatives with respect to its inputs, as JAX primitives.

    y, J = jacobian(x)                    x (rows, n_in) -> y (rows, n_out), J (rows, n_out, n_in)
    y, J, L = jacobian(x)                 L (rows, n_out): the Laplacian, the sum of the second derivatives
    J d = product(x, d)                   d (rows, directions, n_in)
    d J = product(x, d), if `backward`    d (rows, directions, n_out)

Each primitive becomes a call of the CPU kernel, or XLA's own path. Any operand may have a leading axis of
members, as in primitive.py. A product is linear in d. It is computed without J, except where there are many
more directions than J has rows or columns: then it is cheaper to compute J once and multiply by it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxneuron._kernels import library, xla, xla_derivatives
from jaxneuron._kernels.primitive import (
    batched,
    bound,
    eager,
    kernel_call,
    members_of,
    n_out_of,
    of_each_member,
    on_xla,
    pairs,
    partitioned,
    ranks_of,
    row_work,
)
from jaxneuron._kernels.private_jax import (
    Primitive,
    ad,
    batching,
    is_for_export,
    like,
    mlir,
    nan_checks,
    requires_devices_during_lowering,
)
from jaxneuron._names import resolve

WIDE = 160  # above so many multiplications per unit, JAX's transforms stay on XLA's path: see `pays`

jacobian_p = Primitive("jaxneuron_jacobian")
jacobian_p.multiple_results = True
product_p = Primitive("jaxneuron_product")


def backward_is_cheaper(operands: Sequence[Any], biases: Sequence[bool]) -> bool:
    """Whether J takes fewer multiplications from y back to x. Only the widths of x and the layers count."""
    return xla_derivatives.backward_is_cheaper(_widths(operands, biases))


def serves(operands: Sequence[Any], biases: Sequence[bool]) -> bool:
    """Whether the CPU kernel evaluates the derivatives of this network, whose values it can evaluate."""
    return library.missing() is None and reason_against(_widths(operands, biases), operands[0].dtype) is None


def _widths(operands: Sequence[Any], biases: Sequence[bool]) -> list[int]:
    x, *arrays = operands
    return xla.widths_of(x, pairs(arrays, biases))


def value_and_jacobian(
    layers: Sequence[xla.Layer],
    activations: Sequence[Callable[[Array], Array]],
    x: Array,
    laplacian: bool = False,
    instruction_set: int | None = None,
) -> list[Array]:
    """y (..., n_out), J (..., n_out, n_in) and, if `laplacian`, L (..., n_out).

    To be called only where `serves` is True. `instruction_set`: see `primitive.forward`.
    """
    operands, params = bound(layers, activations, x, instruction_set)
    backward = not laplacian and backward_is_cheaper(operands, params["biases"])
    found = jacobian_p.bind(*operands, backward=backward, laplacian=laplacian, **params)
    return [a.reshape(*x.shape[:-1], *a.shape[1:]) for a in found]


def reason_against(widths: Sequence[int], dtype: Any) -> str | None:
    """Why the kernel can't evaluate the derivatives of a network whose values it can; None if it can do both.

    `widths`: the number of inputs, then the number of units of each layer.
    """
    if dtype.itemsize == 2:
        return f"its derivatives are those of float32 and float64, not of {dtype}"
    if 0 in widths:
        return "a layer has no units"
    return None


def pays(operands: Sequence[Any], biases: Sequence[bool]) -> bool:
    """Whether JAX's derivatives with respect to x alone should come from the kernel.

    A product in the kernel computes the values again, because it needs the slopes. Together with the forward
    pass that is three times the multiplications of a forward pass; XLA's path takes two. For narrow layers
    the activations take as long as the multiplications, and the kernel is faster all the same: one tangent
    of 25 rows of QLKNN (133 wide) takes 46 us instead of 85. For wide layers XLA is faster: one tangent of
    4096 rows of 256-256-256-256 takes 21.7 ms in the kernel and 16.4 ms by XLA.
    """
    _, *arrays = operands
    work = row_work(arrays, biases)
    units = sum(w.shape[-1] for w, _ in pairs(arrays, biases))
    return work <= WIDE * units and jax.default_backend() == "cpu" and serves(operands, biases)


# --- shapes ---


def _jacobian_ranks(laplacian: bool) -> tuple[int, ...]:
    return (2, 3, 2) if laplacian else (2, 3)


def _jacobian_shapes(*operands: Any, biases: Sequence[bool], laplacian: bool, **_: Any) -> list[Any]:
    x, members, n_out = operands[0], members_of(operands, ranks_of(biases)), n_out_of(operands, biases)
    y = like(x, (*members, x.shape[-2], n_out))
    jacobian = like(x, (*y.shape, x.shape[-1]))
    return [y, jacobian, y] if laplacian else [y, jacobian]


def _product_shape(*operands: Any, biases: Sequence[bool], backward: bool, **_: Any) -> Any:
    x, d = operands[:2]
    members = members_of(operands, ranks_of(biases, (2, 3)))
    n = x.shape[-1] if backward else n_out_of(operands, biases)
    return like(x, (*members, *d.shape[-3:-1], n))


# --- XLA's path ---


def jacobian_on_xla(
    *operands: Array, activations: Sequence[Any], biases: Sequence[bool], laplacian: bool, **_: Any
) -> list[Array]:
    def one(x: Array, *arrays: Array) -> list[Array]:
        functions = [resolve(activation) for activation in activations]
        evaluate: Callable[..., Any] = xla_derivatives.value_and_jacobian
        if laplacian:
            evaluate = xla_derivatives.laplacian
        return list(evaluate(pairs(arrays, biases), functions, x))

    found: list[Array] = of_each_member(one, operands, ranks_of(biases))
    return found


def jacobian_by_products(*operands: Array, laplacian: bool, backward: bool, **params: Any) -> list[Array]:
    """The same results by products with unit vectors, which are cheaper to differentiate."""
    if laplacian:
        return jacobian_on_xla(*operands, laplacian=True, **params)
    x, *arrays = operands
    y = on_xla(*operands, **params)
    units = jnp.eye(y.shape[-1] if backward else x.shape[-1], dtype=x.dtype)
    d = jnp.broadcast_to(units, (x.shape[-2], *units.shape))
    found = product_on_xla(x, d, *arrays, backward=backward, **params)
    return [y, found if backward else jnp.swapaxes(found, -1, -2)]


def product_on_xla(*operands: Array, biases: Sequence[bool], backward: bool, **params: Any) -> Array:
    def one(x: Array, d: Array, *arrays: Array) -> Array:
        def value(x: Array) -> Array:
            return on_xla(x, *arrays, biases=biases, **params)

        def forward(tangent: Array) -> Array:
            return jax.jvp(value, (x,), (tangent,))[1]

        def back(cotangent: Array) -> Array:
            return jax.vjp(value, x)[1](cotangent)[0]

        along = back if backward else forward
        if d.shape[1] == 1:
            return along(d[:, 0])[:, None]
        return jax.vmap(along, 1, 1)(d)

    found: Array = of_each_member(one, operands, ranks_of(biases, (2, 3)))
    return found


# --- lowering: the calls of the kernel, or XLA's path ---


def _call_jacobian(*operands: Array, **params: Any) -> list[Array]:
    shapes = _jacobian_shapes(*operands, **params)
    directions = shapes[1].shape[-2 if params["backward"] else -1]
    rows = math.prod(shapes[0].shape[:-1])
    work = (1 + directions) * rows * row_work(operands[1:], params["biases"])
    return list(kernel_call(library.JACOBIAN, shapes, operands, work, **params))


def _call_product(*operands: Array, **params: Any) -> Array:
    found = _product_shape(*operands, **params)
    columns = math.prod(found.shape[:-1])
    work = 2 * columns * row_work(operands[2:], params["biases"])
    y: Array = kernel_call(library.PRODUCT, found, operands, work, **params)
    return y


def _partitioned_jacobian(*operands: Array, **params: Any) -> list[Array]:
    local = functools.partial(jacobian_p.bind, **{**params, "partitioned": True})
    ranks = ranks_of(params["biases"])
    return list(partitioned(local, operands, ranks, 1, _jacobian_ranks(params["laplacian"])))


def _partitioned_product(*operands: Array, **params: Any) -> Array:
    local = functools.partial(product_p.bind, **{**params, "partitioned": True})
    y: Array = partitioned(local, operands, ranks_of(params["biases"], (2, 3)), 2, 3)
    return y


def _lowering(primitive: Any, by_xla: Any, call: Any, divided: Any) -> Callable[..., Any]:
    def on_cpu(ctx: Any, *operands: Any, **params: Any) -> Any:
        function = call if params["partitioned"] else divided
        x, *arrays = ctx.avals_in
        if is_for_export(ctx) or not serves((x, *arrays[primitive is product_p :]), params["biases"]):
            function = functools.partial(by_xla, on_gpu=False)
        several = primitive.multiple_results
        return mlir.lower_fun(functools.partial(function, **params), multiple_results=several)(ctx, *operands)

    return on_cpu


# --- JAX's transforms ---


def _batch_jacobian(operands: Sequence[Array], axes: Sequence[int | None], **params: Any) -> Any:
    bind = functools.partial(jacobian_p.bind, **params)
    return batched(bind, operands, axes, ranks_of(params["biases"]), 1)


def _batch_product(operands: Sequence[Array], axes: Sequence[int | None], **params: Any) -> tuple[Array, int]:
    if axes[1] is not None and not any(axis is not None for i, axis in enumerate(axes) if i != 1):
        return _batch_directions(operands, axes[1], **params)
    bind = functools.partial(product_p.bind, **params)
    (y,), (axis,) = batched(lambda *a: [bind(*a)], operands, axes, ranks_of(params["biases"], (2, 3)), 2)
    return y, axis


def _batch_directions(operands: Sequence[Array], axis: int, **params: Any) -> tuple[Array, int]:
    """If d alone is mapped, the mapped axis is folded into the axis of directions."""
    x, d, *arrays = operands
    d = jnp.moveaxis(d, axis, -3)  # (members,) rows, size, directions, n
    *before, size, directions, n = d.shape
    y = product(x, d.reshape(*before, size * directions, n), *arrays, **params)
    return y.reshape(*y.shape[:-2], size, directions, y.shape[-1]), y.ndim - 2


def product(x: Array, d: Array, *arrays: Array, backward: bool, **params: Any) -> Array:
    """J d, or d J if `backward`: by J itself, if there are so many directions that J is cheaper.

    The saving must also pay for XLA's product with J.
    """
    if d.shape[-2] <= 2 * min(x.shape[-1], n_out_of(arrays, params["biases"])):
        y: Array = product_p.bind(x, d, *arrays, backward=backward, **params)
        return y
    cheaper = backward_is_cheaper((x, *arrays), params["biases"])
    _, jacobian = jacobian_p.bind(x, *arrays, backward=cheaper, laplacian=False, **params)
    return times(jacobian, d, backward)


def times(jacobian: Array, d: Array, backward: bool) -> Array:
    """J d, or d J if `backward`, for J (..., n_out, n_in) and d (..., directions, n_in or n_out)."""
    others = -2 if backward else -1

    def of_row(jacobian: Array, d: Array) -> Array:  # J on the left, so that vmap keeps rows first
        return jnp.moveaxis(jnp.tensordot(jacobian, d, (others, -1), precision=lax.Precision.HIGHEST), 0, 1)

    if jacobian.ndim != d.ndim:  # only one of them has an axis of members
        jacobian, d = (a if a.ndim == 4 else a[None] for a in (jacobian, d))
    if d.shape[-3] == 1 and d.ndim == 3:
        return of_row(jacobian[0], d[0])[None]
    if backward and jacobian.shape[-2] == 1:  # XLA would multiply the small matrices one by one
        return d * jacobian
    if not backward and d.shape[-2] == 1:
        return jnp.sum(jacobian * d, axis=-1)[..., None, :]
    over_rows = jax.vmap(of_row)
    if d.ndim == 4:
        over_rows = jax.vmap(over_rows, tuple(0 if len(a) > 1 else None for a in (jacobian, d)))
    return over_rows(jacobian, d)


def _jvp_by_xla(primitive: Any, by_xla: Callable[..., Any]) -> Callable[..., Any]:
    """A JVP rule: the value comes from the primitive, its derivative from XLA's path."""

    def jvp(primals: Sequence[Array], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
        varying = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

        def function(*values: Array) -> Any:
            each = list(primals)
            for i, value in zip(varying, values, strict=True):
                each[i] = value
            return by_xla(*each, **params)

        _, out = jax.jvp(function, [primals[i] for i in varying], [tangents[i] for i in varying])
        return primitive.bind(*primals, **params), out

    return jvp


def _jvp_product(primals: Sequence[Array], tangents: Sequence[Any], **params: Any) -> tuple[Array, Any]:
    if all(type(tangent) is ad.Zero for i, tangent in enumerate(tangents) if i != 1):
        x, _, *arrays = primals
        return product_p.bind(*primals, **params), product_p.bind(x, tangents[1], *arrays, **params)
    found: tuple[Array, Any] = _jvp_by_xla(product_p, product_on_xla)(primals, tangents, **params)
    return found


def _transpose_product(
    cotangent: Any, x: Any, d: Any, *arrays: Any, backward: bool, **params: Any
) -> list[Any]:
    if any(ad.is_undefined_primal(a) for a in (x, *arrays)):
        raise NotImplementedError(
            "the product of a network's Jacobian is linear in the tangents alone; use jax.vjp"
        )
    back = product_p.bind(x, cotangent, *arrays, backward=not backward, **params)
    if d.aval.ndim < back.ndim:  # all members share d
        back = back.sum(0)
    return [None, back, *(None for _ in arrays)]


for primitive, shapes, by_xla, call, divided, batch, jvp in (
    (
        jacobian_p, _jacobian_shapes, jacobian_on_xla, _call_jacobian, _partitioned_jacobian, _batch_jacobian,
        _jvp_by_xla(jacobian_p, jacobian_by_products),
    ),
    (
        product_p, _product_shape, product_on_xla, _call_product, _partitioned_product, _batch_product,
        _jvp_product,
    ),
):  # fmt: skip
    several = primitive.multiple_results
    primitive.def_impl(eager(primitive))
    primitive.def_abstract_eval(shapes)
    batching.primitive_batchers[primitive] = batch
    ad.primitive_jvps[primitive] = jvp
    requires_devices_during_lowering(primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(by_xla, multiple_results=several))
    mlir.register_lowering(primitive, _lowering(primitive, by_xla, call, divided), platform="cpu")
    nan_checks(primitive)
ad.primitive_transposes[product_p] = _transpose_product
