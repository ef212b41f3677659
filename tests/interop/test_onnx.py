"""Networks read from ONNX, compared with ONNX's reference evaluator in float64 and with ONNX Runtime."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron import CELU, ELU, MLP, Softplus, mlp_forward
from jaxneuron.convert import from_onnx
from tests import make_qlknn
from tests.interop.exact import X, assert_bits, assert_outputs

onnx = pytest.importorskip("onnx", reason="onnx is in the extra interop")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra interop")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from tests.interop.onnx_models import forward64, model, normal  # noqa: E402

QLKNN = Path(__file__).parents[1] / "data" / "qlknn_7_11.onnx"


# --- truth ---


def test_qlknn_is_read_up_to_its_last_layer():
    mlp = from_onnx(QLKNN, output="/Add_output_0")
    assert mlp.activations == ("tanh",) * 5 + ("identity",)
    with np.load(make_qlknn.WEIGHTS) as file:
        assert_bits(MLP(mlp.layers[1:5]), *(file[f"{name}{i}"] for i in range(1, 5) for name in "wb"))
    # Scalings are folded in float64 and rounded once, as in this folding of the published numbers.
    folded = make_qlknn.folded_qlknn()
    for i in (0, 5):
        for found, wide in zip(mlp.layers[i], folded.layers[i], strict=True):
            np.testing.assert_allclose(
                np.asarray(found, np.float64), wide, rtol=2**-24, atol=2**-24 * np.abs(wide).max()
            )
    proto = onnx.load(QLKNN)
    proto.graph.output.append(helper.make_tensor_value_info("/Add_output_0", TensorProto.FLOAT, None))
    with np.load(Path(jaxneuron.__file__).parent / "data" / "qlknn_7_11_reference.npz") as file:
        x, published = file["inputs"][:2].astype(np.float32), file["outputs"]
    theirs = runtime.InferenceSession(proto.SerializeToString()).run(["/Add_output_0"], {"input": x})[0]
    ours = np.asarray(mlp_forward(mlp, x))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(published).max())
    with jax.enable_x64(True):
        wide = from_onnx(QLKNN, output="/Add_output_0", dtype="float64")
        with np.load(Path(jaxneuron.__file__).parent / "data" / "qlknn_7_11_reference.npz") as file:
            y = np.asarray(mlp_forward(wide, file["inputs"]))
    np.testing.assert_allclose(y, published, atol=2e-12)


def test_the_whole_qlknn_is_refused_with_a_hint():
    message = r"from_onnx: source: node '/Mul_1' \(Mul\) can't be part of an MLP: it multiplies two values .*; pass output='/Add_output_0' to end before it$"
    with pytest.raises(ValueError, match=message):
        from_onnx(QLKNN)
    with pytest.raises(ValueError, match=message):
        from_onnx(QLKNN, output="efeITG")


@pytest.mark.parametrize(("name", "unit"), [("efiITG", 0), ("efeTEM", 2), ("efeETG", 5), ("gamma_max", 7)])
def test_one_flux_of_qlknn_keeps_one_column(name, unit):
    """A Gather of one unit and a Clip fold into the last layer, which keeps one column."""
    whole, mlp = from_onnx(QLKNN, output="/Add_output_0"), from_onnx(QLKNN, output=name)
    assert mlp.final_activation == "relu"
    assert_bits(MLP(mlp.layers[:5]), *jax.tree.leaves(whole.layers[:5]))
    assert_bits(
        MLP(mlp.layers[5:]), whole.layers[5].w[:, unit : unit + 1], whole.layers[5].b[unit : unit + 1]
    )
    part = from_onnx(QLKNN, output="/Add_output_0", outputs=slice(unit, unit + 1))
    assert_bits(MLP(part.layers[5:]), *mlp.layers[5])


def test_gemm_with_all_its_attributes_is_read():
    constants = {"w": normal(6, 4), "c": normal(1, 6), "v": normal(6, 3), "d": normal(3)}
    proto = model(
        [("Gemm", ["x", "w", "c"], ["h"], {"alpha": 0.3, "beta": 1.7, "transB": 1}), ("Relu", ["h"], ["a"], {}),
         ("Gemm", ["a", "v", "d"], ["y"], {})], constants,
    )  # fmt: skip
    mlp = from_onnx(proto)
    assert_bits(MLP(mlp.layers[1:]), constants["v"], constants["d"])
    assert_outputs(mlp, X, forward64(proto, X), folded=True)


def test_matmul_and_add_are_read_as_a_layer():
    constants = {"w": normal(4, 4), "b": normal(4), "v": normal(4, 4)}
    proto = model(
        [("MatMul", ["x", "w"], ["h"], {}), ("Add", ["b", "h"], ["z"], {}), ("Tanh", ["z"], ["a"], {}),
         ("MatMul", ["a", "v"], ["y"], {})], constants,
    )  # fmt: skip
    mlp = from_onnx(proto)
    assert_bits(mlp, *constants.values())
    assert_outputs(mlp, X, forward64(proto, X))


def test_scalings_and_batch_norms_are_folded():
    constants = {
        "m": normal(4), "s": 1 + normal(4) ** 2, "w": normal(4, 5), "c": normal(5), "k": np.float32(0.5),
        "scale": normal(5), "shift": normal(5), "mean": normal(5), "var": normal(5) ** 2, "v": normal(5, 2), "t": normal(2),
    }  # fmt: skip
    proto = model(
        [("Flatten", ["x"], ["x0"], {}), ("Cast", ["x0"], ["x1"], {"to": 1}), ("Sub", ["x1", "m"], ["x2"], {}),
         ("Div", ["x2", "s"], ["x3"], {}), ("MatMul", ["x3", "w"], ["h0"], {}), ("Add", ["h0", "c"], ["h1"], {}),
         ("BatchNormalization", ["h1", "scale", "shift", "mean", "var"], ["h2"], {"epsilon": 0.01}),
         ("Sigmoid", ["h2"], ["h3"], {}), ("Dropout", ["h3"], ["h4"], {}), ("Sub", ["k", "h4"], ["h5"], {}),
         ("Identity", ["h5"], ["h6"], {}), ("Gemm", ["h6", "v"], ["z0"], {}), ("Mul", ["t", "z0"], ["z1"], {}),
         ("Sub", ["z1", "k"], ["z2"], {}), ("Elu", ["z2"], ["y"], {})], constants,
    )  # fmt: skip
    mlp = from_onnx(proto)
    assert mlp.activations == ("sigmoid", "elu")
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)
    wide.graph.node[1].attribute[0].i = TensorProto.DOUBLE
    assert_outputs(mlp, X, forward64(wide, X), folded=True)
    theirs = runtime.InferenceSession(proto.SerializeToString()).run(None, {"x": X})[0]
    np.testing.assert_allclose(mlp_forward(mlp, X), theirs, rtol=1e-4, atol=1e-5)


def test_activations_without_layers_get_identity_weights():
    proto = model([("Tanh", ["x"], ["h"], {}), ("Relu", ["h"], ["y"], {})], {})
    mlp = from_onnx(proto)
    assert mlp.activations == ("tanh", "relu")
    assert all(np.array_equal(layer.w, np.eye(4)) for layer in mlp.layers)
    assert_outputs(mlp, X, forward64(proto, X))


def test_the_argument_output_may_name_an_inner_value():
    weights = numpy_helper.from_array(normal(3, 4))
    proto = model(
        [("Constant", [], ["w"], {"value": weights}), ("Transpose", ["w"], ["wt"], {"perm": [1, 0]}),
         ("MatMul", ["x", "wt"], ["h"], {}), ("Relu", ["h"], ["r"], {}), ("TopK", ["r", "k"], ["y", "i"], {})], {},
    )  # fmt: skip
    mlp = from_onnx(proto, output="r")
    assert_bits(mlp, numpy_helper.to_array(weights).T)
    with pytest.raises(
        ValueError, match="output must be a value that is computed from the input, got 'w'; pass one of"
    ):
        from_onnx(proto, output="w")
    with pytest.raises(ValueError, match="got 'nowhere'; pass one of 'w', 'wt', 'h', 'r', 'y'"):
        from_onnx(proto, output="nowhere")


@pytest.mark.parametrize("size", ["float16", "float64", "bfloat16"])
def test_dtypes_are_kept(size):
    kind = {"float16": 10, "float64": 11, "bfloat16": 16}[size]
    w = jax.numpy.dtype(size).type(1) * np.arange(8, dtype=size).reshape(4, 2)
    proto = model([("MatMul", ["x", "w"], ["y"], {})], {"w": w}, kind=kind)
    assert_bits(from_onnx(proto), w)
    proto.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", kind, w.shape, w.astype(np.float64).reshape(-1).tolist())
    )
    assert_bits(from_onnx(proto), w)


@pytest.mark.parametrize(
    ("nodes", "constants", "activations"),
    [
        ([("Mul", ["x", "s"], ["a"], {}), ("Softplus", ["a"], ["b"], {}), ("Div", ["b", "s"], ["y"], {})], {"s": np.float32(3)}, (Softplus(3),)),
        ([("Softplus", ["x"], ["a"], {}), ("Tanh", ["a"], ["b"], {}), ("Mul", ["x", "b"], ["y"], {})], {}, ("mish",)),
        ([("HardSigmoid", ["x"], ["a"], {"alpha": 1 / 6}), ("Mul", ["a", "x"], ["y"], {})], {}, ("hard_swish",)),
        ([("Pow", ["x", "s"], ["y"], {})], {"s": np.float32(2)}, ("square",)),
        ([("Mul", ["x", "x"], ["a"], {}), ("Add", ["a", "s"], ["b"], {}), ("Sqrt", ["b"], ["c"], {}), ("Add", ["x", "c"], ["d"], {}), ("Div", ["d", "t"], ["y"], {})], {"s": np.float32(4), "t": np.float32(2)}, ("squareplus",)),
        ([("Clip", ["x", "s"], ["y"], {})], {"s": np.float32(0)}, ("relu",)),
        ([("Clip", ["x", "s", "t"], ["y"], {})], {"s": np.float32(0), "t": np.float32(6)}, ("relu6",)),
        ([("Selu", ["x"], ["y"], {"alpha": 2.0, "gamma": 0.5})], {}, (ELU(2.0), "identity")),
        ([("Celu", ["x"], ["y"], {"alpha": 0.1})], {}, (CELU(0.1),)),
    ],
    ids=lambda each: each[0][0] if isinstance(each, list) else None,
)  # fmt: skip
def test_activations_in_several_nodes_are_recognised(nodes, constants, activations):
    proto = model(nodes, constants)
    mlp = from_onnx(proto)
    assert mlp.activations == activations
    x = normal(7, 4)
    (theirs,) = runtime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(theirs, mlp_forward(mlp, x), rtol=2e-5, atol=2e-6)


# --- refusals ---


@pytest.mark.parametrize(("nodes", "constants", "message"), [
    ([("Gemm", ["x", "w"], ["y"], {"transA": 1})], {"w": normal(4, 4)}, r"node Gemm of \['y'\] can't be part of an MLP: it transposes its input \(transA\)"),
    ([("MatMul", ["w", "x"], ["y"], {})], {"w": normal(4, 4)}, "its weights stand on the left"),
    ([("Add", ["x", "x"], ["y"], {})], {}, "it joins two values that are computed from the input"),
    ([("Tanh", ["x"], ["h"], {}), ("Mul", ["x", "h"], ["y"], {})], {}, "it multiplies two values that are computed from the input"),
    ([("Tanh", ["x"], ["h"], {}), ("Cos", ["h"], ["y"], {})], {}, r"node Cos of \['y'\] can't be part of an MLP: it is not affine, .*; pass output='h' to end before it"),
    ([("Div", ["c", "x"], ["y"], {})], {"c": normal(4)}, "it divides by a value that is computed from the input"),
    ([("Div", ["x", "c"], ["y"], {})], {"c": np.float32([1, 0, 1, 1])}, "step 0: scale must be finite, got inf; a scaling by 0"),
    ([("Add", ["x", "c"], ["y"], {})], {"c": normal(3)}, "its constant must have 4 numbers, one for each unit, got 3"),
    ([("Add", ["x", "c"], ["y"], {})], {"c": normal(2, 4)}, "must be one number or one for each unit, got the shape (2, 4)"),
    ([("Cast", ["x"], ["y"], {"to": 7})], {}, "it casts to a type that is not floating-point"),
    ([("MatMul", ["x", "w"], ["y"], {})], {}, "it reads 'w', which no earlier node computes"),
    ([("Softmax", ["x"], ["h"], {}), ("Relu", ["h"], ["y"], {})], {}, "from_onnx: source: softmax must come last"),
    ([("LeakyRelu", ["x"], ["y"], {"alpha": float("nan")})], {}, "its attribute alpha is nan"),
    ([("LeakyRelu", ["x"], ["y"], {"alpha": 1})], {}, "its attribute alpha is of another type"),
])  # fmt: skip
def test_refusals(nodes, constants, message):
    with pytest.raises(ValueError, match=message.replace("(2, 4)", r"\(2, 4\)")):
        from_onnx(model(nodes, constants))


LAYER = [("Gemm", ["x", "w", "b"], ["z"], {}), ("Relu", ["z"], ["a"], {})]
SECOND = [*LAYER, ("Gemm", ["a", "w", "b"], ["s"], {})]
HINTS = {
    # An activation in several nodes, of which the first are scalings and activations that jaxneuron has.
    "x - tanh x": ([*SECOND, ("Tanh", ["s"], ["t"], {}), ("Sub", ["s", "t"], ["y"], {})], "'s' to end before it, at layer 2 without its activation"),
    "x tanh(c x)": ([*SECOND, ("Mul", ["s", "c"], ["m"], {}), ("Tanh", ["m"], ["t"], {}), ("Mul", ["s", "t"], ["y"], {})], "'s' to end before it, at layer 2 without its activation"),
    "x sin(c x)": ([*LAYER[:1], ("Mul", ["z", "c"], ["m"], {}), ("Sin", ["m"], ["t"], {}), ("Mul", ["z", "t"], ["y"], {})], "'z' to end before it, at layer 1 without its activation"),
    "cos(c x)": ([*SECOND, ("Div", ["s", "c"], ["m"], {}), ("Cos", ["m"], ["y"], {})], "'s' to end before it, at layer 2 without its activation"),
    "a gate after an activation": ([*SECOND, ("Relu", ["s"], ["r"], {}), ("Mul", ["r", "c"], ["m"], {}), ("Cos", ["m"], ["y"], {})], "'r' to end before it"),
    # A layer in several nodes.
    "a bias for each row": ([*LAYER, ("MatMul", ["a", "w"], ["p"], {}), ("Add", ["p", "rows"], ["y"], {})], "'a' to end before it"),
    # Scalings of the outputs are not part of what follows.
    "which is greatest": ([*SECOND, ("Mul", ["s", "b"], ["m"], {}), ("Add", ["m", "b"], ["t"], {}), ("ArgMax", ["t"], ["y"], {})], "'t' to end before it"),
    "a sum": ([*SECOND, ("Mul", ["s", "b"], ["m"], {}), ("ReduceMean", ["m"], ["y"], {})], "'m' to end before it"),
    # Branches.
    "a residual": ([*SECOND, ("Add", ["s", "a"], ["y"], {})], "'a' to end before it"),
    "an activation that is read again": ([*SECOND, ("Tanh", ["s"], ["t"], {}), ("Sin", ["t"], ["u"], {}), ("Add", ["u", "a"], ["y"], {})], "'a' to end before it"),
    "a residual of the input": ([*SECOND, ("Add", ["s", "x"], ["y"], {})], None),
    "nothing before it": ([("Mul", ["x", "b"], ["m"], {}), ("Cos", ["m"], ["y"], {})], None),
}  # fmt: skip


@pytest.mark.parametrize("name", HINTS)
def test_the_hint_names_the_last_value_of_the_mlp(name):
    nodes, hint = HINTS[name]
    constants = {"w": normal(4, 4), "b": normal(4), "c": np.float32(1.5), "rows": normal(len(X), 4)}
    proto = model(nodes, constants)
    with pytest.raises(ValueError, match="can't be part of an MLP") as caught:
        from_onnx(proto)
    if hint is None:
        assert "output=" not in str(caught.value)
        return
    assert str(caught.value).endswith(f"; pass output={hint}")
    value = hint.split("'")[1]
    proto.graph.output[0].name = value
    (theirs,) = ReferenceEvaluator(proto).run(None, {"x": X})
    mlp = from_onnx(model(nodes, constants), output=value)
    np.testing.assert_allclose(np.asarray(mlp_forward(mlp, X)), theirs, rtol=1e-5, atol=1e-5)


def test_dropout_in_training_mode_of_old_opsets_is_refused():
    for attributes, training in (({}, True), ({"is_test": 0}, True), ({"is_test": 1}, False)):
        proto = model([("Dropout", ["x"], ["h"], attributes), ("Tanh", ["h"], ["y"], {})], {}, opset=6)
        if training:
            with pytest.raises(
                ValueError, match=r"Dropout of \['h'\] can't be part of an MLP: it is in training mode"
            ):
                from_onnx(proto)
        else:
            assert from_onnx(proto).final_activation == "tanh"


def test_several_outputs_need_a_choice():
    proto = model([("Tanh", ["x"], ["y"], {}), ("Relu", ["x"], ["z"], {})], {})
    proto.graph.output.append(helper.make_empty_tensor_value_info("z"))
    with pytest.raises(
        ValueError,
        match=r"from_onnx: source must have one output, got 2 \('y', 'z'\); pass output= to choose one",
    ):
        from_onnx(proto)
    assert from_onnx(proto, output="z").final_activation == "relu"


def test_a_dict_is_refused():
    with pytest.raises(
        TypeError, match=r"from_onnx: source must be a path or an onnx.ModelProto, got dict; pass the path"
    ):
        from_onnx({})
