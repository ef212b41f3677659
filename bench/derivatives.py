"""Time derivatives beside their peers: `python -m bench.derivatives [--seconds S] [WORD ...]`.

The command prints a line for each case: jaxneuron's median time, the fastest peer's time and name, how many
times as fast as that peer jaxneuron is within a round, with quartiles, and every contender's median time.
Each contender's first rows are compared with the truth before it is timed.
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
    Case(QLKNN, "tanh", "identity", 2**14, "the same for more rows"),
    Case((64, 64, 64, 1), "tanh", "identity", 1024, "a gradient: forces of a potential"),
)
SOLVES = (Case(QLKNN, "tanh", "identity", 26, "an implicit solver: four profiles at 26 radii"),)
LAPLACIANS = (Case((3, 64, 64, 64, 64, 1), "tanh", "identity", 2**14, "a wave function's kinetic energy"),)
UNKNOWNS = 104  # in each case of SOLVES; every input of every row depends on all of them
CHECKED = 4  # how many rows are compared with the truth


def directions(case: Case) -> Array:
    """The derivatives of a solver's rows with respect to its unknowns, `(unknowns, rows, n_in)`."""
    shape = (UNKNOWNS, case.rows, case.sizes[0])
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), case.dtype)


def by_unknowns(forward: Callable[[Any, Array], Array], jacobian: Callable[..., Any]) -> Callable[..., Any]:
    """`y` and its derivatives with respect to a solver's unknowns, `(rows, n_out, unknowns)`."""

    def both(layers: Any, x: Array, along: Array) -> Any:
        def value(unknowns: Array) -> tuple[Array, Array]:
            y = forward(layers, x + jnp.tensordot(unknowns, along, 1))
            return y, y

        return jacobian(value, has_aux=True)(jnp.zeros(UNKNOWNS, x.dtype))[::-1]

    return both


def ours(case: Case, mlp: MLP, x: Array) -> dict[str, Call]:
    """Value and derivative, with the weights as arguments or inside the program, or from NumPy to NumPy."""
    of: Callable[..., Any] = jaxneuron.mlp_value_and_jacobian
    given = [x]
    if case in SOLVES:
        of, given = by_unknowns(jaxneuron.mlp_forward, jax.jacfwd), [x, directions(case)]
    if case in LAPLACIANS:
        of = lambda mlp, x: jaxneuron.mlp_laplacian(mlp, x)[::2]  # noqa: E731
    as_arguments, inside = jax.jit(of), jax.jit(functools.partial(of, mlp))
    found: dict[str, Call] = {
        "arguments": lambda: jax.block_until_ready(as_arguments(mlp, *given)),
        "inside": lambda: jax.block_until_ready(inside(*given)),
    }
    if case in JACOBIANS:
        evaluator, rows = jaxneuron.Evaluator(mlp), np.asarray(x)
        found["Evaluator"] = lambda: evaluator.value_and_jacobian(rows)
    return found


