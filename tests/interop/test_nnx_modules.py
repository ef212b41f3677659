"""Flax NNX modules that compute more than their arrays show: refused by name, or found by their outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import mlp_forward
from jaxneuron.convert import from_nnx
from tests.interop.exact import X

pytest.importorskip("flax", reason="flax is in the extra interop")

from flax import linen, nnx

from tests.interop.nnx_modules import GIVEN, RNGS, Pair

# --- refused, or read as they compute ---


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


OVERRIDDEN = {
    "Linear": lambda: Doubled(4, 4, rngs=RNGS),
    "LoRALinear": lambda: DoubledLoRA(4, 4, lora_rank=2, rngs=RNGS),
    "Sequential": lambda: Residual(nnx.Linear(4, 4, rngs=RNGS)),
    "Dropout": lambda: Louder(0.5),
}


@pytest.mark.parametrize("kind", OVERRIDDEN)
def test_a_subclass_with_another_call_is_refused(kind):
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


def test_a_computed_variable_is_read_as_the_layer_reads_it():
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


def test_a_module_without_outputs_for_rows_alone_warns():
    class Two(Pair):
        def __call__(self, x, y):
            return super().__call__(x) + y

    class Several(Pair):
        def __call__(self, x):
            return {"y": super().__call__(x)}

    one, two = (nnx.Linear(4, 4, rngs=nnx.Rngs(i)) for i in range(2))
    for kind in (Two, Several):
        with pytest.warns(UserWarning, match=f"^module: {kind.__name__} gives no outputs for rows alone, so"):
            mlp = from_nnx(kind(one, two), **GIVEN)
        assert len(mlp.layers) == 2
        assert from_nnx(kind(one, two), check=(X, Pair(one, two)(X)), **GIVEN)  # no warning
        assert from_nnx(kind(one, two), check=False, **GIVEN)


@pytest.mark.parametrize(("own", "given"), [("relu6", "relu"), ("relu", "relu6"), ("hard_swish", "silu")])
def test_an_activation_that_differs_for_large_sums_is_found(own, given):
    class Clipped(Pair):
        def __call__(self, x):
            return self.layer2(getattr(nnx, own)(self.layer1(x)))

    module = Clipped(*(nnx.Linear(4, 4, rngs=nnx.Rngs(i)) for i in range(2)))
    assert from_nnx(module, activation=own, final_activation="identity")
    with pytest.raises(ValueError, match=r"^from_nnx: module must compute what its layers say"):
        from_nnx(module, activation=given, final_activation="identity")
