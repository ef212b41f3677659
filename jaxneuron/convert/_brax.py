"""The policies that Brax trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import as_array, concrete
from jaxneuron._errors import BadValue, public
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._check import Check, compare_given
from jaxneuron.convert._names import named_layers
from jaxneuron.convert.steps import Activations, Scaling, assemble, chain


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

        action = tanh(first half of policy((observation - mean) / std))

    Args:
      params: `(normalizer, policy, value)` as PPO's training returns it, or `(normalizer, policy)`, SAC's.
        The normalizer is folded into the first layer. The second half of the policy's outputs, the spread
        of its actions, is left out. Brax returns a normalizer also where normalize_observations=False, its
        default, kept the policy from using it: then pass `types.SimpleNamespace(mean=0.0, std=1.0)` instead.
      activation: of the hidden layers, a name such as "tanh" or a hashable callable; one for all, or a
        sequence with one for each. Brax's own default is "silu" for PPO, "relu" for SAC.
      obs_key: which observations the policy sees, such as "state", if there are several.
      dtype: to convert the layers to; None keeps theirs.
      check: `(observations, actions)` of the deterministic policy, with which the network is compared.

    Returns:
      An `MLP` of JAX arrays whose final activation is "tanh". float64 ones stay NumPy arrays while
      jax_enable_x64 is off, so that no bit is lost.

    Raises:
      ValueError: `params` without a normalizer and a policy, an odd number of outputs, several observations
        without `obs_key`, actions other than those of `check`, a number too large for `dtype`. TypeError:
        another dtype.

    Numerics: the normalizer is folded in float64 and its layer rounded once; a mean of more than 16
    deviations is subtracted in a layer of its own. The other weights are the source's, bit for bit. Held by
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
    layers = named_layers(policy, "params[1]")
    mean, std = (_moment(normalizer, name, obs_key) for name in ("mean", "std"))
    w, b = layers[-1]
    if w.shape[1] % 2:
        raise BadValue(
            f"params[1] must have an even number of outputs, location and spread of each action, "
            f"got {w.shape[1]}; use from_flax for another distribution"
        )
    half = w.shape[1] // 2
    layers[-1] = Affine(w[:, :half], None if b is None else b[:half])
    with np.errstate(divide="ignore"):
        scaling = Scaling(mean=mean, scale=1 / std)
    steps = [scaling, *chain(layers, activation, "tanh")]
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
            f"without normalisation use from_flax on the policy"
        )
    return np.asarray(as_array(value, f"params[0].{name}"), np.float64)
