"""Flax: linen's parameters, both ways, and NNX's modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, BadValue, Missing, public
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._names import named_layers
from jaxneuron.convert.steps import Activations, Step, assemble, chain, network, refused, required


@public
@concrete
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
      params: `{"params": {"Dense_0": {"kernel", "bias"}, ...}}` or its value, nested to any depth. Layers
        are taken in the order of the numbers in their names, `Dense_10` after `Dense_9`.
      activation: of the hidden layers, which the parameters do not record: a name such as "tanh" or a
        hashable callable; one for all, or a sequence with one for each.
      final_activation: the last layer's.
      layers: the names of the layers in order, such as "block/Dense_0", if they are not numbered.
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: parameters of other than dense layers, names that tell no order, layers that do not
        chain, an unknown activation, a number too large for `dtype`. TypeError: `params` that are not a
        mapping, another dtype.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Held by
    tests/interop/test_flax.py.

    Example:
      >>> params = {"params": {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}}}
      >>> from_flax(params, activation="relu", final_activation="identity")
      MLP(float64[3,2]+float64[2] identity)
    """
    if isinstance(params, Mapping) and list(params) == ["params"]:
        params = params["params"]
    found = named_layers(params, "params", layers=layers)
    return assemble(chain(found, activation, final_activation), "params", dtype=dtype)


@public
@concrete
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
      activation: of the hidden layers, a name such as "tanh" or a hashable callable; one for all, or a
        sequence with one for each. Read from an `nnx.Sequential`, required otherwise.
      final_activation: the last layer's, likewise.
      layers: the names of the layers in order, such as "block/linear_0", if they are not numbered.
      dtype: to convert the layers to; None keeps theirs.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost.

    Raises:
      ValueError: a module with other layers, names that tell no order, layers that do not chain,
        activations missing or given twice, a number too large for `dtype`. TypeError: a `module` that is
        neither a module nor a state, another dtype. ImportError: Flax is not installed.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Held by
    tests/interop/test_flax.py.

    Example:
      `from_nnx(nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 2, rngs=rngs)))`
    """
    try:
        from flax import nnx
    except ImportError:
        raise Missing("needs the flax library; pip install flax") from None
    if isinstance(module, nnx.Sequential):
        refused("an nnx.Sequential", activation, final_activation, layers)
        return assemble(_nnx_steps(module, nnx), "module", dtype=dtype)
    if isinstance(module, nnx.Module):
        module = nnx.state(module, nnx.Not(nnx.RngState))
    if not isinstance(module, Mapping):
        raise BadType(f"module must be an nnx.Module or its state, got {type(module).__name__}; pass one")
    found = named_layers(
        module, "module", layers=layers, array=lambda v: v[...] if isinstance(v, nnx.Variable) else v
    )
    given = required("an nnx.Sequential", activation, final_activation)
    return assemble(chain(found, *given), "module", dtype=dtype)


def _nnx_steps(sequential: Any, nnx: Any) -> Iterator[Step]:
    for module in sequential.layers:
        if isinstance(module, nnx.Sequential):
            yield from _nnx_steps(module, nnx)
        elif isinstance(module, nnx.Linear):
            yield Affine(module.kernel[...], None if module.bias is None else module.bias[...])
        elif not isinstance(module, nnx.Module):
            yield module
        elif not isinstance(module, nnx.Dropout):
            raise BadValue(
                f"layers must be nnx.Linear or activations, got {type(module).__name__}; "
                f"pass the part that is an MLP"
            )


@public
@concrete
def to_flax_params(mlp: MLP) -> dict[str, Any]:
    """The parameters of the Flax linen module with these dense layers.

    Args:
      mlp: an `MLP`.

    Returns:
      `{"params": {"Dense_0": {"kernel", "bias"}, ...}}`, the same arrays. The activations are not among
      a linen module's parameters: the module has its own. Flax is not needed.

    Raises:
      TypeError: an `mlp` that is not an `MLP`. ValueError: a stack of networks.

    Numerics: the weights are the network's, bit for bit. Held by tests/convert/test_flax.py.

    Example:
      >>> to_flax_params(jaxneuron.gates.XOR)["params"]["Dense_1"]["bias"].shape
      (1,)
    """
    layers = network(mlp).layers
    return {
        "params": {
            f"Dense_{i}": {"kernel": w} if b is None else {"kernel": w, "bias": b}
            for i, (w, b) in enumerate(layers)
        }
    }
