"""Evaluates batches by JAX where the CPU kernel can't: on GPUs, and with activations that the kernel lacks.

a batch  ->  padded to one shape  ->  one program, which gives each device a tile of its own  ->  outputs
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxneuron._arrays import as_operand
from jaxneuron._errors import BadType, BadValue, TooLarge
from jaxneuron._evaluate import gpus
from jaxneuron._evaluate.evaluator import forward_of, machine_memory
from jaxneuron._members import members_of
from jaxneuron._params import MLP

ROWS, ROWS_OF_MEMBERS = PartitionSpec("rows"), PartitionSpec(None, "rows")  # the axis that is divided


def chosen(devices: Any) -> Sequence[jax.Device]:
    """The devices to use: `devices`, which must belong to this process, or all of this process's if None."""
    if devices is None:
        return jax.local_devices()
    if not isinstance(devices, Iterable):
        raise BadType(f"devices must be a sequence of devices, got {type(devices).__name__}; pass [device]")
    found = list(devices)
    ours = all(isinstance(each, jax.Device) and each.process_index == jax.process_index() for each in found)
    if not found or not ours or len(set(found)) < len(found):
        raise BadValue(
            f"devices must be one or more of this process's, each once, got {found}; "
            f"pass some of jax.local_devices()"
        )
    return found


def output_row(mlp: MLP, dtype: np.dtype) -> jax.ShapeDtypeStruct:
    """The shape and dtype of the outputs for one row of `dtype`: `(n_out,)`, for a stack `(members, n_out)`.

    Raises what `mlp_forward` raises for such a row.
    """
    x = as_operand(np.empty((0, mlp.layers[0].w.shape[-2]), dtype), "rows")
    y = jax.eval_shape(forward_of(mlp), mlp, x)
    return jax.ShapeDtypeStruct((*y.shape[:-2], y.shape[-1]), y.dtype)


@contextlib.contextmanager
def program(
    mlp: MLP, devices: Sequence[jax.Device], size: int
) -> Iterator[Callable[[np.ndarray], Callable[[], np.ndarray]]]:
    """Yields a function of a batch of at most `size` rows, which starts to evaluate it and doesn't wait.

    That function returns another, which waits for the outputs and returns them.
    """
    if not any(np.size(leaf) for leaf in jax.tree.leaves(mlp)):
        devices = devices[:1]  # XLA refuses a program without operands on several devices
    mesh = Mesh(np.array(devices), ("rows",))
    by_rows = NamedSharding(mesh, ROWS)
    outputs_by_rows = by_rows if members_of(mlp) is None else NamedSharding(mesh, ROWS_OF_MEMBERS)
    with jax.core.eval_context():  # works inside a trace too
        weights = jax.device_put(mlp, NamedSharding(mesh, PartitionSpec()))

    def compute(x: np.ndarray) -> Callable[[], np.ndarray]:
        with jax.core.eval_context():
            outputs, count = begin(padded(np.asarray(as_operand(x, "rows")), size)), len(x)
        return lambda: outputs()[..., :count, :]

    computing = gpus.computing if gpus.are(devices) else _computing
    with computing(_program(mesh, outputs_by_rows.spec), weights, by_rows, outputs_by_rows) as begin:
        yield compute


@contextlib.contextmanager
def _computing(
    program: Any, weights: MLP, by_rows: NamedSharding, outputs: NamedSharding
) -> Iterator[gpus.Begin]:
    """The counterpart of `gpus.computing` for CPUs: JAX reads rows in place, and NumPy reads the outputs."""
    yield lambda x: functools.partial(np.asarray, program(weights, jax.device_put(x, by_rows)))


def padded(x: np.ndarray, size: int) -> np.ndarray:
    """`x` with copies of its last row up to `size` rows: they can't overflow or give NaN where x doesn't."""
    return x if len(x) == size else np.pad(x, ((0, size - len(x)), (0, 0)), "edge")


@functools.cache
def _program(mesh: Mesh, outputs: PartitionSpec = ROWS) -> Callable[[MLP, Array], Array]:
    """A program in which each device evaluates `mlp_forward` of its own rows.

    It is mapped over the devices by `shard_map`, not partitioned by XLA, so that no device waits for another.
    """

    def forward(mlp: MLP, x: Array) -> Array:
        return forward_of(mlp)(mlp, x)

    in_specs = PartitionSpec(), ROWS
    return jax.jit(jax.shard_map(forward, mesh=mesh, in_specs=in_specs, out_specs=outputs, check_vma=False))


def check_memory(weights: int, rows: int, tile: int, devices: Sequence[jax.Device]) -> None:
    """Refuses `weights` and the `rows` of a tile, both in bytes, that exceed the whole memory of a device.

    Memory that is already in use is not subtracted: a network that passes may still not fit.
    """
    device = devices[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None and (shared := machine_memory()):  # JAX's CPU devices share the machine's memory
        limit = shared // len(devices)
    if limit is not None and weights + rows > limit:
        raise TooLarge(
            f"mlp and a tile must fit in the {limit:,} bytes of {device}, got {weights:,} bytes of "
            f"weights and {rows:,} of {tile:,} rows; pass a smaller tile or network, or fewer CPU devices"
        )
