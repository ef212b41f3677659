"""The fused GPU kernel in Pallas' interpret mode, with its races detected: `NPROC=32 python -m tests.kernels.interpreted`.

test_gpu.py starts it as a process of its own: interpretation blocks a thread of XLA's pool for each
warpgroup, and the size of the pool is fixed when JAX is imported. Each line says whether a network agrees
with the oracle.
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

from jaxneuron._kernels import gpu, xla
from jaxneuron._math import float64, oracle
from jaxneuron._math.activations import ACTIVATIONS, facts_of
from jaxneuron._names import BY_NAME, resolve
from jaxneuron.testing import _sweeps as sweeps

ULP = {"bfloat16": 2.0**-7, "float16": 2.0**-10}  # the largest relative size of an ULP
# Every activation that a hidden layer can have, then those for the last layer. The cases take them in turn.
HIDDEN = itertools.cycle(
    [*(name for name, facts in ACTIVATIONS.items() if not facts.of_rows), *sweeps.VALUES]
)
# widths, the last activation if it takes whole rows, the number of rows, dtype, whether there are biases
CASES = (
    ((64, 64, 64), None, 1216, "bfloat16", True),
    ((32, 32, 32, 32, 32, 32), None, 250, "float16", True),
    ((10, 33, 8), "softmax", 301, "bfloat16", False),
    ((128, 128, 128, 100), None, 130, "bfloat16", True),
    ((20, 16, 128, 64, 64), None, 65, "float16", False),
    ((256, 256, 64, 255), "log_softmax", 300, "bfloat16", True),
    ((10, 133, 133, 133, 133, 8), None, 77, "bfloat16", True),
    ((200, 256, 130), "softmax", 9, "float16", False),
    ((64, 64, 64, 64, 64), None, 1, "bfloat16", True),
    ((1, 17, 3, 17, 17, 1), "log_softmax", 63, "float16", True),
    ((3, 255, 1, 17, 17), None, 128, "bfloat16", False),
)


def take_rows_from_registers() -> None:
    """Lets the left operand of a product be an array too: Pallas interprets only those in shared memory."""
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


def largest_error(widths, activations, rows, dtype, biases):  # type: ignore[no-untyped-def]
    """The largest error over its bound, of any layer. Every layer is compared on the kernel's own rows."""
    rng = np.random.default_rng(rows)
    layers = [
        (
            jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a), dtype),
            jnp.asarray(rng.normal(size=b) / 4, dtype) if biases else None,
        )
        for a, b in itertools.pairwise(widths)
    ]
    functions = [resolve(activation) for activation in activations]
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
        activation = oracle.in_format(activations[n - 1], dtype)
        exact, _ = float64.activation(activation, z)
        # A sine rounds its argument once more.
        z_error = 2.0**-24 * (widths[n - 1] + 6) * (np.abs(np.asarray(h, np.float64)) @ np.abs(w) + 1)
        steepest = oracle.STEEPEST.get(activation)
        slope = steepest(z, z_error) if steepest else facts_of(activation).slope
        bound = 0.51 * ULP[dtype] * np.abs(exact) + slope * z_error
        largest = max(largest, float(np.max(np.abs(np.asarray(y, np.float64) - exact) / bound)))
        h = y
    return largest


def extremes_differ(widths):  # type: ignore[no-untyped-def]
    """Whether results differ from XLA's for rows with infinities and NaN, and for logits below float16."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(9, widths[0])), "float16")
    x = x.at[0, 0].set(jnp.inf).at[1, 1].set(-jnp.inf).at[2, 2].set(jnp.nan).at[3].set(60000)
    w, v, u = (jnp.asarray(rng.normal(size=shape), "float16") for shape in itertools.pairwise(widths))
    least = jnp.full(widths[-1], jnp.finfo("float16").min, "float16")
    differ = False
    for names in (("relu", "tanh", "identity"), ("sigmoid", "relu", "log_softmax")):
        layers, functions = [(w, None), (v, None), (-abs(u), least)], [BY_NAME[name] for name in names]
        y = gpu.forward(x, layers, functions, interpret=plgpu.InterpretGPUParams())
        expected = xla.forward(layers, functions, x)
        found, wanted = (np.asarray(a, np.float64) for a in (y, expected))
        differ |= not np.isclose(found, wanted, 2.0**-6, 2.0**-16, equal_nan=True).all()
    return differ


if __name__ == "__main__":
    take_rows_from_registers()
    failed = 0
    for widths, final, rows, dtype, biases in CASES:
        hidden = itertools.islice(HIDDEN, len(widths) - 1 - bool(final))
        case = widths, (*hidden, *([final] if final else [])), rows, dtype, biases
        of_bound = largest_error(*case)
        failed += not of_bound <= 1
        print(f"{case}: {of_bound:.2f} of the bound", flush=True)
    for widths in ((10, 33, 20, 8), (10, 133, 20, 8)):
        differ = extremes_differ(widths)
        failed += differ
        print(f"infinities, {widths}: {'other results than' if differ else 'as'} XLA", flush=True)
    sys.exit(failed)
