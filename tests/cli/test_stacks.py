"""The commands on a file of stacked networks."""

import jax
import numpy as np
import pyarrow.parquet
import pytest

from jaxneuron import MLP, evaluate, init_mlp, load, save, summary
from jaxneuron.cli import main
from tests.row_files import numbers, read_outputs, write_rows

NAMES = {"inputs": ("a", "b", "c"), "outputs": ("flux", "heat")}


def stack(names):
    def init(key):
        layers = init_mlp(key, (3, 5, 2)).layers
        return MLP(layers, "tanh", "identity", **(NAMES if names else {}))

    return jax.vmap(init)(jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize("target", ["npy", "csv", "parquet"])
@pytest.mark.parametrize("names", [True, False])
def test_run_writes_columns_for_each_member(tmp_path, target, names):
    model, rows, out = tmp_path / "m.safetensors", tmp_path / "rows.parquet", tmp_path / f"out.{target}"
    save(model, stack(names))
    x = numbers(50)
    write_rows(rows, x)
    assert main(["run", str(model), str(rows), "-o", str(out), "--tile", "16"]) == 0
    y = evaluate(stack(names), x)
    assert np.array_equal(read_outputs(out).reshape(50, 3, 2), y.swapaxes(0, 1))
    if target == "parquet":
        each = NAMES["outputs"] if names else ("y0", "y1")
        assert pyarrow.parquet.read_schema(out).names == [
            f"member{m}_{name}" for m in range(3) for name in each
        ]


def test_a_stopped_run_of_a_stack_is_resumed(tmp_path, monkeypatch):
    model, rows, out = (str(tmp_path / name) for name in ("m.safetensors", "rows.npy", "out.npy"))
    save(model, stack(True))
    np.save(rows, numbers(3 * 2**16))
    written = []

    def stop_after_one(self, *arguments):
        written.append(arguments)
        if len(written) == 2:
            raise OSError("no space left")
        advance(self, *arguments)
        self.save()

    from jaxneuron._evaluate.journal import Run

    advance = Run.advance
    with monkeypatch.context() as patch:
        patch.setattr(Run, "advance", stop_after_one)
        assert main(["run", model, rows, "-o", out]) == 2
    assert main(["run", model, rows, "-o", out, "--resume"]) == 0
    y = evaluate(stack(True), np.load(rows))
    assert np.array_equal(np.load(out).reshape(-1, 3, 2), y.swapaxes(0, 1))


def test_info_and_convert_take_a_stack(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("m.safetensors", stack(True))
    assert main(["info", "m.safetensors"]) == 0
    assert capsys.readouterr().out == summary(stack(True)) + "\n"
    assert main(["convert", "m.safetensors", "half.safetensors", "--dtype", "bfloat16"]) == 0
    half = load("half.safetensors")
    assert (half.inputs, half.outputs, half.activations) == (*NAMES.values(), ("tanh", "identity"))
    for wide, narrow in zip(jax.tree.leaves(stack(True)), jax.tree.leaves(half), strict=True):
        assert np.array_equal(wide.astype("bfloat16"), narrow)
    capsys.readouterr()
    before = sorted(tmp_path.iterdir())
    for arguments in (
        ("convert", "m.safetensors", "m.npz"),
        ("convert", "m.safetensors", "m.stablehlo"),
        ("convert", "m.safetensors", "t.safetensors", "--torch"),
        ("plot", "m.safetensors", "-o", "m.svg"),
    ):
        assert main(list(arguments)) == 2
        assert "mlp must be one network, got a stack of 3 networks; pass a member" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
