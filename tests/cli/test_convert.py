"""`jaxneuron convert` and `info` on files that need no other library (others: tests/interop/test_cli.py)."""

import jax
import numpy as np
import pytest

import jaxneuron
from jaxneuron import init_mlp, load, mlp_forward, save
from jaxneuron._names import from_text
from jaxneuron.cli import main
from jaxneuron.convert import load_exported

MLP = init_mlp(jax.random.key(0), (3, 4, 4, 2), activation="tanh", final_activation="softmax")
ACTIVATIONS = ("--activation", "tanh", "--final-activation", "softmax")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Returns a function that runs the command line in a folder with a network, `m.safetensors`.

    It returns the exit status and the text on standard output and standard error.
    """
    monkeypatch.chdir(tmp_path)
    save("m.safetensors", MLP)

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse exits like this
            status = exit.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def bits(mlp):
    return [(a.dtype, a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(mlp)]


def test_convert_through_every_format_keeps_the_bits(run):
    table = jaxneuron.summary(MLP) + "\n"
    for arguments in (
        ("m.safetensors", "m.npz"),
        ("m.npz", "torch.safetensors", "--torch", "--orientation", "in_out", *ACTIVATIONS),
        ("torch.safetensors", "back.safetensors", *ACTIVATIONS),
        ("back.safetensors", "m.stablehlo"),
    ):
        assert run("convert", *arguments) == (0, table, "")
    assert load("back.safetensors").activations == MLP.activations
    assert bits(load("back.safetensors")) == bits(MLP)
    x = np.ones((5, 3), np.float32)
    assert np.array_equal(load_exported("m.stablehlo")(x), mlp_forward(MLP, x))
    assert run("convert", "m.safetensors", "m.stablehlo", "--weights", "arguments", "--force")[0] == 0
    assert np.array_equal(load_exported("m.stablehlo")(jax.tree.leaves(MLP), x), mlp_forward(MLP, x))


def test_convert_takes_activations_with_parameters(run):
    run("convert", "m.safetensors", "m.npz")
    for text in ("ELU(0.5)", "HardTanh(-1, 2)"):
        given = ("--orientation", "in_out", "--activation", text, "--final-activation", "mish", "--force")
        assert run("convert", "m.npz", "back.safetensors", *given)[0] == 0
        assert load("back.safetensors").activations == (from_text(text), from_text(text), "mish")
    status, _, error = run("convert", "m.npz", "n.safetensors", *given[:3], "ELU()", *given[4:])
    assert (status, error.count("'ELU()' must have numbers for alpha that ELU takes")) == (2, 1)


def test_convert_changes_the_dtype(run):
    assert run("convert", "m.safetensors", "h.safetensors", "--dtype", "bfloat16")[0] == 0
    assert load("h.safetensors").layers[0].w.dtype == "bfloat16"
    assert load("h.safetensors").activations == MLP.activations
    status, _, error = run("convert", "h.safetensors", "h.npz")
    assert (status, error) == (2, "jaxneuron: h.npz: NumPy's files hold no bfloat16; pass --dtype float32\n")


def test_info_describes_each_kind_of_file(run):
    run("convert", "m.safetensors", "m.npz")
    run("convert", "m.safetensors", "t.safetensors", "--torch")
    run("convert", "m.safetensors", "m.stablehlo")
    assert run("info", "m.safetensors")[1] == jaxneuron.summary(MLP) + "\n"
    assert run("info", "m.npz")[1].splitlines()[:3] == [
        "6 arrays, without activations", "  w0  [3, 4]  float32", "  b0  [4]  float32",
    ]  # fmt: skip
    assert run("info", "t.safetensors")[1].splitlines()[:3] == [
        "6 arrays, without activations", "  0.bias  [4]  F32", "  0.weight  [4, 3]  F32",
    ]  # fmt: skip
    assert run("info", "m.stablehlo")[1] == (
        "a compiled program for cpu, cuda, tpu: (float32[batch,3]) -> float32[batch,2]\n"
    )


def test_convert_prints_its_help(run):
    status, out, _ = run("convert", "--help")
    assert status == 0
    assert out.startswith("usage: jaxneuron convert")


def test_refusals(run, tmp_path):
    run("convert", "m.safetensors", "m.npz")
    run("convert", "m.safetensors", "m.stablehlo")
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        (("convert", "m.safetensors"), "the following arguments are required: OUT; see jaxneuron convert --help"),
        (("convert", "m.safetensors", "m.txt"), "m.txt: must be .safetensors, .onnx, .keras, .npz or .stablehlo, got '.txt'"),
        (("convert", "m.safetensors", "m"), "m: must be .safetensors, .onnx, .keras, .npz or .stablehlo, got 'no suffix'"),
        (("convert", "m.safetensors", "m.npz"), "m.npz: exists; pass --force to replace it"),
        (("convert", "m.npz", "n.safetensors"), "m.npz: does not record --activation, --final-activation, --orientation; pass them"),
        (("convert", "m.safetensors", "n.npz", *ACTIVATIONS), "m.safetensors: --activation, --final-activation do not apply to this kind of file; leave them out"),
        (("convert", "m.safetensors", "n.npz", "--torch"), "n.npz: --torch is for .safetensors files; leave it out"),
        (("convert", "m.safetensors", "n.npz", "--weights", "inside"), "n.npz: --weights is for .stablehlo files; leave it out"),
        (("convert", "m.safetensors", "n.npz", "--dtype", "int8"), "dtype must be one of bfloat16, float16, float32, float64, got int8"),
        (("convert", "m.safetensors", "n.npz", "--dtype", "nonsense"), "dtype must be one of bfloat16, float16, float32, float64, got 'nonsense'"),
        (("convert", "m.stablehlo", "n.npz"), "m.stablehlo: is a compiled program, which holds no layers to convert"),
        (("convert", "none.npz", "n.safetensors", "--orientation", "in_out", *ACTIVATIONS), "none.npz: No such file or directory"),
        (("convert", "m.npz", "n.safetensors", "--orientation", "in_out", "--activation", "tahn", "--final-activation", "relu"), "did you mean 'tanh'?"),
        (("info", "m.npz", "--output", "y"), "info: --output is for .onnx files, got m.npz; leave it out"),
    ):  # fmt: skip
        status, out, error = run(*arguments)
        assert (status, out, error.count("\n")) == (2, "", 1), (arguments, error)
        assert message in error, (arguments, error)
        assert sorted(tmp_path.iterdir()) == before
