"""Equinox modules, both ways."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxneuron._arrays import as_array, concrete
from jaxneuron._errors import BadValue, Missing, public
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._names import Activation, canonical, resolve
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._activations import JAX_FUNCTIONS, known
from jaxneuron.convert._check import Check, compare, compare_given
from jaxneuron.convert._modules import is_a
from jaxneuron.convert.steps import Step, assemble, network


@public
@concrete
def from_equinox(module: Any, *, dtype: DTypeLike | None = None, check: Check = True) -> MLP:
    """A network from an Equinox module, with its activations.

    Args:
      module: an `eqx.nn.MLP`, an `eqx.nn.Linear`, or an `eqx.nn.Sequential` of `Linear` and `Lambda`. Equinox
        calls a `Lambda` on one row, and an `MLP`'s activations on one unit. A function that has no name in
        jaxneuron is applied in the same way, to each row or to each unit.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: True compares the network with `jax.vmap(module)`, in inference, on eight fixed rows, if the
        module can be called on them. False does not. `(rows, outputs)` compares it with these outputs of the
        source.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded.

    Raises:
      ValueError: the module has other layers, or a `__call__` that is not the library's; it is an ensemble,
        for which `eqx.filter_vmap(from_equinox)(ensemble)` gives a stack of networks; an activation has
        parameters; the network's outputs differ from the module's by more than rounding explains; a weight is
        too large for `dtype`.
      TypeError: `dtype` is not one of float64, float32, float16 and bfloat16.
      ImportError: Equinox is not installed.

    Numerics: the weights are the source's transposed, bit for bit, or rounded once to `dtype`. Tested by
    tests/interop/test_equinox.py.

    Example:
      `from_equinox(eqx.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0)))`
    """
    equinox = _library()
    mlp = assemble(_steps(module, equinox.nn), "module", dtype=dtype)
    if check is True:
        compare(mlp, lambda rows: _forward(module, rows, equinox), "module")
    else:
        compare_given(mlp, check)
    return mlp


def _library() -> Any:
    try:
        import equinox
    except ImportError:
        raise Missing("needs the equinox library; pip install equinox") from None
    return equinox


def _forward(module: Any, rows: np.ndarray, equinox: Any) -> Any:
    """The module's outputs for each row, in inference mode, without dropout."""
    first = module
    while hasattr(first, "layers"):
        first = first.layers[0]
    scalars = getattr(first, "in_features", None) == "scalar"
    dtype = jnp.result_type(*(leaf for leaf in jax.tree.leaves(module) if equinox.is_array(leaf)))
    x = jnp.asarray(rows[:, 0] if scalars else rows, dtype)
    return jax.vmap(equinox.nn.inference_mode(module))(x)


def _steps(module: Any, nn: Any) -> Iterator[Step]:
    if _is(module, nn.Sequential):
        for layer in module.layers:
            yield from _steps(layer, nn)
    elif _is(module, nn.MLP):
        *hidden, last = _layers(module)
        for layer in hidden:
            yield from (_linear(layer, nn), _activation(module.activation, OfUnit, nn))
        yield _linear(last, nn)
        final = _activation(module.final_activation, OfUnit, nn)
        if not hidden and final != "identity":
            raise BadValue(
                "an eqx.nn.MLP of depth 0 must have the identity as final_activation, which some versions of "
                f"Equinox apply and some do not, got {module.final_activation!r:.80}; "
                "pass eqx.nn.Sequential([module.layers[0], eqx.nn.Lambda(final_activation)])"
            )
        yield final
    elif _is(module, nn.Linear):
        yield _linear(module, nn)
    elif _is(module, nn.Lambda):
        yield _activation(module.fn, OfRow, nn)
    elif not (_is(module, nn.Dropout) or _is(module, nn.Identity)):
        raise BadValue(
            f"layers must be Linear, Lambda, or an MLP or Sequential of them, "
            f"got {type(module).__name__}; pass the part that is an MLP"
        )


def _is(module: Any, kind: Any) -> bool:
    return is_a(module, kind, "Equinox", "eqx.nn.")


