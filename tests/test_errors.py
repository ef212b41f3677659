"""Every public function refuses bad arguments. Its message names the function and the argument."""

import importlib.util
import inspect
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO

import jaxneuron
from jaxneuron import MLP, Affine, convert, gates, plot
from jaxneuron._errors import BadType, BadValue, inside, public
from jaxneuron.testing import assert_within_error_bound

NETWORK = MLP([(np.ones((2, 3)), np.zeros(3)), (np.ones((3, 1)), None)], final_activation="identity")
STACKED = jax.tree.map(lambda a: np.stack([a, a]), NETWORK)
UNEVEN = jax.tree.map(lambda a: np.stack([a] * (2 if a.shape == (2, 3) else 3)), NETWORK)
LAYER = Affine(np.ones((2, 3)), np.zeros(3))
TREE = {f"hidden_{i}": {"kernel": np.ones((2, 2)), "bias": np.zeros(2)} for i in range(2)}
STATE = {
    f"{i}.{name}": a for i in range(2) for name, a in (("weight", np.ones((2, 2))), ("bias", np.zeros(2)))
}
NORMALIZER = types.SimpleNamespace(mean=np.zeros(2), std=np.ones(2))


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, z):
        return z


NOT_NUMBERS = (
    object(),
    None,
    "text",
    b"bytes",
    [[1.0], [1.0, 2.0]],
    np.ones(2, complex),
    {"a": 1.0},
    {1.0, 2.0},
    np.ma.array([1.0, 2.0], mask=[False, True]),
    [[1.0, 2.0], np.ma.array([1.0, 2.0], mask=[False, True])],
    scipy.sparse.csr_array(np.eye(2)),
    BCOO.fromdense(np.eye(2)),
)
ROWS = (*NOT_NUMBERS, 1.0, np.ones(3), np.ones((4, 3)))
NOT_ACTIVATIONS = (object(), None, 1.0, "relo", "", Unhashable())
NOT_PARAMETERS = (object(), None, "0.2", 1j, True, np.ones(2), np.nan, np.inf, 1e39, 10**400)
NOT_SIZES = (object(), None, 3, (2,), (2, -1), (2, 1.5), "22", ())
NOT_NETWORKS = (object(), None, "text", LAYER, [LAYER], [(np.ones((2, 2)), np.zeros(2))])
NOT_LAYERS = (
    [(np.ma.ones((2, 3)), None)],
    [(np.ones((2, 3)), np.ma.ones(3))],
    [(BCOO.fromdense(np.ones((2, 3))), None)],
    object(),
    None,
    1.0,
    "text",
    LAYER,
    [],
    [LAYER, LAYER],
    [(np.ones(2), 0.0)],
    [(np.ones((2, 3)), np.ones(2))],
)
NOT_PARAMS = (
    Affine(np.ma.ones((2, 3))),
    Affine(scipy.sparse.csr_array(np.ones((2, 3)))),
    object(),
    None,
    "text",
    np.ones(2),
    (np.ones(2),),
    Affine("text"),
    Affine(np.ones((2, 3)), np.ones(2)),
    STACKED.layers[0],
)
NOT_DTYPES = (int, "complex64")
# 1e-5 is refused because these networks have no BatchNorm.
NOT_EPSILONS = (object(), "1e-5", True, -1.0, np.nan, 1e-5)
NOT_STACKED = (object(), 3, True, "member", "", ["members"])
NOT_CHECKS = (
    3,
    "text",
    np.ones((2, 2)),
    (np.ones((1, 2)),),
    (object(), 0.0),
    (np.ones((1, 2)), "text"),
    (np.ones((1, 5)), np.ones((1, 2))),
    (np.ones((1, 2)), np.ones((2, 2))),
    (np.ones((4, 2)), np.full((4, 2), 99.0)),
)
NOT_OUTPUTS = (3, "0:2", slice(9, None), slice("a"), slice(0, 2, 0))
NOT_SCALINGS = (*NOT_NUMBERS, np.ones(5), np.nan, np.inf)


def evaluator(x, out=None):
    return jaxneuron.Evaluator(NETWORK)(x, out)


evaluator.__name__ = "Evaluator"  # error messages begin with this name


