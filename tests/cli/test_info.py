"""`jaxneuron info`, run in a new process. test_convert.py tests it on other kinds of file."""

import jaxneuron
from tests import make_qlknn
from tests.row_files import run


def test_info_prints_the_summary():
    done = run("info", make_qlknn.SHIPPED)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == jaxneuron.summary(make_qlknn.folded_qlknn()) + "\n"
