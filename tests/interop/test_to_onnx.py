"""Networks written to ONNX: the files run in ONNX Runtime, and give the same network when they are read."""

import jax
import numpy as np
import pytest

from jaxneuron import MLP, Affine, init_mlp, mlp_forward
from jaxneuron._math import oracle
from jaxneuron._math.activations import OF_ROWS, facts_of
from jaxneuron._names import BY_NAME
from jaxneuron.convert import from_onnx, to_onnx
from tests.draws import generator
from tests.interop.exact import X, assert_bits, assert_outputs
from tests.pools import VALUES

onnx = pytest.importorskip("onnx", reason="onnx is in the extra interop")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra interop")

RNG = generator()


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
        assert_outputs_of_runtime(theirs, mlp, x)
        if facts_of(name).slope < 2:
            np.testing.assert_allclose(theirs, mlp_forward(mlp, x), rtol=2e-5, atol=2e-6)


def assert_outputs_of_runtime(theirs, mlp, x):
    """Asserts ONNX Runtime's outputs within three times the rounding bound: its exp is coarser than XLA's."""
    exact, error = oracle.mlp(mlp.layers, mlp.activations, x, "float32")
    assert (np.abs(theirs - exact) <= 3 * error).all()


def test_to_onnx_writes_float64_or_refuses(tmp_path):
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
def test_to_onnx_then_from_onnx_keeps_every_dtype(tmp_path, dtype):
    mlp = jax.tree.map(
        lambda a: np.asarray(a).astype(dtype), init_mlp(jax.random.key(0), (4, 6, 2), activation="silu")
    )
    to_onnx(mlp, tmp_path / "m.onnx")
    assert_bits(from_onnx(tmp_path / "m.onnx"), *jax.tree.leaves(mlp))
    assert from_onnx(tmp_path / "m.onnx").activations == mlp.activations


def test_check_compares_outputs_of_onnx_runtime(tmp_path):
    mlp = init_mlp(jax.random.key(0), (4, 16, 2), activation="gelu", final_activation="softmax")
    to_onnx(mlp, tmp_path / "m.onnx")
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: X})[0]
    assert_bits(from_onnx(tmp_path / "m.onnx", check=(X, outputs)), *jax.tree.leaves(mlp))
    with pytest.raises(
        ValueError, match=r"^from_onnx: check must hold what the network gives, got outputs that"
    ):
        from_onnx(tmp_path / "m.onnx", check=(X, outputs[::-1]))
