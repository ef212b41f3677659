"""Strategies that draw parameters and inputs as NumPy arrays of few shapes: JAX compiles for each shape."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.strategies import DrawFn, SearchStrategy

from jaxneuron._errors import BadType, BadValue, public
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine, as_affine
from jaxneuron.testing._arguments import (
    KINDS,
    Sizes,
    as_activations,
    as_architectures,
    as_batches,
    as_biases,
    as_dtypes,
    as_sizes,
    check_kinds,
)

SIZES = (1, 2, 7)
NETWORKS = ((1, 1), (2, 1), (2, 3, 1), (2, 2, 2), (7, 2), (1, 7, 2, 2))  # uneven ones and square ones
ACTIVATIONS = ("identity", "sigmoid", "relu", "tanh")
BATCHES: tuple[tuple[int, ...], ...] = ((), (1,), (7,), (0,), (2, 1))
BIASES = (True, False)


@public
def numbers(
    dtype: str = "float32",
    *,
    nan: bool = False,
    infinity: bool = False,
    subnormal: bool = False,
    huge: bool = False,
    tiny: bool = False,
) -> SearchStrategy[float]:
    """A strategy for numbers of a dtype: those of ordinary size, and those of the kinds that you switch on.

    Args:
      dtype: "bfloat16", "float16", "float32" or "float64".
      nan: draw NaN too.
      infinity: draw both infinities too.
      subnormal: draw numbers below the smallest normal number too. XLA flushes most of them to 0.
      huge: draw numbers from 8 up to the largest finite one too. Their sums may overflow.
      tiny: draw numbers from 2^-14 down to the smallest normal one too. Their products may underflow.

    Returns:
      A strategy for Python floats, which shrinks towards 0. Numbers of ordinary size are 0 and magnitudes
      from 2^-14 to 8.

    Raises:
      ValueError: if `dtype` is not one of these.

    Example:
      >>> from hypothesis import find
      >>> find(numbers(), lambda v: v > 2.5)
      3.0
    """
    as_dtypes("dtype", (dtype,))
    info = jnp.finfo(dtype)
    smallest, normal, largest = (float(v) for v in (info.smallest_subnormal, info.smallest_normal, info.max))
    kinds: list[SearchStrategy[float]] = [st.floats(-8, 8, width=16, allow_subnormal=False)]
    for on, low, high in (
        (huge, 8.0, largest),
        (tiny, normal, 2.0**-14),
        (subnormal, smallest, normal - smallest),
    ):
        if on:
            kinds.append(st.floats(low, high).flatmap(lambda v: st.sampled_from([v, -v])))
    if infinity:
        kinds.append(st.sampled_from([float("inf"), float("-inf")]))
    if nan:
        kinds.append(st.just(float("nan")))
    return st.one_of(kinds)


@public
def neurons(
    n_in: Sizes = SIZES,
    *,
    dtype: str | Sequence[str] | None = None,
    bias: bool | Sequence[bool] = BIASES,
    **kinds: bool,
) -> SearchStrategy[Affine]:
    """A strategy for neurons: `Affine` with `w (n_in,)`, `b ()` or None.

    Args:
      n_in: the number of inputs, or several to draw from.
      dtype: the name of a dtype, or several to draw from; by default all that JAX has at the time of drawing.
      bias: whether there is a bias: True, False, or both to draw from.
      **kinds: `nan`, `infinity`, `subnormal`, `huge`, `tiny`, each True or False: the kinds of numbers to
        draw in addition to those of ordinary size. `numbers` describes them.

    Raises:
      ValueError: if there is no size, a size is negative, or a dtype is unknown; raised when the strategy is
        defined.

    Example:
      >>> from hypothesis import find
      >>> find(neurons(2, dtype="float32"), lambda neuron: neuron.b is not None)
      Affine(w=array([0., 0.], dtype=float32), b=array(0., dtype=float32))
    """
    return _affines(as_sizes("n_in", n_in), None, dtype, bias, kinds)


@public
def layers(
    n_in: Sizes = SIZES,
    n_out: Sizes = SIZES,
    *,
    dtype: str | Sequence[str] | None = None,
    bias: bool | Sequence[bool] = BIASES,
    **kinds: bool,
) -> SearchStrategy[Affine]:
    """A strategy for layers: `Affine` with `w (n_in, n_out)`, `b (n_out,)` or None.

    Args:
      n_in: the number of inputs, or several to draw from.
      n_out: the number of units, or several to draw from.
      dtype: the name of a dtype, or several to draw from; by default all that JAX has at the time of drawing.
      bias: whether there is a bias: True, False, or both to draw from.
      **kinds: `nan`, `infinity`, `subnormal`, `huge`, `tiny`, each True or False: the kinds of numbers to
        draw in addition to those of ordinary size. `numbers` describes them.

    Raises:
      ValueError: if there is no size, a size is negative, or a dtype is unknown; raised when the strategy is
        defined.

    Example:
      >>> from hypothesis import find
      >>> find(layers(1, 2, dtype="float16", bias=False), lambda layer: True)
      Affine(w=array([[0., 0.]], dtype=float16), b=None)
    """
    ins, outs = as_sizes("n_in", n_in), as_sizes("n_out", n_out)
    return _affines(ins, outs, dtype, bias, kinds)


@public
def mlps(
    sizes: Sequence[Sequence[int]] = NETWORKS,
    *,
    activations: Sequence[Activation] = ACTIVATIONS,
    final_activations: Sequence[Activation] | None = None,
    bias: bool | Sequence[bool] = BIASES,
    dtypes: str | Sequence[str] | None = None,
    **kinds: bool,
) -> SearchStrategy[MLP]:
    """A strategy for networks: `MLP`s of a few architectures.

    Args:
      sizes: the architectures to draw from, each the number of units of every layer, inputs first:
        `[(2, 3, 1)]`.
      activations: the activations to draw from, one for all hidden layers of a network.
      final_activations: the activations to draw from for the last layer; `activations` by default.
      bias: whether a layer has a bias: True, False, or both to draw from for each layer.
      dtypes: the name of a dtype, or several to draw from; by default all that JAX has at the time of
        drawing.
      **kinds: `nan`, `infinity`, `subnormal`, `huge`, `tiny`, each True or False: the kinds of numbers to
        draw in addition to those of ordinary size. `numbers` describes them.

    Returns:
      A strategy that shrinks towards the first architecture, the first activations and zeros. A test of one
      jitted function compiles at most once for each example, and at most once for each combination of
      architecture, biases, the two activations, dtype and batch. Tested by tests/testing/test_strategies.py.

    Raises:
      ValueError: if `sizes` has no architecture, an architecture has fewer than two sizes or a negative size,
        or an activation or a dtype is unknown; raised when the strategy is defined.

    Example:
      >>> from hypothesis import find
      >>> find(mlps(dtypes="float32"), lambda mlp: len(mlp.layers) > 1)
      MLP(float32[2,3]+float32[3] identity, float32[3,1]+float32[1] identity)
    """
    shapes = as_architectures(sizes)
    hidden = as_activations("activations", activations)
    final = as_activations("final_activations", hidden if final_activations is None else final_activations)
    held, biases = _held("dtypes", dtypes, kinds), as_biases(bias)

    @st.composite
    def draw_mlp(draw: DrawFn) -> MLP:
        dtype, shape = draw(held), draw(st.sampled_from(shapes))
        drawn = [
            draw(_affine(m, (n,), dtype, draw(st.sampled_from(biases)), kinds))
            for m, n in itertools.pairwise(shape)
        ]
        return MLP(drawn, draw(st.sampled_from(hidden)), draw(st.sampled_from(final)))

    return draw_mlp()


@public
def inputs(
    for_: Affine | MLP, *, batch: Sequence[tuple[int, ...]] = BATCHES, **kinds: bool
) -> SearchStrategy[np.ndarray]:
    """A strategy for inputs `(*batch, n_in)` of a neuron, a layer, a network or a stack, in the dtype of w.

    Args:
      for_: an `Affine`, an `MLP`, or a stack of networks.
      batch: the leading axes to draw from, `()` for a single input.
      **kinds: `nan`, `infinity`, `subnormal`, `huge`, `tiny`, each True or False: the kinds of numbers to
        draw in addition to those of ordinary size. `numbers` describes them.

    Raises:
      ValueError: if `batch` has no shape or a negative one.
      TypeError: if `for_` is neither an `Affine` nor an `MLP`.

    Example:
      >>> from hypothesis import find
      >>> find(inputs(Affine(np.ones(3, np.float32)), batch=[(2,)]), lambda x: x.any()).shape
      (2, 3)
    """
    if not isinstance(for_, (Affine, MLP)):
        raise BadType(
            f"for_ must be an Affine or an MLP, got {type(for_).__name__}; "
            f"pass what a strategy drew, or params_and_inputs(strategy)"
        )
    w = for_.layers[0].w if isinstance(for_, MLP) else as_affine(for_, "for_").w
    n_in = w.shape[-2] if isinstance(for_, MLP) else w.shape[0]  # the w of a stack has an axis of members
    (dtype,) = as_dtypes("the dtype of for_", w.dtype.name)
    shapes = as_batches(batch)
    check_kinds(kinds)
    return st.sampled_from(shapes).flatmap(lambda axes: _arrays((*axes, n_in), dtype, kinds))


@public
def params_and_inputs(
    params: SearchStrategy[Any] | None = None,
    *,
    batch: Sequence[tuple[int, ...]] = BATCHES,
    **kinds: bool,
) -> SearchStrategy[tuple[Any, np.ndarray]]:
    """A strategy for pairs `(params, x)` that fit, such as the arguments of `mlp_forward`.

    Args:
      params: a strategy of this module; `mlps()` by default.
      batch: the leading axes of the inputs to draw from, `()` for a single input.
      **kinds: `nan`, `infinity`, `subnormal`, `huge`, `tiny`, each True or False: the kinds of numbers to
        draw for the inputs in addition to those of ordinary size, see `numbers`.

    Raises:
      ValueError: if `batch` has no shape or a negative one.
      TypeError: if `params` is not a strategy.

    Example:
      >>> from hypothesis import find
      >>> params, x = find(params_and_inputs(neurons(2), batch=[(7,)]), lambda pair: True)
      >>> params.w.shape, x.shape
      ((2,), (7, 2))
    """
    drawn = mlps() if params is None else params
    if not isinstance(drawn, SearchStrategy):
        raise BadType(
            f"params must be a strategy, got {type(drawn).__name__}; "
            f"pass mlps(), or inputs(params) for parameters that you have"
        )
    shapes = as_batches(batch)
    check_kinds(kinds)
    return drawn.flatmap(lambda p: st.tuples(st.just(p), inputs(p, batch=shapes, **kinds)))


@public
def ensembles(members: Sizes = (1, 3), **network: Any) -> SearchStrategy[MLP]:
    """A strategy for stacks of networks, for `jax.vmap(mlp_forward, in_axes=(0, None))`.

    Args:
      members: the number of networks in a stack, or several to draw from.
      **network: the arguments of `mlps`: `sizes`, `activations`, `final_activations`, `bias`, `dtypes`, and
        the kinds of numbers to draw.

    Returns:
      A strategy for `MLP`s whose arrays have a leading axis of members.

    Raises:
      ValueError: if a number of members is below 1, or `mlps` refuses an argument.

    Example:
      >>> from hypothesis import find
      >>> find(ensembles(3, sizes=[(2, 1)], dtypes="float32", bias=False), lambda mlp: True)
      MLP(float32[3,2,1] identity)
    """
    counts = as_sizes("members", members)
    if 0 in counts:
        raise BadValue("members must be at least 1, got 0; pass (1, 3)")

    def several(first: MLP, count: int) -> SearchStrategy[MLP]:
        # All members have the structure and shapes of the first one; their numbers are drawn anew.
        kinds = {k: v for k, v in network.items() if k in KINDS}
        again = st.tuples(*(_arrays(leaf.shape, leaf.dtype.name, kinds) for leaf in jax.tree.leaves(first)))
        stacked = st.lists(again, min_size=count, max_size=count).map(
            lambda ms: [np.stack(m) for m in zip(*ms, strict=True)]
        )
        return stacked.map(lambda leaves: jax.tree.unflatten(jax.tree.structure(first), leaves))

    networks = mlps.__wrapped__(**network)  # type: ignore[attr-defined] # so that an error names ensembles
    return st.tuples(networks, st.sampled_from(counts)).flatmap(lambda drawn: several(*drawn))


def profile(**changes: Any) -> settings:
    """Hypothesis settings that suit JAX. They are returned, but neither registered nor loaded.

    They switch off the deadline and the health check for slow drawing, because both would measure how long
    JAX compiles. They ask for 50 examples, because JAX compiles a program for each new shape. If the
    environment variable CI is set, the examples are the same in every run, so that a failure is caused by a
    change of the code and not by the seed.

    Args:
      **changes: arguments of `hypothesis.settings`, which replace these.

    Returns:
      A `hypothesis.settings`.

    Example:
      >>> from hypothesis import settings
      >>> settings.register_profile("jax", profile(max_examples=20))
      >>> settings.get_profile("jax").deadline is None
      True
    """
    return settings(
        **{
            "deadline": None,
            "max_examples": 50,
            "derandomize": "CI" in os.environ,
            "suppress_health_check": [HealthCheck.too_slow],
            **changes,
        }
    )


def _affines(
    ins: tuple[int, ...],
    outs: tuple[int, ...] | None,
    dtype: str | Sequence[str] | None,
    bias: bool | Sequence[bool],
    kinds: dict[str, bool],
) -> SearchStrategy[Affine]:
    held, biases = _held("dtype", dtype, kinds), as_biases(bias)

    @st.composite
    def draw_affine(draw: DrawFn) -> Affine:
        out = () if outs is None else (draw(st.sampled_from(outs)),)
        return draw(
            _affine(draw(st.sampled_from(ins)), out, draw(held), draw(st.sampled_from(biases)), kinds)
        )

    return draw_affine()


def _affine(
    n_in: int, out: tuple[int, ...], dtype: str, bias: bool, kinds: dict[str, bool]
) -> SearchStrategy[Affine]:
    b = _arrays(out, dtype, kinds) if bias else st.none()
    return st.builds(Affine, _arrays((n_in, *out), dtype, kinds), b)


def _arrays(shape: tuple[int, ...], dtype: str, kinds: dict[str, bool]) -> SearchStrategy[np.ndarray]:
    drawn = hnp.arrays(np.float64, shape, elements=numbers(dtype, **kinds))
    return drawn.map(lambda a: np.asarray(a, jnp.dtype(dtype)))


def _held(argument: str, dtypes: str | Sequence[str] | None, kinds: dict[str, bool]) -> SearchStrategy[str]:
    """A strategy for the dtypes, which are checked now; by default those that JAX has when drawing."""
    check_kinds(kinds)
    if dtypes is not None:
        return st.sampled_from(as_dtypes(argument, dtypes))
    # Filtered when drawing, because jax_enable_x64 may have changed by then.
    return st.sampled_from(("float32", "float64", "bfloat16", "float16")).filter(_is_held)


def _is_held(dtype: str) -> bool:
    return jax.dtypes.canonicalize_dtype(dtype) == jnp.dtype(dtype)
