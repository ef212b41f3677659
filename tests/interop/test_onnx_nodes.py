"""ONNX operators that don't mix rows, that choose units, or that fold away, in graphs of a few nodes."""

import itertools

import numpy as np
import pytest

from jaxneuron import MLP, mlp_forward
from jaxneuron.convert import from_onnx
from tests.interop.exact import X, assert_bits, assert_outputs

onnx = pytest.importorskip("onnx", reason="onnx is in the extra interop")

from tests.interop.onnx_models import forward64, model, normal  # noqa: E402

INT = np.int64
W, B, V = normal(4, 6), normal(6), normal(6, 3)
LAYER = ("Gemm", ["x", "w", "b"], ["z"], {})
NEXT_LAYER = ("MatMul", ["h", "v"], ["y"], {})


def sizes(*numbers):
    return np.array(numbers, INT)


# --- nodes that keep rows ---

# Nodes from z (batch, 6) to h with the same rows; their constants; an opset that has them in this form.
SAME_ROWS = {
    "Flatten": ([("Flatten", ["z"], ["h"], {})], {}, 20),
    "Flatten, axis -1": ([("Flatten", ["z"], ["h"], {"axis": -1})], {}, 20),
    "Reshape": ([("Reshape", ["z", "s"], ["h"], {})], {"s": sizes(-1, 6)}, 20),
    "Reshape, 0": ([("Reshape", ["z", "s"], ["h"], {})], {"s": sizes(0, -1)}, 20),
    "Reshape there and back": ([("Reshape", ["z", "s"], ["r"], {}), ("Reshape", ["r", "t"], ["h"], {})], {"s": sizes(0, 2, 3), "t": sizes(0, 6)}, 20),
    "Reshape of old": ([("Reshape", ["z"], ["h"], {"shape": [-1, 6]})], {}, 4),
    "Unsqueeze, Squeeze": ([("Unsqueeze", ["z", "s"], ["r"], {}), ("Squeeze", ["r", "s"], ["h"], {})], {"s": sizes(1)}, 20),
    "Unsqueeze, Squeeze of old": ([("Unsqueeze", ["z"], ["r"], {"axes": [0, 2]}), ("Squeeze", ["r"], ["h"], {"axes": [0, 2]})], {}, 11),
    "Squeeze of all": ([("Unsqueeze", ["z", "s"], ["r"], {}), ("Squeeze", ["r"], ["h"], {})], {"s": sizes(0)}, 20),
    "Transpose of one": ([("Unsqueeze", ["z", "s"], ["r"], {}), ("Transpose", ["r"], ["t"], {"perm": [0, 2, 1]}), ("Flatten", ["t"], ["h"], {})], {"s": sizes(1)}, 20),
    "the batch's size": ([
        ("Shape", ["z"], ["shape"], {}), ("Gather", ["shape", "zero"], ["n"], {}), ("Unsqueeze", ["n", "axis"], ["n1"], {}),
        ("Concat", ["n1", "six"], ["s"], {"axis": 0}), ("Reshape", ["z", "s"], ["h"], {})], {"zero": np.array(0), "axis": sizes(0), "six": sizes(6)}, 20),
    "the batch's size, cut": ([
        ("Shape", ["z"], ["shape"], {"end": 1}), ("Cast", ["shape"], ["n"], {"to": 7}), ("Concat", ["n", "rest"], ["s"], {"axis": 0}),
        ("Reshape", ["z", "s"], ["h"], {})], {"rest": sizes(-1)}, 20),
    "Expand to its shape": ([("Shape", ["z"], ["s"], {}), ("Expand", ["z", "s"], ["h"], {})], {}, 20),
    "a whole Slice": ([("Slice", ["z", "from", "to", "axes"], ["h"], {})], {"from": sizes(0, 0), "to": sizes(2**63 - 1, 6), "axes": sizes(0, 1)}, 20),
    "Identity, Dropout, Cast": ([("Identity", ["z"], ["i"], {}), ("Dropout", ["i"], ["d"], {}), ("Cast", ["d"], ["h"], {"to": 1})], {}, 20),
    "Pow 1": ([("Pow", ["z", "one"], ["h"], {})], {"one": np.float32(1)}, 20),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_ROWS)
