"""The installed scikit-learn's affine transformers before a network and after it, on its own data."""

import warnings

import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron import HardTanh
from jaxneuron.convert import from_sklearn
from tests.interop.exact import assert_bits, assert_outputs

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is in the extra interop")
pandas = pytest.importorskip("pandas", reason="pandas is in the extra interop")

from sklearn.compose import ColumnTransformer, TransformedTargetRegressor  # noqa: E402
from sklearn.datasets import load_diabetes, load_iris  # noqa: E402
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD  # noqa: E402
from sklearn.experimental import enable_halving_search_cv  # noqa: E402, F401
from sklearn.feature_selection import (  # noqa: E402
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
    f_regression,
)
from sklearn.linear_model import LinearRegression  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import FeatureUnion, make_pipeline  # noqa: E402
from sklearn.preprocessing import (  # noqa: E402
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection  # noqa: E402

FRAME, Y = load_diabetes(return_X_y=True, scaled=False, as_frame=True)
X, Y, NAMES = FRAME.to_numpy(), Y.to_numpy(), tuple(FRAME)
ROWS = slice(0, 3)


def fit(estimator, x=X, y=Y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)  # a few steps are enough
        warnings.simplefilter("ignore", sklearn.exceptions.DataConversionWarning)  # one target in a column
        return estimator.fit(x, y)


def net(**options):
    return MLPRegressor(hidden_layer_sizes=(5,), activation="tanh", max_iter=20, random_state=0, **options)


def before_network(*parts):
    return make_pipeline(*parts, net())


def assert_same(model, x=X, y=Y):
    """Asserts that the network computes what the estimator does, and that the check finds other outputs."""
    model = fit(sklearn.base.clone(model), x, y)
    mlp = from_sklearn(model)
    rows = x[ROWS]
    assert_outputs(mlp, np.asarray(rows), model.predict(rows).reshape(len(rows), -1), folded=True)
    predict = model.predict
    model.predict = lambda rows: predict(rows) * 1.001
    with pytest.raises(
        ValueError, match=r"^from_sklearn: estimator must compute what its layers say, got out"
    ):
        from_sklearn(model)
    return mlp


def kind(part):
    return type(part).__name__


SCALERS = [
    StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), MinMaxScaler(), MinMaxScaler((-1, 3)),
    MaxAbsScaler(), RobustScaler(), RobustScaler(with_centering=False), RobustScaler(with_scaling=False),
    FunctionTransformer(), "passthrough", make_pipeline(MinMaxScaler(), StandardScaler()),
]  # fmt: skip
PROJECTIONS = [
    PCA(3), PCA(), PCA(4, whiten=True), IncrementalPCA(3), IncrementalPCA(3, whiten=True), TruncatedSVD(3),
    GaussianRandomProjection(4, random_state=0), SparseRandomProjection(4, random_state=0),
]  # fmt: skip
SELECTIONS = [
    SelectKBest(f_regression, k=4), SelectPercentile(f_regression, percentile=40), SelectFpr(f_regression), SelectFdr(f_regression),
    SelectFwe(f_regression), GenericUnivariateSelect(f_regression, mode="k_best", param=3), VarianceThreshold(30.0),
    SelectFromModel(LinearRegression()), RFE(LinearRegression(), n_features_to_select=3), RFECV(LinearRegression(), cv=2),
    SequentialFeatureSelector(LinearRegression(), n_features_to_select=2, cv=2),
]  # fmt: skip


@pytest.mark.parametrize("part", [*SCALERS, *PROJECTIONS, *SELECTIONS], ids=kind)
def test_transformers_before_the_network_are_folded(part):
    mlp = assert_same(before_network(part))
    assert len(mlp.layers) in (2, 3)  # a projection and far means have a layer of their own
    assert mlp.inputs is mlp.outputs is None


@pytest.mark.parametrize("part", [
    *SCALERS, PCA(1), PCA(2), PCA(2, whiten=True), IncrementalPCA(2, whiten=True), TruncatedSVD(2), VarianceThreshold(),
    make_pipeline(StandardScaler(), PCA(1), MinMaxScaler()),
], ids=kind)  # fmt: skip
def test_transformers_of_the_target_are_folded(part):
    y = np.stack(
        [Y, X[:, 2], np.full(len(Y), 7.0)][: 3 if isinstance(part, VarianceThreshold) else 2], axis=1
    )
    part = None if part == "passthrough" else part
    model = TransformedTargetRegressor(
        before_network(StandardScaler()), transformer=part, check_inverse=False
    )
    assert_same(model, y=y)


