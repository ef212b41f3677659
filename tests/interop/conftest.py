"""In these tests JAX has its default settings, as the libraries' users have; in other tests it is strict."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import pytest


@pytest.fixture(autouse=True)
def _default_jax_settings():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
