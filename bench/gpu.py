"""Time the fused GPU kernel beside its peers: `python -m bench --gpu [--seconds S] [-o FILE] [WORD ...]`.

The command prints a line for each case and contender: microseconds per call; rows, multiplications and bytes
per second; how many times as fast as the textbook's code it is; and the error. Calls follow each other
without waiting, and their inputs take turns, so that L2 does not hold them. The contenders of a case
alternate in rounds. Before the cases come the machine's ceilings, copying memory and the product of two 8192
x 8192 matrices, and then the bytes per second of `evaluate`.

Cases run in the order of their importance, until the seconds are spent.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bench.gpu_accuracy import sweeps_of_all
from bench.gpu_candidates import PARTS, with_tanh
from jaxneuron import MLP, evaluate, explain, mlp_forward
from jaxneuron._math import float64

Call = Callable[[int], Any]
Layers = list[tuple[Array, Array]]

ROUNDS = 5
ROUND = 20e-3  # seconds that a contender's turn in a round takes
INPUTS = 2**29  # bytes of all inputs that take turns: ten times the size of L2
CHECKED = 256  # rows whose error is measured
COMPILED = 5  # torch.compile is timed in the first so many cases: it takes about 20 s to compile
TEXTBOOK: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu,
    "gelu": lambda z: jax.nn.gelu(z, approximate=False), "softplus": jax.nn.softplus, "elu": jax.nn.elu,
    "identity": lambda z: z,
}  # fmt: skip


class Case(NamedTuple):
    """A network, how many rows it is evaluated on, and in what dtype."""

    widths: tuple[int, ...]
    activation: str
    rows: int
    dtype: str = "bfloat16"

    @property
    def name(self) -> str:
        """The case as text, such as `64x5 relu, 2^20 rows, bfloat16`."""
        w = self.widths
        layers = f"{w[0]}x{len(w) - 1}" if len(set(w)) == 1 else "-".join(map(str, w))
        power = self.rows.bit_length() - 1
        rows = f"2^{power}" if self.rows == 1 << power else f"{self.rows:,}"
        return f"{layers} {self.activation}, {rows} rows, {self.dtype}"


def uniform(width: int, hidden: int) -> tuple[int, ...]:
    """The sizes of a network whose inputs, hidden layers and outputs all have one width."""
    return (width,) * (hidden + 2)


QLKNN = (10, 133, 133, 133, 133, 133, 8)
LARGE = Case(uniform(64, 4), "relu", 2**22)  # `evaluate` is timed with it too
CASES = (
    *(Case(uniform(width, 4), "relu", 2**20) for width in (64, 128, 256, 32)),
    LARGE,
    *(Case(uniform(width, 4), "tanh", 2**20) for width in (64, 128, 256, 32)),
    Case(QLKNN, "tanh", 2**18),
    Case(uniform(64, 4), "relu", 1_000_003),
    *(Case(uniform(64, 4), name, 2**20, "float32") for name in ("relu", "tanh", "sigmoid")),
    *(Case(uniform(width, 4), name, 2**20) for width in (64, 256) for name in ("sigmoid", "silu", "gelu")),
    *(Case(uniform(64, hidden), "relu", 2**20) for hidden in (8, 2, 0)),
    Case(uniform(128, 8), "relu", 2**20),
    *(
        Case(uniform(width, 4), name, 2**20, "float16")
        for name in ("relu", "tanh")
        for width in (64, 128, 256)
    ),
    Case(uniform(16, 4), "relu", 2**20),
    *(Case(uniform(512, 2), name, 2**18) for name in ("relu", "tanh", "gelu")),
    *(Case(uniform(64, 4), "relu", rows) for rows in (2**10, 2**14, 2**17)),
    Case((28, 128, 64, 8), "relu", 2**20),
    *(Case(uniform(256, 4), name, 2**20) for name in ("softplus", "elu")),
)


def network(case: Case) -> tuple[Layers, list[Array]]:
    """The weights of a case, and the inputs that take turns."""
    rng = np.random.default_rng(0)
    layers = [
        (
            jnp.asarray(rng.normal(size=(a, b)) * 1.4 / np.sqrt(a), case.dtype),
            jnp.asarray(rng.normal(size=b) / 4, case.dtype),
        )
        for a, b in zip(case.widths, case.widths[1:], strict=False)
    ]
    shape = case.rows, case.widths[0]
    size = case.rows * case.widths[0] * jnp.dtype(case.dtype).itemsize
    normal = jax.jit(lambda key: jax.random.normal(key, shape, jnp.float32).astype(case.dtype))
    keys = range(max(1, min(4, -(-INPUTS // size))))
    return layers, jax.block_until_ready([normal(jax.random.key(k)) for k in keys])


def ours(case: Case, layers: Layers, xs: list[Array]) -> Call:
    """`jit(mlp_forward)`, with the weights as arguments."""
    mlp = MLP(layers, activation=case.activation, final_activation=case.activation)
    # A function of its own, so that JAX does not reuse what it traced for another contender.
    compiled = jax.jit(lambda mlp, x: mlp_forward(mlp, x)).lower(mlp, xs[0]).compile()
    return lambda k: compiled(mlp, xs[k])


def textbook(case: Case, layers: Layers, xs: list[Array]) -> Call:
    """`jit` of the loop that anyone would write, in the case's dtype, with float32 at highest precision."""

    def forward(layers: Layers, x: Array) -> Array:
        for w, b in layers:
            x = TEXTBOOK[case.activation](jnp.dot(x, w, precision=precision) + b)
        return x

    precision = lax.Precision.HIGHEST if case.dtype == "float32" else None
    compiled = jax.jit(forward).lower(layers, xs[0]).compile()
    return lambda k: compiled(layers, xs[k])


