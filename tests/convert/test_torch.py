"""The files that PyTorch writes, tested without PyTorch; tests/interop/test_torch.py tests them with it."""

import re

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxneuron.convert import from_torch
from tests.convert.networks import RELU, bits, normal


def torch_file(path, **tensors):
    """A file in the form that safetensors.torch writes: plain rows, bfloat16 as bits, and `format`."""
    path.write_bytes(safetensors.numpy.save(tensors, {"format": "pt"}))
    return path


def test_a_file_of_pytorch_is_read_with_its_bits(tmp_path):
    one, two, b = normal(3, 2), normal(1, 3), normal(3)
    path = torch_file(
        tmp_path / "net.safetensors",
        **{"actor.0.weight": one, "actor.0.bias": b, "actor.2.weight": two, "critic.0.weight": two},
    )
    mlp = from_torch(path, prefix="actor.", activation="tanh", final_activation="identity")
    assert bits(mlp) == bits([one.T.copy(), b, two.T.copy()])
    square = normal(2, 2)
    torch_file(path, **{"weight": square})
    assert np.array_equal(from_torch(path, **RELU).layers[0].w, square.T)
    torch_file(path, **{"weight": square.astype(ml_dtypes.bfloat16)})
    assert from_torch(str(path), **RELU).layers[0].w.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({"0.weight": normal(2, 2)}, {"activation": None}, "from_torch: activation and final_activation must be given, because only an nn.Sequential records them; pass activation='relu', final_activation='identity', or whichever the network has"),
        ({"0.weight": normal(2, 2)}, {"prefix": "net."}, "from_torch: prefix must begin the names of tensors, got 'net.', which begins none; look at the state_dict's keys"),
        ({"a.0.weight": normal(2, 2), "b.0.weight": normal(2, 2)}, {}, "from_torch: layers must be given where the names of layers are not one name with numbers, got 'a.0', 'b.0'"),
        ({"0.weight": normal(2, 2), "1.running_mean": normal(2)}, {}, "from_torch: source must hold only layers of 'weight' and 'bias', got '1.running_mean'; pass the part that is an MLP"),
        ({"0.weight": np.ones((2, 2), np.complex64)}, {}, "must hold BF16, BOOL, "),
    ],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, tensors, options, message):
    path = torch_file(tmp_path / "net.safetensors", **tensors)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_torch(path, **(RELU | options))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.bin", "model.ckpt"])
def test_pickles_are_not_opened(tmp_path, name):
    with pytest.raises(
        ValueError,
        match=f"from_torch: source must be a .safetensors file, got '{name}', which may hold a pickle, and opening a pickle can run code",
    ):
        from_torch(tmp_path / name, **RELU)  # the file does not even exist
