"""Reads the policies that Brax trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import as_array, concrete
from jaxneuron._errors import BadValue, public
from jaxneuron._params import MLP
from jaxneuron.convert._check import Check, compare_given
from jaxneuron.convert._names import named_layers
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import Activations, assemble, chain


@public
@concrete
def from_brax(
    params: Sequence[Any],
    *,
    activation: Activations,
    obs_key: str | None = None,
    dtype: DTypeLike | None = None,
    check: Check = None,
) -> MLP:
    """The deterministic policy that Brax trained, from observations to actions.

        action = tanh(first half of policy((observation - mean) / std))    tanh-normal head, the default
        action = policy((observation - mean) / std)                        normal head

    Args:
      params: `(normalizer, policy, value)`, as PPO's training returns it, or `(normalizer, policy)`, as SAC's
        does. The normalizer is folded into the first layer. The parts that give the spread of the actions are
        left out: the second half of the tanh-normal head's outputs, or a layer or parameters beside the
        normal head. Brax also returns a normalizer if normalize_observations=False, its default, kept the
        policy from using it: then pass `types.SimpleNamespace(mean=0.0, std=1.0)` instead.
      activation: the activation of the hidden layers: a name such as "tanh", or a hashable callable. One for
        all hidden layers, or a sequence with one for each. Brax's own default is "silu" for PPO and "relu"
        for SAC.
      obs_key: the name of the observations that the policy sees, such as "state", if there are several.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: `(observations, actions)`: observations, and the actions that the deterministic policy computed
        for them. The network is compared with these.

    Returns:
      An `MLP` of JAX arrays. Its final activation is "tanh", or "identity" for the normal head. While
      jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are not rounded.

    Raises:
      ValueError: `params` lacks a normalizer or a policy; the number of outputs is odd; there are several
        observations and `obs_key` is not given; a weight is too large for `dtype`; the actions differ from
        those in `check` by more than rounding explains.
      TypeError: `dtype` is not one of float64, float32, float16 and bfloat16.

    Numerics: the normalizer is folded in float64, and its layer is rounded once. A mean of more than 16
    deviations is subtracted in a layer of its own. The other weights are the source's, bit for bit. Tested by
    tests/interop/test_brax.py.

    Example:
      `from_brax(params, activation="silu")`, with `make_policy, params, metrics = ppo.train(...)`
    """
    if not isinstance(params, (tuple, list)) or len(params) not in (2, 3):
        raise BadValue(
            f"params must be (normalizer, policy, value) or (normalizer, policy), "
            f"got {type(params).__name__}; pass what the training function returned"
        )
    normalizer, policy = params[:2]
    if isinstance(policy, Mapping) and list(policy) == ["params"]:
        policy = policy["params"]
    normal_head = isinstance(policy, Mapping) and {"MLP_0", "Dense_0"} <= policy.keys()
    parts = [policy["MLP_0"], {"Dense_0": policy["Dense_0"]}] if normal_head else [policy]
    layers = [
        layer
        for part in parts
        for layer in named_layers(part, "params[1]", remedy="only policies of dense layers are read")
    ]
    mean, std = (_moment(normalizer, name, obs_key) for name in ("mean", "std"))
    n = layers[-1].w.shape[1]
    if n % 2 and not normal_head:
        raise BadValue(
            f"params[1] must have an even number of outputs, location and spread of each action, "
            f"got {n}; use from_flax for another distribution"
        )
    with np.errstate(all="ignore"):
        scaling = Scaling(mean=mean, scale=1 / std)
    steps = [scaling, *chain(layers, activation, "identity" if normal_head else "tanh")]
    if not normal_head:
        steps.append(Units(slice(n // 2)))
    mlp = assemble(steps, "params", dtype=dtype)
    compare_given(mlp, check, steps=steps)
    return mlp


def _moment(normalizer: Any, name: str, obs_key: str | None) -> np.ndarray:
    """The mean or the deviation of the observations that the policy sees."""
    value = getattr(normalizer, name, None)
    if isinstance(value, Mapping):
        if not isinstance(obs_key, str) or obs_key not in value:
            raise BadValue(
                f"obs_key must be one of {', '.join(map(repr, value))}, got {obs_key!r}; "
                f"pass the observations that the policy sees"
            )
        value = value[obs_key]
    if value is None:
        raise BadValue(
            f"params[0] must be a normalizer with mean and std, got {type(normalizer).__name__}; "
            f"use from_flax on the policy if there is no normalisation"
        )
    return np.asarray(as_array(value, f"params[0].{name}"), np.float64)
