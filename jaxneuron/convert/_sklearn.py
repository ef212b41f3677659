"""scikit-learn's networks, with the scalers around them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadValue, inside, public
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._check import Check, compare, compare_given
from jaxneuron.convert._sklearn_transformers import backwards, class_of, does_nothing, fitted, forwards
from jaxneuron.convert.steps import Step, assemble, chain, with_names

# scikit-learn's names that differ from jaxneuron's; the others are the same in both.
DIFFERENT: dict[str, Activation] = {"logistic": "sigmoid"}
SEARCHES = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")


@public
@concrete
def from_sklearn(estimator: Any, *, dtype: DTypeLike | None = None, check: Check = True) -> MLP:
    """A network from a fitted scikit-learn estimator, with its activations and scalings.

    Args:
      estimator: an `MLPClassifier` or `MLPRegressor`; a `Pipeline` of affine transformers and one of these; a
        `TransformedTargetRegressor` of either, if affine transformers scale its targets or exp or expm1
        transforms them back; a search such as `GridSearchCV`, for its best estimator; or affine transformers
        alone. Affine transformers are `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`, `RobustScaler`,
        `PCA`, `IncrementalPCA`, `TruncatedSVD`, random projections, selections of features,
        `FunctionTransformer()`, and `ColumnTransformer` and `FeatureUnion` of these.
      dtype: the dtype to convert the layers to. None keeps theirs: float64, or float32 if the estimator was
        fitted on float32.
      check: True compares the network with the estimator's own outputs on eight fixed rows. False does not.
        `(rows, outputs)` compares it with these outputs of the source.

    Returns:
      An `MLP` of JAX arrays. While jax_enable_x64 is off, float64 arrays stay NumPy arrays, so that they are
      not rounded. For a regressor its outputs are those of `predict`, always with an axis of units. For a
      classifier they are those of `predict_proba`: two columns, 1 - p and p, for two classes; otherwise one
      column for each class, or for each label. Its inputs have the names of the data frame's columns that the
      estimator was fitted on. Its outputs have the names of the classes, if these are strings.

    Raises:
      ValueError: the estimator is of another kind, which includes subclasses, or is not fitted; a weight is
        too large for `dtype`; the network's outputs differ from the estimator's by more than rounding
        explains.
      TypeError: `dtype` is not one of float64, float32, float16 and bfloat16.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Scalings are folded into
    a layer in float64, and the layer is rounded once. A mean of more than 16 deviations is subtracted in a
    layer of its own, and so is a minimum of more than 16 ranges. Tested by tests/interop/test_sklearn.py and
    tests/interop/test_sklearn_pipelines.py.

    Example:
      `from_sklearn(make_pipeline(StandardScaler(), MLPRegressor()).fit(x, y))`
    """
    with inside("estimator"):
        steps = list(_steps(estimator))
    n_in, names = _of_inputs(estimator, "n_features_in_"), _of_inputs(estimator, "feature_names_in_")
    mlp = assemble(steps, "estimator", n_in=n_in, like=np.float64, dtype=dtype)
    mlp = with_names(mlp, names, getattr(estimator, "classes_", None))
    if check is True:
        compare(mlp, _forward(estimator), "estimator", steps=steps)
    else:
        compare_given(mlp, check, steps=steps)
    return mlp


def _forward(estimator: Any) -> Callable[[np.ndarray], Any]:
    """The estimator's forward pass: predict_proba of a classifier, predict of a regressor, or transform."""
    names = ("predict_proba", "predict", "transform")
    call = next(getattr(estimator, name) for name in names if hasattr(estimator, name))
    columns = _of_inputs(estimator, "feature_names_in_")
    if columns is None or importlib.util.find_spec("pandas") is None:
        return call
    import pandas

    return lambda rows: call(pandas.DataFrame(rows, columns=columns))


def _of_inputs(estimator: Any, attribute: str) -> Any:
    """An attribute that describes an estimator's inputs; for a pipeline, its first non-empty step's."""
    first = next((part for _, part in getattr(estimator, "steps", ()) if not does_nothing(part)), None)
    return getattr(estimator, attribute, None) if first is None else _of_inputs(first, attribute)


def _steps(estimator: Any) -> Iterator[Step]:
    name = class_of(estimator)
    if name == "Pipeline":
        for _, part in estimator.steps[:-1]:
            yield from forwards(part)
        yield from _steps(estimator.steps[-1][1])
    elif name in SEARCHES:
        if not estimator.refit:
            raise BadValue(
                f"{name} must have refit=True to keep a fitted estimator, got {estimator.refit}; "
                f"pass an estimator fitted with the best parameters"
            )
        yield from _steps(fitted(estimator, "best_estimator_"))
    elif name == "TransformedTargetRegressor":
        yield from _steps(fitted(estimator, "regressor_"))
        yield from backwards(estimator.transformer_)
    elif name in ("MLPClassifier", "MLPRegressor"):
        layers = [
            Affine(w, b) for w, b in zip(fitted(estimator, "coefs_"), estimator.intercepts_, strict=True)
        ]
        if name == "MLPClassifier" and estimator.n_outputs_ == 1:
            # predict_proba has a column for each of the two classes: sigmoid(-z) = 1 - sigmoid(z)
            layers[-1] = Affine(*(np.concatenate([-a, a], axis=-1) for a in layers[-1]))
        hidden, final = (DIFFERENT.get(a, a) for a in (estimator.activation, estimator.out_activation_))
        yield from chain(layers, hidden, final)
    else:
        yield from forwards(estimator)
