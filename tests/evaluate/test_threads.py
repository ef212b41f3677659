"""`Evaluator` is called by many threads, computes with many threads, and is called in forked processes."""

import contextlib
import ctypes
import ctypes.util
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxneuron import Evaluator
from jaxneuron._kernels import threads
from tests.evaluate.networks import assert_same, needs_the_kernel, network, numbers

pytestmark = pytest.mark.cpu
LONG = ((256,) * 4, 500)  # sizes and rows: takes some ms, so a second thread saves time


@pytest.mark.parametrize("rows", [1, 40, 700])
def test_calls_from_many_threads_have_the_same_bits(rows):
    evaluator = Evaluator(network((5, 133, 133, 3)))
    each = [numbers(rows, 5, seed=i) for i in range(8)]
    expected, found = [evaluator(x) for x in each], {}

    def work(i):
        out = np.empty_like(expected[i])
        for _ in range(20):
            found[i] = evaluator(each[i], out)
            assert_same(found[i], expected[i])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(8):
        assert_same(found[i], expected[i])


def test_the_same_bits_by_any_number_of_threads():
    sizes, rows = LONG
    mlp, x = network(sizes), numbers(rows, sizes[0])
    one, two, more = (Evaluator(mlp, threads=n)(x) for n in (1, 2, 1000))
    assert_same(two, one)
    assert_same(more, one)


def helpers():
    """Returns the number of threads in the pool, without JAX's own threads, which come and go meanwhile."""
    time.sleep(0.1)  # a new thread gives itself its name
    names = []
    for file in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            names.append(file.read_text())
    return names.count("jaxneuron\n")


@needs_the_kernel
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="/proc shows the threads")
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one CPU"
)
def test_only_long_calls_start_helpers_up_to_the_limit():
    program = f"""
import os, numpy as np
from jaxneuron import Evaluator
from tests.evaluate.networks import network, numbers
from tests.evaluate.test_threads import helpers
sizes, rows = {LONG}
Evaluator(network())(numbers(3))
Evaluator(network(sizes), threads=1)(numbers(rows, sizes[0]))
assert helpers() == 0, "too short, or one thread alone"
os.environ["JAXNEURON_NUM_THREADS"] = "1"
Evaluator(network(sizes))(numbers(rows, sizes[0]))
assert helpers() == 0, "the variable says one"
os.environ["JAXNEURON_NUM_THREADS"] = "2"
Evaluator(network(sizes))(numbers(rows, sizes[0]))
assert helpers() == 1, "a helper"
for _ in range(3):
    Evaluator(network(sizes))(numbers(rows, sizes[0]))
assert helpers() == 1, "it is used again"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@needs_the_kernel
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_a_thread_that_rounds_up_or_down_gets_the_same_bits(dtype):
    fesetround = ctypes.CDLL(ctypes.util.find_library("m")).fesetround
    evaluator, x = Evaluator(network((5, 133, 3), dtype=dtype)), numbers(40, 5, dtype=dtype)
    with jax.enable_x64(True):
        expected = evaluator(x)
        for rounding in 0x400, 0x800, 0xC00:
            assert fesetround(rounding << (12 if platform.machine() == "aarch64" else 0)) == 0
            try:
                found = evaluator(x)
            finally:
                fesetround(0)
            assert_same(found, expected)


def test_a_long_call_releases_the_gil():
    evaluator, x = Evaluator(network((256,) * 6), threads=1), numbers(20_000, 256)
    begun, ended, interval = threading.Event(), threading.Event(), sys.getswitchinterval()

    def work():
        begun.set()
        evaluator(x)
        ended.set()

    worker = threading.Thread(target=work)
    try:
        sys.setswitchinterval(100)  # a thread keeps the GIL until it releases it by itself
        worker.start()
        begun.wait()
        time.sleep(0.01)
        assert not ended.is_set()
    finally:
        sys.setswitchinterval(interval)
        worker.join()


@needs_the_kernel
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="a system without fork")
def test_a_forked_process_computes_the_same_bits():
    """Forks a process that has never started JAX, because a fork loses JAX's threads."""
    program = """
import multiprocessing, threading, warnings, numpy as np
from jax._src import xla_bridge
from jaxneuron import MLP, Evaluator
warnings.simplefilter("ignore")  # Python's own: a process with threads forks
rng = np.random.default_rng(0)
w, x = rng.normal(size=(2, 256, 256)).astype(np.float32) / 16, rng.normal(size=(700, 256)).astype(np.float32)
evaluator = Evaluator(MLP([(w[0], None), (w[1], None)], "tanh", "sigmoid"))
expected = evaluator(x)
assert not xla_bridge._backends, "JAX has been started"
done = threading.Event()
def keep_busy():  # so that a fork comes in the middle of a call
    while not done.is_set():
        evaluator(x)
def work(queue):
    queue.put(evaluator(x).tobytes())
busy = threading.Thread(target=keep_busy)
busy.start()
context = multiprocessing.get_context("fork")
for _ in range(10):
    queue = context.SimpleQueue()
    child = context.Process(target=work, args=(queue,))
    child.start()
    assert queue.get() == expected.tobytes()
    child.join()
    assert child.exitcode == 0
done.set()
busy.join()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, threads.MANY),
        ({"proc/self/cgroup": "0::/\n"}, threads.MANY),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, threads.MANY),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "1000 100000\n"}, 1),
        ({"proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "600000\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n"}, 6),
        ({"proc/self/cgroup": "4:cpu:/elsewhere\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, threads.MANY),
    ],
)  # fmt: skip
def test_granted_cpus_follow_the_quota_of_control_groups(tmp_path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.granted(tmp_path) == cpus


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
def test_a_bad_value_of_the_variable_is_refused(monkeypatch, value):
    monkeypatch.setenv("JAXNEURON_NUM_THREADS", value)
    with pytest.raises(
        ValueError,
        match=re.escape(
            f"Evaluator: the variable JAXNEURON_NUM_THREADS must be a number from 1 on, got {value!r}; "
            "unset it for all CPUs"
        ),
    ):
        Evaluator(network())
