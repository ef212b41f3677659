"""Networks of the JAX libraries: Flax linen and NNX, Equinox, Haiku, Brax; and plain pairs of arrays."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxneuron._activations import Activation
from jaxneuron._arrays import as_array
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._functions import known
from jaxneuron.convert._names import named_layers
from jaxneuron.convert._steps import Activations, Scaling, Step, assemble, chain, refused, required


def from_pairs(
    pairs: Iterable[Sequence[Any]],
    *,
    orientation: str,
    activation: Activations,
    final_activation: Activation,
    dtype: DTypeLike | None = None,
) -> MLP:
    """A network from a list of `(w, b)` pairs.

    Args:
      pairs: `(w, b)` for every layer, `b (n_out,)` or None.
      orientation: "in_out" for `w (n_in, n_out)`, "out_in" for `w (n_out, n_in)`. A square layer fits
        both ways, so it is never guessed.
      activation, final_activation: as for `MLP`.
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      An `MLP` of JAX arrays, NumPy arrays where JAX does not hold the dtype now, as `load` gives.

    Raises:
      ValueError: another orientation, layers that do not fit. TypeError: what is no pair of arrays.

    Numerics: the weights are the source's, bit for bit; held by tests/test_convert.py.

    Example:
      >>> pairs = [([[1.0, 2.0]], [0.5])]
      >>> from_pairs(pairs, orientation="out_in", activation="relu", final_activation="tanh")
      MLP(float64[2,1]+float64[1] tanh)
    """
    where = "from_pairs"
    if orientation not in ("in_out", "out_in"):
        raise ValueError(
            f"{where}: orientation must be 'in_out' for w (n_in, n_out) or 'out_in' for w (n_out, n_in), "
            f"got {orientation!r}; see how the source multiplies: x @ w is in_out, w @ x is out_in"
        )
    if not isinstance(pairs, Iterable):
        raise TypeError(
            f"{where}: pairs must be a sequence of (w, b) pairs, got {type(pairs).__name__}; pass a list"
        )
    layers = []
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"{where}: layer {i} must be a (w, b) pair, got {type(pair).__name__}; "
                f"pass b=None for no bias"
            )
        w, b = as_array(pair[0], f"{where}: layer {i}: w"), pair[1]
        layers.append(Affine(w.T if orientation == "out_in" else w, b))
    return assemble(chain(layers, activation, final_activation), where, dtype=dtype)


def from_flax(
    params: Mapping[str, Any],
    *,
    activation: Activations,
    final_activation: Activation,
    layers: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
) -> MLP:
    """A network from the parameters of a Flax linen module.

    Args:
      params: `{"params": {"Dense_0": {"kernel", "bias"}, ...}}` or what is in it, nested as it may be.
        Layers are taken in the order of the numbers in their names, `Dense_10` after `Dense_9`.
      layers: the names of the layers in order, "block/Dense_0", where they are not numbered.
      activation, final_activation: as for `MLP`; the parameters do not hold them.
      dtype: to convert the layers to; None keeps theirs.

    Returns, Numerics: as for `from_pairs`.

    Raises:
      ValueError: parameters of something else than dense layers, names that tell no order.

    Example:
      >>> params = {"params": {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}}}
      >>> from_flax(params, activation="relu", final_activation="identity")
      MLP(float64[3,2]+float64[2] identity)
    """
    if isinstance(params, Mapping) and list(params) == ["params"]:
        params = params["params"]
    found = named_layers(params, "from_flax", layers=layers)
    return assemble(chain(found, activation, final_activation), "from_flax", dtype=dtype)


def from_nnx(
    module: Any,
    *,
    activation: Activations | None = None,
    final_activation: Activation | None = None,
    layers: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
) -> MLP:
    """A network from a Flax NNX module, or from its state.

    Args:
      module: an `nnx.Sequential` of `nnx.Linear` and activations; or another module that holds
        `nnx.Linear`s, or the `nnx.State` of one.
      activation, final_activation: as for `MLP`; read from an `nnx.Sequential`, required otherwise.
      layers, dtype: as for `from_flax`.

    Returns, Raises, Numerics: as for `from_flax`. ImportError: without flax.
    """
    where = "from_nnx"
    try:
        from flax import nnx
    except ImportError:
        raise ImportError(f"{where}: needs the flax library; pip install flax") from None
    if isinstance(module, nnx.Sequential):
        refused(where, "an nnx.Sequential", activation, final_activation, layers)
        return assemble(_nnx_steps(module, nnx), where, dtype=dtype)
    if isinstance(module, nnx.Module):
        module = nnx.state(module, nnx.Not(nnx.RngState))
    if not isinstance(module, Mapping):
        raise TypeError(
            f"{where}: module must be an nnx.Module or its state, got {type(module).__name__}; pass one"
        )
    found = named_layers(
        module, where, layers=layers, array=lambda v: v[...] if isinstance(v, nnx.Variable) else v
    )
    given = required(where, "an nnx.Sequential", activation, final_activation)
    return assemble(chain(found, *given), where, dtype=dtype)


def _nnx_steps(sequential: Any, nnx: Any) -> Iterator[Step]:
    for module in sequential.layers:
        if isinstance(module, nnx.Sequential):
            yield from _nnx_steps(module, nnx)
        elif isinstance(module, nnx.Linear):
            yield Affine(module.kernel[...], None if module.bias is None else module.bias[...])
        elif not isinstance(module, nnx.Module):
            yield known(module)
        elif not isinstance(module, nnx.Dropout):
            raise ValueError(
                f"from_nnx: module must hold nnx.Linear and activations alone, got {type(module).__name__}; "
                f"pass the part that is an MLP"
            )


def from_equinox(module: Any, *, dtype: DTypeLike | None = None) -> MLP:
    """A network from an Equinox module; its activations are read from it.

    Args:
      module: an `eqx.nn.MLP`, an `eqx.nn.Linear`, or an `eqx.nn.Sequential` of `Linear` and `Lambda`.
      dtype: to convert the layers to; None keeps theirs.

    Returns, Numerics: as for `from_pairs`; the weights are transposed.

    Raises:
      ValueError: a module of something else, activations with parameters. ImportError: without equinox.
    """
    try:
        import equinox
    except ImportError:
        raise ImportError("from_equinox: needs the equinox library; pip install equinox") from None
    return assemble(_equinox_steps(module, equinox.nn), "from_equinox", dtype=dtype)


def _equinox_steps(module: Any, nn: Any) -> Iterator[Step]:
    if isinstance(module, nn.Sequential):
        for layer in module.layers:
            yield from _equinox_steps(layer, nn)
    elif isinstance(module, nn.MLP):
        layers = [single for layer in module.layers for single in _unstacked(layer)]
        for layer in layers[:-1]:
            yield from (_linear(layer), _equinox_activation(module.activation, nn))
        yield from (_linear(layers[-1]), _equinox_activation(module.final_activation, nn))
    elif isinstance(module, nn.Linear):
        yield _linear(module)
    elif isinstance(module, nn.Lambda):
        yield _equinox_activation(module.fn, nn)
    elif not isinstance(module, (nn.Dropout, nn.Identity)):
        raise ValueError(
            f"from_equinox: module must be an MLP, or a Sequential of Linear and Lambda, "
            f"got {type(module).__name__}; pass the part that is an MLP"
        )


def _linear(layer: Any) -> Affine:
    return Affine(layer.weight.T, layer.bias)


def _unstacked(layer: Any) -> list[Any]:
    """The layers that `scan=True` has stacked into one."""
    if layer.weight.ndim == 2:
        return [layer]
    return [jax.tree.map(lambda a, i=i: a[i], layer) for i in range(len(layer.weight))]


def _equinox_activation(function: Any, nn: Any) -> Activation:
    if any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(function)):
        raise ValueError(
            f"from_equinox: activations must be without parameters, got {type(function).__name__}; "
            f"an MLP's are functions"
        )
    default = inspect.signature(nn.MLP.__init__).parameters["final_activation"].default  # a lambda x: x
    return "identity" if function is default else known(function)


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
      params: `{"mlp/~/linear_0": {"w", "b"}, ...}`; `linear` comes before `linear_1`.
      layers, activation, final_activation, dtype: as for `from_flax`.

    Returns, Raises, Numerics: as for `from_flax`.

    Example:
      >>> params = {"mlp/~/linear_0": {"w": np.ones((3, 2))}, "mlp/~/linear_1": {"w": np.ones((2, 1))}}
      >>> from_haiku(params, activation="relu", final_activation="identity")
      MLP(float64[3,2] relu, float64[2,1] identity)
    """
    found = named_layers(params, "from_haiku", names=("w", "b"), layers=layers, first=0)
    return assemble(chain(found, activation, final_activation), "from_haiku", dtype=dtype)


