"""How many threads a call of the CPU kernel out of NumPy may have.

Calls by XLA have those of its pool: as many as CPUs by affinity, or as the variable NPROC says.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from pathlib import Path

from jaxneuron._errors import BadType, BadValue

VARIABLE = "JAXNEURON_NUM_THREADS"
MANY = 2**16  # no limit: the kernel itself stops at the CPUs of this process's affinity
ROOT = Path("/")


def most_threads(threads: int | None = None) -> int:
    """`threads`, or what the environment says, or the CPUs that this process's control groups grant it."""
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
    """The CPUs that the control groups of this process grant it, rounded up; MANY if there is no limit."""
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
        for folder in (own, *own.parents):  # a limit holds for all groups below it
            if not folder.is_relative_to(top):
                break
            least = min(least, _limit(folder, bool(controllers)))
    return max(1, math.ceil(least))


def _limit(folder: Path, first_version: bool) -> float:
    """The CPUs that a control group grants: the microseconds of every period in which its threads may run."""
    try:
        if first_version:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        else:
            quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period) if int(quota) > 0 else MANY
    except (OSError, ValueError):  # no such file, or "max"
        return MANY
