"""The activations: elementwise functions on any real array, and softmax over the last axis.

    algebraic.py    made of comparisons, sums, products and quotients
    smooth.py       sigmoids, and the activations that multiply z by one
    exponential.py  made of exponentials, logarithms or the sine
    rows.py         softmax and log_softmax
    values.py       families with parameters, such as LeakyReLU(0.2)

Each takes a number, a sequence or an array of any shape. Integers and booleans are promoted to JAX's default
float dtype. For bfloat16 and float16 the function is evaluated in float32, and the result is rounded once
more. NaN gives NaN. Nothing else gives NaN, except for an infinity in softmax, log_softmax and the sines.
Anything that is not a real array raises TypeError or ValueError. At a kink JAX's derivative is that of the
function in jax.nn, or 0 for a `HardTanh` that is not in jax.nn.

Error bounds for float32 and float64 are in ULP, the distance between neighbouring floats at the exact result.
They hold on every machine that rounds sums, products and quotients as IEEE 754 says, with fused multiply-adds
or without. XLA takes subnormal inputs for 0 and gives 0 for subnormal results, unless the docstring says
otherwise.
"""

from jaxneuron._activations.algebraic import (
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    identity,
    leaky_relu,
    relu,
    relu6,
    softsign,
    square,
    squareplus,
)
from jaxneuron._activations.exponential import elu, exp, log_sigmoid, selu, sin, softplus
from jaxneuron._activations.rows import log_softmax, softmax
from jaxneuron._activations.smooth import cr_sigmoid, cr_tanh, gelu, gelu_tanh, mish, sigmoid, silu, tanh
from jaxneuron._activations.values import CELU, ELU, HardTanh, LeakyReLU, Sin, Softplus

__all__ = [
    "CELU",
    "ELU",
    "HardTanh",
    "LeakyReLU",
    "Sin",
    "Softplus",
    "cr_sigmoid",
    "cr_tanh",
    "elu",
    "exp",
    "gelu",
    "gelu_tanh",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "softsign",
    "square",
    "squareplus",
    "tanh",
]
