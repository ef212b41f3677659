"""The errors of the activations in the fused GPU kernel: part of `python -m bench --gpu --sweep`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxneuron import MLP, mlp_forward
from jaxneuron._math import float64, oracle
from jaxneuron._math.activations import ACTIVATIONS, facts_of, in_kernel
from jaxneuron._names import Parametric
from jaxneuron.testing import _sweeps as sweeps


def sweep(activation: str | Parametric, dtype: str) -> tuple[float, float]:
    """The worst error of an activation, in ULP of the result, and the sum for which it occurs.

    Every sum has two terms: a 16-bit number, and the same number made 2^8 to 2^12 times smaller. The sum is
    exact in float32, with bits that `dtype` can't hold. All finite 16-bit numbers are tried that are at least
    2^13 times the smallest normal number. Results below 2^8 times the smallest normal number may be 0, and a
    sine may have the error of its rounded argument.
    """
    info = jnp.finfo(dtype)
    z = np.arange(2**16, dtype=np.uint16).view(jnp.dtype(dtype)).astype(np.float32)
    z = z[np.isfinite(z) & (np.abs(z) >= 2.0**13 * info.tiny)]
    low = z * 2.0 ** -np.random.default_rng(0).integers(8, 13, len(z)).astype(np.float32)
    rows = np.concatenate([np.resize(a, (len(z) // 64 + 1, 64)) for a in (z, low)], axis=1)
    one = jnp.eye(64, dtype=dtype)
    layers = [(jnp.eye(128, dtype=dtype), None), (jnp.concatenate([one, one]), None)]
    y = mlp_forward(MLP(layers, activation="identity", final_activation=activation), jnp.asarray(rows, dtype))
    sums = np.asarray(jnp.asarray(rows, dtype).astype(jnp.float32), np.float64) @ np.tile(np.eye(64), (2, 1))
    with np.errstate(all="ignore"):
        exact, _ = float64.activation(oracle.in_format(activation, dtype), sums)
        off = np.abs(np.asarray(y.astype(jnp.float32), np.float64) - exact)
    if not facts_of(activation).has_limits:
        off -= 2.0**-22 * np.abs(sums * in_kernel(activation)[1][0])
    unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), float(info.tiny) * 2.0**8))) - info.nmant)
    off = np.where(np.abs(exact) < float(info.max), off / unit, 0).ravel()
    worst = int(np.argmax(off))
    return float(off[worst]), float(sums.ravel()[worst])


def sweeps_of_all() -> list[dict[str, Any]]:
    """Sweeps every activation in both 16-bit dtypes, and prints the results."""
    found = []
    for activation in (*(name for name, facts in ACTIVATIONS.items() if not facts.of_rows), *sweeps.VALUES):
        text = f"{activation!s:<20}"
        for dtype in ("bfloat16", "float16"):
            worst, at = sweep(activation, dtype)
            found.append({"activation": str(activation), "dtype": dtype, "ulp": worst, "at": at})
            text += f" {dtype} {worst:.3f} ULP at {at:.6g}"
        print(text, flush=True)
    return found
