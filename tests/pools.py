"""Strategies of the tests: those of jaxneuron.testing, with more activations and with layers of width 0."""

from jaxneuron import HardTanh
from jaxneuron._math import oracle
from jaxneuron._math.activations import OF_ROWS
from jaxneuron.testing import _sweeps as sweeps
from jaxneuron.testing import mlps as _mlps
from jaxneuron.testing import params_and_inputs
from jaxneuron.testing._strategies import NETWORKS

DTYPES = tuple(oracle.U)
ELEMENTWISE = tuple(oracle.FORMULAS)
VALUES = (*sweeps.VALUES, HardTanh(-0.3, 2.0))  # activations with parameters, of every family
SIZES = (1, 2, 7, 0)


def mlps(**options):
    """Returns a strategy for networks with any activation, which may have layers without inputs or units."""
    networks = (*NETWORKS, (0, 2), (2, 0, 3), (1, 0))
    elementwise = (*ELEMENTWISE, *VALUES)
    defaults = {"activations": elementwise, "final_activations": (*elementwise, *OF_ROWS)}
    return _mlps(networks, **{**defaults, **options})


def mlps_and_inputs(batch=((), (1,), (7,), (0,), (2, 1)), **options):
    return params_and_inputs(mlps(**options), batch=batch)
