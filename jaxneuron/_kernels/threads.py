"""How many threads the CPU kernel may use when NumPy code calls it (host.py).

When XLA calls the kernel, it gives the threads of its pool: one for each CPU that this process may run on, or
as many as the environment variable NPROC says.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from pathlib import Path

from jaxneuron._errors import BadType, BadValue

VARIABLE = "JAXNEURON_NUM_THREADS"
MANY = 2**16  # means unlimited: the kernel itself uses at most the CPUs of this process's affinity
ROOT = Path("/")


def most_threads(threads: int | None = None) -> int:
    """The most threads that a call may use.

    That is `threads` if it is given, otherwise the variable JAXNEURON_NUM_THREADS, and otherwise the number
    of CPUs that the control groups of this process grant it.
    """
    if threads is not None:
        try:
            most = operator.index(threads)
        except TypeError:
            raise BadType(
                f"threads must be a whole number of threads or None, got {threads!r}; pass an int"
            ) from None
        if most < 1:
            raise BadValue(f"threads must be at least 1, got {most}; leave it out for all CPUs")
        return min(most, MANY)
    text = os.environ.get(VARIABLE)
    if text is None:
        return granted()
    if not text.strip().isdecimal() or int(text) < 1:
        raise BadValue(
            f"the variable {VARIABLE} must be a number from 1 on, got {text!r}; unset it for all CPUs"
        )
    return min(int(text), MANY)


@functools.cache
def granted(root: Path = ROOT) -> int:
    """The number of CPUs that this process's control groups grant it, rounded up; MANY if unlimited."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return MANY
    least = float(MANY)
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = top / group.lstrip("/")
        for folder in (own, *own.parents):  # a limit applies to all groups below it
            if not folder.is_relative_to(top):
                break
            least = min(least, _limit(folder, bool(controllers)))
    return max(1, math.ceil(least))


def _limit(folder: Path, first_version: bool) -> float:
    """The number of CPUs that a control group grants: its quota of CPU time, divided by the period."""
    try:
        if first_version:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        else:
            quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period) if int(quota) > 0 else MANY
    except (OSError, ValueError):  # no such file, or "max"
        return MANY
