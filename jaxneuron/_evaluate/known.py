"""What `evaluate` finds out about a network once, and keeps as long as it holds: checks, shapes, the plan."""

from __future__ import annotations

import functools
import math
import weakref
from typing import Any

import jax
import numpy as np

from jaxneuron._arrays import is_jax_array
from jaxneuron._errors import BadType
from jaxneuron._evaluate.batches import default_tile
from jaxneuron._evaluate.evaluator import as_numpy, fitting
from jaxneuron._kernels import host
from jaxneuron._kernels.threads import most_threads
from jaxneuron._members import members_of
from jaxneuron._names import resolve
from jaxneuron._params import MLP

TRACERS = "mlp and rows must hold numbers, got tracers; inside jit call mlp_forward"


class Known:
    """What `evaluate` must know of a network, other than what is in its arrays."""

    def __init__(self, mlp: MLP) -> None:
        leaves = jax.tree.leaves(mlp)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise BadType(TRACERS)
        self.layers = fitting(mlp)
        self.functions = [resolve(activation) for activation in mlp.activations]
        members = members_of(mlp)
        self.members = () if members is None else (members,)
        self.n_in, self.n_out = self.layers[0].w.shape[-2], self.layers[-1].w.shape[-1]
        self.numbers = self.n_in + math.prod(self.members) * self.n_out  # of a row and its outputs
        self.tile = default_tile(mlp)
        self.wide = sum(leaf.size for leaf in leaves if leaf.dtype.itemsize == 8)
        self.narrow_bytes = sum(leaf.nbytes for leaf in leaves if leaf.dtype.itemsize < 8)
        self._constant = all(is_jax_array(type(leaf)) for leaf in leaves)  # type: ignore[arg-type]
        self._layouts = _layouts(mlp) if self.layers is mlp.layers else ()

    def holds(self, mlp: MLP) -> bool:
        """Whether it is true of the network still: NumPy's arrays can change in place."""
        return self._constant or self._layouts == _layouts(mlp)

    def shape(self, n: Any) -> tuple[Any, ...]:
        """Of the outputs for n rows."""
        return (*self.members, n, self.n_out)

    def bytes(self) -> int:
        """Of the weights, as JAX has them now."""
        return self.narrow_bytes + self.wide * (8 if host.x64() else 4)

    @functools.cached_property
    def network(self) -> host.Network:
        """The network as the CPU kernel evaluates it, its weights where they are."""
        layers = as_numpy(self.layers)
        return host.Network(layers, self.functions, most_threads(), constant=self._constant)


def _layouts(mlp: MLP) -> list[tuple[Any, ...]]:
    """What can change of NumPy's arrays other than their numbers."""
    arrays = (array for layer in mlp.layers for array in layer if isinstance(array, np.ndarray))
    return [(array.shape, array.dtype, array.strides) for array in arrays]


_seen: weakref.WeakKeyDictionary[MLP, Known] = weakref.WeakKeyDictionary()


def known(mlp: MLP) -> Known:
    found = _seen.get(mlp)
    if found is None or not found.holds(mlp):
        found = _seen[mlp] = Known(mlp)
    return found
