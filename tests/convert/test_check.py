"""The comparison of networks with their sources finds wrong networks and accepts right ones. Sources are simulated."""

import itertools
import re
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxneuron import CELU, ELU, MLP, Affine, HardTanh, LeakyReLU, Sin, Softplus, init_mlp, mlp_forward
from jaxneuron._errors import BadType, BadValue
from jaxneuron._math.activations import ACTIVATIONS, OF_ROWS
from jaxneuron.convert import _check
from jaxneuron.convert._check import compare, compare_given
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert.steps import assemble
from jaxneuron.testing import mlps
from tests.convert.networks import normal

SIZES = [(1, 1), (3, 2), (2, 5, 3), (40, 30, 20, 1), (3, 8, 8, 8, 8, 2)]
BITS = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32, "float64": np.float64}


def own(z):
    return z * jnp.sin(z) + jnp.exp(-jnp.abs(z))


OTHERS = (LeakyReLU(-2.0), ELU(1.5), CELU(0.4), Softplus(3.0), HardTanh(-0.5, 2.0), Sin(5.0), own)


def network(name, sizes, dtype, seed=2):
    """Normal weights of variance 1 / n_in, and biases."""
    rng = np.random.default_rng(seed)
    layers = [
        Affine(rng.normal(size=(n, m)).astype(BITS[dtype]) / BITS[dtype](n**0.5), rng.normal(size=m).astype(BITS[dtype]))
        for n, m in itertools.pairwise(sizes)
    ]  # fmt: skip
    return MLP(layers, "tanh" if name in (*OF_ROWS, "exp") else name, name)


def forward(mlp):
    """The forward pass of a source that is the network itself, in the dtype of its weights."""

    def call(rows):
        with jax.enable_x64(True):
            return mlp_forward(mlp, rows.astype(np.asarray(mlp.layers[0].w).dtype))

    return call


def refusal_of(mlp, call, **options):
    """Returns the message with which `compare` refuses the network, or None if it accepts it."""
    try:
        compare(mlp, call, "source", **options)
    except BadValue as refusal:
        return str(refusal)
    return None


@settings(max_examples=40)
@given(mlps(sizes=SIZES, activations=[*sorted(set(ACTIVATIONS) - set(OF_ROWS)), own], final_activations=[*ACTIVATIONS, own], huge=True, tiny=True, subnormal=True))  # fmt: skip
def test_a_network_passes_the_check_against_itself(mlp):
    assert refusal_of(mlp, forward(mlp)) is None


@pytest.mark.parametrize("size", [1e3, 1e4, 136730.0, 1e6])
def test_a_sine_of_large_sums_passes_the_check_against_itself(size):
    mlp = MLP(
        [(np.array([[size]], np.float32), None), (np.ones((1, 1), np.float32), None)], "sin", "identity"
    )
    assert refusal_of(mlp, forward(mlp)) is None


