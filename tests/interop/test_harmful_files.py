"""Files made to do harm: every reader raises ValueError, quickly, in little memory, and never runs code."""

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from jaxneuron.convert import (
    from_onnx,
    from_torch,
)

onnx = pytest.importorskip("onnx", reason="onnx is in the extra interop")
keras = pytest.importorskip("keras", reason="keras is in the extra interop")
h5py = pytest.importorskip("h5py", reason="h5py is in the extra keras")

from onnx import TensorProto, helper  # noqa: E402


def safetensors_file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def onnx_file(nodes=(), tensors=(), **inputs):
    ends = [helper.make_tensor_value_info("x", 1, ["batch", 4]), helper.make_empty_tensor_value_info("y")]
    return helper.make_model(
        helper.make_graph(list(nodes), "g", ends[:1], ends[1:], list(tensors))
    ).SerializeToString()


def external(location, **entries):
    tensor = TensorProto(name="w", dims=[4, 4], data_type=1, data_location=1)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return onnx_file([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor])


def claiming(dims):
    tensor = TensorProto(name="w", dims=dims, data_type=1, raw_data=bytes(64))
    return onnx_file([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor])


def archive(*members, compress=zipfile.ZIP_STORED):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compress) as file:
        for name, content in members:
            file.writestr(name, content)
    return written.getvalue()


def npy(shape, dtype="<f4", data=b""):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def keras_file(config, write=lambda file: None):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        write(file)
    return archive(("config.json", json.dumps(config)), ("model.weights.h5", weights.getvalue()))


def hdf5_file(write):
    content = io.BytesIO()
    with h5py.File(content, "w", libver="latest") as file:
        write(file)
    return content.getvalue()


def with_model(config, write=lambda file: None):
    def whole(file):
        file.attrs["model_config"] = config if isinstance(config, (str, bytes)) else json.dumps(config)
        write(file)

    return hdf5_file(whole)


def many_names(file):
    file.attrs["layer_names"] = ["dense"] * 10**4
    file["dense/kernel:0"] = np.zeros((100, 100))


def many_long_names(file):
    file.attrs["layer_names"] = np.zeros(1000, "S100000")
    file["dense/kernel:0"] = np.zeros((1, 1))


def one_array_many_times(file):
    file["layers/dense/vars/0"] = np.zeros((1000, 1000), np.float32)
    for i in range(1, 1000):
        file[f"layers/dense_{i}/vars/0"] = file["layers/dense/vars/0"]


def group_in_itself(file):
    file["layers/dense/vars/0"] = np.zeros((4, 4))
    file["layers/dense/layers"] = file["layers"]


def no_names(file):
    file["model_weights/dense/kernel"] = np.zeros((4, 4))


DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"activation": "relu", "use_bias": False}}


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"layers": list(layers)}}


def linked(file):
    file["layers/dense/vars/0"] = h5py.ExternalLink("secret.h5", "w")


def stored_outside(file):
    file.create_dataset("layers/dense/vars/0", (4, 4), "f4", external=[("secret", 0, 64)])


def never_written(file):
    file.create_dataset("layers/dense/vars/0", (2**20, 2**20), "f4")


def squeezed(file):
    file.create_dataset("layers/dense/vars/0", data=np.zeros((1000, 1000), "f4"), compression="gzip")


def nested(depth):
    model = sequential(DENSE)
    for _ in range(depth):
        model = sequential(model)
    return model