def value_and_jacobian(x):
    return jaxneuron.Evaluator(NETWORK).value_and_jacobian(x)


value_and_jacobian.__name__ = "Evaluator.value_and_jacobian"


class Public(NamedTuple):
    """A public function, good arguments for it, and for each argument the bad values that it must refuse."""

    function: Callable[..., Any]
    good: dict[str, Any]
    bad: dict[str, tuple[Any, ...]]
    library: str = "numpy"  # the library that it imports when it is called


IMPORTED = {"activation": "relu", "final_activation": "identity"}
BAD_IMPORTED = {
    "activation": NOT_ACTIVATIONS,
    "final_activation": NOT_ACTIVATIONS,
    "dtype": NOT_DTYPES,
    "check": NOT_CHECKS,
}
FUNCTIONS = [
    Public(MLP, {"layers": [LAYER]}, {"inputs": (3, "ab", ["a"], ["a", "a"], ["a", 1]), "outputs": (3, "abc", ["a"], ["a", "b", "a"], [None] * 3), "layers": NOT_LAYERS, "activation": (*NOT_ACTIVATIONS, "softmax", ("relu", "relu")), "final_activation": NOT_ACTIVATIONS}),
    Public(jaxneuron.affine, {"params": LAYER, "x": np.ones(2)}, {"params": NOT_PARAMS, "x": ROWS}),
    Public(jaxneuron.neuron, {"params": LAYER, "x": np.ones(2)}, {"params": NOT_PARAMS, "x": ROWS, "activation": (*NOT_ACTIVATIONS, np.sum, lambda z: z.astype(complex))}),
    Public(jaxneuron.mlp_forward, {"mlp": NETWORK, "x": np.ones(2)}, {"mlp": NOT_NETWORKS, "x": ROWS}),
    Public(jaxneuron.mlp_value_and_jacobian, {"mlp": NETWORK, "x": np.ones(2)}, {"mlp": NOT_NETWORKS, "x": ROWS}),
    Public(jaxneuron.mlp_laplacian, {"mlp": NETWORK, "x": np.ones(2)}, {"mlp": NOT_NETWORKS, "x": ROWS}),
    Public(jaxneuron.explain, {"mlp": NETWORK, "batch": np.ones(2)}, {"mlp": NOT_NETWORKS, "batch": ROWS, "derivatives": (1, None, "yes")}),
    Public(jaxneuron.evaluate, {"mlp": NETWORK, "rows": np.ones((4, 2))}, {
        "mlp": NOT_NETWORKS, "rows": (object(), None, np.ones(2), np.ones((4, 3)), np.ones((4, 2), complex), [["a", "b"]], np.ma.ones((4, 2)), scipy.sparse.csr_array(np.eye(2)), BCOO.fromdense(np.eye(2)), [np.ma.ones((4, 2))]),
        "out": (object(), [0.0], np.ones((4, 2)), np.ones((3, 1)), np.ones((4, 1), int)), "tile": (0, -1, 1.5, "16"), "devices": ((), [0], "cpu"),
    }),
    Public(jaxneuron.Evaluator, {"mlp": NETWORK}, {"mlp": NOT_NETWORKS, "each": (1, None, "yes", True), "threads": (0, -1, 1.5, "2", object())}),
    Public(evaluator, {"x": np.ones((4, 2))}, {"x": ROWS, "out": (object(), [0.0], np.ones((4, 2)), np.ones(4), np.ones((4, 1), int))}),
    Public(value_and_jacobian, {"x": np.ones((4, 2))}, {"x": ROWS}),
    Public(jaxneuron.init_mlp, {"key": jax.random.key(0), "sizes": (2, 1)}, {
        "key": (object(), None, 0, np.ones(3)), "sizes": NOT_SIZES, "activation": (*NOT_ACTIVATIONS, "softmax", ("relu",)), "final_activation": NOT_ACTIVATIONS, "dtype": NOT_DTYPES,
    }),
    Public(jaxneuron.stack_neurons, {"neurons": [Affine(np.ones(2), 0.0)]}, {"neurons": (object(), None, Affine(np.ones(2)), [], [LAYER], [Affine(np.ones(2)), Affine(np.ones(3))], ["text"])}),
    Public(jaxneuron.parameter_count, {"params": LAYER}, {"params": (object(), None, [LAYER], Affine("text"))}),
    Public(jaxneuron.dense_parameter_count, {"sizes": (2, 1)}, {"sizes": NOT_SIZES}),
    Public(jaxneuron.summary, {"mlp": NETWORK}, {"mlp": NOT_NETWORKS}),
    Public(jaxneuron.fold_input_scaling, {"mlp": NETWORK, "mean": 0.0, "std": 1.0}, {"mlp": (*NOT_NETWORKS, STACKED), "mean": NOT_SCALINGS, "std": (*NOT_SCALINGS, 0.0)}),
    Public(jaxneuron.fold_output_scaling, {"mlp": NETWORK, "scale": 1.0, "shift": 0.0}, {"mlp": (*NOT_NETWORKS, STACKED), "scale": NOT_SCALINGS, "shift": NOT_SCALINGS}),
    Public(jaxneuron.save, {"path": "network.safetensors", "mlp": NETWORK}, {"path": (object(), None, 3), "mlp": (*NOT_NETWORKS, UNEVEN)}),
    Public(jaxneuron.load, {}, {"path": (object(), None, 3)}),
    Public(jaxneuron.RowEvaluator, {"model": NETWORK}, {"model": (object(), None, 3, [LAYER])}),
    Public(gates.truth_table, {"params": gates.XOR}, {"params": (object(), None, "text", Affine(np.ones((2, 2, 2))))}),
    Public(plot.plot_activation, {}, {"activations": NOT_ACTIVATIONS}),
    Public(plot.plot_decision, {"params": gates.XOR}, {"params": (object(), None, "text", Affine(np.ones(3)))}),
    Public(plot.plot_error, {}, {"functions": NOT_ACTIVATIONS}),
    Public(plot.plot_network, {"mlp": NETWORK}, {"mlp": NOT_NETWORKS}),
    Public(convert.from_pairs, {"pairs": [LAYER], "orientation": "in_out", **IMPORTED}, {"pairs": ([(np.ma.ones((2, 3)), None)], [(scipy.sparse.csr_array(np.eye(2)), None)], object(), None, 3, [], ["text"], [(np.ones(2), None)], [LAYER, LAYER]), "orientation": (None, "out"), **BAD_IMPORTED}),
    Public(convert.from_flax, {"params": TREE, **IMPORTED}, {"params": (object(), None, [], {}, {"Dense_0": {"kernel": "text"}}, {"Dense_0": {"kernel": np.ma.ones((2, 3))}}), "layers": (3, [], ["Dense_5"]), "epsilon": NOT_EPSILONS, "outputs": NOT_OUTPUTS, "stacked": (*NOT_STACKED, "members", "layers"), **BAD_IMPORTED}),
    Public(convert.from_haiku, {"params": {"linear": {"w": np.ones((2, 2))}}, **IMPORTED}, {"params": (object(), None, [], {}), "layers": (3, [], ["linear_5"]), "state": (3, [], {"a": np.ones(2)}, {"batch_norm": {"average": np.ones(2)}}), "epsilon": NOT_EPSILONS, "outputs": NOT_OUTPUTS, "stacked": (*NOT_STACKED, "members", "layers"), **BAD_IMPORTED}),
    Public(convert.from_brax, {"params": (NORMALIZER, TREE), "activation": "relu"}, {"params": (object(), None, 3, []), "activation": NOT_ACTIVATIONS, "check": NOT_CHECKS}),
    Public(convert.from_torch, {"source": STATE, **IMPORTED}, {"source": (object(), 3, {}, {"0.weight": "text"}, {"0.weight": np.ma.ones((2, 3))}), "layers": (3, [], ["5"]), "outputs": NOT_OUTPUTS, **BAD_IMPORTED}),
    Public(convert.from_equinox, {}, {"module": (object(), None, 3)}, "equinox"),
    Public(convert.from_nnx, {}, {"module": (object(), None, 3)}, "flax"),
    Public(convert.from_keras, {}, {"source": (object(), None, 3)}, "keras"),
    Public(convert.from_sklearn, {}, {"estimator": (object(), None, 3)}, "sklearn"),
    Public(convert.from_onnx, {"source": Path(__file__).parent / "data" / "qlknn_7_11.onnx", "output": "/Add_output_0"}, {"source": (object(), None, 3), "output": (3, "nowhere"), "outputs": (3, "text", [0], slice(8, 9), slice("a")), "dtype": NOT_DTYPES, "check": NOT_CHECKS[:6]}, "onnx"),
    *(
        Public(getattr(convert, name), {}, {"mlp": NOT_NETWORKS}, library)
        for name, library in (("to_equinox", "equinox"), ("to_flax_params", "numpy"), ("to_keras", "keras"), ("to_torch_state_dict", "torch"))
    ),
    Public(convert.to_onnx, {"path": "network.onnx"}, {"mlp": NOT_NETWORKS}, "onnx"),
    Public(convert.export, {"mlp": NETWORK, "path": "network.stablehlo"}, {"mlp": NOT_NETWORKS, "weights": (None, "outside")}),
    Public(convert.load_exported, {}, {"path": (object(), None, 3)}),
    Public(jaxneuron.LeakyReLU, {"slope": 0.2}, {"slope": NOT_PARAMETERS}),
    Public(jaxneuron.ELU, {"alpha": 0.5}, {"alpha": (*NOT_PARAMETERS, 1e38)}),
    Public(jaxneuron.CELU, {"alpha": 0.5}, {"alpha": (*NOT_PARAMETERS, 0, -1.0, 1e31)}),
    Public(jaxneuron.Softplus, {"beta": 2}, {"beta": (*NOT_PARAMETERS, 0, -1.0, 1e-31)}),
    Public(jaxneuron.HardTanh, {"low": 0.0, "high": 1.0}, {"low": (*NOT_PARAMETERS, 1.0), "high": (*NOT_PARAMETERS, 0.0)}),
    Public(jaxneuron.Sin, {"frequency": 30}, {"frequency": NOT_PARAMETERS}),
    *(Public(getattr(jaxneuron, name), {"z": [1.0]}, {"z": NOT_NUMBERS}) for name in jaxneuron._names.BY_NAME),
]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "argument", "value"),
    [(entry, argument, value) for entry in FUNCTIONS for argument, values in entry.bad.items() for value in values],
    ids=lambda each: getattr(getattr(each, "function", None), "__name__", None),
)  # fmt: skip
def test_a_refusal_names_the_function_and_its_argument(entry, argument, value, tmp_path, monkeypatch):
    pytest.importorskip(entry.library)
    monkeypatch.chdir(tmp_path)
    name = entry.function.__name__
    if inspect.signature(entry.function).parameters[argument].kind is inspect.Parameter.VAR_POSITIONAL:
        call = lambda: entry.function(value)  # noqa: E731
        argument = argument.removesuffix("s")
    else:
        call = lambda: entry.function(**{**entry.good, argument: value})  # noqa: E731
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert type(caught.value) in (ValueError, TypeError)
    first = str(caught.value).partition(";")[0]
    assert first.startswith(f"{name}: "), first
    # If one layer or neuron of the argument is bad, the message may name that instead.
    assert re.search(rf"\b{argument}\b|\blayers? \d|\bneuron \d|\bsoftmax\b", first), first


