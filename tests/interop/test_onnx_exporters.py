"""ONNX models as exporters write them: PyTorch's two, JAX's, scikit-learn's, and TensorFlow's form of robots' policies.

The files in tests/data/exporters hold every activation once; tests/make_exporters.py says how they were made.
"""

import itertools
import warnings

import jax
import numpy as np
import pytest

from jaxneuron import CELU, ELU, MLP, HardTanh, LeakyReLU, Softplus, mlp_forward
from jaxneuron._names import resolve
from jaxneuron.convert import from_onnx
from tests.draws import generator
from tests.interop.exact import assert_bits, assert_outputs

onnx = pytest.importorskip("onnx", reason="onnx is in the extra interop")

from onnx.reference import ReferenceEvaluator  # noqa: E402

from tests import make_exporters  # noqa: E402
from tests.interop.onnx_models import forward64, model, widened  # noqa: E402

RNG = generator()
X = RNG.normal(size=(40, 4)).astype(np.float32) * 3

# 1.702 scales the layers beside the activation; then all outputs have one wrong factor. log_sigmoid is
# written as -softplus(-z).
SCALED = {"silu(beta z)": "silu", "-softplus(-z)": "softplus"}
PYTORCH = [
    *(
        "gelu",
        "gelu_tanh",
        "softplus",
        Softplus(2.0),
        "silu",
        "selu",
        "elu",
        ELU(0.3),
        "leaky_relu",
        LeakyReLU(0.2),
    ),
    *(
        LeakyReLU(0.25),
        "hard_sigmoid",
        "hard_swish",
        "relu6",
        "hard_tanh",
        HardTanh(-2.0, 3.0),
        "softsign",
        "mish",
    ),
    *("log_sigmoid", "sigmoid", "tanh", "relu"),
]
ACTIVATIONS = {
    "torch_script_9": PYTORCH,
    **{
        f"torch_{each}": [*PYTORCH, "elu", CELU(0.3)]
        for each in ("script_17", "script_20", "dynamo_18", "dynamo_23")
    },
    "jax2onnx": [
        *(
            "gelu",
            "gelu_tanh",
            "silu",
            "silu(beta z)",
            "softplus",
            "mish",
            "elu",
            ELU(0.3),
            CELU(0.3),
            "selu",
            "relu",
        ),
        *("relu6", "leaky_relu", LeakyReLU(0.1), "hard_tanh", "hard_sigmoid", "hard_swish", "softsign"),
        *("-softplus(-z)", "square", "tanh", "sigmoid"),
    ],
}


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_exported_activation_is_recognised(name):
    proto = onnx.load(make_exporters.FOLDER / f"{name}.onnx")
    ends = [node.input[0] for node in proto.graph.node if node.op_type == "Gemm"][1:]
    ends.append(proto.graph.output[0].name)
    wide = widened(proto)
    wide.graph.output.extend(onnx.helper.make_empty_tensor_value_info(end) for end in ends[:-1])
    source = proto.graph.input[0].name
    outputs = ReferenceEvaluator(wide).run(ends, {source: X.astype(np.float64)})
    with jax.enable_x64(True):
        mlp = from_onnx(proto, dtype="float64")
        assert len(mlp.layers) == len(ends)
        y = X.astype(np.float64)
        for (w, b), found, expected, wanted in zip(
            mlp.layers, mlp.activations, ACTIVATIONS[name], outputs, strict=True
        ):
            y = np.asarray(resolve(found)(y @ np.asarray(w) + np.asarray(b)))
            factor = 1.0
            if expected in SCALED:
                expected, most = SCALED[expected], np.abs(wanted).argmax()
                factor = wanted.flat[most] / y.flat[most]
            assert found == expected
            # The file's numbers are rounded to float32; the parameters of jaxneuron's activations are not.
            close = 1e-6 * np.abs(wanted).max()
            np.testing.assert_allclose(y * factor, wanted, rtol=1e-5, atol=close, err_msg=str(found))


