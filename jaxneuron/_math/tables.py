"""The numbers that Python and the compiled kernel share, in the form that the kernel needs.

scripts/tables.py writes them to _kernels/cpu/tables.h. When Python loads the compiled library, it compares
the library's fingerprint with the one computed here: a library compiled from other tables would compute
something else.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np

from jaxneuron._math import formats
from jaxneuron._math.activations import FORMULAS, OF_ROWS
from jaxneuron._math.formats import FLOAT32, FLOAT64, Constant, End, Format

Number = int | float | tuple[float, ...]


def numbers(f: Format) -> dict[str, Number]:
    """The members of the C++ kernel's `Format<T>`, by name."""
    own = f._asdict()
    del own["number"], own["integer"], own["normal"]
    ln2_reduction = own.pop("ln2")
    return {
        **{name: value.kernel if isinstance(value, End) else value for name, value in own.items()},
        "ln2_reduction": ln2_reduction,
        "log2_e": formats.LOG2_E,
        "ln2": _parts(formats.LN2, f),
        "gelu_place": formats.GELU_PLACE,
        "large_tanh": formats.LARGE_TANH,
        "sqrt_8_pi": _parts(formats.SQRT_8_PI, f, first=1.595703125),  # a number of few bits, in float64 too
        "sqrt_8_pi_cubic": _parts(formats.SQRT_8_PI_CUBIC, f),
        # Truncated, not rounded, so that the second part is positive too.
        "selu_scale": _parts(formats.SELU_SCALE, f, first=_cut_off(formats.SELU_SCALE.value, f)),
        "half_pi": _three_parts(formats.HALF_PI, f),
        "two_over_pi": float(1 / formats.HALF_PI),
        "large_sine": formats.LARGE_SINE,
        "selu_full": _parts(Constant(formats.SELU_LIMIT, 0.0), f),
    }


def _parts(constant: Constant, f: Format, first: float | None = None) -> tuple[float, float]:
    """A constant as the sum of two numbers of the format; the first is the nearest one if not given."""
    first = float(f.number(constant.value)) if first is None else first
    return first, float(f.number((constant.value - first) + constant.rest))


def _three_parts(exact: Fraction, f: Format) -> tuple[float, ...]:
    """A constant as the sum of three numbers of the format, each the nearest to what is left of it."""
    parts: list[float] = []
    for _ in range(3):
        parts.append(float(f.number(float(exact - sum(map(Fraction, parts))))))
    return tuple(parts)


def _cut_off(value: float, f: Format) -> float:
    nearest = f.number(value)
    return float(nearest if float(nearest) <= value else np.nextafter(nearest, f.number(-math.inf)))


def fingerprint() -> str:
    """A hash of all these numbers: 16 hexadecimal digits."""
    content = repr((FORMULAS, OF_ROWS, numbers(FLOAT32), numbers(FLOAT64)))
    return hashlib.sha256(content.encode()).hexdigest()[:16]
