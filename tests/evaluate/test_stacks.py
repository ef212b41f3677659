"""`evaluate` of a stack gives each member the bits that it has alone, for any form of rows and outputs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import Evaluator, evaluate, init_mlp
from jaxneuron._evaluate import gpus
from jaxneuron._evaluate.batches import default_tile
from jaxneuron._kernels import library
from jaxneuron.testing import assert_within_error_bound

pytestmark = pytest.mark.cpu
TILE = 16
ROWS = np.random.default_rng(0).normal(size=(5 * TILE + 3, 3)).astype(np.float32)


def stack(members=3, activation="tanh", n_out=2):
    def init(key):
        return init_mlp(
            key, (3, 17, n_out), activation=activation, final_activation="softmax", dtype="float32"
        )

    return jax.vmap(init)(jax.random.split(jax.random.key(0), members))


def members_of(mlp):
    return [jax.tree.map(lambda a, i=i: a[i], mlp) for i in range(len(mlp.layers[0].w))]


def chunked(rows, size=7):
    return (rows[start : start + size] for start in range(0, len(rows), size))


@pytest.mark.parametrize("activation", ["tanh", jnp.cos], ids=["kernel", "xla"])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("as_gpus", [False, True])
def test_every_way_gives_the_bits_of_each_member(activation, devices, as_gpus, monkeypatch):
    monkeypatch.setattr(gpus, "are", lambda devices: as_gpus)
    mlp = stack(activation=activation)
    expected = np.stack([evaluate(one, ROWS, tile=TILE) for one in members_of(mlp)])
    kernel = activation == "tanh" and not library.missing()
    if kernel:
        assert np.array_equal(expected, Evaluator(mlp)(ROWS))
    options = {"tile": TILE, "devices": jax.local_devices()[:devices]}
    out, streamed, written, counts = np.empty_like(expected), np.empty_like(expected), [], []
    assert evaluate(mlp, ROWS, out=out, **options) is out
    assert evaluate(mlp, chunked(ROWS), out=streamed, **options) is streamed
    assert evaluate(mlp, ROWS, out=lambda y: written.append(y.copy()), progress=lambda *n: counts.append(n), **options) is None  # fmt: skip
    assert counts[-1] == (len(ROWS), len(ROWS))
    for y in (evaluate(mlp, ROWS, **options), evaluate(mlp, chunked(ROWS), **options), out, streamed, np.concatenate(written, axis=1)):  # fmt: skip
        assert (y.dtype, y.shape) == (np.float32, (3, len(ROWS), 2))
        if kernel:
            assert np.array_equal(y, expected)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)  # for XLA a stack is another program


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize(("members", "n"), [*itertools.product((0, 1, 3), (0, 1, 40))])
def test_stacks_of_any_shape_and_dtype_within_bound(x64, dtype, members, n):
    mlp = jax.tree.map(lambda a: np.asarray(a[:members]).astype(jnp.dtype(dtype)), stack())
    x = ROWS[:n].astype(jnp.dtype(dtype))
    y = evaluate(mlp, x)
    assert y.dtype == ("float32" if dtype == "float64" and not x64 else dtype)
    assert y.shape == (members, n, 2)
    for one, found in zip(members_of(mlp), y, strict=True):
        assert_within_error_bound(one, x, found)


def test_out_of_another_shape_is_refused():
    for out in (
        np.empty((3, 4, 2), np.float32),
        np.empty((len(ROWS), 2), np.float32),
        np.empty(3, np.float32),
    ):
        with pytest.raises(
            ValueError, match=rf"^evaluate: out must have shape \(3, {len(ROWS)}, 2\), got \("
        ):
            evaluate(stack(), ROWS, out=out)
        with pytest.raises(ValueError, match=r"^evaluate: out must "):
            evaluate(stack(), chunked(ROWS), out=out)
    with pytest.raises(
        ValueError, match=r"out must have one row for each of the rows, got 4 for at least \d+;"
    ):
        evaluate(stack(), chunked(ROWS), out=np.empty((3, 4, 2), np.float32))


def test_a_tile_has_fewer_rows_for_more_members():
    one, many = (default_tile(stack(members, n_out=32)) for members in (1, 64))
    assert one == 64 * many
