"""The order of layers, from the numbers in their names."""

import re
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from jaxneuron import mlp_forward
from jaxneuron.convert import from_flax, from_haiku, from_torch
from jaxneuron.convert._names import fits_otherwise
from tests.convert.networks import RELU, bits, dense, normal


def test_layers_are_ordered_by_their_numbers():
    params = {f"Dense_{i}": dense(2, 2) for i in (10, 9, 11, 0, 1, 2, 3, 4, 5, 6, 7, 8)}
    with pytest.warns(UserWarning, match="are numbered as they were created"):
        mlp = from_flax({"params": params}, **RELU)
    assert all(np.array_equal(mlp.layers[i].w, params[f"Dense_{i}"]["kernel"]) for i in range(12))
    haiku = {f"mlp/~/linear{suffix}": {"w": normal(2, 2)} for suffix in ("_10", "_2", "", "_1")}
    with pytest.warns(UserWarning, match="are numbered as they were created"):
        mlp = from_haiku(haiku, **RELU)
    assert all(
        np.array_equal(layer.w, haiku[f"mlp/~/linear{s}"]["w"])
        for layer, s in zip(mlp.layers, ("", "_1", "_2", "_10"), strict=True)
    )


def test_flat_parameters_equal_nested_ones():
    params = tree((3, 4, 2), "fc{}")
    nested = bits(from_flax({"params": params}, **RELU))
    for key in (tuple, "/".join):
        flat = {
            key(("params", name, part)): array
            for name, layer in params.items()
            for part, array in layer.items()
        }
        assert bits(from_flax(flat, **RELU)) == nested
    with pytest.raises(
        ValueError, match=r"^from_flax: params must hold each array once, got two of 'fc0/kernel'"
    ):
        from_flax(params | {"fc0/kernel": np.zeros((3, 4))}, **RELU)


def test_the_argument_layers_gives_the_order():
    params = {"out": dense(2, 2), "in": dense(2, 2)}
    mlp = from_flax(params, layers=["in", "out"], **RELU)
    assert np.array_equal(mlp.layers[0].w, params["in"]["kernel"])


def tree(widths, name="Dense_{}", names=("kernel", "bias")):
    return {
        name.format(i): dict(zip(names, (normal(*pair), normal(pair[1])), strict=True))
        for i, pair in enumerate(pairwise(widths))
    }


HAIKU = ("w", "b")