def test_nodes_that_keep_rows_are_folded_away(name):
    nodes, constants, opset = SAME_ROWS[name]
    proto = model([LAYER, *nodes, NEXT_LAYER], {"w": W, "b": B, "v": V, **constants}, opset=opset)
    mlp = from_onnx(proto)
    assert_bits(mlp, W, B, V)
    if opset > 6 and "Cast" not in name:  # ONNX's own evaluator reads these
        assert_outputs(mlp, X, forward64(proto, X))


@pytest.mark.parametrize("shape", [["n", 2, 4], ["n", 1, 1, 8], [1, 1, 1, 8], ["n", 2, 2, 2]])
def test_rows_of_several_axes_are_taken_flattened(shape):
    """ACAS Xu's networks have this form: the mean of an image is subtracted before it is flattened."""
    w, mean = normal(8, 3), normal(*shape[1:])
    nodes = [("Sub", ["x", "m"], ["c"], {}), ("Flatten", ["c"], ["f"], {}), ("MatMul", ["f", "w"], ["y"], {})]
    mlp = from_onnx(proto := model(nodes, {"m": mean, "w": w}, shape=shape))
    rows = normal(1, *shape[1:])
    assert_outputs(mlp, rows.reshape(1, 8), forward64(proto, rows), folded=True)
    channel = normal(shape[1], *(1,) * (len(shape) - 2))
    mlp = from_onnx(proto := model(nodes, {"m": channel, "w": w}, shape=shape))
    assert_outputs(mlp, rows.reshape(1, 8), forward64(proto, rows), folded=True)


@pytest.mark.parametrize("perm", list(itertools.permutations(range(1, 4))))
def test_a_transpose_of_units_permutes_the_first_layer(perm):
    w = normal(24, 3)
    nodes = [
        ("Transpose", ["x"], ["t"], {"perm": [0, *perm]}),
        ("Flatten", ["t"], ["f"], {}),
        ("MatMul", ["f", "w"], ["y"], {}),
    ]
    proto, rows = model(nodes, {"w": w}, shape=["n", 2, 3, 4]), normal(5, 2, 3, 4)
    mlp = from_onnx(proto)
    assert_outputs(mlp, rows.reshape(5, 24), forward64(proto, rows))
    assert np.array_equal(np.sort(mlp.layers[0].w, axis=0), np.sort(w, axis=0))