def textbooks(case: Case, mlp: MLP, x: Array) -> dict[str, Call]:
    """JAX's transforms of the loop over layers, under jit; mapped over rows unless by a solver's unknowns."""
    layers = [tuple(layer) for layer in mlp.layers]
    forward = layers_in_turn(case)

    def call(function: Callable[..., Any], *given: Array) -> Call:
        jitted = jax.jit(function)
        return lambda: jax.block_until_ready(jitted(layers, *given))

    def over_rows(of_row: Callable[[Any, Array], Any]) -> Call:
        return call(jax.vmap(of_row, (None, 0)), x)

    if case in SOLVES:
        along = directions(case)
        return {
            "jit(jacfwd)": call(by_unknowns(forward, jax.jacfwd), x, along),
            "jit(jacrev)": call(by_unknowns(forward, jax.jacrev), x, along),
        }
    if case in JACOBIANS:
        return {
            "jit(vmap(jacfwd))": over_rows(lambda w, x: (forward(w, x), jax.jacfwd(forward, 1)(w, x))),
            "jit(vmap(jacrev))": over_rows(lambda w, x: (forward(w, x), jax.jacrev(forward, 1)(w, x))),
        }

    def curvature(layers: Any, x: Array, v: Array) -> Array:
        return jax.jvp(lambda x: jax.jvp(lambda x: forward(layers, x), (x,), (v,))[1], (x,), (v,))[1]

    def trace(layers: Any, x: Array) -> Any:
        return forward(layers, x), jnp.trace(jax.hessian(forward, 1)(layers, x), axis1=-2, axis2=-1)

    def sum_of_curvatures(layers: Any, x: Array) -> Any:
        eye = jnp.eye(len(x), dtype=x.dtype)
        return forward(layers, x), jnp.sum(jax.vmap(lambda v: curvature(layers, x, v))(eye), axis=0)

    found = {"trace(hessian)": over_rows(trace), "jvp of jvp": over_rows(sum_of_curvatures)}
    try:
        import folx
    except ImportError as error:
        print(f"  left out: {error}")
        return found

    def by_folx(layers: Any, x: Array) -> Any:
        y = folx.forward_laplacian(functools.partial(forward, layers))(x)
        return y.x, y.laplacian

    return found | {"folx": over_rows(by_folx)}


def torch_func(case: Case, mlp: MLP, x: Array) -> dict[str, Call]:
    """torch.func's jacrev under vmap, with the value as its auxiliary output, for up to 4096 rows."""
    if case.rows > 4096 or case not in JACOBIANS:
        return {}
    try:
        import torch
    except ImportError as error:
        print(f"  left out: {error}")
        return {}
    _, rows = torch_module(case, mlp), tensor(x)  # torch_module sets the number of threads
    weights = [(tensor(w.T), tensor(b)) for w, b in mlp.layers]

    def one(row: Any) -> Any:
        for i, (w, b) in enumerate(weights):
            row = torch.nn.functional.linear(row, w, b)
            row = torch.tanh(row) if i < len(weights) - 1 else row
        return row, row

    value_last = torch.func.vmap(torch.func.jacrev(one, has_aux=True))
    return {"torch.func": lambda: value_last(rows)[::-1]}


def check(who: str, case: Case, mlp: MLP, x: Array, found: Any, widened: float) -> None:
    """Compares the derivative of the first rows with the truth, within its bound times `widened`."""
    truth = jacobians.laplacian if case in LAPLACIANS else jacobians.jacobian
    layers = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in mlp.layers]
    exact, error = truth(layers, list(mlp.activations), np.asarray(x[:CHECKED], np.float64), case.dtype)
    if case in SOLVES:  # one more product, with n_in terms
        along = np.asarray(directions(case), np.float64)[:, :CHECKED]
        rounding = case.sizes[0] * np.finfo(case.dtype).eps / 2 * np.abs(exact)
        error = np.einsum("rji,uri->rju", error + rounding, np.abs(along))
        exact = np.einsum("rji,uri->rju", exact, along)
    off = np.abs(np.asarray(found[1])[:CHECKED] - exact) / (widened * error)
    assert (off <= 1).all(), f"{who} is {off.max():.3g} of what its derivatives may be off"


def name_of(case: Case) -> str:
    if case in SOLVES:
        return f"jacfwd of {UNKNOWNS} through {case.name}"
    return f"{'Laplacian' if case in LAPLACIANS else 'Jacobian'} of {case.name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="time only cases with one of these in their names")
    parser.add_argument("--seconds", type=float, default=6.0, help="to spend on each case")
    arguments = parser.parse_args()
    for case in (*JACOBIANS, *SOLVES, *LAPLACIANS):
        name = name_of(case)
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
            f"{name:<44}{times[first].median * 1e6:>10.1f} us, {first}; "
            f"{best} {times[best].median * 1e6:.1f}; "
            f"x {within.median:.2f} ({within.low:.2f}-{within.high:.2f}); "
            + ", ".join(f"{who} {each.median * 1e6:.1f}" for who, each in times.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
