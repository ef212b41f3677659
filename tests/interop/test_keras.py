"""The installed Keras 3 on its JAX backend: models in memory, and the files that it writes."""

import functools

import numpy as np
import pytest

from jaxneuron import CELU, ELU, HardTanh, LeakyReLU, Sin, Softplus
from jaxneuron._names import BY_NAME
from jaxneuron.convert import from_keras, to_keras
from tests.interop.exact import ROWS, TARGETS, X, assert_bits, assert_outputs, network

keras = pytest.importorskip("keras", reason="keras is in the extra interop")
pytest.importorskip("h5py", reason="h5py is in the extra keras")

import jax  # noqa: E402

import jaxneuron  # noqa: E402

layers = keras.layers
# Keras's variables do not take NumPy 2's copy keyword; Keras itself converts them when it saves and sets weights.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(params=["model", "model.keras", "model.h5"])
def read(request, tmp_path):
    """Reads a model with from_keras, in memory or from the file to which it is saved."""

    def read(model, **options):
        if request.param == "model":
            return from_keras(model, **options)
        model.save(tmp_path / request.param)
        return from_keras(tmp_path / request.param, **options)

    read.is_h5 = request.param == "model.h5"
    return read


def fitted(model):
    model.compile("adam", "mse")
    model.fit(ROWS, TARGETS, epochs=2, verbose=0)
    return model


def forward64(model, x):
    """The model's outputs with every weight and every sum in float64.

    Keras still computes tanh in float32, except on TensorFlow's backend: these models use other activations.
    """
    with jax.enable_x64(True):
        config = keras.saving.serialize_keras_object(model)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float64")
        try:
            wide = keras.saving.deserialize_keras_object(_widened(config))
            wide.build(model.input_shape)
            wide.set_weights([np.asarray(w, np.float64) for w in model.get_weights()])
            for layer in wide.layers:
                if hasattr(layer, "finalize_state"):
                    layer.finalize_state()
            return np.asarray(wide(np.asarray(x, np.float64)))
        finally:
            keras.config.set_dtype_policy(before)


def _widened(config):
    if isinstance(config, dict):
        return {
            k: "float64" if k == "dtype" else _widened(v) for k, v in config.items() if k != "compile_config"
        }
    return [_widened(v) for v in config] if isinstance(config, list) else config


def test_a_sequential_is_read_with_its_bits(read):
    model = fitted(
        keras.Sequential([
            keras.Input((4,)), layers.Dense(5, "sigmoid"), layers.Dropout(0.2), layers.Dense(5, use_bias=False),
            layers.Activation("silu"), layers.Dense(3, "elu"), layers.Dense(2),
        ])
    )  # fmt: skip
    mlp = read(model)
    assert mlp.activations == ("sigmoid", "silu", "elu", "identity")
    assert_bits(mlp, *model.get_weights())
    assert_outputs(mlp, X, forward64(model, X))
    assert read(model, dtype="float16").layers[0].w.dtype == np.float16


def test_a_functional_chain_is_read_in_the_order_of_its_edges(read):
    last = layers.Dense(2, "softmax", name="a")
    first = layers.Dense(2, "relu", name="z")
    x = keras.Input((4,))
    model = fitted(keras.Model(x, last(layers.Dense(2, "gelu", name="m")(first(x)))))
    mlp = read(model)
    assert mlp.activations == ("relu", "gelu", "softmax")
    assert_bits(mlp, *(w for layer in (first, model.get_layer("m"), last) for w in layer.get_weights()))
    assert_outputs(mlp, X, forward64(model, X))


def test_normalizations_are_folded(read):
    norm = layers.Normalization()
    norm.adapt(3 + ROWS * [1, 2, 0.5, 1])
    model = fitted(
        keras.Sequential([
            keras.Input((4,)), layers.Rescaling(2.0, 1.0), norm, layers.Dense(6), layers.BatchNormalization(),
            layers.ReLU(), layers.BatchNormalization(scale=False), layers.Dense(2), layers.Rescaling(3.0, -1.0),
        ])
    )  # fmt: skip
    mlp = read(model)
    assert mlp.activations == ("relu", "identity")
    assert_outputs(mlp, X, forward64(model, X), folded=True)


