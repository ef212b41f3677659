"""Time `mlp_forward` beside its peers: `python -m bench [--quick] [-o FILE.json] [WORD ...]`."""

import argparse
import json
import os
import platform
import random
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxneuron
from bench.cases import CASES, Case
from bench.contenders import CONTENDERS, Call
from jaxneuron.testing import assert_within_error_bound

BASELINE = "textbook"
SAMPLE = 2e-3  # seconds; shorter calls are repeated to fill it
PAUSE = 2e-3  # seconds, for the threads of the contender before to fall asleep


def network(case: Case) -> tuple[jaxneuron.MLP, jax.Array]:
    """The case's network with weights and biases of trained size, and its rows; always the same."""
    rng = np.random.default_rng(0)
    layers = [
        (rng.normal(size=(m, n)) / np.sqrt(m), rng.normal(size=n) / 4)
        for m, n in zip(case.sizes, case.sizes[1:], strict=False)
    ]
    mlp = jaxneuron.MLP(layers, case.activation, case.final_activation)
    mlp = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), mlp)
    return mlp, jnp.asarray(rng.normal(size=(case.rows, case.sizes[0])), jnp.float32)


def validate(case: Case, calls: dict[str, Call], mlp: jaxneuron.MLP, x: jax.Array) -> None:
    """Every contender's first, middle and last rows, and four at random, within the oracle's bound."""
    rows = sorted({0, case.rows // 2, case.rows - 1, *random.Random(0).choices(range(case.rows), k=4)})
    for call in calls.values():
        assert_within_error_bound(mlp, np.asarray(x)[rows], np.asarray(call())[rows])


def seconds(call: Call, repeats: int) -> float:
    """Seconds a call, over `repeats` calls that each wait for the device."""
    start = time.perf_counter()
    for _ in range(repeats):
        call().block_until_ready()
    return (time.perf_counter() - start) / repeats


def measure(case: Case, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds, quartiles, and the median of the ratios to the baseline in the same round."""
    mlp, x = network(case)
    calls = {name: contender(mlp, x) for name, contender in CONTENDERS.items()}
    validate(case, calls, mlp, x)
    repeats = {name: max(1, round(SAMPLE / seconds(call, 3))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            time.sleep(PAUSE)
            calls[name]().block_until_ready()
            times[name].append(seconds(calls[name], repeats[name]))
    results = {}
    for name, each in times.items():
        low, median, high = statistics.quantiles(each, n=4)
        ratio = statistics.median(t / base for t, base in zip(each, times[BASELINE], strict=True))
        results[name] = {"median": median, "low": low, "high": high, "ratio": ratio}
    return results


def pretty(t: float) -> str:
    return f"{t * 1e6:.1f} us" if t < 1e-3 else f"{t * 1e3:.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "words", metavar="WORD", nargs="*", help="only the cases with one of these in their name"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure")
    parser.add_argument("-o", dest="out", type=Path, default=Path("bench-results.json"), metavar="FILE")
    options = parser.parse_args()
    versions = {
        "jaxneuron": jaxneuron.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    machine = f"{jax.devices()[0].platform}, {os.cpu_count()} cores"
    print(f"{machine}; {', '.join(f'{k} {v}' for k, v in versions.items())}")
    print(f"{'median (quartiles), ratio to ' + BASELINE:<38}" + "".join(f"{name:>34}" for name in CONTENDERS))
    record = []
    for case in CASES:
        if options.words and not any(word in case.name for word in options.words):
            continue
        results = measure(case, rounds=11 if options.quick else 61)
        record.append({"case": case._asdict(), "seconds": results})
        cells = (
            f"{pretty(r['median'])} ({pretty(r['low'])}-{pretty(r['high'])}) {r['ratio']:.2f}"
            for r in results.values()
        )
        print(f"{case.name:<38}" + "".join(f"{cell:>34}" for cell in cells), flush=True)
    options.out.write_text(json.dumps({"machine": machine, "versions": versions, "cases": record}, indent=1))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
