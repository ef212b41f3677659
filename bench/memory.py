"""The peak memory of a fresh process that evaluates one case: `python -m bench.memory CONTENDER CASE`.

It prints the most MB that were resident since the program started, imports included.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jax

from bench.cases import CASES, DEEP, SHALLOW, Case, network

STATUS = Path("/proc/self/status")


def peak(contender: str, case: Case) -> float | None:
    """The peak memory in MB of the contender in this case; None if the system does not report it."""
    if not STATUS.exists():
        return None
    command = [sys.executable, "-m", "bench.memory", contender, case.name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    from bench.contenders import OURS, PEERS

    contender, name = sys.argv[1:]
    (case,) = {each for each in (*CASES, DEEP, SHALLOW) if each.name == name}
    with jax.enable_x64(case.dtype == "float64"):
        call = (OURS | PEERS)[contender](case, *network(case))
        call()
        call()
    # Not getrusage: its peak is inherited from the process that started this one.
    print(int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) / 1000)


if __name__ == "__main__":
    main()
