"""XLA's own path: each layer a matrix product and its activation.

On any platform, with any activation, differentiable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxneuron._arrays import result_dtype, sum_dtype
from jaxneuron._errors import BadType, BadValue, inside

Layer = tuple[Array, Array | None]  # w (n_in, *out), b (*out,)


def forward(layers: Sequence[Layer], activations: Sequence[Callable[[Array], Array]], x: Array) -> Array:
    """For every layer, x = activation(x @ w + b)."""
    for i, ((w, b), activation) in enumerate(zip(layers, activations, strict=True)):
        dtype = result_dtype(*(a for a in (w, b, x) if a is not None))
        # float32 means float32 on every device; a precision that the user has set is left alone.
        lowered = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        # (..., n_in) x (n_in, *out) -> (..., *out)
        z = lax.dot_general(
            x.astype(dtype),
            w.astype(dtype),
            (((x.ndim - 1,), (0,)), ((), ())),
            precision=lax.Precision.HIGHEST if lowered is None else None,
            preferred_element_type=sum_dtype(dtype),
        )
        if b is not None:
            z = z + jnp.broadcast_to(b.astype(dtype).astype(z.dtype), z.shape)
        with inside(f"layer {i}") if len(layers) > 1 else contextlib.nullcontext():
            x = _activated(z, activation).astype(dtype)
    return x


def _activated(z: Array, activation: Callable[[Array], Array]) -> Array:
    y: Any = activation(z)
    if not isinstance(y, jax.Array) or not jnp.isrealobj(y):
        kind = f"{y.dtype.name} numbers" if isinstance(y, jax.Array) else type(y).__name__
        raise BadType(f"activation must give an array of real numbers, got {kind}; use jax.numpy functions")
    if y.shape != z.shape:
        raise BadValue(
            f"activation must keep the shape {z.shape}, got {y.shape}; use an elementwise function"
        )
    return y
