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
from jaxneuron.convert._check import Check
from jaxneuron.convert._names import Path
from jaxneuron.convert._trees import Convention, from_tree, statistics
from jaxneuron.convert.steps import Activations


@public
@concrete
def from_haiku(
    params: Mapping[str, Any],
    *,
    activation: Activations,
    final_activation: Activation,
    state: Mapping[str, Any] | None = None,
    layers: Sequence[str] | None = None,
    epsilon: float | None = None,
    outputs: slice | None = None,
    stacked: str | None = None,
    dtype: DTypeLike | None = None,
    check: Check = None,
) -> MLP:
    """A network from Haiku parameters.

    Args:
      params: `{"mlp/~/linear_0": {"w", "b"}, ...}`. Layers are taken in the order of the numbers in their
        names: `linear` comes before `linear_1`, and `linear_10` after `linear_9`. Haiku numbers layers of one
        name in the order in which they are created, which is not always the order in which they are called.
      activation: the activation of the hidden layers, which the parameters do not record: a name such as
        "tanh", or a hashable callable. One for all hidden layers, or a sequence with one for each. With
        BatchNorms, a sequence with one for each module in `layers` except the last; "identity" where an
        activation does not follow the module.
      final_activation: the activation of the last layer, likewise.
      state: the moving averages of BatchNorms, `{"batch_norm/~/mean_ema": {"average", ...}, ...}`, as
        `hk.transform_with_state` keeps them. None if there are no BatchNorms.
      layers: the names of the network's layers in order, such as "mlp/~/encoder". Layers that are not named,
        such as a critic, are left out. Name BatchNorms among them: they are folded into the layers beside
        them. None takes all layers, in the order of their numbers.
      epsilon: the epsilon of the BatchNorms, which the parameters do not record: 1e-5, Haiku's default, or
        another number. None if there are no BatchNorms.
      outputs: the units of the last layer to keep, such as `slice(0, 6)` for an actor's means without their
        deviations. None keeps all.
      stacked: the meaning of the first axis of weights `(n, n_in, n_out)`: "members", if `hk.vmap` or
        `jax.vmap` of `init` made it, or "layers", if `hk.experimental.layer_stack` did. None if weights have
        two axes. The arrays of BatchNorms, `(n, n_out)`, have the same first axis.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: `(rows, outputs)`: inputs, and the outputs that the source computed for them. The network is
        compared with these.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded. With `stacked="members"`, a stack of networks: `jax.vmap(mlp_forward, (0, None))(mlp, x)`.

    Raises:
      ValueError: `params` holds other layers than dense layers and BatchNorms; the names don't tell the order
        of the layers; the layers do not chain; weights have three axes and `stacked` is not given; there are
        BatchNorms, but `layers`, `epsilon` or an activation for each module is missing; an activation is
        unknown; `outputs` does not name a unit; a weight is too large for `dtype`; the outputs differ from
        those in `check` by more than rounding explains.
      TypeError: `params` is not a mapping, or `dtype` is not one of float64, float32, float16 and bfloat16.

    Warns:
      UserWarning: without `layers` and `check`, if Haiku numbered the layers and they would chain in another
        order too (layers of `hk.nets.MLP` are numbered from 0, in the order of the calls); without `check`,
        if there are normalisations or biases beside the layers in `layers`, which are left out.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. A BatchNorm is folded in
    float64, and its layer is rounded once. A mean of more than 16 deviations that comes after an activation
    is subtracted in a layer of its own. Tested by tests/interop/test_haiku.py and test_batch_norm.py.

    Example:
      >>> params = {"mlp/~/linear_0": {"w": np.ones((3, 2))}, "mlp/~/linear_1": {"w": np.ones((2, 1))}}
      >>> from_haiku(params, activation="relu", final_activation="identity")
      MLP(float64[3,2] relu, float64[2,1] identity)
    """
    return from_tree(
        params,
        {} if state is None else statistics(state, "state", _average),
        Convention(
            weights=("w", "b"),
            scale="scale",
            shift="offset",
            statistics="state=",
            by_creation=_numbered_by_haiku,
            first=0,
            with_rows=True,
        ),
        activation=activation,
        final_activation=final_activation,
        layers=layers,
        epsilon=epsilon,
        outputs=outputs,
        stacked=stacked,
        dtype=dtype,
        check=check,
    )


def _average(path: Path) -> Path | None:
    """`batch_norm/mean` for `batch_norm/~/mean_ema/average`; None for numbers that only training needs."""
    found = {"~/mean_ema": "mean", "~/var_ema": "var"}.get("/".join(path[-3:-1]))
    if found is None:
        return path
    return (*path[:-3], found) if path[-1] == "average" else None


def _numbered_by_haiku(names: Sequence[str]) -> bool:
    """Whether Haiku gives such names by itself: one name, then the same with `_1`, `_2` and so on."""
    return len({re.sub(r"_[1-9]\d*$", "", name) for name in names}) == 1
