"""Logic gates as neurons, and XOR, which one neuron can't compute, as a network of two layers.

An output above 0.5 reads as true. AND, OR and NAND draw one straight line through the plane; XOR
holds where both OR and NAND do.
"""

from __future__ import annotations

import itertools

import numpy as np
from jax import Array

from jaxneuron._forward import mlp_forward, neuron
from jaxneuron._params import MLP, Affine, as_affine, stack_neurons

__all__ = ["AND", "NAND", "OR", "XOR", "truth_table"]


def _gate(weight: float, bias: float) -> Affine:
    w, b = np.array([weight, weight]), np.array(bias)
    w.flags.writeable = b.flags.writeable = False  # shared by all who import it
    return Affine(w, b)


AND = _gate(0.5, -0.7)
OR = _gate(0.5, -0.2)
NAND = _gate(-0.5, 0.7)


def _steeper(layer: Affine, factor: float = 20.0) -> Affine:
    """The same boundary, with outputs nearer to 0 and 1. XOR comes out right from a factor of 3.5 on."""
    return Affine(layer.w * factor, layer.b * factor)


XOR = MLP([_steeper(stack_neurons([OR, NAND])), _steeper(stack_neurons([AND]))])


def truth_table(params: Affine | MLP) -> tuple[np.ndarray, Array]:
    """What a neuron, a layer or a network computes on all binary inputs.

    Args:
      params: `Affine`, evaluated as sigmoid neurons, or `MLP`, of n_in inputs.

    Returns:
      The inputs `(2**n_in, n_in)`, counting up with the last input fastest, and the outputs
      `(2**n_in,)` for a neuron, `(2**n_in, n_out)` otherwise.

    Raises:
      ValueError, TypeError: parameters that make no neuron, layer or network.

    Example:
      >>> inputs, outputs = truth_table(AND)
      >>> for x, y in zip(inputs.tolist(), outputs, strict=True):
      ...     print(x, f"{y:.3f}", y > 0.5)
      [0, 0] 0.332 False
      [0, 1] 0.450 False
      [1, 0] 0.450 False
      [1, 1] 0.574 True
    """
    n_in = len((params.layers[0] if isinstance(params, MLP) else as_affine(params, "truth_table: params")).w)
    inputs = np.array(list(itertools.product((0, 1), repeat=n_in)), np.int32).reshape(2**n_in, n_in)
    return inputs, mlp_forward(params, inputs) if isinstance(params, MLP) else neuron(params, inputs)
