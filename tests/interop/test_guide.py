"""The reasons for refusals that the table of docs/guides/import.md quotes are those that the readers give."""

import os
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import convert
from jaxneuron.convert import (
    from_brax,
    from_equinox,
    from_flax,
    from_haiku,
    from_keras,
    from_nnx,
    from_onnx,
    from_pairs,
    from_sklearn,
    from_torch,
)

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guides/import.md").read_text()
GIVEN = {"activation": "relu", "final_activation": "identity"}
NORM = {"scale": np.ones(2), "bias": np.zeros(2)}
DENSE = {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}


def flax():
    linen = pytest.importorskip("flax.linen")
    spectral = linen.SpectralNorm(linen.Dense(2))
    scanned = {f"Dense_{i}": {"kernel": np.ones((3, 2, 2))} for i in range(2)}
    return (
        lambda: from_flax({"Dense_0": DENSE, "LayerNorm_0": NORM}, **GIVEN),
        lambda: from_flax(spectral.init(jax.random.key(0), jnp.ones((1, 2)), update_stats=True), **GIVEN),
        lambda: from_flax(
            {"block": scanned}, layers=["block/Dense_0", "block/Dense_1"], stacked="layers", **GIVEN
        ),
    )


def nnx():
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)

    class Other(nnx.Linear):
        def __call__(self, x):
            return x

    class Residual(nnx.Module):
        def __init__(self):
            self.layer = nnx.Linear(2, 2, rngs=rngs)

        def __call__(self, x):
            return x + self.layer(x)

    return (
        lambda: from_nnx(nnx.Sequential(nnx.LayerNorm(2, rngs=rngs))),
        lambda: from_nnx(nnx.Sequential(Other(2, 2, rngs=rngs))),
        lambda: from_nnx(Residual(), **GIVEN),
    )


def equinox():
    nn = pytest.importorskip("equinox").nn
    ensemble = jax.tree.map(
        lambda a: a[None] if isinstance(a, jax.Array) else a, nn.Linear(2, 2, key=jax.random.key(0))
    )
    return (
        lambda: from_equinox(nn.Sequential([nn.LayerNorm(2)])),
        lambda: from_equinox(nn.MLP(2, 2, 2, 1, activation=nn.PReLU(), key=jax.random.key(0))),
        lambda: from_equinox(ensemble),
    )


def haiku():
    return (
        lambda: from_haiku({"linear": {"w": np.ones((2, 2))}, "layer_norm": {"scale": np.ones(2)}}, **GIVEN),
        lambda: from_haiku({"linear": {"w": np.ones((3, 2, 2))}}, **GIVEN),
    )


def brax():
    normalizer = types.SimpleNamespace(mean=0.0, std=1.0)
    return (
        lambda: from_brax((normalizer, {"hidden_0": DENSE, "LayerNorm_0": NORM}), activation="relu"),
        lambda: from_brax((normalizer, {"hidden_0": {"kernel": np.ones((2, 3))}}), activation="relu"),
    )


def torch():
    torch = pytest.importorskip("torch")
    normed = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    return (
        lambda: from_torch(torch.nn.Sequential(torch.nn.LayerNorm(2))),
        lambda: from_torch(normed.state_dict(), **GIVEN),
        lambda: from_torch({"0.weight_g": np.ones(2), "0.weight_v": np.ones((2, 2))}, **GIVEN),
        lambda: from_torch("model.pt", **GIVEN),
    )


def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    inputs = keras.Input((2,))
    residual = keras.layers.Add()([inputs, keras.layers.Dense(2)(inputs)])
    return (
        lambda: from_keras(keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)])),
        lambda: from_keras(keras.Model(inputs, residual)),
    )


def sklearn():
    pytest.importorskip("sklearn")
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.neural_network import MLPRegressor

    return (lambda: from_sklearn(KNeighborsRegressor()), lambda: from_sklearn(MLPRegressor()))


def onnx():
    helper = pytest.importorskip("onnx").helper
    ends = [helper.make_tensor_value_info(name, 1, ["n", 4, 4]) for name in "xy"]
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    return (lambda: from_onnx(ROOT / "tests/data/qlknn_7_11.onnx"), lambda: from_onnx(model))


def pairs():
    return (
        lambda: from_pairs([DENSE.values()], orientation=None, **GIVEN),
        lambda: from_pairs([(np.ones((3, 2, 2)), None)], orientation="in_out", **GIVEN),
    )


REFUSED = {
    "Flax linen": flax, "Flax NNX": nnx, "Equinox": equinox, "Haiku": haiku, "Brax": brax, "PyTorch": torch,
    "Keras": keras, "scikit-learn": sklearn, "ONNX": onnx, "pairs": pairs,
}  # fmt: skip
(TABLE,) = re.findall(r"^\| library \| what is read \|.*\n\|.*\n((?:\|.*\n)+)", GUIDE, re.M)
ROWS = {cells[1].strip(): cells[3] for cells in (line.split("|") for line in TABLE.splitlines())}


def test_every_reader_has_a_row():
    assert ROWS.keys() == REFUSED.keys()
    assert len(ROWS) == sum(name.startswith("from_") for name in convert.__all__)


@pytest.mark.parametrize("library", ROWS)
def test_quoted_reasons_equal_those_of_the_refusals(library):
    quoted = re.findall(r'"([^"]+)"', ROWS[library])
    for reason, call in zip(quoted, REFUSED[library](), strict=True):
        with pytest.raises((ValueError, TypeError), match=re.escape(reason)):
            call()
