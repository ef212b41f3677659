"""Hashes what the package computes: `python scripts/bits.py > before.txt`; change something, run it, diff.

It prints a line for each part, and one for all parts together. The parts are a fixed set of networks, dtypes,
functions and instruction sets, with jax_enable_x64 off and on. Two runs agree on the same processor with the
same jax. The kernel's own parts for avx2, avx512, avx512_bf16 and neon agree on every processor that has
them. All NaNs count as equal, whatever their signs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxneuron
from jaxneuron import MLP, Affine
from jaxneuron._names import BY_NAME, resolve
from jaxneuron.testing import _sweeps as sweeps

try:
    from jaxneuron._kernels import library, primitive
except ImportError:  # the modules' earlier names
    from jaxneuron._kernels import _cpu as primitive
    from jaxneuron._kernels import _library as library

SETS = () if library.missing() else library.instruction_sets()
# The activations of the networks. All of HIDDEN share lines, and so do all of LATER. Each activation of NEWER
# has lines of its own, so that all lines stay comparable when activations are added.
HIDDEN = (
    "cr_sigmoid", "cr_tanh", "elu", "gelu", "gelu_tanh", "hard_sigmoid", "identity", "leaky_relu", "relu",
    "selu", "sigmoid", "silu", "softplus", "tanh",
)  # fmt: skip
VALUES = getattr(sweeps, "VALUES", ())
LATER = (
    "hard_swish", "hard_tanh", "log_sigmoid", "mish", "relu6", "sin", "softsign", "square", "exp",
    *VALUES[:10],
)  # fmt: skip
NEWER = (*sorted(set(BY_NAME) - {*HIDDEN, *LATER, "softmax", "log_softmax"}), *VALUES[10:])
# Sizes and rows: one row, a part of a vector, whole vectors, uneven numbers, and more units than a panel has.
NETWORKS = (
    ((2, 3, 1), 1),
    ((2, 3, 1), 4099),
    ((4, 16, 16, 2), 7),
    ((3, 8, 8, 8), 257),
    ((28, 128, 64, 8), 1),
    ((64, 64, 64, 64), 65),
    ((10, 133, 133, 133, 8), 25),
    ((33, 600, 520, 9), 70),
    ((5, 1), 0),
)  # fmt: skip


def grid(dtype: str) -> np.ndarray:
    """Numbers of every exponent and both signs, zeros, infinities and NaN, in a random order."""
    info = jnp.finfo(dtype)
    unsigned = np.dtype(f"u{info.bits // 8}")
    infinity = int(np.array(np.inf, info.dtype).view(unsigned))
    patterns = np.linspace(0, infinity, 2000).astype(unsigned)
    rng = np.random.default_rng(0)
    ordinary = rng.uniform(-30, 30, 2048).astype(info.dtype)
    z = np.concatenate([patterns.view(info.dtype), ordinary, np.array([0, np.inf, np.nan], info.dtype)])
    return rng.permuted(np.concatenate([z, -z]))


def network(
    sizes: tuple[int, ...],
    dtype: str,
    first: int = 0,
    members: int = 0,
    names: tuple[Any, ...] = HIDDEN,
    final: str = "softmax",
) -> MLP:
    """A network with weights as large as trained ones. Each layer has another activation, from `first` on."""
    rng = np.random.default_rng(1)
    many = (members,) if members else ()
    layers = [
        (
            (rng.uniform(-2, 2, (*many, m, n)) / np.sqrt(m)).astype(jnp.dtype(dtype)),
            None if i == 1 else rng.uniform(-0.5, 0.5, (*many, n)).astype(jnp.dtype(dtype)),
        )
        for i, (m, n) in enumerate(itertools.pairwise(sizes))
    ]
    hidden = [names[(first + i) % len(names)] for i in range(len(layers) - 1)]
    one = MLP([(w[0], None if b is None else b[0]) if many else (w, b) for w, b in layers], hidden, final)
    return jax.tree.unflatten(jax.tree.structure(one), [a for pair in layers for a in pair if a is not None])


def rows(n: int, n_in: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(2).uniform(-3, 3, (n, n_in)).astype(jnp.dtype(dtype))


def by_instructions(mlp: MLP, x: Any, instructions: int) -> Any:
    return primitive.forward(mlp.layers, [resolve(name) for name in mlp.activations], x, instructions)


def parts(dtype: str) -> Iterator[tuple[str, Any]]:
    """The computations, each with its name and the resulting arrays."""
    z = grid(dtype)
    one = Affine(np.ones((1, 1), z.dtype))
    for name, function in sorted(BY_NAME.items()):
        yield f"activation {name}", jax.jit(function)(z.reshape(-1, 2))
        yield f"neuron {name}", jaxneuron.neuron(one, z[:, None], name)
    slopes = jax.jit(lambda z: [jax.vmap(jax.grad(BY_NAME[name]))(z) for name in HIDDEN])
    yield "activation slopes", slopes(z)
    yield from later_parts(dtype, z)
    cases = [(network(sizes, dtype, i), rows(n, sizes[0], dtype)) for i, (sizes, n) in enumerate(NETWORKS)]
    for instructions, name in enumerate(SETS):
        yield (
            f"kernel {name} grid",
            [by_instructions(MLP([one], final_activation=a), z[:, None], instructions) for a in HIDDEN],
        )
        yield f"kernel {name} networks", [by_instructions(*case, instructions) for case in cases]
    yield "mlp_forward", [jaxneuron.mlp_forward(*case) for case in cases]
    yield "mlp_forward, no axis of rows", [jaxneuron.mlp_forward(mlp, x[0]) for mlp, x in cases if len(x)]
    yield "affine", [jaxneuron.affine(mlp.layers[0], x) for mlp, x in cases]
    yield "neuron", [jaxneuron.neuron(Affine(mlp.layers[0].w[:, 0], 0.5), x, "tanh") for mlp, x in cases]
    yield "evaluate", [jaxneuron.evaluate(mlp, x, tile=32) for mlp, x in cases if len(x)]
    yield "vmapped rows", [jax.vmap(jaxneuron.mlp_forward, (None, 0))(mlp, x) for mlp, x in cases if len(x)]
    members = network((4, 16, 16, 2), dtype, 5, members=9)
    x = rows(9, 4, dtype)
    yield "members", jax.vmap(jaxneuron.mlp_forward, (0, None))(members, x)
    yield "members, each its row", jax.vmap(jaxneuron.mlp_forward)(members, x)
    # The kernel does not know this callable, so the networks take XLA's own path.
    own = [MLP(mlp.layers, mlp.activation, lambda z: jaxneuron.softmax(z)) for mlp, _ in cases]
    yield "XLA", [jaxneuron.mlp_forward(mlp, x) for mlp, (_, x) in zip(own, cases, strict=True)]
    mlp, x = network((4, *[5] * len(HIDDEN), 3), dtype), rows(6, 4, dtype)
    yield "all activations, one network", jaxneuron.mlp_forward(mlp, x)
    yield "jacfwd", jax.jit(jax.vmap(jax.jacfwd(jaxneuron.mlp_forward, 1), (None, 0)))(mlp, x)
    yield "grad", jax.jit(jax.grad(lambda mlp: (jaxneuron.mlp_forward(mlp, x) ** 2).sum()))(mlp)


def later_parts(dtype: str, z: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The computations for the activations that were added later."""
    one = Affine(np.ones((1, 1), z.dtype))
    groups = {"later": LATER} | {str(each): (each,) for each in NEWER}
    for label, group in groups.items():
        known = [each for each in group if not isinstance(each, str) or each in BY_NAME]
        if not known:
            continue
        for value in known:
            if not isinstance(value, str):
                yield f"neuron {value}", jaxneuron.neuron(one, z[:, None], value)
        slopes = jax.jit(lambda z, known=known: [jax.vmap(jax.grad(resolve(each)))(z) for each in known])
        yield f"activation slopes, {label}", slopes(z)
        cases = [
            (network(sizes, dtype, i, names=tuple(known), final="log_softmax"), rows(n, sizes[0], dtype))
            for i, (sizes, n) in enumerate(NETWORKS)
        ]
        for instructions, name in enumerate(SETS):
            ends = [MLP([one], final_activation=value) for value in known]
            yield (
                f"kernel {name} grid, {label}",
                [by_instructions(mlp, z[:, None], instructions) for mlp in ends],
            )
            yield f"kernel {name} networks, {label}", [by_instructions(*case, instructions) for case in cases]


def digest(tree: Any) -> str:
    """The hash of the bits, dtypes and shapes of all arrays; all NaNs count as equal."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.array(leaf)
        array[np.isnan(array)] = np.nan
        found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def main() -> None:
    total = hashlib.sha256()
    for x64 in (False, True):
        with jax.enable_x64(x64):
            for dtype in ("bfloat16", "float16", "float32", *(["float64"] if x64 else [])):
                for name, tree in parts(dtype):
                    line = f"{'x64' if x64 else 'x32'} {dtype:<8} {name:<30} {digest(tree)[:16]}"
                    total.update(line.encode())
                    print(line, flush=True)
    print(f"all {total.hexdigest()}")


if __name__ == "__main__":
    main()
