import json
import os
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given

from jaxneuron import MLP, Affine, HardTanh, LeakyReLU, gates, load, save
from jaxneuron._files import read
from tests.pools import DTYPES, mlps

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("files") / "network.safetensors"


def bits(mlp):
    return [(a.dtype.name, a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(mlp)]


# --- laws ---


@given(mlp=mlps(nan=True, infinity=True, subnormal=True, huge=True, tiny=True))
def test_save_then_load_is_the_identity(path, mlp):
    save(path, mlp)
    for twin in (load(path), read(path)):
        assert jax.tree.structure(twin) == jax.tree.structure(mlp)
        assert bits(twin) == bits(mlp)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(load(path)))


@pytest.mark.parametrize("dtype", [*DTYPES, np.int64, np.int8, bool])
def test_load_returns_every_bit_of_every_dtype(path, dtype):
    # Random bytes, so among them may be subnormal numbers and NaNs with payloads.
    dtype = jnp.dtype(dtype)
    size = dtype.itemsize
    raw = np.random.default_rng(0).bytes(16 * size)
    w = np.frombuffer(raw, dtype).reshape(2, 8)
    if w.dtype.kind in "ib":
        w = (w % 2).astype(dtype)  # booleans are 0 or 1, and with x64 off integers must fit in int32
    save(path, MLP([(w, None)]))
    assert bits(load(path)) == bits(MLP([(w, None)]))


def test_float64_is_loaded_as_numpy_arrays_if_x64_is_off(path, x64):
    save(path, MLP([(np.array([[0.1]]), np.array([0.2], np.float32))]))
    (w, b), *_ = load(path).layers
    assert w.dtype == np.float64
    assert isinstance(w, jax.Array) == x64
    assert isinstance(b, jax.Array)
    assert jax.device_put(load(path)).layers[0].w.dtype == (np.float64 if x64 else np.float32)


def test_arrays_of_any_memory_order_are_saved(path):
    w = np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    save(path, MLP([(w, None), (w.T[:, ::-1], None)]))
    assert load(path).layers[0].w.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert load(path).layers[1].w.tolist() == [[3, 0], [4, 1], [5, 2]]


def test_twelve_layers_are_loaded_in_order(path):
    mlp = MLP(
        [(np.full((1, 1), i, np.float32), None) for i in range(12)], tuple(["relu", "tanh"] * 5 + ["elu"])
    )
    save(path, mlp)
    assert [float(layer.w[0, 0]) for layer in load(path).layers] == list(range(12))
    assert load(path).activations == mlp.activations


def test_a_file_has_these_tensors_and_metadata(path):
    save(path, gates.XOR)
    with safetensors.safe_open(path, "numpy") as file:
        assert sorted(file.keys()) == ["layers.0.b", "layers.0.w", "layers.1.b", "layers.1.w"]
        assert file.metadata() == {
            "format": "jaxneuron", "format_version": "1", "activation": '"sigmoid"', "final_activation": '"sigmoid"',
        }  # fmt: skip


def test_names_of_inputs_and_outputs_need_version_2(path):
    named = MLP(gates.XOR.layers, inputs=["left", "right"], outputs=("xor",))
    save(path, named)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["format_version"] == "2"
    assert (metadata["inputs"], metadata["outputs"]) == ('["left", "right"]', '["xor"]')
    assert (load(path).inputs, load(path).outputs) == (("left", "right"), ("xor",))
    assert jax.tree.structure(load(path)) == jax.tree.structure(named)
    save(path, MLP(gates.XOR.layers, outputs=["xor"]))
    assert (load(path).inputs, load(path).outputs) == (None, ("xor",))


def test_activations_with_parameters_need_version_2(path):
    layers = [(np.ones((1, 1), np.float32), None)] * 3
    save(path, MLP(layers, (LeakyReLU(0.2), "mish"), HardTanh(0, 2)))
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {
            "format": "jaxneuron", "format_version": "2",
            "activation": '[{"name": "leaky_relu", "slope": 0.2}, "mish"]',
            "final_activation": '{"name": "hard_tanh", "low": 0.0, "high": 2.0}',
        }  # fmt: skip
    assert load(path).activations == (LeakyReLU(0.2), "mish", HardTanh(0, 2))
    save(path, MLP(layers, LeakyReLU(0.01), HardTanh(0, 6)))  # by name, for older releases
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["format_version"] == "1"
    assert load(path).activations == ("leaky_relu", "leaky_relu", "relu6")


# --- refusals ---


def test_a_path_that_is_an_integer_is_refused():
    for call in (lambda: save(3, gates.XOR), lambda: load(3)):
        with pytest.raises(
            TypeError, match=r"^(save|load): path must be a string or a path, got int; pass a string$"
        ):
            call()


def test_custom_activations_cannot_be_saved(tmp_path):
    with pytest.raises(
        ValueError, match=r"save: activations must have names to be saved, got .*; use one of jaxneuron's"
    ):
        save(tmp_path / "a", MLP([([[1.0]], None)], final_activation=jnp.tanh))
    with pytest.raises(TypeError, match="save: mlp must be an MLP, got Affine"):
        save(tmp_path / "a", Affine([1.0], 0.0))
    assert not os.listdir(tmp_path)


