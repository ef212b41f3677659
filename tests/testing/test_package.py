"""The public names of `jaxneuron.testing`, and its optional libraries."""

import subprocess
import sys

import pytest

from jaxneuron import testing


def test_everything_public_is_documented_with_an_example():
    for name in testing.__all__:
        assert ">>>" in getattr(testing, name).__doc__, name


@pytest.mark.parametrize("absent", ["hypothesis", "mpmath"])
def test_importing_without_the_extra_names_it(absent):
    program = f"import sys; sys.modules[{absent!r}] = None; import jaxneuron; import jaxneuron.testing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: jaxneuron.testing: needs hypothesis and mpmath; pip install 'jaxneuron[hypothesis]'"
    )