def flax_dense(case: Case, layers: Layers, xs: list[Array]) -> Call:
    """`jit` of Flax's `Dense` layers, with the textbook's activations and precision."""
    from flax import linen

    dtype, n = jnp.dtype(case.dtype), len(layers)
    precision = lax.Precision.HIGHEST if case.dtype == "float32" else None
    steps = [
        step
        for w, _ in layers
        for step in (
            linen.Dense(w.shape[1], dtype=dtype, param_dtype=dtype, precision=precision),
            TEXTBOOK[case.activation],
        )
    ]
    parameters = {
        "params": {f"layers_{2 * k}": {"kernel": layers[k][0], "bias": layers[k][1]} for k in range(n)}
    }
    compiled = jax.jit(linen.Sequential(steps).apply).lower(parameters, xs[0]).compile()
    return lambda k: compiled(parameters, xs[k])


def torch_graph(case: Case, layers: Layers, xs: list[Array], compiled: bool = False) -> Call:
    """PyTorch's layers, replayed as a CUDA graph for each input; if `compiled`, after `torch.compile`."""
    import torch

    modules: list[Any] = []
    functions = {
        "relu": torch.nn.ReLU,
        "tanh": torch.nn.Tanh,
        "sigmoid": torch.nn.Sigmoid,
        "silu": torch.nn.SiLU,
    }
    dtype = getattr(torch, case.dtype)
    for w, b in layers:
        linear = torch.nn.Linear(*w.shape, device="cuda", dtype=dtype)
        for parameter, value in ((linear.weight, w.T), (linear.bias, b)):
            parameter.data.copy_(torch.from_numpy(np.asarray(value.astype(jnp.float32))))
        modules += [linear, functions[case.activation]()]
    forward: Any = torch.nn.Sequential(*modules)
    if compiled:
        forward = torch.compile(forward, mode="max-autotune-no-cudagraphs")
    graphs, results = [], []
    with torch.no_grad():
        for x in xs:
            rows = torch.from_dlpack(x)
            for _ in range(3):
                forward(rows)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                results.append(forward(rows))
            graphs.append(graph)

    def call(k: int) -> Any:
        graphs[k].replay()
        return Result(results[k])

    return call


