"""The networks and batches that are timed, each with the reason why it is in the table."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron import MLP


class Case(NamedTuple):
    """A network, or `members` networks of one shape, on `rows` rows. `sizes` begins with the inputs."""

    sizes: tuple[int, ...]
    activation: str  # a name, or the str of a value: "LeakyReLU(0.2)"
    final_activation: str
    rows: int
    why: str
    dtype: str = "float32"
    members: int = 0  # 0: a single network, without an axis of members
    shared: bool = False  # whether all members see the same rows; otherwise each has its own

    @property
    def name(self) -> str:
        widths = "-".join(_folded(self.sizes))
        many = f", {self.members} networks" if self.members else ""
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{widths} {self.activation} x {self.rows}{many}{dtype}"

    @property
    def operations(self) -> int:
        """Multiplications and additions of the matrix products."""
        weights = sum(m * n for m, n in itertools.pairwise(self.sizes))
        return 2 * weights * self.rows * max(1, self.members)


def _folded(sizes: tuple[int, ...]) -> list[str]:
    """The sizes as text, with 64, 64, 64 written as 64x3."""
    runs = [(size, len(list(run))) for size, run in itertools.groupby(sizes)]
    return [text for size, n in runs for text in ([f"{size}x{n}"] if n > 2 else [str(size)] * n)]


QLKNN = (10, 133, 133, 133, 133, 133, 8)
POLICY = (28, 128, 64, 8)
DIGITS = (784, 256, 128, 10)
WIDE_OUT = (25, 64, 64, 64, 198)

CASES = (
    Case((2, 3, 1), "sigmoid", "sigmoid", 1, "the smallest network: the cost of a call"),
    Case((4, 16, 16, 2), "tanh", "identity", 1, "a tiny policy, one observation"),
    Case(POLICY, "relu", "tanh", 1, "a robot policy in its control loop"),
    Case(POLICY, "relu", "tanh", 256, "the same for parallel simulations"),
    Case((64,) * 4, "sigmoid", "sigmoid", 1, "one row through a small network: products of a vector"),
    Case((64,) * 4, "sigmoid", "sigmoid", 16, "a few rows: too many for a vector, too few for a matrix"),
    Case((64,) * 4, "sigmoid", "sigmoid", 128, "a small batch, where handing work to threads costs most"),
    Case((64,) * 4, "sigmoid", "sigmoid", 1024, "a batch that just repays a second thread"),
    Case(WIDE_OUT, "silu", "identity", 1, "a smooth surrogate with a field as its output, one state"),
    Case(WIDE_OUT, "silu", "identity", 1000, "the same over a grid: rows of no round number"),
    Case(QLKNN, "tanh", "identity", 1, "a physics surrogate inside a simulation"),
    Case(QLKNN, "tanh", "identity", 25, "the same on a radial profile"),
    Case(QLKNN, "tanh", "identity", 4096, "the same for a parameter scan; 133 divides by nothing"),
    Case(QLKNN, "tanh", "identity", 2**18, "the same for a data set"),
    Case(QLKNN, "tanh", "identity", 4096, "the scan in double precision", "float64"),
    Case((2, 3, 1), "sigmoid", "sigmoid", 2**20, "gates over a million rows: memory and activations"),
    Case((8,) * 5, "sigmoid", "sigmoid", 2**18, "layers narrower than a vector"),
    Case((16,) * 5, "sigmoid", "sigmoid", 2**18, "narrow layers, many rows"),
    Case((32,) * 5, "sigmoid", "sigmoid", 2**17, "narrow layers that begin to pay for a product"),
    Case((64,) * 5, "sigmoid", "sigmoid", 2**17, "activations cost about as much as products"),
    Case((64,) * 5, "mish", "identity", 2**17, "a smooth activation that takes several functions by hand"),
    Case((64,) * 5, "LeakyReLU(0.2)", "identity", 2**17, "a slope as generators have it: products alone"),
    Case((3, *(256,) * 5, 1), "sin", "identity", 2**16, "a field as a network of sines (SIREN), at points"),
    Case((128,) * 5, "sigmoid", "sigmoid", 2**16, "middling layers, many rows"),
    Case((256,) * 5, "sigmoid", "sigmoid", 2**14, "wide layers, near the peak of the matrix unit"),
    Case((256,) * 5, "sigmoid", "sigmoid", 2**14, "the same stored in half the bytes", "bfloat16"),
    Case((1024,) * 4, "relu", "identity", 2048, "weights larger than a core's cache"),
    Case((1024,) * 4, "relu", "identity", 2048, "the same stored in half the bytes", "bfloat16"),
    Case(DIGITS, "relu", "softmax", 1024, "a classifier of small pictures, a batch"),
    Case(DIGITS, "relu", "softmax", 2**16, "the same over a test set: rows are most of the bytes"),
    Case((13, *(512,) * 5, 2), "relu", "identity", 1024, "a deep ensemble", members=5, shared=True),
    Case((4, 16, 16, 2), "tanh", "identity", 1, "neuroevolution, one step of each policy", members=4096),
    Case((4, 16, 16, 2), "tanh", "identity", 64, "neuroevolution, 64 environments each", members=4096),
)

# This case is not in the table: it shows the time to compile a hundred layers, and their memory.
DEEP = Case((64,) * 101, "sigmoid", "sigmoid", 2**14, "a hundred layers")
SHALLOW = Case((64,) * 5, "sigmoid", "sigmoid", 2**14, "the same rows through four")


def activation(text: str) -> Any:
    """The activation of a case. An older installation, timed beside this one, may know only names."""
    if "(" not in text:
        return text
    from jaxneuron._names import from_text

    return from_text(text)


def network(case: Case) -> tuple[MLP, jax.Array]:
    """The case's network, with weights and biases as large as trained ones, and its rows; always the same.

    With members, the first axis of the weights is the members', `(members, n_in, n_out)`, and so is the first
    axis of rows that are not shared, `(members, rows, n_in)`.
    """
    rng = np.random.default_rng(0)
    many = (case.members,) if case.members else ()
    layers = [
        (rng.normal(size=(*many, m, n)) / np.sqrt(m), rng.normal(size=(*many, n)) / 4)
        for m, n in itertools.pairwise(case.sizes)
    ]
    of_each = () if case.shared else many
    x = rng.normal(size=(*of_each, case.rows, case.sizes[0]))
    hidden = activation(case.activation)
    one = MLP([(w[0], b[0]) if many else (w, b) for w, b in layers], hidden, case.final_activation)
    leaves = [array for layer in layers for array in layer]
    stacked = jax.tree.unflatten(jax.tree.structure(one), leaves)
    return jax.device_put(jax.tree.map(lambda leaf: jnp.asarray(leaf, case.dtype), (stacked, x)))
