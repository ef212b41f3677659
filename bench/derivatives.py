"""Time derivatives beside their peers: `python -m bench.derivatives [--seconds S] [WORD ...]`.

A line for each case: our median time, the fastest peer's and its name, how many times as fast we are within
a round, with quartiles. Everyone's first rows are compared with the truth before they are timed.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxneuron
from bench.cases import QLKNN, Case, network
from bench.contenders import layers_in_turn
from bench.peers import tensor, torch_module
from bench.timing import measure, ratio
from jaxneuron import MLP
from jaxneuron._math import jacobians

Call = Callable[[], Any]
JACOBIANS = (
    Case(QLKNN, "tanh", "identity", 1, "a Newton step inside a simulation"),
    Case(QLKNN, "tanh", "identity", 25, "the same on a radial profile"),
    Case(QLKNN, "tanh", "identity", 4096, "sensitivities over a parameter scan"),
    Case(QLKNN, "tanh", "identity", 2**14, "the same for more"),
    Case((64, 64, 64, 1), "tanh", "identity", 1024, "a gradient: forces of a potential"),
)
LAPLACIANS = (Case((3, 64, 64, 64, 64, 1), "tanh", "identity", 2**14, "a wave function's kinetic energy"),)
CHECKED = 4  # rows


def ours(case: Case, mlp: MLP, x: Array) -> dict[str, Call]:
    """Value and Jacobian, or value and Laplacian, with the weights as arguments or inside, or from NumPy."""

    def of(mlp: MLP, x: Array) -> Any:
        return jaxneuron.mlp_laplacian(mlp, x)[::2] if case in LAPLACIANS else both(mlp, x)

    both = jaxneuron.mlp_value_and_jacobian
    as_arguments, inside = jax.jit(of), jax.jit(functools.partial(of, mlp))
    found: dict[str, Call] = {
        "arguments": lambda: jax.block_until_ready(as_arguments(mlp, x)),
        "inside": lambda: jax.block_until_ready(inside(x)),
    }
    if case in JACOBIANS:
        evaluator, rows = jaxneuron.Evaluator(mlp), np.asarray(x)
        found["Evaluator"] = lambda: evaluator.value_and_jacobian(rows)
    return found


def textbooks(case: Case, mlp: MLP, x: Array) -> dict[str, Call]:
    """JAX's transforms of the loop for one row, under vmap and jit."""
    layers = [tuple(layer) for layer in mlp.layers]
    forward = layers_in_turn(case)

    def calls(of_row: Callable[[Any, Array], Any]) -> Call:
        jitted = jax.jit(jax.vmap(of_row, (None, 0)))
        return lambda: jax.block_until_ready(jitted(layers, x))

    def along(layers: Any, x: Array, v: Array) -> Array:
        return jax.jvp(lambda x: jax.jvp(lambda x: forward(layers, x), (x,), (v,))[1], (x,), (v,))[1]

    if case in LAPLACIANS:
        eye = jnp.eye(case.sizes[0], dtype=case.dtype)
        found = {
            "trace(hessian)": calls(
                lambda w, x: (forward(w, x), jnp.trace(jax.hessian(forward, 1)(w, x), axis1=-2, axis2=-1))
            ),
            "jvp of jvp": calls(
                lambda w, x: (forward(w, x), jnp.sum(jax.vmap(lambda v: along(w, x, v))(eye), axis=0))
            ),
        }
        try:
            import folx
        except ImportError as error:
            print(f"  left out: {error}")
        else:

            def of_row(w: Any, x: Array) -> Any:
                y = folx.forward_laplacian(functools.partial(forward, w))(x)
                return y.x, y.laplacian

            found["folx"] = calls(of_row)
        return found
    return {
        "jit(vmap(jacfwd))": calls(lambda w, x: (forward(w, x), jax.jacfwd(forward, 1)(w, x))),
        "jit(vmap(jacrev))": calls(lambda w, x: (forward(w, x), jax.jacrev(forward, 1)(w, x))),
    }


def torch_func(case: Case, mlp: MLP, x: Array) -> dict[str, Call]:
    """torch.func's jacrev, with the value as its auxiliary output, under vmap."""
    if case.rows > 4096:
        return {}
    try:
        import torch
    except ImportError as error:
        print(f"  left out: {error}")
        return {}
    _, rows = torch_module(case, mlp), tensor(x)  # which sets the threads
    weights = [(tensor(w.T), tensor(b)) for w, b in mlp.layers]

    def one(row: Any) -> Any:
        for i, (w, b) in enumerate(weights):
            row = torch.nn.functional.linear(row, w, b)
            row = torch.tanh(row) if i < len(weights) - 1 else row
        return row, row

    value_last = torch.func.vmap(torch.func.jacrev(one, has_aux=True))
    return {"torch.func": lambda: value_last(rows)[::-1]} if case in JACOBIANS else {}


def check(who: str, case: Case, mlp: MLP, x: Array, found: Any, widened: float) -> None:
    """The derivative of the first rows, within its bound, widened by a factor."""
    truth = jacobians.laplacian if case in LAPLACIANS else jacobians.jacobian
    layers = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in mlp.layers]
    exact, error = truth(layers, list(mlp.activations), np.asarray(x[:CHECKED], np.float64), case.dtype)
    off = np.abs(np.asarray(found[1])[:CHECKED] - exact) / (widened * error)
    assert (off <= 1).all(), f"{who} is {off.max():.3g} of what its derivatives may be off"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="cases with one of these in their names")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each case")
    arguments = parser.parse_args()
    for case in (*JACOBIANS, *LAPLACIANS):
        what = "Laplacian" if case in LAPLACIANS else "Jacobian"
        name = f"{what} of {case.name}"
        if arguments.words and not any(word in name for word in arguments.words):
            continue
        mlp, x = network(case)
        own, peers = ours(case, mlp, x), textbooks(case, mlp, x) | torch_func(case, mlp, x)
        for who, call in (own | peers).items():
            check(who, case, mlp, x, call(), widened=1 if who in own else 100)
        times = measure(own | peers, set(own), arguments.seconds)
        first, best = (min(calls, key=lambda who: times[who].median) for calls in (own, peers))
        within = ratio(times[best], times[first])
        print(
            f"{name:<42}{times[first].median * 1e6:>10.1f} us, {first}; "
            f"{best} {times[best].median * 1e6:.1f}; "
            f"x {within.median:.2f} ({within.low:.2f}-{within.high:.2f}); "
            + ", ".join(f"{who} {each.median * 1e6:.1f}" for who, each in times.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
