"""Time `mlp_forward` beside its peers: `python -m bench [--quick] [-o FILE.json] [WORD ...]`.

`--gpu` times it on a GPU instead (gpu.py). `--beside PYTHON` times it beside the jaxneuron that another
Python has installed (beside.py).

The command prints a line for each case: the median time of jaxneuron and of the fastest peer; how many times
as fast as that peer jaxneuron is within a round; its time divided by the case's floor, and by the time of an
empty call; compile time and peak memory, of jaxneuron and of the textbook's code. A second table and the JSON
file have the times of all contenders.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import jax

from bench import beside, gpu, memory, picture
from bench.cases import CASES, DEEP, SHALLOW, Case, network
from bench.contenders import OURS, PEERS, Call, empty
from bench.floor import floor, matmul_peak
from bench.timing import CORES, Times, measure, ratio
from bench.truth import as_numpy, check, truth

BASELINE = "textbook"
EMPTY = {"mlp_forward": "empty", "jit(mlp_forward)": "empty", "weights inside": "empty, weights inside"}
QUICK = ("textbook", "PyTorch", "ONNX Runtime", "NumPy")  # the peers of a quick run
LIMIT = 1e10  # the most operations that a case of a quick run may have
LIBRARIES = (
    "jaxneuron", "jax", "flax", "equinox", "torch", "onnx", "onnxruntime", "numpy", "scikit-learn",
)  # fmt: skip


def build(case: Case, quick: bool, missing: dict[str, str]) -> tuple[dict[str, Call], dict[str, str]]:
    """Every contender's call, or the reason why it can't run. Checks the outputs, but times nothing yet."""
    mlp, x = network(case)
    at = truth(case, mlp, x)
    calls: dict[str, Call] = {}
    absent: dict[str, str] = {}
    for name, contender in (OURS | PEERS).items():
        if name in missing or (quick and name not in (*OURS, *QUICK)):
            continue
        try:
            call = contender(case, mlp, x)
            check(name, as_numpy(call()), at, ours=name in OURS)
        except ImportError as error:
            missing[name] = str(error)
            continue
        except NotImplementedError as error:
            absent[name] = str(error)
            continue
        except Exception as error:  # if a peer's library fails, the others go on
            if name in OURS:
                raise
            absent[name] = f"{name}: {type(error).__name__}: {[*str(error).splitlines(), ''][0]}"
            continue
        calls[name] = call
    if case.rows == 1 and not case.members:
        calls["empty"] = empty(case, mlp, x)
        calls["empty, weights inside"] = empty(case, x)
    return calls, absent


def compile_seconds(case: Case) -> dict[str, float]:
    """Seconds of the first call of a fresh program, of jaxneuron and of the textbook: the least of three."""
    mlp, x = network(case)
    least = {}
    for name, contender in (("jit(mlp_forward)", OURS["jit(mlp_forward)"]), (BASELINE, PEERS[BASELINE])):
        for _ in range(3):
            jax.clear_caches()
            start = time.perf_counter()
            contender(case, mlp, x)()
            least[name] = min(least.get(name, math.inf), time.perf_counter() - start)
    return least


def result(case: Case, quick: bool, missing: dict[str, str]) -> dict[str, Any]:
    """All results of one case, in the form of the JSON file."""
    with jax.enable_x64(case.dtype == "float64"):
        least = floor(case)
        compiled = compile_seconds(case)
        calls, absent = build(case, quick, missing)
        times = measure(calls, {*OURS, BASELINE, *EMPTY.values()}, budget=1.0 if quick else 9.0)
    ours = min((name for name in OURS if name in times), key=lambda name: times[name].median)
    rounds = len(times[ours].rounds)
    timed = [name for name in PEERS if name in times and len(times[name].rounds) == rounds]
    peer = min(timed, key=lambda name: times[name].median)
    megabytes = {}
    if not quick:
        megabytes = {name: memory.peak(name, case) for name in dict.fromkeys((ours, BASELINE, peer))}
    enough = case.rows * max(1, case.members) >= 1024
    return {
        "case": case._asdict() | {"name": case.name},
        "ours": ours,
        "peer": peer,
        "speed": _quartiles(ratio(times[peer], times[ours])),
        "over_floor": times[ours].median / least.seconds if enough else None,
        "over_empty": ratio(times[ours], times[EMPTY[ours]]).median if EMPTY.get(ours) in times else None,
        "floor": least._asdict(),
        "compile_seconds": compiled,
        "peak_megabytes": megabytes,
        "seconds": {name: _quartiles(each) for name, each in times.items()},
        "absent": absent,
    }


def depth() -> list[dict[str, Any]]:
    """Compile time and peak memory of a hundred layers and of four, of jaxneuron and of the textbook."""
    found = []
    for case in (SHALLOW, DEEP):
        compiled = compile_seconds(case)
        megabytes = {name: memory.peak(name, case) for name in compiled}
        found.append({"layers": len(case.sizes) - 1, "compile": compiled, "peak_megabytes": megabytes})
        cells = (f"{name} {t:.2f} s, {megabytes[name] or math.nan:.0f} MB" for name, t in compiled.items())
        print(f"{len(case.sizes) - 1} layers of 64, {case.rows} rows: {'; '.join(cells)}", flush=True)
    return found


def _quartiles(each: Times) -> dict[str, float]:
    return each._asdict() | {"rounds": len(each.rounds)}


def pretty(t: float) -> str:
    for unit, scale in (("us", 1e6), ("ms", 1e3), ("s", 1)):
        if t * scale < 999.5:
            return f"{t * scale:.3g} {unit}"
    return f"{t:.0f} s"


def line(r: dict[str, Any]) -> str:
    ours, peer = (r["seconds"][r[who]]["median"] for who in ("ours", "peer"))
    speed, megabytes = r["speed"], r["peak_megabytes"]
    compiled = "/".join(f"{t:.2f}" for t in r["compile_seconds"].values())
    shown = [mb for name, mb in megabytes.items() if mb and name in (r["ours"], BASELINE)]
    memory = "/".join(f"{mb:.0f}" for mb in shown) or "-"
    median, low, high = (
        f"{speed[name]:.{2 if speed['high'] < 100 else 0}f}" for name in ("median", "low", "high")
    )
    spread = f"({low}-{high})"
    over_floor, over_empty = (f"{r[what]:.2f}" if r[what] else "-" for what in ("over_floor", "over_empty"))
    return (
        f"{r['case']['name']:<35}{pretty(ours):>8}{pretty(peer):>9} {r['peer']:<13}"
        f"{median:>5} {spread:<12}"
        f"{over_floor:>6}{over_empty:>6}{compiled:>10}{memory:>9} {verdict(r)}"
    )


def verdict(r: dict[str, Any]) -> str:
    return "WON" if r["speed"]["median"] >= 1 else "LOST"


HEAD = (
    f"{'case':<35}{'ours':>8}{'best peer':>9} {'':<13}{'speed':>5} {'(quartiles)':<12}"
    f"{'/floor':>6}{'/empty':>6}{'compile s':>10}{'MB':>9}"
)


def everyone(record: list[dict[str, Any]]) -> None:
    """Prints all medians. Below them it prints which contenders are missing from which cases, and why."""
    names = [name for name in (*OURS, *PEERS) if any(name in r["seconds"] for r in record)]
    short = {
        "mlp_forward": "forward",
        "jit(mlp_forward)": "jit(fwd)",
        "weights inside": "inside",
        "Evaluator": "evaluator",
        "torch.compile": "compiled",
    }
    short |= {"ONNX Runtime": "ONNX RT", "scikit-learn": "sklearn", "PyTorch": "torch"}
    print("\neveryone's medians, and the floor")
    print(f"{'':<35}" + "".join(f"{short.get(name, name):>10}" for name in (*names, "floor")))
    for r in record:
        times = [r["seconds"][n]["median"] if n in r["seconds"] else None for n in names]
        times.append(sum(r["floor"].values()))
        print(f"{r['case']['name']:<35}" + "".join(f"{pretty(t) if t else '-':>10}" for t in times))
    reasons: dict[str, list[str]] = {}
    for r in record:
        for reason in r["absent"].values():
            reasons.setdefault(reason, []).append(r["case"]["name"])
    for reason, names in reasons.items():
        print(f"- {reason}: {'; '.join(names) if len(names) < 4 else f'{len(names)} cases'}")


def main() -> None:
    if "--gpu" in sys.argv[1:2]:
        gpu.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "words", metavar="WORD", nargs="*", help="only the cases with one of these in their name"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small cases and few peers: a first look, not figures to report"
    )
    parser.add_argument(
        "--beside", metavar="PYTHON", help="instead of peers, the jaxneuron that this Python has installed"
    )
    parser.add_argument("-o", dest="out", type=Path, default=Path("bench-results.json"), metavar="FILE")
    options = parser.parse_args()
    cases = [
        case
        for case in CASES
        if (not options.words or any(word in case.name for word in options.words))
        and (not options.quick or case.operations <= LIMIT)
    ]
    if not cases:
        parser.error(f"no case has one of {', '.join(options.words)} in its name")
    if not options.out.parent.is_dir():
        parser.error(f"-o must name a file in a folder that is there, got {options.out}")
    if options.out.suffix != ".json":
        parser.error(f"-o must end in .json, as the picture takes its name with .png, got {options.out}")
    if options.beside:
        results = beside.compare(cases, options.beside, options.quick)
        options.out.write_text(json.dumps(results, indent=1))
        print(f"written to {options.out}")
        return
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine = (
        f"{jax.devices()[0].platform}, {CORES} cores, load average {os.getloadavg()[0]:.1f} at the start"
    )
    print(textwrap.fill(f"{machine}; {', '.join(f'{k} {v}' for k, v in versions.items())}", 120))
    print(f"{matmul_peak('float32') / 1e9:.0f} GFLOP/s in float32 products")
    print(HEAD, flush=True)
    record: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for case in cases:
        record.append(result(case, options.quick, missing))
        print(line(record[-1]), flush=True)
    mean = math.exp(sum(math.log(r["speed"]["median"]) for r in record) / len(record))
    lost = sum(verdict(r) == "LOST" for r in record)
    print(f"geometric mean {mean:.2f} over {len(record)} cases, {lost} lost")
    for name, error in missing.items():
        print(f"{name} took no part: {error}")
    everyone(record)
    results = {"machine": machine, "versions": versions, "geometric_mean": mean, "cases": record}
    if not options.quick and not options.words:
        results["depth"] = depth()
    options.out.write_text(json.dumps(results, indent=1))
    print(f"written to {options.out}")
    picture.draw(record, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
