"""A network called from NumPy, `Evaluator`, and on any number of rows, `evaluate` and `RowEvaluator` for Ray.

    readers  ->  batches  ->  evaluate  ->  writers, with a journal

`evaluate`, `batches` and `devices` are the Python function; readers, writers and the journal serve
`jaxneuron run`.
"""

from jaxneuron._evaluate.evaluate import evaluate
from jaxneuron._evaluate.evaluator import Evaluator
from jaxneuron._evaluate.ray import RowEvaluator

__all__ = ["Evaluator", "RowEvaluator", "evaluate"]
