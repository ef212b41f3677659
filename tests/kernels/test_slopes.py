"""The CPU kernel's slopes and curvatures of activations are within their bounds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import ELU, MLP
from jaxneuron._kernels import xla_derivatives
from jaxneuron._math import oracle
from jaxneuron._names import resolve
from tests.kernels.test_primitive import SETS
from tests.kernels.test_products import WIDE, evaluate, pytestmark  # noqa: F401 # the same marks
from tests.pools import VALUES
from tests.test_slopes import FAMILIES, KINKED, SMOOTH, assert_derivatives, inputs


@pytest.mark.once
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", [*SMOOTH, *KINKED, *FAMILIES], ids=str)
def test_slopes_and_curvature_within_bound(name, dtype):
    with jax.enable_x64(True):
        z = inputs(name, dtype, 60)
        one = MLP([(jnp.ones((1, 1), dtype), None)], "identity", name)  # J is the slope, L the curvature
        for order, instruction_set in itertools.product((0, 1), dict.fromkeys((0, len(SETS) - 1))):
            found = evaluate(one, jnp.asarray(z)[:, None], True, instruction_set)[1 + order]
            assert_derivatives(np.asarray(found).ravel(), name, z, order)


FAR = [0.0, -0.0, 89.0, -89.0, 1000.0, -1000.0, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", [*SMOOTH, *KINKED, *VALUES], ids=str)
def test_slopes_for_large_z_and_at_kinks_equal_those_of_xla(name, dtype):
    with jax.enable_x64(True):
        mlp = MLP([(jnp.ones((1, 1), dtype), None)], "identity", name)
        x = jnp.asarray([*FAR, -3.0, 3.0, 1.0, -1.0, 6.0, 2.0, -0.3], dtype)[:, None]
        found = evaluate(mlp, x, laplacian=True)
        expected = xla_derivatives.with_curvature(resolve(name))(x)
        smallest = oracle.SMALLEST_NORMAL[dtype]
        for a, b in zip(found, expected, strict=True):
            a = a.reshape(x.shape)
            np.testing.assert_allclose(a, b, rtol=32 * oracle.U[dtype], atol=smallest)


@pytest.mark.parametrize("alpha", [1e37, -1e30, 1.0, 1e-30])
def test_slopes_of_elu_are_right_until_they_are_subnormal(alpha):
    with jax.enable_x64(True):
        for dtype in WIDE:
            mlp = MLP([(jnp.ones((1, 1), dtype), None)], "identity", ELU(alpha))
            z = -np.linspace(1, 1e3, 4000, dtype=dtype)
            half = np.exp(z.astype(np.float64) / 2)  # exp(z) itself may be subnormal
            expected = alpha * half * half
            normal = np.abs(expected) >= oracle.SMALLEST_NORMAL[dtype]
            for found in evaluate(mlp, jnp.asarray(z)[:, None], True)[1:]:
                np.testing.assert_allclose(found.ravel()[normal], expected[normal], rtol=8 * oracle.U[dtype])
