"""`evaluate` keeps data of a network between calls, and notices that the network's arrays have changed."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import MLP, evaluate, mlp_forward
from tests.evaluate.networks import needs_the_kernel, numbers

pytestmark = pytest.mark.cpu


@needs_the_kernel
@pytest.mark.parametrize("of_rows", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("of_weights", ["float32", "bfloat16", "float16", "float64"])
def test_numpy_weights_may_change_between_calls(of_weights, of_rows):
    w = numbers(3, 5), numbers(3, 5).T
    arrays = [each.astype(jnp.dtype(of_weights)) for each in (w[0], np.ones(5), w[1], np.ones(3))]
    mlp, rows = MLP([arrays[:2], arrays[2:]], "tanh"), numbers(4, 3).astype(jnp.dtype(of_rows))
    with jax.enable_x64(True):
        for array in (*arrays, arrays[0]):
            assert evaluate(mlp, rows).tobytes() == np.asarray(mlp_forward(mlp, rows)).tobytes()
            array *= -2
        assert evaluate(mlp, rows).tobytes() == np.asarray(mlp_forward(mlp, rows)).tobytes()
    with warnings.catch_warnings(action="ignore"):  # NumPy warns that setting a shape is deprecated
        arrays[0].shape = (5, 3)
    with pytest.raises(ValueError, match="layer 0: b must have shape"):
        evaluate(mlp, rows)
