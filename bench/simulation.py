"""Time a transport simulation with its surrogate evaluated by Flax and by jaxneuron.

    python -m bench.simulation [--rounds N] [EXAMPLE ...]

The command runs examples of TORAX, which must be installed, in both ways, which take turns. The code that
changes the evaluation is taken from docs/guides/derivatives.md. Each way compiles once, which is not counted.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import logging
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxneuron

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "derivatives.md"
EXAMPLES = ("iterhybrid_predictor_corrector", "iterhybrid_rampup")


class Simulated(NamedTuple):
    """The profiles that a simulation's last run computed, and the seconds of each run."""

    profiles: dict[str, np.ndarray]
    seconds: list[float]


class Both(NamedTuple):
    flax: Simulated
    ours: Simulated
    evaluated_by: list[str]  # the text of `explain` for each place where the program evaluates the network

    def differences(self) -> dict[str, float]:
        """The largest difference of each profile, relative to the profile's largest value."""
        return {
            name: float(np.max(np.abs(self.ours.profiles[name] - values)) / (np.max(np.abs(values)) or 1.0))
            for name, values in self.flax.profiles.items()
        }


def change() -> dict[str, Any]:
    """Runs the code of the guide, and returns the names that it defines."""
    (lines,) = re.findall(
        r"^```python\n(.*?^networks\.MLP\.apply = .*?)^```$", GUIDE.read_text(), re.M | re.S
    )
    names: dict[str, Any] = {}
    exec(lines, names)
    return names


def simulate(example: str, rounds: int) -> Both:
    """Runs an example of TORAX in both ways, which take turns."""
    import torax
    from fusion_surrogates.common import networks
    from fusion_surrogates.qlknn.models import registry

    config = importlib.import_module(f"torax.examples.{example}").CONFIG
    # TORAX keeps a compiled program for each path of its network. The default's own path leads to the same
    # network, so that both programs are kept in one process.
    paths = {"flax": "", "ours": str(registry.MODELS[registry.DEFAULT_MODEL_NAME])}
    found: list[str] = []

    def run(who: str) -> tuple[float, dict[str, np.ndarray]]:
        own = copy.deepcopy(config)
        own["transport"]["model_path"] = paths[who]
        prepared = torax.ToraxConfig.from_dict(own)
        start = time.perf_counter()
        tree, _ = torax.run_simulation(prepared, progress_bar=False)
        took = time.perf_counter() - start
        return took, {name: np.asarray(values) for name, values in tree["profiles"].data_vars.items()}

    flax = networks.MLP.apply
    run("flax")
    try:
        names = change()
        forward = names["mlp_forward"]

        def told(mlp: jaxneuron.MLP, x: jax.Array) -> jax.Array:
            found.append(jaxneuron.explain(mlp, jax.ShapeDtypeStruct(x.shape, x.dtype)))
            y: jax.Array = forward(mlp, x)
            return y

        names["mlp_forward"] = told
        run("ours")
    finally:
        networks.MLP.apply = flax
    programs, seconds = len(found), {who: [] for who in paths}
    profiles: dict[str, dict[str, np.ndarray]] = {}
    for _ in range(rounds):
        for who in paths:
            took, profiles[who] = run(who)
            seconds[who].append(took)
    assert len(found) == programs, "a program was compiled again"
    return Both(*(Simulated(profiles[who], seconds[who]) for who in paths), found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("examples", nargs="*", default=EXAMPLES, help="modules of torax.examples")
    parser.add_argument("--rounds", type=int, default=9, help="how often each way runs")
    arguments = parser.parse_args()
    logging.disable()
    for example in arguments.examples:
        both = simulate(example, arguments.rounds)
        ratios = [flax / ours for flax, ours in zip(both.flax.seconds, both.ours.seconds, strict=True)]
        print(
            f"{example:<32} Flax {np.median(both.flax.seconds):.3f} s (least {min(both.flax.seconds):.3f}), "
            f"jaxneuron {np.median(both.ours.seconds):.3f} s (least {min(both.ours.seconds):.3f}); "
            f"x {np.median(ratios):.2f}; largest difference {max(both.differences().values()):.1e}; "
            f"{', '.join(dict.fromkeys(both.evaluated_by))}",
            flush=True,
        )


if __name__ == "__main__":
    main()