def test_these_tests_call_every_public_function():
    called = {entry.function for entry in FUNCTIONS}
    for module in (jaxneuron, convert, gates, plot):
        for name in module.__all__ if hasattr(module, "__all__") else vars(module):
            function = getattr(module, name)
            here = callable(function) and getattr(function, "__module__", "").startswith("jaxneuron")
            if here and not name.startswith("_") and function not in (Affine, plot.plot_gates):
                imported = module in (gates, plot) and function.__module__ != module.__name__
                assert function in called or imported, name


def test_good_arguments_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for entry in FUNCTIONS:
        required = [
            parameter.name
            for parameter in inspect.signature(entry.function).parameters.values()
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        ]
        if set(required) <= set(entry.good) and importlib.util.find_spec(entry.library):
            entry.function(**entry.good)


# --- inside a trace ---

BUILDERS = [
    entry
    for entry in FUNCTIONS
    if entry.good and entry.function.__name__.startswith(("from_", "MLP", "stack_", "fold_"))
]


def with_jax_arrays(good):
    return {name: jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a, value) for name, value in good.items()}  # fmt: skip


@pytest.mark.parametrize("entry", BUILDERS, ids=lambda entry: entry.function.__name__)
@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_concrete_arrays_give_concrete_arrays_inside_a_trace(entry, transform):
    pytest.importorskip(entry.library)
    built = []
    in_jax = with_jax_arrays(entry.good)

    @transform
    def traced(x):
        built.extend(jax.tree.leaves(entry.function(**entry.good)))
        built.extend(jax.tree.leaves(entry.function(**in_jax)))
        return x

    traced(jnp.ones(()) if transform is jax.grad else jnp.ones(2))
    assert built
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in built)


