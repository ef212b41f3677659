"""`Evaluator` gives the bits of `mlp_forward` for any input, from any thread and process."""

import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxneuron import MLP, Evaluator, mlp_forward
from jaxneuron._kernels import host, library, primitive
from jaxneuron._math.activations import ACTIVATIONS, OF_ROWS
from jaxneuron._names import resolve
from jaxneuron.testing import assert_within_error_bound, count_compilations
from tests.evaluate.networks import assert_same, needs_the_kernel, network, numbers
from tests.pools import mlps_and_inputs

pytestmark = pytest.mark.cpu
SETS = () if library.missing() else library.instruction_sets()
DTYPES = ("bfloat16", "float16", "float32", "float64")
WIDTHS = (1, 7, 8, 16, 17, 133, 300)  # near the widths of vectors; weights of 300 float64 units are packed


# --- truth ---


@given(mlps_and_inputs())
def test_outputs_have_the_bits_of_mlp_forward(mlp_and_x):
    mlp, x = mlp_and_x
    y = Evaluator(mlp)(x)
    assert_within_error_bound(mlp, x, y)
    if not library.missing():
        assert_same(y, mlp_forward(mlp, x))


@needs_the_kernel
@pytest.mark.parametrize("of_rows", DTYPES)
@pytest.mark.parametrize("of_weights", DTYPES)
def test_every_pair_of_dtypes_has_the_bits_of_mlp_forward(of_weights, of_rows):
    mlp, x = network(dtype=of_weights), numbers(5, 3, dtype=of_rows)
    evaluator = Evaluator(mlp)
    for x64 in (False, True, False):  # the setting at each call applies
        with jax.enable_x64(x64):
            assert_same(evaluator(x), mlp_forward(mlp, x))


@needs_the_kernel
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint16", "uint32", "bool"])
@pytest.mark.parametrize("of_weights", [*DTYPES, "int32"])
def test_integers_round_as_in_jax(of_weights, dtype):
    edge = [
        3,
        2**11 + 1,
        2**15 - 1,
        2**24 + 1,
        2**24 + 3,
        2**31 - 1,
        -(2**24) - 1,
        65519,
        65520,
        129,
        257,
        385,
    ]
    x = np.array(edge, np.int64).astype(dtype).reshape(4, 3)
    mlp = MLP([(np.eye(3, dtype=of_weights), None)], final_activation="identity")
    for x64 in (False, True):
        with jax.enable_x64(x64):
            assert_same(Evaluator(mlp)(x), mlp_forward(mlp, x))


@needs_the_kernel
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_activation_has_the_bits_of_mlp_forward(activation, dtype):
    hidden = "relu" if activation in OF_ROWS else activation
    with jax.enable_x64(True):
        mlp = network((3, 5, 4), dtype, hidden, final_activation=activation)
        x = numbers(9, 3, dtype=dtype) * np.asarray(3, dtype)
        x[4, 1] = np.inf
        assert_same(Evaluator(mlp)(x), mlp_forward(mlp, x))


@needs_the_kernel
@pytest.mark.parametrize("instruction_set", range(len(SETS)), ids=SETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_width_has_the_bits_of_the_primitive(dtype, instruction_set):
    by_xla = jax.jit(
        lambda mlp, x: primitive.forward(
            mlp.layers, [resolve(a) for a in mlp.activations], x, instruction_set
        )
    )
    with jax.enable_x64(True):
        for width in WIDTHS:
            mlp = network((3, width, 2), dtype)
            plan = host.Plan(mlp.layers, mlp.activations, 1, instruction_set=instruction_set)
            for rows in (1, 31):
                x, y = numbers(rows, 3, dtype=dtype), np.empty((rows, 2), dtype)
                assert host.function()(plan.address, x, y) == host.OK
                assert_same(y, by_xla(mlp, x))


@needs_the_kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3), (0,)])
def test_members_have_the_bits_of_vmap(dtype, batch):
    with jax.enable_x64(True):
        mlp = network((3, 9, 2), dtype, members=4)
        x, own = numbers(*batch, 3, dtype=dtype), numbers(4, *batch, 3, dtype=dtype)
        assert_same(Evaluator(mlp)(x), jax.vmap(mlp_forward, (0, None))(mlp, x))
        assert_same(Evaluator(mlp, each=True)(own), jax.vmap(mlp_forward)(mlp, own))
    assert Evaluator(network(members=4))(numbers(5, 3)).shape == (4, 5, 2)


