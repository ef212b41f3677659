"""Files that Keras writes, of models and of weights, and what its layers and activations become."""

import inspect

import numpy as np
import pytest

import jaxneuron
from jaxneuron import CELU, ELU, HardTanh, LeakyReLU
from jaxneuron.cli import main
from jaxneuron.convert import from_keras
from jaxneuron.convert._keras.layers import READ
from tests.interop.exact import X, assert_bits
from tests.make_keras2 import FOLDER

keras = pytest.importorskip("keras", reason="keras is in the extra interop")
h5py = pytest.importorskip("h5py", reason="h5py is in the extra keras")

layers = keras.layers
GIVEN = {"activation": "relu", "final_activation": "sigmoid"}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own


def chain(*parts, shape=(4,)):
    model = keras.Sequential([keras.Input(shape), *parts])
    rng = np.random.default_rng(0)  # biases begin at 0, and variances at 1
    model.set_weights([np.abs(rng.normal(size=w.shape)).astype(w.dtype) for w in model.get_weights()])
    return model


def dense(*widths, **options):
    return chain(*(layers.Dense(n, **options) for n in widths))


# --- Keras 2 ---


@pytest.mark.parametrize("name", ["2_13_model.keras", "2_15_model.keras", "2_15_model.h5"])
def test_models_of_keras_2_are_read(name):
    """Nested, partly frozen models, with Keras 2's own hard_sigmoid, and BatchNormalization over axis 1."""
    truth = np.load(FOLDER / f"{name[:4]}.npz")
    mlp = from_keras(FOLDER / name, check=(truth["rows"], truth["model"]))
    assert mlp.activations[1:] == ("tanh", "identity", HardTanh(0, 1), ELU(0.5), "identity")
    with pytest.raises(ValueError, match=r"^from_keras: check must hold"):
        from_keras(FOLDER / name, check=(truth["rows"], truth["model"] * 1.001))


@pytest.mark.parametrize("name", ["2_13.weights.h5", "2_15.weights.h5", "2_15_weights.h5"])
def test_weights_of_keras_2_are_read(name):
    truth = np.load(FOLDER / f"{name[:4]}.npz")
    mlp = from_keras(FOLDER / name, **GIVEN, check=(truth["rows"], truth["weights"]))
    assert [layer.w.shape for layer in mlp.layers] == [(4, 8), (8, 8), (8, 2)]


# --- weights of Keras 3 ---


def test_weights_are_read_in_the_order_of_their_numbers(tmp_path):
    model = dense(*(4,) * 12, use_bias=False)  # dense_10 comes after dense_9
    model.compile("adam", "mse")
    model.fit(X, X, verbose=0)  # the optimizer's state is in the file too
    model.save_weights(tmp_path / "m.weights.h5")
    assert_bits(from_keras(tmp_path / "m.weights.h5", **GIVEN), *model.get_weights())
    mlp = from_keras(tmp_path / "m.weights.h5", **GIVEN, layers=["layers/dense_3", "layers/dense"])
    assert_bits(mlp, model.get_weights()[3], model.get_weights()[0])
    mixed = {"activation": ["tanh"] * 11, "final_activation": CELU(0.5), "dtype": "float16"}
    assert from_keras(tmp_path / "m.weights.h5", **mixed).activations == (*["tanh"] * 11, CELU(0.5))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.out = layers.Dense(4), layers.Dense(4), layers.Dense(2)
        self.drop = layers.Dropout(0.5)

    def call(self, x):
        return self.out(self.drop(keras.ops.tanh(self.fc2(keras.ops.tanh(self.fc1(x))))))


def test_weights_of_a_subclassed_model_need_the_argument_layers(tmp_path):
    model = Own()
    outputs = model(X)
    model.save_weights(tmp_path / "m.weights.h5")
    given = {"activation": "tanh", "final_activation": "identity", "check": (X, outputs)}
    with pytest.raises(
        ValueError, match=r"from_keras: layers must be given .*'layers/dense_2'.*; pass layers="
    ):
        from_keras(tmp_path / "m.weights.h5", **given)
    mlp = from_keras(tmp_path / "m.weights.h5", layers=["fc1", "fc2", "layers/dense_2"], **given)
    assert_bits(mlp, *(w for layer in (model.fc1, model.fc2, model.out) for w in layer.get_weights()))


