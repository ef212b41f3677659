"""scikit-learn's affine transformers: forwards before a network, and backwards after one.

    scalers         x -> (x - mean) * scale + shift, and clipped if they clip
    selections      x -> x[..., chosen]
    projections     x -> (x - mean) @ components.T, and scaled if they whiten

A Pipeline applies them one after another, a ColumnTransformer and a FeatureUnion in parallel.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxneuron._activations import HardTanh
from jaxneuron._errors import BadValue, inside
from jaxneuron._params import Affine
from jaxneuron.convert._branches import side_by_side
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert._units import Units
from jaxneuron.convert.steps import Step

SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
PROJECTIONS = ("PCA", "IncrementalPCA", "TruncatedSVD", "GaussianRandomProjection", "SparseRandomProjection")
INVERTIBLE = PROJECTIONS[:3]
CENTERS = {"StandardScaler": ("with_mean", "mean_"), "RobustScaler": ("with_centering", "center_")}
AFFINE = f"{', '.join(SCALERS)}, {', '.join(PROJECTIONS)}, a selection of features or a FunctionTransformer"
FUNCTIONS: tuple[tuple[Any, tuple[Step, ...]], ...] = (
    (None, ()),
    (np.exp, ("exp",)),
    (np.expm1, ("exp", Scaling(shift=-1.0))),
)


def forwards(part: Any) -> Iterator[Step]:
    """The steps of `part.transform`."""
    name = class_of(part)
    if does_nothing(part):
        return
    if name == "Pipeline":
        for _, each in part.steps:
            yield from forwards(each)
    elif name == "ColumnTransformer":
        n = fitted(part, "n_features_in_")
        reads = [(key, each, _indices(columns, part, n)) for key, each, columns in part.transformers_]
        yield from _joined([branch for branch in reads if branch[2].size], part, n)
    elif name == "FeatureUnion":
        parts = (each for _, each in part.transformer_list if not isinstance(each, str))
        n = next((fitted(each, "n_features_in_") for each in parts), 0)
        yield from _joined([(key, each, np.arange(n)) for key, each in part.transformer_list], part, n)
    elif name in SCALERS:
        yield _scalings(part)[0]
        if getattr(part, "clip", False):
            yield HardTanh(*getattr(part, "feature_range", (-1, 1)))
    elif name in PROJECTIONS:
        yield from _projection(part)
    elif _selects(part):
        yield Units(np.flatnonzero(_support(part)), part.n_features_in_)
    elif name == "FunctionTransformer":
        yield from _function(part.func, part.kw_args)
    else:
        raise BadValue(
            f"every part must be an MLPClassifier, an MLPRegressor or an affine transformer ({AFFINE}), "
            f"got {name}; convert the part that is one"
        )


def backwards(part: Any) -> Iterator[Step]:
    """The steps of `part.inverse_transform`, which undo the scaling of a target after the network."""
    name = class_of(part)
    if does_nothing(part):
        return
    if name == "Pipeline":
        for _, each in reversed(part.steps):
            yield from backwards(each)
    elif name in SCALERS:
        yield _scalings(part)[1]
    elif name in INVERTIBLE:
        w = fitted(part, "components_")
        scaled = (w * _deviations(part)[:, None]).astype(w.dtype) if _whitens(part) else w
        yield Affine(scaled, getattr(part, "mean_", None))
    elif _selects(part):
        yield Affine(np.eye(part.n_features_in_)[_support(part)])
    elif name == "FunctionTransformer":
        yield from _function(part.inverse_func, part.inv_kw_args)
    else:
        raise BadValue(
            f"the target must be scaled by {', '.join((*SCALERS, *INVERTIBLE))}, a selection or a "
            f"FunctionTransformer, got {name}; convert estimator.regressor_ and undo the rest after it"
        )


def does_nothing(part: Any) -> bool:
    return part is None or (isinstance(part, str) and part == "passthrough")


def class_of(estimator: Any) -> str:
    """The name of an estimator's class; with the module's name unless the class is scikit-learn's own."""
    kind = type(estimator)
    return kind.__name__ if kind.__module__.startswith("sklearn.") else f"{kind.__module__}.{kind.__name__}"


