"""The fused kernel on NVIDIA GPUs: all layers in one call, for bfloat16 and float16 on Hopper.

    h = activation(h @ w + b), layer after layer

Sums, biases and activations are computed in float32, and the outputs of each layer are rounded once. There
are two kernels, written in Pallas Mosaic GPU: `resident` keeps all weights in shared memory, and `stream`
loads them into it again for every tile of rows. Any width up to 256 is accepted: zeros are added to the
weights until the tensor cores can take every width. Importing this module does not import Pallas.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxneuron._activations import gelu, relu
from jaxneuron._kernels.gpu.activations import STRAIGHT, formula_of
from jaxneuron._kernels.private_jax import traced

WIDEST = 256  # the most units in a layer, and the most inputs
# The fewest units that the widest layer must have. With 16 units XLA is faster: it takes 0.13 ms for 5 layers
# and 2^20 rows, the kernel 0.15 ms.
NARROWEST = 17
# The most units in a layer of a network with gelu. Wider sums leave too few registers for its formula: with
# 128 units the kernel reaches 0.70 of the speed of the textbook's JAX code.
WIDEST_GELU = 64
CAPABILITY = "9.0"  # Hopper, whose wgmma instructions compute the products
OLDEST_JAX = (0, 11)

Layers = Sequence[tuple[Any, Any]]  # w (n_in, n_out), b (n_out,) or None, for each layer


def reason_against(
    widths: Sequence[int], dtype: np.dtype, biases: Sequence[bool], functions: Sequence[Callable[..., Array]]
) -> str | None:
    """Why the kernel should not evaluate these layers; None if it should.

    `widths`: the number of inputs, then the units of each layer. `biases`: whether each layer has one.
    """
    if dtype.itemsize != 2:
        return f"the fused GPU kernel evaluates bfloat16 and float16, not {dtype.name}"
    if len(biases) == 1:
        return "one layer is one product, which XLA computes as fast"
    if max(widths) > WIDEST:
        return f"the fused GPU kernel takes up to {WIDEST} units a layer, not {max(widths)}"
    if max(widths[1:]) < NARROWEST:
        return f"the fused GPU kernel takes layers of {NARROWEST} units and more, not {max(widths[1:])}"
    if unknown := [function for function in functions if formula_of(function) is None]:
        return f"the fused GPU kernel has no formula for {getattr(unknown[0], '__name__', unknown[0])}"
    if gelu in functions and max(widths) > WIDEST_GELU:
        return f"with gelu the fused GPU kernel pays up to {WIDEST_GELU} units a layer, not {max(widths)}"
    if reason := missing():
        return reason
    if _choose(widths, biases) is None:
        return f"{len(biases)} layers of up to {max(widths)} units don't fit into the GPU's shared memory"
    return None


@functools.cache
def missing() -> str | None:
    """Why the kernel can't run on this process's GPUs; None if it can."""
    if jax.__version_info__[:2] < OLDEST_JAX:
        return (
            f"the fused GPU kernel needs jax {'.'.join(map(str, OLDEST_JAX))} or newer, not {jax.__version__}"
        )
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:
        return "this process has no NVIDIA GPU"
    for device in devices:
        if device.compute_capability != CAPABILITY:
            return f"the fused GPU kernel is for Hopper (9.0), not for {device.device_kind}"
    return _moved()


@functools.cache
def processors() -> int:
    """The number of multiprocessors of a GPU."""
    return int(jax.local_devices(backend="cuda")[0].core_count)


def forward(
    x: Array,
    layers: Layers,
    functions: Sequence[Callable[..., Array]],
    members: int = 1,
    interpret: Any = None,
) -> Array:
    """Computes x = activation(x @ w + b) for every layer, where `reason_against` is None. x is (rows, n_in).

    `members`: the number of networks over which this call is mapped; they share the multiprocessors.
    `interpret`: Pallas' settings to interpret the kernel on a CPU, for tests; None compiles it.
    """
    from jaxneuron._kernels.gpu import resident, stream

    rows, n_in = x.shape
    units = [w.shape[1] for w, _ in layers]
    chosen = _choose([n_in, *units], [b is not None for _, b in layers])
    assert chosen is not None
    widths, plan = chosen
    formulas = [formula for function in functions if (formula := formula_of(function)) is not None]
    ws = [_zeros_after(w, shape) for (w, _), shape in zip(layers, itertools.pairwise(widths), strict=True)]
    bs = [
        None if b is None else _zeros_after(b, (width,))
        for (_, b), width in zip(layers, widths[1:], strict=True)
    ]
    x = _zeros_after(x, (rows, widths[0]))
    each = max(1, processors() // members) if interpret is None else 2
    if plan is None:
        y = stream.forward(x, ws, bs, formulas, units, each, interpret)
    else:
        # If sums start from the bias, it needs no registers of its own while the activation is computed: tanh
        # with 128 units takes 303 us instead of 380. relu needs few registers anyway, and would take 270 us
        # instead of 247. Pallas can't interpret this.
        bent = any(formula.function not in STRAIGHT for formula in formulas)
        bias_first = bent and max(widths) > 64 and interpret is None
        y = resident.forward(x, ws, bs, formulas, units, plan, each, bias_first, interpret)
    return y[:rows, : units[-1]]


def _choose(widths: Sequence[int], biases: Sequence[bool]) -> tuple[list[int], Any] | None:
    """The widths with zeros added, and the plan of `resident`, or None for `stream`.

    Returns None alone if neither kernel has enough shared memory.
    """
    from jaxneuron._kernels.gpu import resident, stream

    taken = [max(16, 1 << (n - 1).bit_length()) for n in widths]
    if plan := resident.plan(taken, sum(biases)):
        return taken, plan
    taken = [-(-n // stream.TILE) * stream.TILE for n in widths]
    return (taken, None) if stream.ring(taken, sum(biases)) > 0 else None


def _zeros_after(a: Array, shape: tuple[int, ...]) -> Array:
    """`a` with zeros added at the end of each axis, up to this shape."""
    return a if a.shape == shape else jnp.pad(a, [(0, n - m) for n, m in zip(shape, a.shape, strict=True)])


@functools.cache
@traced
def _moved() -> str | None:
    """Why the kernel does not fit this version of Pallas; None if it does. It traces a small network."""
    x, w = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((8, 16), (16, 16)))
    try:
        jax.eval_shape(lambda x, w: forward(x, [(w, w[0])], [relu]), x, w)
    except ModuleNotFoundError as error:
        return f"the fused GPU kernel needs the {error.name} library; pip install 'jaxneuron[gpu]'"
    except Exception as error:  # whatever a later JAX may raise
        warnings.warn(
            f"jaxneuron's GPU kernel does not fit jax {jax.__version__} ({type(error).__name__}: {error}); "
            f"XLA evaluates instead; update jaxneuron to use the kernel",
            stacklevel=2,
        )
        return f"the fused GPU kernel does not fit jax {jax.__version__}"
    return None
