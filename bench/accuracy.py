"""How wrong the activations are: `python -m bench.accuracy [--function F] [--dtype D] [--stride N]`.

float32: every input in order, or every N-th; blocks of 2^22 share their edges. bfloat16, float16: every
input. float64: a million inputs, as many from each exponent as from another, and neighbours of the points
where a formula changes. A result is misrounded if it is not the float nearest to the exact one, by NumPy in
float64 or, where that is too close to the middle of two floats to tell, by mpmath. Never by jax. "jaxneuron"
is the function by itself, on XLA; "kernel" the fused CPU kernel's, of a neuron with one input of weight 1.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import importlib
import math
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np
from tqdm import tqdm

from jaxneuron._math import oracle
from jaxneuron._scaling import round_once

FUNCTIONS = (
    "sigmoid",
    "cr_sigmoid",
    "tanh",
    "cr_tanh",
    "silu",
    "gelu",
    "gelu_tanh",
    "softplus",
    "elu",
    "selu",
)
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32, "float64": np.float64}
BLOCK = 2**22
MONOTONE = ("sigmoid", "tanh", "softplus", "elu", "selu")
BOUNDS = {"sigmoid": (0, 1), "tanh": (-1, 1), "softplus": (0, np.inf), "elu": (-1, np.inf)}
SELU = (1.0507009873554805, 1.6732632423543772)
# Where a formula changes: the halves of ln 2, and the edges of stretches.
EDGES = [(k + 0.5) * math.log(2) for k in range(-1075, 64)]
EDGES += [
    s * v for s in (-1, 1) for v in (2.0**-28, 2.0**-8, 0.275, 0.55, 12, 20, 40, 42, 701.4, 708.3964185322641)
]

Array = np.ndarray
Call = Callable[[Array], Array]


class Score(NamedTuple):
    """What a stretch of inputs showed of one contender; scores add up."""

    inputs: int = 0
    ulps: float = 0.0  # the worst error of a normal result of a normal input
    at: float = math.nan
    nearest: int = 0  # correctly rounded
    falls: int = 0  # smaller than the result of the input before
    outside: int = 0  # of the closed interval of the function's values
    flushed: int = 0  # 0 for what is nearest to another number

    def __add__(self, other: "Score") -> "Score":  # type: ignore[override]
        worst = max(self, other, key=lambda score: score.ulps)
        return Score(
            self.inputs + other.inputs,
            worst.ulps,
            worst.at,
            *(a + b for a, b in zip(self[3:], other[3:], strict=True)),
        )


@functools.cache
def contenders(function: str, dtype: str) -> dict[str, Call]:
    """Everyone's implementation of `function`, NumPy arrays in and out; of cr_ ones there is one."""
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
    gelus = {"gelu": functools.partial(jax.nn.gelu, approximate=False), "gelu_tanh": jax.nn.gelu}
    theirs = jax.jit(gelus.get(function) or getattr(jax.nn, function, None) or getattr(jnp, function))
    found["jax"] = lambda z: np.asarray(theirs(z))
    if torch := _library("torch"):
        nn = torch.nn.functional
        calls = {
            "sigmoid": torch.sigmoid,
            "tanh": torch.tanh,
            "gelu_tanh": lambda z: nn.gelu(z, approximate="tanh"),
        }
        call = calls.get(function) or getattr(nn, function)
        if dtype == "bfloat16":
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


def exact64(name: str, z: Array) -> tuple[Array, float]:
    """The exact values, in float64, and a bound of their relative error."""
    a = np.abs(z)
    if name == "sigmoid":
        e = np.exp(-a)
        return np.where(z < 0, e / (1 + e), 1 / (1 + e)), 2.0**-50
    if name == "tanh":
        return np.tanh(z), 2.0**-50
    if name == "silu":
        return z * exact64("sigmoid", z)[0], 2.0**-49
    if name == "gelu_tanh":
        # The exponent may be 100, and its relative error counts that often.
        u = math.sqrt(8 / math.pi) * (z + 0.044715 * z**3)
        return z * exact64("sigmoid", u)[0], 2.0**-43
    if name == "gelu":
        from scipy.special import erfc

        return 0.5 * z * erfc(-z * math.sqrt(0.5)), 2.0**-43
    if name == "softplus":
        return np.maximum(z, 0) + np.log1p(np.exp(-a)), 2.0**-50
    alpha = SELU[1] if name == "selu" else 1.0
    y = np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))
    return y * (SELU[0] if name == "selu" else 1.0), 2.0**-50


def decided(name: str, z: float) -> tuple[float, float]:
    """The exact value by mpmath, as a float64 and what that lacks, in its ULP."""
    exact = oracle.FORMULAS[name](oracle.MP.mpf(z))
    first = float(exact)
    return first, float((exact - first) / float(oracle.ulp(first, "float64")))


def rounded(name: str, z: Array, exact: Array, error: float, dtype: str) -> Array:
    """The floats nearest to the exact values; mpmath decides where `error` leaves two."""
    kind = np.dtype(DTYPES[dtype])
    with np.errstate(over="ignore", under="ignore"):
        low, high = (round_once(exact * (1 + side), kind) for side in (-error, error))
        nearest = round_once(exact, kind)
    for i in np.flatnonzero((low != high) & np.isfinite(z)):
        first, rest = decided(name, float(z[i]))
        below, above = round_once(np.nextafter([first, first], [-math.inf, math.inf]), kind)
        if rest and first == (float(below) + float(above)) / 2:  # it looks like the middle, and is not
            nearest[i] = above if rest > 0 else below
        else:
            nearest[i] = round_once(np.array([first]), kind)[0]
    return nearest


