"""The activations in float64, by NumPy, with a bound of the relative error. Never uses jax.

This is a thousand times as fast as mpmath in oracle.py, and needs only NumPy and SciPy, which jax installs.
"""

from __future__ import annotations

import math

import numpy as np

from jaxneuron._math.activations import Member
from jaxneuron._math.formats import LEAKY_SLOPE, SELU_ALPHA_DIGITS, SELU_SCALE_DIGITS

Array = np.ndarray
SELU_SCALE, SELU_ALPHA = float(SELU_SCALE_DIGITS), float(SELU_ALPHA_DIGITS)


def activation(name: str | Member, z: Array) -> tuple[Array, float]:
    """`name` at the float64 array `z`, and a bound of the relative error; KeyError if it is unknown here."""
    if not isinstance(name, str):
        return _member(name.family, z, *name.parameters)
    a = np.abs(z)
    match name.removeprefix("cr_"):
        case "identity":
            return z, 0.0
        case "relu":
            return np.maximum(z, 0), 0.0
        case "leaky_relu":
            return np.where(z >= 0, z, LEAKY_SLOPE * z), 2.0**-52
        case "hard_sigmoid":
            return np.clip(z + 3, 0, 6) / 6, 2.0**-52
        case "sigmoid":
            e = np.exp(-a)
            return np.where(z < 0, e / (1 + e), 1 / (1 + e)), 2.0**-50
        case "tanh":
            return np.tanh(z), 2.0**-50
        case "silu":
            return z * activation("sigmoid", z)[0], 2.0**-49
        case "gelu_tanh":
            # The exponent may be 100: the result's relative error is 100 times that of the exponent.
            u = math.sqrt(8 / math.pi) * (z + 0.044715 * z**3)
            return z * activation("sigmoid", u)[0], 2.0**-43
        case "gelu":
            from scipy.special import erfc

            return 0.5 * z * erfc(-z * math.sqrt(0.5)), 2.0**-43
        case "softplus":
            return np.maximum(z, 0) + np.log1p(np.exp(-a)), 2.0**-50
        case "elu":
            return np.where(z > 0, z, np.expm1(np.minimum(z, 0))), 2.0**-50
        case "selu":
            return SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0))), 2.0**-50
        case "softmax":
            e = np.exp(z - z.max(-1, keepdims=True, initial=-math.inf))
            return e / e.sum(-1, keepdims=True), (z.shape[-1] + 8) * 2.0**-52
        case "log_softmax":
            below = z - z.max(-1, keepdims=True, initial=-math.inf)
            return below - np.log(np.exp(below).sum(-1, keepdims=True)), (z.shape[-1] + 8) * 2.0**-52
        case "relu6":
            return np.clip(z, 0, 6), 0.0
        case "hard_tanh":
            return np.clip(z, -1, 1), 0.0
        case "hard_swish":
            return np.maximum(z, -3) * np.clip(z + 3, 0, 6) / 6, 2.0**-49
        case "softsign":
            return np.where(np.isinf(z), np.sign(z), z / (1 + a)), 2.0**-50
        case "squareplus":
            large = 0.5 * a + 0.5 * np.hypot(a, 2)
            return np.where(z < 0, 1 / large, large), 2.0**-50
        case "square":
            return np.square(z), 2.0**-52
        case "exp":
            return np.exp(z), 2.0**-50
        case "sin":
            return np.sin(z), 2.0**-50
        case "log_sigmoid":
            return -activation("softplus", -z)[0], 2.0**-50
        case "mish":
            e = np.exp(-a)
            falling, rising = e * (2 + e) / (2 + 2 * e + e * e), (1 + 2 * e) / (1 + 2 * e + 2 * e * e)
            # Below -800 the result is -0 in every format.
            return np.maximum(z, -800) * np.where(z < 0, falling, rising), 2.0**-49
    raise KeyError(name)


def _member(family: str, z: Array, *parameters: float) -> tuple[Array, float]:
    """The member of a family at `z`, and a bound of the relative error.

    For softplus the bound includes the error of the product beta z, which grows with beta z. For sin it
    leaves out the error of frequency z, because the product of two float32 numbers is exact in float64.
    """
    first, last = parameters[0], parameters[-1]
    match family:
        case "leaky_relu":
            return np.where(z >= 0, z, first * z), 2.0**-52
        case "elu":
            return np.where(z > 0, z, first * np.expm1(np.minimum(z, 0))), 2.0**-49
        case "celu":
            return np.where(z > 0, z, first * np.expm1(np.minimum(z, 0) / first)), 2.0**-47
        case "softplus":
            return activation("softplus", first * z)[0] / first, 2.0**-44
        case "hard_tanh":
            return np.clip(z, first, last), 0.0
        case "sin":
            return np.sin(first * z), 2.0**-50
    raise KeyError(family)
