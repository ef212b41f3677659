import json
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

import bench.__main__
from bench import accuracy, floor, memory
from bench.cases import CASES, Case, network
from bench.contenders import OURS, PEERS
from bench.timing import measure
from bench.truth import check, truth
from jaxneuron._math import oracle

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("_rank_promotion_allowed")]
SMALL = Case((3, 5, 2), "tanh", "sigmoid", 6, "quick to check")


@pytest.fixture
def _rank_promotion_allowed():
    """Allows rank promotion, which the suite forbids but other libraries in the bench need."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_bench_writes_the_results_that_it_prints(tmp_path):
    out = tmp_path / "results.json"
    words = ["4-16-16-2 tanh x 1, 4096", "64x4 sigmoid x 16"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bench", "--quick", *words, "-o", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(out.read_text())
    few, population = results["cases"]
    assert few["case"]["sizes"] == [64] * 4
    assert few["seconds"].keys() >= {"mlp_forward", "jit(mlp_forward)", "textbook"}
    assert population["case"]["members"] == 4096
    assert "mlp_forward" in population["absent"]
    for each in (few, population):
        row = next(line for line in done.stdout.splitlines() if line.startswith(each["case"]["name"]))
        assert row.endswith("WON" if each["speed"]["median"] >= 1 else "LOST")
        assert len(row) <= 120
    assert few["over_floor"] is None
    assert population["over_floor"] > 0
    speeds = [each["speed"]["median"] for each in results["cases"]]
    assert results["geometric_mean"] == pytest.approx(math.prod(speeds) ** (1 / len(speeds)))
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["99-99"], "no case has one of 99-99 in its name"),
        (
            ["-o", "nowhere/results.json"],
            "-o must name a file in a folder that is there, got nowhere/results.json",
        ),
        (
            ["-o", "results.png"],
            "-o must end in .json, as the picture takes its name with .png, got results.png",
        ),
    ],
)
def test_bench_refuses_bad_arguments_before_it_runs(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    with pytest.raises(SystemExit, match="2"):
        bench.__main__.main()
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


def test_a_failing_peer_is_left_out_with_its_error(monkeypatch):
    def wrong(case, mlp, x):
        return lambda: np.zeros((case.rows, case.sizes[-1]), np.float32)

    def broken(case, mlp, x):
        raise RuntimeError("no kernel image\nand so on")

    monkeypatch.setattr(
        "bench.__main__.PEERS", {"textbook": PEERS["textbook"], "wrong": wrong, "broken": broken}
    )
    calls, absent = bench.__main__.build(SMALL, False, {})
    assert calls.keys() == {*OURS, "textbook"}
    assert absent["wrong"].startswith(
        "wrong: AssertionError: wrong must be within its error bound: 0.0, exactly "
    )
    assert absent["broken"] == "broken: RuntimeError: no kernel image"
    monkeypatch.setattr("bench.__main__.OURS", {"mlp_forward": wrong})
    with pytest.raises(AssertionError, match="mlp_forward must be within its error bound"):
        bench.__main__.build(SMALL, False, {})


def test_cases_have_unique_names_and_reasons():
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.why for case in CASES)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_truth_equals_the_oracle_and_its_bound(dtype):
    case = SMALL._replace(dtype=dtype)
    with jax.enable_x64(dtype == "float64"):
        mlp, x = network(case)
        at = truth(case, mlp, x)
    rows = np.asarray(x).astype(np.float64)[at.places]
    exact, error = oracle.mlp(mlp.layers, mlp.activations, rows, dtype)
    np.testing.assert_allclose(at.exact, exact, rtol=1e-14)
    np.testing.assert_allclose(at.ours, error, rtol=1e-6)
    assert (at.peers >= at.ours).all()


@pytest.mark.parametrize("members", [0, 3])
@pytest.mark.parametrize("contender", ["jit(mlp_forward)", "Evaluator", "textbook", "jit(vmap)"])
def test_check_finds_one_wrong_output(contender, members):
    case = SMALL._replace(members=members, shared=members == 3)
    mlp, x = network(case)
    at = truth(case, mlp, x)
    y = np.array((OURS | PEERS)[contender](case, mlp, x)())
    check(contender, y, at, ours=contender in OURS)
    y[tuple(each[-1] for each in at.places)] += 1e-3
    with pytest.raises(AssertionError, match=r"must be within its error bound: .* off by 0\.001 where"):
        check(contender, y, at, ours=contender in OURS)


def test_check_finds_swapped_members():
    case = SMALL._replace(members=3)
    mlp, x = network(case)
    at = truth(case, mlp, x)
    y = np.array(PEERS["textbook"](case, mlp, x)())
    with pytest.raises(AssertionError, match="must be within its error bound"):
        check("mixed up", y[::-1], at, ours=False)


def test_slow_contenders_are_timed_in_few_rounds_unless_kept():
    calls = {
        name: lambda t=t: time.sleep(t) for name, t in {"fast": 0.002, "slow": 0.02, "kept": 0.02}.items()
    }
    times = measure(calls, {"kept"}, budget=0, most=61)
    assert {name: len(each.rounds) for name, each in times.items()} == {"fast": 5, "slow": 2, "kept": 5}
    assert 0.002 <= times["fast"].least <= times["fast"].low <= times["fast"].median <= times["fast"].high


def test_the_floor_counts_operations_activations_and_bytes():
    case = next(case for case in CASES if case.name == "256x5 sigmoid x 16384")
    assert case.operations == 2 * 4 * 256 * 256 * 16384
    found = floor.floor(case)
    assert found.products == case.operations / floor.matmul_peak("float32")
    assert found.activations == pytest.approx(
        4 * 256 * 16384 * floor.activation_seconds("sigmoid", "float32")
    )
    # 16 MiB in and 16 MiB out, at 1 to 1000 GB/s
    assert 2 * 256 * 16384 * 4 / 1e12 < found.copies < 2 * 256 * 16384 * 4 / 1e9


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell a process its peak memory")
def test_peak_memory_excludes_the_calling_process():
    ballast = np.ones(10**8)  # 800 MB in this process, which the other process must not count
    found = memory.peak("textbook", next(case for case in CASES if case.rows == 1))
    assert ballast.nbytes > 8e8 - 1
    assert 20 < found < 700


def test_accuracy_sweeps_every_bfloat16_number():
    with ThreadPoolExecutor(1) as pool:
        scores, hashes = accuracy.sweep("sigmoid", "bfloat16", 1, 0, pool)
    assert scores.keys() == hashes.keys() >= {"jaxneuron", "jax"}
    ours = scores["jaxneuron"]
    assert (ours.inputs, ours.inputs - ours.nearest) == (65282, 0)
    assert (ours.falls, ours.outside, ours.flushed) == (0, 0, 0)
    assert scores["jax"].nearest < ours.nearest


@pytest.mark.long
def test_accuracy_prints_its_counts():
    done = subprocess.run(
        [sys.executable, "-m", "bench.accuracy", "--function", "sigmoid", "--dtype", "bfloat16"],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = next(line for line in done.stdout.splitlines() if "jaxneuron" in line).split()
    assert ours[:4] == ["sigmoid", "bfloat16", "jaxneuron", "65,282"]
    assert ours[6:10] == ["0", "0", "0", "0"]  # misrounded, falls, outside, flushed
