"""Derivatives by the CPU kernel: right, the same bits in every batch, and used by JAX's transforms."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxneuron import MLP, Affine, affine, mlp_forward, neuron
from jaxneuron._kernels import library, primitive, products, xla
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._names import resolve
from tests.kernels.test_primitive import FUSED, WIDTHS, assert_same, least_and_best, network, rows

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(library.missing() is not None, reason=str(library.missing())),
]
WIDE = ("float32", "float64")


def functions(mlp):
    return [resolve(a) for a in mlp.activations]


def evaluate(mlp, x, laplacian=False, instruction_set=None):
    """y, J and, if `laplacian`, L, by the kernel."""
    return products.value_and_jacobian(mlp.layers, functions(mlp), x, laplacian, instruction_set)


def jacobian(mlp, x, backward):
    """y and J, computed backward or forward as `backward` says, whatever the widths."""
    operands, params = primitive.bound(mlp.layers, functions(mlp), x)
    return products.jacobian_p.bind(*operands, backward=backward, laplacian=False, **params)


def product(mlp, x, d, backward):
    """J d or d J for d (rows, directions, n), computed without J."""
    (x, *arrays), params = primitive.bound(mlp.layers, functions(mlp), x)
    return products.product_p.bind(x, d, *arrays, backward=backward, **params)


def on_xla(mlp, x):
    return xla.forward(mlp.layers, functions(mlp), x)


# --- truth ---


def by_numpy(mlp, x):
    """y, J and L of a network of tanh, sin and softmax, by NumPy in closed form."""
    j, second = np.broadcast_to(np.eye(x.shape[1]), (*x.shape, x.shape[1])), np.zeros(x.shape)
    y = np.asarray(x)
    for (w, b), activation in zip(mlp.layers, mlp.activations, strict=True):
        w = np.asarray(w)
        z, j, second = y @ w + (0 if b is None else np.asarray(b)), w.T @ j, second @ w
        if activation in OF_ROWS:
            p = np.exp(z - z.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            j = j - p[:, None] @ j
            log = second - (p * (second + (j**2).sum(-1))).sum(-1, keepdims=True)
            y, second = (p, p * (log + (j**2).sum(-1))) if activation == "softmax" else (np.log(p), log)
            j = p[:, :, None] * j if activation == "softmax" else j
        else:
            y = np.tanh(z) if activation == "tanh" else np.sin(z) if activation == "sin" else z
            slope, curvature = {
                "tanh": (1 - y * y, -2 * y * (1 - y * y)),
                "sin": (np.cos(z), -y),
                "identity": (np.ones_like(z), 0 * z),
            }[activation]
            second = slope * second + curvature * (j**2).sum(-1)
            j = slope[:, :, None] * j
    return y, j, second


networks = st.tuples(
    st.lists(st.sampled_from(WIDTHS), min_size=2, max_size=4),
    st.sampled_from(("tanh", "sin")),
    st.sampled_from(("identity", "sin", *OF_ROWS)),
    st.booleans(),
    st.sampled_from((1, 2, 13, 64, 65)),
)


def drawn_network(drawn, dtype="float64"):
    sizes, activation, final, bias, count = drawn
    layers = network(sizes, dtype, bias=bias).layers
    return MLP(layers, activation, final), rows(count, sizes[0], dtype)


@least_and_best
@settings(max_examples=15)
@given(networks)
def test_values_jacobians_and_laplacians_are_right(instruction_set, drawn):
    with jax.enable_x64(True):
        mlp, x = drawn_network(drawn)
        expected = by_numpy(mlp, x)
        found = evaluate(mlp, x, True, instruction_set) + evaluate(mlp, x, False, instruction_set)
        for a, b in zip(found, (*expected, *expected[:2]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13 * (1 + np.abs(b).max()) * x.shape[1])


@settings(max_examples=6)
@given(networks, st.sampled_from((1, 2, 11)))
def test_products_equal_those_with_the_jacobian(drawn, directions):
    with jax.enable_x64(True):
        mlp, x = drawn_network(drawn)
        sizes, count = drawn[0], len(x)
        rng = np.random.default_rng(2)
        for backward in (False, True):
            y, j = jacobian(mlp, x, backward)
            assert_same(y, mlp_forward(mlp, x))
            d = rng.normal(size=(count, directions, sizes[-1 if backward else 0]))
            expected = d @ (j if backward else np.swapaxes(j, 1, 2))
            np.testing.assert_allclose(
                product(mlp, x, d, backward), expected, rtol=1e-11, atol=1e-12 * (1 + np.abs(j).max())
            )


# --- the same bits for a row ---


@least_and_best
@pytest.mark.parametrize("final", ["tanh", *OF_ROWS])
def test_many_directions_in_several_passes_are_right(instruction_set, final):
    """64 rows of 65 units have room for 14 of 300 directions at a time (tuning.h), one row for all of them."""
    with jax.enable_x64(True):
        mlp, x = drawn_network(([300, 64, 65, 3], "sin", final, True, 65))
        found = evaluate(mlp, x, True, instruction_set)
        for a, b in zip(found, by_numpy(mlp, x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13 * (1 + np.abs(b).max()) * x.shape[1])
        for a, b in zip(found, evaluate(mlp, x[7:8], True, instruction_set), strict=True):
            assert_same(a[7:8], b)


@settings(max_examples=6)
@given(networks, st.sampled_from(WIDE), st.data())
def test_the_same_bits_in_any_batch(drawn, dtype, data):
    with jax.enable_x64(dtype == "float64"):
        mlp, x = drawn_network(drawn, dtype)
        sizes, count = drawn[0], len(x)
        found = evaluate(mlp, x, laplacian=True)
        assert_same(found[0], mlp_forward(mlp, x))
        first = data.draw(st.integers(0, count - 1))
        last = data.draw(st.integers(first + 1, count))
        for a, b in zip(evaluate(mlp, x[first:last], laplacian=True), found, strict=True):
            assert_same(a, b[first:last])
        for instruction_set in FUSED:
            for a, b in zip(evaluate(mlp, x, True, instruction_set), found, strict=True):
                assert_same(a, b)
        for backward in (False, True):
            _, j = jacobian(mlp, x, backward)
            assert_same(jacobian(mlp, x[first], backward)[1][0], j[first])
            d = jnp.asarray(
                np.random.default_rng(3).normal(size=(count, 5, sizes[-1 if backward else 0])), dtype
            )
            all_at_once = product(mlp, x, d, backward)
            assert_same(
                product(mlp, x[first:last], d[first:last, 3:4], backward), all_at_once[first:last, 3:4]
            )


def test_the_same_bits_by_every_number_of_threads():
    mlp, x = network((10, 64, 64, 4)), rows(1000, 10)
    _, j = evaluate(mlp, x)
    for first in range(0, 1000, 20):
        _, part = evaluate(mlp, x[first : first + 20])
        assert_same(part, j[first : first + 20])


# --- JAX's transforms ---


def handlers(f, *arguments):
    """The names of the kernel's calls in the program of `f`, in alphabetical order."""
    text = jax.jit(f).lower(*arguments).as_text()
    return sorted(re.findall(r"@jaxneuron_(\w+)\(", text))


