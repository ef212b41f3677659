"""The public names, and their errors if a library is missing."""

import inspect
import re
import sys

import pytest

from jaxneuron import MLP, convert, gates
from jaxneuron.convert import from_pairs, to_equinox, to_keras, to_onnx
from tests.convert.networks import RELU


def test_every_function_is_exported_and_documented():
    functions = {name for name, value in vars(convert).items() if inspect.isfunction(value)}
    assert convert.__all__ == sorted(functions)
    assert all(getattr(convert, name).__doc__ for name in functions)
    assert isinstance(from_pairs([([[1.0]], None)], orientation="in_out", **RELU), MLP)


@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("flax", lambda: convert.from_nnx(None), "from_nnx: needs the flax library; pip install flax"),
        ("equinox", lambda: convert.from_equinox(None), "from_equinox: needs the equinox library; pip install equinox"),
        ("equinox", lambda: to_equinox(gates.XOR), "to_equinox: needs the equinox library; pip install equinox"),
        ("onnx", lambda: convert.from_onnx("a.onnx"), "from_onnx: needs the onnx library; pip install 'jaxneuron[onnx]'"),
        ("onnx", lambda: to_onnx(gates.XOR, "a.onnx"), "to_onnx: needs the onnx library; pip install 'jaxneuron[onnx]'"),
        ("h5py", lambda: convert.from_keras("a.keras"), "from_keras: needs the h5py library; pip install 'jaxneuron[keras]'"),
        ("keras", lambda: to_keras(gates.XOR), "to_keras: needs the keras library and its backend (import of keras halted"),
        ("flatbuffers", lambda: convert.export(gates.XOR, "a"), "export: needs the flatbuffers library; pip install 'jaxneuron[export]'"),
        ("flatbuffers", lambda: convert.load_exported("a"), "load_exported: needs the flatbuffers library; pip install 'jaxneuron[export]'"),
        ("torch", lambda: convert.to_torch_state_dict(gates.XOR), "to_torch_state_dict: needs PyTorch; pip install torch"),
    ],
)  # fmt: skip
def test_functions_name_the_library_that_is_missing(monkeypatch, module, call, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=re.escape(message)):
        call()
