"""LoRA of Flax NNX: its weights are added to the kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron.convert import from_nnx
from tests.interop.exact import X, assert_outputs

pytest.importorskip("flax", reason="flax is in the extra interop")

from flax import nnx

from tests.interop.nnx_modules import GIVEN, Pair, forward64


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


def test_lora_of_tracers_is_refused():
    graph, state = nnx.split(nnx.Sequential(lora_linear(4, 2)))
    with pytest.raises(TypeError, match=r"^from_nnx: .*tracer"):
        jax.jit(lambda s: from_nnx(nnx.merge(graph, s)))(state)
