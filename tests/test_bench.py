import json
import subprocess
import sys

from bench.cases import CASES


def test_bench_runs_and_writes_what_it_prints(tmp_path):
    out = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bench", "--quick", "4-16-16-2", "-o", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(out.read_text())["cases"]
    assert [tuple(each["case"]["sizes"]) for each in record] == [(4, 16, 16, 2)]
    assert set(record[0]["seconds"]) == {"mlp_forward", "jit(mlp_forward)", "textbook"}
    assert record[0]["seconds"]["textbook"]["ratio"] == 1
    assert "4-16-16-2 tanh x 1" in done.stdout


def test_accuracy_goes_through_every_bfloat16_number():
    done = subprocess.run(
        [sys.executable, "-m", "bench.accuracy", "--function", "sigmoid", "--dtype", "bfloat16"],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = next(line for line in done.stdout.splitlines() if "jaxneuron" in line).split()
    assert ours[:4] == ["sigmoid", "bfloat16", "jaxneuron", "65,282"]
    assert ours[6:10] == ["0", "0", "0", "0"]  # misrounded, falls, outside, flushed


def test_cases_are_told_apart_and_explained():
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.why for case in CASES)