@pytest.mark.parametrize("part", [
    layers.BatchNormalization(), layers.BatchNormalization(center=False, scale=False), layers.LayerNormalization(), layers.PReLU(),
    layers.EinsumDense("ab,bc->ac", 4, bias_axes="c"), layers.Normalization(),
], ids=lambda part: type(part).__name__)  # fmt: skip
def test_weights_of_layers_other_than_dense_are_refused(tmp_path, part):
    model = chain(layers.Dense(4), part, layers.Dense(2))
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(
        ValueError,
        match=r"from_keras: source must hold only layers of 'kernel' and 'bias', got 'layers/.*read a file of the whole model",
    ):
        from_keras(tmp_path / "m.weights.h5", **GIVEN)


@pytest.mark.parametrize("mode", ["int8", "float8"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_weights_are_refused(tmp_path, mode):
    model = dense(4, 2)
    model.quantize(mode)
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(
        ValueError, match=r"from_keras: source must hold only layers of 'kernel' and 'bias', got"
    ):
        from_keras(tmp_path / "m.weights.h5", **GIVEN)


def test_weights_of_nested_models_need_the_argument_layers(tmp_path):
    model = chain(layers.Dense(4), keras.Sequential([layers.Dense(4)]))
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(
        ValueError, match="layers must be given where the names of layers are not one name with"
    ):
        from_keras(tmp_path / "m.weights.h5", **GIVEN)


def test_activations_are_refused_for_models_and_required_for_weights(tmp_path):
    model = dense(3, 2)
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        with pytest.raises(
            ValueError,
            match=rf"^from_keras: activation and layers must not be given for .*{name}, which records its layers; leave it out$",
        ):
            from_keras(tmp_path / name, activation="tanh", layers=["dense"])
    with pytest.raises(
        ValueError, match=r"^from_keras: final_activation must not be given for a model, which"
    ):
        from_keras(model, final_activation="tanh")
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(
        ValueError,
        match=r"^from_keras: activation and final_activation must be given, because only a file of a model records them",
    ):
        from_keras(tmp_path / "m.weights.h5", activation="tanh")


@pytest.mark.parametrize(("argument", "wrong"), [
    ("activation", "tahn"), ("activation", 5), ("activation", "softmax"), ("activation", ["relu", "relu"]), ("final_activation", "tahn"),
    ("layers", "layers/dense"), ("layers", []), ("layers", ["nowhere"]), ("layers", ["layers/dense", "layers/dense"]), ("layers", [5]),
])  # fmt: skip
def test_wrong_arguments_for_weights_are_named(tmp_path, argument, wrong):
    dense(4, 4).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises((ValueError, TypeError), match=rf"^from_keras: (source: )?({argument}|softmax)"):
        from_keras(tmp_path / "m.weights.h5", **GIVEN | {argument: wrong})


def test_files_that_keras_did_not_write_are_refused(tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["a/rows"] = np.ones((3, 4))
    with pytest.raises(
        ValueError,
        match="source must be a file of Keras, got an HDF5 file with 'a/rows'; read its arrays with h5py",
    ):
        from_keras(tmp_path / "rows.h5", **GIVEN)
    (tmp_path / "rows.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(
        ValueError, match=r"rows.npy: must be a .keras file, or an .h5 file of Keras, got a .npy file"
    ):
        from_keras(tmp_path / "rows.npy")


def test_convert_and_info_read_h5_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = dense(3, 2, activation="tanh")
    model.save("m.h5")
    model.save_weights("m.weights.h5")
    assert main(["convert", "m.h5", "a.safetensors"]) == 0
    flags = ["--activation", "tanh", "--final-activation", "tanh"]
    assert main(["convert", "m.weights.h5", "b.safetensors", *flags]) == 0
    assert main(["convert", "m.weights.h5", "c.safetensors", *flags, "--layers", "layers/dense"]) == 0
    assert main(["convert", "m.weights.h5", "d.safetensors"]) == 2
    assert main(["convert", "m.h5", "d.safetensors", *flags]) == 2
    error = capsys.readouterr().err
    assert "m.weights.h5: does not record --activation, --final-activation; pass them" in error
    assert "m.h5: --activation, --final-activation do not apply to this kind of file" in error
    for name, weights in (
        ("a", model.get_weights()),
        ("b", model.get_weights()),
        ("c", model.get_weights()[:2]),
    ):
        mlp = jaxneuron.load(f"{name}.safetensors")
        assert_bits(mlp, *weights)
        assert mlp.final_activation == "tanh"
    assert main(["info", "m.h5"]) == 0
    assert "6" not in capsys.readouterr().out.splitlines()[0]
    assert main(["info", "m.weights.h5"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "4 arrays, without activations",
        "  layers/dense/vars/0  [4, 3]  float32",
    ]


# --- layers ---


@pytest.mark.parametrize("part", [
    layers.Dropout(0.5), layers.SpatialDropout1D(0.5), layers.AlphaDropout(0.5), layers.GaussianDropout(0.5), layers.GaussianNoise(1.0),
    layers.ActivityRegularization(0.1, 0.1), layers.Identity(), layers.Flatten(), layers.Reshape((4,)), layers.Reshape((-1,)),
], ids=lambda part: type(part).__name__)  # fmt: skip
@pytest.mark.parametrize("suffix", [None, "keras", "h5"])
def test_layers_that_do_nothing_in_inference_are_left_out(part, suffix, tmp_path):
    wide = isinstance(part, layers.SpatialDropout1D)
    model = (
        chain(part, layers.Flatten(), layers.Dense(2), shape=(2, 2))
        if wide
        else chain(layers.Dense(4), part, layers.Dense(2))
    )
    source = model
    if suffix:
        source = tmp_path / f"m.{suffix}"
        model.save(source)
    assert_bits(from_keras(source), *model.get_weights())


@pytest.mark.parametrize(("part", "shape"), [(layers.Reshape((4,)), (2, 2)), (layers.Flatten(), (2, 2, 1)), (layers.Reshape((-1,)), (4, 1))])  # fmt: skip
def test_rows_may_be_flattened_after_a_rescaling(part, shape):
    model = chain(layers.Rescaling(1 / 255), layers.Dropout(0.1), part, layers.Dense(2), shape=shape)
    mlp = from_keras(model)
    np.testing.assert_allclose(
        jaxneuron.mlp_forward(mlp, X), model(X.reshape(-1, *shape)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("parts", "shape", "message"), [
    ((layers.Masking(), layers.Dense(2)), (4,), "the layer 'Masking' can't be part of an MLP"),  # it sets rows to 0, and hides them from a Softmax
    ((layers.Dense(3), layers.Reshape((6,))), (2, 2), "Reshape must stand in front of an MLP, or flatten rows, got one after other layers; convert the part after it"),
    ((layers.Rescaling([1.0, 2.0]), layers.Flatten(), layers.Dense(2)), (2, 2), "Flatten must stand in front"),
    ((layers.Dense(4), layers.Reshape((2, 2))), (4,), "the layer 'Reshape' can't be part of an MLP"),
    ((layers.Dense(4), layers.ReLU(threshold=1.0)), (4,), "'ReLU' with {'max_value': None, 'negative_slope': 0.0, 'threshold': 1.0} is not an activation of jaxneuron"),
    ((layers.Dense(4), layers.ReLU(6.0, negative_slope=0.1)), (4,), "'ReLU' with {'max_value': 6.0, 'negative_slope': 0.1, 'threshold': 0.0} is not an activation"),
    ((layers.Dense(4, layers.PReLU()),), (4,), "activations must be one of .*, got 'PReLU'"),
    ((layers.Dense(4), layers.PReLU()), (4,), "the layer 'PReLU' can't be part of an MLP"),
])  # fmt: skip
def test_layers_that_are_not_read_are_refused(parts, shape, message):
    with pytest.raises(ValueError, match=f"^from_keras: source: {message}"):
        from_keras(chain(*parts, shape=shape))


# --- activations ---

NOT_OURS = {
    "glu", "hard_shrink", "soft_shrink", "sparse_plus", "sparse_sigmoid", "sparsemax", "tanh_shrink", "threshold",
}  # fmt: skip


def test_every_keras_activation_is_read_or_refused():
    names = {name for name, value in inspect.getmembers(keras.activations, inspect.isfunction)}
    names -= {"get", "serialize", "deserialize"}
    assert names - set(READ) <= NOT_OURS
    for name in sorted(names & set(READ)):  # test_keras.py compares their values
        assert from_keras(chain(layers.Dense(4, name))).activations == from_keras(chain(layers.Dense(4), layers.Activation(name))).activations  # fmt: skip
    for name in sorted(names - set(READ) - {"glu"}):  # glu has half as many outputs
        with pytest.raises(ValueError, match=f"activations must be one of .*, got {name!r}"):
            from_keras(chain(layers.Dense(4, name)))


@pytest.mark.parametrize("suffix", [None, "keras", "h5"])
@pytest.mark.parametrize(("layer", "name"), [
    (lambda: layers.LeakyReLU(0.25), LeakyReLU(0.25)), (lambda: layers.ELU(0.5), ELU(0.5)), (lambda: layers.ReLU(4.0), HardTanh(0, 4)),
    (lambda: layers.Softmax(), "softmax"),
], ids=["leaky", "elu", "relu", "softmax"])  # fmt: skip
def test_a_layer_may_be_the_activation_of_another(suffix, layer, name, tmp_path):
    model = chain(layers.Dense(3, activation=layer()))
    source = model
    if suffix:
        source = tmp_path / f"m.{suffix}"
        model.save(source)
    assert from_keras(source).final_activation == name


OPERATIONS = {
    "celu": ({"alpha": 0.5}, CELU(0.5)), "elu": ({"alpha": 0.25}, ELU(0.25)), "leaky_relu": ({"negative_slope": 0.5}, LeakyReLU(0.5)),
    "gelu": ({"approximate": True}, "gelu_tanh"), "clip": ({"x_min": -1, "x_max": 2}, HardTanh(-1, 2)), "softmax": ({}, "softmax"),
    "squareplus": ({}, "squareplus"), "log_softmax": ({}, "log_softmax"), "hard_silu": ({}, "hard_swish"),
    **{name: ({}, name) for name in ("relu", "relu6", "sigmoid", "silu", "softplus", "softsign", "selu", "hard_sigmoid", "hard_tanh",
                                     "log_sigmoid", "tanh", "exp", "sin", "square")},
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_in_functional_models_are_read(name, tmp_path):
    parameters, ours = OPERATIONS[name]
    x = keras.Input((4,))
    y = layers.Dense(3)(x)
    model = keras.Model(x, getattr(keras.ops, name)(y, **parameters))
    model.save(tmp_path / "m.keras")
    assert from_keras(model).activations == from_keras(tmp_path / "m.keras").activations == (ours,)


def test_operations_that_are_not_activations_are_refused():
    x = keras.Input((4,))
    for operation, message in (
        (
            lambda z: keras.ops.softmax(z, axis=0),
            "'Softmax' with {'axis': 0} is not an activation of jaxneuron",
        ),
        (
            lambda z: keras.ops.squareplus(z, 1),
            "'Squareplus' with {'b': 1} is not an activation of jaxneuron",
        ),
        (keras.ops.cos, "'Cos' with {} is not an activation of jaxneuron"),
        (
            lambda z: z + 1.0,
            "a functional model must be one chain from one input to one output, got another at 'add",
        ),
        (lambda z: keras.ops.reshape(z, (-1, 4)), "'Reshape' with "),
    ):
        with pytest.raises(ValueError, match=f"^from_keras: source: {message}"):
            from_keras(keras.Model(x, operation(layers.Dense(4)(x))))
