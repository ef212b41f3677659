"""The other libraries, as their users have them: JAX's strictness is ours, not theirs."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import pytest

LIBRARIES = {
    "test_flax": ("flax",),
    "test_equinox": ("equinox",),
    "test_haiku": ("haiku",),
    "test_keras": ("keras", "h5py"),
    "test_sklearn": ("sklearn",),
    "test_onnx": ("onnx", "onnxruntime"),
}


@pytest.fixture(autouse=True)
def _as_users_have_it():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
