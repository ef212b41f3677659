"""XLA's own path: each layer is a matrix product, followed by its activation.

It works on any platform and with any activation, and JAX can differentiate it.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxneuron import _activations
from jaxneuron._arrays import result_dtype, sum_dtype
from jaxneuron._errors import BadType, BadValue, inside
from jaxneuron._kernels.gpu.activations import formula_of
from jaxneuron._names import NARROW

# Activations that XLA on a GPU computes within a 16-bit product, applied to its 16-bit sums.
IN_PRODUCT: dict[Callable[..., Array], Callable[[Array], Array]] = {
    _activations.identity: lambda z: z,
    _activations.relu: jax.nn.relu,
    _activations.tanh: lax.tanh,
    _activations.sigmoid: lax.logistic,
}

Layer = tuple[Array, Array | None]  # w (n_in, *out), b (*out,)


def forward(
    layers: Sequence[Layer],
    activations: Sequence[Callable[[Array], Array]],
    x: Array,
    on_gpu: bool | None = None,
) -> Array:
    """Computes x = activation(x @ w + b) for every layer. `on_gpu`: None while the platform is not known."""
    if on_gpu is None and jax.default_backend() != "gpu":
        on_gpu = False
    for i, ((w, b), activation) in enumerate(zip(layers, activations, strict=True)):
        dtype = result_dtype(*(a for a in (w, b, x) if a is not None))
        operands = [a.astype(dtype) for a in (x, w, b) if a is not None]
        with inside(f"layer {i}") if len(layers) > 1 else contextlib.nullcontext():
            layer = functools.partial(_layer, activation=activation)
            narrow = functools.partial(_layer, activation=activation, narrow=True)
            # For one row or one unit XLA multiplies vectors, and rounds each product to the sum's dtype.
            vector = math.prod(x.shape[:-1]) == 1 or math.prod(w.shape[1:]) == 1
            if on_gpu is False or dtype.itemsize != 2 or vector:
                x = layer(*operands)
            elif on_gpu:
                x = narrow(*operands)
            else:
                x = lax.platform_dependent(*operands, cuda=narrow, default=layer)
    return x


def _layer(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    activation: Callable[[Array], Array],
    narrow: bool = False,
) -> Array:
    """activation(x @ w + b), for operands of one dtype.

    16-bit products are summed in float32; bias and activation are applied before the sum is rounded. If
    `narrow`, the sum is rounded first, and once more with its bias: XLA on a GPU writes the sums of a product
    to memory, and 16-bit sums are written and read in half the time. XLA then computes the bias, and the
    activations of IN_PRODUCT, within the product.
    """
    z = sums(x, w, b, narrow)
    if narrow and activation in IN_PRODUCT:
        return IN_PRODUCT[activation](z)
    if narrow:
        formula = formula_of(activation)
        activation = activation if formula is None or formula.of_rows else formula
    elif x.dtype.itemsize == 2:
        activation = NARROW.get(activation, activation)
    return activated(z.astype(sum_dtype(x.dtype)), activation).astype(x.dtype)


def widths_of(x: Any, layers: Sequence[Layer]) -> list[int]:
    """How many numbers a row has before the first layer and after each layer; w is (..., n_in, n_out)."""
    return [x.shape[-1], *(w.shape[-1] for w, _ in layers)]


def sums(x: Array, w: Array, b: Array | None = None, narrow: bool = False) -> Array:
    """x @ w + b for operands of one dtype: in that dtype if `narrow`, otherwise in the dtype of sums."""
    z = product(x, w, x.dtype if narrow else sum_dtype(x.dtype), narrow)
    return z if b is None else z + jnp.broadcast_to(b.astype(z.dtype), z.shape)


def product(x: Array, w: Array, dtype: np.dtype, narrow: bool = False) -> Array:
    """x (..., n_in) @ w (n_in, *out), summed in `dtype`."""
    # float32 is float32 on every device, unless the user has set another precision.
    lowered = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return lax.dot_general(
        x,
        w,
        (((x.ndim - 1,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST if lowered is None and not narrow else None,
        preferred_element_type=dtype,
    )


def activated(z: Array, activation: Callable[[Array], Array]) -> Array:
    """activation(z). Raises BadType or BadValue if that is not a real array of z's shape."""
    y: Any = activation(z)
    if not isinstance(y, jax.Array) or not jnp.isrealobj(y):
        kind = f"{y.dtype.name} numbers" if isinstance(y, jax.Array) else type(y).__name__
        raise BadType(f"activation must give an array of real numbers, got {kind}; use jax.numpy functions")
    if y.shape != z.shape:
        raise BadValue(
            f"activation must keep the shape {z.shape}, got {y.shape}; use an elementwise function"
        )
    return y
