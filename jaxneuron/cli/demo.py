"""`jaxneuron demo`: shows gates as neurons, and compares a trained network with its published outputs."""

from __future__ import annotations

import argparse
import statistics
import time
from importlib import resources
from typing import Any

import jax
import numpy as np

from jaxneuron import gates
from jaxneuron._counts import summary
from jaxneuron._files import read
from jaxneuron._forward import mlp_forward
from jaxneuron._params import MLP


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="show gates as neurons, and a trained network against its published outputs",
        description="Show gates as neurons, and a trained network against its published outputs.",
    )
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> None:
    print("Gates as neurons, sigmoid(w . x + b); an output above 0.5 means true:\n")
    names = ("AND", "OR", "NAND", "XOR")
    tables = [gates.truth_table(getattr(gates, name)) for name in names]
    print("  x1 x2" + "".join(f"{name:>14}" for name in names))
    for row, (x1, x2) in enumerate(tables[0][0]):
        values = [float(outputs.reshape(-1)[row]) for _, outputs in tables]
        print(f"   {x1}  {x2}" + "".join(f"{v:>8.4f} {v > 0.5!s:>5}" for v in values))

    print("\nQLKNN 7_11, a trained surrogate of a plasma turbulence code, with its scalings folded in:\n")
    data = resources.files("jaxneuron") / "data"
    with resources.as_file(data / "qlknn_7_11.safetensors") as path:
        stored = read(path)
    print(summary(stored))
    mlp = jax.device_put(stored)
    with resources.as_file(data / "qlknn_7_11_reference.npz") as path, np.load(path) as reference:
        inputs, published = reference["inputs"], reference["outputs"]
    outputs = mlp_forward(mlp, inputs)
    errors = np.abs(np.asarray(outputs, np.float64) - published).max(axis=0) / np.abs(published).max(axis=0)
    print(
        f"\n{len(inputs)} published rows in {outputs.dtype}: the largest error of an output is "
        f"{errors.max():.1e} of the largest published value of that output"
    )
    rate = _rows_per_second(mlp, inputs.min(axis=0), inputs.max(axis=0))
    print(f"100,000 random rows: {rate:,.0f} rows per second on {jax.devices()[0]}")


def _rows_per_second(mlp: MLP, low: np.ndarray, high: np.ndarray, n: int = 100_000) -> float:
    rows = jax.device_put(np.random.default_rng(0).uniform(low, high, (n, len(low))))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        mlp_forward(mlp, rows).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return n / statistics.median(seconds[1:])  # the first call compiles
