"""The package recognises the kind of a file. A reader that cannot read the file names a way to read it.

tests/interop/test_file_kinds.py repeats this with files that other libraries wrote, and follows the advice.
"""

import bz2
import gzip
import io
import lzma
import os
import pickle
import re
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import safetensors.numpy

import jaxneuron
from jaxneuron import MLP, cli, gates, load, save
from jaxneuron._file_kinds import BEGINNINGS, KINDS, MEMBERS, SUFFIXES, kind_of
from jaxneuron.convert import from_keras, from_torch, load_exported
from jaxneuron.convert._npz import read_pairs, write_pairs


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 40)
    return file.getvalue()


def written(function, *arguments):
    file = io.BytesIO()
    function(file, *arguments)
    return file.getvalue()


TABLE = pa.table({"a": [0.5, 1.0], "b": [1.0, 2.0]})
ARRAY = np.array([[0.5, 1.0]])
# For each kind, names and contents of some files; a list has the names of files in a folder. Only files whose
# content does not show their kind have a suffix that shows it.
FILES = {
    "safetensors": {"x": safetensors.numpy.save({"0.weight": np.ones((2, 2))})},
    "onnx": {
        "x": b"\x08\x08\x12\x07pytorch\x1a\x032.0",  # names its producer
        "y": b"\x08\x09\x3a\x10",  # does not name it
        "x.onnx": b"",
    },
    "keras": {"x": zipped("metadata.json", "config.json", "model.weights.h5")},
    "npz": {"x": written(lambda file: np.savez(file, w0=np.ones(3))), "x.npz": zipped("a", "b")},
    "stablehlo": {"x.stablehlo": b"\x20\0\0\0"},
    "torch": {
        "x": zipped("archive/data.pkl", "archive/data/0"),
        "y": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M",  # before PyTorch 1.6
        "x.pth": b"\x80\x04.",
    },
    "policy": {"x": zipped("data", "policy.pth", "pytorch_variables.pth")},
    "pickle": {"x": pickle.dumps({"w": 1}), "x.pkl": pickle.dumps({"w": 1}, protocol=0)},
    "hdf5": {"x": b"\x89HDF\r\n\x1a\n" + bytes(200)},
    "msgpack": {"x": b"\x81\xa6params\x81\x00", "y": b"\xde\x00\x01\xa6params"},
    "tflite": {"x": b"\x1c\0\0\0TFL3"},
    "savedmodel": {"x": ["saved_model.pb", "variables"]},
    "orbax": {"x": ["_METADATA", "manifest.ocdbt"]},
    "eqx": {  # arrays one after the other; the second file begins with hyperparameters
        "x.eqx": 2 * written(np.save, ARRAY),
        "y.eqx": b'{"width": 3}\n' + 2 * written(np.save, ARRAY),
    },
    "npy": {"x": written(np.save, ARRAY), "x.csv": written(np.save, ARRAY)},
    "parquet": {"x": written(lambda file: pa.parquet.write_table(TABLE, file))},
    "csv": {"x": b"a,b\n1,2\n", "x.parquet": b"a,b\r\n\r\n1,2\r\n", "x.npy": b"0.5,nan\n", "x.csv": b"words"},
    "utf16": {"x": "a,b\n1,2\n".encode("utf-16"), "y": "a,b\n1,2\n".encode("utf-16-le")},
    "arrow": {"x": written(lambda file: pa.feather.write_feather(TABLE, file))},
    "parquets": {"x": ["part-0.parquet", "part-1.parquet"]},
    "excel": {
        "x": zipped("[Content_Types].xml", "xl/workbook.xml"),
        "y": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    },
    "matlab": {"x": b"MATLAB 5.0 MAT-file, Platform".ljust(124) + b"\x00\x01IM"},
    "pointer": {"x": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"},
    "html": {"x": b"\n<!DOCTYPE html>\n<html>", "y": b"<html lang=en>"},
    "zip": {"x": zipped("readme")},
    "gzip": {"x": gzip.compress(b"1,2\n")},
    "bzip2": {"x": bz2.compress(b"1,2\n")},
    "xz": {"x": lzma.compress(b"1,2\n")},
    "zstd": {"x": b"\x28\xb5\x2f\xfd\x04"},
}
UNKNOWN = {"x": b"", "y": b"words", "z": bytes(100), "folder": [], "x.bin": b"\x00\x01\x02", "v": b"\x80\x09"}


def put(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
        for name in content:
            (path / name).write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", [*FILES, None])
def test_every_kind_of_file_is_recognised(tmp_path, kind):
    for name, content in (FILES[kind] if kind else UNKNOWN).items():
        assert kind_of(put(tmp_path / name, content)) == kind, name


@pytest.mark.parametrize("beginning", [b"PAR1", b"FEA1", b"BZh", b"MATLAB ", b"ARROW1", b"{"])
def test_text_that_begins_like_another_kind_is_text(tmp_path, beginning):
    for content, name, kind in ((b",b\n1,2\n", "x", "csv"), (b",b\n", "x.csv", "csv"), (b"\n", "y", None)):
        assert kind_of(put(tmp_path / name, beginning + content)) == kind


@pytest.mark.parametrize("length", [0x8B1F, 0x280, 0xFEFF, 0x1208, 0x5A42, 0x4B50])
def test_safetensors_headers_may_have_any_length(tmp_path, length):
    """A safetensors file begins with the length of its header. It can look like the start of another kind."""
    content = safetensors.numpy.save({"x": np.ones(2)})
    size = int.from_bytes(content[:8], "little")
    padded = length.to_bytes(8, "little") + content[8 : 8 + size].ljust(length) + content[8 + size :]
    assert kind_of(put(tmp_path / "x", padded)) == "safetensors"


def test_these_files_cover_every_kind():
    assert set(FILES) == set(KINDS) - {"foreign"}  # metadata shows that kind, not the content or the name
    assert set(FILES) > {*BEGINNINGS.values(), *MEMBERS.values(), *SUFFIXES.values()}


def test_missing_files_and_pipes_have_no_kind(tmp_path):
    assert kind_of(tmp_path / "none.onnx") is None
    os.mkfifo(tmp_path / "pipe.csv")  # opening it would wait for a writer
    assert kind_of(tmp_path / "pipe.csv") is None


# --- refusals, of every reader ---


GIVEN = {"activation": "relu", "final_activation": "identity"}
READERS = {
    "safetensors": (load, "load: {}: must be a safetensors file, got "),
    "torch": (lambda path: from_torch(path, **GIVEN), "from_torch: {}: must be a safetensors file, got "),
    "keras": (from_keras, "from_keras: {}: must be a .keras file, or an .h5 file of Keras, got "),
    "npz": (read_pairs, "{}: must be an .npz archive of w0, b0, w1, b1, ..., got "),
    "stablehlo": (load_exported, "load_exported: {}: must be a program of jaxneuron's export, got "),
}


@pytest.mark.parametrize("wanted", READERS)
def test_readers_of_networks_name_the_reader_of_another_kind(tmp_path, wanted):
    read, opening = READERS[wanted]
    several = {"torch": ("safetensors", "torch", "pickle"), "npz": ("npz", "zip"), "keras": ("keras", "hdf5")}
    own = several.get(wanted, (wanted,))
    for kind in FILES.keys() - set(own):
        path = put(tmp_path / kind, FILES[kind].get("x", b""))
        if kind_of(path) != kind:  # only its suffix shows its kind
            path = path.rename(tmp_path / f"{kind}.{kind}")
        with pytest.raises(
            ValueError, match=re.escape(opening.format(path) + KINDS[kind].name + "; ")
        ) as caught:
            read(path)
        assert "{" not in str(caught.value)


COMMANDS = {
    "run": ("run", "FILE", "rows.csv", "-o", "out.npy"),
    "info": ("info", "FILE"),
    "convert": ("convert", "FILE", "out.safetensors"),
    "plot": ("plot", "FILE", "-o", "out.png"),
    "rows": ("run", "m.safetensors", "FILE", "-o", "out.npy"),
}
READ = {
    "info": {"safetensors", "onnx", "keras", "hdf5", "npz", "stablehlo"},
    "rows": {"npy", "csv", "parquet"},
}
READ["convert"] = READ["info"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_the_reader_of_another_kind(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    save("m.safetensors", gates.XOR)
    (tmp_path / "rows.csv").write_text("0,1\n0,0\n")
    for kind in FILES.keys() - READ.get(command, set()):
        name = kind if kind != "onnx" and "x" in FILES[kind] else f"{kind}.{kind}"
        if command == "plot" and isinstance(FILES[kind].get("x"), list):
            continue  # plot does not take folders
        if command != "rows" and kind == "safetensors":
            continue  # a state_dict, which the next test reads
        path = put(tmp_path / name, FILES[kind].get("x", b""))
        assert cli.main([name if word == "FILE" else word for word in COMMANDS[command]]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"jaxneuron: {name}: "), said
        assert f", {KINDS[kind].name}; " in said.replace(", got ", ", "), said
        assert said.count("\n") == 1
        assert not (tmp_path / "out.npy").exists()
        assert path.exists()


def test_a_state_dict_is_read_by_from_torch(tmp_path, capsys):
    path = put(tmp_path / "net.bin", FILES["safetensors"]["x"])  # any name will do
    with pytest.raises(
        ValueError,
        match=r"load: .*, with the metadata format='jaxneuron', got None; jaxneuron.convert.from_torch reads a state_dict",
    ):
        load(path)
    assert from_torch(path, **GIVEN).layers[0].w.tolist() == [[1, 1], [1, 1]]
    arguments = ["--activation", "relu", "--final-activation", "identity"]
    assert cli.main(["convert", str(path), str(tmp_path / "net.safetensors"), *arguments]) == 0
    assert load(tmp_path / "net.safetensors").final_activation == "identity"
    with pytest.raises(
        ValueError,
        match=r"from_torch: .*net.safetensors is a file of jaxneuron.save; read it with jaxneuron.load",
    ):
        from_torch(tmp_path / "net.safetensors", **GIVEN)


def test_the_content_of_a_file_decides_not_its_suffix(tmp_path, capsys):
    """The command line looks at the content of a file, not at its suffix."""
    save(tmp_path / "m.npz", gates.XOR)
    assert cli.main(["info", str(tmp_path / "m.npz")]) == 0
    assert capsys.readouterr().out == jaxneuron.summary(load(tmp_path / "m.npz")) + "\n"
    write_pairs(gates.XOR, tmp_path / "m.safetensors")
    assert cli.main(["info", str(tmp_path / "m.safetensors")]) == 0
    assert capsys.readouterr().out.startswith("4 arrays, without activations")


def test_advice_quotes_paths_for_the_shell_and_for_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "it's a net", FILES["onnx"]["x"])
    put(tmp_path / "it's rows", FILES["npz"]["x"])
    with pytest.raises(
        ValueError, match=re.escape("""`jaxneuron convert 'it'"'"'s a net' 'it'"'"'s a net.safetensors'`""")
    ):
        load("it's a net")
    save("m.safetensors", gates.XOR)
    assert cli.main(["run", "m.safetensors", "it's rows", "-o", "out.npy"]) == 2
    assert """np.load("it's rows")['NAME']""" in capsys.readouterr().err


def test_convert_keeps_the_names_of_inputs_and_outputs(tmp_path):
    mlp = MLP(gates.XOR.layers, inputs=("a", "b"), outputs=("y",))
    save(tmp_path / "m.safetensors", mlp)
    for dtype in ((), ("--dtype", "float32")):
        out = tmp_path / "out.safetensors"
        assert cli.main(["convert", str(tmp_path / "m.safetensors"), str(out), "--force", *dtype]) == 0
        assert (load(out).inputs, load(out).outputs) == (("a", "b"), ("y",))
