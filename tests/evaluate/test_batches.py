"""Rows in any form are cut into batches of one shape."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxneuron import evaluate, init_mlp
from jaxneuron._evaluate import batches, devices

TILE = 16


def network():
    return init_mlp(jax.random.key(0), (3, 133, 17, 2), activation="tanh", final_activation="softmax")


def numbers(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


@given(n=st.integers(0, 40), size=st.integers(1, 16), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_batches_hold_the_rows_and_are_padded_with_the_last_row(n, size, cuts):
    rows = numbers(n)
    chunks = np.split(rows, sorted(min(cut, n) for cut in cuts))
    for form, known in ((rows, n), (iter(chunks), None)):
        source, count, dtype = batches.source(form, 3)
        assert (count, dtype) == (known, np.float32)
        cut = list(batches.cut(source, count, size))
        assert [len(x) for x in cut] == [min(size, n - start) for start in range(0, n, size)]
        assert b"".join(x.tobytes() for x in cut) == rows.tobytes()
        for x in cut:
            whole = devices.padded(x, size)
            assert whole.shape == (size, 3)
            assert whole[: len(x)].tobytes() == x.tobytes()
            assert (whole[len(x) :] == x[-1]).all()


def test_a_reader_may_reuse_its_buffer():
    mlp, rows, buffer = network(), numbers(20 * TILE), np.empty((TILE, 3), np.float32)

    def read():
        for start in range(0, len(rows), TILE):
            buffer[:] = rows[start : start + TILE]
            yield buffer
            buffer[:] = np.nan

    assert evaluate(mlp, read(), tile=TILE).tobytes() == evaluate(mlp, rows, tile=TILE).tobytes()


def test_array_likes_are_sliced_one_tile_at_a_time():
    class Stored:
        shape, dtype, most = (5 * TILE + 1, 3), np.dtype(np.float32), 0

        def __getitem__(self, part):
            self.most = max(self.most, part.stop - part.start)
            return numbers(5 * TILE + 1)[part]

        def __array__(self, dtype=None, copy=None):
            raise AssertionError("read whole")

    stored = Stored()
    y = evaluate(network(), stored, tile=TILE, devices=jax.devices()[:1])
    assert y.tobytes() == evaluate(network(), numbers(5 * TILE + 1), tile=TILE).tobytes()
    assert stored.most == TILE


@pytest.mark.parametrize("empty", [[], iter(())])
def test_no_rows_give_no_batch(empty):
    source, n, _ = batches.source(empty, 3)
    assert list(batches.cut(source, n, 8)) == []
