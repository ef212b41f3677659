"""Files that other libraries write are told apart, and the advice for each works when it is followed."""

import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxneuron import cli, evaluate, gates, load, mlp_forward, save
from jaxneuron._file_kinds import KINDS, kind_of, remedy
from jaxneuron.convert import from_flax, from_keras, from_onnx, from_sklearn, from_torch, to_onnx

X = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
GIVEN = {"activation": "tanh", "final_activation": "identity"}


def advice(path, rows=False):
    """The advice for a file, which its reader gives as well."""
    said = remedy(path, kind_of(path), rows)
    if not rows:
        with pytest.raises(ValueError, match="load: ") as caught:
            load(path)
        assert str(caught.value).endswith(f"{KINDS[kind_of(path)].name}; {said}")
    return said


def assert_close(mlp, theirs):
    np.testing.assert_allclose(np.asarray(mlp_forward(mlp, X)), theirs, rtol=1e-5, atol=1e-6)


def run_command(said, folder):
    """Runs the first command in an advice."""
    words = shlex.split(said.split("`")[1].replace("NAME", "tanh"))
    assert words[0] == "jaxneuron"
    subprocess.run([sys.executable, "-m", *words], check=True, cwd=folder, capture_output=True)


def test_advice_for_onnx_files_works(tmp_path):
    pytest.importorskip("onnx")
    to_onnx(jax.tree.map(np.float32, gates.XOR), tmp_path / "a net.onnx")
    (tmp_path / "a net").write_bytes((tmp_path / "a net.onnx").read_bytes())  # without a suffix
    said = advice(tmp_path / "a net")
    assert "jaxneuron.convert.from_onnx reads it" in said
    run_command(said, tmp_path)
    assert_close(load(tmp_path / "a net.safetensors"), mlp_forward(from_onnx(tmp_path / "a net"), X))


