"""Strategies refuse wrong arguments when they are defined, and laws before they check anything."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import MLP, Affine
from jaxneuron.gates import XOR
from jaxneuron.testing import (
    assert_bounded,
    assert_compiles_once,
    assert_jacobian_within_bound,
    assert_laplacian_within_bound,
    assert_monotone,
    assert_rows_independent,
    assert_vmap_consistent,
    assert_within_error_bound,
    ensembles,
    floats,
    inputs,
    layers,
    max_ulp_error,
    mlps,
    neurons,
    numbers,
    params_and_inputs,
)

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    ("define", "error", "message"),
    [
        (lambda: neurons(-1), ValueError, "neurons: n_in must be one size or several, none negative, got -1; pass (1, 2, 7)"),
        (lambda: neurons(()), ValueError, "neurons: n_in must be one size or several, none negative, got ()"),
        (lambda: layers(1, (2, -3)), ValueError, "layers: n_out must be one size or several, none negative, got (2, -3)"),
        (lambda: neurons(dtype="flaot32"), ValueError, "neurons: dtype must be one of bfloat16, float16, float32, float64, got 'flaot32'; did you mean 'float32'?"),
        (lambda: neurons(2.5), ValueError, "neurons: n_in must be one size or several, none negative, got 2.5"),
        (lambda: layers((1, 2.5)), ValueError, "layers: n_in must be one size or several, none negative, got (1, 2.5)"),
        (lambda: neurons("3"), ValueError, "neurons: n_in must be one size or several, none negative, got '3'"),
        (lambda: neurons(bias=()), ValueError, "neurons: bias must be True, False or both, got (); pass (True, False)"),
        (lambda: mlps(bias=None), ValueError, "mlps: bias must be True, False or both, got None"),
        (lambda: neurons(dtype=np.float32), ValueError, "neurons: dtype must be one of bfloat16, float16, float32, float64, got <class 'numpy.float32'>; pass 'float32'"),
        (lambda: floats("double"), ValueError, "floats: dtype must be one of bfloat16, float16, float32, float64, got 'double'"),
        (lambda: layers(dtype=()), ValueError, "layers: dtype must be one of"),
        (lambda: mlps([]), ValueError, "mlps: sizes must hold at least 1 architecture, got none; pass [(2, 3, 1)]"),
        (lambda: mlps((2, 3, 1)), ValueError, "mlps: sizes must hold architectures (n_in, ..., n_out), none negative, got 2; pass [(2, 3, 1)]"),
        (lambda: mlps([(2, -1)]), ValueError, "got (2, -1)"),
        (lambda: mlps([(2,)]), ValueError, "got (2,)"),
        (lambda: mlps([(2, 1.5)]), ValueError, "got (2, 1.5)"),
        (lambda: mlps(5), ValueError, "mlps: sizes must hold architectures (n_in, ..., n_out), none negative, got 5"),
        (lambda: mlps(activations=["tanh", "softmax"]), ValueError, "mlps: activations must suit hidden layers, got 'softmax'; pass it in final_activations"),
        (lambda: mlps(activations=jnp.tanh), ValueError, "mlps: activations must hold at least 1 activation, got <"),
        (lambda: mlps(activations=[]), ValueError, "mlps: activations must hold at least 1 activation, got []; pass ['tanh']"),
        (lambda: mlps(activations="tanh"), ValueError, "mlps: activations must hold at least 1 activation, got 'tanh'"),
        (lambda: mlps(activations=["tahn"]), ValueError, "did you mean 'tanh'?"),
        (lambda: mlps(dtypes="int8"), ValueError, "mlps: dtypes must be one of"),
        (lambda: mlps(nans=True), TypeError, "mlps: got an unknown argument 'nans'; pass some of nan, infinity, subnormal, huge, tiny"),
        (lambda: numbers("double"), ValueError, "numbers: dtype must be one of"),
        (lambda: inputs(Affine(np.ones(2)), batch=[]), ValueError, "inputs: batch must hold at least 1 shape, got none; pass [()] for single inputs"),
        (lambda: inputs(Affine(np.ones(2)), batch=(7,)), ValueError, "inputs: batch must hold shapes, none negative, got 7; pass [(7,)] for 7 rows"),
        (lambda: inputs(Affine(np.ones(2)), batch=[(-1,)]), ValueError, "inputs: batch must hold shapes, none negative, got (-1,)"),
        (lambda: inputs(Affine(np.ones(2)), nans=True), TypeError, "inputs: got an unknown argument 'nans'"),
        (lambda: inputs(Affine([1, 2])), ValueError, "inputs: the dtype of for_ must be one of bfloat16, float16, float32, float64, got 'int64'"),
        (lambda: inputs(mlps()), TypeError, "inputs: for_ must be an Affine or an MLP, got LazyStrategy; pass what a strategy drew, or params_and_inputs(strategy)"),
        (lambda: params_and_inputs(batch=[]), ValueError, "params_and_inputs: batch must hold at least 1 shape, got none; pass [()] for single inputs"),
        (lambda: params_and_inputs(nans=True), TypeError, "params_and_inputs: got an unknown argument 'nans'"),
        (lambda: params_and_inputs(Affine([1.0])), TypeError, "params_and_inputs: params must be a strategy, got Affine; pass mlps(), or inputs(params) for parameters that you have"),
        (lambda: ensembles(0), ValueError, "ensembles: members must be at least 1, got 0; pass (1, 3)"),
        (lambda: assert_bounded(jnp.tanh, 0, 1, over=[1, 2]), ValueError, "assert_bounded: over must be floats in one axis, got int64 (2,); pass floats()"),
        (lambda: assert_rows_independent(jnp.tanh, np.ones(2)), ValueError, "assert_rows_independent: x must hold rows (rows, n_in), got shape (2,)"),
        (lambda: assert_monotone(jnp.tanh, over=np.array([2, 1], np.float32)), ValueError, "assert_monotone: over must be in increasing order; pass numpy.sort(over)"),
        (lambda: assert_vmap_consistent(jnp.dot, np.ones(2), np.ones(2)), ValueError, "assert_vmap_consistent: x must hold rows (rows, n_in), got shape (2,)"),
        (lambda: assert_compiles_once(jnp.tanh, np.ones(2), np.ones(2)), TypeError, "assert_compiles_once: calls must be tuples of arguments, got ndarray; pass (x,)"),
        (lambda: assert_within_error_bound([1.0], [1.0], 1.0), TypeError, "assert_within_error_bound: params must be an Affine or an MLP, got list; pass MLP(layers) for a list of layers"),
        (lambda: assert_within_error_bound(Affine([1.0, 2.0]), [1.0], 1.0), ValueError, "assert_within_error_bound: x must have shape (..., 2), got (1,)"),
        (lambda: assert_within_error_bound(Affine([1.0]), [1.0], 1), AssertionError, "y must hold floats, got int64"),
        (lambda: assert_jacobian_within_bound([1.0], [1.0], 1.0), TypeError, "assert_jacobian_within_bound: mlp must be an MLP, got list"),
        (lambda: assert_jacobian_within_bound(XOR, [1.0], [[1.0]]), ValueError, "assert_jacobian_within_bound: x must have shape (..., 2), got (1,)"),
        (lambda: assert_jacobian_within_bound(XOR, [1.0, np.nan], [[1.0]]), ValueError, "assert_jacobian_within_bound: params and x must be finite"),
        (lambda: assert_laplacian_within_bound(XOR, [1.0, 0.0], [1]), AssertionError, "laplacian must hold floats, got int64"),
        (lambda: assert_laplacian_within_bound(MLP([([[1.0]], None)], final_activation=jnp.sin), [1.0], [1.0]), ValueError, "assert_laplacian_within_bound: activations must be jaxneuron's, got <"),
        (lambda: assert_compiles_once(jnp.tanh, (1.0,)), ValueError, "assert_compiles_once: calls must be at least 2 tuples of arguments, got 1"),
        (lambda: max_ulp_error(jnp.tanh, "tahn"), ValueError, "max_ulp_error: reference must be a function or one of sigmoid,"),
        (lambda: max_ulp_error(jnp.tanh, "tanh", over=np.array([np.inf], np.float32)), ValueError, "max_ulp_error: over must hold a number whose exact result is finite, got none"),
        (lambda: assert_within_error_bound(Affine([1.0]), [np.nan], 1.0), ValueError, "assert_within_error_bound: params and x must be finite"),
        (lambda: assert_within_error_bound(Affine([1.0]), [1.0], 1.0, activation="cube"), ValueError, "assert_within_error_bound: activations must be jaxneuron's, got 'cube'"),
    ],
)  # fmt: skip
def test_refusals(define, error, message):
    with pytest.raises(error, match=re.escape(message)):
        define()
