"""The contenders. Each takes a case, its network and its rows, and returns a call without arguments.

A call returns when its result is ready. A contender that can't evaluate a case raises NotImplementedError
with the reason; one whose library is missing raises ImportError. Peers are written as their documentation
advises for speed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxneuron
from bench import peers
from bench.cases import Case
from jaxneuron import MLP
from jaxneuron._math.activations import ACTIVATIONS

Call = Callable[[], Any]
Contender = Callable[[Case, MLP, Array], Call]
JAX_NN: dict[str, Callable[..., Array]] = {
    **{name: getattr(jax.nn, name) for name in ACTIVATIONS if hasattr(jax.nn, name)},
    "gelu": functools.partial(jax.nn.gelu, approximate=False), "gelu_tanh": jax.nn.gelu,
    "sin": jnp.sin, "LeakyReLU(0.2)": functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
}  # fmt: skip


def waiting(function: Callable[..., Array], *arguments: Any) -> Call:
    """A call of `function(*arguments)` that waits for its result."""
    return lambda: function(*arguments).block_until_ready()


def over_members(function: Callable[..., Array], case: Case) -> Callable[..., Array]:
    """`function(params, rows)` for each member, if there are members."""
    return jax.vmap(function, (0, None if case.shared else 0)) if case.members else function


def direct(case: Case, mlp: MLP, x: Array) -> Call:
    """`mlp_forward`, called outside jit."""
    if case.members:
        raise NotImplementedError("many networks are evaluated under jax.vmap")
    return waiting(jaxneuron.mlp_forward, mlp, x)


def inside_jit(case: Case, mlp: MLP, x: Array) -> Call:
    """`mlp_forward` in the user's own jit."""
    return waiting(jax.jit(over_members(jaxneuron.mlp_forward, case)), mlp, x)


def weights_inside(case: Case, mlp: MLP, x: Array) -> Call:
    """`mlp_forward` in the user's own jit, with the weights in the program, as in an ONNX Runtime session."""
    if case.members:
        raise NotImplementedError("many networks are arguments")
    return waiting(jax.jit(functools.partial(jaxneuron.mlp_forward, mlp)), x)


def from_numpy(case: Case, mlp: MLP, x: Array) -> Call:
    """`Evaluator`, from NumPy to NumPy."""
    evaluator = jaxneuron.Evaluator(mlp, each=bool(case.members and not case.shared))
    rows = np.array(x)
    return lambda: evaluator(rows)


def layers_in_turn(case: Case) -> Callable[..., Array]:
    """The loop over a list of (w, b) pairs, as people write it by hand."""
    activations = [JAX_NN[case.activation]] * (len(case.sizes) - 2) + [JAX_NN[case.final_activation]]

    def forward(layers: list[tuple[Array, Array]], x: Array) -> Array:
        for (w, b), activation in zip(layers, activations, strict=True):
            x = activation(x @ w + b)
        return x

    return forward


def textbook(case: Case, mlp: MLP, x: Array) -> Call:
    """The loop under jit, on a batch."""
    return waiting(jax.jit(over_members(layers_in_turn(case), case)), [tuple(a) for a in mlp.layers], x)


def mapped(case: Case, mlp: MLP, x: Array) -> Call:
    """The loop for one row, under vmap and jit."""
    rows = jax.vmap(layers_in_turn(case), (None, 0))
    return waiting(jax.jit(over_members(rows, case)), [tuple(a) for a in mlp.layers], x)


def flax(case: Case, mlp: MLP, x: Array) -> Call:
    """NNX's functional way: the module is split once, and jitted code merges it."""
    from flax import nnx

    first = jax.tree.map(lambda leaf: leaf[0], mlp) if case.members else mlp
    parts: list[Any] = []
    for (w, b), name in zip(first.layers, first.activations, strict=True):
        linear = nnx.Linear(*w.shape, dtype=w.dtype, param_dtype=w.dtype, rngs=nnx.Rngs(0))
        linear.kernel[...], linear.bias[...] = w, b
        parts += [linear, JAX_NN[str(name)]]
    graph, state = nnx.split(nnx.Sequential(*parts))
    if case.members:
        # In the order of the leaves of the state: bias before kernel.
        stacked = [array for layer in mlp.layers for array in (layer.b, layer.w)]
        state = jax.tree.unflatten(jax.tree.structure(state), stacked)
    return waiting(jax.jit(over_members(lambda state, x: nnx.merge(graph, state)(x), case)), state, x)


def equinox(case: Case, mlp: MLP, x: Array) -> Call:
    """Equinox's way with least overhead: the module is partitioned once, and jitted code combines it."""
    import equinox

    from jaxneuron.convert import to_equinox

    first = jax.tree.map(lambda leaf: leaf[0], mlp) if case.members else mlp
    arrays, rest = equinox.partition(to_equinox(first), equinox.is_array)
    if case.members:
        # Equinox's weights are (n_out, n_in).
        stacked = [a for w, b in mlp.layers for a in (w.swapaxes(-1, -2), b)]
        arrays = jax.tree.unflatten(jax.tree.structure(arrays), stacked)

    def forward(arrays: Any, x: Array) -> Array:
        return jax.vmap(equinox.combine(arrays, rest))(x)

    return waiting(jax.jit(over_members(forward, case)), arrays, x)


def empty(case: Case, *arguments: Any) -> Call:
    """A jitted call with these arguments that returns zeros of the result's shape: it costs only the call."""
    shape = (*((case.members,) if case.members else ()), case.rows, case.sizes[-1])
    return waiting(jax.jit(lambda *_: jnp.zeros(shape, case.dtype), keep_unused=True), *arguments)


OURS: dict[str, Contender] = {
    "mlp_forward": direct,
    "jit(mlp_forward)": inside_jit,
    "weights inside": weights_inside,
    "Evaluator": from_numpy,
}
PEERS: dict[str, Contender] = {
    "textbook": textbook,
    "jit(vmap)": mapped,
    "Flax NNX": flax,
    "Equinox": equinox,
    "PyTorch": peers.torch_eager,
    "torch.compile": peers.torch_compiled,
    "ONNX Runtime": peers.onnx_runtime,
    "NumPy": peers.in_numpy,
    "scikit-learn": peers.scikit_learn,
}
