"""The examples that strategies draw, and how they shrink."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from jaxneuron import MLP, mlp_forward
from jaxneuron.testing import (
    count_compilations,
    ensembles,
    inputs,
    layers,
    mlps,
    neurons,
    numbers,
    params_and_inputs,
    profile,
)
from jaxneuron.testing._strategies import NETWORKS

DTYPES = ("bfloat16", "float16", "float32", "float64")


@given(st.data(), st.sampled_from(DTYPES))
def test_numbers_are_0_or_of_ordinary_size_by_default(data, dtype):
    v = data.draw(numbers(dtype))
    assert v == 0 or 2**-14 <= abs(v) <= 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "has"),
    [
        ("nan", lambda v, info: np.isnan(v)),
        ("infinity", lambda v, info: np.isinf(v) and v < 0),
        ("subnormal", lambda v, info: 0 < -v < float(info.smallest_normal)),
        ("huge", lambda v, info: np.isfinite(v) and abs(v) > float(info.max) / 4),
        ("tiny", lambda v, info: 0 < abs(v) <= 4 * float(info.smallest_normal)),
    ],
)
def test_nan_and_other_kinds_are_drawn_only_if_asked_for(kind, has, dtype):
    info = jnp.finfo(dtype)
    layer = find(layers(1, 1, dtype=dtype, bias=False, **{kind: True}), lambda p: has(float(p.w[0, 0]), info))
    assert layer.w.dtype == jnp.dtype(dtype)
    if (kind, dtype) != ("tiny", "float16"):  # the ordinary numbers begin at float16's smallest normal number
        quick = settings(max_examples=200, database=None, derandomize=True)
        with pytest.raises(NoSuchExample):
            find(numbers(dtype), lambda v: has(v, info), settings=quick)


@pytest.mark.usefixtures("x64")
@given(mlps())
def test_mlps_are_drawn_from_the_default_sizes_and_activations(mlp):
    sizes = (mlp.layers[0].w.shape[0], *(layer.w.shape[1] for layer in mlp.layers))
    assert sizes in NETWORKS
    assert set(mlp.activations) <= {"identity", "sigmoid", "relu", "tanh"}
    assert len({leaf.dtype for leaf in jax.tree.leaves(mlp)}) == 1
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(mlp))


def test_dtypes_depend_on_x64_at_the_time_of_drawing(x64):
    drawn = set()

    @settings(max_examples=200, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(STRATEGY_MADE_AT_IMPORT)
    def draw(neuron):
        drawn.add(neuron.w.dtype.name)

    draw()
    assert drawn == set(DTYPES) - (set() if x64 else {"float64"})


STRATEGY_MADE_AT_IMPORT = neurons()


def test_examples_shrink_to_the_simplest():
    mlp = find(mlps(dtypes="float32"), lambda mlp: len(mlp.layers) == 2 and mlp.layers[0].w.any())
    assert repr(mlp) == "MLP(float32[2,3]+float32[3] identity, float32[3,1]+float32[1] identity)"
    assert sorted(set(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(mlp)]).tolist())) == [0, 1]


@pytest.mark.usefixtures("x64")
@given(st.data())
def test_inputs_fit_their_parameters(data):
    params = data.draw(st.one_of(neurons(), layers(), mlps()))
    x = data.draw(inputs(params, batch=[(2,)]))
    w = params.layers[0].w if isinstance(params, MLP) else params.w
    assert x.shape == (2, len(w))
    assert x.dtype == w.dtype


@pytest.mark.usefixtures("x64")
@settings(max_examples=5)
@given(params_and_inputs(ensembles(3, sizes=[(2, 1)], dtypes="float32"), batch=[(4,)]))
def test_inputs_fit_an_ensemble(stack_and_x):
    stack, x = stack_and_x
    assert jax.vmap(mlp_forward, in_axes=(0, None))(stack, x).shape == (3, 4, 1)


@pytest.mark.usefixtures("x64")
@given(ensembles((1, 3), nan=True))
def test_ensembles_stack_one_architecture(stack):
    members = {len(leaf) for leaf in jax.tree.leaves(stack)}
    assert members in ({1}, {3})
    jax.tree.map(lambda leaf: leaf[0], stack)
    assert (
        jax.vmap(mlp_forward, in_axes=(0, None))(stack, np.ones(stack.layers[0].w.shape[1], np.float32)).ndim
        == 2
    )


def test_a_property_compiles_as_often_as_there_are_shapes():
    def compilations(strategy, examples=100):
        @settings(max_examples=examples, database=None, derandomize=True, deadline=None)
        @given(strategy)
        def prop(mlp_and_x):
            mlp_forward(*mlp_and_x)

        with count_compilations() as compiled:
            prop()
        return len(compiled)

    jax.clear_caches()
    one = mlps([(3, 5, 4)], activations=["tanh"], bias=True, dtypes="float32")
    assert compilations(params_and_inputs(one, batch=[(2,)])) == 1
    four = mlps([(3, 5, 4), (4, 5, 3)], activations=["tanh"], bias=True, dtypes="float32")
    assert compilations(params_and_inputs(four, batch=[(3,), (4,)])) == 4
    assert compilations(params_and_inputs(), 30) <= 30  # at most one for each example


def test_the_profile_is_not_installed(monkeypatch):
    program = "from hypothesis import settings; d = settings().deadline; import jaxneuron.testing; assert settings().deadline == d"
    subprocess.run([sys.executable, "-c", program], check=True)
    monkeypatch.setenv("CI", "true")
    assert profile().derandomize
    monkeypatch.delenv("CI")
    assert not profile().derandomize
    assert profile(max_examples=7, derandomize=True).max_examples == 7
