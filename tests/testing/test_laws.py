"""Laws of results fail for wrong results, and say where. The doctests show that right results pass."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import MLP, Affine, mlp_laplacian, mlp_value_and_jacobian
from jaxneuron.testing import (
    assert_compiles_once,
    assert_jacobian_within_bound,
    assert_jit_consistent,
    assert_laplacian_within_bound,
    assert_rows_independent,
    assert_vmap_consistent,
    assert_within_error_bound,
)

pytestmark = pytest.mark.usefixtures("x64")


def test_error_bound_names_row_and_unit():
    mlp = MLP([(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))], final_activation="identity")
    x = np.array([[1, 2], [3, 4]], np.float32)
    assert_within_error_bound(mlp, x, x)
    wrong = x + np.array([[0, 0], [1e-5, 0]], np.float32)
    message = r"row \(1,\), unit 0 is 3.0000\d+, exactly 3.0; off by \d+ ULP where .* are allowed \(1 of 4 outputs are outside\)"
    with pytest.raises(AssertionError, match=message):
        assert_within_error_bound(mlp, x, wrong)
    with pytest.raises(AssertionError, match=r"unit 1 is nan, exactly 4.0"):
        assert_within_error_bound(mlp, x[1], np.array([3, np.nan], np.float32))
    with pytest.raises(AssertionError, match=re.escape("y must have shape (2, 2), got (2,)")):
        assert_within_error_bound(mlp, x, x[0])
    neuron = Affine(np.ones(2, np.float32), None)
    assert_within_error_bound(neuron, x, np.array([3, 7], np.float32))
    with pytest.raises(AssertionError, match=r"the output is 4.0, exactly 3.0"):
        assert_within_error_bound(neuron, x[0], np.float32(4))


def test_error_bound_is_tight_enough_to_see_a_lower_precision():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(20, 50)).astype(np.float32)
    assert_within_error_bound(Affine(w), x, x @ w)
    with pytest.raises(AssertionError, match="y must be within its error bound"):
        assert_within_error_bound(
            Affine(w), x, (x.astype(jnp.bfloat16).astype(np.float32) @ w).astype(np.float32)
        )


@pytest.mark.parametrize(("dtype", "activation"), [("float16", "square"), ("float32", "exp")])
def test_rows_with_an_overflow_in_between_may_have_any_output(dtype, activation):
    layers = [
        (np.ones((1, 2), dtype), None),
        (np.full((2, 2), 5, dtype), None),
        (np.zeros((2, 1), dtype), None),
    ]
    mlp, x = MLP(layers, activation), np.array([[8], [0]], dtype)
    y, jacobian = mlp_value_and_jacobian(mlp, x)
    laplacian = mlp_laplacian(mlp, x)[2]
    for found, law in (
        (y, assert_within_error_bound),
        (jacobian, assert_jacobian_within_bound),
        (laplacian, assert_laplacian_within_bound),
    ):
        assert np.isnan(np.asarray(found, float)).ravel().tolist() == [True, False]  # infinity times 0
        law(mlp, x, found)
        with pytest.raises(AssertionError, match=r"row \(1,\).* is nan"):
            law(mlp, x, np.full_like(found, np.nan))


def test_derivative_bounds_name_row_output_and_input():
    mlp = MLP([(np.array([[1.0, 2.0]], np.float32), None)], final_activation="square")
    x = np.array([[1], [3]], np.float32)
    jacobian, laplacian = np.array([[[2], [8]], [[6], [24]]], np.float32), np.array([[2, 8]] * 2, np.float32)
    assert_jacobian_within_bound(mlp, x, jacobian)
    assert_laplacian_within_bound(mlp, x, laplacian)
    wrong = jacobian.copy()
    wrong[1, 1, 0] += 2e-4
    message = (
        r"jacobian must be within its error bound: row \(1,\), output 1, input 0 is 24.0002\d*, exactly 24.0"
    )
    with pytest.raises(AssertionError, match=message):
        assert_jacobian_within_bound(mlp, x, wrong)
    message = r"laplacian must be within its error bound: row \(0,\), unit 0 is 2.0002\d*, exactly 2.0"
    with pytest.raises(AssertionError, match=message):
        assert_laplacian_within_bound(mlp, x, laplacian + np.float32(2e-4))
    with pytest.raises(AssertionError, match=re.escape("jacobian must have shape (2, 2, 1), got (2, 2)")):
        assert_jacobian_within_bound(mlp, x, jacobian[..., 0])


def test_the_bound_of_a_jacobian_is_tight_enough_to_see_a_lower_precision():
    rng = np.random.default_rng(0)
    w = [rng.normal(size=shape).astype(np.float32) / 3 for shape in ((9, 9), (9, 9), (9, 2))]
    mlp = MLP([(each, None) for each in w], activation="tanh", final_activation="identity")
    x = rng.normal(size=(3, 9)).astype(np.float32)
    assert_jacobian_within_bound(mlp, x, mlp_value_and_jacobian(mlp, x)[1])
    rough = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(np.float32), mlp)
    with pytest.raises(AssertionError, match="jacobian must be within its error bound"):
        assert_jacobian_within_bound(mlp, x, mlp_value_and_jacobian(rough, x)[1])
    with pytest.raises(AssertionError, match="laplacian must be within its error bound"):
        assert_laplacian_within_bound(mlp, x, mlp_laplacian(rough, x)[2])


def test_infinity_is_within_the_bound_where_the_truth_overflows():
    big = Affine(np.array([1e30], np.float32), None)
    assert_within_error_bound(big, np.array([1e30], np.float32), np.float32(np.inf))
    with pytest.raises(AssertionError, match="the output is inf"):
        assert_within_error_bound(big, np.array([1.0], np.float32), np.float32(np.inf))


def test_rows_independent_names_the_rows():
    x = np.ones((3, 2), np.float32)
    assert_rows_independent(lambda x: jax.nn.softmax(x, axis=-1), x)
    with pytest.raises(AssertionError, match="changing row 0 of 3 changed row 1"):
        assert_rows_independent(lambda x: jax.nn.softmax(x, axis=0), x)
    with pytest.raises(AssertionError, match="f must keep the 3 rows"):
        assert_rows_independent(lambda x: x.sum(axis=0), x)
    for value in (-1.5, 0, 1, 6e4, np.nan):  # the law changes every row, whatever numbers it holds
        rows = np.full((3, 2), value, np.float16)
        with pytest.raises(AssertionError, match="changing row 0 of 3 changed row 1"):
            assert_rows_independent(lambda x: np.full_like(x, (x == 1).sum()), rows)


def test_vmap_and_jit_consistency_name_the_wrong_output():
    w, x = np.array([[1, 2], [3, 4]], np.float32), np.array([[1, 0], [2, 1]], np.float32)
    assert_vmap_consistent(lambda w, x: x @ w, w, x)
    with pytest.raises(AssertionError, match="f on the batch must give row 0 what f gives it alone: unit"):
        assert_vmap_consistent(lambda w, x: (x.T if x.ndim == 2 else x) @ w, w, x)
    with pytest.raises(AssertionError, match="must have shape"):
        assert_vmap_consistent(lambda w, x: (x @ w).sum(axis=0), w, np.ones((3, 2), np.float32))
    calls = []

    def impure(x):
        calls.append(0)
        return x + len(calls)

    with pytest.raises(
        AssertionError, match=r"jax.jit\(f\) must give output 0 what f gives: unit 0 is 3.0 instead of 2.0"
    ):
        assert_jit_consistent(impure, np.ones(1, np.float32))


def test_compiles_once_names_the_call_that_compiles():
    f = jax.jit(lambda x: x + 1)
    row = np.ones(3, np.float32)
    assert_compiles_once(f, (row,), (row + 1,))
    with pytest.raises(
        AssertionError, match="f must compile in its first call alone: call 1 compiled 1 programs"
    ):
        assert_compiles_once(f, (row,), (row.astype(np.float16),))
