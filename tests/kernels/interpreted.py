"""The fused GPU kernel in Pallas' interpret mode, with its races detected: `NPROC=32 python -m tests.kernels.interpreted`.

A process of its own, started by test_gpu.py: interpretation blocks a thread of XLA's pool for each warpgroup,
and the pool's size is fixed when JAX is imported. Each line says whether a network agrees with the oracle.
"""

import contextlib
import io
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks as interpreter
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxneuron._kernels import gpu
from jaxneuron._math import float64
from jaxneuron._names import BY_NAME

ULP = {"bfloat16": 2.0**-7, "float16": 2.0**-10}  # relative, at most
# widths, activations, rows, dtype, biases
CASES = (
    ((64, 64, 64, 64), ("relu", "relu", "identity"), 1216, "bfloat16", True),
    ((32, 32, 32), ("tanh", "silu"), 1000, "float16", True),
    ((10, 33, 8), ("sigmoid", "softmax"), 301, "bfloat16", False),
    ((128, 128, 100), ("gelu", "softplus"), 130, "bfloat16", True),
    ((20, 16, 128, 64), ("elu", "hard_sigmoid", "selu"), 65, "float16", False),
    ((256, 256, 64), ("leaky_relu", "gelu_tanh"), 300, "bfloat16", True),
    ((10, 133, 133, 8), ("tanh", "tanh", "identity"), 77, "bfloat16", True),
    ((200, 256, 130), ("relu", "softmax"), 9, "float16", False),
    ((64, 64, 64), ("relu", "relu"), 1, "bfloat16", True),
)


def take_rows_from_registers() -> None:
    """Interpretation takes the left operand of a product from shared memory alone: let it be an array too."""
    of_references = interpreter.wgmma

    def wgmma(*, a_allocation_key_as_array, **others):  # type: ignore[no-untyped-def]
        rows = np.asarray(a_allocation_key_as_array)
        if rows.ndim != 2:
            return of_references(a_allocation_key_as_array=a_allocation_key_as_array, **others)
        memory, thread = interpreter._get_shared_memory(), others["thread"]
        where = interpreter.memory.GPULoggingInfo(others["mesh_location"], thread, others["source_info"])

        def content(name):  # type: ignore[no-untyped-def]
            key = interpreter.HostAllocationKey.from_array(others[f"{name}_allocation_key_as_array"])
            steps = jax.tree.map(int, interpreter._remove_noop_transforms(others[f"{name}_transforms"]))
            at = memory.access(key, steps)
            return key, at, memory.get_buffer_content(key, at, thread, logging_info=where)[0]

        (_, _, weights), (key, at, sums) = content("b"), content("acc")
        memory.store_buffer_content(
            key, at, sums + np.matmul(rows, weights, dtype=sums.dtype), thread, logging_info=where
        )
        return others["token"]

    interpreter.wgmma = wgmma


def worst(widths, activations, rows, dtype, biases):  # type: ignore[no-untyped-def]
    """The largest error of a network over its bound: that of each layer on the rounded rows it gets."""
    rng = np.random.default_rng(rows)
    layers = [
        (
            jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a), dtype),
            jnp.asarray(rng.normal(size=b) / 4, dtype) if biases else None,
        )
        for a, b in itertools.pairwise(widths)
    ]
    functions = [BY_NAME[name] for name in activations]
    x = jnp.asarray(rng.normal(size=(rows, widths[0])), dtype)
    h, largest = x, 0.0
    for n in range(1, len(layers) + 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            y = gpu.forward(
                x, layers[:n], functions[:n], interpret=plgpu.InterpretGPUParams(detect_races=True)
            )
        assert "RACE" not in printed.getvalue(), printed.getvalue()
        assert y.shape == (rows, widths[n])
        assert y.dtype == dtype
        w, b = (None if a is None else np.asarray(a, np.float64) for a in layers[n - 1])
        z = np.asarray(h, np.float64) @ w + (0 if b is None else b)
        exact, _ = float64.activation(activations[n - 1], z)
        sizes = np.abs(np.asarray(h, np.float64)) @ np.abs(w)
        bound = 0.51 * ULP[dtype] * np.abs(exact) + 2.0**-24 * (widths[n - 1] + 2) * (sizes + 1)
        largest = max(largest, float(np.max(np.abs(np.asarray(y, np.float64) - exact) / bound)))
        h = y
    return largest


if __name__ == "__main__":
    take_rows_from_registers()
    failed = 0
    for case in CASES:
        of_bound = worst(*case)
        failed += not of_bound <= 1
        print(f"{case}: {of_bound:.2f} of the bound", flush=True)
    sys.exit(failed)
