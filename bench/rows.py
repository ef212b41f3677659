"""Times `evaluate` beside loops of others: `python -m bench.rows [--rows N] [-o FILE.png]`.

The shipped network is evaluated on random rows from its range. Outputs are first compared with those of
`mlp_forward`. Then the contenders run in rounds, in a new order each time. A line has medians with quartiles,
and the median of the ratios to `evaluate` within a round. ONNX Runtime (`onnx`, `onnxruntime`) and Keras's
`predict` (`keras`) take part if they are installed. After that the command times a few rows by `evaluate` and
`Evaluator`, and the same rows from file to file beside reading, computing and writing alone. It plots memory
over time.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

import jaxneuron
from bench.timing import Call, Times, measure, ratio
from jaxneuron import MLP, Evaluator, evaluate, mlp_forward
from jaxneuron._evaluate.batches import default_tile

DATA = Path(jaxneuron.__file__).parent / "data"


def contenders(mlp: MLP, x: np.ndarray, chunk: int) -> dict[str, Call]:
    """The contenders: each evaluates all of `x` in memory, the loops in chunks of `chunk` rows."""
    starts = range(0, len(x), chunk)
    on_device = jax.device_put(x)
    calls: dict[str, Call] = {
        "evaluate": lambda: evaluate(mlp, x),
        "mlp_forward of all rows": lambda: mlp_forward(mlp, on_device).block_until_ready(),
        "loop of mlp_forward": lambda: np.concatenate(
            [np.asarray(mlp_forward(mlp, x[start : start + chunk])) for start in starts]
        ),
    }
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        session = onnx_session(mlp)
        calls["loop of ONNX Runtime"] = lambda: np.concatenate(
            [session.run(None, {"input": x[start : start + chunk]})[0] for start in starts]
        )
    if importlib.util.find_spec("keras"):
        model = keras_model(mlp)
        calls["Keras predict"] = lambda: model.predict(x, batch_size=chunk, verbose=0)
    return calls


def onnx_session(mlp: MLP):
    import onnxruntime

    from jaxneuron.convert import to_onnx

    with tempfile.TemporaryDirectory() as folder:
        to_onnx(mlp, Path(folder, "mlp.onnx"))
        model = Path(folder, "mlp.onnx").read_bytes()
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def keras_model(mlp: MLP):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    dense = [
        keras.layers.Dense(w.shape[1], {"identity": "linear"}.get(activation, activation))
        for (w, _), activation in zip(mlp.layers, mlp.activations, strict=True)
    ]
    model = keras.Sequential([keras.Input((mlp.layers[0].w.shape[0],)), *dense])
    model.set_weights([np.asarray(array) for layer in mlp.layers for array in layer])
    return model


def rounds_of(calls: dict[str, Call], rounds: int) -> dict[str, Times]:
    """Times every contender in so many rounds."""
    return measure(calls, set(calls), budget=math.inf, most=rounds)


def table(title: str, times: dict[str, Times], rows: int) -> None:
    first = next(iter(times.values()))
    print(f"\n{title:<34}{'rows per second (quartiles)':>34}{'time / first':>14}")
    for name, each in times.items():
        low, median, high = rows / each.high, rows / each.median, rows / each.low
        figures = f"{median:,.0f} ({low:,.0f}-{high:,.0f})"
        print(f"{name:<34}{figures:>34}{ratio(each, first).median:>14.2f}")


def from_file_to_file(mlp: MLP, folder: Path) -> dict[str, Call]:
    """Times `evaluate` between memory maps, and each of its parts alone, in chunks of a tile."""
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (len(rows), 8))
    tile = default_tile(mlp)
    starts = range(0, len(rows), tile)
    chunk, outputs = rows[:tile].copy(), np.ones((tile, 8), np.float32)
    weights, on_device = jax.device_put(mlp), jax.device_put(chunk)

    def compute() -> None:
        pending = [mlp_forward(weights, on_device)]
        for _ in starts[1:]:
            pending.append(mlp_forward(weights, on_device))
            pending.pop(0).block_until_ready()
        pending.pop().block_until_ready()

    def read() -> None:
        for start in starts:
            part = rows[start : start + tile]
            chunk[: len(part)] = part

    def write() -> None:
        for start in starts:
            y[start : start + tile] = outputs[: min(tile, len(y) - start)]

    return {
        "computing alone": compute,
        "reading alone": read,
        "writing alone": write,
        "evaluate, map to map": lambda: evaluate(mlp, rows, out=y),
    }


def few(mlp: MLP, x: np.ndarray, rounds: int) -> None:
    """Times `evaluate` beside an `Evaluator`, for a few rows."""
    evaluator = Evaluator(mlp)
    for n in (1, 10, 100, 1000):
        rows = x[:n].copy()
        calls: dict[str, Call] = {
            "Evaluator": lambda r=rows: evaluator(r),
            "evaluate": lambda r=rows: evaluate(mlp, r),
        }
        times = rounds_of(calls, rounds)
        figures = ", ".join(f"{name} {each.median * 1e6:.1f} us" for name, each in times.items())
        print(f"{n:>5} rows: {figures}")


def memory(call: Call) -> list[tuple[float, float]]:
    """Seconds since the start, and the increase of anonymous memory in MB, while `call` runs."""

    def anonymous() -> float:
        return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000

    points, done, before, start = [], threading.Event(), anonymous(), time.perf_counter()

    def sample() -> None:
        while not done.wait(0.01):
            points.append((time.perf_counter() - start, anonymous() - before))

    thread = threading.Thread(target=sample)
    thread.start()
    call()
    done.set()
    thread.join()
    return points


def plot(curves: dict[str, list[tuple[float, float]]], rows: int, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    ax = figure.add_subplot()
    for name, points in curves.items():
        ax.plot(*zip(*points, strict=True), label=name)
    ax.set(xlabel="seconds", ylabel="anonymous memory, MB", title=f"{rows:,} rows through QLKNN 7_11")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rows", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", dest="out", type=Path, default=Path("bench-memory.png"), metavar="FILE.png")
    options = parser.parse_args()
    mlp = jax.tree.map(jax.numpy.asarray, jax.device_put(jaxneuron.load(DATA / "qlknn_7_11.safetensors")))
    with np.load(DATA / "qlknn_7_11_reference.npz") as reference:
        low, high = reference["inputs"].min(axis=0), reference["inputs"].max(axis=0)
    x = np.random.default_rng(0).uniform(low, high, (options.rows, len(low))).astype(np.float32)
    chunk = default_tile(mlp)
    print(
        f"{jax.devices()[0].platform}, {os.cpu_count()} cores, jax {jax.__version__}, chunks of {chunk} rows"
    )

    calls = contenders(mlp, x, chunk)
    truth = np.asarray(mlp_forward(mlp, x))
    for name, call in calls.items():
        scale = np.abs(truth).max(axis=0)
        assert (np.abs(np.asarray(call()) - truth) / scale).max() < 1e-4, name
    table("in memory", rounds_of(calls, options.rounds), len(x))
    few(mlp, x, options.rounds)

    with tempfile.TemporaryDirectory() as name:
        np.save(Path(name) / "rows.npy", x)
        streams = from_file_to_file(mlp, Path(name))
        for call in streams.values():
            call()
        table("from file to file", rounds_of(streams, options.rounds), len(x))
        curves = {
            "evaluate, map to map": memory(streams["evaluate, map to map"]),
            "mlp_forward of all rows": memory(calls["mlp_forward of all rows"]),
        }
    plot(curves, len(x), options.out)
    for label, points in curves.items():
        print(f"{label}: at most {max(mb for _, mb in points):.0f} MB more anonymous memory")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
