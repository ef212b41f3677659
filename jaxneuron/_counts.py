"""Counts the parameters, bytes and multiply-adds of a network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax

from jaxneuron._errors import BadType, BadValue, public
from jaxneuron._members import members_of
from jaxneuron._names import Parametric
from jaxneuron._params import MLP, Affine, as_affine, check_mlp


@public
def parameter_count(params: Affine | MLP) -> int:
    """Counts the numbers in a neuron, a layer or a network, from the shapes of its arrays.

    Args:
      params: an `Affine` or an `MLP`, of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      An exact int. For a stack of networks, all members are counted.

    Raises:
      TypeError: if `params` is neither an `Affine` nor an `MLP`.
      ValueError: if the numbers or sequences of an `Affine` do not make a neuron or a layer.

    Example:
      >>> parameter_count(Affine([0.5, 0.5], -0.7))
      3
    """
    leaves = jax.tree.leaves(params)
    if not isinstance(params, (Affine, MLP)):
        raise BadType(
            f"params must be an Affine or an MLP, got {type(params).__name__}; "
            f"pass MLP(layers) for a list of layers"
        )
    if isinstance(params, Affine) and not all(hasattr(leaf, "shape") for leaf in leaves):
        leaves = jax.tree.leaves(as_affine(params))
    return _numbers(leaves)


def _numbers(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@public
def dense_parameter_count(sizes: Sequence[int]) -> int:
    """The number of parameters of a network with these sizes, biases included.

        sum over layers of m_out (m_in + 1)

    Args:
      sizes: the number of units of every layer, inputs first. `(n, 1)` is one neuron: n + 1 parameters.

    Returns:
      An exact int.

    Raises:
      ValueError: if there are fewer than two sizes, or one is negative.
      TypeError: if a size is not an integer.

    Example:
      >>> dense_parameter_count((2, 3, 1))
      13
    """
    sizes = as_sizes(sizes)
    return sum(m_out * (m_in + 1) for m_in, m_out in itertools.pairwise(sizes))


@public
def summary(mlp: MLP) -> str:
    """A table of a network, as text.

    Args:
      mlp: an `MLP` or a stack of networks, of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      A line for each layer with the shapes, the activation and the number of parameters; a line with the
      total, the bytes that the arrays take, and the multiply-adds of the products for one row; then the names
      of the inputs and of the outputs, if the network has them. For a stack, the parameters of all members
      are counted, and the total says how many members there are.

    Raises:
      TypeError: if `mlp` is not an `MLP`.

    Example:
      >>> print(summary(MLP([([[1.0], [2.0]], [0.5])])))
      layer  w       b     activation  parameters
          0  (2, 1)  (1,)  sigmoid              3
      total: 3 parameters, 24 bytes (float64), 2 multiply-adds a row
    """
    check_mlp(mlp, "pass MLP([layer]) for a layer")
    rows = [("layer", "w", "b", "activation", "parameters")]
    for i, (layer, activation) in enumerate(zip(mlp.layers, mlp.activations, strict=True)):
        bias = "none" if layer.b is None else str(layer.b.shape)
        name = (
            str(activation)
            if isinstance(activation, (str, Parametric))
            else f"<{getattr(activation, '__name__', activation)}>"
        )
        rows.append((str(i), str(layer.w.shape), bias, name, f"{_numbers(layer):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, "><<<>", widths, strict=True))
        for row in rows
    ]
    leaves = jax.tree.leaves(mlp)
    stored = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    dtypes = ", ".join(sorted({leaf.dtype.name for leaf in leaves}))
    multiply_adds = sum(math.prod(layer.w.shape) for layer in mlp.layers)
    members = members_of(mlp)
    stack = "" if members is None else f"{members:,} members, "
    total = f"{stack}{_numbers(mlp):,} parameters, {stored:,} bytes ({dtypes})"
    names = [f"{what}: {', '.join(n)}" for what in ("inputs", "outputs") if (n := getattr(mlp, what))]
    return "\n".join([*lines, f"total: {total}, {multiply_adds:,} multiply-adds a row", *names])


def as_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """`sizes` as integers: the number of units of every layer, inputs first."""
    try:
        checked = tuple(size.__index__() for size in sizes)
    except (TypeError, AttributeError):
        raise BadType(
            f"sizes must be a sequence of integers, got {sizes!r}; pass (n_in, ..., n_out)"
        ) from None
    if len(checked) < 2 or min(checked) < 0:
        raise BadValue(
            f"sizes must hold at least 2 numbers, none negative, got {checked}; pass (n_in, ..., n_out)"
        )
    return checked
