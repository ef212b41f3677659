"""Laws of results: they are close to the exact ones, and the same row by row, under vmap and under jit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron._arrays import result_dtype
from jaxneuron._errors import BadType, BadValue, public
from jaxneuron._math import jacobians, oracle
from jaxneuron._math.activations import ACTIVATIONS
from jaxneuron._names import Activation, Parametric
from jaxneuron._params import MLP, Affine, check_mlp

Function = Callable[..., Any]

# The name of the event that JAX records when it has compiled a program. The way to listen (jax.monitoring) is
# public, but the name is not. If it changes, nothing is counted any more, and a test in
# tests/testing/test_laws.py fails.
COMPILATION = "/jax/core/compile/backend_compile_duration"


@public
def assert_within_error_bound(
    params: Affine | MLP, x: Any, y: Any, *, activation: Activation = "identity"
) -> None:
    """Asserts that `y` is the output of `params` for `x`, within the bound of its rounding errors.

        |z - exact| <= (n_in + 2) (u (|x| @ |w| + |b|) + s), carried through activations and layers

    u and s are explained in the docstring of `jaxneuron.affine`, which also has the bound for bfloat16. The
    exact output is computed with exact integers and mpmath, not with JAX. If a sum, or an output of an
    earlier layer, may overflow, any output passes.

    Args:
      params: an `MLP`; or an `Affine`, which is followed by `activation`.
      x: the inputs, `(..., n_in)`, finite.
      y: the output to check; its dtype decides which rounding errors it may have.
      activation: the activation of an `Affine`, a name or a value such as `LeakyReLU(0.2)`.

    Raises:
      AssertionError: if `y` is not within the bound; the message names the row, the unit and the bound there.
      ValueError: if an activation is not jaxneuron's, or a number is not finite.

    Example:
      >>> mlp = jaxneuron.gates.XOR
      >>> assert_within_error_bound(mlp, [0, 1], jaxneuron.mlp_forward(mlp, [0, 1]))
    """
    if not isinstance(params, (Affine, MLP)):
        raise BadType(
            f"params must be an Affine or an MLP, got {type(params).__name__}; "
            f"pass MLP(layers) for a list of layers"
        )
    affines = [params] if isinstance(params, Affine) else list(params.layers)
    names: list[Any] = [activation] if isinstance(params, Affine) else list(params.activations)
    x, found = _checked(affines, names, x), _floats(y, "y")
    exact, error = oracle.mlp(affines, names, x, found.dtype.name)
    _assert_within(found, exact, error, oracle.LARGEST[found.dtype.name])


@public
def assert_jacobian_within_bound(mlp: MLP, x: Any, jacobian: Any) -> None:
    """Asserts that `jacobian` is the Jacobian of `mlp` at `x`, within the bound of its rounding errors.

    The bound is that of running error analysis: every product, sum and slope adds u times its absolute value,
    and s for underflow. The slope of an activation is taken at a z that has an error itself: its largest
    change within that error is added, and, if a kink is within that error, the whole jump of the slope. u and
    s are explained in the docstring of `jaxneuron.affine`. The bound holds in both orders in which the
    Jacobian can be multiplied together, from the first layer to the last and from the last to the first. The
    exact Jacobian is computed with exact integers, mpmath and float64, not with JAX. If a number in between
    may overflow, any Jacobian passes.

    Args:
      mlp: an `MLP` with jaxneuron's activations.
      x: the inputs, `(..., n_in)`, finite.
      jacobian: the Jacobian to check, `(..., n_out, n_in)`. Its dtype decides which rounding errors it may
        have. But if the network and the inputs are bfloat16 or float16, it may have those of this dtype.

    Raises:
      AssertionError: if `jacobian` is not within the bound; the message names the row, the output, the input
        and the bound there.
      ValueError: if an activation is not jaxneuron's, or a number is not finite.

    Source: Wilkinson (1963), "Rounding errors in algebraic processes".

    Example:
      >>> mlp = jaxneuron.gates.XOR
      >>> y, jacobian = jaxneuron.mlp_value_and_jacobian(mlp, [0.0, 1.0])
      >>> assert_jacobian_within_bound(mlp, [0.0, 1.0], jacobian)
    """
    _assert_derivative(jacobians.jacobian, mlp, x, jacobian, "jacobian")


@public
def assert_laplacian_within_bound(mlp: MLP, x: Any, laplacian: Any) -> None:
    """Asserts that `laplacian` is the Laplacian of `mlp` at `x`, within the bound of its rounding errors.

    The bound is that of `assert_jacobian_within_bound`, carried through the second derivatives too, from the
    first layer to the last. If a number in between may overflow, any Laplacian passes.

    Args:
      mlp: an `MLP` with jaxneuron's activations.
      x: the inputs, `(..., n_in)`, finite.
      laplacian: the Laplacian to check, `(..., n_out)`: for each output, the sum of its second derivatives
        with respect to each input. Its dtype decides which rounding errors it may have.

    Raises:
      AssertionError: if `laplacian` is not within the bound; the message names the row, the output and the
        bound there.
      ValueError: if an activation is not jaxneuron's, or a number is not finite.

    Source: Wilkinson (1963), "Rounding errors in algebraic processes".

    Example:
      >>> mlp = jaxneuron.gates.XOR
      >>> *_, laplacian = jaxneuron.mlp_laplacian(mlp, [0.0, 1.0])
      >>> assert_laplacian_within_bound(mlp, [0.0, 1.0], laplacian)
    """
    _assert_derivative(jacobians.laplacian, mlp, x, laplacian, "laplacian")


@public
def assert_rows_independent(f: Function, x: Any) -> None:
    """Asserts that a change of one row of `x` changes no bit of any other row of `f(x)`.

    Args:
      f: a function of rows, from `(rows, n_in)` to `(rows, ...)`.
      x: the rows, `(rows, n_in)`. The function changes one row after the other in a copy.

    Raises:
      AssertionError: if another row changes; the message names both rows.

    Example:
      >>> assert_rows_independent(lambda x: jaxneuron.softmax(x), np.ones((3, 2), np.float32))
    """
    x = np.asarray(x)
    _check_rows(x)
    before = np.asarray(f(x))
    if before.shape[:1] != x.shape[:1]:
        raise AssertionError(f"f must keep the {x.shape[0]} rows, got shape {before.shape} from {x.shape}")
    for row in range(len(x)):
        changed = x.copy()
        changed[row] = np.where(changed[row] == 1, 2, 1)
        after = np.asarray(f(changed))
        for other in np.flatnonzero(np.arange(len(x)) != row):
            if before[other].tobytes() != after[other].tobytes():
                raise AssertionError(
                    f"f must keep its rows apart: changing row {row} of {len(x)} changed row {other} "
                    f"from {before[other]} to {after[other]}"
                )


@public
def assert_vmap_consistent(f: Function, params: Any, x: Any, *, ulps: float = 64) -> None:
    """Asserts that `f(params, x)` for all rows, `jax.vmap(f)` and a loop over rows give the same numbers.

    Args:
      f: a function of parameters and inputs `(..., n_in)`.
      params: the first argument of `f`, the same for every row.
      x: the rows, `(rows, n_in)`.
      ulps: how far the numbers may differ, in ULP of the row's largest number. XLA sums in another order for
        another batch, which changes the last bits. If `f` confuses axes, the first bits change too.

    Raises:
      AssertionError: if numbers differ by more than `ulps`; the message names the row.

    Example:
      >>> mlp = jaxneuron.gates.XOR
      >>> assert_vmap_consistent(jaxneuron.mlp_forward, mlp, np.eye(2, dtype=np.float32))
    """
    x = np.asarray(x)
    _check_rows(x)
    looped = [np.asarray(f(params, row)) for row in x]
    for how, rows in (("f on the batch", f(params, x)), ("jax.vmap(f)", jax.vmap(f, (None, 0))(params, x))):
        rows = np.asarray(rows)
        if len(looped) and rows.shape != (len(looped), *looped[0].shape):
            raise AssertionError(f"{how} must have shape {(len(looped), *looped[0].shape)}, got {rows.shape}")
        for i, (row, alone) in enumerate(zip(rows, looped, strict=True)):
            _assert_close(row, alone, ulps, f"{how} must give row {i} what f gives it alone")


@public
def assert_jit_consistent(f: Function, *arguments: Any, ulps: float = 64) -> None:
    """Asserts that `f` and `jax.jit(f)` give the same numbers.

    Args:
      f: a function of arrays that returns an array or a pytree of arrays.
      *arguments: the arguments of `f`.
      ulps: how far the numbers of an array may differ, in ULP of its largest number. Inside `jit`, XLA fuses
        operations, and makes fused multiply-adds of products and sums, which round differently.

    Raises:
      AssertionError: if numbers differ by more than `ulps`; the message names the output.

    Example:
      >>> assert_jit_consistent(jaxneuron.sigmoid, np.ones(3, np.float32))
    """
    eager, jitted = jax.tree.leaves(f(*arguments)), jax.tree.leaves(jax.jit(f)(*arguments))
    for i, (one, other) in enumerate(zip(jitted, eager, strict=True)):
        _assert_close(
            np.asarray(one), np.asarray(other), ulps, f"jax.jit(f) must give output {i} what f gives"
        )


@contextlib.contextmanager
def count_compilations() -> Iterator[list[float]]:
    """Yields a list that gets an entry for each program that XLA compiles in the block: the seconds it took.

    Example:
      >>> with count_compilations() as compiled:
      ...     _ = jax.jit(lambda x: 3 * x)(np.ones(5, np.float32))
      >>> len(compiled)
      1
    """
    compiled: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILATION:
            compiled.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@public
def assert_compiles_once(f: Function, *calls: Sequence[Any]) -> None:
    """Asserts that `f` compiles nothing after its first call.

    Args:
      f: a function made by `jax.jit`, or a function that calls such functions.
      *calls: at least two tuples of arguments, one for each call.

    Raises:
      AssertionError: if a later call compiles a program; the message names the call.

    Example:
      >>> xor, row = jaxneuron.gates.XOR, np.ones(2, np.float32)
      >>> assert_compiles_once(jaxneuron.mlp_forward, (xor, row), (xor, 2 * row))
    """
    if len(calls) < 2:
        raise BadValue(f"calls must be at least 2 tuples of arguments, got {len(calls)}; pass (x,), (y,)")
    for call in calls:
        if not isinstance(call, (tuple, list)):
            raise BadType(f"calls must be tuples of arguments, got {type(call).__name__}; pass (x,)")
    jax.block_until_ready(f(*calls[0]))
    for i, call in enumerate(calls[1:], 1):
        with count_compilations() as compiled:
            jax.block_until_ready(f(*call))
        if compiled:
            raise AssertionError(
                f"f must compile in its first call alone: call {i} compiled {len(compiled)} programs"
            )


def _checked(affines: Sequence[Affine], names: Sequence[Any], x: Any) -> np.ndarray:
    """`x` in float64, if the oracle can compute the exact result of these layers for it."""
    for name in names:
        if name not in ACTIVATIONS and not isinstance(name, Parametric):
            raise BadValue(
                f"activations must be jaxneuron's, got {name!r}; "
                f"check the layers before it, or compare with your own reference"
            )
    x = _numbers(x)
    if not all(np.isfinite(_numbers(leaf)).all() for leaf in (x, *jax.tree.leaves(affines))):
        raise BadValue("params and x must be finite, got infinity or NaN; draw them without nan and infinity")
    n_in = len(affines[0].w)
    if x.shape[-1:] != (n_in,):
        raise BadValue(f"x must have shape (..., {n_in}), got {x.shape}; put the inputs on the last axis")
    return x


def _check_rows(x: np.ndarray) -> None:
    if x.ndim < 2:
        raise BadValue(f"x must hold rows (rows, n_in), got shape {x.shape}; pass [x] for one row")


def _assert_derivative(
    truth: Callable[..., tuple[np.ndarray, np.ndarray]], mlp: MLP, x: Any, claimed: Any, what: str
) -> None:
    check_mlp(mlp)
    layers = list(mlp.layers)
    at = _checked(layers, mlp.activations, x)
    found = _floats(claimed, what)
    given = result_dtype(jnp.asarray(x), *jax.tree.leaves(layers))
    exact, error = truth(layers, mlp.activations, at, given.name if given.itemsize == 2 else found.dtype.name)
    _assert_within(found, exact, error, oracle.LARGEST[found.dtype.name], what)


def _floats(claimed: Any, what: str) -> np.ndarray:
    found = np.asarray(claimed)
    if found.dtype.name not in oracle.U:
        raise AssertionError(f"{what} must hold floats, got {found.dtype}")
    return found


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.float64)


def _assert_close(found: np.ndarray, expected: np.ndarray, ulps: float, law: str) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise AssertionError(f"{law}: got {found.dtype} {found.shape}, not {expected.dtype} {expected.shape}")
    if not jnp.issubdtype(found.dtype, np.floating):
        ulp, y, z = np.asarray(1.0), found.astype(np.float64), expected.astype(np.float64)
    else:
        y, z = found.astype(np.float64), expected.astype(np.float64)
        finite = np.abs(z[np.isfinite(z)])
        ulp = oracle.ulp(np.max(finite, initial=0.0), found.dtype.name)
    same = (y == z) | (np.isnan(y) & np.isnan(z))
    with np.errstate(all="ignore"):
        off = np.where(same, 0.0, np.abs(y - z) / ulp)
    bad = ~(off <= ulps)
    if bad.any():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)
        place = f"unit {worst[-1]}" if len(worst) == 1 else f"index {tuple(map(int, worst))}"
        raise AssertionError(
            f"{law}: {place if worst else 'the result'} is {y[worst]} instead of {z[worst]}, "
            f"{off[worst]:.3g} ULP off where {ulps} are allowed"
        )


def _assert_within(
    found: np.ndarray, exact: np.ndarray, error: np.ndarray, largest: float, what: str = "y"
) -> None:
    if found.shape != exact.shape:
        raise AssertionError(f"{what} must have shape {exact.shape}, got {found.shape}")
    y = found.astype(np.float64)
    with np.errstate(all="ignore"):
        overflowed = np.isinf(y) & (np.sign(y) == np.sign(exact)) & (np.abs(exact) + error > largest)
        anything = ~np.isfinite(error)  # a number in between may overflow
        excess = np.where(overflowed | anything, 0.0, np.abs(y - exact) / np.maximum(error, 5e-324))
    if (excess <= 1).all():
        return
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(excess), np.inf, excess))), excess.shape)
    units = ("output", "input") if what == "jacobian" else ("unit",)
    row, own = worst[: len(worst) - len(units)], worst[max(0, len(worst) - len(units)) :]
    place = ", ".join(
        [f"row {tuple(map(int, row))}"] * bool(row) + [f"{n} {i}" for n, i in zip(units, own, strict=False)]
    )
    ulp = float(oracle.ulp(exact[worst], found.dtype.name))
    raise AssertionError(
        f"{what} must be within its error bound: "
        f"{place or 'the output'} is {y[worst]}, exactly {exact[worst]}; "
        f"off by {abs(y[worst] - exact[worst]) / ulp:.3g} ULP where {error[worst] / ulp:.3g} are allowed "
        f"({int((~(excess <= 1)).sum())} of {excess.size} outputs are outside)"
    )
