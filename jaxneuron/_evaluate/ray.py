"""Evaluates the rows of a Ray data set: `RowEvaluator`. Ray calls it; nothing here imports Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxneuron._errors import BadType, BadValue, public
from jaxneuron._evaluate.batches import default_tile
from jaxneuron._evaluate.columns import listed
from jaxneuron._evaluate.evaluate import evaluate_rows
from jaxneuron._evaluate.evaluator import fitting
from jaxneuron._files import on_device, read
from jaxneuron._params import MLP

LARGEST_TILE = 1024  # rows; Ray's batches have as many by default, and a larger tile would be mostly padding


class RowEvaluator:
    """A network as the function of `Dataset.map_batches` in [Ray Data](https://docs.ray.io/en/latest/data/data.html).

        batch[output] = evaluate(mlp, batch[column])

    Each actor loads the network once and evaluates the batches that it gets. On a CPU, the fused kernel
    evaluates them; on a GPU, a program that is compiled once, for tiles of at most 1024 rows. An instance can
    be pickled. It needs the extra `ray` and, if `model` is a file, the extra `files`.

    Args:
      model: an `MLP`, a stack of networks, or the path of a file that `save` wrote and every actor can read.
      column: the name of a column that holds all inputs, `(batch, n_in)`; or a sequence of names, one column
        of numbers for each input, in the network's order.
      output: the name of the column to add: `(batch, n_out)`, for a stack `(batch, members, n_out)`, in the
        promoted dtype of the network and the inputs. If that is bfloat16, which Arrow lacks, it is float32.

    Raises:
      ValueError: if the file holds no whole network, `column` has the names of its inputs in another order,
        or a batch lacks the columns or has columns that do not fit the network.
      TypeError: if an argument is of another type, or a batch is not a dict of arrays of real numbers.
      OSError: if the file can't be read.
      ImportError: if `model` is a file and safetensors is not installed.

    Numerics: a row has the bits that `evaluate` gives it with the same tile. Tested by
    tests/evaluate/test_ray.py, also with an actor that is killed.

    Example:
      >>> add = RowEvaluator(jaxneuron.gates.XOR)
      >>> sorted(add({"x": np.array([[0, 1], [1, 1]]), "id": np.array([7, 8])}))
      ['id', 'x', 'y']
    """

    @public
    def __init__(
        self, model: str | os.PathLike[str] | MLP, column: str | Sequence[str] = "x", output: str = "y"
    ) -> None:
        if not isinstance(model, (str, os.PathLike, MLP)):
            raise BadType(f"model must be an MLP or a path, got {type(model).__name__}; pass MLP(layers)")
        names = [column] if isinstance(column, str) else column
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names) or not names:
            raise BadType(f"column must be a name or a sequence of names, got {column!r}; pass strings")
        if not isinstance(output, str):
            raise BadType(f"output must be a name, got {output!r}; pass a string")
        mlp = on_device(model if isinstance(model, MLP) else read(model))
        fitting(mlp)
        if mlp.inputs and set(names) == set(mlp.inputs) and tuple(names) != mlp.inputs:
            raise BadValue(
                f"column must name the inputs in the network's order, {listed(mlp.inputs)}, "
                f"got {listed(names)}; pass list(mlp.inputs)"
            )
        self.mlp = jax.device_put(mlp)
        self.column, self.output = column, output
        self.tile = min(LARGEST_TILE, default_tile(self.mlp))

    @public
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = evaluate_rows(self.mlp, self._rows(batch), tile=self.tile)
        assert y is not None
        y = y if y.ndim == 2 else y.swapaxes(0, 1)  # rows on the first axis, members on the second
        return {**batch, self.output: y.astype(np.float32) if y.dtype.name == "bfloat16" else y}

    def __reduce__(self) -> Any:
        return RowEvaluator, (jax.tree.map(np.asarray, self.mlp), self.column, self.output)

    def _rows(self, batch: dict[str, np.ndarray]) -> Any:
        if not isinstance(batch, Mapping):
            raise BadType(
                f"batch must be a dict of columns, got {type(batch).__name__}; "
                f"pass batch_format='numpy' to map_batches"
            )
        names = [self.column] if isinstance(self.column, str) else list(self.column)
        if missing := [name for name in names if name not in batch]:
            raise BadValue(
                f"column must name columns of the batch, got {missing[0]!r}; pass one of {listed(batch)}"
            )
        if not isinstance(self.column, str):
            columns = [np.asarray(batch[name]) for name in names]
            for name, column in zip(names, columns, strict=True):
                if column.ndim != 1 or len(column) != len(columns[0]):
                    raise BadValue(
                        f"column {name!r} must have shape ({len(columns[0])},), a number for each row, "
                        f"got {column.shape}; pass the name of one column if it holds all inputs"
                    )
            return np.stack(columns, axis=1)
        rows = np.asarray(batch[self.column])
        return list(rows) if rows.dtype == object else rows  # lists, as Parquet stores them