@pytest.mark.parametrize(("function", "inverse"), [(np.log, np.exp), (np.log1p, np.expm1), (None, None)])
def test_functions_of_the_target_are_undone(function, inverse):
    model = TransformedTargetRegressor(before_network(StandardScaler()), func=function, inverse_func=inverse)
    mlp = assert_same(model)
    assert mlp.activations[1] == ("exp" if function else "identity")


def test_a_projection_is_a_layer_with_the_bits_of_its_components():
    model = fit(before_network(PCA(3)))
    mlp = from_sklearn(model)
    assert np.array_equal(np.asarray(mlp.layers[0].w)[:, :], model[0].components_.T)
    assert [layer.w.shape for layer in mlp.layers] == [(10, 3), (3, 5), (5, 1)]
    single = fit(before_network(PCA(3)), X.astype(np.float32))
    assert from_sklearn(single).layers[0].w.dtype == np.float32


@pytest.mark.parametrize("scaler", [MinMaxScaler(), RobustScaler(), StandardScaler(), PCA(4)], ids=kind)
def test_large_means_are_subtracted_in_a_layer_of_their_own(scaler):
    """Inputs are near 1e5: if the mean were folded, float32 would lose 5 of its 7 decimal digits."""
    far = X + 1e5
    model = fit(before_network(scaler), far)
    single = from_sklearn(model, dtype="float32")
    assert single.layers[0].w.shape == (10, 10)
    rows = far[:50]  # float32 rounds their numbers by 2^-8, which is small beside their deviations
    rows = rows.astype(np.float32)
    found = np.asarray(jaxneuron.mlp_forward(single, rows))[:, 0]
    truth = model.predict(rows.astype(np.float64))
    assert np.abs(found - truth).max() < 2e-3 * np.ptp(truth)


@pytest.mark.parametrize(("low", "high", "name"), [(0, 1, HardTanh(0, 1)), (-1, 1, "hard_tanh"), (0, 6, "relu6")])  # fmt: skip
def test_clipping_is_an_activation(low, high, name):
    model = fit(before_network(MinMaxScaler((low, high), clip=True)))
    mlp = from_sklearn(model)
    assert mlp.activations == (name, "tanh", "identity")
    beyond = 3 * X[200:204] - 2 * X.mean(axis=0)
    scaled = model[0].transform(beyond)
    assert (scaled == high).any()
    assert (scaled == low).any()
    assert_outputs(mlp, beyond, model.predict(beyond)[:, None], folded=True)


def test_max_abs_scaler_may_clip():
    if "clip" not in MaxAbsScaler().get_params():
        pytest.skip("MaxAbsScaler clips from scikit-learn 1.9 on")
    assert from_sklearn(fit(before_network(MaxAbsScaler(clip=True)))).activations[0] == "hard_tanh"


# --- columns ---

COLUMNS = {
    "names": [("s", StandardScaler(), ["bmi", "age"]), ("m", MinMaxScaler(), ["s1", "s6"])],
    "numbers": [("s", StandardScaler(), [2, 0]), ("m", RobustScaler(), [-1])],
    "slices": [("s", StandardScaler(), slice(1, 4)), ("m", MaxAbsScaler(), slice(6, None))],
    "slices of names": [("s", StandardScaler(), slice("bp", "s3")), ("m", MinMaxScaler(), slice(None, "sex"))],
    "masks": [("s", StandardScaler(), np.arange(10) < 4), ("m", "passthrough", [False] * 6 + [True] * 4)],
    "a function": [("s", StandardScaler(), lambda frame: ["bmi"]), ("m", "passthrough", ["s5"])],
    "an index": [("s", StandardScaler(), FRAME.columns[3:6].astype(object))],
    "one number": [("s", StandardScaler(), [5])],
    "none": [("s", StandardScaler(), []), ("d", "drop", [0, 1]), ("m", MinMaxScaler(), [2, 3])],
    "one column twice": [("s", StandardScaler(), [2, 3]), ("m", MinMaxScaler(), [3, 2, 1])],
    "pipelines": [("s", make_pipeline(StandardScaler(), MinMaxScaler()), [2, 3]), ("k", SelectKBest(f_regression, k=2), [4, 5, 6, 7])],
    "projections": [
        ("p", make_pipeline(StandardScaler(), PCA(2, whiten=True), PCA(1)), [4, 5, 6, 7]), ("s", StandardScaler(), [0, 1]),
        ("q", make_pipeline(PCA(2), SelectKBest(f_regression, k=1)), [8, 9]), ("t", TruncatedSVD(1), [2, 3]),
    ],
    "columns in columns": [
        ("c", ColumnTransformer([("s", StandardScaler(), [0, 2]), ("d", "drop", [1])], remainder=MinMaxScaler()), [3, 4, 5, 6, 7]),
        ("s", StandardScaler(), [0]),
    ],
    "a clip of all": [("c", MinMaxScaler(clip=True), [3, 4, 5])],
}  # fmt: skip


