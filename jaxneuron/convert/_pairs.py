"""Reads layers as pairs of arrays, `(w, b)`: for every source that does not have an importer of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jax.typing import DTypeLike

from jaxneuron._arrays import as_array, concrete
from jaxneuron._errors import BadType, BadValue, public
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._check import Check, compare_given
from jaxneuron.convert.steps import Activations, assemble, chain


@public
@concrete
def from_pairs(
    pairs: Iterable[Sequence[Any]],
    *,
    orientation: str,
    activation: Activations,
    final_activation: Activation,
    dtype: DTypeLike | None = None,
    check: Check = None,
) -> MLP:
    """A network from a list of `(w, b)` pairs.

    Args:
      pairs: `(w, b)` for every layer; b is `(n_out,)` or None.
      orientation: "in_out" for `w (n_in, n_out)`, "out_in" for `w (n_out, n_in)`. A square layer fits both
        ways, so the orientation is never guessed.
      activation: the activation of the hidden layers: a name such as "tanh", or a hashable callable. One for
        all hidden layers, or a sequence with one for each. A callable is given all rows at once,
        `(..., n_out)`.
      final_activation: the activation of the last layer, likewise.
      dtype: the dtype to convert the layers to; None keeps the dtypes that they have.
      check: `(rows, outputs)`: inputs, and the outputs that the source computed for them. The network is
        compared with these.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded.

    Raises:
      ValueError: `orientation` is neither of the two; the layers do not fit together; an activation is
        unknown; a weight is too large for `dtype`; the outputs differ from those in `check` by more than
        rounding explains.
      TypeError: an element of `pairs` is not a pair of arrays of numbers, or `dtype` is not one of float64,
        float32, float16 and bfloat16.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Tested by
    tests/convert/test_pairs.py.

    Example:
      >>> pairs = [([[1.0, 2.0]], [0.5])]
      >>> from_pairs(pairs, orientation="out_in", activation="relu", final_activation="tanh")
      MLP(float64[2,1]+float64[1] tanh)
    """
    if not isinstance(orientation, str) or orientation not in ("in_out", "out_in"):
        raise BadValue(
            f"orientation must be 'in_out' for w (n_in, n_out) or 'out_in' for w (n_out, n_in), "
            f"got {orientation!r}; pass 'in_out' if the source multiplies x @ w, 'out_in' if w @ x"
        )
    if not isinstance(pairs, Iterable):
        raise BadType(f"pairs must be a sequence of (w, b) pairs, got {type(pairs).__name__}; pass a list")
    layers = []
    for i, pair in enumerate(pairs):
        name = f"pairs: layer {i}"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise BadType(f"{name} must be a (w, b) pair, got {type(pair).__name__}; pass b=None for no bias")
        w, b = as_array(pair[0], f"{name}: w"), pair[1]
        if w.ndim == 3:
            raise BadValue(
                f"{name}: w must have two axes, got {w.shape}; "
                f"read members by jax.vmap(lambda pairs: from_pairs(pairs, ...))(pairs)"
            )
        layers.append(Affine(w.T if orientation == "out_in" else w, b))
    mlp = assemble(chain(layers, activation, final_activation), "pairs", dtype=dtype)
    compare_given(mlp, check)
    return mlp
