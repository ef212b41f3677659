"""Layers in `.npz` files, both ways: `w0`, `b0`, `w1`, `b1`, ..., without activations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jaxneuron._atomic import replacing
from jaxneuron._errors import BadValue
from jaxneuron._file_kinds import check_kind
from jaxneuron._members import check_one
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._archives import members, npy_array


def read_pairs(path: Path) -> list[Affine]:
    """The layers in a file. Refuses a file that holds anything else."""
    check_kind(path, "npz", "an .npz archive of w0, b0, w1, b1, ...")
    found = members(path, lambda name: True)
    arrays = {}
    for member, content in found.items():
        match = re.fullmatch(r"([wb])(0|[1-9]\d{0,4})\.npy", member, re.ASCII)
        if not match:
            raise BadValue(
                f"{path} must hold only w0, b0, w1, b1, ..., got {member[:60]!r}; save it without that"
            )
        try:
            arrays[match[1], int(match[2])] = npy_array(content)
        except ValueError as error:
            raise BadValue(f"{path}: {member} is not a sound array ({error}); save it again") from None
    count = sum(name == "w" for name, _ in arrays)
    for i in range(count):
        if ("w", i) not in arrays:
            raise BadValue(f"{path} must hold w0 to w{count - 1}, got no w{i}; save it with all layers")
    layers = [Affine(arrays.pop(("w", i)), arrays.pop(("b", i), None)) for i in range(count)]
    if arrays:
        name, i = min(arrays)
        raise BadValue(
            f"{path} must hold a w for each b, got {name}{i} beside {count} layers; save it with all layers"
        )
    return layers


def write_pairs(mlp: MLP, path: Path) -> None:
    """Write the layers to a file that NumPy reads."""
    check_one(mlp)
    arrays = {
        f"{name}{i}": np.asarray(array)
        for i, layer in enumerate(mlp.layers)
        for name, array in layer._asdict().items()
        if array is not None
    }
    if any(array.dtype.name == "bfloat16" for array in arrays.values()):
        raise BadValue(f"{path}: NumPy's files hold no bfloat16; pass --dtype float32")
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type] # to mypy any name may be allow_pickle
