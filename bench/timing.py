"""How contenders are timed: in turns, in a new order each round, after a pause and an untimed call.

The pause lasts until the threads of the previous contender have fallen asleep. After a call, the threads of
ONNX Runtime and OpenBLAS look for more work for tens of milliseconds, and PyTorch's threads for a few.
Without the pause they would slow the next contender.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Call = Callable[[], Any]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SAMPLE = 2e-3  # seconds; shorter calls are repeated to fill this time
LOOK = 2  # rounds, after which a peer that takes FAR times as long as the fastest peer is not timed further
FAR = 2.5


class Times(NamedTuple):
    """Seconds per call: the least and the median of all rounds, and the quartiles."""

    least: float
    median: float
    low: float
    high: float
    rounds: tuple[float, ...]


def seconds(call: Call, repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def settle(longest: float = 0.5) -> None:
    """Waits until this process has been idle for 2 ms, but at most `longest` seconds."""
    end, idle = time.perf_counter() + longest, 0
    while idle < 2 and time.perf_counter() < end:
        before = time.process_time()
        time.sleep(1e-3)
        idle = idle + 1 if time.process_time() - before < 2e-4 else 0


def measure(calls: dict[str, Call], keep: set[str], budget: float, most: int = 61) -> dict[str, Times]:
    """Times calls in rounds until `budget` seconds are spent: from 5 to `most` rounds. All have `keep`."""
    first = {name: min(seconds(call) for _ in range(3)) for name, call in calls.items()}  # it may compile
    repeats = {name: max(1, round(SAMPLE / t)) for name, t in first.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    start, done, running = time.perf_counter(), 0, list(calls)
    while done < 5 or (done < most and time.perf_counter() - start < budget):
        for name in random.sample(running, len(running)):
            settle()
            calls[name]()
            times[name].append(seconds(calls[name], repeats[name]))
        done += 1
        if done == LOOK:
            least = {name: min(each) for name, each in times.items()}
            limit = FAR * min((t for name, t in least.items() if name not in keep), default=math.inf)
            running = [name for name in calls if name in keep or least[name] <= limit]
    return {name: summary(each) for name, each in times.items()}


def summary(each: list[float]) -> Times:
    low, median, high = statistics.quantiles(each, n=4)
    return Times(min(each), median, low, high, tuple(each))


def ratio(one: Times, other: Times) -> Times:
    """The ratio of `one` to `other` within a round."""
    return summary([a / b for a, b in zip(one.rounds, other.rounds, strict=False)])