class Result:
    """A PyTorch tensor for which one can wait in the same way as for a JAX array."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def block_until_ready(self) -> None:
        import torch

        torch.cuda.synchronize()

    def __getitem__(self, at: Any) -> Any:
        return self.tensor[at].float().cpu().numpy()


def torch_compile(case: Case, layers: Layers, xs: list[Array]) -> Call:
    """`torch_graph` of the result of `torch.compile`."""
    return torch_graph(case, layers, xs, compiled=True)


CANDIDATES = {f"{part} by P": with_tanh(part, ours) for part in PARTS}  # of tanh: see gpu_candidates.py
CONTENDERS = {
    "textbook": textbook, "jaxneuron": ours, "Flax": flax_dense, "PyTorch": torch_graph,
    "torch.compile": torch_compile, **CANDIDATES,
}  # fmt: skip


def contenders(case: Case) -> list[str]:
    """The contenders of a case, unless others are asked for."""
    left_out = {*(["torch.compile"] if case in CASES[COMPILED:] else [])}
    if case.activation != "tanh" or case.dtype == "float32":
        left_out.update(CANDIDATES)
    return [name for name in CONTENDERS if name not in left_out]


def error(case: Case, layers: Layers, x: Array, y: Any) -> float:
    """The distance from the exact result divided by its size, on the first rows."""
    h = _float64(x[:CHECKED])
    for w, b in layers:
        h, _ = float64.activation(case.activation, h @ _float64(w) + _float64(b))
    return float(np.linalg.norm(_float64(y[:CHECKED]) - h) / np.linalg.norm(h))


def _float64(a: Any) -> np.ndarray:
    return np.asarray(jnp.asarray(a).astype(jnp.float32), np.float64)


def rounds(calls: dict[str, Call], inputs: int) -> dict[str, list[float]]:
    """Seconds per call, a number for each contender and round. Every round has an order of its own."""
    repeats, times = {}, {name: [] for name in calls}
    for name, call in calls.items():
        jax.block_until_ready(call(0))
        start = time.perf_counter()
        jax.block_until_ready([call(k % inputs) for k in range(4)])
        repeats[name] = max(4, round(ROUND / ((time.perf_counter() - start) / 4)))
    for _ in range(ROUNDS):
        for name in random.sample(list(calls), len(calls)):
            jax.block_until_ready(calls[name](0))
            start = time.perf_counter()
            for k in range(repeats[name]):
                y = calls[name](k % inputs)
            jax.block_until_ready(y)
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def measure(case: Case, contenders: Sequence[str]) -> dict[str, Any]:
    """All results of one case, in the form of the JSON file."""
    layers, xs = network(case)
    work = 2 * sum(a * b for a, b in zip(case.widths, case.widths[1:], strict=False)) * case.rows
    moved = (case.widths[0] + case.widths[-1]) * jnp.dtype(case.dtype).itemsize * case.rows
    calls, errors, absent = {}, {}, {}
    for name in contenders:
        try:
            call = CONTENDERS[name](case, layers, xs)
            errors[name] = error(case, layers, xs[0], call(0))
            calls[name] = call
        except Exception as problem:  # if a library fails, the others go on
            absent[name] = f"{type(problem).__name__}: {[*str(problem).splitlines(), ''][0]}"
    times = rounds(calls, len(xs))
    mlp = MLP(layers, activation=case.activation, final_activation=case.activation)
    record: dict[str, Any] = {
        "case": case._asdict() | {"name": case.name},
        "by": explain(mlp, xs[0]),
        "absent": absent,
    }
    for name, each in times.items():
        median = statistics.median(each)
        quotients = sorted(a / b for a, b in zip(times["textbook"], each, strict=True))
        record[name] = {
            "seconds": median, "error": errors[name], "rows_per_second": case.rows / median,
            "operations_per_second": work / median, "bytes_per_second": moved / median,
            "speed": {"low": quotients[0], "median": statistics.median(quotients), "high": quotients[-1]},
        }  # fmt: skip
    return record


def ceilings() -> dict[str, float]:
    """The bytes per second of copying, and the operations per second of a product of two large matrices."""
    a = jnp.ones(2**29, jnp.bfloat16)
    m = jax.random.normal(jax.random.key(0), (8192, 8192), jnp.bfloat16)
    copy, product = jax.jit(jnp.copy), jax.jit(jnp.matmul)
    times = rounds({"copy": lambda _: copy(a), "product": lambda _: product(m, m)}, 1)
    best = {name: min(each) for name, each in times.items()}
    return {
        "bytes_per_second": 2 * a.nbytes / best["copy"],
        "operations_per_second": 2 * 8192**3 / best["product"],
    }


def host_to_host(case: Case) -> float:
    """The bytes per second of `evaluate`, rows and outputs together, into an array already written once."""
    layers, xs = network(case)
    mlp = MLP(layers, activation=case.activation, final_activation=case.activation)
    rows = np.asarray(xs[0])
    out = np.array(evaluate(mlp, rows))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        evaluate(mlp, rows, out=out)
        times.append(time.perf_counter() - start)
    return (rows.nbytes + out.nbytes) / min(times)


def lines(record: dict[str, Any]) -> str:
    """The lines to print for a case."""
    text = [f"{record['case']['name']}: {record['by']}"]
    for name in CONTENDERS:
        if name in record["absent"]:
            text.append(f"  {name:<14} {record['absent'][name]}"[:160])
        elif name in record:
            r = record[name]
            text.append(
                f"  {name:<14} {r['seconds'] * 1e6:9.1f} us {r['rows_per_second'] / 1e9:7.2f} G rows/s "
                f"{r['operations_per_second'] / 1e12:6.1f} TFLOP/s {r['bytes_per_second'] / 1e12:5.2f} TB/s "
                f"{r['speed']['median']:5.2f} x textbook, error {r['error']:.1e}"
            )
    return "\n".join(text)


def main(arguments: Sequence[str]) -> None:
    """Runs the command; `arguments` are the command-line arguments after `--gpu`."""
    parser = argparse.ArgumentParser(
        prog="python -m bench --gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only the cases whose names have all of them"
    )
    parser.add_argument(
        "--seconds", type=float, default=600, help="begin no case after so many (default: 600)"
    )
    parser.add_argument(
        "--peers",
        help=f"contenders, by commas (default: all, torch.compile in the first {COMPILED} cases alone)",
    )
    parser.add_argument("--sweep", action="store_true", help="print the worst error of every activation")
    parser.add_argument("-o", "--output", type=Path, help="the JSON file; a picture is drawn beside it")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    device = jax.devices()[0]
    if device.platform != "gpu":
        parser.exit(1, f"bench --gpu: needs a GPU, got {device.device_kind}\n")
    peak = ceilings()
    print(
        f"jax {jax.__version__}, {device.device_kind}: copies {peak['bytes_per_second'] / 1e12:.2f} TB/s, "
        f"multiplies {peak['operations_per_second'] / 1e12:.0f} TFLOP/s",
        flush=True,
    )
    peak["evaluate_bytes_per_second"] = moved = host_to_host(LARGE)
    print(f"evaluate, {LARGE.name}: {moved / 1e9:.1f} GB/s in and out", flush=True)
    errors = sweeps_of_all() if options.sweep else []
    records = []
    for case in CASES:
        if not all(word in case.name for word in options.words):
            continue
        if time.perf_counter() - start > options.seconds:
            print(f"out of time before {case.name}")
            break
        usual = contenders(case)
        records.append(measure(case, options.peers.split(",") if options.peers else usual))
        print(lines(records[-1]), flush=True)
        jax.clear_caches()
        if options.output:
            document = {
                "jax": jax.__version__,
                "device": device.device_kind,
                "ceilings": peak,
                "errors": errors,
                "cases": records,
            }
            options.output.write_text(json.dumps(document, indent=1) + "\n")
    if options.output and records:
        from bench import picture

        drawn = [
            {"case": r["case"], "speed": r["jaxneuron"]["speed"], "peer": ""}
            for r in records
            if "jaxneuron" in r
        ]
        picture.draw(drawn, options.output.with_suffix(".png"), "the textbook's jit of the case")
