"""Flax NNX, as installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import mlp_forward
from jaxneuron.convert import from_nnx
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, trained

pytest.importorskip("flax", reason="flax is in the extra interop")

from flax import linen, nnx

GIVEN = {"activation": "relu", "final_activation": "identity"}


def forward64(apply, params, x):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        return np.asarray(apply(wide, np.asarray(x, np.float64)))


def test_a_sequential_says_its_activations():
    module = nnx.Sequential(
        nnx.Linear(4, 6, rngs=nnx.Rngs(0)),
        nnx.gelu,
        nnx.Dropout(0.5, deterministic=True),
        nnx.Sequential(nnx.Linear(6, 6, use_bias=False, rngs=nnx.Rngs(1)), nnx.tanh),
        nnx.Linear(6, 2, rngs=nnx.Rngs(2)),
        nnx.softmax,
    )
    graph, state = nnx.split(module)
    params = trained(lambda p: jnp.mean((nnx.merge(graph, p)(ROWS) - TARGETS) ** 2), state)
    module = nnx.merge(graph, params)
    mlp = from_nnx(module)
    assert mlp.activations == ("gelu_tanh", "tanh", "softmax")
    inner = module.layers[3].layers[0]
    first, last = module.layers[0], module.layers[4]
    assert_bits(mlp, first.kernel[...], first.bias[...], inner.kernel[...], last.kernel[...], last.bias[...])
    assert_outputs(mlp, X, forward64(lambda p, x: nnx.merge(graph, p)(x), params, X))


class Custom(nnx.Module):
    def __init__(self, rngs):
        self.linear2 = nnx.Linear(5, 5, rngs=rngs)
        self.linear10 = nnx.Linear(5, 2, rngs=rngs)
        self.linear1 = nnx.Linear(4, 5, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.linear10(nnx.relu(self.linear2(nnx.relu(self.linear1(x)))))


def test_module_and_state():
    module = Custom(nnx.Rngs(0))
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    y = forward64(lambda p, x: nnx.merge(graph, p, rest)(x), params, X)
    for source in (module, params, nnx.to_pure_dict(params)):
        mlp = from_nnx(source, activation="relu", final_activation="identity")
        assert_outputs(mlp, X, y)
    with pytest.raises(
        ValueError, match=r"from_nnx: activation and final_activation must be given, because only an nnx"
    ):
        from_nnx(module)
    with pytest.raises(
        ValueError, match=r"from_nnx: activations and names must not be given for an nnx.Sequential"
    ):
        from_nnx(nnx.Sequential(module.linear1), activation="relu")
    with pytest.raises(
        ValueError, match=r"from_nnx: module: layers must be nnx.Linear or activations, got Custom"
    ):
        from_nnx(nnx.Sequential(module))


# --- LoRA ---


def lora_linear(n_in, n_out, **options):
    layer = nnx.LoRALinear(n_in, n_out, lora_rank=2, rngs=nnx.Rngs(3), **options)
    layer.lora.lora_b[...] = jax.random.normal(jax.random.key(7), layer.lora.lora_b.shape)  # it begins at 0
    return layer


def lora_around(n_in, n_out, base=True):
    base = nnx.Linear(n_in, n_out, rngs=nnx.Rngs(3)) if base else None
    layer = nnx.LoRA(n_in, 2, n_out, base_module=base, rngs=nnx.Rngs(4))
    layer.lora_b[...] = jax.random.normal(jax.random.key(7), layer.lora_b.shape)
    return layer


LORA = {
    "LoRALinear": lora_linear,
    "LoRALinear without a bias": lambda *sizes: lora_linear(*sizes, use_bias=False),
    "LoRA around a Linear": lora_around,
    "LoRA around LoRALinear": lambda *sizes: nnx.LoRA(*(sizes[0], 1, sizes[1]), base_module=lora_linear(*sizes), rngs=nnx.Rngs(5)),
    "LoRA alone": lambda *sizes: lora_around(*sizes, base=False),
}  # fmt: skip


class Pair(nnx.Module):
    def __init__(self, one, two):
        self.layer1, self.layer2 = one, two

    def __call__(self, x):
        return self.layer2(nnx.relu(self.layer1(x)))


@pytest.mark.parametrize("name", LORA)
def test_lora_is_added_to_the_kernel(name):
    one, two = LORA[name](4, 5), nnx.Linear(5, 2, rngs=nnx.Rngs(1))
    for module, given in ((nnx.Sequential(one, nnx.relu, two), {}), (Pair(one, two), GIVEN)):
        graph, state = nnx.split(module)
        mlp = from_nnx(module, **given)
        assert len(mlp.layers) == 2
        assert_outputs(mlp, X, forward64(lambda p, x, g=graph: nnx.merge(g, p)(x), state, X), folded=True)
    w = forward64(lambda p, x: p(x) - p(jnp.zeros_like(x)), one, np.eye(4))
    np.testing.assert_allclose(mlp.layers[0].w, w.astype(np.float32), rtol=2**-23)  # rounded once


def test_lora_that_is_wider_than_its_kernel_widens_the_layer():
    layer = lora_linear(4, 2, param_dtype=jnp.bfloat16)
    mlp = from_nnx(nnx.Sequential(layer))
    assert mlp.layers[0].w.dtype == np.float32


# --- modules that mean more than their arrays ---


class Doubled(nnx.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


class DoubledLoRA(nnx.LoRALinear):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Residual(nnx.Sequential):
    def __call__(self, x):
        return x + super().__call__(x)


class Louder(nnx.Dropout):
    def __call__(self, x):
        return 2 * x


class Inherits(nnx.Linear):
    pass


RNGS = nnx.Rngs(0)
OVERRIDDEN = {
    "Linear": lambda: Doubled(4, 4, rngs=RNGS),
    "LoRALinear": lambda: DoubledLoRA(4, 4, lora_rank=2, rngs=RNGS),
    "Sequential": lambda: Residual(nnx.Linear(4, 4, rngs=RNGS)),
    "Dropout": lambda: Louder(0.5),
}


@pytest.mark.parametrize("kind", OVERRIDDEN)
def test_a_subclass_that_is_called_in_another_way_is_refused(kind):
    module = OVERRIDDEN[kind]()
    name = type(module).__name__
    sources = [(nnx.Sequential(nnx.Linear(4, 4, rngs=RNGS), nnx.Sequential(module)), {})]
    if kind == "Sequential":
        sources.append((module, {}))
    elif kind != "Dropout":
        sources.append((Pair(nnx.Linear(4, 4, rngs=RNGS), module), GIVEN))
    for source, given in sources:
        with pytest.raises(
            ValueError,
            match=f"modules must be called as Flax's own, got {name}, an nnx.{kind} with another __call__; "
            f"pass the part that is an MLP, or an nnx.{kind} with its fields$",
        ):
            from_nnx(source, **given)


def test_a_subclass_that_inherits_its_call_is_read():
    layer = Inherits(4, 2, rngs=RNGS)
    for mlp in (from_nnx(nnx.Sequential(layer)), from_nnx(Pair(layer, nnx.Linear(2, 2, rngs=RNGS)), **GIVEN)):
        assert np.array_equal(mlp.layers[0].w, layer.kernel[...])


class Own(nnx.Module):
    def __init__(self):
        self.linear1 = nnx.Linear(4, 4, rngs=RNGS)
        self.norm = nnx.LayerNorm(4, rngs=RNGS)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (Own, ValueError, r"module must hold its weights in nnx.Linear, got 'norm/bias' of a LayerNorm; pass the part that is an MLP, or nnx.state"),
        (lambda: Pair(nnx.Linear(4, 4, rngs=RNGS), nnx.Param(jnp.ones((4, 4)))), ValueError, "module must hold its weights in nnx.Linear, got 'layer2' of a Pair"),
        (lambda: nnx.Linear(4, 4, dot_general=lambda *a, **k: jax.lax.dot_general(*a, **k), rngs=RNGS), ValueError, "an nnx.Linear must have Flax's own dot_general, got <function"),
        (lambda: nnx.Linear(4, 4, promote_dtype=lambda a, dtype: a, rngs=RNGS), ValueError, "an nnx.Linear must have Flax's own promote_dtype, got <function"),
        (lambda: nnx.LoRA(4, 2, 4, base_module=nnx.Sequential(nnx.Linear(4, 4, rngs=RNGS)), rngs=RNGS), ValueError, "an nnx.LoRA must have an nnx.Linear as base_module, got Sequential"),
        (lambda: quantised(), TypeError, "module must hold arrays, got a Param that holds none; pass a module whose weights are arrays"),
    ],
)  # fmt: skip
def test_modules_that_are_refused(module, error, message):
    with pytest.raises(error, match=f"^from_nnx: {message}"):
        from_nnx(module(), **GIVEN)


def quantised():
    layer = nnx.Linear(4, 4, rngs=RNGS)
    layer.kernel = nnx.Param({"values": jnp.ones((4, 4), jnp.int8), "scale": jnp.ones(4)})
    return layer


def test_a_variable_that_computes_its_value_is_read_as_the_layer_reads_it():
    class Halved(nnx.Param):
        def get_value(self, *, index=...):
            return super().get_value(index=index) / 2

    layer = nnx.Linear(4, 2, rngs=RNGS)
    kernel = layer.kernel[...]
    layer.kernel = Halved(kernel)
    for mlp in (from_nnx(nnx.Sequential(layer)), from_nnx(nnx.state(layer), **GIVEN)):
        assert np.array_equal(mlp.layers[0].w, kernel / 2)


def test_a_linen_module_in_nnx_is_read_by_its_names():
    class Outer(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(4)(nnx.relu(linen.Dense(4)(x)))

    module = nnx.bridge.ToNNX(Outer(), rngs=nnx.Rngs(0)).lazy_init(X)
    with pytest.raises(ValueError, match=r"^from_nnx: module must compute what its layers say"):
        from_nnx(module, **GIVEN)
    mlp = from_nnx(module, layers=["Dense_1", "Dense_0"], **GIVEN)
    np.testing.assert_allclose(mlp_forward(mlp, X), module(X), rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="numbered as they were created"):
        from_nnx(nnx.state(module, nnx.Param), **GIVEN)  # which can't be called


# --- check ---


def test_a_function_that_mixes_rows_is_found():
    for function in (lambda v: v / jnp.linalg.norm(v), lambda v: v - v.mean(0)):
        with pytest.raises(ValueError, match=r"^from_nnx: module must compute what its layers say"):
            from_nnx(nnx.Sequential(nnx.Linear(4, 3, rngs=RNGS), function))
    function = lambda v: v - v.mean(-1, keepdims=True)  # noqa: E731
    assert from_nnx(nnx.Sequential(nnx.Linear(4, 3, rngs=RNGS), function)).final_activation is function


def test_a_module_that_computes_something_else_is_found():
    class Skips(Pair):
        def __call__(self, x):
            return super().__call__(x) + x

    class Swapped(Pair):
        def __call__(self, x):
            return self.layer1(nnx.relu(self.layer2(x)))

    class Shared(nnx.Module):
        def __init__(self, layer):
            self.layer1 = self.layer2 = layer

        def __call__(self, x):
            return self.layer2(nnx.relu(self.layer1(x)))

    one, two = (nnx.Linear(4, 4, rngs=nnx.Rngs(i)) for i in range(2))
    for module in (Skips(one, two), Swapped(one, two), Shared(one)):
        with pytest.raises(
            ValueError, match=r"^from_nnx: module must compute what its layers say, got outputs that differ"
        ):
            from_nnx(module, **GIVEN)
        assert from_nnx(module, check=False, **GIVEN)
        assert from_nnx(nnx.state(module), **GIVEN)  # which can't be called
        with pytest.raises(ValueError, match=r"^from_nnx: check must hold what the network gives"):
            from_nnx(nnx.state(module), check=(X, module(X)), **GIVEN)
    with pytest.raises(ValueError, match=r"^from_nnx: module must compute what its layers say"):
        from_nnx(Pair(one, two), activation="tanh", final_activation="identity")


def test_the_comparison_leaves_the_module_as_it_was():
    module = nnx.Sequential(
        nnx.Linear(4, 3, rngs=RNGS), nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=RNGS)
    )
    before = nnx.state(module)
    counts = [
        int(count[...])
        for count in jax.tree.leaves(before, is_leaf=lambda v: isinstance(v, nnx.RngCount))
        if isinstance(count, nnx.RngCount)
    ]
    assert len(from_nnx(module).layers) == 2
    assert not module.layers[1].deterministic
    after = nnx.state(module)
    assert counts == [
        int(count[...])
        for count in jax.tree.leaves(after, is_leaf=lambda v: isinstance(v, nnx.RngCount))
        if isinstance(count, nnx.RngCount)
    ]


def test_layers_that_compute_in_a_narrower_dtype_are_compared_in_it():
    module = nnx.Sequential(
        nnx.Linear(4, 64, dtype=jnp.bfloat16, rngs=RNGS),
        jnp.tanh,
        nnx.Linear(64, 2, dtype=jnp.float32, rngs=RNGS),
    )
    assert from_nnx(module).layers[0].w.dtype == np.float32


# --- stacks ---


def make(key):
    rngs = nnx.Rngs(key)
    return nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), nnx.tanh, nnx.Linear(4, 4, rngs=rngs), nnx.relu)


class Scanned(nnx.Module):
    def __init__(self):
        self.a = nnx.Linear(4, 5, rngs=nnx.Rngs(0))
        self.b = nnx.vmap(lambda key: nnx.Linear(5, 5, rngs=nnx.Rngs(key)))(
            jax.random.split(jax.random.key(1), 3)
        )
        self.c = nnx.Linear(5, 2, rngs=nnx.Rngs(2))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def block(layer, x):
            return nnx.relu(layer(x))

        return self.c(block(self.b, nnx.relu(self.a(x))))


def test_members_of_an_ensemble():
    ensemble = nnx.vmap(make)(jax.random.split(jax.random.key(0), 3))
    y = nnx.vmap(lambda module, x: module(x), in_axes=(0, None))(ensemble, X)
    for source, given in (
        (ensemble, {}),
        (nnx.state(ensemble), {"activation": "tanh", "final_activation": "relu"}),
    ):
        with pytest.raises(
            ValueError, match=r"must have (kernels of )?two axes, got \(3, 4, 4\).*; pass stacked='members'"
        ):
            from_nnx(source, **given)
        stack = from_nnx(source, stacked="members", **given)
        np.testing.assert_allclose(jax.vmap(mlp_forward, (0, None))(stack, X), y, rtol=1e-5, atol=1e-6)
    in_turn = from_nnx(ensemble, stacked="layers")  # the same module, called in turn
    x = X
    for i in range(3):
        x = nnx.merge(nnx.graphdef(ensemble), jax.tree.map(lambda a, i=i: a[i], nnx.state(ensemble)))(x)
    np.testing.assert_allclose(mlp_forward(in_turn, X), x, rtol=1e-5, atol=1e-6)


def test_layers_of_a_scan():
    module = Scanned()
    given = {"layers": ["a", "b", "c"], **GIVEN}
    with pytest.raises(
        ValueError, match=r"'b/kernel' must have two axes, got \(3, 5, 5\); pass stacked='members'"
    ):
        from_nnx(module, **given)
    mlp = from_nnx(module, stacked="layers", **given)  # compared with the module
    assert len(mlp.layers) == 5
    np.testing.assert_allclose(mlp_forward(mlp, X), module(X), rtol=1e-5, atol=1e-6)


# --- inside a trace ---


def test_tracers_and_concrete_arrays_inside_jit():
    module = make(jax.random.key(0))
    graph, state = nnx.split(module)
    kept = []

    @jax.jit
    def forward(state, x):
        kept.append(from_nnx(module))
        return mlp_forward(from_nnx(nnx.merge(graph, state)), x), mlp_forward(kept[0], x)

    for y in (*forward(state, X), mlp_forward(kept[0], X)):
        np.testing.assert_allclose(y, module(X), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"^from_nnx: .*tracer"):
        jax.jit(lambda s: from_nnx(nnx.merge(lora_graph, s)))(lora_state)


lora_graph, lora_state = nnx.split(nnx.Sequential(lora_linear(4, 2)))


class ActorCritic(nnx.Module):
    def __init__(self, rngs):
        self.torso, self.mean = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)
        self.value, self.norm = nnx.Linear(6, 1, rngs=rngs), nnx.LayerNorm(6, rngs=rngs)
        self.log_std = nnx.Param(jnp.zeros(2))

    def __call__(self, x):
        hidden = jnp.tanh(self.torso(x))
        return jnp.concatenate([self.mean(hidden), self.value(hidden)], axis=-1)


def test_the_layers_that_are_named_are_read_and_no_others():
    module, given = ActorCritic(nnx.Rngs(0)), {"activation": "tanh", "final_activation": "identity"}
    check = X, module(X)[:, :2]
    for source in (module, nnx.state(module)):
        assert from_nnx(source, layers=["torso", "mean"], check=check, **given)
        assert from_nnx(
            source, layers=["torso", "mean"], outputs=slice(1), check=(X, check[1][:, :1]), **given
        )
    with pytest.raises(
        ValueError, match=r"^from_nnx: module must compute what its layers say, got outputs of"
    ):
        from_nnx(module, layers=["torso", "mean"], **given)
    with pytest.raises(
        ValueError, match=r"^from_nnx: module must hold its weights in nnx.Linear, got 'norm/"
    ):
        from_nnx(module, layers=["torso", "norm"], **given)
    net = nnx.Sequential(nnx.Linear(4, 6, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(6, 3, rngs=nnx.Rngs(1)))
    assert from_nnx(net, outputs=slice(2)).layers[-1].w.shape == (6, 2)
