"""One installation's side of `python -m bench --beside`: commands on stdin, answers on stdout.

It is run by its path, `PYTHON bench/worker.py`, so that it imports the `jaxneuron` that PYTHON has installed.
That may be any version, so only public names are used. Each command, and each answer, is a line of JSON:

    (at first)                                    -> {"jaxneuron": "0.1.0", "from": ..., "jax": ...}
    {"case": {...}, "places": [[0, 7]]}           -> {way: the outputs at those places}
    {"way": "jit(mlp_forward)", "repeats": 20}    -> seconds a call
"""

import functools
import json
import sys
from typing import Any

import jax
import numpy as np
from cases import Case, network  # beside this file
from timing import Call, seconds, settle

import jaxneuron


def ways(case: Case) -> dict[str, Call]:
    """The ways to evaluate a case: calls that return when their result is ready."""
    try:
        mlp, x = network(case)
    except (ValueError, ImportError):  # an older installation, without the activation
        return {}
    forward = jaxneuron.mlp_forward
    if case.members:
        forward = jax.vmap(forward, (0, None if case.shared else 0))
    jitted = jax.jit(forward)
    found = {"jit(mlp_forward)": lambda: jitted(mlp, x).block_until_ready()}
    if not case.members:
        inside, rows = jax.jit(functools.partial(forward, mlp)), np.asarray(x)
        found["mlp_forward"] = lambda: forward(mlp, x).block_until_ready()
        found["weights inside"] = lambda: inside(x).block_until_ready()
        found["evaluate"] = lambda: jaxneuron.evaluate(mlp, rows)
    if hasattr(jaxneuron, "Evaluator"):
        evaluator = jaxneuron.Evaluator(mlp, each=bool(case.members and not case.shared))
        numbers = np.array(x)
        found["Evaluator"] = lambda: evaluator(numbers)
    return found


def answer(command: dict[str, Any], calls: dict[str, Call]) -> Any:
    """Carries out a command; `calls` are the ways to evaluate the current case."""
    if "way" in command:
        call = calls[command["way"]]
        settle()
        call()
        spent = seconds(call, command["repeats"])
        settle()  # so that this process's threads sleep in the other process's turn
        return spent
    case = Case(**command["case"])
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    calls.clear()
    calls.update(ways(case))
    places = tuple(map(np.array, command["places"]))
    return {way: np.asarray(call())[places].astype(float).tolist() for way, call in calls.items()}


def main() -> None:
    calls: dict[str, Call] = {}
    about = {"jaxneuron": jaxneuron.__version__, "from": jaxneuron.__file__, "jax": jax.__version__}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), calls)), flush=True)


if __name__ == "__main__":
    main()
