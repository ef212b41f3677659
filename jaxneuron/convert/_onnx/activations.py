"""Activations as ONNX operators, both ways.

An operator without attributes that has the name of one of jaxneuron's activations ("relu": Relu) is that
activation. The table and `steps` below have the others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxneuron._activations import CELU, ELU, HardTanh, LeakyReLU, Sin, Softplus
from jaxneuron._errors import BadValue
from jaxneuron._math.formats import LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE
from jaxneuron._names import BY_NAME, Activation
from jaxneuron.convert._onnx.attributes import Attributes, Refusal
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert.steps import Step

OPSET = 20  # the first with Gelu
SELU = {"alpha": SELU_ALPHA.value, "gamma": SELU_SCALE.value}
HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}
OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "elu": ("Elu", {}),
    "selu": ("Selu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": LEAKY_SLOPE}),
    "hard_sigmoid": ("HardSigmoid", HARD_SIGMOID),
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "softmax": ("Softmax", {"axis": -1}),
    "log_softmax": ("LogSoftmax", {"axis": -1}),
}
ENDS = {"relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}  # the ends of a Clip
# Activations of several nodes, from z to y. Each node has its operator, its inputs, and its result's name.
COMPOSED: dict[str, list[tuple[str, tuple[str | float, ...], str]]] = {
    "silu": [("Sigmoid", ("z",), "gate"), ("Mul", ("z", "gate"), "y")],  # from opset 24 on there is Swish
    "square": [("Mul", ("z", "z"), "y")],
    "log_sigmoid": [
        ("Neg", ("z",), "negative"), ("Softplus", ("negative",), "soft"), ("Neg", ("soft",), "y"),
    ],
    # relu(z) + 2 / (|z| + sqrt(z^2 + 4)), a form without cancellation
    "squareplus": [
        ("Abs", ("z",), "size"), ("Mul", ("z", "z"), "square"), ("Add", ("square", 4.0), "sum"),
        ("Sqrt", ("sum",), "root"), ("Add", ("size", "root"), "divisor"), ("Div", (2.0, "divisor"), "small"),
        ("Relu", ("z",), "positive"), ("Add", ("positive", "small"), "y"),
    ],
}  # fmt: skip


@functools.cache
def plain_operators() -> dict[str, str]:
    """The ONNX operators without attributes that are an activation of jaxneuron's, by jaxneuron's name."""
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
    """The steps that an operator does to a value of `rank` axes; `double` if its numbers are float64."""

    def equal(number: float, ours: float) -> bool:
        # Attributes are float32. In a float64 network the attribute must be exactly jaxneuron's number.
        return number == ours if double else np.float32(number) == np.float32(ours)

    parameter = functools.partial(as_meant, double=double)
    same = {theirs: ours for ours, theirs in plain_operators().items()}
    if operator in same:
        yield same[operator]
    elif operator == "LeakyRelu":
        yield LeakyReLU(parameter(attributes.number("alpha", 0.01)))  # 0.01 is ONNX's default
    elif operator == "Elu":
        yield ELU(parameter(attributes.number("alpha", 1.0)))
    elif operator == "Celu":
        yield CELU(parameter(attributes.number("alpha", 1.0)))
    elif operator == "Selu":
        found = {name: attributes.number(name, ours) for name, ours in SELU.items()}
        if all(equal(found[name], ours) for name, ours in SELU.items()):
            yield "selu"
        else:
            yield from (ELU(parameter(found["alpha"])), Scaling(scale=found["gamma"]))
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
    elif operator in ("Softmax", "LogSoftmax"):
        axis = attributes.integer("axis", -1 if opset >= 13 else 1)
        if axis != -1 and axis + 1 != rank:
            raise Refusal(f"it sums over axis {axis}, which may not be the last")
        yield "softmax" if operator == "Softmax" else "log_softmax"
    else:
        raise Refusal("it is not affine, not a scaling, and not one of the activations")


def as_meant(number: float, *, double: bool) -> float:
    """The number that a float32 attribute stands for: its shortest decimal. `double`: the number itself."""
    return number if double else float(str(np.float32(number)))  # 0.2 comes back as 0.2


def clip(ends: Sequence[Any], attributes: Attributes, *, opset: int, double: bool) -> Step:
    """The activation that a Clip is. Its ends are inputs or, in old models, attributes."""
    if opset < 11:
        ends = [
            attributes.number(name, math.inf) if name in attributes.by_name else None
            for name in ("min", "max")
        ]
    low, high = (
        None if end is None else as_meant(float(np.asarray(end).reshape(())), double=double)
        for end in (*ends, None, None)[:2]
    )
    if high is None and low == 0:
        return "relu"
    if low is None or high is None or not low < high:
        raise Refusal(f"it must have a min below a max, or a min of 0 alone, got {low} and {high}")
    return HardTanh(low, high)


def after_scaling(scale: float, step: Step) -> Step | None:
    """The activation z -> step(scale z), if jaxneuron has it as one activation."""
    return Sin(scale) if step == "sin" else None


def between_scalings(scale: float, step: Step, after: float) -> Step | None:
    """The activation z -> after step(scale z), if jaxneuron has it as one activation."""
    if step != "softplus" or not math.isclose(scale * after, 1, rel_tol=2.0**-22):
        return None
    return "log_sigmoid" if scale == -1 else Softplus(scale) if 1e-30 <= scale <= 1e30 else None


def nodes(activation: Activation, z: str, y: str, dtype: str) -> Iterator[Any]:
    """The nodes that compute `activation` of the value named `z` and name the result `y`."""
    import onnx

    def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
        return onnx.helper.make_node(operator, inputs, [output], **attributes)

    def constant(name: str, number: float) -> Any:
        kind = onnx.helper.np_dtype_to_tensor_dtype(jnp.dtype(dtype))
        tensor = onnx.helper.make_tensor(name, kind, [], [number])
        return onnx.helper.make_node("Constant", [], [name], value=tensor)

    plain = plain_operators()
    attributes: dict[str, Any] = {}
    operator = ""
    if activation in ENDS or isinstance(activation, HardTanh):
        low, high = activation.parameters if isinstance(activation, HardTanh) else ENDS[str(activation)]
        yield from (constant(f"{z}.low", low), constant(f"{z}.high", high))
        yield node("Clip", [z, f"{z}.low", f"{z}.high"], y)
    elif isinstance(activation, Sin):
        yield from (
            constant(f"{z}.frequency", activation.frequency),
            node("Mul", [z, f"{z}.frequency"], f"{z}.angle"),
        )
        yield node("Sin", [f"{z}.angle"], y)
    elif isinstance(activation, Softplus):
        yield from (constant(f"{z}.beta", activation.beta), node("Mul", [z, f"{z}.beta"], f"{z}.scaled"))
        yield from (
            node("Softplus", [f"{z}.scaled"], f"{z}.soft"),
            node("Div", [f"{z}.soft", f"{z}.beta"], y),
        )
    elif isinstance(activation, str) and activation in COMPOSED:
        made = COMPOSED[activation]
        numbers = dict.fromkeys(name for _, inputs, _ in made for name in inputs if isinstance(name, float))
        yield from (constant(f"{z}.{number}", number) for number in numbers)
        for each, inputs, result in made:
            output, *others = ({"z": z, "y": y}.get(str(name), f"{z}.{name}") for name in (result, *inputs))
            yield node(each, others, output)
    elif isinstance(activation, LeakyReLU):
        operator, attributes = "LeakyRelu", {"alpha": activation.slope}
    elif isinstance(activation, ELU):
        operator, attributes = "Elu", {"alpha": activation.alpha}
    elif isinstance(activation, CELU):
        operator, attributes = "Celu", {"alpha": activation.alpha}
    elif isinstance(activation, str) and activation in OPERATORS:
        operator, attributes = OPERATORS[activation]
    elif isinstance(activation, str) and activation in plain:
        operator = plain[activation]
    else:
        names = {*plain, *OPERATORS, *ENDS, *COMPOSED, "identity"}
        raise BadValue(
            f"activations must be one of {', '.join(sorted(names))}, or a value with parameters, "
            f"got {activation!r}; export writes any of them as a program that runs without jaxneuron"
        )
    inexact = [v for v in attributes.values() if isinstance(v, float) and v != float(np.float32(v))]
    if (dtype == "float64" and (inexact or activation == "selu")) or (
        operator == "Celu" and dtype != "float32"
    ):
        wanted = "float32" if operator == "Celu" else "float32 or less"
        raise BadValue(
            f"{activation!r} must be in a network of {wanted}, got {dtype}: ONNX holds its "
            f"parameters in float32; convert with from_pairs(mlp.layers, dtype='float32', ...)"
        )
    if operator:
        yield node(operator, [z], y, **attributes)
