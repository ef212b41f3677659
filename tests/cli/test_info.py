"""`jaxneuron info`, as a process; of other kinds of file: test_convert.py."""

import jaxneuron
from tests import make_qlknn
from tests.row_files import run


def test_info():
    done = run("info", make_qlknn.SHIPPED)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == jaxneuron.summary(make_qlknn.folded_qlknn()) + "\n"
