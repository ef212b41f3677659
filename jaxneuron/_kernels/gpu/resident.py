"""The fused kernel whose weights stay in shared memory: for widths up to 128, and as many layers as fit.

Every block loads all weights once. Then each of its warpgroups evaluates its own tiles of rows:

    rows -> shared memory          the copy engine, one tile ahead
    h = activation(rows @ w + b)   the tensor cores. Sums stay in registers: bias and activation are applied
    h = activation(h @ w + b)      in float32, and the rounded result is the next product's operand
    h -> shared memory -> result   the copy engine again

So every row is read once, and its result is written once, whatever the number of layers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from jaxneuron._kernels.gpu.activations import Formula

plgpu: Any = mosaic_gpu  # Any, because its annotations differ between versions of JAX

# Sums over a row, in softmax, stay within a warp and need no shared memory.
COMPILED = plgpu.CompilerParams(approx_math=True, reduction_scratch_bytes=0)
TILE = 64  # rows that a warpgroup evaluates in one step: as many as a tensor core instruction takes
SHARED_MEMORY = 227 * 1024 - 1024  # bytes: what a block may use on Hopper, less 1 KB for the barriers


class Plan(NamedTuple):
    """How a block divides its rows."""

    warpgroups: int
    slots: int  # tiles of rows in shared memory, for each warpgroup


def plan(widths: Sequence[int], layers_with_bias: int) -> Plan | None:
    """The first plan that fits into shared memory and registers; None if all of them are too large."""
    weights = sum(bytes_of(a, b) for a, b in itertools.pairwise(widths))
    fixed = weights + bytes_of(max(1, layers_with_bias), max(64, *widths))
    if max(widths) > 128:
        return None
    # With four warpgroups a thread may have 128 registers: enough for 64 sums and the rows they come from.
    for warpgroups in (4, 2, 1) if max(widths) <= 64 else (2, 1):
        for slots in (2, 1):
            rows = 2 * TILE * warpgroups * (slots * widths[0] + widths[-1])
            if fixed + rows <= SHARED_MEMORY:
                return Plan(warpgroups, slots)
    return None


def bytes_of(rows: int, columns: int) -> int:
    """The bytes of shared memory for an array of 16-bit numbers, rounded up to a multiple of 1024."""
    return -(-2 * rows * columns // 1024) * 1024


def tiled(*columns: int) -> tuple[Any, ...]:
    """The layout that copy engine and tensor cores require: swizzled tiles of 8 rows of up to 128 bytes.

    `columns`: the number of columns of the array or, for weights, the lengths of both axes, because both
    operands of a product must have the same layout.
    """
    least = min(64, *columns)
    return plgpu.TilingTransform((8, least)), plgpu.SwizzleTransform(2 * least)


def parts(*shape: int, n: int, dtype: Any, any_rows: bool) -> list[Any]:
    """Shared memory for rows, in n parts of `shape` (..., TILE, columns), with up to 64 columns; see `views`.

    The copy engine cuts an array into tiles of 8 rows, so it accepts only a multiple of 8 rows. A tile is as
    wide as its part, so its rows lie in memory as plain rows do. If `any_rows`, the same memory therefore has
    a second name, under which the copy engine treats it as plain rows.
    """
    as_tiles = plgpu.SMEM(shape, dtype, transforms=tiled(shape[-1]))
    as_rows = plgpu.SMEM(shape, dtype, transforms=tiled(shape[-1])[1:])
    return [plgpu.RefUnion(as_tiles, as_rows) if any_rows else as_tiles] * n


def views(memory: Sequence[Any], any_rows: bool) -> Sequence[tuple[Any, Any]]:
    """Each part twice: as the tensor cores see it, and as the copy engine does."""
    return [tuple(part) if any_rows else (part, part) for part in memory]


def activated(function: Formula, z: Array, units: int, start: int = 0) -> Array:
    """function(z); z holds the columns from `start` on. Columns beyond the layer's units become 0.

    A softmax leaves them out. That the weights of these columns are 0 is not enough, because infinity times 0
    is NaN. The compiler knows which columns a thread has, and computes nothing for those that become 0.
    """
    if function.of_rows:
        return function(_only(units, z, start, -jnp.inf))
    return _only(units, function(z), start, 0.0)


def _only(units: int, a: Array, start: int, other: float) -> Array:
    if start + a.shape[1] <= units:
        return a
    column = plgpu.broadcasted_iota(jnp.int32, a.shape, 1, layout=plgpu.Layout.WGMMA)
    return jnp.where(column < units - start, a, other)


def forward(
    x: Array,
    ws: Sequence[Array],
    bs: Sequence[Array | None],
    functions: Sequence[Formula],
    units: Sequence[int],
    chosen: Plan,
    processors: int,
    bias_first: bool,
    interpret: Any = None,
) -> Array:
    """activation(x @ w + b), layer after layer.

    x (rows, n_in), w (n_in, n_out) and b (n_out,) have one 16-bit dtype, and widths of 16, 32, 64 or 128.
    `units`: the units of each layer, without the added zeros. `processors`: the number of multiprocessors to
    use, one block each. `bias_first`: sums start from the bias, which otherwise is added at the end.
    """
    rows, n_in = x.shape
    dtype, n_out = x.dtype, ws[-1].shape[1]
    warpgroups, slots = chosen
    tiles = pl.cdiv(rows, TILE)
    blocks = min(processors, pl.cdiv(tiles, warpgroups))
    stride = blocks * warpgroups
    biased = [i for i, b in enumerate(bs) if b is not None]
    widest = max(64, *(w.shape[1] for w in ws))
    wide_in, wide_out = min(64, *ws[0].shape), min(64, n_out)  # the number of columns in a part
    any_rows = rows % 8 != 0 and interpret is None

    def jaxneuron_forward(x_ref: Any, *refs: Any) -> None:
        w_refs, refs = refs[: len(ws)], refs[len(ws) :]
        b_refs, (y_ref, w_sm, b_sm, x_sm, y_sm, w_barrier, x_barrier) = (
            refs[: len(biased)],
            refs[len(biased) :],
        )
        x_parts, y_parts = views(x_sm, any_rows), views(y_sm, any_rows)
        warpgroup = lax.axis_index("warpgroup")
        first = lax.axis_index("block") * warpgroups + warpgroup
        steps = lax.div(jnp.int32(tiles) - first + stride - 1, jnp.int32(stride))

        @pl.when(warpgroup == 0)
        def _() -> None:
            for w_ref, w in zip(w_refs, w_sm, strict=True):
                plgpu.copy_gmem_to_smem(w_ref, w, w_barrier)
            for k, b_ref in enumerate(b_refs):
                plgpu.copy_gmem_to_smem(b_ref, b_sm.at[k, pl.ds(0, b_ref.shape[0])], w_barrier)

        def at(step: Array) -> Any:
            return pl.ds(pl.multiple_of((first + step * stride) * TILE, TILE), TILE)

        def load(step: Array) -> None:
            slot = lax.rem(step, jnp.int32(slots))
            for k, (_, part) in enumerate(x_parts):
                plgpu.copy_gmem_to_smem(
                    x_ref.at[at(step), pl.ds(k * wide_in, wide_in)],
                    part.at[warpgroup, slot],
                    x_barrier.at[warpgroup * slots + slot],
                )

        def layer(i: int, *hs: Any) -> Array:
            shape = (TILE, ws[i].shape[1])
            bias = None
            if i in biased:
                place = b_sm.at[biased.index(i), pl.ds(0, shape[1])]
                b = plgpu.load(place, layout=plgpu.Layout.WGMMA.reduce(0)).astype(jnp.float32)
                bias = lax.broadcast_in_dim(b, shape, [1])

            def product(sums: Any) -> Any:
                high = len(ws[i]) // len(hs)
                for k, h in enumerate(hs):
                    plgpu.wgmma(sums, h, w_sm[i].at[pl.ds(k * high, high), :])
                return None if bias_first and bias is not None else sums[...]

            if bias_first and bias is not None:
                z = pl.run_state(product)(plgpu.ACC.init(bias))
            else:
                z = pl.run_scoped(product, plgpu.ACC(shape, jnp.float32))
                z = z if bias is None else z + bias
            return activated(functions[i], z, units[i]).astype(dtype)

        for step in range(slots):
            pl.when(step < steps)(functools.partial(load, jnp.int32(step)))
        plgpu.barrier_wait(w_barrier)

        def advance(step: Array, _: None) -> None:
            slot = lax.rem(step, jnp.int32(slots))
            plgpu.barrier_wait(x_barrier.at[warpgroup * slots + slot])
            h = layer(0, *(part.at[warpgroup, slot] for part, _ in x_parts))
            pl.when(step + slots < steps)(lambda: load(step + slots))  # the product no longer needs the slot
            for i in range(1, len(ws)):
                h = layer(i, h)
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # the last step's result has been copied
            for k, (part, _) in enumerate(y_parts):
                part[warpgroup] = h[:, k * wide_out : (k + 1) * wide_out]
            plgpu.commit_smem()
            for k, (_, part) in enumerate(y_parts):
                columns = pl.ds(k * wide_out, wide_out)
                plgpu.copy_smem_to_gmem(part.at[warpgroup], y_ref.at[at(step), columns])

        lax.fori_loop(0, steps, advance, None)
        plgpu.wait_smem_to_gmem(0)

    kernel: Callable[..., Array] = plgpu.kernel(
        jaxneuron_forward,
        out_type=jax.ShapeDtypeStruct((rows, n_out), dtype),
        grid=(blocks,),
        grid_names=("block",),
        num_threads=warpgroups,
        thread_name="warpgroup",
        scratch_types=[
            [plgpu.SMEM(w.shape, dtype, transforms=tiled(*w.shape)) for w in ws],
            plgpu.SMEM((max(1, len(biased)), widest), dtype),
            parts(warpgroups, slots, TILE, wide_in, n=n_in // wide_in, dtype=dtype, any_rows=any_rows),
            parts(warpgroups, TILE, wide_out, n=n_out // wide_out, dtype=dtype, any_rows=any_rows),
            plgpu.Barrier(num_arrivals=len(ws) + len(biased)),
            plgpu.Barrier(num_arrivals=n_in // wide_in, num_barriers=warpgroups * slots),
        ],
        compiler_params=COMPILED,
        interpret=interpret,
    )
    return kernel(x, *ws, *(b for b in bs if b is not None))
