"""The installed scikit-learn, on its own data."""

import warnings

import numpy as np
import pytest

from jaxneuron.convert import from_sklearn
from tests.interop.exact import assert_bits, assert_outputs

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is in the extra interop")

from sklearn.compose import TransformedTargetRegressor  # noqa: E402
from sklearn.datasets import load_diabetes, load_digits  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import PowerTransformer, StandardScaler  # noqa: E402

IMAGES, DIGITS = load_digits(return_X_y=True)
X, Y = load_diabetes(return_X_y=True, scaled=False)
ROWS = slice(0, 3)


def fitted(estimator, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)  # a few steps are enough
        return estimator.fit(x, y)


def arrays_of(network):
    return [a for layer in zip(network.coefs_, network.intercepts_, strict=True) for a in layer]


def test_a_multiclass_classifier_is_read_with_its_bits():
    model = fitted(MLPClassifier((32, 32), max_iter=40, random_state=0), IMAGES, DIGITS)
    assert model.score(IMAGES, DIGITS) > 0.99
    mlp = from_sklearn(model)
    assert mlp.activations == ("relu", "relu", "softmax")
    assert_bits(mlp, *arrays_of(model))
    assert_outputs(mlp, IMAGES[ROWS], model.predict_proba(IMAGES[ROWS]))
    narrow = fitted(MLPClassifier((16,), max_iter=5, random_state=0), IMAGES.astype(np.float32), DIGITS)
    assert from_sklearn(narrow).layers[0].w.dtype == np.float32
    assert_bits(from_sklearn(narrow), *arrays_of(narrow))
    assert from_sklearn(model, dtype="float32").layers[0].w.dtype == np.float32


def test_a_binary_classifier_gives_both_columns():
    model = fitted(
        MLPClassifier((9,), activation="logistic", max_iter=40, random_state=0), IMAGES, DIGITS > 4
    )
    mlp = from_sklearn(model)
    w, b = model.coefs_[1], model.intercepts_[1]
    assert_bits(mlp, model.coefs_[0], model.intercepts_[0], np.hstack([-w, w]), np.hstack([-b, b]))
    assert mlp.activations == ("sigmoid", "sigmoid")
    assert_outputs(mlp, IMAGES[ROWS], model.predict_proba(IMAGES[ROWS]))


def test_a_multilabel_classifier_is_read_with_its_bits():
    labels = np.stack([DIGITS > 4, DIGITS % 2 == 0, DIGITS < 2], axis=1)
    model = fitted(MLPClassifier((9,), activation="tanh", max_iter=20, random_state=0), IMAGES, labels)
    mlp = from_sklearn(model)
    assert_bits(mlp, *arrays_of(model))
    assert_outputs(mlp, IMAGES[ROWS], model.predict_proba(IMAGES[ROWS]))


def test_a_pipeline_with_a_scaled_target_is_folded():
    network = MLPRegressor(hidden_layer_sizes=(10, 10), activation="tanh", max_iter=60, random_state=0)
    model = fitted(
        TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler()),
        X,
        Y,
    )
    mlp = from_sklearn(model)
    assert len(mlp.layers) == 3
    assert_bits(
        type(mlp)(mlp.layers[1:2]),
        *(a[1] for a in (model.regressor_[-1].coefs_, model.regressor_[-1].intercepts_)),
    )
    assert_outputs(mlp, X[ROWS], model.predict(X[ROWS])[:, None], folded=True)
    for options in ({"with_mean": False}, {"with_std": False}):
        model = fitted(make_pipeline(StandardScaler(**options), "passthrough", network), X / 100, Y / 100)
        assert_outputs(from_sklearn(model), X[ROWS] / 100, model.predict(X[ROWS] / 100)[:, None], folded=True)


def test_a_mean_of_many_deviations_gets_its_own_layer():
    far = (X + 1e5).astype(np.float32)
    model = fitted(
        make_pipeline(
            StandardScaler(),
            MLPRegressor(hidden_layer_sizes=(5,), activation="tanh", max_iter=20, random_state=0),
        ),
        far,
        Y,
    )
    mlp = from_sklearn(model, dtype="float32")
    assert [layer.w.shape for layer in mlp.layers] == [(10, 10), (10, 5), (5, 1)]
    assert np.array_equal(mlp.layers[0].w, np.eye(10))
    # If the mean were folded all the same, the error in float32 would be 100 times the error here.
    import jaxneuron

    truth = model.predict(far)
    folded = jaxneuron.fold_input_scaling(
        jaxneuron.MLP(zip(model[-1].coefs_, model[-1].intercepts_, strict=True), "tanh", "identity"),
        model[0].mean_, model[0].scale_,
    )  # fmt: skip
    kept, lost = (
        np.abs(
            np.asarray(
                jaxneuron.mlp_forward(
                    type(m)(
                        [tuple(np.float32(a) for a in layer) for layer in m.layers],
                        "tanh" if m is folded else ("identity", "tanh"),
                        "identity",
                    ),
                    far,
                )
            )[:, 0]
            - truth
        ).max()
        for m in (mlp, folded)
    )
    assert kept < lost / 100


