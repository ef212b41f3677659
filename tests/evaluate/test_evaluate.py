"""`evaluate`: right outputs, the same bits for any form of rows, bounded memory, clean stops after errors."""

import functools
import itertools
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh

import jaxneuron
from jaxneuron import MLP, evaluate, init_mlp
from jaxneuron._evaluate.batches import default_tile
from jaxneuron._evaluate.devices import _program
from jaxneuron._kernels import library
from jaxneuron.testing import assert_within_error_bound, count_compilations
from tests import make_qlknn
from tests.pools import mlps_and_inputs

TILE = 16


@functools.cache
def network(sizes=(3, 133, 17, 2), activation="tanh", final_activation="softmax"):
    return init_mlp(jax.random.key(0), sizes, activation=activation, final_activation=final_activation)


def numbers(n, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def split(rows, cuts):
    return np.split(rows, sorted(cut % (len(rows) + 1) for cut in cuts))


# --- truth ---


@settings(max_examples=15)
@given(mlps_and_inputs(batch=[(0,), (1,), (7,)]))
def test_outputs_within_the_bound_of_mlp_forward(mlp_and_x):
    mlp, x = mlp_and_x
    y = evaluate(mlp, x, tile=2)
    assert y.dtype == x.dtype
    assert y.shape == (len(x), mlp.layers[-1].w.shape[1])
    assert_within_error_bound(mlp, x, y)


def test_a_network_without_weights_runs_on_several_devices():
    mlp = MLP([(np.zeros((0, 2), np.float32), None)], final_activation=jnp.cos)  # XLA evaluates it
    assert evaluate(mlp, np.zeros((3, 0), np.float32), tile=16).tolist() == [[1, 1]] * 3


def test_qlknn_gives_its_published_outputs():
    with np.load(make_qlknn.SHIPPED.with_name("qlknn_7_11_reference.npz")) as reference:
        inputs, published = reference["inputs"], reference["outputs"]
    y = evaluate(jaxneuron.load(make_qlknn.SHIPPED), inputs)
    assert (np.abs(y - published) / np.abs(published).max(axis=0)).max() < 1e-4


# --- the same bits ---


@settings(max_examples=60)
@given(
    n=st.integers(0, 5 * TILE),
    start=st.integers(0, 3 * TILE),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    devices=st.sampled_from([1, 2]),
    how=st.sampled_from(["array", "chunks", "lists", "jax", "out", "function"]),
)
def test_a_row_has_the_same_bits_in_any_form_of_rows(n, start, cuts, devices, how):
    mlp, rows = network(), numbers(8 * TILE)
    every = evaluate(mlp, rows, tile=TILE, devices=jax.devices()[:1])
    x = rows[start : start + n]
    forms = {
        "chunks": iter(split(x, cuts)),
        "lists": [chunk.reshape(-1, 3).tolist() or np.empty((0, 3), np.float32) for chunk in split(x, cuts)],
        "jax": jnp.asarray(x),
    }
    call = functools.partial(evaluate, mlp, forms.get(how, x), tile=TILE, devices=jax.devices()[:devices])
    if how == "out":
        y = np.full((n, 2), np.nan, np.float32)
        assert call(out=y) is y
    elif how == "function":
        chunks = [np.empty((0, 2), np.float32)]
        assert call(out=chunks.append) is None
        y = np.concatenate(chunks)
    else:
        y = call()
    assert y.tobytes() == every[start : start + n].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_has_the_same_bits_at_every_place_of_a_default_tile(dtype):
    mlp = jax.tree.map(lambda a: a.astype(dtype), jaxneuron.load(make_qlknn.SHIPPED))
    mlp = jax.tree.map(jnp.asarray, mlp)
    n = 2 * default_tile(mlp) + 77
    rows = np.repeat(numbers(1, 10).astype(dtype), n, axis=0)
    for devices in (jax.devices()[:1], jax.devices()):
        y = evaluate(mlp, rows, devices=devices)
        assert len(np.unique(y.view(np.uint8).reshape(n, -1), axis=0)) == 1


@pytest.mark.parametrize("tile", [1, 12, 250])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(7, 1), (2, 3, 1), (3, 5, 2)])
def test_a_row_has_the_same_bits_at_every_place_of_any_tile(tile, dtype, sizes):
    """With these sizes of tiles, XLA's own matrix product gives other bits to the last rows of a tile."""
    with jax.enable_x64(True):
        mlp = jax.tree.map(lambda a: a.astype(dtype), init_mlp(jax.random.key(0), sizes, activation="tanh"))
        rows = np.repeat(numbers(1, sizes[0]).astype(dtype), 530, axis=0)
        assert len(np.unique(evaluate(mlp, rows, tile=tile), axis=0)) == 1


