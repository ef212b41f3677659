"""The order of layers, from the numbers in their names."""

import re

import numpy as np
import pytest

from jaxneuron.convert import from_flax, from_haiku
from tests.convert.networks import RELU, dense, normal


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


UNORDERED = "from_flax: layers must be given where the names of layers are not one name with numbers, got "


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"in": dense(2, 2), "out": dense(2, 2)}, {}, UNORDERED + "'in', 'out'; pass layers=[...] with their names in order, or the part that is one network"),
        ({"fc": dense(2, 2), "fc1": dense(2, 2)}, {}, UNORDERED + "'fc', 'fc1'"),
        ({"fc1": dense(2, 2), "fc_1": dense(2, 2)}, {}, UNORDERED + "'fc1', 'fc_1'"),
        ({"a": {"fc1": dense(2, 2)}, "b": {"fc2": dense(2, 2)}}, {}, UNORDERED + "'a/fc1', 'b/fc2'"),
        ({f"l{i}x": dense(2, 2) for i in range(7)}, {}, UNORDERED + "'l0x', 'l1x', 'l2x', 'l3x', 'l4x' and 2 more"),
        ({"in": dense(2, 2), "out": dense(2, 2)}, {"layers": ["in"]}, "from_flax: layers must name each of the 2 layers once, got 'out' left out"),
        ({"in": dense(2, 2), "out": dense(2, 2)}, {"layers": ["in", "in"]}, "from_flax: layers must name each of the 2 layers once, got 'in' twice"),
        ({"in": dense(2, 2)}, {"layers": ["on"]}, "from_flax: layers must name layers of params, got 'on'; there are 'in'"),
        ({"fc": dense(2, 2, scale=1)}, {}, "from_flax: params must hold only layers of 'kernel' and 'bias', got 'fc/scale'; pass the part that is an MLP"),
        ({"fc": {"bias": normal(2)}}, {}, "from_flax: params: 'fc/kernel' must be there beside its 'bias', got none; pass whole layers"),
        ({"fc": {"kernel": normal(2)}}, {}, "from_flax: params: 'fc/kernel' must have two axes, got (2,); only dense layers make an MLP"),
        ({}, {}, "from_flax: params must hold at least one layer of 'kernel', got none"),
        ({"fc1": dense(2, 3), "fc2": dense(2, 3)}, {}, "from_flax: params: layers 0 and 1 must chain: layer 0 has 3 units (w (2, 3)), layer 1 takes 2"),
        ({"fc1": dense(2, 2), "fc2": dense(2, 2)}, {"activation": "softmax"}, "from_flax: softmax works as the final activation only"),
        ({"fc1": dense(2, 2), "fc2": dense(2, 2)}, {"activation": ["relu"] * 2}, "from_flax: activation must have one entry for each of the 1 hidden layers, got 2"),
        ({"fc": dense(2, 2)}, {"dtype": "float16", "final_activation": "tahn"}, "did you mean 'tanh'?"),
    ],
)  # fmt: skip
def test_refused_params(params, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_flax(params, **(RELU | options))