@pytest.mark.long
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_installed_exporters_give_the_same_activations(name):
    for library in ("onnxscript", "torch") if name.startswith("torch") else ("jax2onnx",):
        pytest.importorskip(library, reason="tests/make_exporters.py says which libraries it needs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = make_exporters.MADE[name]()
    ours = from_onnx(onnx.load(make_exporters.FOLDER / f"{name}.onnx"))
    assert list(map(str, from_onnx(proto).activations)) == list(map(str, ours.activations))


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 17), (True, 18)])
def test_a_policy_of_pytorch_is_read(dynamo, opset):
    """Rows of several axes, a shape computed from the batch size, a BatchNorm, and a part of the outputs."""
    torch = pytest.importorskip("torch", reason="torch is in the extra bench")
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
    nn = torch.nn
    torch.manual_seed(0)

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Linear(8, 6), nn.GELU(), nn.BatchNorm1d(6), nn.Linear(6, 5), nn.Softplus()
            )
            self.head = nn.Linear(5, 6)

        def forward(self, x):
            x = (x - 0.5) / 2
            x = self.body(x.view(x.shape[0], -1))
            y = self.head(x.reshape(x.shape[0], 1, -1)).squeeze(1)
            return torch.tanh(y.chunk(2, -1)[0])

    net, x = Policy(), normal(5, 2, 4)
    net.body[2].running_mean.copy_(torch.randn(6))
    proto = make_exporters.exported_by_torch(net, x, dynamo=dynamo, opset=opset)
    mlp = from_onnx(proto)
    assert mlp.activations == ("gelu", "softplus", "tanh")
    assert [layer.w.shape for layer in mlp.layers] == [(8, 6), (6, 5), (5, 3)]
    y = net.double()(torch.from_numpy(x.astype(np.float64))).detach().numpy()
    assert_outputs(mlp, x.reshape(5, 8), y, folded=True)
    part = from_onnx(proto, outputs=slice(None, None, 2))
    last = mlp.layers[-1]
    assert_bits(part, *jax.tree.leaves(mlp.layers[:-1]), last.w[:, ::2], last.b[::2])


def test_a_policy_of_mujoco_playground_is_read():
    """The nodes of go1_policy.onnx in google-deepmind/mujoco_playground, by tf2onnx, with random weights."""
    sizes, constants = (6, 8, 8, 6), {"m": normal(6), "s": 1 + normal(6) ** 2}
    nodes = [("Sub", ["x", "m"], ["sub"], {}), ("Mul", ["sub", "s"], ["a0"], {})]
    for i, shape in enumerate(itertools.pairwise(sizes)):
        constants |= {f"w{i}": normal(*shape), f"b{i}": normal(shape[1])}
        nodes.append(("Gemm", [f"a{i}", f"w{i}", f"b{i}"], [f"z{i}"], {"transA": 0, "transB": 0}))
        if i < 2:
            nodes += [("Sigmoid", [f"z{i}"], [f"s{i}"], {}), ("Mul", [f"z{i}", f"s{i}"], [f"a{i + 1}"], {})]
    nodes += [("Split", ["z2"], ["loc", "scale"], {"axis": -1}), ("Tanh", ["loc"], ["y"], {})]
    proto = model(nodes, constants, n_in=6, opset=11, shape=[1, 6])
    mlp = from_onnx(proto)
    assert mlp.activations == ("silu", "silu", "tanh")
    last = constants["w2"][:, :3], constants["b2"][:3]
    assert_bits(MLP(mlp.layers[1:]), constants["w1"], constants["b1"], *last)
    x = normal(1, 6)
    assert_outputs(mlp, x, forward64(proto, x), folded=True)


# --- scikit-learn ---


def pipelines():
    from sklearn.decomposition import PCA
    from sklearn.feature_selection import SelectKBest, f_regression
    from sklearn.linear_model import LinearRegression
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    def network():
        return MLPRegressor(
            hidden_layer_sizes=(6, 4), activation="tanh", solver="lbfgs", max_iter=20, random_state=0
        )

    for first in (
        StandardScaler(),
        MinMaxScaler(),
        RobustScaler(),
        MaxAbsScaler(),
        PCA(3),
        SelectKBest(f_regression, k=2),
    ):
        yield type(first).__name__, make_pipeline(first, network())
    yield "LinearRegression", make_pipeline(StandardScaler(), LinearRegression())


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns that 20 steps are few
def test_pipelines_of_scikit_learn_are_read():
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx writes ONNX from scikit-learn")
    x = RNG.normal(size=(60, 5)) * (1, 2, 3, 0.5, 1) + (0, 1, 0, -2, 0)
    x = x.astype(np.float32).astype(np.float64)
    y = x @ np.array([1.0, -2.0, 0.0, 1.0, 0.5])
    for name, pipeline in pipelines():
        pipeline.fit(x, y)
        mlp = from_onnx(skl2onnx.to_onnx(pipeline, x[:1].astype(np.float32)))
        assert mlp.layers[0].w.shape[0] == 5, name
        found, wanted = np.asarray(mlp_forward(mlp, x.astype(np.float32)))[:, 0], pipeline.predict(x)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max(), err_msg=name)
