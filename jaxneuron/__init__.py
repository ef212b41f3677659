"""Evaluation of artificial neurons and multilayer perceptrons in JAX, as pure functions over parameters."""

from jaxneuron import gates
from jaxneuron._activations import (
    cr_sigmoid,
    cr_tanh,
    elu,
    gelu,
    gelu_tanh,
    hard_sigmoid,
    identity,
    leaky_relu,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from jaxneuron._counts import dense_parameter_count, parameter_count, summary
from jaxneuron._evaluate import Evaluator, RowEvaluator, evaluate
from jaxneuron._files import load, save
from jaxneuron._forward import affine, explain, mlp_forward, neuron
from jaxneuron._init import init_mlp
from jaxneuron._params import MLP, Affine, stack_neurons
from jaxneuron._scaling import fold_input_scaling, fold_output_scaling

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "Affine",
    "Evaluator",
    "RowEvaluator",
    "affine",
    "cr_sigmoid",
    "cr_tanh",
    "dense_parameter_count",
    "elu",
    "evaluate",
    "explain",
    "fold_input_scaling",
    "fold_output_scaling",
    "gates",
    "gelu",
    "gelu_tanh",
    "hard_sigmoid",
    "identity",
    "init_mlp",
    "leaky_relu",
    "load",
    "mlp_forward",
    "neuron",
    "parameter_count",
    "relu",
    "save",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "stack_neurons",
    "summary",
    "tanh",
]