@pytest.mark.parametrize("entry", BUILDERS, ids=lambda entry: entry.function.__name__)
def test_tracers_give_tracers_or_are_refused_by_name(entry):
    pytest.importorskip(entry.library)
    arrays, structure = jax.tree.flatten(with_jax_arrays(entry.good), is_leaf=lambda a: isinstance(a, str))
    strings = {i: leaf for i, leaf in enumerate(arrays) if not isinstance(leaf, jax.Array)}
    name = entry.function.__name__

    def call(*given):
        each = iter(given)
        leaves = [strings[i] if i in strings else next(each) for i in range(len(arrays))]
        built = jax.tree.leaves(entry.function(**jax.tree.unflatten(structure, leaves)))
        assert not given or any(isinstance(leaf, jax.core.Tracer) for leaf in built)

    try:
        jax.jit(call)(*(leaf for i, leaf in enumerate(arrays) if i not in strings))
    except TypeError as error:
        assert str(error).startswith(f"{name}: ")  # noqa: PT017 # a tracer result or this error is right
        assert "tracer" in str(error)  # noqa: PT017


def test_writers_refuse_tracers(tmp_path):
    with pytest.raises(
        TypeError, match=r"^save: arrays must hold numbers here, got tracers; call the function outside jit"
    ):
        jax.jit(lambda mlp: jaxneuron.save(tmp_path / "a", mlp))(NETWORK)
    assert not list(tmp_path.iterdir())


