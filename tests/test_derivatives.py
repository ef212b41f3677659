"""Jacobians and Laplacians are within their error bounds, and agree with JAX's own derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxneuron import MLP, explain, init_mlp, mlp_forward, mlp_laplacian, mlp_value_and_jacobian
from jaxneuron._kernels import library, xla_derivatives
from jaxneuron._names import resolve
from jaxneuron.testing import assert_jacobian_within_bound, assert_laplacian_within_bound
from tests.draws import generator
from tests.pools import ELEMENTWISE, VALUES, mlps_and_inputs

with_x64_off_and_on = pytest.mark.usefixtures("x64")  # with jax_enable_x64 off and on
RNG = generator()


def by_xla(function):
    """Returns `function` as a jitted function of a network and rows. It does not use the kernel."""

    @jax.jit
    def call(mlp, x):
        return function(mlp.layers, [resolve(a) for a in mlp.activations], x)

    return call


WAYS = {
    "public": (mlp_value_and_jacobian, mlp_laplacian),
    "XLA": (by_xla(xla_derivatives.value_and_jacobian), by_xla(xla_derivatives.laplacian)),
}


def jax_holds(dtype):
    """Returns whether JAX has arrays of this dtype: float64 only if x64 is on."""
    return dtype != "float64" or jax.config.jax_enable_x64


# --- truth ---


def assert_within_bounds(ways, mlp, x):
    value_and_jacobian, laplacian = ways
    y, jacobian = value_and_jacobian(mlp, x)
    wide = jnp.float32 if y.dtype.itemsize == 2 else y.dtype
    assert jacobian.dtype == wide
    assert jacobian.shape == (*x.shape[:-1], mlp.layers[-1].w.shape[1], x.shape[-1])
    assert_jacobian_within_bound(mlp, x, jacobian)
    same, jacobian, second = laplacian(mlp, x)
    assert same.dtype == y.dtype
    assert second.dtype == wide
    assert_jacobian_within_bound(mlp, x, jacobian)
    assert_laplacian_within_bound(mlp, x, second)


@with_x64_off_and_on
@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS)
@settings(max_examples=5)
@given(mlps_and_inputs(batch=((), (3,), (0,), (2, 1))))
def test_within_bound(ways, mlp_and_x):
    mlp, x = mlp_and_x
    if jax_holds(x.dtype.name):
        assert_within_bounds(ways, mlp, x)


EACH = [*(name for name in ELEMENTWISE if name not in ("exp", "square")), *VALUES]


@with_x64_off_and_on
@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("first", range(0, len(EACH), 5))
def test_every_activation_within_bound(ways, first):
    names, dtype = EACH[first : first + 5], "float64" if jax.config.jax_enable_x64 else "float32"
    for last, width in (("softmax", 3), ("log_softmax", 2), ("exp", 1), ("square", 4))[first % 4 :][:1]:
        sizes = (3, *[4] * len(names), width)
        mlp = init_mlp(jax.random.key(first), sizes, activation=names, final_activation=last, dtype=dtype)
        assert_within_bounds(ways, mlp, RNG.normal(size=(5, 3)).astype(dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_networks_have_a_float32_jacobian(dtype):
    mlp = init_mlp(jax.random.key(0), (3, 8, 4), activation="sigmoid", dtype=jnp.dtype(dtype))
    x = RNG.normal(size=(5, 3)).astype(jnp.dtype(dtype))
    y, jacobian, second = mlp_laplacian(mlp, x)
    np.testing.assert_array_equal(y, mlp_forward(mlp, x))
    assert jacobian.dtype == second.dtype == np.float32
    assert_within_bounds(WAYS["public"], mlp, x)


def test_forward_and_backward_jacobians_agree():
    for sizes, backward in (((2, 9, 9, 5), False), ((5, 9, 7, 1), True), ((4, 3), False), ((5, 9, 1), False)):
        assert xla_derivatives.backward_is_cheaper(sizes) == backward
        mlp = init_mlp(jax.random.key(0), sizes, activation="tanh", final_activation="identity")
        x = RNG.normal(size=(4, sizes[0])).astype(np.float32)
        y, jacobian = mlp_value_and_jacobian(mlp, x)
        _, by_tangents, _ = mlp_laplacian(mlp, x)
        np.testing.assert_allclose(jacobian, by_tangents, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(y, mlp_forward(mlp, x), rtol=1e-6, atol=1e-6)


def test_custom_activations_have_jaxs_derivatives():
    def gated(z):  # takes a whole row, not one unit at a time
        return z * jax.nn.sigmoid(jnp.sum(z, -1, keepdims=True))

    def step(z):
        return (z > 0).astype(int)

    def halved(z):
        return z.astype(jnp.bfloat16)

    for hidden, last, sizes in (
        (jnp.sin, jax.nn.softmax, (2, 4, 3)),
        (gated, jnp.tanh, (4, 5, 2)),
        ("tanh", gated, (4, 2)),
        (step, "identity", (2, 3, 2)),
        (halved, "identity", (2, 3, 2)),
    ):
        mlp = init_mlp(jax.random.key(0), sizes, activation=hidden, final_activation=last)
        x = RNG.normal(size=(3, sizes[0])).astype(np.float32)
        y, jacobian, second = mlp_laplacian(mlp, x)

        def expected(row, mlp=mlp):
            jacobian = jax.jacfwd(mlp_forward, 1)(mlp, row)
            hessian = jax.jacfwd(jax.jacfwd(mlp_forward, 1), 1)(mlp, row)
            return jacobian, jnp.trace(hessian, axis1=-2, axis2=-1)

        expected, traces = jax.jit(jax.vmap(expected))(x)
        for each in (jacobian, mlp_value_and_jacobian(mlp, x)[1]):
            np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(second, traces, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(y, mlp_forward(mlp, x), rtol=1e-6)


# --- laws ---


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("function", [mlp_value_and_jacobian, mlp_laplacian])
def test_vmap_over_rows_and_members_equals_a_loop(function):
    one = init_mlp(jax.random.key(0), (3, 8, 2), activation="gelu")
    members = jax.tree.map(lambda a: jnp.stack([a, 2 * a, -a]), one)
    x = RNG.normal(size=(3, 4, 3)).astype(np.float32)
    each = [jax.tree.map(lambda a, i=i: a[i], members) for i in range(3)]
    own, shared = jax.vmap(function)(members, x), jax.vmap(function, (0, None))(members, x[0])
    for i, mlp in enumerate(each):
        assert_close(jax.tree.map(lambda a, i=i: a[i], own), function(mlp, x[i]))
        assert_close(jax.tree.map(lambda a, i=i: a[i], shared), function(mlp, x[0]))
    assert_close(jax.vmap(jax.vmap(function, (None, 0)), (None, 0))(one, x), function(one, x))


def test_integers_and_empty_layers_have_derivatives():
    mlp = MLP([([[1.0, 2.0]], [0.5, 0.5])], final_activation="square")
    y, jacobian = mlp_value_and_jacobian(mlp, [3])
    assert y.tolist() == [12.25, 42.25]
    assert jacobian.tolist() == [[7.0], [26.0]]
    empty = init_mlp(jax.random.key(0), (0, 2, 3))
    _, jacobian, second = mlp_laplacian(empty, np.ones((4, 0), np.float32))
    assert jacobian.shape == (4, 3, 0)
    np.testing.assert_array_equal(second, np.zeros((4, 3)))


def test_nan_stays_in_its_row_and_saturated_units_have_slope_0():
    mlp = init_mlp(jax.random.key(0), (2, 4, 1), activation="tanh")
    _, jacobian = mlp_value_and_jacobian(mlp, np.array([[np.nan, 0], [1, 1]], np.float32))
    assert np.isnan(jacobian[0]).all()
    assert np.isfinite(jacobian[1]).all()
    _, jacobian, second = mlp_laplacian(mlp, np.array([np.inf, 0.0], np.float32))
    np.testing.assert_array_equal(jacobian, np.zeros((1, 2)))  # every unit is saturated
    np.testing.assert_array_equal(second, [0.0])


# --- JAX's transforms of the forward pass ---


MLP_OF_TRANSFORMS = init_mlp(
    jax.random.key(0), (3, 8, 8, 2), activation="tanh", final_activation="softplus", dtype=np.float32
)
X, T = (RNG.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
G = RNG.normal(size=(4, 2)).astype(np.float32)


def f(x):
    return mlp_forward(MLP_OF_TRANSFORMS, x)


def total(x):
    return f(x).sum()


def linearized(x):
    y, along = jax.linearize(f, x)
    return y, along(T)


def descended(x):
    return jax.lax.scan(lambda x, _: (x - 0.1 * jax.grad(total)(x), jax.grad(total)(x)), x, None, length=1)[
        1
    ][0]


TRANSFORMS = {  # each transform, and its expected result from the outputs y, Jacobians J and Laplacians L
    "jvp": (lambda x: jax.jvp(f, (x,), (T,)), lambda y, J, _: (y, np.einsum("rji,ri->rj", J, T))),
    "linearize": (linearized, lambda y, J, _: (y, np.einsum("rji,ri->rj", J, T))),
    "vjp": (lambda x: jax.vjp(f, x)[1](G)[0], lambda _, J, __: np.einsum("rji,rj->ri", J, G)),
    "jacfwd": (jax.vmap(jax.jacfwd(f)), lambda _, J, __: J),
    "jacrev": (jax.vmap(jax.jacrev(f)), lambda _, J, __: J),
    "jacfwd of all rows": (lambda x: jnp.einsum("rjri->rji", jax.jacfwd(f)(x)), lambda _, J, __: J),
    "grad": (jax.grad(total), lambda _, J, __: J.sum(-2)),
    "checkpoint": (jax.grad(jax.checkpoint(total)), lambda _, J, __: J.sum(-2)),
    "scan": (descended, lambda _, J, __: J.sum(-2)),
    "hessian": (jax.vmap(jax.hessian(total)), lambda _, __, L: L.sum(-1)),
    "jacfwd of grad": (jax.vmap(jax.jacfwd(jax.grad(total))), lambda _, __, L: L.sum(-1)),
    "jvp of the value": (
        lambda x: jax.jvp(lambda x: mlp_value_and_jacobian(MLP_OF_TRANSFORMS, x)[0], (x,), (T,))[1],
        lambda _, J, __: np.einsum("rji,ri->rj", J, T),
    ),
    "jacfwd of the Jacobian": (
        jax.vmap(jax.jacfwd(lambda x: mlp_value_and_jacobian(MLP_OF_TRANSFORMS, x)[1].sum(0))),
        lambda _, __, L: L.sum(-1),
    ),
    "scan of the Jacobian": (
        lambda x: jax.lax.scan(lambda c, row: (c, mlp_value_and_jacobian(MLP_OF_TRANSFORMS, row)[1]), 0, x)[
            1
        ],
        lambda _, J, __: J,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_agree_with_the_closed_forms(name):
    transform, expected = TRANSFORMS[name]
    found = jax.jit(transform)(X)
    if isinstance(found, jax.Array) and found.shape == (4, 3, 3):
        found = jnp.trace(found, axis1=-2, axis2=-1)
    assert_close(found, expected(*map(np.asarray, mlp_laplacian(MLP_OF_TRANSFORMS, X))))


def test_rows_divided_among_devices_give_the_same_derivatives():
    mesh = jax.make_mesh((2,), ("rows",))
    rows = jax.sharding.PartitionSpec("rows")
    mlp = init_mlp(jax.random.key(0), (3, 8, 2), activation="tanh")
    x = jax.device_put(RNG.normal(size=(4, 3)).astype(np.float32), jax.sharding.NamedSharding(mesh, rows))
    expected = mlp_laplacian(mlp, np.asarray(x))
    mapped = jax.shard_map(
        lambda x: mlp_laplacian(mlp, x), mesh=mesh, in_specs=rows, out_specs=(rows, rows, rows)
    )
    for found in (jax.jit(lambda x: mlp_laplacian(mlp, x))(x), jax.jit(mapped)(x)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def test_explain_says_what_evaluates_derivatives():
    mlp, x = init_mlp(jax.random.key(0), (3, 2)), np.ones(3, np.float32)
    own = init_mlp(jax.random.key(0), (3, 2), final_activation=jnp.sin)
    if library.missing():
        assert explain(mlp, x, derivatives=True) == explain(mlp, x)
    else:
        of_both = "value and Jacobian of all 1 layers in one call, forward"
        assert explain(mlp, x, derivatives=True) == explain(mlp, x).replace(
            "all 1 layers in one call", of_both
        )
    assert explain(own, x, derivatives=True) == (
        "XLA, layer by layer: layer 0's activation is not in the kernel's list"
    )
    narrow = init_mlp(jax.random.key(0), (3, 2), dtype=jnp.bfloat16)
    assert explain(narrow, jnp.ones(3, jnp.bfloat16), derivatives=True).startswith("XLA, layer by layer: ")


# --- refusals ---


def test_refusals():
    mlp = init_mlp(jax.random.key(0), (3, 2))
    for function in (mlp_value_and_jacobian, mlp_laplacian):
        name = function.__name__
        with pytest.raises(
            ValueError, match=rf"^{name}: x must have shape \(..., 3\), one number for each row"
        ):
            function(mlp, np.ones(2))
        wrong = MLP([([[1.0]], None), ([[1.0]], None)], activation=jnp.sum)
        with pytest.raises(
            ValueError, match=rf"^{name}: layer 0: activation must keep the shape \(1,\), got \(\)"
        ):
            function(wrong, [1.0])
