"""Activations as ONNX's operators, both ways.

An operator without attributes whose name is that of one of our activations ("relu": Relu) is that activation.
The table and `steps` below hold the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxneuron._errors import BadValue
from jaxneuron._math.formats import LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE
from jaxneuron._names import BY_NAME, Activation
from jaxneuron.convert._activations import ELU, LeakyReLU, elu, leaky_relu
from jaxneuron.convert._onnx.attributes import Attributes, Refusal
from jaxneuron.convert.steps import Scaling, Step

OPSET = 20  # the first with Gelu
SELU = {"alpha": SELU_ALPHA.value, "gamma": SELU_SCALE.value}
HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}
OPERATORS: dict[Any, tuple[str, dict[str, Any]]] = {
    "elu": ("Elu", {}),
    "selu": ("Selu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": LEAKY_SLOPE}),
    "hard_sigmoid": ("HardSigmoid", HARD_SIGMOID),
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "softmax": ("Softmax", {"axis": -1}),
    jax.nn.soft_sign: ("Softsign", {}),
}


@functools.cache
def plain_operators() -> dict[str, str]:
    """The operators that are one of our activations by name and have no attributes, by our name."""
    import onnx

    named = {name: name.title().replace("_", "") for name in BY_NAME}
    return {
        name: operator
        for name, operator in named.items()
        if onnx.defs.has(operator, OPSET, "") and not onnx.defs.get_schema(operator, OPSET, "").attributes
    }


def steps(
    operator: str, attributes: Attributes, *, opset: int, double: bool, rank: int | None
) -> Iterator[Step]:
    """What an operator does to a value of `rank` axes, in float64 if `double`."""

    def equal(number: float, ours: float) -> bool:
        # Attributes are float32: in a float64 network the number is meant to be exactly that one.
        return number == ours if double else np.float32(number) == np.float32(ours)

    same = {theirs: ours for ours, theirs in plain_operators().items()}
    if operator in same:
        yield same[operator]
    elif operator == "Softsign":
        yield jax.nn.soft_sign
    elif operator == "LeakyRelu":
        slope = attributes.number("alpha", 0.01)  # ONNX's default, whatever ours is
        yield "leaky_relu" if equal(slope, LEAKY_SLOPE) else leaky_relu(slope)
    elif operator == "Elu":
        yield elu(attributes.number("alpha", 1.0))
    elif operator == "Selu":
        found = {name: attributes.number(name, ours) for name, ours in SELU.items()}
        selu = all(equal(found[name], ours) for name, ours in SELU.items())
        yield "selu" if selu else ELU(found["alpha"], found["gamma"])
    elif operator == "HardSigmoid":
        alpha, beta = attributes.number("alpha", 0.2), attributes.number("beta", 0.5)
        if not (equal(alpha, HARD_SIGMOID["alpha"]) and beta == HARD_SIGMOID["beta"]):
            # alpha z + beta = (6 alpha z + 6 beta - 3) / 6 + 1/2
            yield Scaling(scale=6 * alpha, shift=6 * beta - 3)
        yield "hard_sigmoid"
    elif operator == "Gelu":
        yield "gelu_tanh" if attributes.text("approximate", "none") == "tanh" else "gelu"
    elif operator == "Swish":
        alpha = attributes.number("alpha", 1.0)
        if alpha == 0:
            raise Refusal("its attribute alpha is 0, with which it is linear")
        yield from (Scaling(scale=alpha), "silu", Scaling(scale=1 / alpha))
    elif operator == "Softmax":
        axis = attributes.integer("axis", -1 if opset >= 13 else 1)
        if axis != -1 and axis + 1 != rank:
            raise Refusal(f"it sums over axis {axis}, which may not be the last")
        yield "softmax"
    else:
        raise Refusal("it is not affine, not a scaling, and not one of the activations")


def nodes(activation: Activation, z: str, y: str, dtype: str) -> Iterator[Any]:
    """The nodes that compute `activation` of the value named `z` and name the result `y`."""
    import onnx

    if activation == "silu":  # has an operator, Swish, in opset 24
        yield onnx.helper.make_node("Sigmoid", [z], [f"{z}.gate"])
        yield onnx.helper.make_node("Mul", [z, f"{z}.gate"], [y])
        return
    plain = plain_operators()
    attributes: dict[str, Any] = {}
    if isinstance(activation, LeakyReLU):
        operator, attributes = "LeakyRelu", {"alpha": activation.slope}
    elif isinstance(activation, ELU):
        operator, attributes = "Selu", {"alpha": activation.alpha, "gamma": activation.scale}
    elif activation in OPERATORS:
        operator, attributes = OPERATORS[activation]
    elif isinstance(activation, str) and activation in plain:
        operator = plain[activation]
    else:
        names = {*plain, *(name for name in OPERATORS if isinstance(name, str)), "identity", "silu"}
        raise BadValue(
            f"activations must be one of {', '.join(sorted(names))}, got {activation!r}; "
            f"export writes any of them as a program that runs without jaxneuron"
        )
    inexact = [v for v in attributes.values() if isinstance(v, float) and v != float(np.float32(v))]
    if dtype == "float64" and (inexact or activation == "selu"):
        raise BadValue(
            f"{activation!r} must be in a network of float32 or less, got float64: ONNX holds its "
            f"parameters in float32; convert with from_pairs(mlp.layers, dtype='float32', ...)"
        )
    yield onnx.helper.make_node(operator, [z], [y], **attributes)