def test_eight_devices_give_the_bits_of_one():
    program = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from jaxneuron import evaluate, load
from tests import make_qlknn
rows = np.random.default_rng(0).normal(size=(9000, 10)).astype(np.float32)
mlp = load(make_qlknn.SHIPPED)
devices = jax.devices("cpu")
each = [evaluate(mlp, rows, tile=256, devices=devices[:n]) for n in (1, 3, 8)]
assert len(devices) == 8 and len({y.tobytes() for y in each}) == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.parametrize("x64", [False, True])
def test_float64_rows_keep_their_dtype_if_x64_is_on(x64):
    mlp, rows = make_qlknn.folded_qlknn(), numbers(40, 10).astype(np.float64)
    with jax.enable_x64(x64):
        y = evaluate(mlp, rows, tile=TILE)
        assert y.dtype == (np.float64 if x64 else np.float32)
        assert_within_error_bound(mlp if x64 else jax.device_put(mlp), rows[:3].astype(y.dtype), y[:3])


# --- one compiled program for all devices ---


@pytest.mark.parametrize("activation", ["tanh", jnp.sin])
def test_nothing_compiles_after_the_first_call(activation):
    """If the kernel evaluates the network, the first call does not compile anything either."""
    mlp = network((3, 9, 2), activation)
    with count_compilations() as first:
        evaluate(mlp, numbers(100), tile=8)
    with count_compilations() as later:
        for rows in (numbers(0), numbers(1), numbers(7), numbers(1000), iter([numbers(5), numbers(90)])):
            evaluate(mlp, rows, tile=8)
        evaluate(network((3, 9, 2), activation, final_activation="softmax"), numbers(3), tile=8)
    by_xla = activation is jnp.sin or library.missing() is not None
    assert (len(first), len(later)) == (int(by_xla), 0)


def test_the_program_for_several_devices_exchanges_nothing():
    mlp, mesh = network(), Mesh(np.array(jax.devices("cpu")), ("rows",))
    assert mesh.size == 2
    text = _program(mesh).lower(mlp, numbers(2 * TILE)).compile().as_text()
    assert f"f32[{TILE},3]" in text  # each device has a tile of its own
    assert not re.search(r"all-|collective|reduce-scatter|send|recv|channel_id", text)


@pytest.mark.parametrize("activation", ["tanh", jnp.sin])
def test_evaluate_transfers_no_weights_implicitly(activation):
    mlp = jax.tree.map(np.asarray, network(activation=activation))
    with jax.transfer_guard_host_to_device("disallow"):
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jaxneuron.mlp_forward(mlp, numbers(5))
        evaluate(mlp, numbers(200), tile=TILE)


# --- bounded memory, and overlapping work ---


def test_ten_million_memory_mapped_rows_take_less_than_300_mb():
    """Measures memory beyond that of an idle JAX process. Pages of mapped files are not counted."""
    program = """
import re, jax, jax.numpy as jnp, numpy as np
from jaxneuron import evaluate, init_mlp
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1000
jnp.ones(3).block_until_ready()
idle, most = anonymous(), []
n = 10_000_000
rows = np.lib.format.open_memmap("rows.npy", "w+", np.float32, (n, 10))
out = np.lib.format.open_memmap("out.npy", "w+", np.float32, (n, 8))
evaluate(init_mlp(jax.random.key(0), (10, 16, 8)), rows, out=out, progress=lambda *_: most.append(anonymous()))
assert out[0].tobytes() == out[-1].tobytes() != bytes(32)
print(round(max(most) - idle))
"""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
        )
    assert int(done.stdout) < 300  # MB


def test_reading_computing_and_writing_overlap():
    mlp, rows, tiles = network((256,) * 5), numbers(2048, 256), 20

    def seconds(pause):
        def read():
            for _ in range(tiles):
                time.sleep(pause)
                yield rows

        start = time.perf_counter()
        evaluate(mlp, read(), out=lambda _: time.sleep(pause), tile=len(rows), devices=jax.devices("cpu")[:1])
        return time.perf_counter() - start

    seconds(0)
    # Without overlap this takes 3 times as long as computing alone. If only two of the three overlap, 2 times.
    ratios = []
    for _ in range(5):
        computing = seconds(0)
        ratios.append(seconds(computing / tiles) / computing)
        if ratios[-1] < 1.8:
            return
    raise AssertionError(ratios)


