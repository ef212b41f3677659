"""Times two installations of jaxneuron beside each other: `python -m bench --beside PYTHON [WORD ...]`.

One is installed in this Python, the other in PYTHON. Each runs in a process of its own that does the same
work (worker.py). The outputs are checked first. Then come rounds, in which the two take turns in a new order;
the result is the ratio of their times within a round.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.cases import Case, network
from bench.timing import SAMPLE, Times, ratio, summary
from bench.truth import Truth, check, truth


class Installation:
    """A worker process that runs one Python's jaxneuron."""

    def __init__(self, python: str) -> None:
        command = [python, str(Path(__file__).with_name("worker.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()

    def ask(self, **command: Any) -> Any:
        assert self.process.stdin
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            self.close()
            raise SystemExit(f"{self.process.args[0]}: it ended with {self.process.returncode}; see above")
        return json.loads(line)

    def close(self) -> None:
        self.process.communicate()  # the worker ends when its stdin is closed


def build(case: Case, each: list[Installation]) -> list[str]:
    """Makes all workers build the case, checks their outputs, and returns the ways that all of them have."""
    with jax.enable_x64(case.dtype == "float64"):
        mlp, x = network(case)
        expected = truth(case, mlp, x)
    places = [axis.tolist() for axis in expected.places]
    found = [one.ask(case=case._asdict(), places=places) for one in each]
    here = Truth((...,), expected.exact, expected.ours, expected.peers)  # only the outputs at these places
    for one, outputs in zip(each, found, strict=True):
        for way, y in outputs.items():
            check(f"{way} of {one.about['from']}", np.array(y), here, ours=True)
    return [way for way in found[0] if all(way in outputs for outputs in found)]


def measure(way: str, each: list[Installation], budget: float, most: int = 61) -> list[Times]:
    """Each worker's times of one way, in rounds until `budget` seconds are spent: from 5 to `most` rounds."""
    first = min(one.ask(way=way, repeats=1) for _ in range(2) for one in each)
    repeats = max(1, round(SAMPLE / first))
    rounds: list[list[float]] = [[] for _ in each]
    start = time.perf_counter()
    while len(rounds[0]) < 5 or (len(rounds[0]) < most and time.perf_counter() - start < budget):
        for i in random.sample(range(len(each)), len(each)):
            rounds[i].append(each[i].ask(way=way, repeats=repeats))
    return [summary(times) for times in rounds]


def compare(cases: list[Case], python: str, quick: bool) -> dict[str, Any]:
    """Prints a line for each case and way, and the geometric means. Returns the contents of the JSON file."""
    each = [Installation(sys.executable), Installation(python)]
    for name, one in zip(("this", "other"), each, strict=True):
        about = one.about
        print(f"{name:<6} jaxneuron {about['jaxneuron']}, jax {about['jax']}: {about['from']}")
    print(f"{'case':<35}{'way':<18}{'this':>10}{'other':>10}{'this/other':>12}  (quartiles)", flush=True)
    record = []
    for case in cases:
        for way in build(case, each):
            this, other = measure(way, each, budget=0.5 if quick else 3.0)
            within = ratio(this, other)
            print(
                f"{case.name:<35}{way:<18}{this.median * 1e6:>10.1f}{other.median * 1e6:>10.1f}"
                f"{within.median:>12.3f}  ({within.low:.3f}-{within.high:.3f})",
                flush=True,
            )
            times = {"this": this._asdict(), "other": other._asdict(), "ratio": within._asdict()}
            record.append({"case": case.name, "way": way, **times})
    for one in each:
        one.close()
    means = {way: _mean([r for r in record if r["way"] == way]) for way in {r["way"]: 0 for r in record}}
    print("microseconds, and geometric means of this over other: ", end="")
    print(", ".join(f"{way} {mean:.3f}" for way, mean in means.items()), end="")
    print(f", all {_mean(record):.3f}")
    return {"about": [one.about for one in each], "geometric_mean": _mean(record), "cases": record}


def _mean(record: list[dict[str, Any]]) -> float:
    return math.exp(sum(math.log(r["ratio"]["median"]) for r in record) / len(record))
