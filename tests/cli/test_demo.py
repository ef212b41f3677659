"""`jaxneuron demo`, run in a new process."""

import re

import pytest

from tests.row_files import run


@pytest.mark.parametrize(("x64", "greatest"), [("0", 1e-4), ("1", 1e-9)])
def test_demo_prints_tables_errors_and_speed(x64, greatest):
    done = run("demo", JAX_ENABLE_X64=x64)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "  x1 x2           AND            OR          NAND           XOR",
        "   0  0  0.3318 False  0.4502 False  0.6682  True  0.0215 False",
        "   1  1  0.5744  True  0.6900  True  0.4256 False  0.0184 False",
        "total: 73,823 parameters, 590,584 bytes (float64), 73,150 multiply-adds a row",
    ):
        assert line in done.stdout.splitlines()
    error = re.search(
        r"25 published rows in float(\d\d): the largest error of an output is (\S+) of", done.stdout
    )
    assert error[1] == ("64" if x64 == "1" else "32")
    assert float(error[2]) < greatest
    assert (
        float(re.search(r"100,000 random rows: (\S+) rows per second", done.stdout)[1].replace(",", "")) > 0
    )
