"""XLA's own path to a network's derivatives with respect to its inputs: layer by layer, in closed form.

    z = x @ w + b,  y = a(z)           a layer
    J = diag(a'(z)) w^T J_before       forward, from the first layer: each product has n_in rows
    G = G diag(a'(z)) w^T              backward, from the last layer: each product has n_out rows
    L = a'(z) (w^T L_before) + a''(z) (the sum over the inputs of (dz/dx_i)^2)          the Laplacian

T (..., n_in, units) is J with its axes exchanged, so that its rows can be multiplied like those of a batch.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxneuron import _activations
from jaxneuron._arrays import result_dtype, sum_dtype
from jaxneuron._errors import inside
from jaxneuron._kernels import xla
from jaxneuron._names import BY_NAME, NARROW, Parametric

Function = Callable[[Array], Array]


class Local(NamedTuple):
    """The derivatives of an activation at the z of one layer, (..., units)."""

    push: Function  # T of z -> T of y
    pull: Function  # G of y -> G of z, both (..., n_out, units)
    bend: Callable[[Array, Array], Array]  # T of z, L of z -> L of y


class Layer(NamedTuple):
    """A layer, its outputs, and its activation's effect on derivatives. Derivatives have w's dtype."""

    w: Array  # (n_in, n_out)
    y: Array
    local: Local


def value_and_jacobian(
    layers: Sequence[xla.Layer], activations: Sequence[Function], x: Array
) -> tuple[Array, Array]:
    """The outputs y (..., n_out), as `xla.forward` returns them, and the Jacobians J (..., n_out, n_in)."""
    done = list(_evaluated(layers, activations, x))
    first, last = done[0], done[-1]
    if backward_is_cheaper(xla.widths_of(x, layers)):
        jacobian = jnp.swapaxes(last.local.push(_for_each_row(last.w, x)), -1, -2)
        for w, _, local in done[-2::-1]:
            jacobian = _product(local.pull(jacobian), w.T)
        return last.y, jacobian
    tangents = first.local.push(_for_each_row(first.w, x))
    for w, _, local in done[1:]:
        tangents = local.push(_product(tangents, w))
    return last.y, jnp.swapaxes(tangents, -1, -2)


def laplacian(
    layers: Sequence[xla.Layer], activations: Sequence[Function], x: Array
) -> tuple[Array, Array, Array]:
    """y and J as `value_and_jacobian` returns them, and the Laplacian L (..., n_out) of each output."""
    steps = _evaluated(layers, activations, x)
    w, y, local = next(steps)
    tangents, second = _for_each_row(w, x), _for_each_row(jnp.zeros(w.shape[1:], w.dtype), x)
    tangents, second = local.push(tangents), local.bend(tangents, second)
    for w, y, local in steps:  # noqa: B007 # the last layer's y
        before = _product(tangents, w)
        tangents, second = local.push(before), local.bend(before, _product(second, w))
    return y, jnp.swapaxes(tangents, -1, -2), second


def backward_is_cheaper(widths: Sequence[int]) -> bool:
    """Whether the way from y back to x takes fewer multiplications than the way forward.

    `widths`: the number of inputs, then the units of each layer. The number of rows does not matter.
    """
    weights = [m * n for m, n in itertools.pairwise(widths)]
    return widths[-1] * sum(weights[:-1]) < widths[0] * sum(weights[1:])


def _for_each_row(a: Array, x: Array) -> Array:
    return jnp.broadcast_to(a, (*x.shape[:-1], *a.shape))


def _evaluated(layers: Sequence[xla.Layer], activations: Sequence[Function], x: Array) -> Iterator[Layer]:
    """Evaluates the layers, and yields each with its outputs and derivatives, the first layer first."""
    wide = sum_dtype(result_dtype(x, *jax.tree.leaves(layers)))
    for i, ((w, b), activation) in enumerate(zip(layers, activations, strict=True)):
        dtype = result_dtype(*(a for a in (w, b, x) if a is not None))
        z = xla.sums(x.astype(dtype), w.astype(dtype), None if b is None else b.astype(dtype))
        formula = NARROW.get(activation, activation) if dtype.itemsize == 2 else activation
        with inside(f"layer {i}") if len(layers) > 1 else contextlib.nullcontext():
            y, local = _activated(z, activation, functools.partial(_in_dtype, formula, wide))
        x = y.astype(dtype)
        yield Layer(w.astype(wide), x, local)


def _in_dtype(formula: Function, dtype: np.dtype, z: Array) -> Array:
    return xla.activated(z, formula).astype(dtype)


def _activated(z: Array, activation: Function, function: Function) -> tuple[Array, Local]:
    """The value of an activation at z, computed by `function`, and its derivatives there."""
    if activation in (_activations.softmax, _activations.log_softmax):
        y = function(z)
        p = _activations.softmax(z).astype(y.dtype)[..., None, :]
        return y, _of_rows(p, is_log=activation is _activations.log_softmax)
    if activation in BY_NAME.values() or isinstance(activation, Parametric):
        return _of_units(z, function)
    return _of_callable(z, function)


def with_slope(function: Function) -> Callable[[Array], tuple[Array, Array]]:
    """z -> f(z), f'(z), for an elementwise f: by f's own rule (`_math/slopes.py`), or by JAX's derivative."""
    return lambda z: jax.jvp(function, (z,), (jnp.ones_like(z),))