def test_stacks_of_one_and_of_no_member_are_evaluated():
    one, none = network(members=1), jax.tree.map(lambda a: a[:0], network(members=1))
    assert_same(Evaluator(one)(numbers(5, 3))[0], Evaluator(jax.tree.map(lambda a: a[0], one))(numbers(5, 3)))
    assert Evaluator(none)(numbers(5, 3)).shape == (0, 5, 2)
    assert Evaluator(none, each=True)(numbers(0, 5, 3)).shape == (0, 5, 2)


# --- forms of rows and weights ---


def unaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)
    found = raw[1:].view(x.dtype).reshape(x.shape)
    found[...] = x
    return found


FORMS = {
    "list": np.ndarray.tolist,
    "Fortran order": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "columns backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "unaligned": unaligned,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "a subclass": lambda x: x.view(np.memmap),
    "JAX": jnp.asarray,
    "a view of memory": memoryview,
    "of a pickled dtype": lambda x: pickle.loads(pickle.dumps(x)),
    "float64": lambda x: x.astype(np.float64),
    "three axes": lambda x: x.reshape(2, -1, x.shape[1]),
}


@needs_the_kernel
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows_has_the_same_bits(form):
    mlp, x = network(), FORMS[form](numbers(8, 3))
    assert_same(Evaluator(mlp)(x), mlp_forward(mlp, x))


@needs_the_kernel
def test_weights_of_any_layout_have_the_same_bits():
    mlp = network((4, 4, 4))
    for form in ("Fortran order", "columns backwards", "unaligned", "other byte order", "read-only"):
        layers = [(FORMS[form](w), FORMS["unaligned"](b)) for w, b in mlp.layers]
        assert_same(Evaluator(MLP(layers, "tanh", "softmax"))(numbers(4)), mlp_forward(mlp, numbers(4)))
    assert_same(Evaluator(jax.device_put(mlp))(numbers(4)), mlp_forward(mlp, numbers(4)))


def test_too_large_numbers_become_infinity_without_a_warning():
    y = Evaluator(MLP([(np.eye(1, dtype=np.float32), None)], final_activation="identity"))([1e300])
    assert np.isinf(y).all()


def test_the_control_loop_of_the_readme_runs():
    class Env:
        observation, actions = numbers(3), []

        @property
        def done(self):
            return len(self.actions) == 3

        def step(self, action):
            self.actions.append(action)
            self.observation = self.observation + 1

    blocks = re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.DOTALL
    )
    (loop,) = [block for block in blocks if "Evaluator(" in block]
    assert len(loop.split("\n\n")[1].splitlines()) == 4
    exec(loop, {"mlp": network(), "env": (env := Env())})
    expected = [Evaluator(network())(numbers(3) + np.float32(i)) for i in range(3)]
    np.testing.assert_array_equal(env.actions, expected)


# --- the argument out ---


@pytest.mark.parametrize("batch", [(), (6,), (2, 3)])
def test_out_of_any_layout_receives_the_outputs(batch):
    evaluator, x = Evaluator(network()), numbers(*batch, 3)
    y, out = evaluator(x), np.full((*batch, 2), np.nan, np.float32)
    assert evaluator(x, out) is out
    assert_same(out, y)
    for form in ("a view", "Fortran order", "unaligned", "a subclass"):
        wide = np.full((*batch, 5), np.nan, np.float32)
        own = wide[..., 1:3] if form == "a view" else FORMS[form](out)
        own[...] = np.nan
        assert evaluator(x.tolist(), out=own) is own
        assert_same(np.array(own), y)
        assert np.isnan(wide[..., [0, 3, 4]]).all()


