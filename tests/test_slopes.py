"""The first and second derivatives of the activations, compared with those of mpmath."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import CELU, ELU, HardTanh, LeakyReLU, Sin, Softplus
from jaxneuron._math import oracle
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._names import BY_NAME, resolve
from jaxneuron.testing._sweeps import VALUES, sample64

pytestmark = pytest.mark.once
UNITS = 4  # the bound, in ULP of a slope or, where its terms nearly cancel, in unit roundoffs of the terms
# Also activations with a parameter far from 1: there the slope has a factor that may underflow.
FAMILIES = [*VALUES, ELU(-1e-12), ELU(1e12), CELU(1e-20), CELU(1e20), Softplus(1e-20), Softplus(1e20)]
FAMILIES += [HardTanh(-2.0, 0.5)]
KINKED = ("relu", "leaky_relu", "relu6", "hard_tanh", "hard_sigmoid", "hard_swish", "identity", "square")
SMOOTH = sorted(set(BY_NAME) - set(KINKED) - set(OF_ROWS))


def derivative(f):
    return lambda z: jax.jvp(f, (z,), (jnp.ones_like(z),))[1]


def inputs(name, dtype, points):
    rng = np.random.default_rng(0)
    far = 110 if dtype == "float32" else 760  # exp(-far) is 0 in this dtype
    wide = np.concatenate([rng.uniform(-far, far, points), rng.uniform(-15, 15, points), [-3.0, 3.0, 0.5]])
    z = np.concatenate([rng.choice(sample64(14000), points), wide])
    match name:
        case CELU(alpha):
            z = z * alpha
        case Softplus(beta):
            z = z / beta
    z = np.unique(z.astype(dtype))
    return z[np.abs(z) >= oracle.SMALLEST_NORMAL[dtype]]


def assert_derivatives(found, name, z, order):
    """Asserts that `found`, first (order 0) or second (order 1) derivatives at z, is within the bound."""
    found, dtype = found.tolist(), found.dtype.name
    terms = [oracle.slopes(oracle.in_format(name, dtype), float(v))[order] for v in z]
    exact = [sum(each) for each in terms]
    size = np.array([float(sum(map(abs, each))) for each in terms])
    largest = oracle.MP.mpf(float(np.finfo(dtype).max))
    error = [float(abs(a - b)) if abs(a) <= largest else 0.0 for a, b in zip(exact, found, strict=True)]
    exact = np.array(exact, np.float64)
    bound = UNITS * np.maximum(oracle.ulp(exact, dtype), oracle.U[dtype] * size)
    small = oracle.SMALLEST_NORMAL[dtype]
    bound = bound + np.where(np.abs(exact) < small, small, 0)
    worst = np.argmax(np.array(error) / bound)
    assert error[worst] <= bound[worst], (order + 1, z[worst], found[worst], exact[worst])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*SMOOTH, *KINKED, *FAMILIES], ids=str)
def test_slopes_and_curvature_within_bound(name, dtype):
    with jax.enable_x64(True):
        z, f = inputs(name, dtype, 100), resolve(name)
        for order in (0, 1):
            f = derivative(f)
            assert_derivatives(np.asarray(jax.jit(f)(z)), name, z, order)


FAR = np.array([0.0, -0.0, 89.0, -89.0, 1000.0, -1000.0, np.inf, -np.inf], np.float32)


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED, *VALUES], ids=str)
def test_derivatives_are_finite_for_large_z(name):
    f = resolve(name)
    found = {"first": jax.grad(f), "second": jax.grad(jax.grad(f)), "mixed": jax.jacrev(jax.jacfwd(f))}
    for order, derivative in found.items():
        for z, slope in zip(FAR, np.asarray(jax.jit(jax.vmap(derivative))(FAR)), strict=True):
            if (name == "exp" and z > 88) or (name == "square" and np.isinf(z) and order == "first"):
                assert slope == (z if name == "square" else np.inf)  # the limit
            elif np.isinf(z) and (name == "sin" or isinstance(name, Sin)):
                assert np.isnan(slope)  # a sine has no limit there
            else:
                assert np.isfinite(slope), (order, z)


@pytest.mark.parametrize("name", [*SMOOTH, *VALUES], ids=str)
def test_derivatives_at_nan_are_nan(name):
    slope = jax.grad(resolve(name))(np.nan)
    assert np.isnan(slope) or isinstance(name, LeakyReLU)


def test_slopes_of_16_bit_numbers_are_rounded_once():
    z = np.linspace(-6, 6, 101)
    for name in ("sigmoid", "cr_sigmoid", "tanh", "gelu"):
        for dtype in (jnp.bfloat16, jnp.float16):
            narrow = jnp.asarray(z, dtype)
            expected = derivative(resolve(name))(narrow.astype(np.float32)).astype(dtype)
            np.testing.assert_array_equal(derivative(resolve(name))(narrow), expected)


def test_third_derivatives_equal_those_of_the_textbook():
    z = np.linspace(-4, 4, 40)
    with jax.enable_x64(True):
        for name, textbook in (
            ("sigmoid", jax.nn.sigmoid),
            ("gelu_tanh", jax.nn.gelu),
            ("mish", lambda z: z * jnp.tanh(jnp.log1p(jnp.exp(z)))),
            (Softplus(2.0), lambda z: jnp.log1p(jnp.exp(2 * z)) / 2),
        ):
            found, expected = (
                jax.jit(derivative(derivative(derivative(f))))(z) for f in (resolve(name), textbook)
            )
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9, err_msg=str(name))
