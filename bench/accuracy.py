"""Measures the errors of activations: `python -m bench.accuracy [--function F] [--dtype D] [--stride N]`.

Inputs: for float32 every number in order, or every N-th, in blocks of 2^22 whose edges overlap; for bfloat16
and float16 every number; for float64 a million numbers, equally many from each exponent, and the neighbours
of the points where a formula changes. A result is misrounded if it is not the float nearest to the exact
value. The exact value is computed by NumPy in float64 or, if that is too close to a midpoint of two floats to
decide, by mpmath; never by jax. "jaxneuron" is the function by itself, on XLA. "kernel" is a neuron with one
input of weight 1, evaluated by the fused CPU kernel.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import importlib
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable

import ml_dtypes
import numpy as np
from tqdm import tqdm

from jaxneuron.testing._sweeps import DTYPES, FUNCTIONS, Score, block, blocks, sample64, score

Call = Callable[[np.ndarray], np.ndarray]


@functools.cache
def contenders(function: str, dtype: str) -> dict[str, Call]:
    """Each contender's `function`, from NumPy to NumPy. Only jaxneuron has functions named cr_."""
    import jax
    import jax.numpy as jnp

    import jaxneuron

    ours = jax.jit(getattr(jaxneuron, function))
    found = {"jaxneuron": lambda z: np.asarray(ours(z))}
    one = jaxneuron.Affine(np.ones((1, 1), DTYPES[dtype]))
    neuron = jax.jit(lambda z: jaxneuron.neuron(one, z[:, None], function)[:, 0])
    network = jaxneuron.MLP([one], final_activation=function)
    if jaxneuron.explain(network, jax.ShapeDtypeStruct((1, 1), DTYPES[dtype])).startswith("fused"):
        found["kernel"] = lambda z: np.asarray(neuron(z))
    if function.startswith("cr_"):
        return found
    named = {
        "gelu": functools.partial(jax.nn.gelu, approximate=False), "gelu_tanh": jax.nn.gelu,
        "softsign": jax.nn.soft_sign,
    }  # fmt: skip
    theirs = jax.jit(named.get(function) or getattr(jax.nn, function, None) or getattr(jnp, function))
    found["jax"] = lambda z: np.asarray(theirs(z))
    if torch := _library("torch"):
        nn = torch.nn.functional
        calls = {
            "sigmoid": torch.sigmoid,
            "tanh": torch.tanh,
            "gelu_tanh": lambda z: nn.gelu(z, approximate="tanh"),
            "hard_swish": nn.hardswish,
            "log_sigmoid": nn.logsigmoid,
        }
        call = calls.get(function) or getattr(nn, function, None) or getattr(torch, function, None)
        if call is None:
            pass
        elif dtype == "bfloat16":
            found["torch"] = lambda z: (
                call(torch.from_numpy(z.view(np.int16)).view(torch.bfloat16))
                .view(torch.int16)
                .numpy()
                .view(ml_dtypes.bfloat16)
            )
        else:
            found["torch"] = lambda z: call(torch.from_numpy(z)).numpy()
    if (special := _library("scipy.special")) and function == "sigmoid" and dtype in ("float32", "float64"):
        found["scipy"] = special.expit
    if function == "tanh" and dtype != "bfloat16":
        found["numpy"] = np.tanh
    elif function == "sigmoid" and dtype != "bfloat16":
        found["numpy"] = lambda z: 1 / (1 + np.exp(-z))
    return found


def _library(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _work(task: tuple[str, str, np.ndarray | tuple[int, int]]) -> dict[str, tuple[Score, bytes]]:
    import jax

    function, dtype, inputs = task
    with jax.enable_x64(dtype == "float64"):
        z = block(dtype, *inputs) if isinstance(inputs, tuple) else inputs
        return score(function, dtype, z, contenders(function, dtype))


def sweep(function: str, dtype: str, stride: int, points: int, pool: concurrent.futures.Executor):
    """The scores of all contenders on all inputs, and a hash of each contender's outputs."""
    if dtype == "float64":
        parts: list = np.array_split(sample64(points), 64)
    else:
        parts = list(blocks(dtype, stride))
    scores: dict[str, Score] = {}
    hashes: dict[str, hashlib._Hash] = {}
    done = pool.map(_work, [(function, dtype, part) for part in parts])
    for found in tqdm(done, f"{function} {dtype}", len(parts), disable=None, leave=False):
        for who, (part, digest) in found.items():
            scores[who] = scores.get(who, Score()) + part
            hashes.setdefault(who, hashlib.sha256()).update(digest)
    return scores, {who: h.hexdigest() for who, h in hashes.items()}


def nanoseconds(function: str, dtype: str, size: int, rounds: int = 15) -> dict[str, float]:
    """The median time per element, in nanoseconds, of an array of `size` elements.

    The contenders take turns; the first round is not timed.
    """
    import jax

    with jax.enable_x64(dtype == "float64"):
        z = np.random.default_rng(0).uniform(-8, 8, size).astype(DTYPES[dtype])
        calls = contenders(function, dtype)
        on_device = ("jaxneuron", "kernel", "jax")
        inputs = {who: jax.device_put(z) if who in on_device else z for who in calls}
        times: dict[str, list[float]] = {who: [] for who in calls}
        for _ in range(rounds):
            for who in random.sample(list(calls), len(calls)):
                calls[who](inputs[who])
                start = time.perf_counter()
                calls[who](inputs[who])
                times[who].append(time.perf_counter() - start)
    return {who: statistics.median(each[1:]) / size * 1e9 for who, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__.split("\n")[0])
    parser.add_argument("--function", choices=FUNCTIONS, action="append", help="this function instead of all")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="this dtype instead of all")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="float32: every N-th input")
    parser.add_argument(
        "--points", type=int, default=1_000_000, metavar="N", help="float64: the number of inputs"
    )
    options = parser.parse_args()
    versions = {
        name: getattr(_library(name), "__version__", "absent") for name in ("jax", "torch", "scipy", "numpy")
    }
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    head = (
        ("inputs", 13),
        ("worst ULP", 11),
        ("at", 14),
        ("misrounded", 14),
        ("falls", 8),
        ("outside", 8),
        ("flushed", 11),
    )
    print(
        f"{'function':<11}{'dtype':<10}{'':<11}" + "".join(f"{t:>{w}}" for t, w in head) + "     ns  SHA-256"
    )
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for function in options.function or FUNCTIONS:
            for dtype in options.dtype or DTYPES:
                spent = [nanoseconds(function, dtype, size) for size in (2**20, 2**24)]
                scores, hashes = sweep(function, dtype, options.stride, options.points, pool)
                for who, s in scores.items():
                    print(
                        f"{function:<11}{dtype:<10}{who:<11}{s.inputs:>13,}{s.ulps:>11.4g}{s.at:>14.6g}"
                        f"{s.inputs - s.nearest:>14,}{s.falls:>8,}{s.outside:>8,}{s.flushed:>11,}"
                        f"{spent[0][who]:>9.2f}{spent[1][who]:>7.2f}  {hashes[who][:16]}", flush=True,
                    )  # fmt: skip


if __name__ == "__main__":
    main()
