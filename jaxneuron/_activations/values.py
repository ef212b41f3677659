"""Activations with parameters, as values: immutable, compared by their parameters, and called like functions.

A value can be passed wherever a name can. A parameter is rounded to the dtype of the computation, which is
float32 for bfloat16 and float16. The error bounds are those of the function with the rounded parameter.
Derivatives are taken with respect to the input only. If a value has a name, as `LeakyReLU(0.01)` has, a
network records the name instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from jaxneuron._errors import BadValue
from jaxneuron._math import scaled, sine
from jaxneuron._names import Parametric


@dataclass(frozen=True)
class LeakyReLU(Parametric):
    """The leaky rectified linear unit.

        LeakyReLU(slope)(z) = z for z >= 0, slope z otherwise

    Args:
      slope: a finite number. `LeakyReLU(0.01)` is "leaky_relu", `LeakyReLU(0)` "relu".

    Raises:
      ValueError: if float32 can't hold the slope.
      TypeError: if the slope is not a number.
      A call raises TypeError or ValueError if z is not an array of real numbers.

    Numerics: the product is rounded once. Tested by tests/test_numerics.py.

    Source: Maas, Hannun, Ng (2013), "Rectifier nonlinearities improve neural network acoustic models".

    Example:
      >>> LeakyReLU(0.25)([-2.0, 3.0])
      Array([-0.5,  3. ], dtype=float32)
    """

    slope: float
    family: ClassVar[str] = "leaky_relu"

    def formula(self) -> Callable[[Array], Array]:
        return scaled.leaky_relu(self.slope)


@dataclass(frozen=True)
class ELU(Parametric):
    """The exponential linear unit.

        ELU(alpha)(z) = z for z > 0, alpha (exp(z) - 1) otherwise

    Args:
      alpha: a number from -1e37 to 1e37. `ELU(1)` is "elu".

    Raises:
      ValueError: if alpha is not between -1e37 and 1e37.
      TypeError: if alpha is not a number.
      A call raises TypeError or ValueError if z is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64. Tested by tests/test_numerics.py.

    Source: Clevert, Unterthiner, Hochreiter (2015), "Fast and accurate deep network learning by ELUs".

    Example:
      >>> ELU(0.5)([-200.0, 1.0])
      Array([-0.5,  1. ], dtype=float32)
    """

    alpha: float
    family: ClassVar[str] = "elu"

    def check(self) -> None:
        if abs(self.alpha) > 1e37:  # the kernel's slopes go no further
            raise BadValue(
                f"alpha must be from -1e37 to 1e37, got {self.alpha:g}; scale the layer's weights instead"
            )

    def formula(self) -> Callable[[Array], Array]:
        return scaled.elu(self.alpha)


@dataclass(frozen=True)
class CELU(Parametric):
    """The exponential linear unit in a form whose slope is continuous for every alpha.

        CELU(alpha)(z) = z for z > 0, alpha (exp(z / alpha) - 1) otherwise

    Args:
      alpha: a number from 1e-30 to 1e30. `CELU(1)` is "elu".

    Raises:
      ValueError: if alpha is not between 1e-30 and 1e30.
      TypeError: if alpha is not a number.
      A call raises TypeError or ValueError if z is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64: z / alpha is kept in two parts. Tested by
    tests/test_numerics.py.

    Source: Barron (2017), "Continuously differentiable exponential linear units".

    Example:
      >>> CELU(0.5)([-200.0, 1.0])
      Array([-0.5,  1. ], dtype=float32)
    """

    alpha: float
    family: ClassVar[str] = "celu"

    def check(self) -> None:
        _check_scaling("alpha", self.alpha)

    def formula(self) -> Callable[[Array], Array]:
        return scaled.celu(self.alpha)


@dataclass(frozen=True)
class Softplus(Parametric):
    """A smooth form of relu, which it approaches as beta grows.

        Softplus(beta)(z) = log(1 + exp(beta z)) / beta

    Args:
      beta: a number from 1e-30 to 1e30. `Softplus(1)` is "softplus".

    Raises:
      ValueError: if beta is not between 1e-30 and 1e30.
      TypeError: if beta is not a number.
      A call raises TypeError or ValueError if z is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64: beta z is kept in two parts. Tested by
    tests/test_numerics.py.

    Source: Dugas, Bengio, Bélisle, Nadeau, Garcia (2000), "Incorporating second-order functional knowledge
    for better option pricing".

    Example:
      >>> Softplus(100)([-200.0, 1.0])
      Array([0., 1.], dtype=float32)
    """

    beta: float
    family: ClassVar[str] = "softplus"

    def check(self) -> None:
        _check_scaling("beta", self.beta)

    def formula(self) -> Callable[[Array], Array]:
        return scaled.softplus(self.beta)


@dataclass(frozen=True)
class HardTanh(Parametric):
    """The identity, limited to the interval from `low` to `high`.

        HardTanh(low, high)(z) = min(max(z, low), high)

    Args:
      low: the smallest value, a finite number.
      high: the largest value, above `low`. `HardTanh(-1, 1)` is "hard_tanh", `HardTanh(0, 6)` "relu6".

    Raises:
      ValueError: if low is not below high, or float32 can't hold one of them.
      TypeError: if one of them is not a number.
      A call raises TypeError or ValueError if z is not an array of real numbers.

    Numerics: exact. Tested by tests/test_activations.py.

    Example:
      >>> HardTanh(-2, 0.5)([-3.0, 0.25, 3.0])
      Array([-2.  ,  0.25,  0.5 ], dtype=float32)
    """

    low: float
    high: float
    family: ClassVar[str] = "hard_tanh"

    def check(self) -> None:
        if not self.low < self.high:
            raise BadValue(
                f"low must be less than high, got {self.low:g} and {self.high:g}; "
                f"pass the smaller number first"
            )

    def formula(self) -> Callable[[Array], Array]:
        return scaled.hard_tanh(self.low, self.high)


@dataclass(frozen=True)
class Sin(Parametric):
    """The sine of a multiple of z, the activation of SIREN networks.

        Sin(frequency)(z) = sin(frequency z)

    Args:
      frequency: a finite number, such as SIREN's 30. `Sin(1)` is "sin".

    Raises:
      ValueError: if float32 can't hold the frequency.
      TypeError: if the frequency is not a number.
      A call raises TypeError or ValueError if z is not an array of real numbers.

    Numerics: at most 1.5 ULP off, 2 in float64, up to |frequency z| = 2^17: the product is kept in two parts.
    Beyond that the docstring of `sin` says what holds. If the product is infinite, the result is NaN. Tested
    by tests/test_numerics.py.

    Source: Sitzmann, Martel, Bergman, Lindell, Wetzstein (2020), "Implicit neural representations with
    periodic activation functions".

    Example:
      >>> abs(Sin(30)(0.05) - np.sin(1.5)) < 1e-6
      Array(True, dtype=bool)
    """

    frequency: float
    family: ClassVar[str] = "sin"

    def formula(self) -> Callable[[Array], Array]:
        return sine.sin(self.frequency)


def _check_scaling(name: str, value: float) -> None:
    """Refuses a number whose reciprocal float32 or bfloat16 can't hold; the limits leave some room."""
    if not 1e-30 <= value <= 1e30:
        raise BadValue(f"{name} must be from 1e-30 to 1e30, got {value:g}; scale the layer's weights instead")
