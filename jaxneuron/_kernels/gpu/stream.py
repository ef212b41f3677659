"""The fused kernel whose weights pass through shared memory: for widths up to 256, and for many layers.

A block has one warpgroup that copies and two that compute. In every step the first copies the weights of all
layers into a ring of slots in shared memory, 64 rows of weights at a time. Each of the other two evaluates
all layers for 64 rows of x, by products with the weights in the ring:

    sums += h[:, k : k + 64] @ ring[slot]      a slot is free again when both have used it
    h = activation(sums + b)                   in float32, rounded once; it overwrites the last h

So every row is read once, and its result is written once. The weights are read from L2, once for 128 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from jaxneuron._kernels.gpu.activations import Formula
from jaxneuron._kernels.gpu.resident import COMPILED, SHARED_MEMORY, activated, bytes_of, parts, tiled, views

plgpu: Any = mosaic_gpu  # as in resident.py

TILE = 64  # rows in a warpgroup's step, rows of weights in a slot, and columns of the result in one copy
COMPUTE = 2  # the number of warpgroups that compute
REGISTERS = 24, 240  # of a thread that copies, and of one that computes; a block has 65536 for all


def ring(widths: Sequence[int], layers_with_bias: int) -> int:
    """How many slots of the ring fit into shared memory. Four are enough; with 0 the kernel can't run."""
    widest = max(widths)
    fixed = bytes_of(max(1, layers_with_bias), widest) + 2 * COMPUTE * TILE * (widest + TILE)
    slots = (SHARED_MEMORY - fixed) // (2 * TILE * widest)
    return min(4, slots, sum(widths[:-1]) // TILE)


def forward(
    x: Array,
    ws: Sequence[Array],
    bs: Sequence[Array | None],
    functions: Sequence[Formula],
    units: Sequence[int],
    processors: int,
    interpret: Any = None,
) -> Array:
    """activation(x @ w + b), layer after layer.

    x (rows, n_in), w (n_in, n_out) and b (n_out,) have one 16-bit dtype, and widths that are multiples of 64.
    `units`: the units of each layer, without the added zeros. `processors`: the number of multiprocessors to
    use, one block each.
    """
    rows, n_in = x.shape
    dtype, n_out = x.dtype, ws[-1].shape[1]
    widths = [n_in, *(w.shape[1] for w in ws)]
    widest = max(widths)
    biased = [i for i, b in enumerate(bs) if b is not None]
    slots = ring(widths, len(biased))
    chunks = [len(w) // TILE for w in ws]  # how often each layer's weights fill a slot
    round_ = sum(chunks)
    steps_in_all = pl.cdiv(rows, TILE * COMPUTE)
    blocks = min(processors, steps_in_all)
    any_rows = rows % 8 != 0 and interpret is None

    def jaxneuron_forward(x_ref: Any, w_ref: Any, *refs: Any) -> None:
        b_refs, refs = refs[: len(biased)], refs[len(biased) :]
        y_ref, ring_sm, h_sm, y_sm, b_sm, full, used, x_barrier, b_barrier = refs
        h_parts, ((y_part, y_from),) = views(h_sm, any_rows), views(y_sm, any_rows)
        warpgroup, block = lax.axis_index("warpgroup"), lax.axis_index("block")
        steps = lax.div(jnp.int32(steps_in_all) - block + blocks - 1, jnp.int32(blocks))

        def slot_of(chunk: Any) -> Array:
            return lax.rem(chunk, jnp.int32(slots))

        def copy() -> None:
            plgpu.set_max_registers(REGISTERS[0], action="decrease")
            for k, b_ref in enumerate(b_refs):
                plgpu.copy_gmem_to_smem(b_ref, b_sm.at[k, pl.ds(0, b_ref.shape[0])], b_barrier)

            def fetch(chunk: Array, _: None) -> None:
                slot = slot_of(chunk)
                pl.when(chunk >= slots)(lambda: plgpu.barrier_wait(used.at[slot]))
                start = pl.multiple_of(lax.rem(chunk, jnp.int32(round_)) * TILE, TILE)
                plgpu.copy_gmem_to_smem(w_ref.at[pl.ds(start, TILE), :], ring_sm.at[slot], full.at[slot])

            lax.fori_loop(0, steps * round_, fetch, None)

            def drain(k: Array, _: None) -> None:
                plgpu.barrier_wait(used.at[slot_of(steps * round_ - slots + k)])

            lax.fori_loop(0, slots, drain, None)

        def compute() -> None:
            plgpu.set_max_registers(REGISTERS[1], action="increase")
            h = [part.at[warpgroup] for part, _ in h_parts]  # each holds 64 columns

            def at(step: Any) -> Any:
                start = ((block + step * blocks) * COMPUTE + warpgroup) * TILE
                return pl.ds(pl.multiple_of(start, TILE), TILE)

            def load(step: Any) -> None:
                for k in range(chunks[0]):
                    x_part = x_ref.at[at(step), pl.ds(k * TILE, TILE)]
                    plgpu.copy_gmem_to_smem(x_part, h_parts[k][1].at[warpgroup], x_barrier.at[warpgroup])

            def sums_of(i: int, step: Array) -> Array:
                first = step * round_ + sum(chunks[:i])
                each = [slot_of(first + k) for k in range(chunks[i])]

                def product(sums: Any) -> Array:
                    for k, slot in enumerate(each):
                        plgpu.barrier_wait(full.at[slot])
                        plgpu.wgmma(sums, h[k], ring_sm.at[slot, :, pl.ds(0, widths[i + 1])])
                        if k:
                            plgpu.wgmma_wait(1)
                            plgpu.barrier_arrive(used.at[each[k - 1]])
                    plgpu.wgmma_wait(0)
                    plgpu.barrier_arrive(used.at[each[-1]])
                    return sums[...]

                return pl.run_scoped(product, plgpu.ACC((TILE, widths[i + 1]), jnp.float32))

            def outputs(i: int, z: Array, start: int) -> Array:
                """The outputs for z, the sums of the columns from `start` on."""
                if i in biased:
                    place = b_sm.at[biased.index(i), pl.ds(start, z.shape[1])]
                    b = plgpu.load(place, layout=plgpu.Layout.WGMMA.reduce(0))
                    z = z + lax.broadcast_in_dim(b.astype(jnp.float32), z.shape, [1])
                return activated(functions[i], z, units[i], start).astype(dtype)

            def output_parts(i: int, z: Array) -> Iterator[tuple[int, Array]]:
                """The outputs in pieces of 64 columns, which need fewer registers at a time."""
                for k in range(z.shape[1] // TILE):
                    yield k, outputs(i, z[:, k * TILE : (k + 1) * TILE], k * TILE)

            def advance(step: Array, _: None) -> None:
                plgpu.barrier_wait(x_barrier.at[warpgroup])
                for i in range(len(ws) - 1):
                    for k, y in output_parts(i, sums_of(i, step)):
                        h[k][...] = y
                    plgpu.commit_smem()
                z = sums_of(len(ws) - 1, step)
                pl.when(step + 1 < steps)(lambda: load(step + 1))  # the last product no longer needs h
                if functions[-1].of_rows:
                    whole = outputs(len(ws) - 1, z, 0)
                    columns = [whole[:, k * TILE : (k + 1) * TILE] for k in range(n_out // TILE)]
                    last: Iterable[tuple[int, Array]] = enumerate(columns)
                else:
                    last = output_parts(len(ws) - 1, z)
                for k, y in last:
                    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                    y_part[warpgroup] = y
                    plgpu.commit_smem()
                    plgpu.copy_smem_to_gmem(y_from.at[warpgroup], y_ref.at[at(step), pl.ds(k * TILE, TILE)])

            load(jnp.int32(0))
            if biased:
                plgpu.barrier_wait(b_barrier)
            lax.fori_loop(0, steps, advance, None)
            plgpu.wait_smem_to_gmem(0)

        lax.cond(warpgroup == COMPUTE, copy, compute)

    kernel: Callable[..., Array] = plgpu.kernel(
        jaxneuron_forward,
        out_type=jax.ShapeDtypeStruct((rows, n_out), dtype),
        grid=(blocks,),
        grid_names=("block",),
        num_threads=COMPUTE + 1,
        thread_name="warpgroup",
        scratch_types=[
            plgpu.SMEM((slots, TILE, widest), dtype, transforms=tiled(widest)),
            parts(COMPUTE, TILE, TILE, n=max(chunks), dtype=dtype, any_rows=any_rows),
            parts(COMPUTE, TILE, TILE, n=1, dtype=dtype, any_rows=any_rows),
            plgpu.SMEM((max(1, len(biased)), widest), dtype),
            plgpu.Barrier(num_barriers=slots),
            plgpu.Barrier(num_arrivals=COMPUTE, num_barriers=slots),
            plgpu.Barrier(num_arrivals=chunks[0], num_barriers=COMPUTE),
            plgpu.Barrier(num_arrivals=max(1, len(biased))),
        ],
        compiler_params=COMPILED,
        interpret=interpret,
    )
    weights = jnp.concatenate([jnp.pad(w, ((0, 0), (0, widest - w.shape[1]))) for w in ws])
    return kernel(x, weights, *(b for b in bs if b is not None))