def test_out_may_be_x_or_overlap_it():
    for members in (0, 3):
        evaluator = Evaluator(network((3, 8, 3), members=members), each=members > 0)
        x = numbers(*((members,) if members else ()), 100, 3)
        y = evaluator(x)
        same = x.copy()
        assert_same(evaluator(same, out=same), y)
        buffer = np.zeros(x.size + 3, np.float32)
        for first, second in ((0, 3), (3, 0)):
            source, target = (buffer[start : start + x.size].reshape(x.shape) for start in (first, second))
            source[...] = x
            assert_same(np.array(evaluator(source, out=target)), y)


def test_out_may_overlap_rows_that_members_share():
    evaluator, x = Evaluator(network((3, 8, 3), members=2)), numbers(2, 10, 3)
    y = evaluator(x[0])
    assert_same(evaluator(x[0], out=x), y)
    evaluator, x = Evaluator(network((4, 8, 2), members=2)), numbers(10, 4)  # as many bytes as x
    y = evaluator(x)
    assert_same(evaluator(x, out=x.reshape(2, 10, 2)), y)


# --- copies of the weights ---


def test_weights_are_copied():
    mlp = jax.tree.map(np.copy, network())
    evaluator = Evaluator(mlp)
    before = evaluator(numbers(3))
    for leaf in jax.tree.leaves(mlp):
        leaf[...] = np.nan
    assert_same(evaluator(numbers(3)), before)
    assert_same(
        evaluator(numbers(3, dtype="float64")), evaluator(numbers(3, dtype="float64").astype(np.float32))
    )


@pytest.mark.parametrize("options", [{}, {"threads": 1}, {"each": True}])
def test_an_evaluator_can_be_pickled(options):
    evaluator = Evaluator(network(members=3 if "each" in options else 0), **options)
    again = pickle.loads(pickle.dumps(evaluator))
    x = numbers(3, 5, 3)
    assert_same(again(x), evaluator(x))
    assert repr(again) == repr(evaluator) == "Evaluator(MLP(float32[3,17]+float32[17] tanh, float32[17,2]+float32[2] softmax))".replace("float32[", "float32[3," if "each" in options else "float32[")  # fmt: skip


# --- without the kernel ---


def test_a_custom_activation_is_evaluated_by_mlp_forward():
    mlp = network((3, 5, 2), activation=jnp.sin)
    x = numbers(7, 3)
    assert_same(Evaluator(mlp)(x), mlp_forward(mlp, x))
    out = np.empty((7, 2), np.float32)
    assert Evaluator(mlp)(x, out) is out
    assert_same(out, mlp_forward(mlp, x))
    members = network((3, 5, 2), activation=jnp.sin, members=3)
    assert_same(Evaluator(members)(x), jax.jit(jax.vmap(mlp_forward, (0, None)))(members, x))
    own = numbers(3, 7, 3)
    assert_same(Evaluator(members, each=True)(own), jax.jit(jax.vmap(mlp_forward))(members, own))
    with count_compilations() as later:
        Evaluator(members)(x)
    assert not later


def test_xla_evaluates_without_the_library(monkeypatch):
    mlp, x = network(), numbers(7, 3)
    monkeypatch.setattr(library, "functions", lambda: None)
    monkeypatch.setattr(library, "missing", lambda: "it is not there")
    jax.clear_caches()
    assert_within_error_bound(mlp, x, Evaluator(mlp)(x))
    monkeypatch.undo()
    jax.clear_caches()


# --- refusals ---

