"""Layers to read, and the exact result of steps, in 200 bits."""

import jax
import numpy as np

from jaxneuron import Affine
from jaxneuron._math import oracle
from jaxneuron.convert._scalings import Scaling
from tests.draws import generator

RNG = generator()
RELU = {"activation": "relu", "final_activation": "identity"}


def normal(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


def bits(mlp):
    return [(np.asarray(a).dtype, a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(mlp)]


def dense(n_in, n_out, **extra):
    return {"kernel": normal(n_in, n_out), "bias": normal(n_out), **extra}


def run(steps, x):
    """The result of the steps in mpmath, and the result if every number had a positive sign."""
    exact = np.vectorize(oracle.MP.mpf, otypes=[object])
    wide = lambda a: exact(np.asarray(a, np.float64))  # noqa: E731
    x = wide(x)
    size = abs(x)
    for step in steps:
        if isinstance(step, Affine):
            w, b = wide(step.w), wide(np.zeros(step.w.shape[1]) if step.b is None else step.b)
            x, size = x @ w + b, size @ abs(w) + abs(b)
        elif isinstance(step, Scaling):
            mean, scale, shift = map(wide, step)
            x, size = (x - mean) * scale + shift, (size + abs(mean)) * abs(scale) + abs(shift)
        else:  # its slope is at most 1, and it exceeds 1 only if z does
            x, size = np.vectorize(oracle.FORMULAS[step], otypes=[object])(x), np.maximum(size, 1)
    return x.astype(np.float64), size.astype(np.float64)
