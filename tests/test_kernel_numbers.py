"""The numbers that the kernel's headers repeat are those of _math/formats.py."""

import re
from pathlib import Path

import numpy as np
import pytest

from jaxneuron._math.formats import FLOAT32, FLOAT64

HEADER = Path(__file__).parents[1] / "jaxneuron" / "_kernels" / "cpu" / "format.h"
SAME = ("digits", "bias", "few", "ln2", "zero", "one", "exp", "tanh", "log", "gelu")


def numbers(text):
    """The constants of a struct by name, each a tuple."""
    found = re.findall(r"(\w+)(?:\[\])? = (\{[^}]*\}|[^,;]+)", text)
    return {
        name: tuple(float(n.rstrip("f")) for n in re.findall(r"[-+.\w]+", value)) for name, value in found
    }


@pytest.mark.parametrize(("kind", "f"), [("float", FLOAT32), ("double", FLOAT64)])
def test_the_header_has_the_numbers_of_polynomials(kind, f):
    text = re.sub(r"//.*", "", HEADER.read_text())
    found = numbers(text.split(f"struct Format<{kind}> {{")[1].split("\n};")[0])
    for name in SAME:
        assert (f.number(found[name]) == f.number(np.atleast_1d(getattr(f, name)))).all(), name
    # Subnormal results are numbers in the kernel: it goes on to where the next one would be 0.
    assert found["gelu_zero"] >= (f.gelu_zero,)
    assert found["gelu_tanh_zero"] >= (f.gelu_tanh_zero,)