def test_given_and_inverted_normalizations_are_folded(read):
    model = keras.Sequential([
        keras.Input((4,)), layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 0.0, 9.0]),
        layers.Dense(3, "sigmoid"), layers.Dense(1), layers.Normalization(mean=2.0, variance=9.0, invert=True),
    ])  # fmt: skip
    x = X.copy()
    x[:, 2] = 3.000001  # this input never varied; Keras divides it by its epsilon
    mlp = read(model)
    assert_outputs(mlp, x, forward64(model, x), folded=True)


def test_nested_models_and_images_are_read(read):
    inner = keras.Sequential([layers.Dense(3, "sigmoid"), layers.Dense(3, "sigmoid")])
    model = keras.Sequential(
        [keras.Input((2, 2)), layers.Flatten(), inner, layers.Flatten(), layers.Dense(1)]
    )
    mlp = read(model)
    assert_bits(mlp, *model.get_weights())
    assert_outputs(mlp, X, np.asarray(forward64(model, X.reshape(-1, 2, 2))))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes_are_kept(read, dtype):
    with jax.enable_x64(dtype == "float64"):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype=dtype)])
        w = model.layers[0].kernel.value
        assert w.dtype == dtype
        mlp = read(model)
    assert_bits(mlp, *(v.value for v in model.layers[0].variables))


@pytest.mark.parametrize("name", [
    "linear", "relu", "tanh", "sigmoid", "silu", "gelu", "softplus", "elu", "selu", "softmax", "hard_sigmoid",
    "leaky_relu", "softsign", "squareplus", "exponential", "mish", "relu6", "hard_tanh", "hard_swish", "hard_silu", "log_sigmoid", "log_softmax", "celu",
    layers.ReLU(max_value=3.0), layers.ReLU(6), layers.LeakyReLU(), layers.LeakyReLU(0.01), layers.ReLU(negative_slope=0.5),
    layers.ELU(), layers.ELU(0.5), layers.Softmax(),
])  # fmt: skip
def test_activations_equal_those_of_keras(name):
    layer = layers.Activation(name) if isinstance(name, str) else name
    mlp = from_keras(keras.Sequential([keras.Input((4,)), layers.Dense(4), layer]), check=False)
    z = np.linspace(-6, 6, 48).reshape(12, 4)
    with jax.enable_x64(True):
        theirs = np.asarray(layer(z.astype(np.float32)), np.float64)
        found = jaxneuron.neuron((np.eye(4), None), z.astype(np.float32), mlp.final_activation)
    # both round in float32
    np.testing.assert_allclose(np.asarray(found, np.float64), theirs, rtol=40 * 2**-24, atol=40 * 2**-24)


NOT_IN_KERAS = ["cr_sigmoid", "cr_tanh", Softplus(2.0), Sin(30.0)]