def test_advice_for_pytorch_files_works(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = pytest.importorskip("safetensors.torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    theirs = net(torch.tensor(X)).detach().numpy()
    torch.save(net.state_dict(), tmp_path / "state")
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(net, tmp_path / "module.ckpt")
    for name in ("state", "old.pt", "module.ckpt"):
        assert kind_of(tmp_path / name) == "torch"
        assert "opening a pickle can run code" in advice(tmp_path / name)
    assert_close(from_torch(torch.load(tmp_path / "state"), **GIVEN), theirs)
    assert_close(from_torch(torch.load(tmp_path / "old.pt"), **GIVEN), theirs)
    assert_close(from_torch(torch.load(tmp_path / "module.ckpt", weights_only=False)), theirs)
    tensors.save_file(torch.load(tmp_path / "state"), tmp_path / "net.bin")
    assert_close(from_torch(tmp_path / "net.bin", **GIVEN), theirs)
    with pytest.raises(ValueError, match="so does `jaxneuron convert") as caught:
        load(tmp_path / "net.bin")
    run_command(str(caught.value).replace("OUT", "out"), tmp_path)
    assert load(tmp_path / "out.safetensors").final_activation == "tanh"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
def test_advice_for_keras_files_works(tmp_path):
    pytest.importorskip("h5py")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
    theirs = np.asarray(model(X))
    model.save(tmp_path / "model.keras")
    run_command(advice(tmp_path / "model.keras"), tmp_path)
    assert_close(load(tmp_path / "model.safetensors"), theirs)
    model.save(tmp_path / "old.h5")
    (tmp_path / "old").write_bytes((tmp_path / "old.h5").read_bytes())
    run_command(advice(tmp_path / "old"), tmp_path)
    assert_close(load(tmp_path / "old.safetensors"), theirs)
    assert_close(from_keras(tmp_path / "old.h5"), theirs)
    (tmp_path / "model.keras").rename(tmp_path / "model.h5")  # whatever its name
    assert_close(from_keras(tmp_path / "model.h5"), theirs)


def test_advice_for_flax_files_works(tmp_path):
    flax = pytest.importorskip("flax")
    from flax import linen

    dense = linen.Dense(3)
    params = dense.init(jax.random.key(0), X)
    for name, state in (("a", params), ("b", {"params": params["params"], "step": 3})):
        (tmp_path / name).write_bytes(flax.serialization.to_bytes(state))
        said = advice(tmp_path / name)
        assert said.startswith("pass flax.serialization.msgpack_restore(")
    restored = eval(said[5 : said.index(" to jaxneuron")], {"flax": flax, "Path": Path})
    del restored["step"]
    assert_close(from_flax(restored, **GIVEN), dense.apply(params, X))


def test_advice_for_sklearn_files_works(tmp_path):
    network = pytest.importorskip("sklearn.neural_network")
    import joblib

    regressor = network.MLPRegressor(hidden_layer_sizes=(3,), max_iter=300, tol=1).fit(X, X[:, 0])
    joblib.dump(regressor, tmp_path / "a")
    (tmp_path / "b").write_bytes(pickle.dumps(regressor))
    for name in ("a", "b"):
        assert "the reader of its library" in advice(tmp_path / name)
    assert_close(from_sklearn(joblib.load(tmp_path / "a")), regressor.predict(X)[:, None])


# --- rows ---


def test_advice_for_tables_works(tmp_path, monkeypatch, capsys):
    """Each table is refused, and is read after its advice has been followed."""
    h5py = pytest.importorskip("h5py")
    pa = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    save("xor.safetensors", gates.XOR)
    expected = evaluate(gates.XOR, X)
    table = pa.table({"a": X[:, 0], "b": X[:, 1]})
    pyarrow.feather.write_feather(table, "table.feather")
    os.mkdir("data set")
    pa.parquet.write_table(table, "data set/part-0.parquet")
    np.savez("rows.npz", NAME=X)
    Path("wide.csv").write_text("a,b\n0,1\n2,3\n", "utf-16")
    with h5py.File("rows.h5", "w") as file:
        file["NAME"] = X

    def outputs(path):
        assert cli.main(["run", "xor.safetensors", path, "-o", "out.npy", "--force"]) == 0
        capsys.readouterr()
        return np.load("out.npy")

    for path, made in (
        ("table.feather", "rows.parquet"), ("data set", "rows.parquet"), ("rows.npz", "rows.npy"), ("wide.csv", "rows.csv"),
    ):  # fmt: skip
        assert cli.main(["run", "xor.safetensors", path, "-o", "out.npy", "--force"]) == 2
        said = advice(path, rows=True)
        assert capsys.readouterr().err.rstrip().endswith(said)
        code = said.split("with ", 1)[1]
        if made == "rows.csv":
            subprocess.run(code, shell=True, check=True)
        else:
            exec(code, {"pyarrow": pyarrow, "np": np})
        assert np.array_equal(outputs(made), expected)
        os.remove(made)
    with h5py.File("rows.h5") as file:
        assert "h5py.File('rows.h5')['NAME'], to evaluate" in advice("rows.h5", rows=True)
        assert np.array_equal(evaluate(gates.XOR, file["NAME"]), expected)


@pytest.mark.parametrize("library", ["gzip", "bz2", "lzma"])
def test_advice_for_compressed_rows_works(tmp_path, library):
    packed = pytest.importorskip(library).compress(b"a,b\n0,1\n2,3\n")
    (tmp_path / "rows.csv").write_bytes(packed)
    save(tmp_path / "xor.safetensors", gates.XOR)
    said = advice(tmp_path / "rows.csv", rows=True).split("input: ")[1]
    line = said.replace("jaxneuron", f"{sys.executable} -m jaxneuron").replace("MODEL", "xor.safetensors")
    subprocess.run(line.replace("OUT", "out.npy"), shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), evaluate(gates.XOR, X))
