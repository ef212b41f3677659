"""Computes the polynomials of jaxneuron/_math/formats.py with mpmath: `python -m tests.make_polynomials`."""

from collections.abc import Callable

import mpmath
import numpy as np

from jaxneuron._math.formats import FLOAT32, FLOAT64

MP = mpmath.mp.clone()
MP.prec = 500
NEAR_0 = MP.mpf(2) ** -60  # nearer to 0 the quotients below lose bits, so their value at this point is used


def interpolate(f: Callable, low: float, high: float, degree: int) -> list:
    """Returns the polynomial through `f` at Chebyshev nodes of [low, high]: coefficients, lowest first."""
    low, high, count = MP.mpf(low), MP.mpf(high), degree + 1
    nodes = [
        (low + high) / 2 + (high - low) / 2 * MP.cos(MP.pi * (2 * k + 1) / (2 * count)) for k in range(count)
    ]
    powers = MP.matrix([[x**k for k in range(count)] for x in nodes])
    return list(MP.lu_solve(powers, MP.matrix([f(x) for x in nodes])))


def exp(u):
    """Returns EXP(u), from exp(u) = 1 + u + u^2 EXP(u)."""
    return (MP.expm1(u) - u) / u**2 if abs(u) > NEAR_0 else MP.mpf(1) / 2


def tanh(square):
    """Returns TANH(x^2), from tanh(x) = x + x^3 TANH(x^2)."""
    x = MP.sqrt(max(square, NEAR_0))
    return (MP.tanh(x) - x) / x**3


def log(square):
    """Returns LOG(s^2), from log1p(f) = 2 atanh(s) = s (2 + s^2 LOG(s^2)), s = f / (2 + f)."""
    s = MP.sqrt(max(square, NEAR_0))
    return (2 * MP.atanh(s) / s - 2) / s**2


def gelu(shifted):
    """Returns GELU(t - 3/8), from erfc(a / sqrt(2)) exp(a^2 / 2) (a + 13/16) = 13/16 + t GELU(t - 3/8).

    Here t = a / (a + 4).
    """
    t = shifted + MP.mpf(3) / 8
    if abs(t) < NEAR_0:
        t = NEAR_0
    a = 4 * t / (1 - t)
    place = MP.mpf(13) / 16
    return (MP.erfc(a / MP.sqrt(2)) * MP.exp(a * a / 2) * (a + place) - place) / t


def sin(square):
    """Returns SIN(r^2), from sin(r) = r + r^3 SIN(r^2)."""
    r = MP.sqrt(max(square, NEAR_0))
    return (MP.sin(r) - r) / r**3


def cos(square):
    """Returns COS(r^2), from cos(r) = 1 - r^2/2 + r^4 COS(r^2)."""
    square = max(square, NEAR_0)
    return (MP.cos(MP.sqrt(square)) - 1 + square / 2) / square**2


def polynomials(f) -> dict[str, np.ndarray]:
    """Returns the polynomials of the format `f`: with the degrees that it has, rounded to its dtype."""
    reach = MP.log(2) / 2 * MP.mpf("1.002")
    end = f.gelu_zero.xla / (f.gelu_zero.xla + MP.mpf(4)) - MP.mpf(3) / 8
    quarter = (MP.pi / 4) ** 2 * MP.mpf("1.002")
    found = {
        "exp": interpolate(exp, -reach, reach, len(f.exp) - 1),
        "tanh": interpolate(tanh, 0, MP.mpf("0.56") ** 2 * MP.mpf("1.01"), len(f.tanh) - 1),
        "log": interpolate(log, 0, MP.mpf("0.0401"), len(f.log) - 1),
        "gelu": interpolate(gelu, -MP.mpf(3) / 8, end, len(f.gelu) - 1),
        "sin": interpolate(sin, 0, quarter, len(f.sin) - 1),
        "cos": interpolate(cos, 0, quarter, len(f.cos) - 1),
    }
    return {name: np.array([float(c) for c in each]).astype(f.number) for name, each in found.items()}


if __name__ == "__main__":
    for format_ in (FLOAT32, FLOAT64):
        for name, each in polynomials(format_).items():
            print(name, ", ".join(str(c) for c in each))