# --- the mechanism ---


def test_messages_name_the_function_that_was_called():
    @public
    def inner(x):
        raise BadValue("x must be even, got 3")

    @public
    def outer(x):
        with inside("row 2"):
            inner.__wrapped__(x)

    with pytest.raises(ValueError, match=r"^\S*inner: x must be even, got 3$"):
        inner(3)
    with pytest.raises(ValueError, match=r"^\S*outer: row 2: x must be even, got 3$") as caught:
        outer(3)
    assert type(caught.value) is ValueError


def test_bad_type_is_raised_as_a_type_error():
    @public
    def function(x):
        raise BadType("x must be a number, got str")

    with pytest.raises(TypeError, match="x must be a number") as caught:
        function("a")
    assert type(caught.value) is TypeError


def test_numbers_too_small_or_too_large_raise_nothing_that_numpy_was_told_to_raise():
    layers, rows = [(np.array([[1e-44, 1.0]]), np.array([1e-310, 1.0]))], np.array([[1e-310], [1e39]])
    with np.errstate(all="raise"):
        for dtype in ("float32", "float16", "bfloat16"):
            mlp = convert.from_pairs(
                layers, orientation="in_out", activation="relu", final_activation="identity", dtype=dtype
            )
            for call in (
                jaxneuron.mlp_forward,
                jaxneuron.evaluate,
                lambda mlp, x: jaxneuron.Evaluator(mlp)(x),
            ):
                assert np.asarray(call(mlp, rows)).shape == (2, 2)
            jaxneuron.mlp_value_and_jacobian(mlp, rows)
            jaxneuron.fold_output_scaling(mlp, 1e-300, 1e-300)
        exact = np.array([[1e-44 + 1e-310, 2.0]])
        assert_within_error_bound(MLP(layers, final_activation="identity"), [[1.0]], exact)