READ_ONLY = np.broadcast_to(np.float32(0), (4, 2))
ROWS = numbers(4, 3)
UNEVEN = jax.tree.unflatten(
    jax.tree.structure(network(members=2)),
    [a[: 2 - i // 3] for i, a in enumerate(jax.tree.leaves(network(members=2)))],
)
HUGE = MLP([(np.broadcast_to(np.float32(1), (2**22, 2**22)), None)])
WIDE = Evaluator(MLP([(np.ones((1, 2**20), np.float32), None)]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Evaluator("abc"), TypeError, "Evaluator: mlp must be an MLP, got str; pass MLP(layers)"),
        (lambda: Evaluator(jax.tree.map(lambda _: "w", network())), TypeError, "Evaluator: layer 0: w must hold booleans, integers, or one of"),
        (lambda: Evaluator(UNEVEN), ValueError, "Evaluator: layer 1: b must have a leading axis of 2 members, as layer 0's w (2, 3, 17), got (1, 2); stack networks with the same shapes"),
        (lambda: Evaluator(network(), each=True), ValueError, "Evaluator: each needs stacked networks, whose arrays have a leading axis of members, got a single network"),
        (lambda: Evaluator(network(), each=1), TypeError, "Evaluator: each must be True or False, got 1"),
        (lambda: Evaluator(network(), threads=0), ValueError, "Evaluator: threads must be at least 1, got 0; leave it out for all CPUs"),
        (lambda: Evaluator(network(), threads=1.5), TypeError, "Evaluator: threads must be a whole number of threads or None, got 1.5; pass an int"),
        (lambda: Evaluator(HUGE), MemoryError, "Evaluator: mlp must fit in the "),
        (lambda: jax.jit(lambda mlp: Evaluator(mlp)(ROWS))(network()), TypeError, "Evaluator: mlp must hold numbers, got tracers; call mlp_forward inside jit"),
        (lambda: jax.jit(Evaluator(network()))(ROWS), TypeError, "Evaluator: x must hold numbers, got a tracer; call mlp_forward inside jit"),
        (lambda: Evaluator(network())(numbers(4, 5)), ValueError, "Evaluator: x must have shape (..., 3), one number for each row of w (3, 17), got (4, 5); put the inputs on the last axis"),
        (lambda: Evaluator(network())(np.float32(3)), ValueError, "Evaluator: x must have shape (..., 3), one number for each row of w (3, 17), got (); pass [x]"),
        (lambda: Evaluator(network())("abc"), TypeError, "Evaluator: x must hold booleans, integers, or one of"),
        (lambda: Evaluator(network())([[1, 2, 3], [4]]), ValueError, "give every row the same length"),
        (lambda: Evaluator(network())([2**40, 0, 0]), ValueError, "Evaluator: x must fit in int32 while jax_enable_x64 is off"),
        (lambda: Evaluator(network(members=2), each=True)(ROWS), ValueError, "Evaluator: x must have shape (2, ..., 3), rows for each of the 2 members, got (4, 3); leave out each=True if they share their rows"),
        (lambda: Evaluator(network(members=3), each=True)(numbers(3)), ValueError, "Evaluator: x must have shape (3, ..., 3), rows for each of the 3 members, got (3,)"),
        (lambda: Evaluator(network())(ROWS, []), TypeError, "Evaluator: out must be a NumPy array or None, got list"),
        (lambda: Evaluator(network())(ROWS, np.empty((3, 2), np.float32)), ValueError, "Evaluator: out must have shape (4, 2), got (3, 2)"),
        (lambda: Evaluator(network())(ROWS, np.empty((4, 2), np.float64)), TypeError, "Evaluator: out must hold float32, the promoted dtype of mlp and x, got float64"),
        (lambda: Evaluator(network())(ROWS, READ_ONLY), ValueError, "Evaluator: out must be writeable, got a read-only array"),
        (lambda: WIDE(np.broadcast_to(np.float32(1), (2**40, 1))), MemoryError, "Evaluator: the outputs must fit in memory, which they don't ("),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is error
