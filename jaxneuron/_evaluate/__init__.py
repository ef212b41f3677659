"""Three ways to evaluate a network from NumPy.

    Evaluator       few rows in each of many calls: the CPU kernel, without JAX
    evaluate        any number of rows, in bounded memory, on all devices
    RowEvaluator    the batches of a Ray data set

The files behind `evaluate`, in the order in which rows pass through them:

    known           checks a network once and keeps what later calls need
    batches         cuts rows of any form into batches of one size
    devices, gpus   evaluate a batch by JAX where the CPU kernel can't; evaluate.py calls the kernel itself
    outputs         takes the outputs: an array to fill, or a function to call

For `jaxneuron run`, rows pass through readers and columns before these, and through writers and the journal
after them.
"""

from jaxneuron._evaluate.evaluate import evaluate
from jaxneuron._evaluate.evaluator import Evaluator
from jaxneuron._evaluate.ray import RowEvaluator

__all__ = ["Evaluator", "RowEvaluator", "evaluate"]
