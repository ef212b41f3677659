"""Reads ONNX files and their tensors. Their size is checked before they are parsed, and code is never run."""

from __future__ import annotations

import math
import os
from typing import Any

import ml_dtypes
import numpy as np

from jaxneuron._errors import BadValue
from jaxneuron._file_kinds import check_kind

MOST_FIELDS = 30_000  # without the numbers in tensors; an MLP of a thousand layers has 20,000 fields
# The fields that hold messages: message -> field number in onnx.proto -> the message in that field.
INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
DTYPES = {
    **{1: "float32", 11: "float64", 10: "float16", 16: ml_dtypes.bfloat16, 9: "bool"},
    **{2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 12: "uint32", 13: "uint64"},
}
FLOAT, DOUBLE = 1, 11
FLOATS = (FLOAT, 10, DOUBLE, 16)
# The fields for numbers that are not in raw_data. Other dtypes use int32_data; there bfloat16 and float16 are
# stored as bits.
TYPED = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}


def read_model(path: str | os.PathLike[str], library: Any) -> Any:
    """The model in a file. Refuses a file that is not a model, or that holds more than an MLP would."""
    check_kind(path, "onnx", "an ONNX model")
    with open(path, "rb") as file:
        content = file.read()
    if _fields(memoryview(content)) > MOST_FIELDS:
        raise BadValue(
            f"{path} must hold at most {MOST_FIELDS:,} fields, got more; "
            f"extract the part that is an MLP with onnx.utils.extract_model"
        )
    try:
        model = library.ModelProto.FromString(content)
    except Exception:  # google.protobuf.message.DecodeError, or an error of the parser behind it
        model = library.ModelProto()
    if not model.HasField("graph"):
        raise BadValue(f"{path} is not a whole ONNX file; copy or export it again")
    return model


def _fields(content: memoryview) -> int:
    """The number of fields in the messages of a serialised model, or MOST_FIELDS + 1 if there are more.

    In a message whose bytes stop being protobuf, the count ends there; the parser then refuses the file.
    """
    count, waiting = 0, [(content, "model")]
    while waiting:
        view, kind = waiting.pop()
        at = 0
        while at < len(view):
            count += 1
            if count > MOST_FIELDS:
                return count
            key, at = _varint(view, at)
            length = 0
            if key & 7 == 0:
                _, at = _varint(view, at)
            elif key & 7 in (1, 5):
                at += 8 if key & 7 == 1 else 4
            elif key & 7 == 2:
                length, at = _varint(view, at)
            else:
                break
            if length and (inner := INNER[kind].get(key >> 3)):
                waiting.append((view[at : at + length], inner))
            at += length
    return count


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at >= len(view):
            break
        byte = view[at]
        value |= (byte & 0x7F) << 7 * i
        at += 1
        if byte < 0x80:
            break
    return value, at


def tensor(proto: Any, folder: str | None) -> np.ndarray:
    """The array in a TensorProto. Raises ValueError with the reason if it does not hold one.

    Args:
      proto: the TensorProto.
      folder: the folder in which its external data must be; None if external data is not allowed.
    """
    if proto.data_type not in DTYPES:
        raise BadValue(
            f"the tensor {_short(proto.name)} has the data type {proto.data_type}, which holds no numbers; "
            f"export the model again"
        )
    dtype, shape = np.dtype(DTYPES[proto.data_type]), tuple(proto.dims)
    size = math.prod(shape)
    if min(shape, default=0) < 0 or size * dtype.itemsize > 2**48:
        raise BadValue(f"the tensor {_short(proto.name)} has the shape {shape}; export the model again")
    if proto.data_location == 1:
        array = np.frombuffer(_external(proto, folder, size * dtype.itemsize), dtype)
    elif proto.HasField("raw_data"):
        if len(proto.raw_data) != size * dtype.itemsize:
            raise BadValue(
                f"the tensor {_short(proto.name)} must have {size * dtype.itemsize} bytes "
                f"for its shape {shape}, got {len(proto.raw_data)}; export the model again"
            )
        array = np.frombuffer(proto.raw_data, dtype)
    else:
        numbers = getattr(proto, TYPED.get(proto.data_type, "int32_data"))
        if len(numbers) != size:
            raise BadValue(
                f"the tensor {_short(proto.name)} must have {size} numbers for its shape {shape}, "
                f"got {len(numbers)}; export the model again"
            )
        array = np.array(numbers, np.int64 if dtype.itemsize == 2 else None)
        array = array.astype(np.uint16).view(dtype) if dtype.itemsize == 2 else array.astype(dtype)
    return array.reshape(shape)


def _external(proto: Any, folder: str | None, size: int) -> bytes:
    entries = {entry.key: entry.value for entry in proto.external_data}
    name = entries.get("location", "")
    if folder is None:
        raise BadValue(
            f"the tensor {_short(proto.name)} lies in a file of its own; pass the path of the model"
        )
    folder = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(folder, name))
    if not name or os.path.isabs(name) or "\0" in name or os.path.commonpath([folder, path]) != folder:
        raise BadValue(
            f"the tensor {_short(proto.name)} must lie in a file beside the model, got {_short(name)}; "
            f"export the model with its data in that folder"
        )
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(size)))
    except ValueError:
        offset = length = -1
    with open(path, "rb") as file:
        if offset < 0 or length != size or os.fstat(file.fileno()).st_size < offset + length:
            raise BadValue(
                f"the tensor {_short(proto.name)} must have {size} bytes in {_short(name)}, "
                f"got fewer or more; copy the whole file again"
            )
        file.seek(offset)
        return file.read(length)


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")


def kind_of(dtype: Any) -> int:
    """ONNX's number for a dtype."""
    return next(kind for kind, name in DTYPES.items() if np.dtype(name) == dtype)
