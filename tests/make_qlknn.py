"""Makes jaxneuron/data/qlknn_7_11.safetensors from the published weights: `python -m tests.make_qlknn`."""

from pathlib import Path

import numpy as np

import jaxneuron
from jaxneuron import MLP, fold_input_scaling, fold_output_scaling

WEIGHTS = Path(__file__).parent / "data" / "qlknn_7_11_weights.npz"
SHIPPED = Path(jaxneuron.__file__).parent / "data" / "qlknn_7_11.safetensors"


def folded_qlknn() -> MLP:
    """Returns the published float32 network in float64, with the scaling of inputs and outputs folded in."""
    with np.load(WEIGHTS) as file:
        published = {name: file[name].astype(np.float64) for name in file.files}
    layers = [(published[f"w{i}"], published[f"b{i}"]) for i in range(6)]
    mlp = MLP(layers, activation="tanh", final_activation="identity")
    mlp = fold_input_scaling(mlp, published["input_mean"], published["input_std"])
    return fold_output_scaling(mlp, published["output_scale"], published["output_shift"])


if __name__ == "__main__":
    jaxneuron.save(SHIPPED, folded_qlknn())