def score(function: str, dtype: str, z: Array, calls: dict[str, Call]) -> dict[str, tuple[Score, bytes]]:
    """The score of each of `calls` on the inputs `z`, in order, with a hash of its outputs."""
    name = function.removeprefix("cr_")
    with np.errstate(all="ignore"):
        if dtype == "float64":
            pairs = np.array([decided(name, v) for v in z.tolist()])
            exact, rest = pairs[:, 0], pairs[:, 1]
            nearest = exact
        else:
            wide = z.astype(np.float64)
            settled = rounded(name, wide[[0, -1]], *exact64(name, wide[[0, -1]]), dtype)
            if settled[0] == settled[1] and len(z) > 2 and (name in MONOTONE or (wide < -2).all()):
                exact = nearest = np.full(len(z), settled[0])  # a saturated stretch
            else:
                exact, error = exact64(name, wide)
                nearest = rounded(name, wide, exact, error, dtype)
            rest = 0.0
        found = {}
        for who, call in calls.items():
            y = np.asarray(call(z))
            found[who] = (
                _compare(name, dtype, z, y, nearest, exact, rest),
                hashlib.sha256(y.tobytes()).digest(),
            )
    return found


def _compare(
    name: str, dtype: str, z: Array, y: Array, nearest: Array, exact: Array, rest: Array | float
) -> Score:
    right = y == nearest
    if exact is nearest and right.all():  # settled
        return Score(len(z), 0.0, float(z[0]), len(z))
    values = y.astype(np.float64)
    small = oracle.SMALLEST_NORMAL[dtype]
    largest = float(ml_dtypes.finfo(DTYPES[dtype]).max)
    normal = (np.abs(exact) >= small) & (np.abs(exact) <= largest) & (np.abs(z.astype(np.float64)) >= small)
    off = (values - exact.astype(np.float64)) / oracle.ulp(exact.astype(np.float64), dtype)
    ulps = np.where(normal, np.abs(off - rest), 0)
    ulps = np.where(np.isnan(ulps), np.inf, ulps)
    worst = int(np.argmax(ulps))
    low, high = BOUNDS.get(name, (-np.inf, np.inf))
    return Score(
        len(z), float(ulps[worst]), float(z[worst]), int(right.sum()),
        int((values[1:] < values[:-1]).sum()) if name in MONOTONE else 0,
        int(((values < low) | (values > high)).sum()), int(((y == 0) & (nearest != 0)).sum()),
    )  # fmt: skip


def blocks(dtype: str, stride: int) -> Iterator[tuple[int, int, int]]:
    """Stretches of inputs, from -infinity up: the patterns of the first and the last, and the stride."""
    kind = np.dtype(f"u{np.dtype(DTYPES[dtype]).itemsize}")
    infinity, sign = int(np.array(np.inf, DTYPES[dtype]).view(kind)), 2 ** (8 * kind.itemsize - 1)
    size = BLOCK * stride
    edges = [(start, min(start + size, infinity), stride) for start in range(0, infinity, size)]
    yield from ((sign + first, sign + last, stride) for first, last, stride in reversed(edges))
    yield from edges


def block(dtype: str, first: int, last: int, stride: int = 1) -> Array:
    """The floats with the patterns `first` to `last`, in increasing order."""
    kind = np.dtype(f"u{np.dtype(DTYPES[dtype]).itemsize}")
    z = np.arange(first, last + 1, stride, dtype=np.uint64).astype(kind).view(DTYPES[dtype])
    return np.ascontiguousarray(z[::-1]) if np.signbit(z[0]) else z


def sample64(points: int) -> Array:
    """float64 numbers, sorted: as many from each exponent, and neighbours of EDGES."""
    rng = np.random.default_rng(0)
    exponents = np.arange(-60, 10)
    values = np.ldexp(rng.uniform(0.5, 1, (points // 140, len(exponents))), exponents + 1).ravel()
    edges = (np.array(EDGES).view(np.int64)[:, None] + np.arange(-16, 16)).ravel().view(np.float64)
    return np.unique(np.concatenate([values, -values, edges, [0.0]]))


def _work(task: tuple[str, str, Array | tuple[int, int]]) -> dict[str, tuple[Score, bytes]]:
    import jax

    function, dtype, inputs = task
    with jax.enable_x64(dtype == "float64"):
        z = block(dtype, *inputs) if isinstance(inputs, tuple) else inputs
        return score(function, dtype, z, contenders(function, dtype))


def sweep(function: str, dtype: str, stride: int, points: int, pool: concurrent.futures.Executor):
    """The scores of all contenders on all inputs, and a hash of each one's outputs."""
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
    """The median time for an element of an array of `size`, contenders in turn, the first round untimed."""
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
    parser.add_argument("--function", choices=FUNCTIONS, action="append", help="instead of all")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="instead of all")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="float32: every N-th input")
    parser.add_argument("--points", type=int, default=1_000_000, metavar="N", help="float64: so many inputs")
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