X, TANGENT = (np.random.default_rng(i).normal(size=(7, 5)) for i in (1, 2))
TRANSFORMS = {
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (TANGENT,)),
    "linearize": lambda f: lambda x: jax.linearize(f, x)[1](TANGENT),
    "grad": lambda f: jax.grad(lambda x: jnp.sin(f(x)).sum()),
    "value_and_grad": lambda f: jax.value_and_grad(lambda x: jnp.sin(f(x)).sum()),
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda x: f(x).sum())),
    "vmap of jacfwd": lambda f: jax.vmap(jax.jacfwd(f)),
    "vmap of jacrev": lambda f: jax.vmap(jax.jacrev(f)),
    "jacfwd of all rows": jax.jacfwd,
    "jacrev of all rows": jax.jacrev,
    "few tangents": lambda f: (
        lambda x: jax.vmap(lambda d: jax.jvp(f, (x,), (d,))[1])(np.stack([TANGENT, 2 * TANGENT]))
    ),
    "checkpoint": lambda f: jax.grad(lambda x: jax.checkpoint(f)(x).sum()),
    "scan": lambda f: jax.grad(
        lambda x: jax.lax.scan(lambda c, _: (c + f(c).sum(-1, keepdims=True), None), x, length=3)[0].sum()
    ),
    "hessian": lambda f: jax.vmap(jax.hessian(f)),
    "jacfwd of grad": lambda f: jax.vmap(jax.jacfwd(jax.grad(lambda x: f(x).sum()))),
    "grad of grad": lambda f: jax.grad(lambda x: jax.grad(lambda x: f(x).sum())(x).sum() ** 2),
}
SECOND_DERIVATIVES = ("hessian", "jacfwd of grad", "grad of grad")  # these stay on XLA's path


