"""Rows of a Ray Data set: `RowEvaluator`. Ray calls it; nothing here imports Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxneuron._evaluate import default_tile, evaluate
from jaxneuron._files import load
from jaxneuron._params import MLP

BATCH = 1024  # Ray's batches, unless it is told otherwise; a larger tile would be padding


class RowEvaluator:
    """A network for `Dataset.map_batches` of [Ray Data](https://docs.ray.io/en/latest/data/data.html).

        batch[output] = evaluate(mlp, batch[column])

    Args:
      model: a file of `save`, which every actor must be able to read, or an `MLP`.
      column: of inputs, `(batch, n_in)`; or a sequence of names, of a column of numbers for each input.
      output: the column that is added, `(batch, n_out)`; in float32 where the network's is bfloat16.

    Each actor loads the network and compiles once, and evaluates whatever batches it gets in tiles of one
    shape, of 1024 rows at most: a row's bits are those of `evaluate` with that `tile`. An instance can be
    pickled. Extra `ray`.

    Raises:
      ValueError: a batch without the column; and as for `load` and `evaluate`.

    Held by tests/test_ray.py, with an actor that is killed.

    Example:
      >>> add = RowEvaluator(jaxneuron.gates.XOR)
      >>> sorted(add({"x": np.array([[0, 1], [1, 1]]), "id": np.array([7, 8])}))
      ['id', 'x', 'y']
    """

    def __init__(
        self, model: str | os.PathLike[str] | MLP, column: str | Sequence[str] = "x", output: str = "y"
    ) -> None:
        self.mlp = jax.device_put(load(model) if isinstance(model, (str, os.PathLike)) else model)
        self.column, self.output = column, output
        self.tile = min(BATCH, default_tile(self.mlp))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = evaluate(self.mlp, self._rows(batch), tile=self.tile)
        assert y is not None
        return {**batch, self.output: y.astype(np.float32) if y.dtype.name == "bfloat16" else y}

    def __reduce__(self) -> Any:
        return RowEvaluator, (jax.tree.map(np.asarray, self.mlp), self.column, self.output)

    def _rows(self, batch: dict[str, np.ndarray]) -> Any:
        names = [self.column] if isinstance(self.column, str) else list(self.column)
        if missing := [name for name in names if name not in batch]:
            raise ValueError(
                f"RowEvaluator: column must name columns of the batch, {', '.join(map(repr, batch))}, "
                f"got {missing[0]!r}"
            )
        if not isinstance(self.column, str):
            return np.stack([batch[name] for name in names], axis=1)
        rows = batch[self.column]
        return list(rows) if rows.dtype == object else rows  # lists, as Parquet stores them
