"""scikit-learn's networks, with the scalers around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from jaxneuron._arrays import concrete
from jaxneuron._errors import BadValue, inside, public
from jaxneuron._names import Activation
from jaxneuron._params import MLP, Affine
from jaxneuron.convert._check import Check, compare, compare_given
from jaxneuron.convert._scalings import Scaling
from jaxneuron.convert.steps import Step, assemble, chain

# scikit-learn's names that are not ours; the others are the same in both.
DIFFERENT: dict[str, Activation] = {"logistic": "sigmoid"}


@public
@concrete
def from_sklearn(estimator: Any, *, dtype: DTypeLike | None = None, check: Check = True) -> MLP:
    """A network from a fitted scikit-learn estimator, activations and scalings included.

    Args:
      estimator: an `MLPClassifier` or `MLPRegressor`; a `Pipeline` of `StandardScaler`s and one of them;
        a `TransformedTargetRegressor` of either, with a `StandardScaler`.
      dtype: to convert the layers to; None keeps theirs, float64 unless it was fitted on float32.
      check: True compares the network with the estimator's own outputs on eight fixed rows, `(rows, outputs)`
        with outputs that are given, and False does not.

    Returns:
      An `MLP` of JAX arrays. float64 ones stay NumPy arrays while jax_enable_x64 is off, so that no bit
      is lost. Its outputs are those of `predict` for a regressor, always with an axis of units, and those
      of `predict_proba` for a classifier: two columns, 1 - p and p, for two classes; one column for each of
      more classes, or for each label.

    Raises:
      ValueError: an estimator of another kind, a subclass among them, or one that is not fitted; a number too
        large for `dtype`; outputs that differ from the estimator's by more than rounding. TypeError: another
        dtype.

    Numerics: the weights are the source's, bit for bit, or rounded once to `dtype`. Scalings are folded in
    float64 and their layer rounded once; a mean of more than 16 deviations is subtracted in a layer of its
    own. Held by tests/interop/test_sklearn.py.

    Example:
      `from_sklearn(make_pipeline(StandardScaler(), MLPRegressor()).fit(x, y))`
    """
    with inside("estimator"):
        steps = list(_steps(estimator))
    mlp = assemble(steps, "estimator", dtype=dtype)
    if check is True:
        compare(mlp, _forward(estimator), "estimator", steps=steps)
    else:
        compare_given(mlp, check, steps=steps)
    return mlp


def _forward(estimator: Any) -> Callable[[np.ndarray], Any]:
    """predict_proba of a classifier, predict of a regressor, transform of a scaler."""
    names = ("predict_proba", "predict", "transform")
    return next(getattr(estimator, name) for name in names if hasattr(estimator, name))


def _class_of(estimator: Any) -> str:
    """The name of a class of scikit-learn's own; of any other, a subclass among them, with its module's."""
    kind = type(estimator)
    return kind.__name__ if kind.__module__.startswith("sklearn.") else f"{kind.__module__}.{kind.__name__}"


def _steps(estimator: Any) -> Iterator[Step]:
    name = _class_of(estimator)
    if name == "Pipeline":
        for _, part in estimator.steps:
            yield from () if part in (None, "passthrough") else _steps(part)
    elif name == "TransformedTargetRegressor":
        yield from _steps(_fitted(estimator, "regressor_"))
        if _class_of(estimator.transformer_) != "StandardScaler":
            raise BadValue(
                f"the target must be scaled by a StandardScaler, got {_class_of(estimator.transformer_)}; "
                f"convert estimator.regressor_ and undo the rest after it"
            )
        mean, scale = _moments(estimator.transformer_)
        yield Scaling(scale=scale, shift=mean)
    elif name == "StandardScaler":
        mean, scale = _moments(estimator)
        yield Scaling(mean=mean, scale=1 / scale)
    elif name in ("MLPClassifier", "MLPRegressor"):
        layers = [
            Affine(w, b) for w, b in zip(_fitted(estimator, "coefs_"), estimator.intercepts_, strict=True)
        ]
        if name == "MLPClassifier" and estimator.n_outputs_ == 1:
            # predict_proba has a column for either class: sigmoid(-z) = 1 - sigmoid(z)
            layers[-1] = Affine(*(np.concatenate([-a, a], axis=-1) for a in layers[-1]))
        hidden, final = (DIFFERENT.get(a, a) for a in (estimator.activation, estimator.out_activation_))
        yield from chain(layers, hidden, final)
    else:
        raise BadValue(
            f"every part must be an MLPClassifier or MLPRegressor, or a Pipeline or "
            f"TransformedTargetRegressor of one with StandardScaler, got {name}; convert the part that is one"
        )


def _moments(scaler: Any) -> tuple[Any, Any]:
    _fitted(scaler, "n_samples_seen_")
    mean = 0.0 if scaler.mean_ is None or not scaler.with_mean else scaler.mean_
    return mean, 1.0 if scaler.scale_ is None else scaler.scale_


def _fitted(estimator: Any, attribute: str) -> Any:
    if not hasattr(estimator, attribute):
        raise BadValue(f"{type(estimator).__name__} must be fitted; call fit first")
    return getattr(estimator, attribute)
