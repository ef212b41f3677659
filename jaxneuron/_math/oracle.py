"""The exact results, by exact integers and mpmath, and the largest errors that computed results may have.

Nothing here uses jax.

Bounds are in unit roundoffs: u = 2^-24 for float32, 2^-53 for float64, 2^-11 for float16, 2^-8 for bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import mpmath
import numpy as np

from jaxneuron._math.activations import OF_ROWS, Member, facts_of
from jaxneuron._math.formats import SELU_ALPHA_DIGITS, SELU_SCALE_DIGITS

Array = np.ndarray

U = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
SMALLEST_NORMAL = {"bfloat16": 2.0**-126, "float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}
LARGEST = {
    "bfloat16": (2 - 2.0**-7) * 2.0**127,
    "float16": (2 - 2.0**-10) * 2.0**15,
    "float32": (2 - 2.0**-23) * 2.0**127,
    "float64": (2 - 2.0**-52) * 2.0**1023,
}
# The smallest result that is not 0: a subnormal number in float16, a normal one where XLA flushes the others.
TINY = {**SMALLEST_NORMAL, "float16": 2.0**-24}
MP = mpmath.mp.clone()
MP.prec = 200
SELU_SCALE, SELU_ALPHA = MP.mpf(SELU_SCALE_DIGITS), MP.mpf(SELU_ALPHA_DIGITS)

FORMULAS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda z: 1 / (1 + MP.exp(-z)),
    "relu": lambda z: max(z, MP.zero),
    "tanh": MP.tanh,
    "identity": lambda z: z,
    "silu": lambda z: z / (1 + MP.exp(-z)),
    "gelu": lambda z: z / 2 * MP.erfc(-z / MP.sqrt(2)),
    # z/2 (1 + tanh(u/2)), in a form without a sum that cancels
    "gelu_tanh": lambda z: z / (1 + MP.exp(-MP.sqrt(8 / MP.pi) * (z + MP.mpf("0.044715") * z**3))),
    "softplus": lambda z: MP.log1p(MP.exp(z)),
    "elu": lambda z: z if z > 0 else MP.expm1(z),
    "selu": lambda z: SELU_SCALE * (z if z > 0 else SELU_ALPHA * MP.expm1(z)),
    "leaky_relu": lambda z: z if z >= 0 else z / 100,
    "hard_sigmoid": lambda z: min(max(z + 3, 0), 6) / 6,
    "relu6": lambda z: min(max(z, 0), 6),
    "hard_tanh": lambda z: min(max(z, -1), 1),
    "hard_swish": lambda z: z * min(max(z + 3, 0), 6) / 6,
    "softsign": lambda z: z / (1 + abs(z)),
    "squareplus": lambda z: MP.exp(MP.asinh(z / 2)),  # (z + sqrt(z^2 + 4)) / 2, without the sum that cancels
    "square": lambda z: z * z,
    "exp": MP.exp,
    "log_sigmoid": lambda z: -MP.log1p(MP.exp(-z)),
    "mish": lambda z: z * MP.tanh(MP.log1p(MP.exp(z))),
    "sin": MP.sin,
}
FORMULAS |= {f"cr_{name}": FORMULAS[name] for name in ("sigmoid", "tanh")}
# For each family, the function of z and the parameters.
FAMILY_FORMULAS: dict[str, Callable[..., Any]] = {
    "leaky_relu": lambda z, slope: z if z >= 0 else slope * z,
    "elu": lambda z, alpha: z if z > 0 else alpha * MP.expm1(z),
    "celu": lambda z, alpha: z if z > 0 else alpha * MP.expm1(z / MP.mpf(alpha)),
    "softplus": lambda z, beta: MP.log1p(MP.exp(MP.mpf(beta) * z)) / MP.mpf(beta),
    "hard_tanh": lambda z, low, high: min(max(z, low), high),
    "sin": lambda z, frequency: MP.sin(MP.mpf(frequency) * z),
}


def _bell(z: Any) -> Any:
    return 1 / (2 + MP.exp(z) + MP.exp(-z))  # sigmoid(z) sigmoid(-z)


def _gelu_tanh_slopes(z: Any) -> Terms:
    k = MP.sqrt(8 / MP.pi)
    u, slope = k * (z + MP.mpf("0.044715") * z**3), k * (1 + 3 * MP.mpf("0.044715") * z**2)
    change = 2 * k * (1 + 6 * MP.mpf("0.044715") * z**2)  # 2 u' + z u''
    first = [1 / (1 + MP.exp(-u)), z * slope * _bell(u)]
    return first, [_bell(u) * change, -_bell(u) * z * slope**2 * MP.tanh(u / 2)]


def _gelu_slopes(z: Any) -> Terms:
    phi = MP.exp(-z * z / 2) / MP.sqrt(2 * MP.pi)
    return [MP.erfc(-z / MP.sqrt(2)) / 2, z * phi], [2 * phi, -z * z * phi]


def _mish_slopes(z: Any) -> Terms:
    e = MP.exp(z)
    d = 2 + 2 * e + e * e
    rate = 4 * e * (1 + e) / d**2  # of T = tanh(softplus(z))
    return [e * (2 + e) / d, z * rate], [
        2 * rate,
        z * rate * (1 + e / (1 + e)),
        -4 * z * rate * e * (1 + e) / d,
    ]


def _elu_slopes(z: Any, alpha: Any, scale: Any = MP.one) -> Terms:
    return ([scale], [MP.zero]) if z > 0 else ([scale * alpha * MP.exp(z)],) * 2


def _hard_swish_slopes(z: Any) -> Terms:
    return ([z / 3, MP.mpf(0.5)], [MP.one / 3]) if abs(z) < 3 else _straight(z >= 3)


def _squareplus_slopes(z: Any) -> Terms:
    root = MP.sqrt(z * z + 4)
    small = 2 / (root * (root + abs(z)))
    return [small if z < 0 else 1 - small], [2 / root**3]


def _straight(slope: Any) -> Terms:
    return [MP.mpf(slope)], [MP.zero]


# The terms of the first derivative and of the second; a derivative is the sum of its terms. At a kink, the
# derivatives are those of jax.nn.
Terms = tuple[list[Any], list[Any]]
SLOPES: dict[str, Callable[[Any], Terms]] = {
    "sigmoid": lambda z: ([_bell(z)], [-_bell(z) * MP.tanh(z / 2)]),
    "tanh": lambda z: ([4 * _bell(2 * z)], [-8 * _bell(2 * z) * MP.tanh(z)]),
    "softplus": lambda z: ([1 / (1 + MP.exp(-z))], [_bell(z)]),
    "log_sigmoid": lambda z: ([1 / (1 + MP.exp(z))], [-_bell(z)]),
    "silu": lambda z: (
        [1 / (1 + MP.exp(-z)), z * _bell(z)],
        [2 * _bell(z), -_bell(z) * z * MP.tanh(z / 2)],
    ),
    "gelu": _gelu_slopes,
    "gelu_tanh": _gelu_tanh_slopes,
    "mish": _mish_slopes,
    "elu": lambda z: _elu_slopes(z, MP.one),
    "selu": lambda z: _elu_slopes(z, SELU_ALPHA, SELU_SCALE),
    "exp": lambda z: ([MP.exp(z)],) * 2,
    "sin": lambda z: ([MP.cos(z)], [-MP.sin(z)]),
    "softsign": lambda z: ([1 / (1 + abs(z)) ** 2], [-2 * MP.sign(z) / (1 + abs(z)) ** 3]),
    "squareplus": _squareplus_slopes,
    "square": lambda z: ([2 * z], [MP.mpf(2)]),
    "identity": lambda z: _straight(1),
    "relu": lambda z: _straight(z > 0),
    "leaky_relu": lambda z: _straight(1 if z >= 0 else MP.mpf("0.01")),
    "relu6": lambda z: _straight(0 < z < 6),
    "hard_tanh": lambda z: _straight(abs(z) <= 1),
    "hard_sigmoid": lambda z: _straight(MP.one / 6 if abs(z) < 3 else 0),
    "hard_swish": _hard_swish_slopes,
}
SLOPES |= {f"cr_{name}": SLOPES[name] for name in ("sigmoid", "tanh")}
FAMILY_SLOPES: dict[str, Callable[..., Terms]] = {
    "leaky_relu": lambda z, slope: _straight(1 if z >= 0 else slope),
    "elu": _elu_slopes,
    "celu": lambda z, alpha: (
        ([MP.one], [MP.zero]) if z > 0 else ([MP.exp(z / MP.mpf(alpha))], [MP.exp(z / MP.mpf(alpha)) / alpha])
    ),
    "softplus": lambda z, beta: ([1 / (1 + MP.exp(-beta * z))], [beta * _bell(beta * z)]),
    "hard_tanh": lambda z, low, high: _straight(low < z < high),
    "sin": lambda z, frequency: (
        [frequency * MP.cos(frequency * z)],
        [-(MP.mpf(frequency) ** 2) * MP.sin(frequency * z)],
    ),
}


def slopes(name: str | Member, z: float) -> Terms:
    """The terms of the first and of the second derivative at one number."""
    if isinstance(name, str):
        return SLOPES[name](MP.mpf(z))
    return FAMILY_SLOPES[name.family](MP.mpf(z), *name.parameters)


def formula(name: str | Member) -> Callable[[Any], Any]:
    """The exact function of one mpmath number."""
    if isinstance(name, str):
        return FORMULAS[name]
    function, parameters = FAMILY_FORMULAS[name.family], name.parameters
    return lambda z: function(z, *parameters)


def in_format(name: str | Member, dtype: str) -> Any:
    """The activation with its parameters rounded to the dtype in which `dtype` is computed."""
    if isinstance(name, str):
        return name
    number = np.dtype(sum_dtype(dtype)).type
    member: Any = type(name)
    return member(*(float(number(parameter)) for parameter in name.parameters))


@np.errstate(all="ignore")
def activation(name: str | Member, z: Any) -> Array:
    """`name` at the float64 array `z`, rounded to float64."""
    z = np.asarray(z, np.float64)
    if name == "log_softmax":
        below = z - z.max(-1, keepdims=True, initial=-1e308)
        return below - np.log(np.exp(below).sum(-1, keepdims=True))
    if name == "softmax":
        e = np.vectorize(lambda d: float(MP.exp(MP.mpf(d))), otypes=[float])(
            z - z.max(-1, keepdims=True, initial=-1e308)
        )
        return e / e.sum(-1, keepdims=True)
    exact = formula(name)
    return np.vectorize(lambda v: float(exact(MP.mpf(v))), otypes=[float])(z)


def activation_error(name: str | Member, z: Any, y: Any, dtype: str) -> Array:
    """The largest error of an activation that XLA evaluates in `dtype`, where `y` is exact.

    XLA documents tanh as the worst function used here, with 5 ULP in float32 and 7 in float64: 14 u. The
    other activations are made of exp, expm1, erfc and log1p, with up to 2 ULP, and at most four more
    roundings.
    """
    facts = facts_of(name)
    if facts.ulp == (0, 0):
        return np.zeros(np.shape(y))
    scale = np.abs(z) if facts.gates else np.abs(y)
    if facts.ulp is None and facts.values == (0, 1):  # computed from numbers larger than the result
        scale = np.ones(np.shape(y))
    if name == "log_softmax":
        scale = 1 + np.abs(y)
    units = 16 + (np.shape(y)[-1] if name in OF_ROWS else 0)
    return units * U[dtype] * scale + SMALLEST_NORMAL[dtype]  # XLA flushes smaller numbers to 0


def ulp(exact: Any, dtype: str) -> Array:
    """The spacing of `dtype` at `exact`, subnormal numbers included."""
    power = np.ldexp(1.0, np.frexp(exact)[1] - 1)  # the largest power of two that is not above |exact|
    return 2 * U[dtype] * np.maximum(power, SMALLEST_NORMAL[dtype])


def affine(w: Any, b: Any, x: Any) -> Array:
    """x @ w + b of finite numbers; each entry is summed exactly, and rounded once to float64."""
    w, x = np.asarray(w, np.float64), np.asarray(x, np.float64)
    units = w.shape[1:]
    columns, w_power = _integers(w.reshape(len(w), math.prod(units)))
    rows, x_power = _integers(x.reshape(math.prod(x.shape[:-1]), len(w)))
    biases, b_power = _integers(np.zeros(units) if b is None else b)
    power = min(w_power + x_power, b_power)
    # These are object arrays, so that the sums and products are those of Python's integers of any size.
    sums = (rows @ columns << (w_power + x_power - power)) + (biases.reshape(-1) << (b_power - power))
    exact = [n << power if power >= 0 else n / (1 << -power) for n in sums.ravel().tolist()]
    return np.array(exact, np.float64).reshape((*x.shape[:-1], *units))


def _integers(a: Any) -> tuple[Array, int]:
    """Python integers n and a power p with a = n 2^p, exactly."""
    fractions, exponents = np.frexp(np.asarray(a, np.float64))
    if not np.isfinite(fractions).all():
        raise ValueError("exact sums need finite numbers, got infinity or NaN; leave them out")
    lowest = int(np.min(exponents, initial=0))
    n = np.ldexp(fractions, 53).astype(np.int64).astype(object)
    return np.asarray(n << (exponents - lowest).astype(object), object), lowest - 53


def magnitude(w: Any, b: Any, x: Any) -> Array:
    """|x| @ |w| + |b|, which no part of the sum x @ w + b exceeds."""
    w, x, b = (np.abs(np.asarray(each, np.float64)) for each in (w, x, 0.0 if b is None else b))
    return x @ w + b


def affine_error(w: Any, b: Any, x: Any, dtype: str) -> Array:
    """(n + 2) (u (|x| @ |w| + |b|) + s): a product, n - 1 sums and a bias, in any order, fused or not.

    u and s are those of the dtype in which results of `dtype` are summed. Sums of bfloat16 treat subnormal
    numbers as 0: an x_i below s then loses s |w_i| at most, and a w_i below s loses s |x_i|.
    """
    wide = sum_dtype(dtype)
    w, x = np.abs(np.asarray(w, np.float64)), np.abs(np.asarray(x, np.float64))
    n, s = len(w), SMALLEST_NORMAL[wide]
    error = (n + 2) * U[wide] * magnitude(w, b, x) + (n + 2) * s
    if dtype == "bfloat16":
        error = error + s * (np.add.outer(x.sum(-1), np.zeros(w.shape[1:])) + w.sum(0))
    return error


def rounded_error(y: Any, error: Any, dtype: str) -> Array:
    """The error after a value within `error` of `y` is rounded once more, to `dtype`."""
    return error + U[dtype] * (np.abs(y) + error) + TINY[dtype]


def sum_dtype(dtype: str) -> str:
    """The dtype of sums: float32 for bfloat16 and float16."""
    return dtype if dtype in ("float32", "float64") else "float32"


def sums(w: Any, b: Any, x: Any, dtype: str, x_error: Any = 0.0) -> tuple[Array, Array]:
    """x @ w + b, and how far a sum for a result of `dtype` may be from it if x is off by `x_error`.

    The error is infinite, and the sum may be anything, if an x or a part of the sum may overflow.
    """
    reach = np.broadcast_to(np.abs(x) + x_error, np.shape(x))
    lost = ~(reach <= LARGEST[dtype])
    x, reach, x_error = (np.where(lost, 0.0, each) for each in (x, reach, x_error))
    error = affine_error(w, b, reach, dtype) + magnitude(w, None, x_error)
    may_overflow = magnitude(w, b, reach) > LARGEST[sum_dtype(dtype)]
    may_overflow |= np.logical_or.outer(lost.any(-1), np.zeros(np.shape(w)[1:], bool))
    return affine(w, b, x), np.where(may_overflow, np.inf, error)


def neuron(w: Any, b: Any, x: Any, name: str | Member, dtype: str, x_error: Any = 0.0) -> tuple[Array, Array]:
    """activation(x @ w + b), and how far a result of `dtype` may be from it if x is off by `x_error`."""
    name = in_format(name, dtype)
    z, z_error = sums(w, b, x, dtype, x_error)
    y = activation(name, z)
    return y, neuron_error(name, z, y, z_error, dtype)


# The largest slope within `error` of z, for the activations whose slope has no upper limit.
STEEPEST: dict[str, Callable[[Array, Array], Array]] = {
    "exp": lambda z, error: np.exp(z + error),
    "square": lambda z, error: 2 * (np.abs(z) + error),
}


def neuron_error(name: str | Member, z: Array, y: Array, z_error: Array, dtype: str) -> Array:
    """The largest error of activation(z) in `dtype`, where `y` is exact and z is off by `z_error`."""
    wide = sum_dtype(dtype)
    with np.errstate(all="ignore"):
        steepest = STEEPEST.get(name) if isinstance(name, str) else None
        slope = steepest(z, z_error) if steepest else facts_of(name).slope
    # The activation is evaluated at the computed z: its own error, and the slope times the error of z.
    error = slope * z_error + activation_error(name, np.abs(z) + z_error, np.abs(y) + slope * z_error, wide)
    error = error + U["float64"] * np.abs(y)  # this oracle's own rounding
    error = error if dtype == wide else rounded_error(y, error, dtype)
    lost = np.isinf(z_error)
    return np.where(lost.any(-1, keepdims=True) if name in OF_ROWS else lost, np.inf, error)


@np.errstate(all="ignore")
def mlp(layers: Iterable[Any], names: Iterable[str | Member], x: Any, dtype: str) -> tuple[Array, Array]:
    """The exact outputs of a network, and how far results of `dtype` may be from them."""
    x, error = np.asarray(x, np.float64), np.zeros(())
    for (w, b), name in zip(layers, names, strict=True):
        x, error = neuron(w, b, x, name, dtype, error)
    return x, error