@pytest.mark.parametrize(("nodes", "constants", "message"), [
    ([("Flatten", ["z"], ["y"], {"axis": 0})], {}, r"it does not keep rows of the shape \(6\) apart, from \(batch, 6\) to \(1, 6\*batch\)"),
    ([("Reshape", ["z", "s"], ["y"], {})], {"s": sizes(1, -1)}, r"it does not keep rows of the shape \(6\) apart, from \(batch, 6\) to \(1, 6\*batch\)"),
    ([("Reshape", ["z", "s"], ["y"], {})], {"s": sizes(-1, 3)}, r"it does not keep rows"),
    ([("Reshape", ["z", "s"], ["r"], {}), ("MatMul", ["r", "w3"], ["y"], {})], {"s": sizes(0, 2, 3), "w3": normal(3, 3)}, r"it multiplies the last axis alone of rows of the shape \(2, 3\)"),
    ([("Transpose", ["z"], ["y"], {})], {}, "it moves the units before the rows"),
    ([("Gather", ["z", "i"], ["y"], {})], {"i": sizes(0)}, "it chooses rows, not units"),
    ([("Slice", ["z", "i", "i", "i"], ["y"], {})], {"i": sizes(0)}, "it chooses rows, not units"),
    ([("Gather", ["z", "i"], ["y"], {"axis": 1})], {"i": sizes(6)}, "can't be part of an MLP: its inputs don't fit .index 6 is out of bounds"),
    ([("Log", ["z"], ["l"], {}), ("Transpose", ["l"], ["y"], {})], {}, "it moves the units before the rows"),
    ([("Split", ["z", "i"], ["y", "u"], {"axis": 1})], {"i": sizes(2, 3)}, r"it splits 6 units into 2 parts of \[2, 3\]"),
    ([("Shape", ["z"], ["s"], {}), ("Cast", ["s"], ["n"], {"to": 1}), ("Div", ["z", "n"], ["y"], {})], {}, "Cast of .* can't be part of an MLP"),
    ([("Shape", ["z"], ["s"], {}), ("Mul", ["s", "s"], ["n"], {}), ("Reshape", ["z", "n"], ["y"], {})], {}, "it computes with the number of rows"),
    ([("Expand", ["z", "s"], ["y"], {})], {"s": sizes(5, 1, 6)}, "it repeats rows or units"),
    ([("Reshape", ["z", "s"], ["r"], {}), ("Softmax", ["r"], ["t"], {}), ("Flatten", ["t"], ["y"], {})], {"s": sizes(-1, 2, 3)}, r"it sums over the last axis alone of rows of the shape \(2, 3\)"),
    ([("MatMul", ["z", "w1"], ["m"], {}), ("Transpose", ["m"], ["t"], {}), ("LogSoftmax", ["t"], ["y"], {})], {"w1": normal(6, 1)}, "it sums over rows, not over units"),
    ([("ReduceSum", ["z"], ["y"], {})], {}, "it is linear, but not one of the layers, scalings and choices of units that are read"),
    ([("PRelu", ["z", "b"], ["y"], {})], {}, "its slopes differ from unit to unit"),
    ([("Max", ["z", "b"], ["y"], {})], {}, "it compares with numbers that differ from unit to unit"),
    ([("Softmax", ["z"], ["s"], {}), ("Gather", ["s", "i"], ["y"], {"axis": 1})], {"i": sizes(0)}, "softmax must come last, got a choice of its units"),
])  # fmt: skip
def test_refusals(nodes, constants, message):
    with pytest.raises(ValueError, match=message):
        from_onnx(model([LAYER, *nodes], {"w": W, "b": B, **constants}))


# --- units that are chosen ---

CHOSEN = {
    "Split": ([("Split", ["z"], ["h", "other"], {"axis": 1})], {}, 11, slice(0, 3)),
    "Split, the second": ([("Split", ["z", "s"], ["other", "h"], {"axis": -1})], {"s": sizes(4, 2)}, 20, slice(4, 6)),
    "Split, num_outputs": ([("Split", ["z"], ["h", "other"], {"axis": 1, "num_outputs": 2})], {}, 20, slice(0, 3)),
    "Slice": ([("Slice", ["z", "from", "to", "axes", "by"], ["h"], {})], {"from": sizes(-1), "to": sizes(-(2**63)), "axes": sizes(1), "by": sizes(-2)}, 20, slice(None, None, -2)),
    "Slice of old": ([("Slice", ["z"], ["h"], {"axes": [1], "starts": [1], "ends": [5]})], {}, 9, slice(1, 5)),
    "Gather": ([("Gather", ["z", "i"], ["h"], {"axis": 1})], {"i": sizes(5, 0, 0)}, 20, [5, 0, 0]),
    "Gather of one": ([("Gather", ["z", "i"], ["g"], {"axis": 1}), ("Unsqueeze", ["g", "s"], ["h"], {})], {"i": np.array(-2), "s": sizes(-1)}, 20, [4]),
    "twice": ([("Gather", ["z", "i"], ["g"], {"axis": 1}), ("Gather", ["g", "j"], ["h"], {"axis": -1})], {"i": sizes(5, 3, 1), "j": sizes(2, 0)}, 20, [1, 5]),
}  # fmt: skip


