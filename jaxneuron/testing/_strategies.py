"""Strategies that draw parameters and inputs, as NumPy arrays, from few shapes: each new one compiles."""

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
    """Numbers that `dtype` holds: of ordinary size, and of the kinds that are switched on.

    Args:
      dtype: "bfloat16", "float16", "float32" or "float64".
      nan, infinity: not-a-number, and both infinities.
      subnormal: below the smallest normal number. XLA flushes most of them to 0.
      huge: up to the largest finite number, where sums overflow.
      tiny: down to the smallest normal number, where products underflow.

    Returns:
      A strategy for Python floats; without any switch 0 and magnitudes from 2^-14 to 8. Shrinks towards 0.

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
    """Neurons: `Affine` with `w (n_in,)`, `b ()` or None.

    Args:
      n_in: a size, or several to draw from.
      dtype: a dtype's name, or several; all that JAX holds at the time of drawing unless given.
      bias: True, False, or both.
      **kinds: which numbers to draw beside those of ordinary size: `nan`, `infinity`, `subnormal`, `huge`,
        `tiny`, each True or False.

    Raises:
      ValueError, where the strategy is defined: no sizes or a negative one, an unknown dtype.

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
    """Layers: `Affine` with `w (n_in, n_out)`, `b (n_out,)` or None.

    Args:
      n_in: inputs, a size, or several to draw from.
      n_out: units, a size, or several to draw from.
      dtype: a dtype's name, or several; all that JAX holds at the time of drawing unless given.
      bias: True, False, or both.
      **kinds: which numbers to draw beside those of ordinary size: `nan`, `infinity`, `subnormal`, `huge`,
        `tiny`, each True or False.

    Raises:
      ValueError, where the strategy is defined: no sizes or a negative one, an unknown dtype.

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
    """Networks: `MLP`s of a few architectures.

    Args:
      sizes: the architectures to draw from, each the units of every layer, inputs first: `[(2, 3, 1)]`.
      activations: to draw from, one for all hidden layers of a network.
      final_activations: to draw the last layer's from; `activations` unless given.
      bias: True, False, or both; layer by layer.
      dtypes: a dtype's name, or several; all that JAX holds at the time of drawing unless given.
      **kinds: which numbers to draw beside those of ordinary size: `nan`, `infinity`, `subnormal`, `huge`,
        `tiny`, each True or False.

    Returns:
      A strategy that shrinks towards the first architecture, the first activations and zeros. A property
      of one jitted function compiles at most once for each example, and at most as often as there are
      combinations of architecture, biases, two activations, dtype and batch; held by
      tests/testing/test_strategies.py.

    Raises:
      ValueError, where the strategy is defined: no architectures, fewer than two sizes, a negative one,
      an unknown activation or dtype.

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
    """Inputs `(*batch, n_in)` for a neuron, a layer, a network or an ensemble, in its dtype.

    Args:
      for_: `Affine`, or `MLP`, which may be stacked.
      batch: the leading axes to draw from, `()` for a single input.
      **kinds: which numbers to draw beside those of ordinary size: `nan`, `infinity`, `subnormal`, `huge`,
        `tiny`, each True or False.

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
    n_in = w.shape[-2] if isinstance(for_, MLP) else w.shape[0]  # an ensemble's w has an axis of members
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
    """Pairs `(params, x)` that fit: what `mlp_forward` takes.

    Args:
      params: a strategy of this module, `mlps()` unless given.
      batch: the leading axes of the inputs to draw from, `()` for a single input.
      **kinds: which numbers the inputs hold beside those of ordinary size: `nan`, `infinity`, `subnormal`,
        `huge`, `tiny`, each True or False.

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
    """Stacked networks of one architecture, for `jax.vmap(mlp_forward, in_axes=(0, None))`.

    Args:
      members: how many, one number or several to draw from.
      **network: the arguments of `mlps`: `sizes`, `activations`, `final_activations`, `bias`, `dtypes`, and
        which kinds of numbers to draw.

    Returns:
      A strategy for `MLP`s whose arrays have a leading axis of members.

    Example:
      >>> from hypothesis import find
      >>> find(ensembles(3, sizes=[(2, 1)], dtypes="float32", bias=False), lambda mlp: True)
      MLP(float32[3,2,1] identity)
    """
    counts = as_sizes("members", members)
    if 0 in counts:
        raise BadValue("members must be at least 1, got 0; pass (1, 3)")

    def several(first: MLP, count: int) -> SearchStrategy[MLP]:
        # Networks of the first one's structure and shapes: its leaves, drawn again.
        kinds = {k: v for k, v in network.items() if k in KINDS}
        again = st.tuples(*(_arrays(leaf.shape, leaf.dtype.name, kinds) for leaf in jax.tree.leaves(first)))
        stacked = st.lists(again, min_size=count, max_size=count).map(
            lambda ms: [np.stack(m) for m in zip(*ms, strict=True)]
        )
        return stacked.map(lambda leaves: jax.tree.unflatten(jax.tree.structure(first), leaves))

    networks = mlps.__wrapped__(**network)  # type: ignore[attr-defined] # a refusal names ensembles
    return st.tuples(networks, st.sampled_from(counts)).flatmap(lambda drawn: several(*drawn))


def profile(**changes: Any) -> settings:
    """Hypothesis settings that suit JAX; nothing is registered or loaded.

    No deadline and no complaint about slow drawing, which would time compilation; 50 examples, because
    each new shape compiles; the same examples every time where the environment says CI, so that a red run
    means the change and not the seed.

    Args:
      **changes: settings of your own.

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
    """The dtypes to draw from, checked now; by default those that JAX holds when drawing."""
    check_kinds(kinds)
    if dtypes is not None:
        return st.sampled_from(as_dtypes(argument, dtypes))
    # Filtered when drawing: jax_enable_x64 may have changed since.
    return st.sampled_from(("float32", "float64", "bfloat16", "float16")).filter(_is_held)


def _is_held(dtype: str) -> bool:
    return jax.dtypes.canonicalize_dtype(dtype) == jnp.dtype(dtype)
