"""Haiku's parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import public
from jaxneuron._names import Activation
from jaxneuron._params import MLP
from jaxneuron.convert._check import Check, compare_given
from jaxneuron.convert._names import named_layers
from jaxneuron.convert._stacks import check_stacked, in_turn
from jaxneuron.convert.steps import Activations, assemble, chain


@public
@concrete
def from_haiku(
    params: Mapping[str, Any],
    *,
    activation: Activations,
    final_activation: Activation,
    layers: Sequence[str] | None = None,
    outputs: slice | None = None,
    stacked: str | None = None,
    dtype: DTypeLike | None = None,
    check: Check = None,
) -> MLP:
    """A network from Haiku parameters.

    Args:
      params: `{"mlp/~/linear_0": {"w", "b"}, ...}`. Layers are taken in the order of the numbers in their
        names, `linear` before `linear_1` and `linear_10` after `linear_9`. Haiku numbers layers of one name
        as they are created, which is not always the order in which they are called.
      activation: of the hidden layers, which the parameters do not record: a name such as "tanh" or a
        hashable callable; one for all, or a sequence with one for each.
      final_activation: the last layer's.
      layers: the names of the network's layers in order, such as "mlp/~/encoder"; what is not named is left
        out, such as a critic. None takes all layers, in the order of their numbers.
      outputs: the units of the last layer to keep, such as `slice(0, 6)` for an actor's means without their
        deviations; None keeps all.
      stacked: what the first axis of weights `(n, n_in, n_out)` is: "members", which `hk.vmap` or `jax.vmap`
        of `init` makes, or "layers", which `hk.experimental.layer_stack` makes; None if there is none.
      dtype: to convert the layers to; None keeps theirs.
      check: `(rows, outputs)` of the source, with which the network is compared.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost. With `stacked="members"` a stack of networks: `jax.vmap(mlp_forward, (0, None))(mlp, x)`.

    Raises:
      ValueError: parameters of other than dense layers, names that tell no order, layers that do not
        chain, weights of three axes without `stacked`, an unknown activation, outputs other than those of
        `check`, no `outputs`, a number too large for `dtype`. TypeError: `params` that are
        not a mapping, another dtype.

    Warns:
      UserWarning: without `layers` and `check`, of layers that Haiku numbered and that would chain in another
        order too. Those of `hk.nets.MLP` are numbered from 0, in the order of the calls.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Held by
    tests/interop/test_haiku.py.

    Example:
      >>> params = {"mlp/~/linear_0": {"w": np.ones((3, 2))}, "mlp/~/linear_1": {"w": np.ones((2, 1))}}
      >>> from_haiku(params, activation="relu", final_activation="identity")
      MLP(float64[3,2] relu, float64[2,1] identity)
    """
    check_stacked(stacked, check)
    found = named_layers(
        params,
        "params",
        names=("w", "b"),
        layers=layers,
        first=0,
        stacked=stacked,
        by_creation=_numbered_by_haiku if check is None else None,
    )
    if stacked == "layers":
        found = in_turn(found)
    mlp = assemble(
        chain(found, activation, final_activation), "params", dtype=dtype, stacked=stacked, outputs=outputs
    )
    compare_given(mlp, check)
    return mlp


def _numbered_by_haiku(names: Sequence[str]) -> bool:
    """Whether Haiku gives such names by itself: one name, then the same with `_1`, `_2` and so on."""
    return len({re.sub(r"_[1-9]\d*$", "", name) for name in names}) == 1