@pytest.mark.parametrize("remainder", ["drop", "passthrough", RobustScaler()], ids=kind)
@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_column_transformers_are_read(columns, remainder):
    if columns is COLUMNS["a clip of all"] and remainder != "drop":
        pytest.skip("refused, below")
    model = before_network(ColumnTransformer(columns, remainder=remainder))
    mlp = assert_same(model, FRAME)
    assert mlp.inputs == NAMES
    if columns is COLUMNS["names"] and remainder == "drop":
        assert not np.asarray(mlp.layers[0].w)[[1, 3]].any()  # sex and bp, which the network doesn't read
        assert mlp.layers[0].w.shape == (10, 5)


def test_transformer_weights_are_folded():
    parts = [("s", StandardScaler(), [0, 1]), ("m", MinMaxScaler(), [2])]
    assert_same(before_network(ColumnTransformer(parts, transformer_weights={"s": 0.25, "other": 3})))
    assert_same(
        before_network(FeatureUnion([("s", StandardScaler()), ("p", PCA(2))], transformer_weights={"p": 4.0}))
    )


def test_feature_unions_are_read():
    for parts in (
        [("s", StandardScaler()), ("m", MinMaxScaler())],
        [("all", "passthrough"), ("d", "drop"), ("p", PCA(2)), ("k", SelectKBest(f_regression, k=2))],
    ):
        assert_same(before_network(FeatureUnion(parts)))
    assert_same(before_network(StandardScaler(), FeatureUnion(parts), MinMaxScaler()))


def test_data_frames_between_steps_are_read():
    model = before_network(StandardScaler(), ColumnTransformer([("m", MinMaxScaler(), ["bmi", "s5"])]))
    model.set_output(transform="pandas")
    assert_same(model, FRAME)


# --- searches, names ---


@pytest.mark.parametrize("search", [
    GridSearchCV(before_network(StandardScaler()), {"mlpregressor__alpha": [1e-4, 1.0]}, cv=2),
    RandomizedSearchCV(before_network(StandardScaler()), {"mlpregressor__alpha": [1e-4, 1.0]}, n_iter=2, cv=2, random_state=0),
    HalvingGridSearchCV(before_network(StandardScaler()), {"mlpregressor__alpha": [1e-4, 1.0]}, cv=2, random_state=0),
    HalvingRandomSearchCV(before_network(StandardScaler()), {"mlpregressor__alpha": [1e-4, 1.0]}, n_candidates=2, cv=2, random_state=0),
], ids=kind)  # fmt: skip
def test_the_best_estimator_of_a_search_is_read(search):
    assert assert_same(search, FRAME).inputs == NAMES
    assert_same(TransformedTargetRegressor(search, transformer=MinMaxScaler()))


def test_names_of_columns_and_classes_are_kept():
    frame, kinds = load_iris(return_X_y=True, as_frame=True)
    words = np.array(["setosa", "versicolor", "virginica"])[kinds]
    model = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=5, random_state=0))
    mlp = from_sklearn(fit(model, frame, words))
    assert mlp.inputs == tuple(frame)
    assert mlp.outputs == ("setosa", "versicolor", "virginica")
    assert_outputs(mlp, frame.to_numpy()[ROWS], model.predict_proba(frame[ROWS]), folded=True)
    two = from_sklearn(fit(model, frame.to_numpy(), words == "setosa"))
    assert two.inputs is two.outputs is None  # True and False are not names, nor are 0, 1 and 2
    assert from_sklearn(fit(model, frame, kinds)).outputs is None
    assert from_sklearn(fit(model, frame, np.where(words == "setosa", "yes", "no"))).outputs == ("no", "yes")
    model = make_pipeline(
        "passthrough", ColumnTransformer([("s", StandardScaler(), ["petal width (cm)"])]), net()
    )
    assert assert_same(model, frame, kinds).inputs == tuple(frame)
    model = fit(net(), X)
    model.feature_names_in_ = np.array(["a"] * 10, dtype=object)
    assert from_sklearn(model).inputs is None  # not distinct