@pytest.mark.parametrize("name", [
    *sorted(set(BY_NAME) - set(NOT_IN_KERAS[:2])), LeakyReLU(0.3), ELU(0.5), HardTanh(0, 2), HardTanh(-1, 3), CELU(0.5),
], ids=str)  # fmt: skip
def test_to_keras_then_from_keras_keeps_the_bits(name, tmp_path):
    mlp = network(name)
    model = to_keras(mlp)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert from_keras(tmp_path / "model.keras").activations == mlp.activations
    again = from_keras(model, check=False)  # below, the outputs are compared
    assert_bits(again, *jax.tree.leaves(mlp))
    assert again.activations == mlp.activations
    np.testing.assert_allclose(model(X), jaxneuron.mlp_forward(mlp, X), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("activation", NOT_IN_KERAS, ids=str)
def test_an_activation_that_keras_lacks_is_refused(activation):
    reason = (
        ""
        if isinstance(activation, str)
        else "Keras has no such parameter, and folded into the weights it would round them; "
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        to_keras(network(activation))
    assert str(caught.value).startswith("to_keras: activations must be one of elu, ")
    assert str(caught.value).endswith(
        f"got {activation!r}; {reason}export writes any of them as a program that runs without jaxneuron"
    )


@pytest.mark.parametrize("activation", ["tanh", "celu", "square"])
def test_activations_that_are_operations_make_the_model_functional(activation):
    model = to_keras(network(CELU(0.3) if activation == "celu" else activation))
    assert isinstance(model, keras.Sequential) == (activation == "tanh")


def test_refusals(read):
    inputs = keras.Input((4,))
    one = layers.Dense(4)
    for model, message in (
        (keras.Sequential([keras.Input((4,)), layers.LayerNormalization()]), "the layer 'LayerNormalization' can't be part of an MLP"),
        (keras.Sequential([keras.Input((4,)), layers.Dense(2, keras.activations.glu)]), "activations must be one of .*, got 'glu'"),
        (keras.Model(inputs, one(inputs) + inputs), "must be one chain from one input to one output"),
        (keras.Model(inputs, one(one(inputs))), "must be one chain from one input to one output, got another at 'dense"),
        (keras.Sequential([keras.Input((4, 2)), layers.Dense(3), layers.Flatten()]), "Flatten must stand in front of an MLP"),
        (keras.Sequential([keras.Input((4,)), layers.Softmax(), layers.Dense(2)]), "softmax must come last"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"from_keras: .*{message}"):
            read(model)


def test_code_in_a_file_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x), layers.Dense(2)])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="from_keras: source: the layer 'Lambda' can't be part of an MLP"):
        from_keras(tmp_path / "lambda.keras")


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(
        ValueError,
        match=r"from_keras: source must be a built model; begin it with keras.Input, or call it once",
    ):
        from_keras(keras.Sequential([layers.Dense(2)]))


def test_subclassed_models_are_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(
        TypeError,
        match=r"from_keras: source must be .*, got Own; a subclassed model records no order",
    ):
        from_keras(Own())


def chain(*parts):
    return keras.Sequential([keras.Input((4,)), *parts])


def test_lora_is_added_to_the_kernel(read):
    model = chain(layers.Dense(5, "tanh"), layers.Dense(2, use_bias=False))
    for layer in model.layers:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.5))  # it begins at 0
    first, second = model.layers
    if read.is_h5:  # it holds LoRA's parts; Keras does not add them when it saves
        with pytest.raises(
            ValueError,
            match="the layer 'Dense' must have 2 arrays, got 4; quantised layers are not read, nor LoRA's",
        ):
            read(model)
        return
    assert_bits(read(model), *map(np.asarray, (first.kernel, first.bias, second.kernel)))
    model = chain(layers.EinsumDense("ab,bc->ac", output_shape=3))
    model.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match="the layer 'EinsumDense' can't be part of an MLP"):
        read(model)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_layers_are_refused(read, mode):
    for bias in (True, False):
        model = chain(layers.Dense(4, use_bias=bias))
        model.quantize(mode)
        with pytest.raises(
            ValueError, match=rf"^from_keras: source: (layers must not be quantised, got {mode}|.*quantised)"
        ):
            read(model)


def relu(x):
    return 2 * x


class Doubled(layers.Dense):
    def call(self, x):
        return 2 * super().call(x)


class Residual(keras.Sequential):
    def call(self, x, training=None):
        return x + super().call(x)


@keras.saving.register_keras_serializable("tests")
class Registered(layers.Dense):
    pass


def patched():
    model = chain(layers.Dense(4))
    model.layers[0].call = lambda x: x
    return model


