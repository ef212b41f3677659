"""The ways to evaluate a network, and the choice among them, which depends on static facts alone.

Static facts are shapes, dtypes, activations and the platform: never the numbers in an array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import Array

from jaxneuron._arrays import result_dtype
from jaxneuron._kernels import derivatives as derivatives  # its import registers JAX's rules
from jaxneuron._kernels import gpu, library, primitive, products, xla, xla_derivatives


def forward(
    layers: Sequence[xla.Layer],
    activations: Sequence[Callable[[Array], Array]],
    x: Array,
) -> Array:
    """Computes x = activation(x @ w + b) for every layer. The caller has checked that the shapes fit."""
    if primitive.reason_against(layers, activations, x) is None and not (library.missing() and gpu.missing()):
        return primitive.forward(layers, activations, x)
    return xla.forward(layers, activations, x)


def value_and_jacobian(
    layers: Sequence[xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array
) -> tuple[Array, Array]:
    """The outputs y (..., n_out) and the Jacobians J (..., n_out, n_in); w is (n_in, n_out).

    J has the dtype in which sums are computed. The caller has checked that the shapes fit.
    """
    if _serves_derivatives(layers, activations, x):
        y, jacobian = products.value_and_jacobian(layers, activations, x)
        return y, jacobian
    y, jacobian = xla_derivatives.value_and_jacobian(layers, activations, x)
    return y if y.dtype.itemsize > 2 else forward(layers, activations, x), jacobian


def laplacian(
    layers: Sequence[xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array
) -> tuple[Array, Array, Array]:
    """y and J as `value_and_jacobian` returns them, and L (..., n_out), the Laplacian of each output.

    The Laplacian is the sum of the second derivatives along each input.
    """
    if _serves_derivatives(layers, activations, x):
        y, jacobian, second = products.value_and_jacobian(layers, activations, x, laplacian=True)
        return y, jacobian, second
    y, jacobian, second = xla_derivatives.laplacian(layers, activations, x)
    return y if y.dtype.itemsize > 2 else forward(layers, activations, x), jacobian, second


def _serves_derivatives(
    layers: Sequence[xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array
) -> bool:
    return _reason_against_derivatives(layers, activations, x) is None and library.missing() is None


def _reason_against_derivatives(
    layers: Sequence[xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array
) -> str | None:
    reason = primitive.reason_against(layers, activations, x)
    return reason or products.reason_against(xla.widths_of(x, layers), _result_dtype(layers, x))


def _result_dtype(layers: Sequence[xla.Layer], x: Array) -> np.dtype:
    return result_dtype(x, *jax.tree.leaves(layers))


def default_platform() -> str:
    """The platform of the device that JAX computes on unless an array is on another."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined] # None, a Device, or a platform
    return jax.default_backend() if device is None else str(getattr(device, "platform", device))


def choice(layers: Sequence[xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array) -> str:
    """Says in words how `forward` evaluates this network on the platform of JAX's default device."""
    platform = default_platform()
    kernel = f"fused {platform.upper()} kernel"
    reason = primitive.reason_against(layers, activations, x)
    if reason is None and platform == "cpu":
        reason = library.missing()
        kernel = f"{kernel}, {''.join(library.instruction_sets()[-1:])}"
    elif reason is None and platform == "gpu":
        biases = [b is not None for _, b in layers]
        reason = gpu.reason_against(xla.widths_of(x, layers), _result_dtype(layers, x), biases, activations)
    elif reason is None:
        reason = f"the platform is {platform}"
    if reason:
        return f"XLA, layer by layer: {reason}"
    return f"{kernel}: all {len(layers)} layers in one call"


def derivative_choice(
    layers: Sequence[xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array
) -> str:
    """Says in words how `value_and_jacobian` evaluates this on the platform of JAX's default device."""
    platform = default_platform()
    reason = _reason_against_derivatives(layers, activations, x)
    reason = reason or (library.missing() if platform == "cpu" else f"the platform is {platform}")
    if reason:
        return f"XLA, layer by layer: {reason}"
    way = "backward" if xla_derivatives.backward_is_cheaper(xla.widths_of(x, layers)) else "forward"
    return (
        f"fused CPU kernel, {library.instruction_sets()[-1]}: "
        f"value and Jacobian of all {len(layers)} layers in one call, {way}"
    )
