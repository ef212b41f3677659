"""Networks from and to the installed Equinox."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxneuron
from jaxneuron import evaluate, mlp_forward
from jaxneuron._names import BY_NAME
from jaxneuron.convert import from_equinox, to_equinox
from jaxneuron.convert._activations import known
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, network, trained

equinox = pytest.importorskip("equinox", reason="equinox is in the extra interop")
nn, KEY = equinox.nn, jax.random.key(0)


def fitted(module):
    arrays, rest = equinox.partition(module, equinox.is_array)
    loss = lambda a: jnp.mean((jax.vmap(equinox.combine(a, rest))(ROWS) - TARGETS) ** 2)  # noqa: E731
    return equinox.combine(trained(loss, arrays), rest)


def forward64(module, x):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64) if equinox.is_array(a) else a, module)
        return np.asarray(jax.vmap(wide)(np.asarray(x, np.float64)))


@pytest.mark.parametrize("scan", [False, True])
def test_an_mlp_is_read_with_its_bits(scan):
    module = fitted(nn.MLP(4, 2, 6, 3, activation=jnp.tanh, scan=scan, key=KEY))
    mlp = from_equinox(module)
    assert mlp.activations == ("tanh", "tanh", "tanh", "identity")
    layers = module.layers
    if scan:
        layers = [layers[0], *(jax.tree.map(lambda a, i=i: a[i], layers[1]) for i in range(2)), layers[2]]
    assert_bits(mlp, *(a for layer in layers for a in (layer.weight.T, layer.bias)))
    assert_outputs(mlp, X, forward64(module, X))


def test_default_activations_are_read_by_name():
    assert from_equinox(nn.MLP(4, 2, 6, 1, key=KEY)).activations == ("relu", "identity")
    assert from_equinox(nn.MLP("scalar", "scalar", 3, 0, use_final_bias=False, key=KEY)).layers[0].b is None


def test_a_sequential_is_read_with_its_bits():
    keys = jax.random.split(KEY, 3)
    module = fitted(
        nn.Sequential([
            nn.Linear(4, 5, key=keys[0]), nn.Lambda(jax.nn.silu), nn.Dropout(0.5, inference=True),
            nn.Linear(5, 5, use_bias=False, key=keys[1]), nn.Lambda(jax.nn.sigmoid), nn.Identity(),
            nn.Linear(5, 2, key=keys[2]), nn.Lambda(jax.nn.softmax),
        ])
    )  # fmt: skip
    mlp = from_equinox(module)
    assert mlp.activations == ("silu", "sigmoid", "softmax")
    one, two, three = (layer for layer in module.layers if isinstance(layer, nn.Linear))
    assert_bits(mlp, one.weight.T, one.bias, two.weight.T, three.weight.T, three.bias)
    assert_outputs(mlp, X, forward64(module, X))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_to_equinox_then_from_equinox_keeps_the_bits(name):
    mlp = network(name)
    module = to_equinox(mlp)
    assert_bits(from_equinox(module), *jax.tree.leaves(mlp))
    assert from_equinox(module).activations == mlp.activations
    assert_outputs(mlp, X, forward64(module, X))


def test_refusals():
    with pytest.raises(
        ValueError, match=r"from_equinox: module: activations must have no parameters, got PReLU"
    ):
        from_equinox(nn.MLP(4, 2, 6, 1, activation=nn.PReLU(), key=KEY))
    with pytest.raises(
        ValueError,
        match=r"from_equinox: module: layers must be Linear, Lambda, or an MLP or Sequential of them, got LayerNorm; pass",
    ):
        from_equinox(nn.Sequential([nn.LayerNorm(3)]))


# --- modules that compute more than their arrays show ---


def sequential(key):
    one, two = jax.random.split(key)
    return nn.Sequential([nn.Linear(4, 3, key=one), nn.Lambda(jnp.tanh), nn.Linear(3, 2, key=two)])


ENSEMBLES = {
    "Linear": lambda key: nn.Linear(4, 2, key=key),
    "MLP": lambda key: nn.MLP(4, 2, 5, 2, key=key),
    "an MLP of equal widths": lambda key: nn.MLP(2, 2, 2, 3, key=key),
    "a scanned MLP": lambda key: nn.MLP(4, 2, 5, 4, scan=True, key=key),
    "a scanned MLP of equal widths": lambda key: nn.MLP(2, 2, 2, 3, scan=True, key=key),
    "Sequential": sequential,
}


@pytest.mark.parametrize(
    ("name", "members"), [*((name, 3) for name in ENSEMBLES), ("an MLP of equal widths", 1)]
)
def test_ensembles_are_refused_unless_mapped_by_filter_vmap(name, members):
    make = ENSEMBLES[name]
    each = [make(jax.random.key(i)) for i in range(members)]
    ensemble = jax.tree.map(lambda *a: np.stack(a) if equinox.is_array(a[0]) else a[0], *each)
    with pytest.raises(
        ValueError,
        match=r"^from_equinox: module: layers must have weights of two axes, got \(\d.*, as those of an ensemble "
        r"have; pass eqx.filter_vmap\(from_equinox\)\(ensemble\), which gives a stack of networks$",
    ):
        from_equinox(ensemble)
    stack = equinox.filter_vmap(from_equinox)(ensemble)
    assert all(len(leaf) == members for leaf in jax.tree.leaves(stack))
    one = from_equinox(each[0], check=False)
    for leaf, single in zip(jax.tree.leaves(stack), jax.tree.leaves(one), strict=True):
        assert np.array_equal(leaf[0], single)


def test_an_ensemble_computes_what_its_members_compute():
    ensemble = equinox.filter_vmap(ENSEMBLES["a scanned MLP"])(jax.random.split(KEY, 3))
    with pytest.raises(ValueError, match="as those of an ensemble have"):
        from_equinox(ensemble)
    stack, x = equinox.filter_vmap(from_equinox)(ensemble), ROWS[:5]
    source = equinox.filter_vmap(lambda m, x: jax.vmap(m)(x), in_axes=(equinox.if_array(0), None))(
        ensemble, x
    )
    np.testing.assert_allclose(jax.vmap(mlp_forward, (0, None))(stack, x), source, rtol=1e-5, atol=1e-6)


def doubled(kind):
    class Doubled(kind):
        def __call__(self, x, *, key=None):
            return 2 * kind.__call__(self, x, key=key)

    return Doubled


SUBCLASSES = {
    nn.Linear: lambda kind: kind(4, 4, key=KEY),
    nn.MLP: lambda kind: kind(4, 4, 3, 2, key=KEY),
    nn.Sequential: lambda kind: kind([nn.Linear(4, 4, key=KEY)]),
    nn.Lambda: lambda kind: kind(jnp.tanh),
    nn.Dropout: lambda kind: kind(0.5, inference=True),
    nn.Identity: lambda kind: kind(),
}


@pytest.mark.parametrize("kind", SUBCLASSES, ids=lambda kind: kind.__name__)
def test_a_subclass_with_another_call_is_refused(kind):
    make = SUBCLASSES[kind]
    for other in (doubled(kind), doubled(type("Inherits", (kind,), {}))):
        for module in (make(other), nn.Sequential([nn.Linear(4, 4, key=KEY), nn.Sequential([make(other)])])):
            with pytest.raises(
                ValueError,
                match=f"^from_equinox: module: modules must be called as Equinox's own, got Doubled, an eqx.nn.{kind.__name__} "
                f"with another __call__; pass the part that is an MLP, or an eqx.nn.{kind.__name__} with its fields$",
            ):
                from_equinox(module)
    if kind is nn.Linear:
        with pytest.raises(ValueError, match=r"got Doubled, an eqx\.nn\.Linear with another"):
            from_equinox(
                equinox.tree_at(lambda m: m.layers[0], nn.MLP(4, 4, 3, 1, key=KEY), make(doubled(kind)))
            )


@pytest.mark.parametrize("kind", SUBCLASSES, ids=lambda kind: kind.__name__)
def test_a_subclass_that_inherits_its_call_is_read(kind):
    make = SUBCLASSES[kind]
    first = nn.Linear(4, 4, key=jax.random.key(1))
    own, inherits = (nn.Sequential([first, make(k)]) for k in (kind, type("Inherits", (kind,), {})))
    assert_bits(from_equinox(inherits), *jax.tree.leaves(from_equinox(own)))
    assert from_equinox(inherits).activations == from_equinox(own).activations


def unit_length(v):
    return v / jnp.linalg.norm(v)


def squared(v):
    return v * v


@pytest.mark.parametrize("function", [unit_length, jnp.sort, jax.nn.softmax], ids=lambda f: f.__name__)
def test_functions_of_one_row_apply_to_each_row(function):
    one, two = jax.random.split(KEY)
    hidden = jnp.tanh if function is jax.nn.softmax else function
    module = nn.Sequential([
        nn.Linear(4, 3, key=one), nn.Lambda(hidden), nn.Linear(3, 3, key=two), nn.Lambda(function)
    ])  # fmt: skip
    mlp = from_equinox(module)
    right = jax.vmap(module)(ROWS)
    for leading in ((64,), (2, 4, 8)):
        y = mlp_forward(mlp, ROWS.reshape(*leading, 4))
        np.testing.assert_allclose(y.reshape(64, 3), right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mlp_forward(mlp, ROWS[0]), right[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(evaluate(mlp, ROWS), right, rtol=1e-5, atol=1e-6)
    assert mlp_forward(mlp, ROWS[:0]).shape == (0, 3)
    np.testing.assert_allclose(mlp_forward(from_equinox(to_equinox(mlp)), ROWS), right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("out_size", [3, "scalar"])
def test_functions_of_one_unit_apply_to_each_unit(out_size):
    module = nn.MLP(4, out_size, 5, 2, activation=unit_length, final_activation=squared, key=KEY)
    mlp = from_equinox(module)
    right = jax.vmap(module)(ROWS).reshape(64, -1)  # unit_length(v) is the sign of v
    y = mlp_forward(mlp, ROWS.reshape(8, 8, 4))
    np.testing.assert_allclose(y.reshape(right.shape), right, rtol=1e-5, atol=1e-6)


def test_equal_functions_give_equal_structures():
    """Otherwise a network that is read a second time would be compiled again."""
    module = nn.Sequential([nn.Linear(4, 3, key=KEY), nn.Lambda(unit_length)])
    other = nn.Sequential([nn.Linear(4, 3, key=jax.random.key(1)), nn.Lambda(unit_length)])
    mlps = from_equinox(module), from_equinox(other)
    assert hash(mlps[0].final_activation) == hash(mlps[1].final_activation)
    assert jax.tree.structure(mlps[0]) == jax.tree.structure(mlps[1])
    assert (
        mlps[0].activations != from_equinox(nn.MLP(4, 3, 3, 0, activation=unit_length, key=KEY)).activations
    )
    traced = []

    @jax.jit
    def forward(mlp, x):
        traced.append(mlp)
        return mlp_forward(mlp, x)

    for mlp in mlps:
        forward(mlp, ROWS)
    assert len(traced) == 1


def test_elementwise_functions_are_read_by_name():
    leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.3)
    for function, name in {
        jnp.tanh: "tanh",
        jax.nn.gelu: "gelu_tanh",
        leaky: known(leaky),
        jaxneuron.elu: "elu",
    }.items():
        assert from_equinox(nn.MLP(4, 2, 3, 1, activation=function, key=KEY)).activation == name
        module = nn.Sequential([nn.Linear(4, 2, key=KEY), nn.Lambda(function)])
        assert from_equinox(module).final_activation == name


# --- check ---


def test_check_finds_a_patched_class(monkeypatch):
    module = nn.MLP(4, 2, 5, 1, key=KEY)
    own = nn.Linear.__call__
    monkeypatch.setattr(nn.Linear, "__call__", lambda self, x, *, key=None: own(self, x) + 0.001)
    with pytest.raises(
        ValueError,
        match=r"^from_equinox: module must compute what its layers say, got outputs that differ by .* in row \d",
    ):
        from_equinox(module)
    assert from_equinox(module, check=False)


def test_dropout_is_off_in_the_comparison():
    module = nn.Sequential([nn.Linear(4, 3, key=KEY), nn.Dropout(0.5), nn.Linear(3, 2, key=KEY)])
    assert len(from_equinox(module).layers) == 2
    assert not module.layers[1].inference


def test_a_module_that_raises_when_called_is_still_read(monkeypatch):
    def fails(self, x, *, key=None):
        raise RuntimeError("needs a key")

    module = nn.MLP(4, 2, 5, 1, key=KEY)
    monkeypatch.setattr(nn.Linear, "__call__", fails)
    assert from_equinox(module)


# --- inside a trace ---


def test_from_equinox_reads_tracers_and_arrays_inside_jit():
    module = nn.MLP(4, 2, 5, 3, scan=True, activation=squared, key=KEY)
    arrays, rest = equinox.partition(module, equinox.is_array)
    kept = []

    @jax.jit
    def forward(arrays, x):
        kept.append(from_equinox(module))
        return mlp_forward(from_equinox(equinox.combine(arrays, rest)), x), mlp_forward(kept[0], x)

    right = jax.vmap(module)(ROWS)
    for y in (*forward(arrays, ROWS), mlp_forward(kept[0], ROWS)):  # kept[0] was built inside the trace
        np.testing.assert_allclose(y, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: nn.MLP(4, 2, 3, 0, final_activation=jnp.tanh, key=KEY), "an eqx.nn.MLP of depth 0 must have the identity as final_activation, which some versions of Equinox apply and some do not, got"),
        (lambda: nn.MLP(4, 2, 3, 1, final_activation=jax.nn.softmax, key=KEY), "activations of an eqx.nn.MLP must be functions of one unit, as Equinox calls them, got softmax; pass"),
        (lambda: nn.MLP(4, 2, 3, 1, final_activation=jax.nn.log_softmax, key=KEY), "activations of an eqx.nn.MLP must be functions of one unit, as Equinox calls them, got log_softmax; pass"),
        (lambda: equinox.tree_at(lambda m: m.weight, nn.Linear(4, 2, key=KEY), {"quantised": jnp.ones(3)}), "weight must "),
        (lambda: equinox.filter_jit(nn.Linear(4, 2, key=KEY)), "layers must be Linear, Lambda, or an MLP or Sequential of them, got"),
        (lambda: nn.Sequential([nn.Linear(4, 2, key=KEY), nn.Lambda(nn.Linear(2, 2, key=KEY))]), "activations must have no parameters, got Linear"),
    ],
)  # fmt: skip
def test_modules_that_are_refused(module, message):
    with pytest.raises((ValueError, TypeError), match=f"^from_equinox: module: {message}"):
        from_equinox(module())
