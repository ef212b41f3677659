"""Networks inside jax.shard_map: JAX knows that outputs differ among devices, and sums derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxneuron import affine, init_mlp, mlp_forward, mlp_laplacian, mlp_value_and_jacobian

WHOLE, DIVIDED = PartitionSpec(), PartitionSpec("d")
SIZES = (3, 8, 2)
ROWS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
FUNCTIONS = {
    "mlp_forward": mlp_forward,
    "mlp_value_and_jacobian": mlp_value_and_jacobian,
    "mlp_laplacian": mlp_laplacian,
    "affine": lambda mlp, x: affine(mlp.layers[0], x),
}
DERIVATIVES = {
    "grad": lambda mlp, x: jax.grad(lambda x: mlp_forward(mlp, x).sum())(x),
    "linear_transpose": lambda mlp, x: jax.linear_transpose(
        lambda x: affine((mlp.layers[0].w, None), x), x
    )(jnp.tanh(x @ mlp.layers[0].w)),
}  # fmt: skip


def network(members=None):
    of = functools.partial(init_mlp, sizes=SIZES, activation="tanh")
    return (
        of(jax.random.key(0))
        if members is None
        else jax.vmap(of)(jax.random.split(jax.random.key(0), members))
    )


def on_two_devices(function, in_specs, out_specs):
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), ("d",))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs))


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize(
    ("function", "divided"),
    [
        *((function, "rows") for function in (FUNCTIONS | DERIVATIVES).values()),
        *((function, "members") for function in FUNCTIONS.values()),
    ],
    ids=[*(f"{name}-rows" for name in FUNCTIONS | DERIVATIVES), *(f"{name}-members" for name in FUNCTIONS)],
)
def test_results_of_divided_arguments_are_divided(function, divided):
    if divided == "rows":
        arguments, specs = (network(), ROWS), (WHOLE, DIVIDED)
    else:
        function, arguments, specs = jax.vmap(function, (0, None)), (network(2), ROWS), (DIVIDED, WHOLE)
    assert_close(on_two_devices(function, specs, DIVIDED)(*arguments), function(*arguments))
    with pytest.raises(ValueError, match="require replication"):  # not the outputs of one device
        on_two_devices(function, specs, WHOLE)(*arguments)


@pytest.mark.parametrize(
    ("function", "divided"),
    [(mlp_forward, "rows"), (mlp_forward, "members"), (mlp_value_and_jacobian, "members")],
)
def test_derivatives_of_replicated_arguments_are_summed_over_devices(function, divided):
    def loss(mlp, x):
        return sum(jnp.sum(a**2) for a in jax.tree.leaves(function(mlp, x)))

    def of_members(mlps, x):
        return jax.vmap(loss, (0, None))(mlps, x).sum()

    if divided == "rows":
        loss_of, specs, arguments, argnum = loss, (WHOLE, DIVIDED), (network(), ROWS), 0
    else:
        loss_of, specs, arguments, argnum = of_members, (DIVIDED, WHOLE), (network(2), ROWS), 1
    expected = jax.grad(loss_of, argnum)(*arguments)
    total = on_two_devices(lambda *a: jax.lax.psum(loss_of(*a), "d"), specs, WHOLE)
    assert_close(jax.grad(total, argnum)(*arguments), expected)
    summed_by_jax = on_two_devices(jax.grad(loss_of, argnum), specs, WHOLE)
    assert_close(summed_by_jax(*arguments), expected)


def test_shard_map_over_some_axes_of_the_mesh_is_right():
    mesh = Mesh(np.array(jax.devices("cpu")[:2]).reshape(1, 2), ("d", "other"))
    divided = jax.shard_map(
        functools.partial(mlp_forward, network()), mesh=mesh, axis_names={"d"}, in_specs=DIVIDED, out_specs=DIVIDED
    )  # fmt: skip
    for spec in (DIVIDED, PartitionSpec(("d", "other"))):
        x = jax.device_put(ROWS, NamedSharding(mesh, spec))
        assert_close(jax.jit(divided)(x), mlp_forward(network(), ROWS))
