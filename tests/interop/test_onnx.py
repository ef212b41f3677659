"""To ONNX and back, with the installed onnx, its reference evaluator in float64, and ONNX Runtime."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron import CELU, ELU, MLP, Affine, Softplus, init_mlp, mlp_forward
from jaxneuron._math.activations import OF_ROWS, facts_of
from jaxneuron._names import BY_NAME
from jaxneuron.convert import from_onnx, to_onnx
from tests import make_qlknn
from tests.draws import generator
from tests.interop.exact import X, assert_bits, assert_outputs
from tests.pools import VALUES

onnx = pytest.importorskip("onnx", reason="onnx is in the extra interop")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra interop")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

QLKNN = Path(__file__).parents[1] / "data" / "qlknn_7_11.onnx"
RNG = generator()


def model(nodes, constants, n_in=4, kind=TensorProto.FLOAT, opset=20, shape=None):
    ends = [
        helper.make_tensor_value_info("x", kind, shape or ["batch", n_in]),
        helper.make_empty_tensor_value_info("y"),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, i, o, **a) for op, i, o, a in nodes], "g", ends[:1], ends[1:],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", opset)])


def widened(proto):
    """The model in float64."""
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64))
                )
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
            )
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return wide


def forward64(proto, x):
    return ReferenceEvaluator(widened(proto)).run(None, {"x": x.astype(np.float64)})[0]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# --- truth ---


def test_qlknn_up_to_its_last_layer():
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


def test_qlknn_whole_is_no_mlp():
    message = r"from_onnx: source: node '/Mul_1' \(Mul\) can't be part of an MLP: it multiplies two values .*; pass output='/Add_output_0' to end before it$"
    with pytest.raises(ValueError, match=message):
        from_onnx(QLKNN)
    with pytest.raises(ValueError, match=message):
        from_onnx(QLKNN, output="efeITG")


@pytest.mark.parametrize(("name", "unit"), [("efiITG", 0), ("efeTEM", 2), ("efeETG", 5), ("gamma_max", 7)])
def test_qlknn_one_flux(name, unit):
    """A Gather of one unit and a Clip fold into the last layer, which keeps one column."""
    whole, mlp = from_onnx(QLKNN, output="/Add_output_0"), from_onnx(QLKNN, output=name)
    assert mlp.final_activation == "relu"
    assert_bits(MLP(mlp.layers[:5]), *jax.tree.leaves(whole.layers[:5]))
    assert_bits(
        MLP(mlp.layers[5:]), whole.layers[5].w[:, unit : unit + 1], whole.layers[5].b[unit : unit + 1]
    )
    part = from_onnx(QLKNN, output="/Add_output_0", outputs=slice(unit, unit + 1))
    assert_bits(MLP(part.layers[5:]), *mlp.layers[5])


def test_gemm_with_all_its_attributes():
    constants = {"w": normal(6, 4), "c": normal(1, 6), "v": normal(6, 3), "d": normal(3)}
    proto = model(
        [("Gemm", ["x", "w", "c"], ["h"], {"alpha": 0.3, "beta": 1.7, "transB": 1}), ("Relu", ["h"], ["a"], {}),
         ("Gemm", ["a", "v", "d"], ["y"], {})], constants,
    )  # fmt: skip
    mlp = from_onnx(proto)
    assert_bits(MLP(mlp.layers[1:]), constants["v"], constants["d"])
    assert_outputs(mlp, X, forward64(proto, X), folded=True)


def test_matmul_and_add_are_a_layer():
    constants = {"w": normal(4, 4), "b": normal(4), "v": normal(4, 4)}
    proto = model(
        [("MatMul", ["x", "w"], ["h"], {}), ("Add", ["b", "h"], ["z"], {}), ("Tanh", ["z"], ["a"], {}),
         ("MatMul", ["a", "v"], ["y"], {})], constants,
    )  # fmt: skip
    mlp = from_onnx(proto)
    assert_bits(mlp, *constants.values())
    assert_outputs(mlp, X, forward64(proto, X))


def test_scalings_batch_norm_and_what_does_nothing():
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


def test_activations_without_layers():
    proto = model([("Tanh", ["x"], ["h"], {}), ("Relu", ["h"], ["y"], {})], {})
    mlp = from_onnx(proto)
    assert mlp.activations == ("tanh", "relu")
    assert all(np.array_equal(layer.w, np.eye(4)) for layer in mlp.layers)
    assert_outputs(mlp, X, forward64(proto, X))


def test_an_inner_output_and_constants_as_they_come():
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


# --- there and back ---


@pytest.mark.parametrize(
    "name",
    [
        *(n for n in sorted(BY_NAME) if not n.startswith("cr_")),
        *VALUES,
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),  # the same in every process of xdist
)
def test_to_onnx_runs_in_onnx_runtime(tmp_path, name):
    hidden = "relu" if name in OF_ROWS or facts_of(name).slope == np.inf else name
    mlp = init_mlp(jax.random.key(0), (4, 6, 6, 2), activation=hidden, final_activation=name)
    mlp = MLP([mlp.layers[0], Affine(mlp.layers[1].w), mlp.layers[2]], hidden, name)
    to_onnx(mlp, tmp_path / "m.onnx")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    again = from_onnx(tmp_path / "m.onnx")
    assert jax.tree.structure(again) == jax.tree.structure(mlp)
    assert_bits(again, *jax.tree.leaves(mlp))
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    for rows in (1, 7):
        x = RNG.normal(size=(rows, 4)).astype(np.float32)
        (theirs,) = session.run(None, {"input": x})
        assert_outputs_of(theirs, mlp, x)
        if facts_of(name).slope < 2:
            np.testing.assert_allclose(theirs, mlp_forward(mlp, x), rtol=2e-5, atol=2e-6)


def assert_outputs_of(theirs, mlp, x):
    """Asserts ONNX Runtime's outputs within three times the rounding bound: its exp is coarser than XLA's."""
    from jaxneuron._math import oracle

    exact, error = oracle.mlp(mlp.layers, mlp.activations, x, "float32")
    assert (np.abs(theirs - exact) <= 3 * error).all()


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
def test_what_exporters_write_for_an_activation(nodes, constants, activations):
    proto = model(nodes, constants)
    mlp = from_onnx(proto)
    assert mlp.activations == activations
    x = RNG.normal(size=(7, 4)).astype(np.float32)
    (theirs,) = runtime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(theirs, mlp_forward(mlp, x), rtol=2e-5, atol=2e-6)


def test_float64_runs_in_float64(tmp_path):
    mlp = jax.tree.map(
        lambda a: np.asarray(a, np.float64), init_mlp(jax.random.key(0), (4, 6, 2), activation="tanh")
    )
    to_onnx(mlp, tmp_path / "m.onnx")
    (theirs,) = runtime.InferenceSession(tmp_path / "m.onnx").run(None, {"input": X.astype(np.float64)})
    assert_outputs(mlp, X, theirs)
    for name in ("leaky_relu", "selu", "hard_sigmoid"):
        with pytest.raises(
            ValueError, match=f"to_onnx: {name!r} must be in a network of float32 or less, got float64"
        ):
            to_onnx(MLP(mlp.layers, name, "identity"), tmp_path / "n.onnx")
    for unknown in (jax.numpy.cos, "cr_tanh"):  # ONNX's tanh isn't correctly rounded
        with pytest.raises(
            ValueError,
            match=r"to_onnx: activations must be one of elu, .*, or a value .*, got .*; export writes",
        ):
            to_onnx(MLP(mlp.layers, unknown), tmp_path / "n.onnx")
    with pytest.raises(
        ValueError, match=r"to_onnx: layers must be of one dtype of .*, got float32, float64; convert"
    ):
        to_onnx(MLP([mlp.layers[0], [a.astype(np.float32) for a in mlp.layers[1]]]), tmp_path / "n.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_dtype_comes_back(tmp_path, dtype):
    mlp = jax.tree.map(
        lambda a: np.asarray(a).astype(dtype), init_mlp(jax.random.key(0), (4, 6, 2), activation="silu")
    )
    to_onnx(mlp, tmp_path / "m.onnx")
    assert_bits(from_onnx(tmp_path / "m.onnx"), *jax.tree.leaves(mlp))
    assert from_onnx(tmp_path / "m.onnx").activations == mlp.activations


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
ENDS = {
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


@pytest.mark.parametrize("name", ENDS)
def test_a_hint_ends_the_network_where_it_means_something(name):
    nodes, hint = ENDS[name]
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


def test_dropout_of_old_models_says_that_it_is_in_use():
    for attributes, training in (({}, True), ({"is_test": 0}, True), ({"is_test": 1}, False)):
        proto = model([("Dropout", ["x"], ["h"], attributes), ("Tanh", ["h"], ["y"], {})], {}, opset=6)
        if training:
            with pytest.raises(
                ValueError, match=r"Dropout of \['h'\] can't be part of an MLP: it is in training mode"
            ):
                from_onnx(proto)
        else:
            assert from_onnx(proto).final_activation == "tanh"


def test_several_ends_need_a_choice():
    proto = model([("Tanh", ["x"], ["y"], {}), ("Relu", ["x"], ["z"], {})], {})
    proto.graph.output.append(helper.make_empty_tensor_value_info("z"))
    with pytest.raises(
        ValueError,
        match=r"from_onnx: source must have one output, got 2 \('y', 'z'\); pass output= to choose one",
    ):
        from_onnx(proto)
    assert from_onnx(proto, output="z").final_activation == "relu"


def test_what_is_no_model():
    with pytest.raises(
        TypeError, match=r"from_onnx: source must be a path or an onnx.ModelProto, got dict; pass the path"
    ):
        from_onnx({})


def test_outputs_of_onnx_runtime_are_compared(tmp_path):
    mlp = init_mlp(jax.random.key(0), (4, 16, 2), activation="gelu", final_activation="softmax")
    to_onnx(mlp, tmp_path / "m.onnx")
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: X})[0]
    assert_bits(from_onnx(tmp_path / "m.onnx", check=(X, outputs)), *jax.tree.leaves(mlp))
    with pytest.raises(
        ValueError, match=r"^from_onnx: check must hold what the network gives, got outputs that"
    ):
        from_onnx(tmp_path / "m.onnx", check=(X, outputs[::-1]))