@pytest.mark.parametrize("activation", ["Tanh", None])
@pytest.mark.parametrize("name", CHOSEN)
def test_chosen_units_are_columns_of_the_layer_before(name, activation):
    nodes, constants, opset, chosen = CHOSEN[name]
    last = ("Tanh", ["h"], ["y"], {}) if activation else ("Mul", ["h", "half"], ["y"], {})
    constants = {"w": W, "b": B, "half": np.float32(0.5), **constants}
    mlp = from_onnx(proto := model([LAYER, *nodes, last], constants, opset=opset))
    index = np.arange(6)[chosen]
    half = np.float32(1 if activation else 0.5)
    assert_bits(mlp, W[:, index] * half, B[index] * half)
    assert_outputs(mlp, X, forward64(proto, X).reshape(len(X), -1))
    # Past an activation, and past a scaling with a number for each unit.
    before = [LAYER, ("Tanh", ["z"], ["t"], {}), ("Mul", ["t", "c"], ["scaled"], {})]
    after = [(op, ["scaled" if i == "z" else i for i in read], *rest) for op, read, *rest in nodes]
    proto = model([*before, *after, last], {**constants, "c": normal(6)}, opset=opset)
    mlp = from_onnx(proto)
    assert_bits(MLP(mlp.layers[:1]), W[:, index], B[index])
    assert_outputs(mlp, X, forward64(proto, X).reshape(len(X), -1), folded=True)


def test_chosen_inputs_are_rows_of_the_layer_after():
    for index in ([2, 0], [1, 1, 3]):
        w = normal(len(index), 3)
        nodes = [
            ("Sub", ["x", "m"], ["c"], {}),
            ("Gather", ["c", "i"], ["g"], {"axis": 1}),
            ("Div", ["g", "s"], ["d"], {}),
            ("MatMul", ["d", "w"], ["y"], {}),
        ]
        proto = model(nodes, {"m": normal(4), "i": sizes(*index), "s": 1 + normal(len(index)) ** 2, "w": w})
        mlp = from_onnx(proto)
        assert mlp.layers[0].w.shape == (4, 3)
        assert_outputs(mlp, X, forward64(proto, X), folded=True)
    plain = from_onnx(
        model(
            [("Gather", ["x", "i"], ["g"], {"axis": 1}), ("MatMul", ["g", "w"], ["y"], {})],
            {"i": sizes(3, 1), "w": w[:2]},
        )
    )
    assert_bits(plain, np.stack([np.zeros(3, np.float32), w[1], np.zeros(3, np.float32), w[0]]))
    alone = from_onnx(model([("Gather", ["x", "i"], ["y"], {"axis": 1})], {"i": sizes(3, 1)}))
    assert np.array_equal(mlp_forward(alone, X), X[:, [3, 1]])
    with pytest.raises(ValueError, match="a choice of 1 of 1000000 inputs needs 2999997000000 weights of 0"):
        from_onnx(
            model(
                [("Gather", ["x", "i"], ["g"], {"axis": 1}), ("MatMul", ["g", "w"], ["y"], {})],
                {"i": sizes(3), "w": normal(1, 3000000)},
                n_in=1000000,
            )
        )


@pytest.mark.parametrize("outputs", [slice(0, 2), slice(None, None, -1), slice(-1, None), slice(None)])
def test_the_argument_outputs_keeps_columns_of_the_last_layer(outputs):
    proto = model([LAYER, ("Tanh", ["z"], ["y"], {})], {"w": W, "b": B})
    check = X, np.tanh(X @ W + B)[:, outputs]
    mlp = from_onnx(proto, outputs=outputs, check=check)
    assert_bits(mlp, W[:, outputs], B[outputs])
    assert mlp.final_activation == "tanh"
    with pytest.raises(ValueError, match="from_onnx: check must hold what the network gives"):
        from_onnx(proto, outputs=slice(0, 1), check=(X, check[1][:, :1] + 1))