@pytest.mark.parametrize(("n_out", "final"), [(3, "softmax"), (1, "identity")])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_are_right_and_use_the_kernel(transform, n_out, final):
    with jax.enable_x64(True):
        mlp = network((5, 20, n_out), "float64")
        mlp = MLP(mlp.layers, "tanh", final)
        of_kernel, of_xla = (TRANSFORMS[transform](functools.partial(f, mlp)) for f in (mlp_forward, on_xla))
        for found, expected in zip(
            jax.tree.leaves(jax.jit(of_kernel)(X)), jax.tree.leaves(jax.jit(of_xla)(X)), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
        assert transform in SECOND_DERIVATIVES or handlers(of_kernel, X)


def test_transforms_use_the_expected_kernel_calls():
    scalar, mlp = network((5, 20, 20, 1)), network((5, 20, 20, 3))
    x = jnp.asarray(X, jnp.float32)
    assert handlers(jax.grad(lambda x: mlp_forward(scalar, x).sum()), x) == ["jacobian"]
    assert handlers(jax.value_and_grad(lambda x: mlp_forward(scalar, x).sum()), x) == ["jacobian"]
    both = ["forward", "product"]
    assert handlers(jax.value_and_grad(lambda x: mlp_forward(mlp, x).sum()), x) == both
    assert handlers(lambda x: jax.jvp(functools.partial(mlp_forward, mlp), (x,), (x,)), x) == both
    assert handlers(jax.vmap(jax.jacrev(functools.partial(mlp_forward, mlp))), x) == ["product"]
    assert "jacobian" in handlers(jax.jacfwd(functools.partial(mlp_forward, mlp)), x)
    # With respect to weights, for 16-bit numbers, and in exported programs, XLA's path is used.
    assert handlers(jax.grad(lambda mlp: mlp_forward(mlp, x).sum()), mlp) == []
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), mlp)
    grad = jax.grad(lambda x: mlp_forward(narrow, x).sum())
    assert handlers(grad, x.astype(jnp.bfloat16)) == []
    text = jax.export.export(jax.jit(jax.vmap(jax.jacfwd(functools.partial(mlp_forward, mlp)))))(
        x
    ).mlir_module()
    assert "custom_call" not in text


def test_the_value_has_the_same_bits_under_differentiation():
    x = jnp.asarray(X, jnp.float32)
    for n_out in (1, 3):
        f = functools.partial(mlp_forward, network((5, 20, 20, n_out)))
        y = f(x)
        assert_same(jax.jvp(f, (x,), (x,))[0], y)
        assert_same(jax.vjp(f, x)[0], y)
        assert_same(jax.jit(lambda x, f=f: jax.vjp(f, x)[0])(x), y)
        assert_same(evaluate(network((5, 20, 20, n_out)), x)[0], y)


def test_derivatives_of_affine_and_neuron_are_right():
    w, b = np.float32(np.random.default_rng(0).normal(size=(5, 4))), np.ones(4, np.float32)
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_array_equal(jax.vmap(jax.jacfwd(lambda x: affine(Affine(w, b), x)))(x)[3], w.T)
    slope = jax.vmap(jax.grad(lambda x: neuron(Affine(w[:, 0], b[0]), x, "tanh")))(x)
    z = X @ w[:, 0].astype(float) + 1
    np.testing.assert_allclose(slope, (1 - np.tanh(z) ** 2)[:, None] * w[:, 0], rtol=1e-5)


MEMBERS = {
    "Jacobians of all": lambda f: lambda m, x: jax.vmap(lambda m: jax.vmap(jax.jacfwd(f, 1), (None, 0))(m, x))(m),
    "sum": lambda f: lambda m, x: jax.grad(lambda x: jax.vmap(lambda m: f(m, x).sum())(m).sum())(x),
    "tangents": lambda f: lambda m, x: jax.jvp(lambda x: jax.vmap(f, (0, None))(m, x), (x,), (TANGENT,)),
    "rows of their own": lambda f: lambda m, x: jax.vmap(jax.jacrev(f, 1))(m, x[:4]),
    "members in rows": lambda f: lambda m, x: jax.vmap(lambda x: jax.vmap(lambda m: jax.jacfwd(f, 1)(m, x))(m))(x),
    "weights too": lambda f: lambda m, x: jax.grad(
        lambda m, x: jax.vmap(lambda m: f(m, x).sum())(m).sum(), (0, 1)
    )(m, x),
    "twice": lambda f: lambda m, x: jax.vmap(jax.vmap(jax.jacfwd(f, 1), (0, None)), (None, 0))(m, x),
}  # fmt: skip


