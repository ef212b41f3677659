"""Equinox's modules, both ways."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadValue, Missing, public
from jaxneuron._names import Activation, resolve
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._activations import JAX_FUNCTIONS
from jaxneuron.convert.steps import Step, assemble, network


@public
@concrete
def from_equinox(module: Any, *, dtype: DTypeLike | None = None) -> MLP:
    """A network from an Equinox module; its activations are read from it.

    Args:
      module: an `eqx.nn.MLP`, an `eqx.nn.Linear`, or an `eqx.nn.Sequential` of `Linear` and `Lambda`.
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: a module with other layers, activations with parameters, a number too large for `dtype`.
        TypeError: another dtype. ImportError: Equinox is not installed.

    Numerics: the weights are the source's transposed, bit for bit, or rounded once to `dtype`. Held by
    tests/interop/test_equinox.py.

    Example:
      `from_equinox(eqx.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0)))`
    """
    return assemble(_steps(module, _library().nn), "module", dtype=dtype)


def _library() -> Any:
    try:
        import equinox
    except ImportError:
        raise Missing("needs the equinox library; pip install equinox") from None
    return equinox


def _steps(module: Any, nn: Any) -> Iterator[Step]:
    if isinstance(module, nn.Sequential):
        for layer in module.layers:
            yield from _steps(layer, nn)
    elif isinstance(module, nn.MLP):
        layers = [single for layer in module.layers for single in _unstacked(layer)]
        for layer in layers[:-1]:
            yield from (_linear(layer), _activation(module.activation, nn))
        yield from (_linear(layers[-1]), _activation(module.final_activation, nn))
    elif isinstance(module, nn.Linear):
        yield _linear(module)
    elif isinstance(module, nn.Lambda):
        yield _activation(module.fn, nn)
    elif not isinstance(module, (nn.Dropout, nn.Identity)):
        raise BadValue(
            f"layers must be Linear, Lambda, or an MLP or Sequential of them, "
            f"got {type(module).__name__}; pass the part that is an MLP"
        )


def _linear(layer: Any) -> Affine:
    return Affine(layer.weight.T, layer.bias)


def _unstacked(layer: Any) -> list[Any]:
    """The layers that `scan=True` has stacked into one."""
    if layer.weight.ndim == 2:
        return [layer]
    return [jax.tree.map(lambda a, i=i: a[i], layer) for i in range(len(layer.weight))]


def _activation(function: Any, nn: Any) -> Activation:
    if any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(function)):
        raise BadValue(
            f"activations must have no parameters, got {type(function).__name__}; "
            f"use from_pairs with a function that holds them"
        )
    default = inspect.signature(nn.MLP.__init__).parameters["final_activation"].default  # a lambda x: x
    return "identity" if function is default else function


@public
@concrete
def to_equinox(mlp: MLP) -> Any:
    """The Equinox module that computes what the network does.

    Args:
      mlp: an `MLP`.

    Returns:
      An `eqx.nn.Sequential` of `Linear` and `Lambda`, for one row; `jax.vmap` it over a batch.

    Raises:
      TypeError: an `mlp` that is not an `MLP`. ValueError: a stack of networks. ImportError: Equinox is
        not installed.

    Numerics: the weights are the network's transposed, bit for bit. Held by tests/interop/test_equinox.py.

    Example:
      `jax.vmap(to_equinox(jaxneuron.gates.XOR))(rows)`
    """
    equinox = _library()
    functions: dict[Any, Any] = {name: f for f, name in reversed(JAX_FUNCTIONS.items())}
    parts = []
    for layer, activation in zip(network(mlp).layers, mlp.activations, strict=True):
        w, b = jnp.asarray(layer.w), None if layer.b is None else jnp.asarray(layer.b)
        linear = equinox.nn.Linear(*w.shape, use_bias=b is not None, dtype=w.dtype, key=jax.random.key(0))
        parts.append(
            equinox.tree_at(lambda m: (m.weight, m.bias), linear, (w.T, b), is_leaf=lambda leaf: leaf is None)
        )
        if activation != "identity":
            parts.append(equinox.nn.Lambda(functions.get(activation, resolve(activation))))
    return equinox.nn.Sequential(parts)