def fitted(estimator: Any, attribute: str) -> Any:
    """An attribute that fitting sets. Refuses an estimator that is not fitted."""
    if not hasattr(estimator, attribute):
        raise BadValue(f"{type(estimator).__name__} must be fitted; call fit first")
    return getattr(estimator, attribute)


def _scalings(scaler: Any) -> tuple[Scaling, Scaling]:
    """The scaling that a scaler does, and the scaling that undoes it."""
    name, scale = class_of(scaler), fitted(scaler, "scale_")
    scale = np.asarray(1.0 if scale is None else scale, np.float64)
    with np.errstate(all="ignore"):  # a scale of 0 is refused where it is folded
        if name == "MinMaxScaler":  # x * scale + min, with a distant minimum subtracted first
            low = scaler.feature_range[0]
            least = (low - np.asarray(scaler.min_, np.float64)) / scale
            return Scaling(least, scale, low), Scaling(low, 1 / scale, least)
        holds, mean = CENTERS.get(name, ("", ""))
        center = getattr(scaler, mean, None) if getattr(scaler, holds, False) else None
        center = np.asarray(0.0 if center is None else center, np.float64)
        return Scaling(center, 1 / scale), Scaling(scale=scale, shift=center)


def _projection(part: Any) -> Iterator[Step]:
    components = fitted(part, "components_")
    w = (components.toarray() if hasattr(components, "toarray") else components).T
    if getattr(part, "mean_", None) is not None:
        # Means are measured in deviations (MOST_DEVIATIONS). Powers of 2 don't change the components' bits.
        variance = w**2 @ part.explained_variance_ + part.noise_variance_
        unit = np.ldexp(np.ones(len(w), w.dtype), np.frexp(np.sqrt(variance))[1])
        yield Scaling(part.mean_, 1 / unit)
        w = w * unit[:, None]
    yield Affine(w)
    if _whitens(part):
        yield Scaling(scale=1 / _deviations(part))


def _whitens(part: Any) -> bool:
    return bool(getattr(part, "whiten", False))


def _deviations(part: Any) -> Any:
    """The deviations of a PCA's components, by which whitening divides."""
    deviations = np.sqrt(part.explained_variance_)
    return np.maximum(deviations, np.finfo(deviations.dtype).eps).astype(np.float64)


def _selects(part: Any) -> bool:
    return type(part).__module__.startswith("sklearn.feature_selection.") and hasattr(part, "get_support")


def _support(part: Any) -> Any:
    fitted(part, "n_features_in_")
    return part.get_support()


def _function(function: Any, arguments: Any) -> Sequence[Step]:
    for known, steps in FUNCTIONS:
        if function is known and (function is None or not arguments):
            return steps
    name = getattr(function, "__name__", type(function).__name__)
    called = f" with {arguments!r:.60}" if arguments else ""
    raise BadValue(
        f"functions must be None, numpy.exp or numpy.expm1, got {name!r:.60}{called}; "
        f"convert the part without it"
    )


def _joined(branches: Sequence[tuple[str, Any, Any]], part: Any, n: int) -> list[Step]:
    """The steps of the transformers in `(name, transformer, columns)`, applied in parallel."""
    found: list[list[Step]] = []
    for name, each, reads in branches:
        if isinstance(each, str) and each == "drop":
            continue
        with inside(repr(name)):
            found.append([Units(reads, n), *forwards(each)])
        weight = (part.transformer_weights or {}).get(name)
        if weight is not None:
            found[-1].append(Scaling(scale=weight))
    if not found:
        raise BadValue(f"{type(part).__name__} must keep a column, got none; fit it on some")
    return side_by_side(found, n)


def _indices(columns: Any, part: Any, n: int) -> np.ndarray:
    """The indices of a ColumnTransformer's columns, given by names, numbers, a mask, or a slice of either."""
    names = list(getattr(part, "feature_names_in_", ()))
    if isinstance(columns, slice):
        first, last = columns.start, columns.stop
        if isinstance(first, str):
            first = names.index(first)
        if isinstance(last, str):
            last = names.index(last) + 1  # a slice of names includes its last name
        return np.arange(n)[first : last : columns.step]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the remainder's, in scikit-learn before 1.7
        each: list[Any] = [columns] if np.isscalar(columns) else list(columns)
    if not each:
        return np.arange(0)
    return np.arange(n)[[names.index(column) if isinstance(column, str) else column for column in each]]
