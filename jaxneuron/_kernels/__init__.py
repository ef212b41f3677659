"""Ways to execute a forward pass, and the place that chooses one from static facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
from jax import Array

from jaxneuron._kernels import library, primitive, xla


def forward(
    layers: Sequence[xla.Layer],
    activations: Sequence[Callable[[Array], Array]],
    x: Array,
) -> Array:
    """For every layer, x = activation(x @ w + b); shapes fit."""
    if primitive.reason_against(layers, activations, x) is None:
        return primitive.forward(layers, activations, x)
    return xla.forward(layers, activations, x)


def default_platform() -> str:
    """The platform of the device that JAX computes on unless an array is on another."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined] # None, a Device, or a platform
    return jax.default_backend() if device is None else str(getattr(device, "platform", device))


def choice(layers: Sequence[xla.Layer], activations: Sequence[Callable[[Array], Array]], x: Array) -> str:
    """What `forward` chooses, in words."""
    reason = primitive.reason_against(layers, activations, x)
    if reason is None and (platform := default_platform()) != "cpu":
        reason = f"the platform is {platform}"
    if reason:
        return f"XLA, layer by layer: {reason}"
    return f"fused CPU kernel, {library.instruction_sets()[-1]}: all {len(layers)} layers in one call"
