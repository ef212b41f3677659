"""JAX's transforms of networks are right or raise a clear error, with the kernels' primitive and without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.experimental.jet import jet

from jaxneuron import Affine, affine, init_mlp, mlp_forward, neuron, tanh
from jaxneuron._kernels import library, xla
from jaxneuron._names import resolve

pytestmark = pytest.mark.cpu
needs_the_kernel = pytest.mark.skipif(library.missing() is not None, reason=str(library.missing()))


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def network(activation="tanh", final="identity"):
    return init_mlp(
        jax.random.key(0), (5, 20, 3), activation=activation, final_activation=final, dtype=np.float64
    )


def on_xla(mlp, x):
    return xla.forward(mlp.layers, [resolve(a) for a in mlp.activations], x)


X = np.random.default_rng(1).normal(size=(7, 5))


def test_first_derivatives_equal_those_of_xla():
    mlp = network()
    for transform in (jax.grad, jax.value_and_grad):
        found = transform(lambda mlp, x: mlp_forward(mlp, x).sum(), (0, 1))(mlp, X)
        expected = transform(lambda mlp, x: on_xla(mlp, x).sum(), (0, 1))(mlp, X)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13), found, expected)
    jacobian = jax.vmap(jax.jacfwd(mlp_forward, 1), (None, 0))(mlp, X)
    expected = jax.vmap(jax.jacrev(on_xla, 1), (None, 0))(mlp, X)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_linear_transpose_of_an_affine_without_bias_is_right(wrap):
    w = np.random.default_rng(0).normal(size=(5, 4))
    y = np.random.default_rng(2).normal(size=(7, 4))
    (x,) = jax.linear_transpose(wrap(lambda x: affine(Affine(w), x)), X)(y)
    np.testing.assert_allclose(x, y @ w.T, rtol=1e-13)
    (dw,) = jax.linear_transpose(wrap(lambda w: affine(Affine(w), X)), w)(y)
    np.testing.assert_allclose(dw, X.T @ y, rtol=1e-13, atol=1e-13)


@needs_the_kernel
def test_linear_transpose_of_a_nonlinear_function_raises():
    for function in (
        lambda x: mlp_forward(network(), x),
        lambda x: affine(Affine(np.ones((5, 3)), np.ones(3)), x),
    ):
        with pytest.raises(
            NotImplementedError, match=r"jax.linear_transpose needs a linear function.*use jax.vjp"
        ):
            jax.linear_transpose(function, X)(np.ones((7, 3)))


def by_hand(mlp):
    def forward(x):
        for (w, b), activation in zip(mlp.layers, mlp.activations, strict=True):
            x = {
                "tanh": jnp.tanh,
                "sigmoid": jax.nn.sigmoid,
                "identity": lambda z: z,
                "softplus": lambda z: jnp.log1p(jnp.exp(z)),
            }[activation](x @ w + b[None])
        return x

    return forward


@needs_the_kernel
@pytest.mark.parametrize(
    ("activation", "wrap"),
    [("tanh", jax.jit), ("tanh", jax.vmap), ("sigmoid", lambda f: f), ("softplus", jax.jit)],
)
def test_taylor_mode_is_right(activation, wrap):
    mlp = network(activation)
    series = tuple(np.random.default_rng(k).normal(size=X.shape) for k in range(3))
    y, terms = jet(wrap(lambda x: mlp_forward(mlp, x)), (X,), (series,))
    expected, expected_terms = jet(by_hand(mlp), (X,), (series,))
    np.testing.assert_array_equal(y, mlp_forward(mlp, X))
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    np.testing.assert_allclose(terms, expected_terms, rtol=1e-10, atol=1e-12)


@needs_the_kernel
@pytest.mark.parametrize("wrap", [lambda f: jax.grad(lambda x: f(x).sum()), jax.jacfwd])
def test_taylor_mode_of_derivatives_is_right(wrap):
    mlp = network()
    series = tuple(np.random.default_rng(k).normal(size=X.shape) for k in range(2))
    y, terms = jet(wrap(lambda x: mlp_forward(mlp, x)), (X,), (series,))
    expected, expected_terms = jet(wrap(by_hand(mlp)), (X,), (series,))
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    np.testing.assert_allclose(terms, expected_terms, rtol=1e-10, atol=1e-12)


def test_taylor_mode_without_a_rule_raises_with_a_remedy():
    ones = (np.ones_like(X), np.zeros_like(X))
    mlp = network(final=lambda z: tanh(z))
    calls = {
        "tanh": tanh,
        "neuron": lambda x: neuron(Affine(np.ones((5, 2))), x, lambda z: tanh(z)),
        "mlp_forward": lambda x: mlp_forward(mlp, x),
    }
    for name, call in calls.items():
        with pytest.raises(
            NotImplementedError, match=f"^{name}: jax.experimental.jet can't take .*; nest jax.jvp"
        ):
            jet(call, (X,), (ones,))
    second = jax.jvp(lambda x: jax.jvp(tanh, (x,), (np.ones_like(X),))[1], (X,), (np.ones_like(X),))[1]
    np.testing.assert_allclose(second, -2 * np.tanh(X) * (1 - np.tanh(X) ** 2), rtol=1e-12)


def test_checkify_finds_nan_that_a_network_makes():
    mlp, x = network(), X.copy()
    x[3] = np.inf
    weights = mlp.layers[0].w.at[:2].set([[1.0], [-1.0]])  # inf - inf
    broken = jax.tree.unflatten(jax.tree.structure(mlp), [weights, *jax.tree.leaves(mlp)[1:]])
    check = checkify.checkify(jax.jit(mlp_forward), errors=checkify.nan_checks)
    assert check(mlp, X)[0].get() is None
    assert "nan generated by primitive" in check(broken, x)[0].get()