# The ids are the same in every process of xdist.
@pytest.mark.parametrize(
    "name", [*ACTIVATIONS, *OTHERS], ids=lambda each: getattr(each, "__name__", str(each))
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_changed_layer_is_found(name, dtype):
    mlp = network(name, (2, 5, 3), dtype, seed=2)
    assert refusal_of(mlp, forward(mlp)) is None
    # In float32 a change of one percent is found; in bfloat16, which has 8 bits, a changed sign.
    first = Affine(mlp.layers[0].w * BITS[dtype](1.01 if dtype == "float32" else -1), mlp.layers[0].b)
    found = refusal_of(MLP([first, mlp.layers[1]], mlp.activation, mlp.final_activation), forward(mlp))
    assert re.match(
        r"source must compute what its layers say, got outputs that differ by [^ ]+ in row \d, "
        r"where rounding allows [^ ]+; a hook, a subclass",
        found or "",
    )


def test_wrong_wide_and_deep_networks_are_found():
    """Bounds computed from |w| alone, without the signs, would exceed the outputs themselves here."""
    mlp = init_mlp(jax.random.key(0), (8, *[256] * 5, 3), activation="relu", final_activation="identity")
    call = forward(mlp)
    assert refusal_of(mlp, call) is None
    assert refusal_of(mlp, lambda rows: 1.05 * call(rows))
    hidden = [*mlp.layers]
    hidden[2], hidden[3] = hidden[3], hidden[2]  # their widths are equal, so the shapes chain
    assert refusal_of(MLP(hidden, "relu", "identity"), call)


@pytest.mark.parametrize("far", [0.0, 300.0, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_source_may_round_each_scaling_by_itself(far, dtype):
    kind = BITS[dtype]
    mean, std, w, b = far + normal(4), np.exp(normal(4)), normal(4, 3, dtype=kind), normal(3, dtype=kind)
    mean, std = mean.astype(kind), std.astype(kind)
    steps = [Scaling(mean, 1 / std.astype(float)), Affine(w, b), "tanh", Scaling(mean=-far, scale=3.0)]
    mlp = assemble(steps, "source")

    def call(rows):
        z = np.tanh(((rows.astype(kind) - mean) / std) @ w + b)
        return (z + kind(far)) * kind(3.0)

    assert refusal_of(mlp, call, steps=steps) is None
    assert refusal_of(mlp, lambda rows: call(rows + 5 * std), steps=steps)


def test_a_source_may_compute_in_a_narrower_dtype():
    mlp = network("tanh", (3, 64, 2), "float32")
    low = jax.tree.map(lambda a: a.astype(ml_dtypes.bfloat16), mlp)
    call = lambda rows: np.asarray(mlp_forward(low, rows.astype(ml_dtypes.bfloat16)), np.float32)  # noqa: E731
    assert refusal_of(mlp, call)
    assert refusal_of(mlp, call, computed_in=["bfloat16"]) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda rows: {"logits": rows[:, :2]},
        lambda rows: (rows[:, :2], rows),
        lambda rows: "text",
        lambda rows: rows @ rows,
        lambda rows: None,
    ],
)
def test_a_source_that_gives_no_outputs_is_not_checked(call):
    assert refusal_of(network("tanh", (3, 2), "float32"), call) is None


@jax.custom_jvp
def without_slope(z):
    return z


@without_slope.defjvp
def _(primals, tangents):
    raise NotImplementedError


@pytest.mark.parametrize(
    "activation",
    [lambda z: z[:, :1], lambda z: (z, z), lambda z: 1 / 0, without_slope],
)
def test_an_activation_that_cannot_be_called_is_not_checked(activation):
    mlp = MLP([Affine(np.ones((3, 2), np.float32))], final_activation=activation)
    assert refusal_of(mlp, lambda rows: np.ones((8, 2))) is None


def test_wrong_shapes_nan_and_infinity_are_found():
    mlp = network("tanh", (3, 2), "float32")
    assert refusal_of(mlp, lambda rows: np.full((8, 2), np.nan, np.float32))
    assert refusal_of(mlp, lambda rows: np.full((8, 2), np.inf, np.float32))
    assert refusal_of(mlp, lambda rows: rows).startswith(
        "source must compute what its layers say, got outputs of shape (8, 3) instead of (8, 2); a hook"
    )
    # Rows and weights that overflow in the source's dtype show nothing.
    huge = MLP([Affine(np.full((3, 2), 6e4, np.float16))], final_activation="identity")
    with np.errstate(over="ignore"):
        assert refusal_of(huge, lambda rows: rows.astype(np.float16) @ huge.layers[0].w) is None
    nan = MLP([Affine(np.full((3, 2), np.nan, np.float32))])
    assert refusal_of(nan, lambda rows: np.full((8, 2), np.nan, np.float32)) is None


def test_the_source_gets_a_copy_of_the_rows_and_its_warnings_are_hidden():
    mlp = network("identity", (3, 2), "float32")

    def call(rows):
        warnings.warn("of the source", stacklevel=2)
        y = rows @ np.asarray(mlp.layers[0].w) + mlp.layers[0].b
        rows[...] = 0
        return y

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refusal_of(mlp, call) is None


def test_tracers_are_not_checked():
    def never(rows):
        raise AssertionError

    @jax.jit
    def traced(w):
        mlp = MLP([Affine(w)])
        compare(mlp, never, "source")
        compare_given(mlp, (np.ones((1, 2)), np.ones((1, 2))))
        return w

    traced(jnp.ones((2, 2)))


@given(st.sampled_from(["float32", "float64"]), st.integers(1, 5), st.booleans())
def test_given_outputs_are_compared(dtype, count, as_lists):
    mlp = network("tanh", (3, 4, 2), dtype)
    rows = normal(count, 3)
    outputs = np.asarray(forward(mlp)(rows))
    given = (rows.tolist(), outputs.tolist()) if as_lists else (rows, outputs)
    compare_given(mlp, given)
    if count == 1:
        compare_given(mlp, (rows[0], outputs[0]))
    with pytest.raises(
        BadValue, match=r"^check must hold what the network gives, got outputs that differ by "
    ):
        compare_given(mlp, (rows, outputs + 0.01))
    one = network("tanh", (3, 1), dtype)
    compare_given(one, (rows, np.asarray(forward(one)(rows))[:, 0]))


@pytest.mark.parametrize("nothing", [None, False])
def test_none_and_false_compare_nothing(nothing):
    compare_given(network("tanh", (3, 2), "float32"), nothing)


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (True, BadType, "check must be (rows, outputs), got bool; pass a few rows and the source's outputs for them"),
        (np.ones((2, 3)), BadType, "check must be (rows, outputs), got ndarray; pass a few rows"),
        ((1, 2, 3), BadType, "check must be (rows, outputs), got tuple; "),
        ((None, 2), BadType, "check: rows must hold booleans, integers, or one of "),
        ((np.ones((2, 3)), [["a", "b"]]), BadType, "check: outputs must hold booleans, integers, or one of "),
        ((np.ones((2, 3)), [[1, 2], [3]]), BadValue, "check: outputs must be an array or an evenly nested sequence of numbers"),
        ((np.ma.masked_equal(np.ones((2, 3)), 1), np.ones((2, 2))), BadType, "check: rows must hold plain numbers, got MaskedArray"),
        ((np.ones((0, 3)), np.ones((0, 2))), BadValue, "check: rows must have shape (rows, 3), got (0, 3); pass at least one row"),
        ((np.ones((2, 4)), np.ones((2, 2))), BadValue, "check: rows must have shape (rows, 3), got (2, 4); "),
        (([[1.0, 2.0, np.nan]], [[1.0, 2.0]]), BadValue, "check: rows must be finite, got nan; leave it out"),
        ((1.0, 1.0), BadValue, "check: rows must have shape (rows, 3), got (); "),
        ((np.ones((2, 3)), np.ones((3, 2))), BadValue, "check: outputs must have shape (2, 2), got (3, 2); pass the source's outputs for these rows"),
        ((np.ones((3, 3)), np.ones(6)), BadValue, "check: outputs must have shape (3, 2), got (6,); "),
    ],
)  # fmt: skip
def test_bad_given_outputs_are_refused(wrong, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        compare_given(network("tanh", (3, 2), "float32"), wrong)


def test_any_size_of_block_gives_the_same_check(monkeypatch):
    mlp = network("tanh", (40, 30, 7), "float32")
    call = forward(mlp)
    for block in (1, 100, 30 * 40):
        monkeypatch.setattr(_check, "BLOCK", block)
        assert refusal_of(mlp, call) is None
        assert refusal_of(mlp, lambda rows: call(rows) + np.float32(1e-3))