def test_out_may_be_the_rows_themselves():
    mlp, rows = network((3, 5, 3)), numbers(10 * TILE + 3)
    expected = evaluate(mlp, rows, tile=TILE)
    assert evaluate(mlp, rows, out=rows, tile=TILE) is rows
    assert rows.tobytes() == expected.tobytes()


def test_nan_in_a_row_stays_in_its_row():
    rows = numbers(50)
    rows[13, 1] = np.nan
    y = evaluate(network(), rows, tile=TILE)
    assert np.flatnonzero(np.isnan(y).any(axis=1)).tolist() == [13]


def test_progress_counts_rows(capsys):
    counts, devices = [], jax.devices("cpu")  # two devices

    def count(*rows):
        counts.append(rows)

    evaluate(network(), numbers(80), tile=16, devices=devices, progress=count)
    evaluate(network(), iter([numbers(40)]), tile=16, devices=devices, progress=count)
    assert counts == [(32, 80), (64, 80), (80, 80), (32, None), (40, None)]
    evaluate(network(), numbers(40), tile=8, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(r"100%.*40.0/40.0 .*rows/s", printed.err)


# --- faults: everything stops, the first error is raised, and only whole chunks were written ---


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["rows", "out", "progress"])
def test_an_error_stops_all_threads_and_is_raised(error, where):
    written, threads = [], threading.active_count()

    def read():
        for i in itertools.count():
            if where == "rows" and i == 9:
                raise error("the tenth")
            yield numbers(15, seed=i)

    def write(chunk):
        if where == "out" and len(written) == 4:
            raise error("the fifth")
        written.append(chunk)

    def report(done, total):
        if where == "progress" and done > 50:
            raise error("far enough")

    with pytest.raises(error, match=r"the tenth|the fifth|far enough"):
        evaluate(network(), read(), out=write, tile=TILE, progress=report, devices=jax.devices()[:1])
    assert threading.active_count() == threads
    assert {chunk.shape for chunk in written} <= {(TILE, 2)}
    rows = np.concatenate([numbers(15, seed=i) for i in range(20)])[: TILE * len(written)]
    assert b"".join(chunk.tobytes() for chunk in written) == evaluate(network(), rows, tile=TILE).tobytes()
    assert where != "out" or len(written) == 4