BOMB = {"compress": zipfile.ZIP_DEFLATED}
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HARMFUL = {
    "a header that lies.safetensors": (lambda: safetensors_file(b"{}", length=2**63), "is not a whole safetensors file"),
    "a header of 100 MB.safetensors": (lambda: safetensors_file(b" " * 10**8), "must have a header of at most 1048576 bytes"),
    "nested deep.safetensors": (lambda: safetensors_file(b"[" * 10**6), "is not a whole safetensors file"),
    "a million tensors.safetensors": (lambda: safetensors_file({f"t{i}": ENTRY for i in range(10**6)}, bytes(4)), "must have a header of at most"),
    "a shape that overflows.safetensors": (lambda: safetensors_file({"0.weight": {**ENTRY, "shape": [2**62, 8]}}, bytes(4)), "is not a whole safetensors file"),
    "no header.safetensors": (lambda: safetensors_file(b"[1, 2]"), "is not a whole safetensors file"),
    "a pickle.pt": (lambda: b"\x80\x04.", "which may hold a pickle, and opening a pickle can run code"),
    "empty.onnx": (lambda: b"", "is not a whole ONNX file"),
    "random.onnx": (lambda: random.Random(0).randbytes(10**6), "is not a whole ONNX file"),
    "a million nodes.onnx": (lambda: onnx_file() + b"\x3a\x80\x89\x7a" + b"\x0a\x00" * 10**6, "must hold at most 30,000 fields"),
    "a million tensors.onnx": (lambda: onnx_file() + b"\x3a\x80\x89\x7a" + b"\x2a\x00" * 10**6, "must hold at most 30,000 fields"),
    "nested deep.onnx": (lambda: nested_onnx(500), "is not a whole ONNX file"),
    "a shape that overflows.onnx": (lambda: claiming([2**62, 2**62]), "has the shape"),
    "a negative shape.onnx": (lambda: claiming([-4, -4]), "has the shape"),
    "a shape without its numbers.onnx": (lambda: claiming([10**6, 10**6]), "must have 4000000000000 bytes"),
    "data outside.onnx": (lambda: external("../secret"), "must lie in a file beside the model, got '../secret'"),
    "data at an absolute path.onnx": (lambda: external("/etc/passwd"), "must lie in a file beside the model, got '/etc/passwd'"),
    "data through a link.onnx": (lambda: external("link"), "must lie in a file beside the model, got 'link'"),
    "data too short.onnx": (lambda: external("short", length=64), "must have 64 bytes in 'short'"),
    "data before its start.onnx": (lambda: external("short", offset=-8), "must have 64 bytes in 'short'"),
    "no archive.npz": (lambda: b"PK" * 100, "is not a sound archive"),
    "a member outside.npz": (lambda: archive(("../w0.npy", b"")), "the member '../w0.npy' lies outside it"),
    "a member at an absolute path.npz": (lambda: archive(("/w0.npy", b"")), "the member '/w0.npy' lies outside it"),
    "a bomb.npz": (lambda: archive(("w0.npy", bytes(10**8)), **BOMB), "it unpacks to 100000000 bytes, more than 10 times its"),
    "many small bombs.npz": (lambda: archive(*((f"w{i}.npy", bytes(10**6)) for i in range(50)), **BOMB), "it unpacks to 50000000 bytes"),
    "a million members.npz": (lambda: directory(10**6), "its directory has more than 1048576 bytes"),
    "a pickle in it.npz": (lambda: archive(("w0.npy", npy((1,), "|O", b"\x80\x04."))), "w0.npy is not a sound array"),
    "a shape that overflows.npz": (lambda: archive(("w0.npy", npy((2**62, 2**62)))), "w0.npy is not a sound array"),
    "a header that runs.npz": (lambda: archive(("w0.npy", npy("__import__('os').abort()"))), "w0.npy is not a sound array"),
    "no weights.keras": (lambda: archive(("config.json", "{}")), "must hold config.json and model.weights.h5, got config.json"),
    "a member outside.keras": (lambda: archive(("assets/../../x", b"")), "lies outside it"),
    "a bomb.keras": (lambda: archive(("config.json", "{}"), ("model.weights.h5", bytes(10**8)), **BOMB), "it unpacks to"),
    "a link to another file.keras": (lambda: keras_file(sequential(DENSE), linked), "is not a sound .keras file"),
    "data in another file.keras": (lambda: keras_file(sequential(DENSE), stored_outside), "is not a plain dataset, or not complete"),
    "data never written.keras": (lambda: keras_file(sequential(DENSE), never_written), "is not a plain dataset, or not complete"),
    "data squeezed.keras": (lambda: keras_file(sequential(DENSE), squeezed), "is not a plain dataset, or not complete"),
    "nested models.keras": (lambda: keras_file(nested(100)), "models must be nested at most 20 deep"),
    "nested deep.keras": (lambda: archive(("config.json", b"[" * 10**6), ("model.weights.h5", b"")), "is not a sound .keras file"),
    "a long configuration.keras": (lambda: archive(("config.json", b" " * 5 * 10**6), ("model.weights.h5", b"")), "more than 1048576 bytes"),
    "another's layer.keras": (lambda: keras_file(sequential({**DENSE, "module": "builtins", "registered_name": "x>Dense"})), "the layer 'Dense' is not one of Keras's own"),
    "code.keras": (lambda: keras_file(sequential({**DENSE, "config": {"activation": {"class_name": "__lambda__"}, "use_bias": False}}), lambda f: f.create_dataset("layers/dense/vars/0", data=np.ones((2, 2), "f4"))), "code in a file is not run"),
    "rows.h5": (lambda: hdf5_file(lambda file: file.create_dataset("rows", data=np.ones((4, 4)))), "source must be a file of Keras, got an HDF5 file with 'rows'; read its arrays with h5py"),
    "a link to another file.h5": (lambda: hdf5_file(linked), "is not a sound HDF5 file of Keras"),
    "data never written.h5": (lambda: hdf5_file(never_written), "is not a plain dataset, or not complete"),
    "many names.h5": (lambda: hdf5_file(many_names), "layers must be given, because the file's list of 10000 names may unpack to"),
    "many long names.h5": (lambda: hdf5_file(many_long_names), "layers must be given, because the file's list of 1000 names may unpack to"),
    "one array many times.h5": (lambda: hdf5_file(one_array_many_times), "is not a plain dataset, or not complete"),
    "a group in itself.h5": (lambda: hdf5_file(group_in_itself), "more than 10000 members, or 60 groups in groups"),
    "no JSON.h5": (lambda: with_model("["), "is not a sound HDF5 file of Keras (model_config: "),
    "nested deep.h5": (lambda: with_model("[" * 10**6), "is not a sound HDF5 file of Keras (model_config: "),
    "a long configuration.h5": (lambda: with_model(" " * 5 * 10**6), "more than 1048576 bytes"),
    "many configurations.h5": (lambda: hdf5_file(lambda file: file.attrs.create("model_config", ["{}"] * 100)), "is of shape (100,) or too large"),
    "another's model.h5": (lambda: with_model({"class_name": "Own", "config": {}}), "models must be Sequential or functional, got 'Own'"),
    "a layer without a name.h5": (lambda: with_model(sequential(DENSE)), "is not a sound HDF5 file of Keras ('name')"),
    "a layer without arrays.h5": (lambda: with_model(sequential({**DENSE, "config": {**DENSE["config"], "name": "dense_2"}}), no_names), "no 'dense_2' in it"),
    "nested models.h5": (lambda: with_model(nested(100)), "models must be nested at most 20 deep"),
    "random.stablehlo": (lambda: random.Random(0).randbytes(10**5), "is not a whole file of jaxneuron's export"),
    "empty.stablehlo": (lambda: b"", "is not a whole file of jaxneuron's export"),
}  # fmt: skip