def test_bad_outputs_are_refused():
    proto = model([LAYER, ("Softmax", ["z"], ["y"], {})], {"w": W, "b": B})
    with pytest.raises(
        ValueError, match="from_onnx: outputs must be None for a network that ends with softmax, got "
    ):
        from_onnx(proto, outputs=slice(0, 2))
    assert_bits(from_onnx(proto, outputs=slice(None)), W, B)
    with pytest.raises(
        ValueError,
        match=r"from_onnx: outputs must keep some of 6 units, got slice\(6, 9, None\); pass slice\(0, 6\) for all",
    ):
        from_onnx(proto, output="z", outputs=slice(6, 9))
    with pytest.raises(
        TypeError, match=r"from_onnx: outputs must be a slice, got list; pass slice\(0, 3\) for the first 3"
    ):
        from_onnx(proto, output="z", outputs=[0])


# --- constants ---


def test_constants_are_computed_in_advance():
    half = onnx.numpy_helper.from_array(np.float32([0.5]))
    nodes = [
        ("Transpose", ["wt"], ["w0"], {"perm": [1, 0]}), ("ConstantOfShape", ["shape"], ["c0"], {"value": half}), ("Mul", ["w0", "c0"], ["w1"], {}),
        ("Concat", ["w1", "more"], ["w2"], {"axis": 1}), ("Slice", ["w2", "from", "to", "axes"], ["w3"], {}), ("MatMul", ["x", "w3"], ["z"], {}),
        ("Sqrt", ["var"], ["s0"], {}), ("Reciprocal", ["s0"], ["s1"], {}), ("Unsqueeze", ["s1", "axes0"], ["s2"], {}), ("Squeeze", ["s2", "axes0"], ["s3"], {}),
        ("Mul", ["z", "s3"], ["y"], {}),
    ]  # fmt: skip
    constants = {
        "wt": normal(5, 4), "shape": sizes(4, 5), "more": normal(4, 2), "from": sizes(1), "to": sizes(6), "axes": sizes(1),
        "var": np.float32([1, 4, 16, 0.25, 64]), "axes0": sizes(0),
    }  # fmt: skip
    proto = model(nodes, constants)
    assert_outputs(from_onnx(proto), X, forward64(proto, X), folded=True)


@pytest.mark.parametrize("doubling", [("Concat", ["c", "c"], {"axis": 0}), ("Mul", ["c", "t"], {})])
def test_constants_that_grow_are_refused(doubling):
    """Thirty nodes would need 2^30 numbers and more."""
    operation, read, attributes = doubling
    nodes, name = [], "c"
    for i in range(30):
        if operation == "Mul":  # (1, n) by (n, 1)
            nodes += [("Reshape", [name, "column"], [f"t{i}"], {}), ("Reshape", [name, "row"], [f"r{i}"], {})]
        names = {"c": name if operation == "Concat" else f"r{i}", "t": f"t{i}"}
        nodes.append((operation, [names[each] for each in read], [f"c{i}"], attributes))
        name = f"c{i}"
    nodes.append(("Add", ["x", name], ["y"], {}))
    with pytest.raises(ValueError, match="it computes more numbers than the file holds"):
        from_onnx(model(nodes, {"c": normal(1, 64), "column": sizes(-1, 1), "row": sizes(1, -1)}))


# --- activations in several nodes ---