def test_transformers_without_a_network_are_read():
    for part, x in (
        (StandardScaler(), FRAME),
        (ColumnTransformer([("p", PCA(2), [1, 2, 3])]), FRAME),
        (PCA(2), X),
    ):
        mlp = from_sklearn(fit(part, x))
        assert np.asarray(mlp.layers[0].w).dtype == np.float64
        assert_outputs(mlp, X[ROWS], np.asarray(part.transform(x[ROWS])), folded=True)
    mlp = from_sklearn(fit(make_pipeline("passthrough", FunctionTransformer()), X, None))
    assert_bits(mlp, np.eye(10), np.zeros(10))


# --- refusals ---


@pytest.mark.parametrize(("part", "message"), [
    (Normalizer(), r"every part must be an MLPClassifier, an MLPRegressor or an affine transformer \(StandardScaler, .* or a "
     r"FunctionTransformer\), got Normalizer; convert the part that is one"),
    (FunctionTransformer(np.log1p), "functions must be None, numpy.exp or numpy.expm1, got 'log1p'; convert the part without it"),
    (FunctionTransformer(np.exp, kw_args={"dtype": float}), "functions must be None, numpy.exp or numpy.expm1, got 'exp' with {'dtype': .*}; convert"),
    (ColumnTransformer([("s", StandardScaler(), [0]), ("o", OneHotEncoder(max_categories=2), [1])]), "'o': every part must be .*, got OneHotEncoder"),
    (ColumnTransformer([("s", StandardScaler(), [0]), ("c", MinMaxScaler(clip=True), [1])]), "branches side by side must be affine, got the activation HardTanh.* in one of them; give it to all columns"),
])  # fmt: skip
def test_refusals(part, message):
    with pytest.raises(ValueError, match=f"^from_sklearn: estimator: {message}"):
        from_sklearn(fit(before_network(part)))


@pytest.mark.parametrize("part", [*SCALERS[:-3], *PROJECTIONS, *SELECTIONS, ColumnTransformer([]), GridSearchCV(net(), {})], ids=kind)  # fmt: skip
def test_parts_that_are_not_fitted_are_refused(part):
    part = sklearn.base.clone(part)
    model = part if isinstance(part, GridSearchCV) else make_pipeline(part, net())
    with pytest.raises(
        ValueError, match=rf"^from_sklearn: estimator: {type(part).__name__} must be fitted; call fit first$"
    ):
        from_sklearn(model)
    if not isinstance(part, GridSearchCV):
        for whole in (part, FeatureUnion([("p", "passthrough"), ("s", part)])):
            with pytest.raises(ValueError, match=f"{type(part).__name__} must be fitted"):
                from_sklearn(whole)


@pytest.mark.parametrize("part", [*SCALERS[:-3], *PROJECTIONS, SELECTIONS[0], ColumnTransformer([("s", StandardScaler(), [0])])], ids=kind)  # fmt: skip
def test_subclasses_are_refused(part):
    model = fit(before_network(sklearn.base.clone(part)))
    model[0].__class__ = type(type(part).__name__, (type(part),), {"__module__": __name__})
    with pytest.raises(ValueError, match=rf"got {__name__}.{type(part).__name__}; convert the part"):
        from_sklearn(model)


def test_a_search_without_refit_is_refused():
    search = fit(GridSearchCV(before_network(StandardScaler()), {}, cv=2, refit=False))
    with pytest.raises(
        ValueError,
        match=r"^from_sklearn: estimator: GridSearchCV must have refit=True to keep a fitted estimator, got False; pass an estimator",
    ):
        from_sklearn(search)


def test_targets_without_an_inverse_are_refused():
    model = TransformedTargetRegressor(net(), transformer=GaussianRandomProjection(1), check_inverse=False)
    with pytest.raises(
        ValueError, match=r"estimator: the target must be scaled by StandardScaler, .*, got Gauss.*; convert"
    ):
        from_sklearn(fit(model, y=np.stack([Y, Y], axis=1)))


def test_a_scaling_by_0_is_refused():
    model = fit(before_network(MinMaxScaler()))
    model[0].scale_ = model[0].scale_ * 0
    with pytest.raises(ValueError, match="a scaling by 0, infinity or NaN can't be folded"):
        from_sklearn(model)


def test_x64_does_not_change_the_network():
    model = fit(
        before_network(
            ColumnTransformer([("s", StandardScaler(), ["bmi"]), ("p", PCA(2), ["s1", "s2", "s3"])])
        ),
        FRAME,
    )
    with jax.enable_x64(True):
        wide = from_sklearn(model)
    assert_bits(wide, *jax.tree.leaves(from_sklearn(model)))
