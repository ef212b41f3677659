"""Checks that the wheels hold the package's tracked files, and that one of them also holds the kernel."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile


def contents(folder: Path) -> tuple[str, set[str]]:
    (wheel,) = folder.glob("*.whl")
    print(wheel.name)
    return wheel.name, {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}


compiled, files = contents(Path(sys.argv[1], "compiled"))
pure, without_kernel = contents(Path(sys.argv[1], "pure"))
assert pure.endswith("-py3-none-any.whl"), pure
assert "-py3-none-" in compiled, compiled
assert compiled != pure, compiled
listed = ["git", "ls-files", "-co", "--exclude-standard", "jaxneuron"]
tracked = subprocess.check_output(listed, text=True).split()
assert without_kernel == {path for path in tracked if "/cpu/" not in path}, without_kernel
assert files - without_kernel == {"jaxneuron/_kernels/libjaxneuron_cpu.so"}, files - without_kernel
assert without_kernel < files, without_kernel - files
