"""Rows of a Ray Data set: `RowEvaluator`. Ray calls it; nothing here imports Ray."""

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

LARGEST_TILE = 1024  # the rows of a batch unless Ray is told otherwise: a larger tile would be mostly padding


class RowEvaluator:
    """A network for `Dataset.map_batches` of [Ray Data](https://docs.ray.io/en/latest/data/data.html).

        batch[output] = evaluate(mlp, batch[column])

    Each actor loads the network once and evaluates the batches it gets: on a CPU by the fused kernel, on a
    GPU in tiles of one shape, of at most 1024 rows, by a program that is compiled once. An instance can be
    pickled. Needs the extra `ray`, and `files` to read a file.

    Args:
      model: an `MLP` or a stack of them, or the path of a file of `save`, which every actor must be able to
        read.
      column: the column of inputs, `(batch, n_in)`; or a sequence of names, one column of numbers for each
        input, in their order.
      output: the name of the column that is added, `(batch, n_out)`, of a stack `(batch, members, n_out)`, in
        the promoted dtype of the network and the inputs; float32 for bfloat16, which Arrow doesn't have.

    Raises:
      ValueError: a file that holds no whole network, the names of its inputs in another order, a batch
        without the columns, or columns that do not fit the network. TypeError: a `model` that is neither, a
        batch that is not a dict of arrays of real numbers. OSError: the file can't be read. ImportError: a
        file without the extra `files`.

    Numerics: a row has the bits of `evaluate` with the same tile. Held by tests/evaluate/test_ray.py, with
    an actor that is killed.

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
            raise BadType(f"column must be a name or a sequence of names, got {column!r}")
        if not isinstance(output, str):
            raise BadType(f"output must be a name, got {output!r}")
        mlp = model if isinstance(model, MLP) else on_device(read(model))
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
        y = y if y.ndim == 2 else y.swapaxes(0, 1)  # a row comes first, then its members
        return {**batch, self.output: y.astype(np.float32) if y.dtype.name == "bfloat16" else y}

    def __reduce__(self) -> Any:
        return RowEvaluator, (jax.tree.map(np.asarray, self.mlp), self.column, self.output)

    def _rows(self, batch: dict[str, np.ndarray]) -> Any:
        if not isinstance(batch, Mapping):
            raise BadType(f"batch must be a dict of columns, got {type(batch).__name__}")
        names = [self.column] if isinstance(self.column, str) else list(self.column)
        if missing := [name for name in names if name not in batch]:
            raise BadValue(
                f"column must name columns of the batch, {', '.join(map(repr, batch))}, got {missing[0]!r}"
            )
        if not isinstance(self.column, str):
            columns = [np.asarray(batch[name]) for name in names]
            for name, column in zip(names, columns, strict=True):
                if column.ndim != 1 or len(column) != len(columns[0]):
                    raise BadValue(
                        f"column {name!r} must have shape ({len(columns[0])},), a number for each row, "
                        f"got {column.shape}; name one column alone if it holds all inputs"
                    )
            return np.stack(columns, axis=1)
        rows = np.asarray(batch[self.column])
        return list(rows) if rows.dtype == object else rows  # lists, as Parquet stores them
