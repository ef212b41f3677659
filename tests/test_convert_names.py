"""Layers by their names: the orders that numbers tell, the files that PyTorch writes, the policies that Brax trains."""

import itertools
import re

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxneuron import Affine, mlp_forward
from jaxneuron._math import oracle
from jaxneuron.convert import from_brax, from_flax, from_haiku, from_torch
from jaxneuron.convert._steps import Scaling
from tests.test_convert import RELU, bits, dense, normal, run

# --- names ---


def test_numeric_order():
    params = {f"Dense_{i}": dense(2, 2) for i in (10, 9, 11, 0, 1, 2, 3, 4, 5, 6, 7, 8)}
    mlp = from_flax({"params": params}, **RELU)
    assert all(np.array_equal(mlp.layers[i].w, params[f"Dense_{i}"]["kernel"]) for i in range(12))
    haiku = {f"mlp/~/linear{suffix}": {"w": normal(2, 2)} for suffix in ("_10", "_2", "", "_1")}
    mlp = from_haiku(haiku, **RELU)
    assert all(
        np.array_equal(layer.w, haiku[f"mlp/~/linear{s}"]["w"])
        for layer, s in zip(mlp.layers, ("", "_1", "_2", "_10"), strict=True)
    )


def test_names_in_an_order_that_is_given():
    params = {"out": dense(2, 2), "in": dense(2, 2)}
    mlp = from_flax(params, layers=["in", "out"], **RELU)
    assert np.array_equal(mlp.layers[0].w, params["in"]["kernel"])


UNORDERED = "from_flax: layers must be numbered under one name to have an order, got "


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"in": dense(2, 2), "out": dense(2, 2)}, {}, UNORDERED + "'in', 'out'; pass the part that is one network, or layers=[...] with their names in order"),
        ({"fc": dense(2, 2), "fc1": dense(2, 2)}, {}, UNORDERED + "'fc', 'fc1'"),
        ({"fc1": dense(2, 2), "fc_1": dense(2, 2)}, {}, UNORDERED + "'fc1', 'fc_1'"),
        ({"a": {"fc1": dense(2, 2)}, "b": {"fc2": dense(2, 2)}}, {}, UNORDERED + "'a/fc1', 'b/fc2'"),
        ({f"l{i}x": dense(2, 2) for i in range(7)}, {}, UNORDERED + "'l0x', 'l1x', 'l2x', 'l3x', 'l4x' and 2 more"),
        ({"in": dense(2, 2), "out": dense(2, 2)}, {"layers": ["in"]}, "from_flax: layers must name each of the 2 layers once, got 'out' left out"),
        ({"in": dense(2, 2), "out": dense(2, 2)}, {"layers": ["in", "in"]}, "from_flax: layers must name each of the 2 layers once, got 'in' twice"),
        ({"in": dense(2, 2)}, {"layers": ["on"]}, "from_flax: layers must name layers of params, got 'on'; there are 'in'"),
        ({"fc": dense(2, 2, scale=1)}, {}, "from_flax: params must hold layers of 'kernel' and 'bias' alone, got 'fc/scale'; pass the part that is an MLP"),
        ({"fc": {"bias": normal(2)}}, {}, "from_flax: 'fc/kernel' must be there beside its 'bias', got none; pass whole layers"),
        ({"fc": {"kernel": normal(2)}}, {}, "from_flax: 'fc/kernel' must have two axes, got (2,); layers that are not dense make no MLP"),
        ({}, {}, "from_flax: params must hold at least one layer of 'kernel', got none"),
        ({"fc1": dense(2, 3), "fc2": dense(2, 3)}, {}, "MLP: layers 0 and 1 must chain: layer 0 has 3 units (w (2, 3)), layer 1 takes 2"),
        ({"fc1": dense(2, 2), "fc2": dense(2, 2)}, {"activation": "softmax"}, "MLP: softmax works as the final activation only"),
        ({"fc1": dense(2, 2), "fc2": dense(2, 2)}, {"activation": ["relu"] * 2}, "MLP: activation must have one entry for each of the 1 hidden layers, got 2"),
        ({"fc": dense(2, 2)}, {"dtype": "float16", "final_activation": "tahn"}, "did you mean 'tanh'?"),
    ],
)  # fmt: skip
def test_refused_params(params, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_flax(params, **(RELU | options))


# --- PyTorch's files, without PyTorch ---


def torch_file(path, **tensors):
    """As safetensors.torch writes: plain rows, bfloat16 by its bits, and `format`."""
    path.write_bytes(safetensors.numpy.save(tensors, {"format": "pt"}))
    return path


def test_a_file_that_pytorch_wrote(tmp_path):
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
        ({"0.weight": normal(2, 2)}, {"activation": None}, "from_torch: activation and final_activation must be given, as only an nn.Sequential holds them; pass activation='relu', final_activation='identity', or whichever they are"),
        ({"0.weight": normal(2, 2)}, {"prefix": "net."}, "from_torch: prefix must begin the names of tensors, got 'net.', which begins none; see the state_dict's keys"),
        ({"a.0.weight": normal(2, 2), "b.0.weight": normal(2, 2)}, {}, "from_torch: layers must be numbered under one name to have an order, got 'a.0', 'b.0'"),
        ({"0.weight": normal(2, 2), "1.running_mean": normal(2)}, {}, "got '1.running_mean'; pass the part that is an MLP"),
        ({"0.weight": np.ones((2, 2), np.complex64)}, {}, "must hold BF16, BOOL, "),
    ],
)  # fmt: skip
def test_refused_files(tmp_path, tensors, options, message):
    path = torch_file(tmp_path / "net.safetensors", **tensors)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_torch(path, **(RELU | options))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.bin", "model.ckpt"])
