"""Everything of JAX that is not its public interface, and what breaks when it moves.

JAX promises nothing about these names. Whoever supports a new JAX starts here: each is used in primitive.py,
products.py, derivatives.py and gpu/ alone (library.py registers its handler by the public `jax.ffi`).

- `Primitive` (jax.extend.core: public, but not stable). The kernel is a primitive of its own, as rows and
  members are to be folded under `vmap`. Without it no network reaches the kernel.
- `ad.Zero`, `ad.primitive_jvps` (jax.interpreters.ad). Derivatives are the kernel's, or those of XLA's path.
  Without them `jax.grad` and `jax.jvp` of a network raise "Differentiation rule for 'jaxneuron_forward' not
  implemented".
- `ad.is_undefined_primal`, `ad.primitive_transposes` (jax.interpreters.ad). Without them
  `jax.linear_transpose` of `affine` raises "Transpose rule for 'jaxneuron_forward' not implemented".
- `jet_rules` (jax.experimental.jet). Without it jax.experimental.jet of a network raises a bare KeyError.
- `nan_checks` (jax._src.checkify, its `error_checks` and `nan_error_check`). Without it checkify finds no NaN
  that a network makes.
- `batching.primitive_batchers` (jax.interpreters.batching). Without it `jax.vmap` of a network raises
  "Batching rule for 'jaxneuron_forward' not implemented".
- `mlir.lower_fun`, `mlir.register_lowering` (jax.interpreters.mlir). What the primitive becomes on each
  platform. Without them nothing compiles.
- `custom_partitioning` (jax.experimental). Rows and members that are divided among devices are evaluated
  where they are. Without it XLA gathers all of them on every device.
- `requires_devices_during_lowering` (jax._src.dispatch, a private set). While a program is lowered,
  custom_partitioning asks for the devices it is for. Without it a jitted call raises AssertionError,
  "Please file a bug".
- `is_for_export` (a field of the lowering's context). An exported program must run where this library is not
  installed, so it gets XLA's path. Without it `jax.export` raises "Cannot serialize code with custom calls".
- `varying_alike` and `like` (an abstract value's `mat`, `sharding` and `update`). Inside `jax.shard_map` a
  value varies over some axes of the mesh. Without them JAX takes the outputs for divided rows to be the same
  on every device: `out_specs=PartitionSpec()` returns those of one device in silence, derivatives are not
  added up over the devices, or raise "Expected cotangent type".
- `traced` (jax._src.config, its `eager_constant_folding`). `jax.ensure_compile_time_eval` computes operations
  on constants at once, in Pallas' kernels too. Without it the GPU kernel there raises NameError, "unbound
  axis name: warpgroup".
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
    """Says that the lowering of `primitive` asks for the devices of its program."""
    dispatch.prim_requires_devices_during_lowering.add(primitive)


def nan_checks(primitive: Primitive) -> None:
    """Lets `jax.experimental.checkify` look for NaN in the results of `primitive`."""
    checkify.error_checks[primitive] = functools.partial(checkify.nan_error_check, primitive)


def is_for_export(context: Any) -> bool:
    """Whether a lowering rule is called for `jax.export`."""
    return bool(context.module_context.lowering_parameters.for_export)


def varying_alike(operands: Sequence[Any]) -> list[Any]:
    """`operands`, each of which varies over all axes of shard_map's mesh over which any of them does."""
    own = [jax.typeof(a).mat.varying for a in operands]
    axes = frozenset().union(*own)
    return [
        jax.lax.pcast(a, tuple(axes - varies), to="varying") if axes - varies else a
        for a, varies in zip(operands, own, strict=True)
    ]


def like(x: Any, shape: Sequence[int]) -> Any:
    """The abstract value of a result that has this shape, and varies over the axes over which `x` does."""
    aval = getattr(x, "aval", x)  # of a tracer, where a result is bound in shard_map itself
    if not aval.mat.varying:
        return jax.core.ShapedArray(shape, aval.dtype)
    sharding = aval.sharding.update(spec=jax.sharding.PartitionSpec(*(None for _ in shape)))
    return aval.update(shape=tuple(shape), sharding=sharding, weak_type=False)


def traced(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with all operations of what it traces or lowers traced, whatever the caller's setting."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with config.eager_constant_folding(False):
            return function(*args, **kwargs)

    return wrapped
