"""Exported programs take any batch, have weights inside or as arguments, and run without jaxneuron."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxneuron import MLP, gates, init_mlp, mlp_forward
from jaxneuron.convert import export, load_exported
from jaxneuron.testing import assert_within_error_bound

MLP_3 = init_mlp(jax.random.key(0), (3, 5, 2), activation="tanh", final_activation="softmax")
X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("weights", ["inside", "arguments"])
def test_exported_programs_take_any_batch_within_bound(tmp_path, dtype, weights):
    mlp = jax.tree.map(lambda a: np.asarray(a).astype(jnp.dtype(dtype)), MLP_3)
    export(mlp, tmp_path / "m.stablehlo", weights=weights)
    run = load_exported(tmp_path / "m.stablehlo")
    for batch in (0, 1, 7):
        x = X[:batch].astype(jnp.dtype(dtype))
        y = np.asarray(run(*([jax.tree.leaves(mlp)] if weights == "arguments" else []), x))
        assert (y.dtype, y.shape) == (jnp.dtype(dtype), (batch, 2))
        with jax.enable_x64(dtype == "float64"):
            assert_within_error_bound(mlp, x, y)


def test_a_program_takes_other_weights_of_the_same_shapes(tmp_path):
    export(MLP_3, tmp_path / "m.stablehlo", weights="arguments")
    run = load_exported(tmp_path / "m.stablehlo")
    other = init_mlp(jax.random.key(1), (3, 5, 2), activation="tanh", final_activation="softmax")
    assert_within_error_bound(other, X, run(jax.tree.leaves(other), X))


def test_any_callable_activation_is_exported(tmp_path):
    mlp = MLP(MLP_3.layers, jnp.sin, "identity")
    export(mlp, tmp_path / "m.stablehlo")
    np.testing.assert_allclose(load_exported(tmp_path / "m.stablehlo")(X), mlp_forward(mlp, X), rtol=1e-6)


PROGRAM = """
import sys
from pathlib import Path
sys.modules["jaxneuron"] = None
import jax, numpy as np
program = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes()))
assert program.platforms == ("cpu", "cuda", "tpu"), program.platforms
np.save(sys.argv[2], program.call(np.load(sys.argv[3])))
assert not [name for name in sys.modules if name.startswith("jaxneuron.")]
"""


def test_a_program_runs_without_jaxneuron(tmp_path):
    # .ci/run does the same where it is not even installed.
    export(MLP_3, tmp_path / "m.stablehlo")
    np.save(tmp_path / "x.npy", X)
    done = subprocess.run(
        [sys.executable, "-c", "import jax.export\n" + PROGRAM, "m.stablehlo", "y.npy", "x.npy"],
        capture_output=True, text=True, cwd=tmp_path, check=False, env=os.environ | {"JAX_ENABLE_X64": "0"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    y = np.load(tmp_path / "y.npy")
    assert_within_error_bound(MLP_3, X, y)
    assert np.array_equal(y, load_exported(tmp_path / "m.stablehlo")(X))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda path: export(MLP_3, path, weights="outside"), ValueError, "export: weights must be 'inside' or 'arguments', got 'outside'; pass one of them"),
        (lambda path: export(gates.AND, path), TypeError, "export: mlp must be an MLP, got Affine; pass MLP([layer]) for a layer"),
        (lambda path: export(jax.tree.map(lambda a: np.stack([a, a]), gates.XOR), path), ValueError, "export: mlp must be one network, got a stack of 2 networks; pass a member, such as the first, jax.tree.map(lambda a: a[0], mlp)"),
        (lambda path: load_exported(path), FileNotFoundError, "m.stablehlo"),
        (lambda path: path.write_bytes(b"no") and load_exported(path), ValueError, "m.stablehlo is not a whole file of jaxneuron's export"),
        (lambda path: export(gates.XOR, path) or load_exported(path)(np.ones((2, 3))), ValueError, "load_exported: x must have shape (batch, 2) for this program, got (2, 3)"),
        (lambda path: export(gates.XOR, path) or load_exported(path)(np.ones(2)), ValueError, "load_exported: x must have shape (batch, 2) for this program, got (2,); pass rows"),
        (lambda path: export(gates.XOR, path) or load_exported(path)([], np.ones((1, 2))), TypeError, "load_exported: the program takes x alone, got 2 arguments"),
        (lambda path: export(gates.XOR, path, weights="arguments") or load_exported(path)([], np.ones((1, 2))), ValueError, "load_exported: arrays must be the 4 leaves of an MLP of these shapes: (2, 2), (2,), (2, 1), (1,), got 0"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(tmp_path / "m.stablehlo")
