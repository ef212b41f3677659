"""The networks and batches that are timed, each with the reason it is there."""

from typing import NamedTuple


class Case(NamedTuple):
    """A network of `sizes` on `rows` rows, inputs first."""

    sizes: tuple[int, ...]
    activation: str
    final_activation: str
    rows: int
    why: str

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.sizes))} {self.activation} x {self.rows}"


QLKNN = (10, 133, 133, 133, 133, 133, 8)
POLICY = (28, 128, 64, 8)

CASES = (
    Case((2, 3, 1), "sigmoid", "sigmoid", 1, "the smallest network: the cost of a call"),
    Case((4, 16, 16, 2), "tanh", "identity", 1, "a tiny policy, one observation"),
    Case(POLICY, "relu", "tanh", 1, "a robot policy in its control loop"),
    Case(QLKNN, "tanh", "identity", 1, "a physics surrogate inside a simulation"),
    Case(QLKNN, "tanh", "identity", 25, "the same on a radial profile"),
    Case((64,) * 4, "sigmoid", "sigmoid", 128, "a small batch, where handing work to threads costs most"),
    Case(QLKNN, "tanh", "identity", 4096, "the same for a parameter scan"),
    Case((256,) * 5, "sigmoid", "sigmoid", 16_384, "wide layers, near the peak of the matrix unit"),
    Case((16,) * 5, "sigmoid", "sigmoid", 2**17, "narrow layers, many rows"),
    Case((2, 3, 1), "sigmoid", "sigmoid", 2**20, "gates over a million rows: memory and activations"),
)
