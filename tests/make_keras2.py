"""Makes the files of Keras 2 in tests/data/keras/, with random weights.

    pip install tensorflow==2.15.1; python tests/make_keras2.py    # and again with 2.13.1, whose files differ

One model has every layer that the importer reads differently from Keras 3. Of the other model, a plain one,
only the weights are written.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "keras"


def models(keras, rng):
    layers = keras.layers
    inner = keras.Sequential(
        [
            layers.Dense(4, "tanh", input_shape=(5,), trainable=False),
            layers.BatchNormalization(),
            layers.Dense(3),
        ],
        name="inner",
    )
    x = keras.Input((2, 2))
    y = layers.Flatten()(x)
    for layer in (
        layers.Normalization(), layers.Dense(5), layers.LeakyReLU(0.3), layers.Dropout(0.1), layers.BatchNormalization(axis=1), inner,
        layers.Reshape((3,)), layers.Dense(4, "hard_sigmoid"), layers.ELU(0.5), layers.GaussianNoise(0.1), layers.Dense(2, use_bias=False),
    ):  # fmt: skip
        y = layer(y)
    functional = keras.Model(x, y)
    sequential = keras.Sequential([layers.Dense(8, "relu", input_shape=(4,)), layers.Dropout(0.5), layers.Dense(8, "relu"), layers.Dense(2, "sigmoid")])  # fmt: skip
    for weight in functional.weights + sequential.weights:
        values = rng.normal(size=weight.shape) * 0.5
        weight.assign((np.abs(values) if "variance" in weight.name else values).astype(weight.dtype.as_numpy_dtype))  # fmt: skip
    return functional, sequential


def main():
    import tensorflow

    rng = np.random.default_rng(0)
    functional, sequential = models(tensorflow.keras, rng)
    version = "_".join(tensorflow.__version__.split(".")[:2])
    FOLDER.mkdir(exist_ok=True)
    functional.save(FOLDER / f"{version}_model.keras")
    sequential.save_weights(FOLDER / f"{version}.weights.h5")
    if version == "2_15":  # both versions write these two files in the same form
        functional.save(FOLDER / f"{version}_model.h5", include_optimizer=False)
        sequential.save_weights(FOLDER / f"{version}_weights.h5")  # this name gives another layout
    rows = rng.normal(size=(5, 4)).astype(np.float32)
    loaded = tensorflow.keras.models.load_model(
        FOLDER / f"{version}_model.keras"
    )  # only a loaded model's Normalization is ready to evaluate
    outputs = loaded(rows.reshape(5, 2, 2)).numpy(), sequential(rows).numpy()
    np.savez(FOLDER / f"{version}.npz", rows=rows, model=outputs[0], weights=outputs[1])


if __name__ == "__main__":
    main()
