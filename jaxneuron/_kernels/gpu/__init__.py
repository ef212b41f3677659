"""The fused kernel on NVIDIA GPUs: all layers in one call, for bfloat16 and float16 on Hopper.

    h = activation(h @ w + b), layer after layer

Sums, biases and activations are float32, and each layer is rounded once. There are two kernels, in Pallas'
Mosaic GPU: `resident` keeps all weights in shared memory, `stream` sends them through it. Widths are any up
to 256: zeros are added to the weights until each is one that the tensor cores take. Importing this module
imports no Pallas.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxneuron._activations import gelu, relu
from jaxneuron._kernels.gpu.activations import FORMULAS
from jaxneuron._kernels.private_jax import traced

WIDEST = 256  # units of a layer, and inputs
# Units of the widest layer. 16 wide XLA is faster: 0.13 ms, not 0.15, for 5 layers and 2^20 rows.
NARROWEST = 17
# Units of a network with gelu: its formula needs more registers than wider sums leave. 128 wide it reaches
# 0.70 of the textbook's speed.
WIDEST_GELU = 64
CAPABILITY = "9.0"  # Hopper: the products are its wgmma instructions
OLDEST_JAX = (0, 11)

Layers = Sequence[tuple[Any, Any]]  # w (n_in, n_out), b (n_out,) or None, for each layer


def reason_against(
    widths: Sequence[int], dtype: np.dtype, biases: Sequence[bool], functions: Sequence[Callable[..., Array]]
) -> str | None:
    """Why the kernel shall not evaluate layers of these widths, the inputs' first; None if it shall."""
    if dtype.itemsize != 2:
        return f"the fused GPU kernel evaluates bfloat16 and float16, not {dtype.name}"
    if len(biases) == 1:
        return "one layer is one product, which XLA computes as fast"
    if max(widths) > WIDEST:
        return f"the fused GPU kernel takes up to {WIDEST} units a layer, not {max(widths)}"
    if max(widths[1:]) < NARROWEST:
        return f"the fused GPU kernel takes layers of {NARROWEST} units and more, not {max(widths[1:])}"
    if unknown := [function for function in functions if function not in FORMULAS]:
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
    """Why the kernel can run on none of this process's GPUs; None if it can."""
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
    """Multiprocessors of a GPU."""
    return int(jax.local_devices(backend="cuda")[0].core_count)


def forward(
    x: Array,
    layers: Layers,
    functions: Sequence[Callable[..., Array]],
    members: int = 1,
    interpret: Any = None,
) -> Array:
    """As `xla.forward` for x (rows, n_in), where `reason_against` is None.

    `members`: over how many networks this call is mapped; they share the multiprocessors.
    """
    from jaxneuron._kernels.gpu import activations, resident, stream

    rows, n_in = x.shape
    dtype, n_out = x.dtype, layers[-1][0].shape[1]
    chosen = _choose([n_in, *(w.shape[1] for w, _ in layers)], [b is not None for _, b in layers])
    assert chosen is not None
    widths, plan = chosen
    formulas = [activations.FORMULAS[function] for function in functions]
    if formulas[-1] is activations.softmax and n_out < widths[-1] and layers[-1][1] is None:
        layers = [*layers[:-1], (layers[-1][0], jnp.zeros(n_out, dtype))]
    ws, bs = [], []
    for (w, b), formula, height, width in zip(layers, formulas, widths, widths[1:], strict=False):
        ws.append(_zeros_after(w, (height, width)))
        # A unit that is not there has no part in a softmax.
        fill = float(jnp.finfo(dtype).min) if formula is activations.softmax else 0
        bs.append(None if b is None else _zeros_after(b, (width,), fill))
    x = _zeros_after(x, (rows, widths[0]))
    each = max(1, processors() // members) if interpret is None else 2
    if plan is None:
        y = stream.forward(x, ws, bs, formulas, each, interpret)
    else:
        # A bias in the accumulator takes no registers beside what the activation needs: tanh 128 wide takes
        # 303 us instead of 380, relu 270 instead of 247. Pallas can't interpret it.
        bent = not set(functions) <= set(activations.STRAIGHT)
        bias_first = bent and max(widths) > 64 and interpret is None
        y = resident.forward(x, ws, bs, formulas, plan, each, bias_first, interpret)
    return y[:rows, :n_out]


def _choose(widths: Sequence[int], biases: Sequence[bool]) -> tuple[list[int], Any] | None:
    """The widths with zeros added, and the plan by which weights stay: None if they pass through."""
    from jaxneuron._kernels.gpu import resident, stream

    taken = [max(16, 1 << (n - 1).bit_length()) for n in widths]
    if plan := resident.plan(taken, sum(biases)):
        return taken, plan
    taken = [-(-n // stream.TILE) * stream.TILE for n in widths]
    return (taken, None) if stream.ring(taken, sum(biases)) > 0 else None


def _zeros_after(a: Array, shape: tuple[int, ...], fill: float = 0) -> Array:
    """`a`, filled up at the ends of its axes."""
    if a.shape == shape:
        return a
    more = [(0, n - m) for n, m in zip(shape, a.shape, strict=True)]
    return jnp.pad(a, more, constant_values=np.asarray(fill, a.dtype))


@functools.cache
@traced
def _moved() -> str | None:
    """Whether Pallas still is where this package knows it: asked by tracing a small network."""
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