@given(st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_fits_otherwise_equals_a_search_of_all_orders(widths):
    """The test tries all orders of the layers. If the first width occurs again, there may be two networks."""
    layers = list(enumerate(pairwise(widths)))
    orders = sum(
        all(one[1] == two[0] for (_, one), (_, two) in pairwise(order)) for order in permutations(layers)
    )
    assert fits_otherwise(widths) == (orders > 1 or widths[0] in widths[2:])


@pytest.mark.parametrize(
    ("read", "params"),
    [
        (from_flax, tree((2, 2, 2))),
        (from_flax, tree((3, 5, 3))),  # an autoencoder, or its parts the other way round
        (from_flax, tree((3, 5, 3, 6, 1))),  # an actor and a critic, with as many actions as observations
        (from_flax, {"params": {"net": tree((2, 4, 4, 4, 1), "MLPBlock_{}")}}),
        (from_haiku, {"linear": tree((2, 2), names=HAIKU)["Dense_0"], "linear_1": tree((2, 2), names=HAIKU)["Dense_0"]}),
        (from_haiku, {f"net/~/dense_{i}": tree((2, 2), names=HAIKU)["Dense_0"] for i in (2, 1)}),  # a part
    ],
)  # fmt: skip
def test_layers_numbered_by_a_library_warn_if_another_order_chains(read, params):
    with pytest.warns(
        UserWarning, match=r"pass layers=\[...\], their names in the order of the calls, or check=\(rows"
    ) as caught:
        mlp = read(params, **RELU)
    assert Path(caught[0].filename) == Path(__file__)
    x = normal(3, mlp.layers[0].w.shape[0])
    assert read(params, check=(x, mlp_forward(mlp, x)), **RELU)  # no warning
    assert read(params, check=False, **RELU)
    if "params" not in params:
        assert read(params, layers=sorted(params), **RELU)


@pytest.mark.parametrize(
    ("read", "params"),
    [
        (from_flax, tree((2, 3, 1))),
        (from_flax, tree((3, 64, 64, 2))),
        (from_flax, tree((2, 2, 2), "fc{}")),  # numbered by a person
        (from_flax, tree((2, 2, 2), "layers_{}")),  # indices in a list or an nn.Sequential
        (from_flax, tree((2, 2, 2), "hidden_{}")),
        (from_haiku, tree((2, 2, 2), "mlp/~/linear_{}", HAIKU)),  # hk.nets.MLP gives these names
        (from_haiku, tree((2, 2, 2), "fc{}", HAIKU)),
    ],
)
def test_no_warning_where_the_order_is_known(read, params):
    assert len(read(params, **RELU).layers) == len(params)


def test_check_finds_the_wrong_order():
    params = tree((2, 2, 2))
    (w0, b0), (w1, b1) = (params[f"Dense_{i}"].values() for i in range(2))
    x = normal(4, 2)
    check = x, np.maximum(x @ w1 + b1, 0) @ w0 + b0  # because Dense_0 is called last
    with pytest.raises(
        ValueError, match=r"from_flax: check must hold what the network gives, got outputs that differ by"
    ):
        from_flax(params, check=check, **RELU)
    assert from_flax(params, layers=["Dense_1", "Dense_0"], check=check, **RELU)


UNORDERED = "from_flax: layers must be given where the names of layers are not one name with numbers, got "


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"in": dense(2, 2), "out": dense(2, 2)}, {}, UNORDERED + "'in', 'out'; pass layers=[...] with their names in order, or the part that is one network"),
        ({"fc": dense(2, 2), "fc1": dense(2, 2)}, {}, UNORDERED + "'fc', 'fc1'"),
        ({"actor": tree((2, 3, 1)), "critic": tree((2, 3, 1))}, {}, UNORDERED + "'actor/Dense_0', 'actor/Dense_1', 'critic/Dense_0', 'critic/Dense_1'; pass layers=[...] with their names in order, or the part that is one network, such as what is under 'actor'"),
        (tree((2, 3, 1)) | {"Dense_2": dense(2, 3), "Dense_3": dense(3, 1)}, {}, "from_flax: params: layers must chain, got 'Dense_1' with 1 units before 'Dense_2', which takes 2; they are numbered as they were created: pass layers=[...], their names in the order of the calls, or the part that is one network, an actor without its critic"),
        ({"fc1": dense(2, 2), "fc_1": dense(2, 2)}, {}, UNORDERED + "'fc1', 'fc_1'"),
        ({"a": {"fc1": dense(2, 2)}, "b": {"fc2": dense(2, 2)}}, {}, UNORDERED + "'a/fc1', 'b/fc2'"),
        ({f"l{i}x": dense(2, 2) for i in range(12)}, {}, UNORDERED + "'l0x', 'l1x', 'l2x', 'l3x', 'l4x', 'l5x', 'l6x', 'l7x', 'l8x', 'l9x', and 2 more"),
        ({"in": dense(2, 2)}, {"layers": []}, "from_flax: layers must name at least one layer, got none"),
        ({"in": dense(2, 2), "out": dense(2, 2)}, {"layers": ["in", "in"]}, "from_flax: layers must name each layer once, got 'in' twice"),
        ({"in": dense(2, 2)}, {"layers": ["on"]}, "from_flax: layers must name layers of params, got 'on'; pass some of 'in'"),
        ({"fc": dense(2, 2, scale=1)}, {}, "from_flax: params must hold only layers of 'kernel' and 'bias', got 'fc/scale'; pass the part that is an MLP, or layers=[...] with the names of its layers in order"),
        ({"fc": dense(2, 2, scale=1), "log_std": 1}, {"layers": ["fc"]}, "from_flax: params must hold only layers of 'kernel' and 'bias', got 'fc/scale'"),
        ({"fc": dense(2, 2, inner={"a": 1})}, {"layers": ["fc"]}, "from_flax: params must hold only layers of 'kernel' and 'bias', got 'fc/inner/a'"),
        ({"fc": {"bias": normal(2)}}, {}, "from_flax: params: 'fc/kernel' must be there beside its 'bias', got none; pass whole layers"),
        ({"fc": {"kernel": normal(2)}}, {}, "from_flax: params: 'fc/kernel' must have two axes, got (2,); pass only dense layers"),
        ({}, {}, "from_flax: params must hold at least one layer of 'kernel', got none"),
        ({"fc1": dense(2, 3), "fc2": dense(2, 3)}, {}, "from_flax: params: layers 0 and 1 must chain: layer 0 has 3 units (w (2, 3)), layer 1 takes 2"),
        ({"fc1": dense(2, 2), "fc2": dense(2, 2)}, {"activation": "softmax"}, "from_flax: softmax can only be the final activation"),
        ({"fc1": dense(2, 2), "fc2": dense(2, 2)}, {"activation": ["relu"] * 2}, "from_flax: activation must have one entry for each of the 1 hidden layers, got 2"),
        ({"fc": dense(2, 2)}, {"dtype": "float16", "final_activation": "tahn"}, "did you mean 'tanh'?"),
    ],
)  # fmt: skip
def test_bad_params_are_refused(params, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_flax(params, **(RELU | options))


def test_only_named_layers_are_read():
    """Everything beside them is not even looked at: a critic, `log_std`, an embedding."""
    params = {
        "torso": {"fc": dense(3, 4)},
        "mean": dense(4, 2),
        "value": dense(4, 1),
        "log_std": object(),
        "embedding": {"table": "text", "bias": None, "kernel": object()},
    }
    mlp = from_flax(params, layers=["torso/fc", "mean"], **RELU)
    arrays = [params["torso"]["fc"], params["mean"]]
    assert bits(mlp) == bits([array for layer in arrays for array in layer.values()])


LEFT_OUT = {
    "a LayerNorm of Flax": (from_flax, {"LayerNorm_0": {"scale": np.ones(4), "bias": np.ones(4)}}, "'LayerNorm_0'"),
    "one that only shifts": (from_flax, {"LayerNorm_0": {"bias": np.ones(4)}}, "'LayerNorm_0'"),
    "a BatchNorm without its statistics": (from_flax, {"BatchNorm_0": {"scale": np.ones(4)}}, "'BatchNorm_0'"),
    "WeightNorm of Flax": (from_flax, {"WeightNorm_0": {"fc0/kernel/scale": np.ones(4)}}, "'WeightNorm_0'"),
    "LoRA of Flax": (from_flax, {"lora_a": np.ones((3, 1)), "fc0_lora": {"kernel": np.ones((3, 1))}}, "'lora_a', 'fc0_lora'"),
    "a BatchNorm of Haiku": (from_haiku, {"batch_norm": {"scale": np.ones((1, 4)), "offset": np.ones((1, 4))}}, "'batch_norm'"),
    "a LayerNorm of Haiku": (from_haiku, {"layer_norm": {"scale": np.ones(4), "offset": np.ones(4)}}, "'layer_norm'"),
    "hk.Bias": (from_haiku, {"bias": {"b": np.ones(4)}}, "'bias'"),
    "a LayerNorm of PyTorch": (from_torch, {"norm.weight": np.ones(4), "norm.bias": np.ones(4)}, "'norm'"),
    "a running mean": (from_torch, {"obs_rms.mean": np.ones(3), "obs_rms.count": np.ones(1, int)}, "'obs_rms'"),
    "PEFT": (from_torch, {"lora_A.default.weight": np.ones((2, 3))}, "'lora_A'"),
}  # fmt: skip


@pytest.mark.parametrize(("read", "others", "named"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_leaving_out_modules_that_may_change_the_layers_warns(read, others, named, tmp_path):
    if read is from_torch:
        params = {"fc0.weight": normal(4, 3), "fc1.weight": normal(2, 4)}
    else:
        params = tree((3, 4, 2), "fc{}", HAIKU if read is from_haiku else ("kernel", "bias"))
    sources = [params | others]
    if read is from_torch:
        sources.append(tmp_path / "state.safetensors")
        save_file(sources[0], sources[1])
    for source in sources:
        with pytest.warns(UserWarning, match=rf"left out, because layers= does not name it: {named}; if the"):
            mlp = read(source, layers=["fc0", "fc1"], **RELU)
        x = normal(2, 3)
        assert read(source, layers=["fc0", "fc1"], check=(x, mlp_forward(mlp, x)), **RELU)  # no warning
        assert read(source, layers=["fc0", "fc1"], check=False, **RELU)


def test_a_critic_and_unrelated_arrays_are_left_out_without_a_warning():
    params = tree((3, 4, 2), "fc{}") | {
        "critic": tree((3, 4, 1)) | {"LayerNorm_0": {"scale": np.ones(4)}},
        "Conv_0": {"kernel": np.ones((3, 3, 1, 4)), "bias": np.ones(4)},
        "log_std": np.ones(2),
        "tokens": {"embedding": np.ones((9, 4))},
        "normed": {"weight_g": np.ones(4), "weight_v": np.ones((4, 3))},
        "dropout": {"rngs": {"count": np.ones(1, np.uint32)}},
    }
    assert from_flax(params, layers=["fc0", "fc1"], **RELU)


@pytest.mark.parametrize(
    "outputs", [slice(2), slice(1, 3), slice(-1, None), slice(None, None, -1), slice(None)]
)
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_the_argument_outputs_keeps_units_of_the_last_layer(outputs, activation):
    params, x = tree((3, 4, 5)), normal(6, 3)
    given = {"activation": "tanh", "final_activation": activation}
    whole, part = from_flax(params, **given), from_flax(params, outputs=outputs, **given)
    assert part.activations == whole.activations
    w, b = params["Dense_1"].values()
    assert bits(part.layers[1]) == bits([w[:, outputs], b[outputs]])
    members = {name: {k: np.stack([a, 2 * a]) for k, a in each.items()} for name, each in params.items()}
    ensemble = from_flax(members, outputs=outputs, stacked="members", **given)
    assert bits(ensemble.layers[1]) == bits([np.stack([a, 2 * a]) for a in (w[:, outputs], b[outputs])])
    y = np.asarray(mlp_forward(whole, x))[:, outputs]
    assert from_flax(params, outputs=outputs, check=(x, y), **given)
    with pytest.raises(ValueError, match=r"^from_flax: check must hold what the network gives"):
        from_flax(params, outputs=outputs, check=(x, 1 + 2 * y), **given)


@pytest.mark.parametrize(
    ("outputs", "final", "message"),
    [
        (slice(5, None), "tanh", "outputs must keep some of 3 units, got slice(5, None, None); pass slice(0, 3) for all of them"),
        (slice("a"), "tanh", "outputs must keep some of 3 units, got slice(None, 'a', None)"),
        (slice(0, 3, 0), "tanh", "outputs must keep some of 3 units, got slice(0, 3, 0)"),
        (slice(2), "softmax", "outputs must be None for a network that ends with softmax, got slice(None, 2, None): each of its units depends on all of them"),
    ],
)  # fmt: skip
def test_bad_outputs_are_refused(outputs, final, message):
    with pytest.raises(ValueError, match=re.escape(f"from_flax: {message}")):
        from_flax(tree((2, 3)), activation="relu", final_activation=final, outputs=outputs)
    with pytest.raises(TypeError, match=r"^from_flax: outputs must be a slice, got int; pass slice\(0, 3\)"):
        from_flax(tree((2, 3)), outputs=3, **RELU)
