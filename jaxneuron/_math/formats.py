"""The only table of numbers: formats, polynomials and constants, for XLA's path and for the C++ kernel.

    exp(u) = 1 + u + u^2 EXP(u)                                   |u| <= ln(2) / 2
    tanh(x) = x + x^3 TANH(x^2)                                   |x| <= 0.56
    log1p(f) = f - f^2/2 + s (f^2/2 + s^2 LOG(s^2)), s = f / (2 + f)      -1/4 <= f <= 1/2
    erfc(a / sqrt(2)) exp(a^2 / 2) (a + 13/16) = 13/16 + t GELU(t - 3/8), t = a / (a + 4)
    sin(r) = r + r^3 SIN(r^2),  cos(r) = 1 - r^2/2 + r^4 COS(r^2)         |r| <= pi / 4

Each polynomial interpolates its function at the Chebyshev nodes of its interval; the lowest coefficient comes
first. tests/make_polynomials.py computes them by mpmath, and a test compares its numbers with these. After a
change here, run `python scripts/tables.py`, which writes _kernels/cpu/tables.h.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np

Polynomial = tuple[float, ...]


class Constant(NamedTuple):
    """A real number as the sum of two float64: the nearest one, and the difference from it."""

    value: float
    rest: float

    @staticmethod
    def of(digits: str) -> Constant:
        return Constant(float(digits), float(Decimal(digits) - Decimal(float(digits))))


LOG2_E = 1.4426950408889634  # 1 / ln 2
LN2 = Constant.of("0.69314718055994530941723212145817656807550013436026")
SIXTH = Constant(1 / 6, float(Fraction(1, 6) - Fraction(1 / 6)))
SQRT_8_PI = Constant.of("1.59576912160573071175978423973752747")
SQRT_8_PI_CUBIC = Constant.of("0.071354816272600248776338752279863541")  # 0.044715 sqrt(8 / pi)
# Klambauer, Unterthiner, Mayr, Hochreiter (2017): selu(z) = SCALE z above 0, SCALE ALPHA (exp(z) - 1) below.
SELU_SCALE_DIGITS = "1.0507009873554804934193349852946"
SELU_ALPHA_DIGITS = "1.6732632423543772848170429916717"
SELU_SCALE = Constant.of(SELU_SCALE_DIGITS)
SELU_ALPHA = Constant.of(SELU_ALPHA_DIGITS)
SELU_LIMIT = float(Decimal(SELU_SCALE_DIGITS) * Decimal(SELU_ALPHA_DIGITS))  # selu(-infinity) = -SELU_LIMIT
LEAKY_SLOPE = 0.01
GELU_PLACE = 13 / 16
HALF_PI = Fraction(
    "1.57079632679489661923132169163975144209858469968755291048747229615390820314310449931401741"
)
LARGE_SINE = 2.0**17  # up to here the argument of the sine is reduced with three parts of pi / 2
LARGE_TANH = 0.55  # above this argument tanh is above 1/2, and computed as 1 - 2 / (1 + exp(2x))


class End(NamedTuple):
    """The a from which on a function of -a is 0. XLA gives 0 for subnormal results, the kernel does not."""

    xla: float
    kernel: float


class Format(NamedTuple):
    """A floating-point format, with the numbers that the activations need in it."""

    number: type[np.floating]
    integer: type[np.signedinteger]
    fraction_bits: int  # the bits of the significand, without the hidden bit
    exponent_bias: int
    half_bits: int  # the bits of half a significand: the product of two halves is exact
    scale_exponent: int  # a power of two below the normal numbers, times 2^scale_exponent, is normal
    ln2: tuple[float, float]  # ln 2 in Cody and Waite's two parts: the first times an exponent is exact
    normal: float  # exp(-normal) is just above the smallest normal number
    zero: float  # exp(-zero) rounds to 0, subnormal numbers included
    one: float  # 1 - exp(-one) rounds to 1
    gated_zero: End  # for the function a exp(-a), and so for silu and mish
    gelu_zero: End
    gelu_tanh_zero: End
    exp: Polynomial
    tanh: Polynomial
    log: Polynomial
    gelu: Polynomial
    sin: Polynomial
    cos: Polynomial


FLOAT32 = Format(
    number=np.float32, integer=np.int32, fraction_bits=23, exponent_bias=127, half_bits=12,
    scale_exponent=40,
    ln2=(0.693145751953125, 1.4286068e-06),
    normal=87.33654, zero=104.0, one=20.0,
    gated_zero=End(118.0, 109.0), gelu_zero=End(13.6, 14.5), gelu_tanh_zero=End(10.25, 10.85),
    exp=(0.5, 0.16666576, 0.041666552, 0.008363293, 0.0013926326),
    tanh=(-0.3333333, 0.13333073, -0.053901564, 0.021262245, -0.0065235817),
    log=(0.66666716, 0.3997891, 0.29959196),
    gelu=(
        0.33536786, -1.4215181, 2.5440726, -2.78493, 1.7304796, -0.18040413, -0.5662022, 0.24579437,
        0.1804731, -0.121511675,
    ),
    sin=(-0.16666664, 0.008332746, -0.00019587387),
    cos=(0.041666664, -0.00138883, 2.4547437e-05),
)  # fmt: skip

FLOAT64 = Format(
    number=np.float64, integer=np.int64, fraction_bits=52, exponent_bias=1023, half_bits=26,
    scale_exponent=96,
    ln2=(0.6931471803691238, 1.9082149292705877e-10),
    normal=708.3964185322641, zero=746.0, one=42.0,
    gated_zero=End(760.0, 753.0), gelu_zero=End(38.7, 38.7), gelu_tanh_zero=End(21.3, 21.65),
    exp=(
        0.5, 0.16666666666666666, 0.04166666666666668, 0.008333333333333333, 0.0013888888888878923,
        0.00019841269841263198, 2.4801587336841623e-05, 2.755731924748493e-06, 2.7557262852470396e-07,
        2.5052070809943926e-08, 2.0918295266435273e-09, 1.6086732952745416e-10,
    ),
    tanh=(
        -0.3333333333333333, 0.13333333333333333, -0.05396825396825183, 0.021869488536005705,
        -0.008863235524478662, 0.0035921279192374428, -0.0014558327532681909, 0.0005900121398892755,
        -0.00023903047693058348, 9.647483955809523e-05, -3.792830385781134e-05, 1.3162216643590444e-05,
        -2.9080155477497814e-06,
    ),
    log=(
        0.6666666666666666, 0.4000000000000794, 0.28571428567275936, 0.2222222304835159,
        0.18181737626302938, 0.15388867805613718, 0.13209708242059462, 0.13609030262858499,
    ),
    gelu=(
        0.3353678733755441, -1.4215180480420564, 2.5440686205660814, -2.7849375356173383, 1.7307057522137599,
        -0.18025791000272093, -0.5706443538976085, 0.24545926809093274, 0.217188755747719,
        -0.13164087324714624, -0.11771392785748659, 0.05626394256067548, 0.07890723105205211,
        -0.011134241628031328, -0.052506464878655915, -0.014441291774210848, 0.027733716843153088,
        0.02457524103520036, -0.005289410416138383, -0.023099475091294275, -0.009598204615744918,
        0.017100477597794473, 0.010411880199108003, -0.010530191665527345,
    ),
    sin=(
        -0.16666666666666666, 0.008333333333330925, -0.00019841269836722437, 2.755731608382574e-06,
        -2.505112794596564e-08, 1.591784866512194e-10,
    ),
    cos=(
        0.041666666666666664, -0.0013888888888887382, 2.480158729874308e-05, -2.755731726001471e-07,
        2.0876143829213935e-09, -1.1382456865840483e-11,
    ),
)  # fmt: skip
