"""The activations: elementwise functions on any real array, and softmax over the last axis.

    algebraic.py    of comparisons, sums, products and quotients
    smooth.py       sigmoids, and what they gate
    exponential.py  of exponentials, logarithms and the sine
    rows.py         of whole rows
    values.py       families with parameters: LeakyReLU(0.2)

Each takes a number, a sequence or an array of any shape. Integers and booleans are promoted to JAX's
default float. bfloat16 and float16 are evaluated in float32 and rounded once more. NaN gives NaN, and
nothing but NaN does (softmax apart). Anything that is not a real array raises TypeError or ValueError.
At a kink JAX's derivative is that of the function in jax.nn; of a `HardTanh` without a name there, it is 0.

Bounds are in ULP, the distance of neighbouring floats at the exact result, for float32 and float64, and hold
wherever sums, products and quotients are rounded as IEEE 754 says, contracted or not. XLA takes subnormal
inputs for 0 and gives 0 for subnormal results, unless an activation says that it doesn't.
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
