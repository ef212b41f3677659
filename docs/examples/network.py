"""A multilayer perceptron, written by hand."""

import jax.numpy as jnp


def sigmoid(z):
    return 1 / (1 + jnp.exp(-z))


def softmax(z):
    e = jnp.exp(z - jnp.max(z, axis=-1, keepdims=True))
    return e / jnp.sum(e, axis=-1, keepdims=True)


def forward(layers, x):
    """A list of (w, b) and inputs (..., n_in): class probabilities (..., n_out)."""
    *hidden, (w, b) = layers
    for v, c in hidden:
        x = sigmoid(x @ v + c)
    return softmax(x @ w + b)
