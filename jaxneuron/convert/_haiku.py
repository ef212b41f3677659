"""Haiku's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import public
from jaxneuron._names import Activation
from jaxneuron._params import MLP
from jaxneuron.convert._names import named_layers
from jaxneuron.convert.steps import Activations, assemble, chain


@public
@concrete
def from_haiku(
    params: Mapping[str, Any],
    *,
    activation: Activations,
    final_activation: Activation,
    layers: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
) -> MLP:
    """A network from Haiku parameters.

    Args:
      params: `{"mlp/~/linear_0": {"w", "b"}, ...}`. Layers are taken in the order of the numbers in their
        names, `linear` before `linear_1` and `linear_10` after `linear_9`.
      activation: of the hidden layers, which the parameters do not record: a name such as "tanh" or a
        hashable callable; one for all, or a sequence with one for each.
      final_activation: the last layer's.
      layers: the names of the layers in order, such as "mlp/~/encoder", if they are not numbered.
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: parameters of other than dense layers, names that tell no order, layers that do not
        chain, an unknown activation, a number too large for `dtype`. TypeError: `params` that are not a
        mapping, another dtype.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Held by
    tests/interop/test_haiku.py.

    Example:
      >>> params = {"mlp/~/linear_0": {"w": np.ones((3, 2))}, "mlp/~/linear_1": {"w": np.ones((2, 1))}}
      >>> from_haiku(params, activation="relu", final_activation="identity")
      MLP(float64[3,2] relu, float64[2,1] identity)
    """
    found = named_layers(params, "params", names=("w", "b"), layers=layers, first=0)
    return assemble(chain(found, activation, final_activation), "params", dtype=dtype)
