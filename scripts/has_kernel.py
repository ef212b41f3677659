"""Says whether the installed jaxneuron has the compiled kernel; exits with 1 if not."""

from jaxneuron._kernels import library

reason = library.missing()
print(reason or f"compiled, with {', '.join(library.instruction_sets())}")
raise SystemExit(reason is not None)
