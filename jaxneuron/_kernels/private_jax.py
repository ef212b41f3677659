"""All names that this package uses from outside JAX's public interface, and what breaks if one of them moves.

JAX promises nothing about these names. To support a new version of JAX, start here. Only primitive.py,
products.py, derivatives.py and gpu/ use them (library.py registers its handlers by the public `jax.ffi`).

- `Primitive` (jax.extend.core: public, but not stable). The kernel is a primitive of its own, because `vmap`
  has to fold a mapped axis into rows or members. Without it a network can't reach the kernel.
- `ad.Zero`, `ad.primitive_jvps` (jax.interpreters.ad). The kernel or XLA's path computes the derivatives.
  Without them `jax.grad` and `jax.jvp` of a network raise "Differentiation rule for 'jaxneuron_forward' not
  implemented".
- `ad.is_undefined_primal`, `ad.primitive_transposes` (jax.interpreters.ad). Without them
  `jax.linear_transpose` of `affine` raises "Transpose rule for 'jaxneuron_forward' not implemented".
- `jet_rules` (jax.experimental.jet). Without it `jax.experimental.jet` of a network raises a bare KeyError.
- `nan_checks` (jax._src.checkify, its `error_checks` and `nan_error_check`). Without it
  `jax.experimental.checkify` does not find a NaN that a network computes.
- `batching.primitive_batchers` (jax.interpreters.batching). Without it `jax.vmap` of a network raises
  "Batching rule for 'jaxneuron_forward' not implemented".
- `mlir.lower_fun`, `mlir.register_lowering` (jax.interpreters.mlir). They say what the primitive becomes on
  each platform. Without them nothing compiles.
- `custom_partitioning` (jax.experimental). Each device evaluates the rows and members that it holds. Without
  it XLA gathers all of them on every device.
- `requires_devices_during_lowering` (jax._src.dispatch, a private set). While a program is lowered,
  custom_partitioning asks for the devices that the program will run on. Without it a jitted call raises
  AssertionError, "Please file a bug".
- `is_for_export` (a field of the lowering's context). An exported program must run where this library is not
  installed, so it gets XLA's path. Without it `jax.export` raises "Cannot serialize code with custom calls".
- `varying_alike` and `like` (an abstract value's `mat`, `sharding` and `update`). Inside `jax.shard_map` a
  value varies over some axes of the mesh. Without them JAX assumes that the outputs for divided rows are the
  same on every device: `out_specs=PartitionSpec()` silently returns the outputs of one device, and
  derivatives are not summed over the devices, or raise "Expected cotangent type".
- `traced` (jax._src.config, its `eager_constant_folding`). `jax.ensure_compile_time_eval` computes operations
  on constants at once, in Pallas kernels too. Without `traced` the GPU kernel raises NameError inside it,
  "unbound axis name: warpgroup".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
from jax._src import checkify, config, dispatch
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.jet import jet_rules
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = [
    "Primitive",
    "ad",
    "batching",
    "custom_partitioning",
    "is_for_export",
    "jet_rules",
    "like",
    "mlir",
    "nan_checks",
    "requires_devices_during_lowering",
    "traced",
    "varying_alike",
]

P = ParamSpec("P")
R = TypeVar("R")


def requires_devices_during_lowering(primitive: Primitive) -> None:
    """Tells JAX that the lowering of `primitive` needs to know the devices of its program."""
    dispatch.prim_requires_devices_during_lowering.add(primitive)


def nan_checks(primitive: Primitive) -> None:
    """Makes `jax.experimental.checkify` look for NaN in the results of `primitive`."""
    checkify.error_checks[primitive] = functools.partial(checkify.nan_error_check, primitive)


def is_for_export(context: Any) -> bool:
    """Whether a lowering rule is called for `jax.export`."""
    return bool(context.module_context.lowering_parameters.for_export)


def varying_alike(operands: Sequence[Any]) -> list[Any]:
    """The operands, each marked as varying over every axis of the mesh over which any of them varies."""
    own = [jax.typeof(a).mat.varying for a in operands]
    axes = frozenset().union(*own)
    return [
        jax.lax.pcast(a, tuple(axes - varies), to="varying") if axes - varies else a
        for a, varies in zip(operands, own, strict=True)
    ]


def like(x: Any, shape: Sequence[int]) -> Any:
    """The abstract value of a result of this shape, which varies over the same axes of the mesh as `x`."""
    aval = getattr(x, "aval", x)  # x is a tracer where shard_map itself binds the primitive
    if not aval.mat.varying:
        return jax.core.ShapedArray(shape, aval.dtype)
    sharding = aval.sharding.update(spec=jax.sharding.PartitionSpec(*(None for _ in shape)))
    return aval.update(shape=tuple(shape), sharding=sharding, weak_type=False)


def traced(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, within which JAX traces all operations, even if `jax.ensure_compile_time_eval` is on."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with config.eager_constant_folding(False):
            return function(*args, **kwargs)

    return wrapped