@pytest.mark.parametrize("transform", MEMBERS)
def test_transforms_of_members_are_right(transform):
    with jax.enable_x64(True):
        population = network((5, 20, 3), "float64", members=(4,))
        found, expected = (jax.jit(MEMBERS[transform](f))(population, X) for f in (mlp_forward, on_xla))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), found, expected)


def test_rows_and_members_stay_divided_among_devices():
    mesh = Mesh(np.array(jax.devices("cpu")), ("d",))
    divided = NamedSharding(mesh, PartitionSpec("d"))
    mlp, x = network((5, 20, 3)), rows(64, 5)
    population = network((5, 20, 3), members=(6,))

    def by_products(mlp, x):
        return jax.vjp(functools.partial(mlp_forward, mlp), x)[1](jnp.ones((64, 3), x.dtype))[0]

    by_jacobian = jax.vmap(jax.jacfwd(mlp_forward, 1), (None, 0))
    of_members = jax.vmap(lambda m, x: evaluate(m, x)[1], (0, None))
    split = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("d")), out_specs=PartitionSpec("d")
    )
    over_rows, over_members = jax.device_put(x, divided), jax.device_put(population, divided)
    for f, arguments, expected in (
        (by_products, (mlp, over_rows), by_products(mlp, x)),
        (by_jacobian, (mlp, over_rows), by_jacobian(mlp, x)),
        (of_members, (over_members, x), of_members(population, x)),
        (split(by_jacobian), (mlp, x), by_jacobian(mlp, x)),
    ):
        text = jax.jit(f).lower(*arguments).compile().as_text()
        for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
            assert word not in text
        found = jax.jit(f)(*arguments)
        assert found.sharding.is_equivalent_to(divided, found.ndim)
        assert_same(found, expected)


def test_layers_and_batches_of_size_0_have_jacobians():
    for sizes in ((5, 0, 3), (0, 4, 2), (5, 4, 0)):
        mlp, x = network(sizes), rows(7, sizes[0])
        j = jax.vmap(jax.jacfwd(mlp_forward, 1), (None, 0))(mlp, x)
        assert_same(j, np.zeros((7, sizes[-1], sizes[0])))
    mlp = network((5, 4, 2))
    y, j = evaluate(mlp, rows(0, 5))
    assert y.shape == (0, 2)
    assert j.shape == (0, 2, 5)


# --- the handlers' refusals, which the package's own calls never reach ---


@pytest.mark.parametrize(
    ("target", "operands", "results", "backward", "message"),
    [
        (library.JACOBIAN, [(7, 5), (5, 3)], [(7, 3)], False, "J is missing"),
        (library.JACOBIAN, [(7, 5), (5, 3)], [(7, 3), (7, 5, 3)], False, "J (7,5,3) does not fit"),
        (library.JACOBIAN, [(7, 5), (5, 3)], [(7, 3), (7, 3, 5), (7, 3)], True, "a Laplacian goes forward"),
        (library.JACOBIAN, [(7, 5), (5, 3)], [(7, 3), (7, 3, 5), (7, 2)], False, "L (7,2) does not fit"),
        (library.PRODUCT, [(7, 5), (7, 2, 4), (5, 3)], [(7, 2, 3)], False, "tangents (7,2,4) do not fit"),
        (library.PRODUCT, [(7, 5), (7, 2, 5), (5, 3)], [(7, 2, 5)], True, "tangents (7,2,5) do not fit"),
        (library.PRODUCT, [(7, 5), (7, 2, 5), (5, 3)], [(7, 2, 5)], False, "the product (7,2,5) does not fit"),
    ],
)  # fmt: skip
def test_the_handlers_refuse(target, operands, results, backward, message):
    good = {
        "activations": np.array([0]),
        "parameters": np.zeros(2),
        "biases": np.array([0]),
        "instruction_set": np.int64(0),
    }
    call = jax.ffi.ffi_call(target, [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results])
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        jax.block_until_ready(
            call(*(jnp.ones(shape, jnp.float32) for shape in operands), **good, backward=backward)
        )
    assert f"{target}: {message}" in str(error.value)


def test_the_handler_refuses_16_bit_numbers():
    call = jax.ffi.ffi_call(
        library.JACOBIAN, [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((7, 3), (7, 3, 5))]
    )
    attributes = {"activations": np.array([0]), "parameters": np.zeros(2), "biases": np.array([0])}
    with pytest.raises(jax.errors.JaxRuntimeError, match="derivatives are those of float32 and float64"):
        jax.block_until_ready(
            call(
                jnp.ones((7, 5), jnp.bfloat16), jnp.ones((5, 3), jnp.bfloat16),
                **attributes, instruction_set=np.int64(0), backward=False,
            )
        )  # fmt: skip