def from_brax(
    params: Sequence[Any],
    *,
    activation: Activations,
    obs_key: str | None = None,
    dtype: DTypeLike | None = None,
) -> MLP:
    """The deterministic policy that Brax trained, from observations to actions.

        action = tanh(first half of policy((observation - mean) / std))

    Args:
      params: `(normalizer, policy, value)` as PPO's training returns it, or `(normalizer, policy)`, SAC's.
        The normalizer is folded into the first layer; the second half of the policy's outputs, the
        spread of its actions, is left away.
      activation: of the hidden layers; Brax's own default is "silu" for PPO, "relu" for SAC.
      obs_key: which observations the policy sees, where there are several, such as "state".
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      As for `from_pairs`; the final activation is "tanh".

    Raises:
      ValueError: no normalizer and policy, an odd number of outputs, observations without `obs_key`.

    Numerics: folded in float64 and rounded once; a mean of more than 16 deviations is subtracted in a
    layer of its own.
    """
    where = "from_brax"
    if not isinstance(params, (tuple, list)) or len(params) not in (2, 3):
        raise ValueError(
            f"{where}: params must be (normalizer, policy, value) or (normalizer, policy), "
            f"got {type(params).__name__}; pass what the training function returned"
        )
    normalizer, policy = params[:2]
    if isinstance(policy, Mapping) and list(policy) == ["params"]:
        policy = policy["params"]
    layers = named_layers(policy, where)
    moments = []
    for name in ("mean", "std"):
        value = getattr(normalizer, name, None)
        if isinstance(value, Mapping):
            if obs_key not in value:
                raise ValueError(
                    f"{where}: obs_key must be one of {', '.join(map(repr, value))}, got {obs_key!r}; "
                    f"pass the observations that the policy sees"
                )
            value = value[obs_key]
        if value is None:
            raise ValueError(
                f"{where}: params[0] must be a normalizer with mean and std, "
                f"got {type(normalizer).__name__}; without normalisation use from_flax on the policy"
            )
        moments.append(np.asarray(as_array(value, f"{where}: {name}"), np.float64))
    w, b = layers[-1]
    if w.shape[1] % 2:
        raise ValueError(
            f"{where}: the policy must have an even number of outputs, location and spread of each action, "
            f"got {w.shape[1]}; use from_flax for another distribution"
        )
    half = w.shape[1] // 2
    layers[-1] = Affine(w[:, :half], None if b is None else b[:half])
    with np.errstate(divide="ignore"):
        scaling = Scaling(mean=moments[0], scale=1 / moments[1])
    return assemble([scaling, *chain(layers, activation, "tanh")], where, dtype=dtype)
