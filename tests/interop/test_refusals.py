"""Every function of `convert`, called with each kind of wrong argument, names itself and the argument."""

import inspect

import jax
import numpy as np
import pytest

from jaxneuron import convert, gates
from jaxneuron.convert import to_onnx

for library in ("equinox", "flax", "h5py", "keras", "onnx", "torch"):
    pytest.importorskip(library)

import equinox  # noqa: E402
from flax import nnx  # noqa: E402

SOURCES = [
    None, 5, 1.5, b"x", [], (), {}, [1], {"a": 1}, {1: {2: 3}}, object(), np.ones(3), [None], (None, None), [[1, 2]],
    [("a", "b")], {"a": {"kernel": "x"}}, gates.AND, jax.tree.map(lambda a: np.stack([a, a]), gates.XOR),
]  # fmt: skip
NOT_NAMES = [5, 1.5, b"x", ["tanh", 5], {}, np.ones(2), object(), ["a", "b"]]
NOT_PATHS = [None, 5, 1.5, b"x", [], {}, object()]
GIVEN = {"activation": "relu", "final_activation": "identity"}
XOR = jax.tree.map(np.float32, gates.XOR)
DENSE = np.ones((2, 2), np.float32)


class Normalizer:
    mean, std = np.zeros(2), np.ones(2)


@pytest.fixture
def calls(tmp_path):
    """A call of every function that succeeds: its first argument, and the others."""
    to_onnx(XOR, tmp_path / "xor.onnx")
    policy = {"params": {"hidden_0": {"kernel": DENSE}}}
    return {
        "from_brax": ((Normalizer(), policy), {"activation": "relu"}),
        "from_equinox": (equinox.nn.Linear(2, 2, key=jax.random.key(0)), {}),
        "from_flax": ({"Dense_0": {"kernel": DENSE}}, GIVEN),
        "from_haiku": ({"linear": {"w": DENSE}}, GIVEN),
        "from_keras": (convert.to_keras(XOR), {}),
        "from_nnx": (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), GIVEN),
        "from_onnx": (tmp_path / "xor.onnx", {}),
        "from_pairs": ([(DENSE, None)], {"orientation": "in_out", **GIVEN}),
        "from_sklearn": (fitted(), {}),
        "from_torch": ({"0.weight": DENSE}, GIVEN),
        "to_equinox": (XOR, {}),
        "to_flax_params": (XOR, {}),
        "to_keras": (XOR, {}),
        "to_torch_state_dict": (XOR, {}),
        "to_onnx": (XOR, {"path": tmp_path / "m.onnx"}),
        "export": (XOR, {"path": tmp_path / "m.stablehlo"}),
        "load_exported": (None, None),  # a path only
    }


def fitted():
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(hidden_layer_sizes=(2,), max_iter=1000, tol=1.0).fit(np.ones((9, 2)), np.ones(9))


def assert_refuses(name, argument, *arguments, **options):
    with pytest.raises((ValueError, TypeError)) as caught:
        getattr(convert, name)(*arguments, **options)
    function, _, refusal = str(caught.value).partition(": ")
    assert function == name, (str(caught.value), arguments, options)
    assert argument in refusal, (str(caught.value), arguments, options)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_wrong_argument_is_named(calls):
    assert sorted(calls) == sorted(convert.__all__)
    for name, (source, options) in calls.items():
        parameters = inspect.signature(getattr(convert, name)).parameters
        first = next(iter(parameters))
        if source is None:
            for wrong in NOT_PATHS:
                assert_refuses(name, first, wrong)
            continue
        getattr(convert, name)(source, **options)
        for wrong in SOURCES:
            assert_refuses(name, first, wrong, **options)
        for argument, wrongs in {
            "activation": [*NOT_NAMES[:3], "tahn", "softmax"], "final_activation": [*NOT_NAMES, "tahn"], "layers": NOT_NAMES,
            "dtype": [*NOT_NAMES, "int8"], "prefix": NOT_NAMES, "output": [*NOT_NAMES, "nowhere"], "path": NOT_PATHS,
            "orientation": [*NOT_NAMES, None, "rows"], "weights": [*NOT_NAMES, None, "outside"],
            "stacked": [*NOT_NAMES, True, "member"], "state": [*NOT_NAMES[:4], *NOT_NAMES[5:]], "epsilon": [*NOT_NAMES, 1e-5, np.nan],
            "check": [*NOT_NAMES, ([1.0], "x"), (np.ones((1, 9)), np.ones(1)), ([[]], [])],
        }.items():  # fmt: skip
            for wrong in wrongs if argument in parameters else ():
                assert_refuses(name, argument, source, **{**options, argument: wrong})
