"""Networks with random weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxneuron._arrays import FLOATS
from jaxneuron._counts import as_sizes
from jaxneuron._errors import BadType, public
from jaxneuron._math.activations import ACTIVATIONS, facts_of
from jaxneuron._names import Activation, Parametric
from jaxneuron._params import MLP, Affine, as_activations, as_mlp, each_activation


@public
def init_mlp(
    key: Array,
    sizes: Sequence[int],
    *,
    activation: Activation | Sequence[Activation] = "sigmoid",
    final_activation: Activation = "sigmoid",
    dtype: DTypeLike = float,
) -> MLP:
    """Makes a network with random weights and zero biases.

        w ~ truncated normal of mean 0, variance 1/n_in (LeCun), or 2/n_in (He) before relu, relu6,
            leaky_relu, elu, LeakyReLU, ELU and CELU

    Args:
      key: a JAX random key.
      sizes: the number of units of every layer, inputs first: `(n_in, ..., n_out)`.
      activation: the activation of the hidden layers: a name, a value such as `LeakyReLU(0.2)`, or a hashable
        callable; one for all layers, or a tuple with one for each. It decides the variance of its layer's
        weights. For a callable of yours, that is LeCun's.
      final_activation: the activation of the last layer.
      dtype: the dtype of weights and biases; JAX's default float dtype by default.

    Returns:
      An `MLP`. Under `jax.vmap` over keys, `init_mlp` returns a stack of networks.

    Raises:
      ValueError: if there are fewer than two sizes, one is negative, or an activation is unknown.
      TypeError: if a size is not an integer, `dtype` is not a floating-point dtype, or `key` is not a JAX
        random key.

    Source: LeCun, Bottou, Orr, Müller (1998); He, Zhang, Ren, Sun (2015).

    Example:
      >>> init_mlp(jax.random.key(0), (2, 3, 1), activation="tanh")
      MLP(float32[2,3]+float32[3] tanh, float32[3,1]+float32[1] sigmoid)
    """
    sizes = as_sizes(sizes)
    if jnp.dtype(dtype).name not in FLOATS:
        raise BadType(
            f"dtype must be one of {', '.join(FLOATS)}, got {jnp.dtype(dtype).name}; pass dtype=float"
        )
    shapes = list(itertools.pairwise(sizes))
    activations = as_activations(len(shapes) - 1, activation, final_activation)
    try:
        keys = jax.random.split(key, len(shapes))
    except (TypeError, ValueError):
        raise BadType(f"key must be one JAX random key, got {key!r}; pass jax.random.key(0)") from None
    layers = []
    for layer_key, shape, name in zip(
        keys, shapes, each_activation(len(shapes) - 1, *activations), strict=True
    ):
        he = (isinstance(name, Parametric) or name in ACTIVATIONS) and facts_of(name).he
        initial = jax.nn.initializers.he_normal if he else jax.nn.initializers.lecun_normal
        w = initial()(layer_key, shape, dtype) if math.prod(shape) else jnp.zeros(shape, dtype)
        layers.append(Affine(w, jnp.zeros(shape[1], dtype)))
    return as_mlp(layers, *activations)
