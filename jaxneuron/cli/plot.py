"""`jaxneuron plot WHAT -o FILE`: draws gates, activations, the error of sigmoid, or a network."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxneuron import gates, plot
from jaxneuron._atomic import replacing
from jaxneuron._errors import missing
from jaxneuron._files import read
from jaxneuron._names import BY_NAME, from_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GATES = ("and", "or", "nand", "xor")
# Without the date in the metadata, the same picture is the same file every day.
PICTURES = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "plot",
        help="draw gates, activations, the error of sigmoid, or a network",
        description="Draw a picture of gates, activations, the error of sigmoid, or a network.",
    )
    parser.add_argument(
        "what", metavar="WHAT", nargs="+", help=f"gates, for all four; {', '.join(GATES)}; activations, such "
        "as sigmoid tanh 'LeakyReLU(0.2)'; error, for the error of sigmoid in ULP; or a .safetensors file of "
        "jaxneuron.save, for its layers",
    )  # fmt: skip
    parser.add_argument(
        "-o", dest="out", metavar="FILE", type=Path, required=True, help="the picture: .png, .svg or .pdf"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(command=_plot)


def _plot(options: argparse.Namespace) -> None:
    out = options.out
    if out.suffix not in PICTURES:
        raise ValueError(
            f"{out}: pictures must go to a .png, .svg or .pdf file, got {out.suffix or 'no suffix'!r}; "
            f"pass a name with such a suffix"
        )
    if out.exists() and not options.force:
        raise ValueError(f"{out}: exists; pass --force to replace it")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("matplotlib", "plot", "plot:") from None
    figure = Figure(figsize=plot.SIZE, layout="constrained")
    _draw(options.what, figure)
    with rc_context({"svg.hashsalt": "jaxneuron"}), replacing(out) as file:
        figure.savefig(file, format=out.suffix[1:], dpi=200, metadata=PICTURES[out.suffix])


def _draw(what: list[str], figure: Figure) -> None:
    if all(name in BY_NAME or from_text(name) != name for name in what):
        plot.plot_activation(*map(from_text, what), ax=figure.add_subplot())
    elif what == ["gates"]:
        figure.set_size_inches(plot.GATES_SIZE)
        plot.plot_gates(figure)
    elif what == ["error"]:
        plot.plot_error(ax=figure.add_subplot())
    elif len(what) == 1 and what[0] in GATES:
        figure.set_size_inches(plot.DECISION_SIZE)
        plot.plot_decision(getattr(gates, what[0].upper()), ax=figure.add_subplot())
    elif len(what) == 1 and (what[0].endswith(".safetensors") or Path(what[0]).is_file()):
        plot.plot_network(read(what[0]), ax=figure.add_subplot())
    else:
        wrong = next(name for name in what if name not in BY_NAME)
        near = difflib.get_close_matches(wrong, ["gates", "error", *GATES, *BY_NAME], n=1, cutoff=0.6)
        known = len(what) > 1 and (wrong in near or wrong.endswith(".safetensors"))
        hint = f"did you mean {near[0]!r}?" if near else "see jaxneuron plot --help"
        hint = "draw it alone" if known else hint
        raise ValueError(
            f"plot: WHAT must be gates, {', '.join(GATES)}, error, a .safetensors file, or activations "
            f"({', '.join(sorted(BY_NAME))}), got {wrong!r}; {hint}"
        )
