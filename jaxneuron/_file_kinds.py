"""What kind of file a path leads to, and what reads it: so that a refusal can say both.

    first bytes  ->  kind; where they tell nothing, suffix  ->  kind

`check_kind` is called by every reader of files, on every path, before anything else looks at the content.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from pathlib import Path
from typing import NamedTuple

from jaxneuron._errors import BadValue

CONTROLS = bytes(range(9)) + b"\x0b\x0c" + bytes(range(14, 32))
HEAD = 512  # bytes that are looked at; the longest that a kind needs are the names in a zip archive
TAIL = 2**16  # bytes at the end of a zip archive, where its names stand again


class FileKind(NamedTuple):
    """A kind of file, and what to do with one where a network or rows are wanted."""

    name: str  # with its article
    network: str  # {path} is the file's and {out} a network's beside it, for a shell; {literal} for Python
    rows: str


_CONVERT = "`jaxneuron convert {path} {out}` makes it one of jaxneuron's"
_IS_NETWORK = "it holds no rows: pass it as the MODEL of `jaxneuron run MODEL ROWS -o OUT`"
_IS_ROWS = "it holds no network: it is the ROWS of `jaxneuron run MODEL ROWS -o OUT`"
_TO_FILE = "write it to a file, and pass the path"
_ACTIVATIONS = "--activation NAME --final-activation NAME"
_PICKLE = "opening a pickle can run code: load it where you trust it, and pass"
_WHOLE = "fetch the file itself"
_AS_ROWS = "save the rows by themselves, with np.save('rows.npy', rows)"

KINDS = {
    # networks
    "safetensors": FileKind(
        "a safetensors file",
        "jaxneuron.load reads jaxneuron's own, jaxneuron.convert.from_torch a state_dict of PyTorch",
        _IS_NETWORK,
    ),
    "foreign": FileKind(  # told by its metadata
        "a safetensors file of another program",
        "jaxneuron.convert.from_torch reads a state_dict of PyTorch, and so does "
        f"`jaxneuron convert {{path}} OUT.safetensors {_ACTIVATIONS}`; read another library's arrays with "
        "safetensors.numpy.load_file, and pass them to its reader in jaxneuron.convert",
        _IS_NETWORK,
    ),
    "onnx": FileKind("an ONNX model", f"jaxneuron.convert.from_onnx reads it, and {_CONVERT}", _IS_NETWORK),
    "keras": FileKind("a .keras file", f"jaxneuron.convert.from_keras reads it, and {_CONVERT}", _IS_NETWORK),
    "npz": FileKind(
        "an .npz archive of NumPy arrays",
        f"`jaxneuron convert {{path}} {{out}} {_ACTIVATIONS} --orientation in_out` reads arrays named "
        "w0, b0, w1, ...; load others with np.load, and pass them to jaxneuron.convert.from_pairs",
        "save the array of rows by itself, with np.save('rows.npy', np.load({literal})['NAME'])",
    ),
    "stablehlo": FileKind(
        "a compiled program of jaxneuron's export",
        "jaxneuron.convert.load_exported runs it; it holds no layers: read the file it was made from",
        _IS_NETWORK,
    ),
    "torch": FileKind(
        "a file of torch.save, which may hold a pickle",
        f"{_PICKLE} the module or state_dict in it to jaxneuron.convert.from_torch, "
        "or save the state_dict with safetensors.torch.save_file",
        f"{_PICKLE} the rows to evaluate, or {_AS_ROWS}",
    ),
    "policy": FileKind(
        "a policy of Stable-Baselines3",
        f"{_PICKLE} model.policy.state_dict() to jaxneuron.convert.from_torch, with layers= for the actor's",
        _IS_NETWORK,
    ),
    "pickle": FileKind(
        "a pickle",
        f"{_PICKLE} what is in it to the reader of its library in jaxneuron.convert",
        f"{_PICKLE} the rows to evaluate, or {_AS_ROWS}",
    ),
    "hdf5": FileKind(
        "an HDF5 file",
        f"jaxneuron.convert.from_keras reads Keras's, and {_CONVERT}, weights alone with "
        f"{_ACTIVATIONS}; read other arrays with h5py, and pass them to from_pairs",
        "pass a data set, h5py.File({literal})['NAME'], to evaluate, or save it as .npy",
    ),
    "msgpack": FileKind(
        "a msgpack file, as Flax writes it",
        "pass flax.serialization.msgpack_restore(Path({literal}).read_bytes()) to "
        "jaxneuron.convert.from_flax",
        _AS_ROWS,
    ),
    "tflite": FileKind(
        "a TensorFlow Lite model", "convert the Keras model that it was made from", _IS_NETWORK
    ),
    "savedmodel": FileKind(
        "a SavedModel folder of TensorFlow",
        "load it in TensorFlow, and pass its kernels and biases to jaxneuron.convert.from_pairs",
        _IS_NETWORK,
    ),
    "orbax": FileKind(
        "an Orbax checkpoint",
        "restore it with Orbax, and pass the parameters to the reader of their library, "
        "such as jaxneuron.convert.from_flax",
        _IS_NETWORK,
    ),
    # rows
    "npy": FileKind("a .npy file of one NumPy array", _IS_ROWS, _TO_FILE),
    "parquet": FileKind("a Parquet file", _IS_ROWS, _TO_FILE),
    "csv": FileKind("CSV", _IS_ROWS, _TO_FILE),
    "utf16": FileKind(
        "text in UTF-16", _IS_ROWS, "save it as UTF-8, with iconv -f UTF-16 -t UTF-8 {path} > rows.csv"
    ),
    "arrow": FileKind(
        "an Arrow file",
        _IS_ROWS,
        "save it as Parquet, with "
        "pyarrow.parquet.write_table(pyarrow.feather.read_table({literal}), 'rows.parquet')",
    ),
    "parquets": FileKind(
        "a folder of Parquet files",
        _IS_ROWS,
        "evaluate each file, or join them, with "
        "pyarrow.parquet.write_table(pyarrow.parquet.read_table({literal}), 'rows.parquet')",
    ),
    "excel": FileKind("an Excel workbook", _IS_ROWS, "save the sheet as CSV, in UTF-8"),
    "matlab": FileKind(
        "a MATLAB file",
        "read its arrays with scipy.io.loadmat, and pass them to jaxneuron.convert.from_pairs",
        "read it with scipy.io.loadmat and " + _AS_ROWS,
    ),
    # neither, as it is
    "pointer": FileKind(
        "a pointer of Git LFS", f"{_WHOLE}, with git lfs pull", f"{_WHOLE}, with git lfs pull"
    ),
    "html": FileKind("a web page", f"{_WHOLE}, not the page about it", f"{_WHOLE}, not the page about it"),
    "zip": FileKind(
        "a zip archive", "unpack it, and pass the file in it", "unpack it, and pass the file in it"
    ),
    **{
        name: FileKind(
            f"a file packed by {name}",
            f"unpack it with {unpack}",
            f"unpack it with {unpack}, or pass CSV on standard input: "
            f"{unpack} -c {{path}} | jaxneuron run MODEL - -o OUT",
        )
        for name, unpack in (
            ("gzip", "gunzip"),
            ("bzip2", "bunzip2"),
            ("xz", "unxz"),
            ("zstd", "unzstd"),
        )
    },
}
BEGINNINGS = {
    b"\x93NUMPY": "npy",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"FEA1": "arrow",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\xff\xfe": "utf16",
    b"\xfe\xff": "utf16",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xd0\xcf\x11\xe0": "excel",
    b"MATLAB ": "matlab",
}
# What the names in a zip archive say of it. The first that is found counts.
MEMBERS = {
    b"model.weights.h5": "keras",
    b"policy.pth": "policy",
    b"/data.pkl": "torch",
    b"xl/workbook": "excel",
    b".npy": "npz",
}
# Kinds that a suffix tells from others whose first bytes are the same.
WITHIN = {"zip": ("keras", "npz", "torch"), "pickle": ("torch",)}
SUFFIXES = {
    ".safetensors": "safetensors",
    ".onnx": "onnx",
    ".keras": "keras",
    ".npz": "npz",
    ".stablehlo": "stablehlo",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".pt": "torch",
    ".pth": "torch",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
    ".msgpack": "msgpack",
    ".npy": "npy",
    ".parquet": "parquet",
    ".csv": "csv",
}


def check_kind(path: str | os.PathLike[str], kind: str, wanted: str) -> None:
    """Refuses a file of another kind than `kind`, which messages call `wanted`, and says what reads it."""
    found = kind_of(path)
    if found not in (None, kind):
        raise BadValue(f"{path}: must be {wanted}, got {described(path, found)}")


def described(path: str | os.PathLike[str], kind: str, rows: bool = False) -> str:
    """A kind of file, and what to do with the one at `path`."""
    return f"{KINDS[kind].name}; {remedy(path, kind, rows)}"


def remedy(path: str | os.PathLike[str], kind: str, rows: bool = False) -> str:
    """What to do with the file of this kind at `path`, where rows or else a network is wanted."""
    path, advice = Path(path), KINDS[kind].rows if rows else KINDS[kind].network
    out = path.parent / f"{path.stem}.safetensors"
    return advice.format(path=shlex.quote(str(path)), out=shlex.quote(str(out)), literal=repr(str(path)))


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """The key in `KINDS` of what lies at `path`; None if nothing tells it, or if it can't be read."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return _kind_of_folder(path)
        if not stat.S_ISREG(status.st_mode):  # what is read from a pipe is gone
            return None
        with open(path, "rb") as file:
            head = file.read(HEAD)
            if head.startswith(b"PK\x03\x04"):
                file.seek(max(0, status.st_size - TAIL))
                head += file.read(TAIL)
    except OSError:
        return None
    suffix = SUFFIXES.get(Path(path).suffix.lower())
    found = kind_of_bytes(head, status.st_size)
    return suffix if found is None or suffix in WITHIN.get(found, ()) else found


