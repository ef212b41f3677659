"""`evaluate` on GPUs. Here its code for GPUs runs on CPUs, because JAX has pinned memory for CPUs too."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import evaluate, init_mlp, mlp_forward
from jaxneuron._evaluate import gpus
from jaxneuron.testing import count_compilations

TILE = 16
CPUS = jax.local_devices(backend="cpu")


@pytest.fixture
def as_gpus(monkeypatch):
    """Makes `evaluate` use the code for GPUs on CPUs."""
    monkeypatch.setattr(gpus, "are", lambda devices: True)


def network(sizes=(3, 40, 2)):
    """Returns a network that XLA evaluates on every device, because no kernel has its last activation."""
    return init_mlp(jax.random.key(0), sizes, activation="tanh", final_activation=jnp.cos)


def numbers(n):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


# --- truth ---


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 16, 1000])
def test_outputs_equal_those_of_the_code_for_cpus(n, devices, monkeypatch):
    call = (network(), numbers(n))
    options = {"tile": TILE, "devices": CPUS[:devices]}
    y = evaluate(*call, **options)
    monkeypatch.setattr(gpus, "are", lambda devices: True)
    chunks = [np.empty((0, 2), np.float32)]
    assert evaluate(*call, **options).tobytes() == y.tobytes()
    assert evaluate(*call, out=chunks.append, **options) is None
    assert np.concatenate(chunks).tobytes() == y.tobytes()
    out = np.full_like(y, np.nan)
    assert evaluate(*call, out=out[::-1], **options) is not None
    assert out[::-1].tobytes() == y.tobytes()


# --- laws ---


def test_nothing_compiles_after_the_first_batch(as_gpus):
    mlp = network((3, 41, 2))
    evaluate(mlp, numbers(1), tile=TILE, devices=CPUS[:1])
    with count_compilations() as compiled:
        evaluate(mlp, numbers(1000), tile=TILE, devices=CPUS[:1])
    assert compiled == []


def test_threads_have_the_callers_settings(as_gpus):
    with jax.enable_x64(True):
        mlp = jax.tree.map(lambda a: a.astype("float64"), network())
        rows = numbers(100).astype("float64")
        y = evaluate(mlp, rows, tile=TILE, devices=CPUS)
        assert y.dtype == "float64"
        np.testing.assert_allclose(y, mlp_forward(mlp, rows), rtol=1e-13)


def test_evaluate_works_inside_a_trace(as_gpus):
    mlp, rows = network(), numbers(100)
    expected = evaluate(mlp, rows, tile=TILE, devices=CPUS)
    y = jax.jit(lambda: jnp.asarray(evaluate(mlp, rows, tile=TILE, devices=CPUS)))()
    assert np.asarray(y).tobytes() == expected.tobytes()


@pytest.mark.parametrize("failing", ["reader", "writer"])
def test_a_failure_leaves_no_thread_and_writes_no_later_chunk(failing, as_gpus):
    written, before = [], threading.active_count()

    def rows():
        for start in range(0, 1000, 10):
            if failing == "reader" and start == 500:
                raise OSError("gone")
            yield numbers(1000)[start : start + 10]

    def write(chunk):
        if failing == "writer" and len(written) == 5:
            raise OSError("gone")
        written.append(chunk)

    with pytest.raises(OSError, match="gone"):
        evaluate(network(), rows(), out=write, tile=TILE, devices=CPUS)
    assert threading.active_count() == before
    whole = evaluate(network(), numbers(1000), tile=TILE, devices=CPUS)
    assert b"".join(chunk.tobytes() for chunk in written) == whole[: sum(map(len, written))].tobytes()
