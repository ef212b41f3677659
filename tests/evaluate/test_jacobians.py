"""`Evaluator.value_and_jacobian` gives the results of `mlp_value_and_jacobian`, as NumPy arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron import Evaluator, init_mlp, mlp_value_and_jacobian


def test_value_and_jacobian_equal_those_of_the_function():
    mlp = init_mlp(jax.random.key(0), (3, 8, 2), activation="tanh")
    evaluator = Evaluator(mlp)
    for shape in ((3,), (5, 3), (0, 3), (2, 1, 3)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        found, expected = evaluator.value_and_jacobian(x), mlp_value_and_jacobian(mlp, x)
        for each, other in zip(found, expected, strict=True):
            assert type(each) is np.ndarray
            assert each.flags.writeable
            np.testing.assert_array_equal(each, other)
    narrow = Evaluator(init_mlp(jax.random.key(0), (3, 2), dtype=jnp.bfloat16))
    y, jacobian = narrow.value_and_jacobian(np.ones(3, jnp.bfloat16))
    assert (y.dtype, jacobian.dtype) == (jnp.bfloat16, np.float32)


def test_each_member_has_its_own_jacobian():
    one = init_mlp(jax.random.key(0), (3, 4, 2), activation="tanh")
    stacked = jax.tree.map(lambda a: np.stack([a, -a]), one)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    for each, rows in ((True, x), (False, x[0])):
        y, jacobian = Evaluator(stacked, each=each).value_and_jacobian(rows)
        assert jacobian.shape == (2, 5, 2, 3)
        np.testing.assert_allclose(y, Evaluator(stacked, each=each)(rows), rtol=1e-6, atol=1e-6)
        _, expected = mlp_value_and_jacobian(one, x[0])
        np.testing.assert_allclose(jacobian[0], expected, rtol=1e-5, atol=1e-6)


def test_rows_of_any_layout_and_dtype_give_the_same_jacobians():
    mlp = init_mlp(jax.random.key(0), (3, 8, 2), activation="tanh")
    evaluator, x = Evaluator(mlp), np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    _, expected = evaluator.value_and_jacobian(x)
    for rows, places in (
        (x[::-1], np.s_[::-1]),
        (np.asfortranarray(x), np.s_[:]),
        (x.astype(np.float64), np.s_[:]),
        (x[::2], np.s_[::2]),
    ):
        np.testing.assert_array_equal(evaluator.value_and_jacobian(rows)[1], expected[places])