def write_file(path, tensors=None, **metadata):
    tensors = {"layers.0.w": np.ones((2, 2)), "layers.1.w": np.ones((2, 1))} if tensors is None else tensors
    good = {
        "format": "jaxneuron",
        "format_version": "1",
        "activation": '"tanh"',
        "final_activation": '"tanh"',
    }
    kept = {k: v for k, v in (good | metadata).items() if v is not None}
    path.write_bytes(safetensors.numpy.save(tensors, kept))


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (None, {"format": None}, "must be a file of jaxneuron.save, with the metadata format='jaxneuron', got None; jaxneuron.convert.from_torch reads a state_dict of PyTorch, and so does `jaxneuron convert "),
        (None, {"format": "pt"}, "got 'pt'"),
        (None, {"format_version": "3"}, "must have format version 1 or 2, got '3'; read it with a newer jaxneuron"),
        (None, {"format_version": "one"}, "must have format version 1 or 2, got 'one'"),
        (None, {"format_version": None}, "must have format version 1 or 2, got 'None'"),
        (None, {"format_version": "2", "inputs": '["a"]'}, "holds no whole network: inputs must hold 2 names, one for each of the rows of the first layer's w, got 1"),
        (None, {"format_version": "2", "outputs": '[1]'}, "holds no whole network: outputs must hold strings, got int"),
        (None, {"format_version": "2", "outputs": '"a"'}, "holds no whole network: outputs must be a sequence of names, got str"),
        ({"layers.0.w": np.ones((2, 3, 4))}, {"format_version": "2"}, "holds no whole network: layer 0: w must have shape"),
        ({"layers.0.w": np.ones((2, 3, 4))}, {"members": "2"}, "holds no whole network: layer 0: w must have shape"),  # of version 1
        ({"layers.0.w": np.ones((2, 3, 4))}, {"format_version": "2", "members": "3"}, "holds no whole network: layer 0: w must have a leading axis of 3 members, got (2, 3, 4)"),
        ({"layers.0.w": np.ones((2, 3, 4))}, {"format_version": "2", "members": '"2"'}, "holds no whole network: layer 0: w must have a leading axis of 2 members, got (2, 3, 4)"),
        ({"layers.0.w": np.ones((2, 3, 4))}, {"format_version": "2", "members": "two"}, "holds no whole network: Expecting value"),
        ({"layers.0.w": np.ones((2, 3, 4)), "layers.1.w": np.ones((2, 3, 4))}, {"format_version": "2", "members": "2"}, "holds no whole network: layers 0 and 1 must chain"),
        ({"layers.0.w": np.ones((2, 3, 4)), "layers.0.b": np.ones((1, 4))}, {"format_version": "2", "members": "2"}, "holds no whole network: layer 0: b must have a leading axis of 2 members"),
        ({"layers.0.w": np.ones((2, 3))}, {"format_version": "2", "members": "2"}, "holds no whole network: layer 0: w must have a leading axis of 2 members, got (2, 3)"),
        ({}, {"format_version": "2", "members": "2"}, "holds no whole network: layers must hold at least 1 layer, got 0"),
        (None, {"activation": None}, "holds no whole network: the metadata 'activation' is missing"),
        (None, {"activation": "tanh"}, "holds no whole network: Expecting value"),
        (None, {"activation": '"tahn"'}, "holds no whole network: activation must be a callable or one of"),
        (None, {"activation": '{"a": 1}'}, "holds no whole network: activation must be a name or a hashable callable, got dict"),
        (None, {"format_version": "2", "activation": '{"a": 1}'}, "holds no whole network: an activation must have a name of leaky_relu,"),
        (None, {"format_version": "2", "activation": '{"name": "elu", "alpha": NaN}'}, "holds no whole network: ELU: alpha must be a finite number"),
        (None, {"activation": "[" * 100_000}, "holds no whole network: "),
        ({}, {}, "holds no whole network: layers must hold at least 1 layer, got 0"),
        ({"layers.0.w": np.ones((2, 2)), "layers.2.w": np.ones((2, 2))}, {}, "holds no whole network: layers.1.w is missing among 2 layers"),
        ({"layers.0.w": np.ones((2, 2)), "layers.1.b": np.ones(2)}, {}, "holds no whole network: unexpected tensor 'layers.1.b', which belongs to none of the 1 layers"),
        ({"layers.0.w": np.ones((2, 3)), "layers.1.w": np.ones((2, 1))}, {}, "holds no whole network: layers 0 and 1 must chain"),
        ({"layers.0.w": np.ones((2, 3, 4))}, {}, "holds no whole network: layer 0: w must have shape"),
        ({"layers.0.w": np.ones((2, 3)), "layers.0.b": np.ones(2)}, {}, "holds no whole network: layer 0: b must have shape (3,)"),
    ],
)  # fmt: skip
def test_foreign_files_are_refused(tmp_path, tensors, metadata, message):
    path = tmp_path / "foreign.safetensors"
    write_file(path, tensors, **metadata)
    with pytest.raises(ValueError, match=re.escape(f"load: {path} ") + ".*" + re.escape(message)):
        load(path)


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "short.safetensors"
    write_file(path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"short.safetensors is not a whole safetensors file \(.*\); copy or save"
        ):
            load(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.safetensors")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_float8_weights_are_refused(tmp_path):
    path = tmp_path / "f8.safetensors"
    header = json.dumps({
        "__metadata__": {"format": "jaxneuron", "format_version": "1", "activation": '"tanh"', "final_activation": '"tanh"'},
        "layers.0.w": {"dtype": "F8_E4M3", "shape": [1, 1], "data_offsets": [0, 1]},
    }).encode()  # fmt: skip
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(ValueError, match=r"must hold BF16, BOOL, .*, got F8_E4M3"):
        load(path)


def test_save_and_load_without_safetensors_name_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: save(tmp_path / "a", gates.XOR), lambda: load(tmp_path / "a")):
        with pytest.raises(
            ImportError, match=r"needs the safetensors library; pip install 'jaxneuron\[files\]'"
        ):
            call()