def test_an_interrupt_stops_evaluate_at_once(tmp_path):
    # A shell makes a background process ignore SIGINT, and so do the processes that it starts. The program
    # undoes that.
    program = """
import itertools, signal, threading, time, jax, numpy as np
from jaxneuron import evaluate, init_mlp
signal.signal(signal.SIGINT, signal.default_int_handler)
mlp = init_mlp(jax.random.key(0), (3, 4, 2))
def read():
    for i in itertools.count():
        if i == 20:
            print("reading", flush=True)
            time.sleep(60)
        yield np.ones((100, 3), np.float32)
try:
    evaluate(mlp, read(), out=lambda chunk: None, tile=64)
except KeyboardInterrupt:
    assert threading.active_count() == 1
    print("stopped")
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "reading\n"
    start = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "stopped\n"
    assert time.perf_counter() - start < 10


# --- refusals ---

READ_ONLY = np.empty((4, 2), np.float32)
READ_ONLY.flags.writeable = False
ROWS = numbers(4)
HUGE = MLP([(np.broadcast_to(np.float32(1), (2**22, 2**22)), None)])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: evaluate("abc", ROWS), TypeError, "evaluate: mlp must be an MLP, got str; pass MLP(layers), parameters first"),
        (lambda: evaluate(network(), 3), TypeError, "evaluate: rows must be an array (n, 3) or an iterable of such chunks, got int"),
        (lambda: evaluate(network(), numbers(4, 5)), ValueError, "evaluate: rows must have shape (n, 3), one column for each input of the network, got (4, 5)"),
        (lambda: evaluate(network(), ROWS[0]), ValueError, "got (3,); pass [row] for one row"),
        (lambda: evaluate(network(), ROWS.astype(complex)), TypeError, "evaluate: rows must hold booleans, integers, or one of"),
        (lambda: evaluate(network(), iter([ROWS, numbers(2, 5)])), ValueError, "evaluate: rows: chunk 1 (from row 4) must have shape (n, 3), one column for each input of the network, got (2, 5)"),
        (lambda: evaluate(network(), [ROWS, ROWS.astype(np.float16)]), TypeError, "evaluate: rows: chunk 1 (from row 4) must hold float32 like the chunks before, got float16; convert every chunk with .astype"),
        (lambda: evaluate(network(), [ROWS, "abc"]), TypeError, "evaluate: rows: chunk 1 (from row 4) must hold booleans"),
        (lambda: evaluate(network(), np.array([[0, 0, 0]] * 20 + [[2**40, 0, 0]]), tile=4, devices=jax.devices()[:1]), ValueError, "evaluate: rows[16:21] must fit in int32 while jax_enable_x64 is off"),
        (lambda: evaluate(network(), ROWS, tile=0), ValueError, "evaluate: tile must be at least 1 row, got 0; leave it out for the default"),
        (lambda: evaluate(network(), ROWS, tile=-5), ValueError, "evaluate: tile must be at least 1 row, got -5"),
        (lambda: evaluate(network(), ROWS, tile=1.5), TypeError, "evaluate: tile must be a whole number of rows, got 1.5; pass an int"),
        (lambda: evaluate(network(), ROWS, devices=[]), ValueError, "evaluate: devices must be one or more of this process's, each once, got []; pass some of jax.local_devices()"),
        (lambda: evaluate(network(), ROWS, devices=jax.devices()[:1] * 2), ValueError, "each once"),
        (lambda: evaluate(network(), ROWS, devices=["cpu"]), ValueError, "got ['cpu']"),
        (lambda: evaluate(network(), ROWS, devices=3), TypeError, "evaluate: devices must be a sequence of devices, got int; pass [device]"),
        (lambda: evaluate(jax.tree.map(lambda _: "w", network()), ROWS), TypeError, "evaluate: layer 0: w must hold booleans, integers, or one of"),
        (lambda: evaluate(network(), ROWS, out=[]), TypeError, "evaluate: out must be a NumPy array, a function of a chunk, or None, got list"),
        (lambda: evaluate(network(), ROWS, out=np.empty((3, 2), np.float32)), ValueError, "evaluate: out must have shape (4, 2), got (3, 2)"),
        (lambda: evaluate(network(), ROWS, out=np.empty((4, 2), np.float64)), TypeError, "evaluate: out must hold float32, the promoted dtype of mlp and rows, got float64"),
        (lambda: evaluate(network(), ROWS, out=READ_ONLY), ValueError, "evaluate: out must be writeable, got a read-only array; map a file with mode='r+', or copy it"),
        (lambda: evaluate(network((3, 3)), ROWS[:3], out=ROWS[1:]), ValueError, "evaluate: out must be rows itself or share no memory with it, got arrays that overlap"),
        (lambda: evaluate(network(), iter([ROWS]), out=np.empty((3, 2), np.float32)), ValueError, "evaluate: out must have one row for each of the rows, got 3 for at least 4"),
        (lambda: evaluate(network(), iter([ROWS]), out=np.empty((9, 2), np.float32)), ValueError, "evaluate: out must have one row for each of the rows, got 9 for 4"),
        (lambda: evaluate(HUGE, np.ones((1, 2**22), np.float32)), MemoryError, "got 70,368,744,177,664 bytes of weights and"),
        (lambda: evaluate(network(), ROWS, tile=10**12), MemoryError, "evaluate: mlp and a tile must fit in the"),
        (lambda: jax.jit(lambda x: evaluate(network(), x))(ROWS), TypeError, "evaluate: mlp and rows must hold numbers, got tracers; call mlp_forward inside jit"),
        (lambda: evaluate(jax.tree.map(lambda a: np.stack([[a]]), network()), ROWS), ValueError, "evaluate stacked networks with jax.vmap"),
    ],
)  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_nothing_is_computed_or_written_before_a_refusal():
    def write(chunk):
        raise AssertionError("written")

    for rows in (numbers(4, 5), iter([numbers(4, 5), ROWS]), ROWS.astype(complex)):
        with pytest.raises((ValueError, TypeError), match="evaluate: rows"):
            evaluate(network(), rows, out=write)


def test_progress_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(
        ImportError,
        match=re.escape("evaluate: progress needs the tqdm library; pip install 'jaxneuron[cli]'"),
    ):
        evaluate(network(), ROWS, progress=True)