@pytest.mark.parametrize(("model", "message"), [
    (lambda: chain(Doubled(4)), "the layer 'Doubled' is not one of Keras's own; convert the part without it"),
    (lambda: chain(Registered(4)), "the layer 'Registered' is not one of Keras's own"),
    (lambda: chain(Residual([layers.Dense(4)])), "the layer 'Residual' is not one of Keras's own"),
    (lambda: chain(layers.SpectralNormalization(layers.Dense(4))), "the layer 'SpectralNormalization' can't be part of an MLP"),
])  # fmt: skip
def test_layers_that_compute_something_else_are_refused(read, model, message):
    if read.is_h5:  # it does not name modules
        message = (
            message.split(";")[0]
            .replace("Registered", "tests>Registered")
            .replace("is not one of Keras's own", "can't be part of an MLP")
        )
    with pytest.raises(ValueError, match=f"^from_keras: source: {message}"):
        read(model())


def patched_itself():
    model = chain(layers.Dense(4))
    model.call = lambda x, training=None, mask=None: x
    return model


def repeated():
    layer = layers.Dense(4)
    return chain(layer, layer)


def parameter_that_ours_does_not_take():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.ops.celu(layers.Dense(3)(inputs), -0.5))


@keras.saving.register_keras_serializable("tests")
def registered(x):
    return x


@pytest.mark.parametrize(("model", "message"), [
    (patched_itself, "layers must compute what their class does, got a call of its own on Sequential"),
    (repeated, "layers must be called once each, got 'dense.*' several times, which Keras's configuration"),
    (lambda: chain(layers.Dense(4, registered)), "activations must be one of .*, got 'tests>registered'; code in a file"),
    (parameter_that_ours_does_not_take, "'Celu' with .* is not an activation of jaxneuron"),
    (patched, "layers must compute what their class does, got a call of its own on Dense 'dense.*'; remove it"),
    (lambda: chain(layers.Dense(4, relu)), "activations must be Keras's own, got another function named 'relu' in Dense 'dense.*'; use from_pairs"),
    (lambda: chain(layers.Dense(4), layers.Activation(relu)), "got another function named 'relu' in Activation "),
    (lambda: chain(keras.Sequential([layers.Dense(4, relu)])), "got another function named 'relu' in Dense "),
])  # fmt: skip
def test_models_that_differ_from_their_configuration_are_refused(model, message):
    with pytest.raises(ValueError, match=f"^from_keras: source: .*{message}"):
        from_keras(model())


def test_a_model_that_keras_cannot_save_is_refused():
    model = chain(layers.Dense(4, functools.partial(keras.activations.relu, negative_slope=0.3)))
    with pytest.raises(
        ValueError, match=r"^from_keras: source must be a model that Keras can save, got Seq.*partial"
    ):
        from_keras(model)


def test_check_finds_a_patched_class(monkeypatch, tmp_path):
    model = chain(layers.Dense(3))
    call = layers.Dense.call
    monkeypatch.setattr(layers.Dense, "call", lambda self, x, training=None: 2 * call(self, x))
    with pytest.raises(
        ValueError, match=r"^from_keras: source must compute what its layers say, got outputs"
    ):
        from_keras(model)
    assert len(from_keras(model, check=False).layers) == 1
    monkeypatch.undo()
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        from_keras(source, check=(X, model(X)))
        with pytest.raises(
            ValueError, match=r"^from_keras: check must hold what the network gives, got outputs"
        ):
            from_keras(source, check=(X, 1 + model(X)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_check_allows_the_roundings_of_a_mixed_precision_policy(policy):
    """The policy keeps weights and the last layer in float32, and computes other products in 16 bits."""
    model = chain(
        layers.Normalization(mean=300.0, variance=4.0, dtype=policy),
        layers.Dense(64, "tanh", dtype=policy, kernel_constraint="non_neg"),
        layers.Dense(2),
    )
    assert from_keras(model).layers[0].w.dtype == np.float32


def test_dictionaries_of_one_input_and_one_output_are_read(read):
    x = keras.Input((4,), name="x")
    y = layers.Dense(2)(x)
    assert_bits(read(keras.Model({"x": x}, {"y": y})), *keras.Model(x, y).get_weights())
    with pytest.raises(ValueError, match="must be one chain from one input to one output"):
        read(keras.Model({"x": x}, {"y": y, "z": layers.Dense(3)(x)}))
