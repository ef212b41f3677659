"""The parameters of Flax linen, both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadType, public
from jaxneuron._names import Activation
from jaxneuron._params import MLP
from jaxneuron.convert._check import Check
from jaxneuron.convert._trees import Convention, from_tree, statistics
from jaxneuron.convert.steps import Activations, network

PARTITIONED = ("Partitioned", "LogicallyPartitioned")  # Flax's boxes that hold an array as it is


@public
@concrete
def from_flax(
    params: Mapping[str, Any],
    *,
    activation: Activations,
    final_activation: Activation,
    layers: Sequence[str] | None = None,
    epsilon: float | None = None,
    outputs: slice | None = None,
    stacked: str | None = None,
    dtype: DTypeLike | None = None,
    check: Check = None,
) -> MLP:
    """A network from the parameters of a Flax linen module.

    Args:
      params: `{"params": {"Dense_0": {"kernel", "bias"}, ...}}` or its value, nested to any depth. Layers are
        taken in the order of the numbers in their names: `Dense_10` comes after `Dense_9`. Flax numbers
        layers without a name in the order in which they are created, which is not always the order in which
        they are called. With BatchNorms, `{"params": ..., "batch_stats": ...}`.
      activation: the activation of the hidden layers, which the parameters do not record: a name such as
        "tanh", or a hashable callable. One for all hidden layers, or a sequence with one for each. With
        BatchNorms, a sequence with one for each module in `layers` except the last; "identity" where an
        activation does not follow the module.
      final_activation: the activation of the last layer, likewise.
      layers: the names of the network's layers in order, such as "block/Dense_0". Layers that are not named,
        such as a critic, are left out. Name BatchNorms among them: they are folded into the layers beside
        them. None takes all layers, in the order of their numbers.
      epsilon: the epsilon of the BatchNorms, which the parameters do not record: 1e-5, Flax's default, or
        another number. None if there are no BatchNorms.
      outputs: the units of the last layer to keep, such as `slice(0, 6)` for an actor's means without their
        deviations. None keeps all.
      stacked: the meaning of the first axis of kernels `(n, n_in, n_out)`: "members", if `nn.vmap` or
        `jax.vmap` of `init` made it, or "layers", if `nn.scan` did. None if kernels have two axes. The arrays
        of BatchNorms, `(n, n_out)`, have the same first axis.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: `(rows, outputs)`: inputs, and the outputs that the source computed for them. The network is
        compared with these.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded. With `stacked="members"`, a stack of networks: `jax.vmap(mlp_forward, (0, None))(mlp, x)`.

    Raises:
      ValueError: `params` holds other layers than dense layers and BatchNorms; the names don't tell the order
        of the layers; the layers do not chain; kernels have three axes and `stacked` is not given; there are
        BatchNorms, but `layers`, `epsilon` or an activation for each module is missing; an activation is
        unknown; `outputs` does not name a unit; a weight is too large for `dtype`; the outputs differ from
        those in `check` by more than rounding explains.
      TypeError: `params` is not a mapping, or `dtype` is not one of float64, float32, float16 and bfloat16.

    Warns:
      UserWarning: without `layers` and `check`, if Flax numbered the layers and they would chain in another
        order too; without `check`, if there are normalisations, WeightNorm or LoRA beside the layers in
        `layers`, which are left out.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. A BatchNorm is folded in
    float64, and its layer is rounded once. A mean of more than 16 deviations that comes after an activation
    is subtracted in a layer of its own. Tested by tests/interop/test_flax.py and test_batch_norm.py.

    Example:
      >>> params = {"params": {"Dense_0": {"kernel": np.ones((3, 2)), "bias": np.zeros(2)}}}
      >>> from_flax(params, activation="relu", final_activation="identity")
      MLP(float64[3,2]+float64[2] identity)
    """
    stats: Any = {}
    if isinstance(params, Mapping) and "params" in params and {*params} <= {"params", "batch_stats"}:
        params, stats = params["params"], params.get("batch_stats", {})
    return from_tree(
        params,
        statistics(stats, "params: batch_stats"),
        Convention(
            weights=("kernel", "bias"),
            scale="scale",
            shift="bias",
            statistics="batch_stats beside params",
            by_creation=numbered_by_flax,
            array=_unboxed,
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


def numbered_by_flax(names: Sequence[str]) -> bool:
    """Whether Flax gives such names by itself: the name of the class, and a number."""
    return all(re.fullmatch(r"[A-Z]\w*_\d+", name) for name in names)


def _unboxed(leaf: Any) -> Any:
    """The array in a box of Flax's, which records how the array is divided among devices."""
    if not hasattr(leaf, "unbox"):
        return leaf
    if type(leaf).__module__.startswith("flax.") and type(leaf).__name__ in PARTITIONED:
        return leaf.value
    raise BadType(
        f"params must hold arrays, got a {type(leaf).__name__}; pass the arrays in it, as "
        f"flax.linen.meta.unbox(params) or the library that made it gives them"
    )


@public
@concrete
def to_flax_params(mlp: MLP) -> dict[str, Any]:
    """The parameters of the Flax linen module with these dense layers.

    Args:
      mlp: an `MLP`.

    Returns:
      `{"params": {"Dense_0": {"kernel", "bias"}, ...}}`, with the same arrays. The parameters of a linen
      module do not contain its activations: the module has its own. Flax is not needed.

    Raises:
      TypeError: `mlp` is not an `MLP`.
      ValueError: `mlp` is a stack of networks.

    Numerics: the weights are the network's, bit for bit. Tested by tests/convert/test_flax.py.

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