def nested_onnx(depth):
    graph = b""
    for _ in range(depth):  # graph.node[0].attribute[0].g = graph
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            graph = tag + varint(len(graph)) + graph
    return b"\x3a" + varint(len(graph)) + graph


def varint(value):
    written = b""
    while value > 127:
        written += bytes([value & 127 | 128])
        value >>= 7
    return written + bytes([value])


def directory(count):
    entry = b"PK\x01\x02" + bytes(24) + (6).to_bytes(2, "little") + bytes(16) + b"w0.npy"
    size = len(entry) * count
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + size.to_bytes(4, "little") + bytes(6)
    return entry * count + end


PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import h5py, onnx, safetensors.numpy  # loaded here, so that the first file is not charged for them
from jaxneuron.convert._files import described, kind_of
from jaxneuron.convert import from_keras, from_torch, from_pairs
from jaxneuron.convert._npz import read_pairs

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB

before = set(sys.modules)
for path in map(Path, sys.argv[1:]):
    start, memory, error = time.perf_counter(), peak(), None
    try:
        if path.suffix == ".h5" and kind_of(path) == "weights":
            from_keras(path, activation="relu", final_activation="relu")
        else:
            (from_torch if path.suffix == ".pt" else described)(path)
    except ValueError as raised:
        error = f"ValueError: {raised}"
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps([path.name, error, time.perf_counter() - start, peak() - memory]), flush=True)
"""


def test_harmful_files_are_refused_quickly_and_in_little_memory(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["w"] = np.ones((4, 4), np.float32)
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(32))
    for name, (content, _) in HARMFUL.items():
        (folder / name).write_bytes(content())
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *(str(folder / name) for name in HARMFUL)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
    for name, error, seconds, megabytes in map(json.loads, done.stdout.splitlines()):
        _, message = HARMFUL[name]
        size = (folder / name).stat().st_size / 1e6
        assert error, f"{name} was read"
        assert error.startswith("ValueError: "), (name, error)
        assert message in error, (name, error)
        assert len(error) < 700, (name, error)
        assert seconds < 1, (name, seconds)
        assert megabytes < 100 + size, (name, megabytes)


def test_nan_is_kept_with_a_warning(tmp_path):
    w = np.array([[1, np.nan]], np.float32)
    (tmp_path / "nan.safetensors").write_bytes(safetensors.numpy.save({"0.weight": w}))
    with pytest.warns(UserWarning, match="layer 0: w holds NaN, which is kept") as caught:
        mlp = from_torch(tmp_path / "nan.safetensors", activation="relu", final_activation="identity")
    assert Path(caught[0].filename) == Path(__file__)
    assert np.array_equal(mlp.layers[0].w, w.T, equal_nan=True)


def test_external_data_beside_the_model_is_read(tmp_path):
    w = np.arange(16, dtype=np.float32).reshape(4, 4)
    (tmp_path / "weights").write_bytes(bytes(8) + w.tobytes())
    (tmp_path / "model.onnx").write_bytes(external("weights", offset=8, length=64))
    assert np.array_equal(from_onnx(tmp_path / "model.onnx").layers[0].w, w)
    with pytest.raises(ValueError, match="lies in a file of its own; pass the path of the model"):
        from_onnx(onnx.ModelProto.FromString(external("weights")))
    (tmp_path / "weights").unlink()
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "model.onnx")