def kind_of_bytes(head: bytes, size: int | None = None) -> str | None:
    """The kind of a file of `size` bytes that begins with `head`; of a zip archive, its end appended."""
    if head[8:9] == b"{" and size and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"  # before all others: the length of its header may be any bytes
    if len(head.translate(None, CONTROLS)) == len(head):  # text, which may have a column PAR1
        return _kind_of_text(head)
    for beginning, kind in BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return next((kind for name, kind in MEMBERS.items() if name in head), "zip")
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "torch" if b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head[:16] else "pickle"
    if head[4:8] == b"TFL3":
        return "tflite"
    if len(head) >= 8 and not any(head[1:8:2]) and all(9 <= byte < 127 for byte in head[:8:2]):
        return "utf16"
    return "msgpack" if _is_msgpack(head) else "onnx" if _is_onnx(head) else None


def _kind_of_text(head: bytes) -> str | None:
    if head.startswith(b"version https://git-lfs"):
        return "pointer"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    for line in head.splitlines()[:3]:
        with contextlib.suppress(ValueError):
            if [float(field) for field in line.split(b",")]:
                return "csv"
    return None


def _is_msgpack(head: bytes) -> bool:
    """Whether this is a map whose first key is a word."""
    at = 1 if 0x81 <= head[0] <= 0x8F else 3 if head[0] == 0xDE else len(head)
    if not 0xA1 <= int.from_bytes(head[at : at + 1]) <= 0xBF:
        return False
    return _is_word(head[at + 1 : at + 1 + (head[at] & 31)])


def _is_onnx(head: bytes) -> bool:
    """Whether this is protobuf with an IR version of ONNX and then another of a ModelProto's fields."""
    if len(head) < 4 or head[0] != 0x08 or not 3 <= head[1] <= 30:
        return False
    if head[2] == 0x12:  # the producer's name; a Core ML model has a message there
        return _is_word(head[4 : 4 + head[3]])
    return head[2] in (0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)


def _is_word(content: bytes) -> bool:
    return content.isascii() and content.decode("ascii").isprintable()


def _kind_of_folder(path: str | os.PathLike[str]) -> str | None:
    names = set(os.listdir(path))
    if "saved_model.pb" in names:
        return "savedmodel"
    if names & {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt"}:
        return "orbax"
    return "parquets" if any(name.endswith(".parquet") for name in names) else None
