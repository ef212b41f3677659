"""`RowEvaluator`, by itself and in Ray Data: two actors on this machine read and write Parquet."""

import pickle
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import jaxneuron
from jaxneuron import RowEvaluator, evaluate, init_mlp, save

N = 50_001


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    save(path, init_mlp(jax.random.key(0), (3, 133, 2), activation="tanh", final_activation="identity"))
    return path


def rows(n=N):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


def assert_bits_of_evaluate(y, model, x):
    assert y.tobytes() == evaluate(jaxneuron.load(model), x, tile=1024).tobytes()


# --- by itself ---


@pytest.mark.parametrize("n", [1, 1000, 1024, 2500])
def test_any_batch_has_the_bits_of_evaluate(model, n):
    batch = {"x": rows(n), "id": np.arange(n)}
    done = RowEvaluator(model)(batch)
    assert list(done) == ["x", "id", "y"]
    assert_bits_of_evaluate(done["y"], model, rows(n))


def test_rows_may_be_columns_of_numbers_or_of_lists(model):
    by_name = dict(zip("abc", rows(9).T, strict=True))
    assert_bits_of_evaluate(RowEvaluator(str(model), ["a", "b", "c"], "out")(by_name)["out"], model, rows(9))
    lists = np.empty(9, object)
    lists[:] = list(rows(9))
    assert_bits_of_evaluate(RowEvaluator(model, "v")({"v": lists})["y"], model, rows(9))


def test_a_row_evaluator_can_be_pickled(model):
    again = pickle.loads(pickle.dumps(RowEvaluator(model, output="z")))
    assert_bits_of_evaluate(again({"x": rows(5)})["z"], model, rows(5))


def test_bfloat16_outputs_become_float32(model):
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), jaxneuron.load(model))
    assert RowEvaluator(half)({"x": rows(5).astype(jnp.bfloat16)})["y"].dtype == np.float32


def test_refusals(model):
    with pytest.raises(
        ValueError,
        match=re.escape("RowEvaluator: column must name columns of the batch, got 'x'; pass one of 'a', 'b'"),
    ):
        RowEvaluator(model)({"a": rows(2), "b": rows(2)})
    with pytest.raises(
        ValueError, match=re.escape("RowEvaluator: rows must have shape (n, 3), one column for each input")
    ):
        RowEvaluator(model)({"x": rows(2)[:, :2]})
    for arguments, message in (
        ((3,), "RowEvaluator: model must be an MLP or a path, got int; pass MLP(layers)"),
        ((model, 3), "RowEvaluator: column must be a name or a sequence of names, got 3"),
        ((model, []), "RowEvaluator: column must be a name or a sequence of names, got []"),
        ((model, "x", 3), "RowEvaluator: output must be a name, got 3"),
    ):
        with pytest.raises(TypeError, match=re.escape(message)):
            RowEvaluator(*arguments)
    with pytest.raises(TypeError, match="RowEvaluator: batch must be a dict of columns, got ndarray"):
        RowEvaluator(model)(rows(2))
    uneven = {"a": np.ones(2), "b": np.ones((2, 1)), "c": np.ones(2)}
    with pytest.raises(ValueError, match=re.escape("RowEvaluator: column 'b' must have shape (2,), a number for each row, got (2, 1)")):  # fmt: skip
        RowEvaluator(model, ["a", "b", "c"])(uneven)
    ragged = np.empty(2, object)
    ragged[:] = [np.ones(3), np.ones(2)]
    with pytest.raises(ValueError, match="give every row the same length"):
        RowEvaluator(model)({"x": ragged})


# --- in Ray ---

JOB = """
import os, signal, sys, time
from pathlib import Path
import ray
from jaxneuron import RowEvaluator

folder = Path(sys.argv[1])

class Evaluator(RowEvaluator):
    def __init__(self, model):
        super().__init__(model)
        self.calls, self.log = 0, folder / f"actor-{os.getpid()}"
        self.log.touch()

    def __call__(self, batch):
        while len(list(folder.glob("actor-*"))) < 2:  # otherwise the first actor would evaluate all batches
            time.sleep(0.1)
        self.calls += 1
        with open(self.log, "a") as file:
            file.write(f"{len(batch['id'])}\\n")
        if self.calls == 5 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)

# four by count: two for the actors, two for tasks that read and write
ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
context = ray.data.DataContext.get_current()
context.execution_options.preserve_order = True
context.enable_progress_bars = False
data = ray.data.read_parquet(folder / "rows", override_num_blocks=6)
data = data.map_batches(
    Evaluator, fn_constructor_args=(folder / "model.safetensors",), concurrency=2, batch_size=1500
)
data.write_parquet(folder / "out")
"""


def test_every_row_is_written_once_if_an_actor_is_killed(model, tmp_path):
    pytest.importorskip("ray", reason="needs Ray; pip install 'jaxneuron[ray]'")
    (tmp_path / "rows").mkdir()
    x = rows()
    for i, part in enumerate(np.array_split(np.arange(N), 3)):
        table = pa.table({"id": part, "x": pa.FixedSizeListArray.from_arrays(x[part].ravel(), 3)})
        pa.parquet.write_table(table, tmp_path / "rows" / f"{i}.parquet", row_group_size=3000)
    done = subprocess.run(
        [sys.executable, "-c", JOB, tmp_path], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "killed").exists()
    actors = [path.read_text().split() for path in tmp_path.glob("actor-*")]
    assert len(actors) >= 2
    sizes = {int(size) for sizes in actors for size in sizes}
    assert max(sizes) == 1500
    assert len(sizes) > 1  # batches of different sizes
    files = sorted((tmp_path / "out").glob("*.parquet"))
    table = pa.concat_tables([pa.parquet.read_table(file) for file in files])
    order = np.argsort(table["id"].to_numpy())  # blocks of a killed actor may be written after later blocks
    assert np.array_equal(table["id"].to_numpy()[order], np.arange(N))  # each row is there once
    y = np.array([value.as_py() for value in table["y"]], np.float32)
    assert_bits_of_evaluate(y[order], model, x)
