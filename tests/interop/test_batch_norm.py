"""BatchNorms of Flax linen and Haiku, which keep statistics beside the parameters, and of NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import Evaluator, mlp_forward
from jaxneuron.convert import from_flax, from_haiku, from_nnx
from tests.interop.exact import X

haiku = pytest.importorskip("haiku", reason="dm-haiku is in the extra interop")
linen = pytest.importorskip("flax.linen", reason="flax is in the extra interop")
nnx = pytest.importorskip("flax.nnx", reason="flax is in the extra interop")

NAMES = ["Dense_0", "BatchNorm_0", "Dense_1", "BatchNorm_1", "Dense_2"]
BEFORE = ["identity", "tanh", "identity", "relu"]  # an activation after each BatchNorm
AFTER = ["tanh", "identity", "relu", "identity"]
EPSILON = 1e-3


class Normed(linen.Module):
    """BatchNorms before and after activations; one is without a scale, and one without a shift."""

    before: bool = True

    @linen.compact
    def __call__(self, x, train=False):
        for activation, options in ((linen.tanh, {"use_scale": False}), (linen.relu, {"use_bias": False})):
            x = linen.Dense(5, use_bias=options != {})(x)
            x = x if self.before else activation(x)
            x = linen.BatchNorm(not train, epsilon=EPSILON, **options)(x)
            x = activation(x) if self.before else x
        return linen.Dense(2)(x)


def trained(tree, seed=0):
    """`tree` with numbers that training could produce: positive variances, any scales and means."""
    rng = np.random.default_rng(seed)

    def numbers(path, array):
        array = rng.normal(size=array.shape).astype(np.float32)
        return np.abs(array) + 0.1 if "var" in str(path) else array

    return jax.tree_util.tree_map_with_path(numbers, tree)


def variables(module=None, seed=0):
    return trained((module or Normed()).init(jax.random.key(0), X), seed)


def given(activation=BEFORE, **options):
    return {"layers": NAMES, "activation": activation, "final_activation": "identity", "epsilon": EPSILON, **options}  # fmt: skip


@pytest.mark.parametrize("before", [True, False])
def test_flax_batch_norms_are_read(before):
    module = Normed(before)
    source = variables(module)
    check = X, module.apply(source, X)
    mlp = from_flax(source, check=check, **given(BEFORE if before else AFTER))
    np.testing.assert_allclose(mlp_forward(mlp, X), check[1], rtol=1e-4, atol=1e-5)
    assert len(mlp.layers) == 3
    part = from_flax(
        source, check=(X, check[1][:, :1]), outputs=slice(1), **given(BEFORE if before else AFTER)
    )
    assert part.layers[-1].w.shape == (5, 1)
    for wrong in (given(AFTER if before else BEFORE), given(BEFORE if before else AFTER, epsilon=0.1)):
        with pytest.raises(ValueError, match=r"^from_flax: check must hold what the network gives"):
            from_flax(source, check=check, **wrong)


def test_flax_batch_norms_first_last_and_alone_are_read():
    module = linen.Sequential(
        [linen.BatchNorm(True), linen.Dense(3), linen.tanh, linen.BatchNorm(True), linen.Dense(2), linen.BatchNorm(True)]
    )  # fmt: skip
    source = variables(module)
    names = [f"layers_{i}" for i in (0, 1, 3, 4, 5)]
    mlp = from_flax(
        source,
        layers=names,
        activation=["identity", "tanh", "identity", "identity"],
        final_activation="identity",
        epsilon=1e-5,
        check=(X, module.apply(source, X)),
    )
    assert len(mlp.layers) == 2
    alone = variables(linen.BatchNorm(True))
    nested = {kind: {"norm": arrays} for kind, arrays in alone.items()}
    options = {"layers": ["norm"], "activation": "relu", "final_activation": "tanh", "epsilon": 1e-5}
    y = jnp.tanh(linen.BatchNorm(True).apply(alone, X))
    assert from_flax(nested, check=(X, y), **options)


def test_members_of_an_ensemble_keep_their_batch_norms():
    many = [variables(seed=seed) for seed in range(3)]
    # Only one member has a mean so large that it is subtracted in a layer of its own.
    many[1]["batch_stats"]["BatchNorm_0"]["mean"] += 100
    source = jax.tree.map(lambda *arrays: np.stack(arrays), *many)
    for before, activation in ((True, BEFORE), (False, AFTER)):
        stack = from_flax(source, stacked="members", **given(activation))
        y = Evaluator(stack)(X)
        for i, each in enumerate(many):
            np.testing.assert_allclose(y[i], Normed(before).apply(each, X), rtol=1e-3, atol=1e-4)
            one = from_flax(each, **given(activation))
            np.testing.assert_allclose(mlp_forward(one, X), y[i], rtol=1e-3, atol=1e-4)
    by_linen = linen.vmap(
        Normed, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, in_axes=None, axis_size=3
    )()  # fmt: skip
    source = trained(by_linen.init(jax.random.key(0), X))
    stack = from_flax(source, stacked="members", **given())
    np.testing.assert_allclose(Evaluator(stack)(X), by_linen.apply(source, X), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"'BatchNorm_0' must have arrays of one shape, with 1 axes, got mean"
    ):
        from_flax({**jax.tree.map(lambda a: a[0], source), "batch_stats": source["batch_stats"]}, **given())
    shared = {"params": source["params"], "batch_stats": jax.tree.map(lambda a: a[0], source["batch_stats"])}
    with pytest.raises(
        ValueError, match=r"'BatchNorm_0' must have arrays of one shape, with 2 axes, got mean"
    ):
        from_flax(shared, stacked="members", **given())


class Scanned(linen.Module):
    normed: bool  # in the block that is scanned

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.BatchNorm(True)(linen.Dense(4)(x)))
        axes = {"params": 0, "batch_stats": 0}
        block = linen.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=3)
        x, _ = block(self.normed)(x, None)
        return linen.Dense(2)(x)


class Block(linen.Module):
    normed: bool

    @linen.compact
    def __call__(self, x, _=None):
        x = linen.Dense(4)(x)
        return linen.tanh(linen.BatchNorm(True)(x) if self.normed else x), None


def test_scanned_layers_are_read_beside_batch_norms():
    module = Scanned(False)
    source = variables(module)
    names = ["Dense_0", "BatchNorm_0", "ScanBlock_0/Dense_0", "Dense_1"]
    options = {"layers": names, "stacked": "layers", "final_activation": "identity", "epsilon": 1e-5}
    activation = ["identity", "relu", "tanh", "tanh", "tanh"]
    assert from_flax(source, activation=activation, check=(X, module.apply(source, X)), **options)
    names[3:3] = ["ScanBlock_0/BatchNorm_0"]
    with pytest.raises(ValueError, match=r"got 2; with several, .*: give each layer a name of its own, or"):
        from_flax(variables(Scanned(True)), activation=activation, **options)


def test_haiku_batch_norms_are_read():
    def function(x, training=False):
        x = jnp.tanh(haiku.BatchNorm(True, True, 0.9, eps=EPSILON)(haiku.nets.MLP([5])(x), training))
        x = haiku.BatchNorm(False, True, 0.9, eps=EPSILON)(jax.nn.relu(haiku.Linear(4)(x)), training)
        return haiku.Linear(2)(x)

    module = haiku.without_apply_rng(haiku.transform_with_state(function))
    options = {
        "layers": ["mlp/~/linear_0", "batch_norm", "linear", "batch_norm_1", "linear_1"],
        "activation": ["identity", "tanh", "relu", "identity"],
        "final_activation": "identity",
        "epsilon": EPSILON,
    }
    params, state = trained(module.init(jax.random.key(0), X, True))
    y = module.apply(params, state, X)[0]
    assert from_haiku(params, state=state, check=(X, y), **options)
    with pytest.raises(ValueError, match=r"^from_haiku: params must hold only .* is read with state="):
        from_haiku(params, **{**options, "epsilon": None})
    many = [trained(module.init(jax.random.key(0), X, True), seed) for seed in range(3)]
    params, state = jax.tree.map(lambda *arrays: np.stack(arrays), *many)
    stack = from_haiku(params, state=state, stacked="members", **options)
    y = jax.vmap(lambda params, state: module.apply(params, state, X)[0])(params, state)
    np.testing.assert_allclose(Evaluator(stack)(X), y, rtol=1e-3, atol=1e-4)


def test_batch_norms_that_are_not_named_warn():
    source = variables()
    options = given(epsilon=None, layers=["Dense_0", "Dense_1", "Dense_2"], activation="tanh")
    message = r"params: 'BatchNorm_0', 'BatchNorm_1' stand beside the layers and are left out; name them"
    with pytest.warns(UserWarning, match=message) as caught:
        mlp = from_flax(source, **options)
    assert caught[0].filename == __file__
    assert from_flax(source, check=(X, mlp_forward(mlp, X)), **options)  # no warning
    parts = {kind: {"actor": source[kind], "critic": source[kind]} for kind in source}
    parts["batch_stats"] = {"critic": source["batch_stats"]}
    parts["params"]["actor"] = {name: source["params"][name] for name in options["layers"]}
    options["layers"] = [f"actor/{name}" for name in options["layers"]]
    assert from_flax(parts, **options)  # the critic's BatchNorms belong to another network
    with pytest.raises(ValueError, match=r"^from_flax: check must hold what the network gives"):
        from_flax(source, check=(X, Normed().apply(source, X)), **{**options, "layers": NAMES[::2]})


def test_nnx_batch_norms_are_read():
    def make(key):
        rngs = nnx.Rngs(key)
        first = nnx.BatchNorm(5, epsilon=EPSILON, use_scale=False, rngs=rngs)
        second = nnx.BatchNorm(3, use_bias=False, rngs=rngs)
        return nnx.Sequential(
            nnx.Linear(4, 5, rngs=rngs), first, nnx.tanh, nnx.Linear(5, 3, rngs=rngs), nnx.relu, second, nnx.Linear(3, 2, rngs=rngs)
        )  # fmt: skip

    graph, state = nnx.split(make(jax.random.key(0)))
    module = nnx.merge(graph, trained(state))
    mlp = from_nnx(module)  # compared with the module's own outputs
    assert len(mlp.layers) == 3
    assert from_nnx(module, outputs=slice(1)).layers[-1].w.shape == (3, 1)
    module.layers[1].epsilon = 0.5
    with pytest.raises(ValueError, match=r"^from_nnx: check must hold what the network gives"):
        from_nnx(module, check=(X, mlp_forward(mlp, X)))
    graph, state = nnx.split(nnx.vmap(make)(jax.random.split(jax.random.key(0), 3)))
    many = nnx.merge(graph, trained(state))
    stack = from_nnx(many, stacked="members")
    for i in range(3):
        one = nnx.merge(graph, jax.tree.map(lambda a, i=i: a[i], nnx.state(many)))
        np.testing.assert_allclose(
            Evaluator(stack)(X)[i], mlp_forward(from_nnx(one), X), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ValueError, match=r"an nnx.BatchNorm must be over the last axis, got 0"):
        from_nnx(nnx.Sequential(nnx.BatchNorm(4, axis=0, rngs=nnx.Rngs(0))))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"layers": None}, r"layers must name the layers and BatchNorms in order where there are batch_stats beside params, got None; pass layers=\[...\], with 'BatchNorm_0' in its place"),
        ({}, {"epsilon": None}, "epsilon must be given where a BatchNorm is read, because the parameters do not record it, got None; pass 1e-5"),
        ({}, {"epsilon": "1e-5"}, "epsilon must be a number, got str"),
        ({}, {"epsilon": True}, "epsilon must be a number, got bool"),
        ({}, {"epsilon": -1e-5}, "epsilon must be finite and at least 0, got -1e-05"),
        ({}, {"epsilon": np.nan}, "epsilon must be finite and at least 0, got nan"),
        ({"batch_stats": {}}, {"layers": ["Dense_0", "Dense_1", "Dense_2"]}, "epsilon must be None where no BatchNorm is read, got 0.001"),
        ({}, {"activation": "relu"}, "activation must be a list where a BatchNorm is read, one for each of the 4 modules before the last, got 'relu'; nothing else"),
        ({}, {"activation": ["relu"] * 2}, "activation must be a list where a BatchNorm is read, one for each of the 4 modules before the last, got 2; nothing else"),
        ({"batch_stats": {}}, {"epsilon": None}, "params must hold only layers of 'kernel' and 'bias', got 'BatchNorm_1/scale'; .* a BatchNorm is read with batch_stats beside params"),
        ({"batch_stats": {"SpectralNorm_0": {"Dense_0/kernel/u": np.ones(3)}}}, {}, "params: batch_stats must hold statistics of BatchNorms, got 'SpectralNorm_0/Dense_0/kernel/u'; those of SpectralNorm"),
        ({"batch_stats": {"BatchNorm_0": {"mean": np.ones(5)}}}, {}, r"params: batch_stats must hold both a mean and a variance, got \['mean'\] alone of 'BatchNorm_0'"),
        ({"batch_stats": {"Dense_0": {"mean": np.ones(5), "var": np.ones(5)}}}, {"layers": ["Dense_0"]}, "params: 'Dense_0' must hold 'scale' and 'bias', as a BatchNorm does, got 'kernel'"),
        ({"batch_stats": {"BatchNorm_0": {"mean": np.ones(5), "var": -np.ones(5)}}}, {"layers": NAMES[:3], "activation": BEFORE[:2], "check": False}, "params: step 1: scale must be finite, got nan"),
        ({"batch_stats": {"BatchNorm_0": {"mean": np.ones(4), "var": np.ones(5)}}}, {"layers": NAMES[:3], "activation": BEFORE[:2], "check": False}, r"params: 'BatchNorm_0' must have arrays of one shape, with 1 axes, got mean \(4,\), var \(5,\), shift \(5,\)"),
    ],
)  # fmt: skip
def test_refusals(change, options, message):
    with pytest.raises((ValueError, TypeError), match=f"^from_flax: {message}"):
        from_flax({**variables(), **change}, **given(**options))
