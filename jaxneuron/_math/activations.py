"""The table of activations: a line for each, in the order of the compiled kernel's codes.

A line says what is promised, and what a test needs to hold an activation to it. The formulas stand elsewhere:
for XLA in elementary.py, for the kernel in _kernels/cpu/activations.h, the truth in oracle.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Facts(NamedTuple):
    """What is known of an activation f."""

    ulp: tuple[float, float] | None = None  # the greatest error in float32 and float64
    bound: str = ""  # the same in words, where it is not stated in ULP
    slope: float = 1.0  # the greatest |f'|: by so much an error in z grows
    rises: bool = False  # f never decreases between neighbouring floats
    values: tuple[float, float] = (-math.inf, math.inf)  # f lies in this closed interval
    nearest16: bool = False  # correctly rounded in bfloat16 and float16
    gates: bool = False  # f(z) is z times a factor in [0, 1], whose error is relative to z
    he: bool = False  # init_mlp draws the weights before it with He's variance, 2 / n_in


ACTIVATIONS = {
    "identity": Facts((0, 0), rises=True),
    "relu": Facts((0, 0), rises=True, values=(0, math.inf), he=True),
    "leaky_relu": Facts(bound="16 u of the result", rises=True, he=True),
    "hard_sigmoid": Facts(bound="16 u", slope=1 / 6, rises=True, values=(0, 1)),
    "sigmoid": Facts((1, 1), slope=0.25, rises=True, values=(0, 1), nearest16=True),
    "cr_sigmoid": Facts((0.5, 0.53), slope=0.25, rises=True, values=(0, 1), nearest16=True),
    "tanh": Facts((1.5, 2), rises=True, values=(-1, 1), nearest16=True),
    "cr_tanh": Facts((0.5, 2), rises=True, values=(-1, 1), nearest16=True),
    "silu": Facts((1.5, 2), slope=1.1, gates=True),
    "gelu": Facts((1.5, 2), slope=1.13, gates=True),
    "gelu_tanh": Facts((1.5, 2), slope=1.13, gates=True),
    "softplus": Facts((1.5, 2), rises=True, values=(0, math.inf)),
    "elu": Facts((1.5, 2), rises=True, values=(-1, math.inf), he=True),
    "selu": Facts((1.5, 2), slope=1.76, rises=True),
    "softmax": Facts(bound="a factor of 1 + (units + 4) u", values=(0, 1)),
}