def with_curvature(function: Function) -> Callable[[Array], tuple[Array, Array, Array]]:
    """z -> f(z), f'(z), f''(z), for an elementwise f."""

    def derivatives(z: Array) -> tuple[Array, Array, Array]:
        (y, slope), (_, curvature) = jax.jvp(with_slope(function), (z,), (jnp.ones_like(z),))
        return y, slope, curvature

    return derivatives


def _of_units(z: Array, function: Function) -> tuple[Array, Local]:
    """For an elementwise activation of this package: y, and its derivatives by their formulas."""
    y, slope = with_slope(function)(z)

    def scale(rows: Array) -> Array:
        return rows * slope[..., None, :]

    def bend(tangents: Array, second: Array) -> Array:
        _, _, curvature = with_curvature(function)(z)
        return slope * second + curvature * jnp.sum(jnp.square(tangents), axis=-2)

    return y, Local(scale, scale, bend)


def _of_rows(p: Array, is_log: bool) -> Local:
    """For log_softmax, or for softmax. p (..., 1, units) is the value of softmax.

    The Jacobian of log_softmax is I - 1 p^T. Its second derivative along a tangent is minus the tangent's
    variance under p. softmax is the exponential of log_softmax, which gives its derivatives.
    """

    def less_mean(tangents: Array) -> Array:
        return tangents - jnp.sum(p * tangents, axis=-1, keepdims=True)

    def bend(tangents: Array, second: Array) -> Array:
        squares = jnp.square(less_mean(tangents))
        log = less_mean(second[..., None, :]) - jnp.sum(p * squares, axis=(-1, -2), keepdims=True)
        if not is_log:
            log = p * (log + jnp.sum(squares, axis=-2, keepdims=True))
        return log[..., 0, :]

    if is_log:
        return Local(less_mean, lambda rows: rows - p * jnp.sum(rows, axis=-1, keepdims=True), bend)

    def of_softmax(rows: Array) -> Array:  # its Jacobian is symmetric
        return p * less_mean(rows)

    return Local(of_softmax, of_softmax, bend)


def _of_callable(z: Array, function: Function) -> tuple[Array, Local]:
    """For any other function of a row of z: y, and its derivatives by JAX."""
    y, push = jax.linearize(function, z)

    def of_each(of_one: Function) -> Function:
        return jax.vmap(of_one, in_axes=-2, out_axes=-2)

    def pull(row: Array) -> Array:
        (found,) = jax.vjp(function, z)[1](row)
        return found

    def along(tangent: Array) -> Array:
        return jax.jvp(lambda z: jax.jvp(function, (z,), (tangent,))[1], (z,), (tangent,))[1]

    def bend(tangents: Array, second: Array) -> Array:
        return push(second) + jnp.sum(of_each(along)(tangents), axis=-2)

    return y, Local(of_each(push), of_each(pull), bend)


def _product(rows: Array, w: Array) -> Array:
    """rows (..., m) @ w (m, n), with the precision of the layers' own products."""
    return xla.product(rows, w, rows.dtype)