def test_a_poisson_regressor_ends_with_exp():
    model = fitted(
        MLPRegressor(hidden_layer_sizes=(5,), loss="poisson", max_iter=20, random_state=0), X / 100, Y / 100
    )
    mlp = from_sklearn(model)
    assert_bits(mlp, *arrays_of(model))
    assert mlp.activations[1] == "exp"


def test_refusals():
    with pytest.raises(
        ValueError, match="from_sklearn: estimator: MLPClassifier must be fitted; call fit first"
    ):
        from_sklearn(MLPClassifier())
    with pytest.raises(
        ValueError,
        match=r"an affine transformer \(StandardScaler, .*got RandomForestClassifier; convert the part",
    ):
        from_sklearn(RandomForestClassifier())
    network = MLPRegressor(hidden_layer_sizes=(2,), max_iter=1)
    with pytest.raises(ValueError, match="got PowerTransformer"):
        from_sklearn(fitted(make_pipeline(PowerTransformer(), network), X, Y))
    for target, message in (
        ({"transformer": PowerTransformer()}, "the target must be scaled by StandardScaler, .* got PowerTransformer"),
        ({"func": np.sqrt, "inverse_func": np.square}, "functions must be None, numpy.exp or numpy.expm1, got 'square'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            from_sklearn(fitted(TransformedTargetRegressor(network, **target), X, Y))


@pytest.mark.parametrize("place", ["network", "scaler", "pipeline", "target"])
def test_subclasses_with_the_name_of_their_class_are_refused(place):
    """For example, imblearn's Pipeline is a subclass of scikit-learn's with the same name."""

    def same_name(estimator):
        return type(type(estimator).__name__, (type(estimator),), {"__module__": __name__})

    network = MLPRegressor(hidden_layer_sizes=(2,), max_iter=1, random_state=0)
    model = TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler())
    fitted(model, X, Y)
    from_sklearn(model)
    part = {
        "network": model.regressor_[-1], "scaler": model.regressor_[0], "pipeline": model.regressor_, "target": model.transformer_,
    }[place]  # fmt: skip
    part.__class__ = same_name(part)
    with pytest.raises(ValueError, match=rf"got tests.interop.test_sklearn.{type(part).__name__}; convert "):
        from_sklearn(model)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_check_allows_the_roundings_of_scikit_learn(activation, kind):
    """Cases: means of many deviations, sums up to a thousand, 1 - p."""
    x, labels = (X + 1e4).astype(kind), np.stack([Y > 100, Y > 150], axis=1)
    options = {"hidden_layer_sizes": (9, 9), "activation": activation, "max_iter": 20, "random_state": 0}
    for y in (Y > 140, Y // 60, labels):
        from_sklearn(fitted(make_pipeline(StandardScaler(), MLPClassifier(**options)), x, y))
    for y in (Y, np.stack([Y, -Y], axis=1)):
        scaled = TransformedTargetRegressor(
            make_pipeline(StandardScaler(), MLPRegressor(**options)), transformer=StandardScaler()
        )
        from_sklearn(fitted(scaled, x, y))
    from_sklearn(fitted(make_pipeline(StandardScaler(), StandardScaler(with_std=False)), x, None))


def test_check_finds_a_patched_predict():
    model = fitted(MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0), X / 100, Y / 100)
    truth = model.predict(X[:4] / 100)
    from_sklearn(model, check=(X[:4] / 100, truth))
    with pytest.raises(
        ValueError, match=r"^from_sklearn: check must hold what the network gives, got outputs"
    ):
        from_sklearn(model, check=(X[:4] / 100, truth + 1))
    model.predict = lambda x: np.maximum(type(model).predict(model, x), 0)
    with pytest.raises(ValueError, match=r"^from_sklearn: estimator must compute what its layers say, got"):
        from_sklearn(model)
    assert len(from_sklearn(model, check=False).layers) == 2
