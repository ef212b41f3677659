"""What the suite draws from: jaxneuron.testing's pools, and widths of nothing."""

from jaxneuron._math import oracle
from jaxneuron.testing import mlps as _mlps
from jaxneuron.testing import params_and_inputs
from jaxneuron.testing._strategies import NETWORKS

DTYPES = tuple(oracle.U)
ELEMENTWISE = tuple(oracle.FORMULAS)
SIZES = (1, 2, 7, 0)


def mlps(**options):
    """Every activation, and layers without inputs or units."""
    networks = (*NETWORKS, (0, 2), (2, 0, 3), (1, 0))
    defaults = {"activations": ELEMENTWISE, "final_activations": (*ELEMENTWISE, "softmax")}
    return _mlps(networks, **{**defaults, **options})


def mlps_and_inputs(batch=((), (1,), (7,), (0,), (2, 1)), **options):
    return params_and_inputs(mlps(**options), batch=batch)
