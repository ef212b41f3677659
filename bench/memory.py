"""The peak memory of a fresh process that evaluates one case: `python -m bench.memory CONTENDER CASE`.

Prints MB: the most that was resident since the program started, imports included.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak(name: str, index: int) -> float | None:
    """Of the contender `name` with the case of that index; None where the system does not tell."""
    if not STATUS.exists():
        return None
    command = [sys.executable, "-m", "bench.memory", name, str(index)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    import jax

    from bench.cases import CASES, network
    from bench.contenders import OURS, PEERS

    name, case = sys.argv[1], CASES[int(sys.argv[2])]
    with jax.enable_x64(case.dtype == "float64"):
        call = (OURS | PEERS)[name](case, *network(case))
        call()
        call()
    # Not getrusage: its peak is inherited from the process that started this one.
    print(int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) / 1000)


if __name__ == "__main__":
    main()
