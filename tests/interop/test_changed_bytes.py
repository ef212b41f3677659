"""Files with some bytes changed: every reader returns a network or raises ValueError."""

import io
import random
import warnings
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxneuron import MLP, init_mlp, load, mlp_forward, save
from jaxneuron.convert import (
    export,
    from_keras,
    from_onnx,
    from_pairs,
    from_torch,
    load_exported,
    to_keras,
    to_onnx,
)
from jaxneuron.convert._files import described
from jaxneuron.convert._npz import read_pairs, write_pairs
from jaxneuron.convert._torch import torch_arrays

pytest.importorskip("onnx", reason="onnx is in the extra interop")
pytest.importorskip("keras", reason="keras is in the extra interop")
pytest.importorskip("h5py", reason="h5py is in the extra keras")

GIVEN = {"activation": "tanh", "final_activation": "leaky_relu"}
READERS = {
    "ours.safetensors": load,
    "torch.safetensors": lambda path: from_torch(path, **GIVEN),
    "model.onnx": from_onnx,
    "model.keras": from_keras,
    "model.h5": from_keras,
    "model.weights.h5": lambda path: from_keras(path, **GIVEN),
    "model.npz": lambda path: from_pairs(read_pairs(path), orientation="in_out", **GIVEN),
    "model.stablehlo": lambda path: described(path) and None,
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """One intact file of each kind, by name, all of the same network."""
    folder = tmp_path_factory.mktemp("intact")
    mlp = init_mlp(jax.random.key(0), (3, 4, 4, 2), **GIVEN)
    save(folder / "ours.safetensors", mlp)
    (folder / "torch.safetensors").write_bytes(safetensors.numpy.save(torch_arrays(mlp, "net.")))
    to_onnx(mlp, folder / "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras's variables and NumPy 2's copy keyword
        model = to_keras(mlp)
        model.save(folder / "model.keras")
        model.save(folder / "model.h5")
        model.save_weights(folder / "model.weights.h5")
    write_pairs(mlp, folder / "model.npz")
    export(mlp, folder / "model.stablehlo")
    for name, read in READERS.items():
        assert name == "model.stablehlo" or read(folder / name).activations == mlp.activations
    return {name: (folder / name).read_bytes() for name in READERS}


def mutated(rng, content):
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
        match rng.randrange(6):
            case 0 if content:
                content[at % len(content)] ^= 1 << rng.randrange(8)
            case 1:
                del content[at:]
            case 2:
                content[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                del content[at : at + rng.randrange(1, 16)]
            case 4:
                content[at : at + 8] = rng.choice(
                    (b"\xff" * 8, bytes(8), (2**31 - 1).to_bytes(8, "little"), b"\0\0\0\0\1\0\0\0")
                )
            case 5:
                content[at:at] = content[other : other + 64]
    return bytes(content)


def mutated_or_cut(rng, name, content):
    """The file mutated or cut off. HDF5 is only cut off: changed bytes can make its library run for ever."""
    return content[: rng.randrange(len(content))] if name.endswith(".h5") else mutated(rng, content)


def mutated_inside(rng, content):
    """An archive with one mutated member and correct checksums."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(written, "w") as changed:
        chosen = rng.choice(archive.namelist())
        for name in archive.namelist():
            member = archive.read(name)
            changed.writestr(name, mutated_or_cut(rng, name, member) if name == chosen else member)
    return written.getvalue()


@pytest.mark.filterwarnings(
    "ignore:.* holds NaN, which is kept:UserWarning"
)  # a changed byte may well cause it
@settings(max_examples=1000)
@given(name=st.sampled_from(sorted(READERS)), seed=st.integers(0, 2**32))
def test_changed_bytes_give_a_network_or_a_value_error(intact, tmp_path_factory, name, seed):
    rng = random.Random(seed)
    archive = name.endswith((".keras", ".npz")) and rng.random() < 0.8
    path = tmp_path_factory.getbasetemp() / name
    content = intact[name]
    path.write_bytes(mutated_inside(rng, content) if archive else mutated_or_cut(rng, name, content))
    refused = None
    try:
        found = READERS[name](path)
    except ValueError as error:
        refused = str(error)
    assert (
        refused.startswith(("load: ", "from_", str(path)))
        if refused
        else found is None or isinstance(found, MLP)
    )


def test_the_intact_program_runs(intact, tmp_path):
    (tmp_path / "model.stablehlo").write_bytes(intact["model.stablehlo"])
    (tmp_path / "ours.safetensors").write_bytes(intact["ours.safetensors"])
    x = np.ones((5, 3), np.float32)
    mlp = load(tmp_path / "ours.safetensors")
    assert np.array_equal(load_exported(tmp_path / "model.stablehlo")(x), mlp_forward(mlp, x))