def test_gelu_with_wrong_constants_is_refused():
    """GELU with 1 / sqrt(2) off by 1e-5, and with 0.0447 for 0.044715."""
    for root, wrong in ((0.70711, True), (0.70710678, False)):
        nodes = [
            ("Mul", ["z", "r"], ["m"], {}),
            ("Erf", ["m"], ["e"], {}),
            ("Add", ["e", "one"], ["a"], {}),
            ("Mul", ["a", "z"], ["p"], {}),
            ("Mul", ["p", "half"], ["y"], {}),
        ]
        proto = model(
            [LAYER, *nodes],
            {"w": W, "b": B, "r": np.float32(root), "one": np.float32(1), "half": np.float32(0.5)},
            opset=17,
        )
        if wrong:
            with pytest.raises(
                ValueError,
                match=r"node Erf of \['e'\] can't be part of an MLP: .*; pass output='z' to end before it",
            ):
                from_onnx(proto)
        else:
            assert from_onnx(proto).final_activation == "gelu"


def test_softplus_with_a_low_threshold_is_refused():
    nodes = [
        ("Softplus", ["z"], ["s"], {}),
        ("Greater", ["z", "t"], ["g"], {}),
        ("Where", ["g", "z", "s"], ["y"], {}),
    ]
    for threshold in (20.0, 30.0):
        assert (
            from_onnx(model([LAYER, *nodes], {"w": W, "b": B, "t": np.float32(threshold)})).final_activation
            == "softplus"
        )
    with pytest.raises(ValueError, match="node Greater of"):
        from_onnx(model([LAYER, *nodes], {"w": W, "b": B, "t": np.float32(5)}))


def test_silu_of_a_scaled_or_activated_value_is_recognised():
    for first in (("Mul", ["z", "c"], ["h"], {}), ("Tanh", ["z"], ["h"], {}), ("Neg", ["z"], ["h"], {})):
        nodes = [first, ("Sigmoid", ["h"], ["s"], {}), ("Mul", ["s", "h"], ["y"], {})]
        proto = model([LAYER, *nodes], {"w": W, "b": B, "c": np.float32(1.7)})
        mlp = from_onnx(proto)
        assert mlp.final_activation == "silu"
        assert_outputs(mlp, X, forward64(proto, X), folded=True)


@pytest.mark.parametrize(("operation", "end"), [("Max", 0.3), ("Min", 0.3), ("Max", 0.0)])
def test_max_and_min_with_a_constant_are_read_as_relu(operation, end):
    proto = model(
        [LAYER, (operation, ["c", "z"], ["h"], {}), NEXT_LAYER],
        {"w": W, "b": B, "v": V, "c": np.float32(end)},
    )
    assert from_onnx(proto).activation == "relu"
    assert_outputs(from_onnx(proto), X, forward64(proto, X), folded=True)


@pytest.mark.parametrize("chosen", [[0, 3], [3, 1], [1, 1], [-1, 0]])
def test_units_may_be_chosen_after_an_activation_of_the_inputs(chosen):
    """The first layer does not show how many inputs there are."""
    nodes = [
        ("Tanh", ["x"], ["s"], {}),
        ("Gather", ["s", "i"], ["g"], {"axis": -1}),
        ("MatMul", ["g", "w"], ["y"], {}),
    ]
    proto, rows = model(nodes, {"i": sizes(*chosen), "w": normal(2, 3)}), normal(5, 4)
    assert_outputs(from_onnx(proto), rows, forward64(proto, rows))


def test_a_choice_that_does_not_fit_the_next_layer_is_refused():
    for stop in (0, 1):
        nodes = [("Slice", ["x", "a", "b", "one"], ["s"], {}), ("MatMul", ["s", "w"], ["y"], {})]
        constants = {"a": sizes(0), "b": sizes(stop), "one": sizes(1), "w": normal(2, 3)}
        with pytest.raises(ValueError, match="a choice of inputs must give the next layer its 2, got"):
            from_onnx(model(nodes, constants))


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("shape", [["n", 1, 4], ["n", 1, 1, 4], ["n", 4]])
def test_softmax_over_all_units_is_read(operator, shape):
    proto = model([(operator, ["x"], ["s"], {}), ("Flatten", ["s"], ["y"], {})], {}, shape=shape)
    rows = normal(5, *shape[1:])
    assert_outputs(from_onnx(proto), rows.reshape(5, 4), forward64(proto, rows))
