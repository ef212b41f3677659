"""`jaxneuron plot` writes pictures; without matplotlib it names the extra to install."""

import re
import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

import jaxneuron
from jaxneuron import ELU, gates
from jaxneuron import plot as pictures
from jaxneuron._names import BY_NAME
from jaxneuron.cli import main
from jaxneuron.plot import plot_activation, plot_decision, plot_error, plot_gates, plot_network
from tests import make_qlknn

pytestmark = pytest.mark.once

HEADS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize(
    ("what", "suffix", "size"),
    [
        ("gates", "svg", (432, 388.8)),
        ("xor", "svg", (360, 288)),
        ("and", "pdf", None),
        ("or", "png", None),
        ("nand", "png", None),
        ("sigmoid", "svg", (432, 288)),
        ("sigmoid tanh", "svg", (432, 288)),
        ("error", "pdf", None),
        ("MODEL", "svg", (432, 288)),
    ],
)
def test_plot_writes_the_same_bytes_every_time(tmp_path, what, suffix, size):
    out = tmp_path / f"picture.{suffix}"
    arguments = [str(make_qlknn.SHIPPED) if word == "MODEL" else word for word in what.split()]
    assert main(["plot", *arguments, "-o", str(out)]) == 0
    first = out.read_bytes()
    assert first.startswith(HEADS[suffix])
    if size:
        width, height = re.search(rb'<svg [^>]*?width="(\S+)pt" height="(\S+)pt"', first.replace(b"\n", b" ")).groups()  # fmt: skip
        assert (float(width), float(height)) == size
    assert main(["plot", *arguments, "-o", str(out), "--force"]) == 0
    assert out.read_bytes() == first  # the same bytes, as people commit pictures
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_plot_draws_the_same_pictures_as_the_functions(tmp_path):
    """For each WHAT, the file has the bytes of the picture that a function of jaxneuron.plot draws."""
    drawn = {}
    for what in (*drawings(), "gates"):
        out = tmp_path / f"{what}.svg"
        assert main(["plot", what, "-o", str(out)]) == 0
        drawn[what] = out.read_bytes()
    assert len(set(drawn.values())) == len(drawn)
    for what, draw in drawings().items():
        figure = Figure(figsize=pictures.DECISION_SIZE, layout="constrained")
        if what in BY_NAME or "(" in what:
            figure.set_size_inches(pictures.SIZE)
        draw(figure.add_subplot())
        with matplotlib.rc_context({"svg.hashsalt": "jaxneuron"}):
            figure.savefig(tmp_path / "expected.svg", dpi=200, metadata={"Date": None})
        assert (tmp_path / "expected.svg").read_bytes() == drawn[what], what


def drawings():
    return {
        "and": lambda ax: plot_decision(gates.AND, ax=ax),
        "or": lambda ax: plot_decision(gates.OR, ax=ax),
        "nand": lambda ax: plot_decision(gates.NAND, ax=ax),
        "xor": lambda ax: plot_decision(gates.XOR, ax=ax),
        "relu": lambda ax: plot_activation("relu", ax=ax),
        "ELU(2.5)": lambda ax: plot_activation(ELU(2.5), ax=ax),
    }


def test_plot_runs_in_a_new_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "jaxneuron", "plot", "xor", "-o", tmp_path / "xor.png"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert plt.imread(tmp_path / "xor.png").shape == (800, 1000, 4)


KNOWN = (
    "plot: WHAT must be gates, and, or, nand, xor, error, a .safetensors file, "
    f"or activations ({', '.join(sorted(BY_NAME))})"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sigmiod -o a.png", f"{KNOWN}, got 'sigmiod'; did you mean 'sigmoid'?"),
        ("sigmoid zzz -o a.png", f"{KNOWN}, got 'zzz'; see jaxneuron plot --help"),
        ("sigmoid gates -o a.png", f"{KNOWN}, got 'gates'; draw it alone"),
        ("a.safetensors b.safetensors -o a.png", f"{KNOWN}, got 'a.safetensors'; draw it alone"),
        (
            "softmax -o a.png",
            "plot_activation: softmax is not elementwise, so it has no curve; pass another activation",
        ),
        (
            "sigmoid -o a.gif",
            "a.gif: pictures must go to a .png, .svg or .pdf file, got '.gif'; pass a name with such a suffix",
        ),
        (
            "sigmoid -o a",
            "a: pictures must go to a .png, .svg or .pdf file, got 'no suffix'; pass a name with such a suffix",
        ),
        ("sigmoid -o old.png", "old.png: exists; pass --force to replace it"),
        ("none.safetensors -o a.png", "none.safetensors: No such file or directory"),
        ("sigmoid", "the following arguments are required: -o; see jaxneuron plot --help"),
        ("-o a.png", "the following arguments are required: WHAT; see jaxneuron plot --help"),
    ],
)
def test_plot_refuses(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.png").write_text("old")
    try:
        status = main(["plot", *arguments.split()])
    except SystemExit as exit:  # argparse exits like this
        status = exit.code
    assert (status, *capsys.readouterr()) == (2, "", f"jaxneuron: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_text() == "old"


def test_a_failed_picture_leaves_no_file(tmp_path, monkeypatch, capsys):
    def fail(figure, file, **_):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(Figure, "savefig", fail)
    assert main(["plot", "relu", "-o", str(tmp_path / "relu.png")]) == 2
    assert capsys.readouterr().err == "jaxneuron: the disk is full\n"
    assert list(tmp_path.iterdir()) == []


def test_plot_exports_its_functions_alone():
    assert sorted(pictures.__all__) == sorted(name for name in vars(pictures) if name.startswith("plot_"))
    assert not hasattr(jaxneuron, "plot_activation")


def test_plot_without_matplotlib_names_the_extra(monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as absent:
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            absent.setitem(sys.modules, name, None)
        for draw in (plot_activation, plot_gates, plot_error, lambda: plot_network(gates.XOR)):
            with pytest.raises(
                ImportError, match=r"needs the matplotlib library; pip install 'jaxneuron\[plot\]'$"
            ):
                draw()
        assert main(["plot", "gates", "-o", str(tmp_path / "gates.png")]) == 2
    message = "jaxneuron: plot: needs the matplotlib library; pip install 'jaxneuron[plot]'\n"
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


def test_plot_error_without_mpmath_names_the_extra(tmp_path):
    program = """
import sys
sys.modules["mpmath"] = None
from jaxneuron.cli import main
sys.exit(main(["plot", "error", "-o", "error.png"]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    message = "jaxneuron: plot_error: needs the mpmath library; pip install 'jaxneuron[plot]'\n"
    assert (done.returncode, done.stderr) == (2, message)
    assert list(tmp_path.iterdir()) == []


def test_importing_plot_has_no_effect():
    program = """
import sys, jaxneuron.plot
from jax._src import xla_bridge
assert not xla_bridge._backends, "a device was touched"
assert "matplotlib" not in sys.modules, "matplotlib was imported"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
