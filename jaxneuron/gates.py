"""Logic gates as neurons, and XOR, which one neuron can't compute, as a network of two layers.

An output above 0.5 means true. AND, OR and NAND each divide the plane of their inputs by one straight line.
XOR is true where both OR and NAND are true.
"""

from __future__ import annotations

import itertools

import numpy as np
from jax import Array

from jaxneuron._errors import public
from jaxneuron._forward import _mlp_forward, neuron
from jaxneuron._params import MLP, Affine, as_affine, as_layers, stack_neurons

__all__ = ["AND", "NAND", "OR", "XOR", "truth_table"]


def _gate(weight: float, bias: float) -> Affine:
    w, b = np.array([weight, weight]), np.array(bias)
    w.flags.writeable = b.flags.writeable = False  # every importer shares them
    return Affine(w, b)


AND = _gate(0.5, -0.7)
OR = _gate(0.5, -0.2)
NAND = _gate(-0.5, 0.7)


def _steeper(layer: Affine, factor: float = 20.0) -> Affine:
    """The layer with the same boundary, and outputs nearer to 0 and 1. XOR needs a factor of 3.5 or more."""
    return Affine(layer.w * factor, layer.b * factor)


XOR = MLP([_steeper(stack_neurons([OR, NAND])), _steeper(stack_neurons([AND]))])


@public
def truth_table(params: Affine | MLP) -> tuple[np.ndarray, Array]:
    """Evaluates a neuron, a layer or a network on all binary inputs.

        outputs = mlp_forward(params, inputs), or neuron(params, inputs) for an `Affine`

    Args:
      params: an `MLP`, or an `Affine`, which is evaluated as a neuron or a layer with the activation sigmoid.

    Returns:
      `(inputs, outputs)`: the inputs `(2**n_in, n_in)`, int32, count up in binary, the last input fastest.
      The outputs are `(2**n_in,)` for a neuron, `(2**n_in, n_out)` otherwise, in the dtype of `params`; while
      `jax_enable_x64` is off, in float32 instead of float64.

    Raises:
      ValueError: if shapes do not fit.
      TypeError: if `params` is neither an `MLP` nor an `Affine` of arrays of real numbers.

    Example:
      >>> inputs, outputs = truth_table(AND)
      >>> for x, y in zip(inputs.tolist(), outputs, strict=True):
      ...     print(x, f"{y:.3f}", y > 0.5)
      [0, 0] 0.332 False
      [0, 1] 0.450 False
      [1, 0] 0.450 False
      [1, 1] 0.574 True
    """
    layers = as_layers(params.layers) if isinstance(params, MLP) else [as_affine(params)]
    n_in = len(layers[0].w)
    inputs = np.array(list(itertools.product((0, 1), repeat=n_in)), np.int32).reshape(2**n_in, n_in)
    return inputs, _mlp_forward(params, inputs) if isinstance(params, MLP) else neuron(params, inputs)
