"""Networks from and to the installed Flax linen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import mlp_forward
from jaxneuron.convert import from_flax, to_flax_params
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, network, trained

pytest.importorskip("flax", reason="flax is in the extra interop")

from flax import linen


def forward64(apply, params, x):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        return np.asarray(apply(wide, np.asarray(x, np.float64)))


class Wide(linen.Module):
    """Twelve layers, some of them square, named Dense_0 to Dense_11."""

    @linen.compact
    def __call__(self, x):
        for width in (5, 5, 3, 3, 3, 7, 4, 4, 5, 2, 3):
            x = linen.tanh(linen.Dense(width, param_dtype=x.dtype)(x))
        return linen.Dense(2, use_bias=False, param_dtype=x.dtype)(x)


class Nested(linen.Module):
    @linen.compact
    def __call__(self, x):
        return Wide(name="trunk")(x)


def test_a_module_is_read_with_its_bits():
    params = Wide().init(jax.random.key(0), ROWS)
    params = trained(lambda p: jnp.mean((Wide().apply(p, ROWS) - TARGETS) ** 2), params)
    named = params["params"]
    arrays = [
        named[f"Dense_{i}"][n] for i in range(12) for n in ("kernel", "bias") if n in named[f"Dense_{i}"]
    ]
    y = forward64(Wide().apply, params, X)
    for given in (params, named, {"params": {"trunk": named}}):
        with pytest.warns(UserWarning, match="chain in another order too"):
            mlp = from_flax(given, activation=linen.tanh, final_activation="identity")
        assert_bits(mlp, *arrays)
        assert from_flax(given, activation=linen.tanh, final_activation="identity", check=(X, y))
    assert_outputs(mlp, X, y)
    assert np.array_equal(y, forward64(Nested().apply, {"params": {"trunk": named}}, X))


def test_a_sequential_with_gaps_in_its_numbers_is_read():
    module = linen.Sequential([linen.Dense(4), linen.relu, linen.Dense(4), linen.relu, linen.Dense(2)])
    params = module.init(jax.random.key(1), ROWS)
    assert sorted(params["params"]) == ["layers_0", "layers_2", "layers_4"]
    mlp = from_flax(params, activation="relu", final_activation="identity")
    assert_outputs(mlp, X, forward64(module.apply, params, X))


def test_other_layers_are_refused_by_name():
    class Normed(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.LayerNorm()(linen.Dense(3)(x))

    params = Normed().init(jax.random.key(0), ROWS)
    with pytest.raises(ValueError, match=r"got 'LayerNorm_0/scale'; pass the part that is an MLP"):
        from_flax(params, activation="relu", final_activation="identity")
    conv = linen.Conv(3, (2,)).init(jax.random.key(0), ROWS[None])
    with pytest.raises(ValueError, match=r"from_flax: params: 'kernel' must have two axes, got \(2, 4, 3\)"):
        from_flax(conv, activation="relu", final_activation="identity")


def test_to_flax_params_then_from_flax_keeps_the_bits():
    mlp = network()

    class Module(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.tanh(linen.Dense(6)(x))
            x = linen.tanh(linen.Dense(6, use_bias=False)(x))
            return linen.tanh(linen.Dense(2)(x))

    params = to_flax_params(mlp)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        assert_outputs(mlp, X, Module().apply(wide, X.astype(np.float64)))
    assert_bits(from_flax(params, activation="tanh", final_activation="tanh"), *jax.tree.leaves(mlp))


# --- parameters whose arrays do not show all that the module computes ---

GIVEN = {"activation": "tanh", "final_activation": "identity"}


class Outer(linen.Module):
    """The last layer is created first, so it is Dense_0."""

    sizes: tuple[int, int]

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.sizes[1])(linen.tanh(linen.Dense(self.sizes[0])(x)))


class Block(linen.Module):
    @linen.compact
    def __call__(self, x, _=None):
        return linen.tanh(linen.Dense(4)(x)), None


class Scanned(linen.Module):
    scans: int = 1

    @linen.compact
    def __call__(self, x):
        x = linen.tanh(linen.Dense(4)(x))
        for _ in range(self.scans):
            x, _ = linen.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()(
                x, None
            )
        return linen.Dense(2)(x)


def test_layers_created_in_another_order_than_called_warn():
    square, uneven = Outer((4, 4)), Outer((5, 2))
    params = square.init(jax.random.key(0), X)
    with pytest.warns(UserWarning, match=r"params: 'Dense_0', 'Dense_1' are numbered as they were created"):
        from_flax(params, **GIVEN)
    check = X, square.apply(params, X)
    with pytest.raises(
        ValueError, match=r"^from_flax: check must hold what the network gives, got outputs that"
    ):
        from_flax(params, check=check, **GIVEN)
    mlp = from_flax(params, layers=["Dense_1", "Dense_0"], check=check, **GIVEN)
    np.testing.assert_allclose(mlp_forward(mlp, X), check[1], rtol=1e-5, atol=1e-6)
    with pytest.raises(
        ValueError,
        match=r"^from_flax: params: layers must chain, got 'Dense_0' with 2 units before 'Dense_1', which takes 4; they "
        r"are numbered as they were created: pass layers=\[...\], their names in the order of the calls, or",
    ):
        from_flax(uneven.init(jax.random.key(0), X), **GIVEN)


def test_an_actor_and_a_critic_are_not_read_as_one_network():
    class Apart(linen.Module):
        def setup(self):
            self.actor, self.critic = Outer((5, 4)), Outer((5, 1))

        def __call__(self, x):
            return self.actor(x), self.critic(x)

    class Together(linen.Module):
        @linen.compact
        def __call__(self, x):
            a = linen.Dense(4)(linen.tanh(linen.Dense(6)(x)))
            return a, linen.Dense(1)(linen.tanh(linen.Dense(5)(x)))

    params = Apart().init(jax.random.key(0), X)["params"]
    with pytest.raises(ValueError, match=r"or the part that is one network, such as what is under 'actor'$"):
        from_flax({"params": params}, **GIVEN)
    actor = from_flax(params["actor"], layers=["Dense_1", "Dense_0"], **GIVEN)
    np.testing.assert_allclose(
        mlp_forward(actor, X), Apart().apply({"params": params}, X)[0], rtol=1e-5, atol=1e-6
    )
    params = Together().init(jax.random.key(0), X)["params"]  # as many actions as observations
    with pytest.raises(ValueError, match=r"or the part that is one network, an actor without its critic$"):
        from_flax(params, **GIVEN)
    named = {f"Dense_{i}": params[f"Dense_{j}"] for i, j in enumerate((1, 0, 3, 2))}
    with pytest.warns(UserWarning, match="sizes 4-6-4-5-1 chain in another order too"):
        from_flax(named, **GIVEN)


def test_members_of_an_ensemble_are_stacked():
    names = {"layers": ["Dense_1", "Dense_0"], **GIVEN}
    module = Outer((5, 2))
    many = linen.vmap(
        Outer, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=3
    )((5, 2))
    by_vmap = jax.vmap(module.init, (0, None))(jax.random.split(jax.random.key(0), 3), X)
    for params, y in (
        (by_vmap, jax.vmap(module.apply, (0, None))(by_vmap, X)),
        ((by_linen := many.init(jax.random.key(0), X)), many.apply(by_linen, X)),
    ):
        with pytest.raises(
            ValueError,
            match=r"^from_flax: params: 'Dense_1/kernel' must have two axes, got \(3, 4, 5\); pass stacked='members' for "
            r"the members of an ensemble \(nn.vmap\), stacked='layers' for layers called in turn \(nn.scan\)",
        ):
            from_flax(params, **names)
        stack = from_flax(params, stacked="members", **names)
        np.testing.assert_allclose(jax.vmap(mlp_forward, (0, None))(stack, X), y, rtol=1e-5, atol=1e-6)
        assert_bits(stack, *(params["params"][n][a] for n in names["layers"] for a in ("kernel", "bias")))
    narrow = from_flax(params, stacked="members", dtype="bfloat16", **names)
    one = from_flax(jax.tree.map(lambda a: a[1], params), dtype="bfloat16", **names)
    assert_bits(jax.tree.map(lambda a: a[1], narrow), *jax.tree.leaves(one))


def test_scanned_layers_are_read_in_turn():
    module = Scanned()
    params = module.init(jax.random.key(0), X)
    names = ["Dense_0", "ScanBlock_0/Dense_0", "Dense_1"]
    with pytest.raises(
        ValueError, match=r"'ScanBlock_0/Dense_0/kernel' must have two axes, got \(3, 4, 4\); pass"
    ):
        from_flax(params, layers=names, **GIVEN)
    mlp = from_flax(params, layers=names, stacked="layers", check=(X, module.apply(params, X)), **GIVEN)
    assert len(mlp.layers) == 5
    with pytest.raises(
        ValueError, match=r"stacked weights must all have three axes, the first of one length"
    ):
        from_flax(params, layers=names, stacked="members", **GIVEN)
    params = Scanned(2).init(jax.random.key(0), X)
    names[1:1] = ["ScanBlock_1/Dense_0"]
    with pytest.raises(
        ValueError, match=r"stacked='layers' needs one w of three axes, .* got 2; with several"
    ):
        from_flax(params, layers=names, stacked="layers", **GIVEN)


def test_partitioned_arrays_are_unboxed_and_other_boxes_refused():
    plain = Outer((5, 2)).init(jax.random.key(0), X)["params"]
    for partitioned in (linen.with_partitioning, linen.with_logical_partitioning):
        dense = linen.Dense(2, kernel_init=partitioned(linen.initializers.ones_init(), ("in", "out")))
        params = dense.init(jax.random.key(0), X)
        assert not isinstance(params["params"]["kernel"], jax.Array)
        assert_bits(from_flax(params, **GIVEN), np.ones((4, 2), np.float32), np.zeros(2, np.float32))

    class Scaled(linen.Partitioned):
        pass

    boxed = {"Dense_0": {"kernel": Scaled(plain["Dense_0"]["kernel"], ("a", "b"))}}
    with pytest.raises(
        TypeError, match=r"^from_flax: params must hold arrays, got a Scaled; pass the arrays in it"
    ):
        from_flax(boxed, **GIVEN)


def test_check_finds_what_parameters_do_not_record():
    """Cases: weights that are normalised when the module is called, a residual, another activation."""

    class Normed(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.WeightNorm(linen.Dense(2), use_scale=False)(x)

    class Residual(linen.Module):
        @linen.compact
        def __call__(self, x):
            return x + linen.Dense(4)(x)

    for module in (Normed(), Residual(), linen.Sequential([linen.Dense(2), linen.relu])):
        params = jax.tree.map(lambda a: 3 * a, module.init(jax.random.key(0), X))  # as if it were trained
        with pytest.raises(ValueError, match=r"^from_flax: check must hold what the network gives"):
            from_flax(params, check=(X, module.apply(params, X)), **GIVEN)