def _layers(mlp: Any) -> list[Any]:
    """The layers of an `eqx.nn.MLP`. With scan=True those between the first and the last are stacked."""
    if not getattr(mlp, "scan", False) or mlp.depth == 0:
        return list(mlp.layers)
    first, stack, last = mlp.layers
    if np.ndim(stack.weight) != 3 or len(stack.weight) != mlp.depth - 1:
        raise _of_an_ensemble(stack.weight)
    return [first, *(jax.tree.map(lambda a, i=i: a[i], stack) for i in range(mlp.depth - 1)), last]


def _linear(layer: Any, nn: Any) -> Affine:
    if not _is(layer, nn.Linear):
        raise BadValue(f"layers must be Linear, got {type(layer).__name__}; pass the part that is an MLP")
    w, b = as_array(layer.weight, "weight"), None if layer.bias is None else as_array(layer.bias, "bias")
    if w.ndim > 2 or (b is not None and b.ndim > 1):
        raise _of_an_ensemble(w)
    return Affine(w.T, b)


def _of_an_ensemble(weight: Any) -> BadValue:
    return BadValue(
        f"layers must have weights of two axes, got {np.shape(weight)}, as those of an ensemble have; "
        f"pass eqx.filter_vmap(from_equinox)(ensemble), which gives a stack of networks"
    )


def _activation(function: Any, of: type[OfRow] | type[OfUnit], nn: Any) -> Activation:
    if any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(function)):
        raise BadValue(
            f"activations must have no parameters, got {type(function).__name__}; "
            f"use from_pairs with a function that holds them"
        )
    default = inspect.signature(nn.MLP.__init__).parameters["final_activation"].default  # a lambda x: x
    named = "identity" if function is default else canonical(known(function), "activation")
    if named in OF_ROWS and of is OfUnit:
        raise BadValue(
            f"activations of an eqx.nn.MLP must be functions of one unit, as Equinox calls them, "
            f"got {named}; pass an eqx.nn.Sequential with eqx.nn.Lambda(jax.nn.{named}) after the MLP"
        )
    ours = isinstance(named, str) or (getattr(named, "__module__", None) or "").startswith("jaxneuron.")
    return named if ours else of(function)


@dataclass(frozen=True)
class OfRow:
    """A function of one row of units, as Equinox calls a `Lambda`, applied to each row of any batch."""

    function: Callable[[Array], Array]

    def __call__(self, z: Array) -> Array:
        return _mapped(self.function, z, z.ndim - 1)


@dataclass(frozen=True)
class OfUnit:
    """A function of one unit, as Equinox calls an `MLP`'s activations, applied to each unit of any batch."""

    function: Callable[[Array], Array]

    def __call__(self, z: Array) -> Array:
        return _mapped(self.function, z, z.ndim)


def _mapped(function: Callable[[Array], Array], z: Array, axes: int) -> Array:
    for _ in range(axes):
        function = jax.vmap(function)
    return function(z)


@public
@concrete
def to_equinox(mlp: MLP) -> Any:
    """The Equinox module that computes what the network does.

    Args:
      mlp: an `MLP`.

    Returns:
      An `eqx.nn.Sequential` of `Linear` and `Lambda`, which takes one row. Apply `jax.vmap` to it for a
      batch.

    Raises:
      TypeError: `mlp` is not an `MLP`.
      ValueError: `mlp` is a stack of networks.
      ImportError: Equinox is not installed.

    Numerics: the weights are the network's transposed, bit for bit. Tested by tests/interop/test_equinox.py.

    Example:
      `jax.vmap(to_equinox(jaxneuron.gates.XOR))(rows)`
    """
    equinox = _library()
    functions: dict[Any, Any] = {name: f for f, name in reversed(JAX_FUNCTIONS.items())}
    parts = []
    for layer, activation in zip(network(mlp).layers, mlp.activations, strict=True):
        w, b = jnp.array(layer.w), None if layer.b is None else jnp.array(layer.b)
        linear = equinox.nn.Linear(*w.shape, use_bias=b is not None, dtype=w.dtype, key=jax.random.key(0))
        parts.append(
            equinox.tree_at(lambda m: (m.weight, m.bias), linear, (w.T, b), is_leaf=lambda leaf: leaf is None)
        )
        if activation != "identity":
            parts.append(equinox.nn.Lambda(functions.get(activation, resolve(activation))))
    return equinox.nn.Sequential(parts)
