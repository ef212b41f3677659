"""Remakes the pictures of the documentation: `python docs/pictures.py` (extras `files`, `plot`)."""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from jaxneuron import gates, save
from jaxneuron.cli import main

# The arguments of `jaxneuron plot` for each picture.
PICTURES = {
    "sigmoid": ["sigmoid"],
    "activations": ["sigmoid", "tanh", "relu"],
    "and": ["and"],
    "gates": ["gates"],
    "xor": ["xor"],
    "xor-network": ["xor.safetensors"],
    "qlknn": [str(files("jaxneuron") / "data" / "qlknn_7_11.safetensors")],
    "error": ["error"],
}


def remake(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        network = f"{scratch}/xor.safetensors"
        save(network, gates.XOR)
        for name, what in PICTURES.items():
            what = [network if word == "xor.safetensors" else word for word in what]
            if status := main(["plot", *what, "-o", str(folder / f"{name}.svg"), "--force"]):
                sys.exit(status)


if __name__ == "__main__":
    remake(Path(__file__).parent / "pictures")
