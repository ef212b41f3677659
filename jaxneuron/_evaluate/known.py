"""Checks a network once for `evaluate`, and keeps what later calls need: its shapes, its size, the plan."""

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

TRACERS = "mlp and rows must hold numbers, got tracers; call mlp_forward inside jit"


class Known:
    """The facts about a network that `evaluate` needs, except the numbers in its arrays."""

    def __init__(self, mlp: MLP) -> None:
        leaves = jax.tree.leaves(mlp)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise BadType(TRACERS)
        self.layers = fitting(mlp)
        self.functions = [resolve(activation) for activation in mlp.activations]
        members = members_of(mlp)
        self.members = () if members is None else (members,)
        self.n_in, self.n_out = self.layers[0].w.shape[-2], self.layers[-1].w.shape[-1]
        self.numbers = self.n_in + math.prod(self.members) * self.n_out  # numbers in a row and its outputs
        self.tile = default_tile(mlp)
        self.wide = sum(leaf.size for leaf in leaves if leaf.dtype.itemsize == 8)
        self.narrow_bytes = sum(leaf.nbytes for leaf in leaves if leaf.dtype.itemsize < 8)
        self._constant = all(is_jax_array(type(leaf)) for leaf in leaves)  # type: ignore[arg-type]
        self._layouts = _layouts(mlp) if self.layers is mlp.layers else ()

    def holds(self, mlp: MLP) -> bool:
        """Whether it still describes the network: NumPy arrays can get another shape or dtype in place."""
        return self._constant or self._layouts == _layouts(mlp)

    def shape(self, n: Any) -> tuple[Any, ...]:
        """The shape of the outputs for n rows."""
        return (*self.members, n, self.n_out)

    def bytes(self) -> int:
        """The bytes of the weights as JAX would hold them now, which depends on `jax_enable_x64`."""
        return self.narrow_bytes + self.wide * (8 if host.x64() else 4)

    @functools.cached_property
    def network(self) -> host.Network:
        """The network for the CPU kernel, which reads the weights where they are."""
        layers = as_numpy(self.layers)
        return host.Network(layers, self.functions, most_threads(), constant=self._constant)


def _layouts(mlp: MLP) -> list[tuple[Any, ...]]:
    """The shape, dtype and strides of each NumPy array: they can change in place, as its numbers can."""
    arrays = (array for layer in mlp.layers for array in layer if isinstance(array, np.ndarray))
    return [(array.shape, array.dtype, array.strides) for array in arrays]


_seen: weakref.WeakKeyDictionary[MLP, Known] = weakref.WeakKeyDictionary()


def known(mlp: MLP) -> Known:
    """Returns the facts about `mlp`: those of an earlier call, if they still hold."""
    found = _seen.get(mlp)
    if found is None or not found.holds(mlp):
        found = _seen[mlp] = Known(mlp)
    return found
