"""Modules that the tests of `from_nnx` share."""

import jax
import numpy as np
from flax import nnx

GIVEN = {"activation": "relu", "final_activation": "identity"}
RNGS = nnx.Rngs(0)


def forward64(apply, params, x):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        return np.asarray(apply(wide, np.asarray(x, np.float64)))


class Pair(nnx.Module):
    def __init__(self, one, two):
        self.layer1, self.layer2 = one, two

    def __call__(self, x):
        return self.layer2(nnx.relu(self.layer1(x)))
