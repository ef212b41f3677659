"""Property tests for numerical JAX code: Hypothesis strategies for parameters and inputs, and laws.

A strategy draws neurons, layers, networks and their inputs as NumPy arrays. A law is an assertion: it checks
a function for many floats, or compares a result with the exact one or with one computed in another way. Its
message says where it fails and by how much. This module needs the extra `hypothesis`.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
    import mpmath as _mpmath  # noqa: F401
except ImportError:
    raise ImportError(
        "jaxneuron.testing: needs hypothesis and mpmath; pip install 'jaxneuron[hypothesis]'"
    ) from None

from jaxneuron.testing._elementwise import (
    assert_bounded,
    assert_monotone,
    assert_odd_about,
    floats,
    max_ulp_error,
)
from jaxneuron.testing._laws import (
    assert_compiles_once,
    assert_jacobian_within_bound,
    assert_jit_consistent,
    assert_laplacian_within_bound,
    assert_rows_independent,
    assert_vmap_consistent,
    assert_within_error_bound,
    count_compilations,
)
from jaxneuron.testing._strategies import (
    ensembles,
    inputs,
    layers,
    mlps,
    neurons,
    numbers,
    params_and_inputs,
    profile,
)

__all__ = [
    "assert_bounded",
    "assert_compiles_once",
    "assert_jacobian_within_bound",
    "assert_jit_consistent",
    "assert_laplacian_within_bound",
    "assert_monotone",
    "assert_odd_about",
    "assert_rows_independent",
    "assert_vmap_consistent",
    "assert_within_error_bound",
    "count_compilations",
    "ensembles",
    "floats",
    "inputs",
    "layers",
    "max_ulp_error",
    "mlps",
    "neurons",
    "numbers",
    "params_and_inputs",
    "profile",
]
