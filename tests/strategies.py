"""Hypothesis strategies for parameters and inputs: few sizes, because every new shape compiles."""

import itertools

import jax
import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxneuron import MLP, Affine

SIZES = st.sampled_from([0, 1, 2, 7])
BATCHES = st.sampled_from([(), (0,), (1,), (7,), (2, 1)])
ELEMENTWISE = (
    "sigmoid", "relu", "tanh", "identity", "silu", "gelu", "gelu_tanh", "softplus", "elu", "selu",
    "leaky_relu", "hard_sigmoid",
)  # fmt: skip
FINAL = st.sampled_from([*ELEMENTWISE, "softmax"])
DTYPES = {
    "bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32, "float64": np.float64,
}  # fmt: skip


def held_dtypes():
    """The names of the dtypes that JAX holds now: float64 only with x64 on."""
    return st.deferred(
        lambda: st.sampled_from([d for d in DTYPES if d != "float64" or jax.config.jax_enable_x64])
    )


def arrays(shape, dtype="float32"):
    """Numbers of ordinary size, exact in every dtype's neighbourhood; subnormal ones are another matter."""
    elements = st.floats(-4, 4, width=16, allow_subnormal=False)
    return hnp.arrays(np.float32, shape, elements=elements).map(lambda a: a.astype(DTYPES[dtype]))


@st.composite
def affines(draw, n_in=SIZES, n_out=SIZES, dtype="float32"):
    """A layer, or a neuron where `n_out` draws None."""
    n_in, n_out = draw(n_in), draw(n_out)
    out = () if n_out is None else (n_out,)
    return Affine(
        draw(arrays((n_in, *out), dtype)), draw(arrays(out, dtype)) if draw(st.booleans()) else None
    )


@st.composite
def mlps(draw, dtype="float32", final=FINAL):
    sizes = draw(st.lists(SIZES, min_size=2, max_size=4))
    layers = [draw(affines(st.just(m), st.just(n), dtype)) for m, n in itertools.pairwise(sizes)]
    activation = draw(
        st.lists(st.sampled_from(ELEMENTWISE), min_size=len(layers) - 1, max_size=len(layers) - 1)
    )
    return MLP(layers, tuple(activation), draw(final))


@st.composite
def mlps_and_inputs(draw, batch=BATCHES, dtypes=None, **kwargs):
    dtype = draw(dtypes or held_dtypes())
    mlp = draw(mlps(dtype=dtype, **kwargs))
    return mlp, draw(arrays((*draw(batch), len(mlp.layers[0].w)), dtype))