def test_pickles_are_not_opened(tmp_path, name):
    with pytest.raises(
        ValueError,
        match=f"from_torch: source must be a .safetensors file, got '{name}', which may hold a pickle, and that runs code",
    ):
        from_torch(tmp_path / name, **RELU)  # which is not even there


# --- Brax ---


class Normalizer:
    """The two fields of Brax's RunningStatisticsState that its normalisation reads."""

    def __init__(self, mean, std):
        self.mean, self.std = mean, std


def policy(*sizes):
    return {"params": {f"hidden_{i}": dense(*pair) for i, pair in enumerate(itertools.pairwise(sizes))}}


def test_brax_policy():
    params = policy(3, 5, 5, 4)
    normalizer = Normalizer(normal(3), 1 + normal(3) ** 2)
    value = policy(3, 1)
    mlp = from_brax((normalizer, params, value), activation="silu")
    assert mlp.activations == ("silu", "silu", "tanh")
    x = normal(4, 3)
    steps = [Scaling(normalizer.mean, 1 / normalizer.std.astype(np.float64))]
    for i in range(3):
        layer = params["params"][f"hidden_{i}"]
        steps += [Affine(layer["kernel"], layer["bias"]), "silu" if i < 2 else "identity"]
    truth = np.tanh(run(steps, x)[0][:, :2])
    _, error = oracle.mlp(mlp.layers, mlp.activations, x, "float32")
    assert (np.abs(np.asarray(mlp_forward(mlp, x)) - truth) <= error * 4 / 3).all()
    several = Normalizer({"state": normalizer.mean, "extra": None}, {"state": normalizer.std, "extra": None})
    assert bits(from_brax((several, params), activation="silu", obs_key="state")) == bits(mlp)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ((1,), "from_brax: params must be (normalizer, policy, value) or (normalizer, policy), got tuple; pass what the training function returned"),
        ((Normalizer({"state": 1}, 1), policy(3, 2)), "from_brax: obs_key must be one of 'state', got None; pass the observations that the policy sees"),
        ((None, policy(3, 2)), "from_brax: params[0] must be a normalizer with mean and std, got NoneType; without normalisation use from_flax on the policy"),
        ((Normalizer(normal(3), normal(3)), policy(3, 3)), "must have an even number of outputs, location and spread of each action, got 3"),
        ((Normalizer(normal(3), np.zeros(3)), policy(3, 2)), "from_brax: step 0: scale must be finite, got inf"),
        ((Normalizer(normal(2), 1 + normal(2) ** 2), policy(3, 2)), "from_brax: step 0: mean must have shape (3,) or be one number, got (2,)"),
    ],
)  # fmt: skip
def test_refused_policies(params, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_brax(params, activation="silu")
