"""Pictures of activations, neurons and networks, and of the rounding errors of functions.

As in matplotlib, every function draws on `ax`, or on a new pyplot figure if `ax` is None, and returns the
Axes. No function shows or saves a figure, or changes a global setting. The colours are those of Okabe and
Ito, and cividis; things that differ in colour also differ in lightness or line style.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxneuron import gates
from jaxneuron._activations import CELU, ELU, sigmoid
from jaxneuron._arrays import ArrayLike
from jaxneuron._counts import parameter_count
from jaxneuron._errors import BadType, BadValue, missing, public
from jaxneuron._forward import _mlp_forward, neuron
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._math.formats import SELU_LIMIT
from jaxneuron._members import check_one
from jaxneuron._names import Activation, canonical, resolve
from jaxneuron._params import MLP, Affine, as_affine, as_layers
from jaxneuron._ulp import interval, name_of, reference_of, ulp_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

__all__ = ["plot_activation", "plot_decision", "plot_error", "plot_gates", "plot_network"]

SIZE, DECISION_SIZE, GATES_SIZE = (6.0, 4.0), (5.0, 4.0), (6.0, 5.4)  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")  # with 7 colours these give 28 different curves, as 7 and 4 are coprime
ASYMPTOTES = {
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0), "elu": (-1.0,),
    "selu": (-SELU_LIMIT,),
}  # fmt: skip
CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
MOST_UNITS, ENDS = 12, 5  # of a layer with more than 12 units, the first 5 and the last 5 are drawn
POSITIVE, NEGATIVE = "#0072B2", "#E69F00"  # dark and light


@public
def plot_activation(*activations: Activation, ax: Axes | None = None) -> Axes:
    """Draws the curves of one or more activations on [-8, 8], with their horizontal asymptotes.

    Args:
      *activations: names, values such as `ELU(0.5)`, or elementwise callables; "sigmoid" by default. If
        sigmoid is the only one, the point (0, 1/2) is marked, and the interval from -3 to 3, in which sigmoid
        rises from 0.05 to 0.95.
      ax: the Axes to draw on; None for a new figure.

    Returns:
      The Axes.

    Raises:
      ValueError: if a name is unknown, softmax or log_softmax, or a callable's result has another shape or
        dtype than its input.
      TypeError: if an activation is neither a name nor a callable, or `ax` is not an Axes.
      ImportError: if matplotlib, of the extra `plot`, is not installed.

    Example:
      >>> from matplotlib.figure import Figure
      >>> ax = plot_activation("sigmoid", "tanh", ax=Figure().add_subplot())
      >>> [line.get_label() for line in ax.get_lines()][:2]
      ['sigmoid', 'tanh']
    """
    z = np.linspace(-8, 8, 801, dtype=np.float32)
    names = [canonical(a, "activation") for a in activations or ("sigmoid",)]
    curves = [_values(name, z) for name in names]
    ax = _axes(ax)
    for i, (name, y) in enumerate(zip(names, curves, strict=True)):
        ax.plot(
            z, y, color=COLOURS[i % 7], linestyle=LINES[i % 4], linewidth=2, label=name_of(name), zorder=3
        )
    ax.axhline(0, color="0.6", linewidth=1)
    ax.axvline(0, color="0.6", linewidth=1)
    for level in sorted({level for name in names for level in _asymptotes(name)}):
        ax.axhline(level, color="black", linewidth=1, linestyle=(0, (4, 4)))
    ax.set_xlim(-8, 8)
    ax.set_xlabel("z")
    ax.set_ylabel(f"{name_of(names[0]) if len(names) == 1 else 'activation'}(z)")
    if names == ["sigmoid"]:
        ax.axvspan(-3, 3, color="0.92", zorder=0)
        ax.text(2.85, 0.04, "z from\n−3 to 3:\nmost of\nthe rise", ha="right", va="bottom", fontsize=9)
        ax.plot(0, 0.5, "o", color="black", markersize=6, zorder=4)
        ax.annotate("(0, 0.5)", (0, 0.5), (9, -4), textcoords="offset points", va="top")
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    if len(names) > 1:
        ax.legend(handlelength=3, framealpha=1)
    return ax


@public
def plot_decision(params: Affine | MLP, ax: Axes | None = None) -> Axes:
    """Draws the output of a neuron or a network with two inputs as shading, with the line where it is 0.5.

        y = sigmoid(x @ w + b) for an Affine, mlp_forward(params, x) for an MLP, x in [-0.5, 1.5]^2

    Circles mark the four inputs (0, 0), (0, 1), (1, 0) and (1, 1) of a logic gate. They are filled
    (black) where the output is above 0.5, and empty (white) elsewhere.

    Args:
      params: an `Affine` with `w (2,)` or `(2, 1)`, or an `MLP` with 2 inputs and 1 output.
      ax: the Axes to draw on, which becomes smaller to make room for a colour bar; None for a new figure.

    Returns:
      The Axes.

    Raises:
      ValueError: if `params` has another number of inputs or outputs.
      TypeError: if `params` is neither an `Affine` nor an `MLP`, or `ax` is not an Axes.
      ImportError: if matplotlib, of the extra `plot`, is not installed.

    Example:
      >>> from matplotlib.figure import Figure
      >>> plot_decision(jaxneuron.gates.XOR, ax=Figure().add_subplot()).get_xlabel()
      '$x_1$'
    """
    output = _plane(params)
    ax = _axes(ax, DECISION_SIZE)
    ax.figure.colorbar(_shade(output, ax), ax=ax, label="output (corners: filled above 0.5)")
    return ax


@public
def plot_gates(fig: Figure | SubFigure | None = None) -> list[Axes]:
    """Draws AND, OR and NAND, each divided by one straight line, and XOR, divided by two, in one figure.

    Args:
      fig: the figure or subfigure to draw on; None for a new figure.

    Returns:
      The four Axes, in this order.

    Raises:
      TypeError: if `fig` is not a figure.
      ImportError: if matplotlib, of the extra `plot`, is not installed.

    Example:
      >>> from matplotlib.figure import Figure
      >>> [ax.get_title() for ax in plot_gates(Figure())]
      ['AND', 'OR', 'NAND', 'XOR']
    """
    fig = _figure(GATES_SIZE) if fig is None else _checked(fig, "fig", "Figure", "SubFigure")
    axes = list(fig.subplots(2, 2, sharex=True, sharey=True).flat)
    for ax, name in zip(axes, ("AND", "OR", "NAND", "XOR"), strict=True):
        shading = _shade(_plane(getattr(gates, name)), ax)
        ax.set_title(name)
        ax.label_outer()
    fig.colorbar(shading, ax=axes, label="output (corners: filled above 0.5)")
    return axes


@public
def plot_network(mlp: MLP, ax: Axes | None = None) -> Axes:
    """Draws the layers of a network as columns of units, and its weights as lines between them.

    Positive weights are dark, negative weights light. The width of a line is proportional to |w|, relative to
    the largest |w| that is drawn in the layer. If a layer has more than 12 units, only the first five and the
    last five are drawn. The number of parameters is below each layer.

    Args:
      mlp: an `MLP`.
      ax: the Axes to draw on; None for a new figure.

    Returns:
      The Axes.

    Raises:
      ValueError: if `mlp` is a stack of networks, or a weight is NaN or infinite.
      TypeError: if `mlp` is not an `MLP`, or `ax` is not an Axes.
      ImportError: if matplotlib, of the extra `plot`, is not installed.

    Example:
      >>> from matplotlib.figure import Figure
      >>> ax = plot_network(jaxneuron.gates.XOR, ax=Figure().add_subplot())
      >>> [len(column.get_offsets()) for column in ax.collections if column.get_label() == "units"]
      [2, 2, 1]
    """
    check_one(mlp)
    weights = [np.asarray(layer.w, float) for layer in as_layers(mlp.layers)]
    for i, w in enumerate(weights):
        if not np.isfinite(w).all():
            raise BadValue(
                f"layer {i}: w must be finite, got {np.sum(~np.isfinite(w))} of {w.size} numbers that are "
                f"not; replace them with jax.numpy.nan_to_num"
            )
    ax = _axes(ax)
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    sizes = [len(weights[0]), *(w.shape[1] for w in weights)]
    drawn = [_drawn_units(size) for size in sizes]
    for i, w in enumerate(weights):
        (rows, y_in), (columns, y_out) = drawn[i], drawn[i + 1]
        shown = w[np.ix_(rows, columns)].reshape(-1)
        ends = [((i, a), (i + 1, b)) for a, b in itertools.product(y_in, y_out)]
        order = np.flatnonzero(shown)[np.argsort(np.abs(shown[shown != 0]), kind="stable")]
        widths = 2.5 * np.abs(shown[order]) / np.abs(shown).max(initial=1e-300)
        colours = [POSITIVE if shown[k] > 0 else NEGATIVE for k in order]
        lines = LineCollection([ends[k] for k in order], linewidths=widths, colors=colours, zorder=1)
        ax.add_collection(lines, autolim=False)
    names = ["input" if sizes[0] == 1 else "inputs", *map(name_of, mlp.activations)]
    counts = ["parameters", *(f"{parameter_count(layer):,}" for layer in mlp.layers)]
    tallest = max(len(y) for _, y in drawn)
    place = ax.get_xaxis_transform()  # x in layers, y as a fraction of the height
    for i, (size, (_, y)) in enumerate(zip(sizes, drawn, strict=True)):
        ax.scatter(
            np.full(len(y), i), y, s=min(600, 1500 / max(tallest, 1)), color="white" if i else "0.8",
            edgecolor="black", zorder=2, label="units",
        )  # fmt: skip
        if size > MOST_UNITS:
            ax.text(i, 0, "⋮", ha="center", va="center", fontsize=14)
        ax.text(i, 1, f"{size:,}\n{names[i]}", ha="center", va="top", fontsize=9, transform=place)
        ax.text(i, 0, counts[i], ha="center", va="bottom", fontsize=9, transform=place)
    reach = max(tallest, 2) / 2 + 0.25
    ax.set(xlim=(-0.5, len(weights) + 0.5), ylim=(-1.25 * reach, 1.35 * reach))  # room for the text
    ax.set_axis_off()
    signs = [Line2D([], [], color=c, linewidth=2.5) for c in (POSITIVE, NEGATIVE)]
    ax.legend(
        signs, ["weight > 0", "weight < 0"], ncols=2, frameon=False, fontsize=9,
        loc="upper center", bbox_to_anchor=(0.5, 0),
    )  # fmt: skip
    return ax


@public
def plot_error(
    *functions: Activation,
    reference: str | Callable[[np.ndarray], ArrayLike] | None = None,
    span: tuple[float, float] = (-20.0, 20.0),
    ax: Axes | None = None,
) -> Axes:
    """Draws the errors of float32 functions, in ULP, against their input.

        error(z) = |f(z) - reference(z)| / ulp(reference(z)),  ulp(y) = 2^(max(floor(log2 |y|), -126) - 23)

    `span` is divided into 256 intervals with 32 inputs each, and a line shows the largest error in each
    interval. The error of a correctly rounded function is at most 0.5.

    Args:
      *functions: names or callables that compute the same elementwise function; `jaxneuron.sigmoid` and
        `jax.nn.sigmoid` by default.
      reference: the exact function: a function from a NumPy float64 array to another, or the name of one of
        jaxneuron's activations, which mpmath evaluates. If None, it is the first of `functions` that is
        jaxneuron's.
      span: the smallest and the largest input.
      ax: the Axes to draw on; None for a new figure.

    Returns:
      The Axes. If an error is above 100 ULP, the vertical scale is logarithmic above 1.

    Raises:
      ValueError: if `reference` is None and none of `functions` is jaxneuron's, a result is not float32 of
        the input's shape, or `span` is not two increasing finite numbers.
      TypeError: if a function is neither a name nor a callable, or `ax` is not an Axes.
      ImportError: if matplotlib or mpmath, of the extra `plot`, is not installed.

    Example:
      >>> from matplotlib.figure import Figure
      >>> plot_error("tanh", jax.numpy.tanh, ax=Figure().add_subplot()).get_xlabel()
      'z'
    """
    functions = functions or (sigmoid, jax.nn.sigmoid)
    names = [canonical(function, "function") for function in functions]
    low, high = interval(span)
    truth = reference_of(reference, names)
    z = np.linspace(low, high, 256 * 32).astype(np.float32)
    with np.errstate(all="ignore"):  # an overflow in between may be right: 1 / (1 + inf) is 0
        exact = np.asarray(truth(z.astype(np.float64)), np.float64)
    if exact.shape != z.shape:
        raise BadValue(
            f"reference must give an array {z.shape} for an array {z.shape}, got {exact.shape}; "
            f"pass an elementwise function"
        )
    errors = [ulp_error(_values(name, z), exact) for name in names]
    ax = _axes(ax)
    ax.axhline(0.5, color="0.4", linewidth=1, linestyle=(0, (1, 2)), label="correctly rounded, at most 0.5")
    for i, (function, error) in enumerate(zip(functions, errors, strict=True)):
        greatest = error.reshape(256, 32).max(axis=1)
        ax.stairs(
            greatest, np.linspace(low, high, 257), baseline=None, color=COLOURS[i % 7],
            linestyle=LINES[i % 4], linewidth=1.6 if i else 2.2,
            label=f"{_origin(function)}, at most {greatest.max():.3g}",
        )  # fmt: skip
    worst = max(error[np.isfinite(error)].max(initial=0.5) for error in errors)
    if worst > 100:
        ax.set_yscale("symlog", linthresh=1)
    scale = ax.yaxis.get_transform()
    room = 0.04 + 0.08 * (len(errors) + 1)  # for the legend, above every curve
    ax.set_ylim(0, scale.inverted().transform(scale.transform(np.array([worst])) / (1 - min(room, 0.7)))[0])
    ax.set(xlim=(low, high), xlabel="z", ylabel="greatest error (ULP of float32)")
    ax.legend(loc="upper left", fontsize=9, handlelength=3)
    return ax


def _axes(ax: Axes | None, size: tuple[float, float] = SIZE) -> Axes:
    """`ax`, or the Axes of a new pyplot figure. Called after all checks: an error leaves no empty figure."""
    return _figure(size).add_subplot() if ax is None else _checked(ax, "ax", "Axes")


def _figure(size: tuple[float, float]) -> Figure:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise missing("matplotlib", "plot") from None
    return plt.figure(figsize=size, layout="constrained")


def _checked(value: Any, argument: str, *classes: str) -> Any:
    """`value`, which must be an instance of one of matplotlib's `classes`, given by their names."""
    if not {base.__name__ for base in type(value).__mro__} & set(classes):
        raise BadType(
            f"{argument} must be matplotlib's {' or '.join(classes)}, got {type(value).__name__}; "
            f"leave it out for a new figure"
        )
    return value


def _asymptotes(activation: Activation) -> tuple[float, ...]:
    if isinstance(activation, (ELU, CELU)):
        return (-activation.alpha,)
    return ASYMPTOTES.get(str(activation), ())


def _origin(function: Activation) -> str:
    """A name that tells jaxneuron's sigmoid from jax's."""
    module = getattr(resolve(function), "__module__", None)
    return name_of(function) + (f" ({module.split('.')[0]})" if module else "")


def _values(activation: Activation, z: np.ndarray) -> np.ndarray:
    """float32 values of an elementwise activation at the float32 array `z`."""
    if activation in OF_ROWS:
        raise BadValue(f"{activation} is not elementwise, so it has no curve; pass another activation")
    y = np.asarray(resolve(activation)(jnp.asarray(z)))
    if y.shape != z.shape or y.dtype != z.dtype:
        raise BadValue(
            f"{name_of(activation)} must give float32 {z.shape} for float32 {z.shape}, "
            f"got {y.dtype} {y.shape}; use an elementwise function that keeps its dtype"
        )
    return y


def _plane(params: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A function that gives the outputs `(...)` of `params` for points `(..., 2)`."""
    if not isinstance(params, Affine | MLP):
        raise BadType(
            f"params must be an Affine or an MLP, got {type(params).__name__}; "
            f"pass Affine(w, b) or MLP(layers)"
        )
    layers = as_layers(params.layers) if isinstance(params, MLP) else [as_affine(params)]
    n_in, n_out = len(layers[0].w), math.prod(layers[-1].w.shape[1:])
    if (n_in, n_out) != (2, 1):
        raise BadValue(
            f"params must have 2 inputs and 1 output, got {n_in} and {n_out}; "
            f"fold the other inputs into the first layer's bias, and draw one output at a time"
        )
    forward: Callable[..., Any] = _mlp_forward if isinstance(params, MLP) else neuron
    return lambda x: np.asarray(forward(params, x), float).reshape(x.shape[:-1])


def _shade(output: Callable[[np.ndarray], np.ndarray], ax: Axes) -> AxesImage:
    side = np.linspace(-0.5, 1.5, 201)
    y = output(np.stack(np.meshgrid(side, side), axis=-1))
    low, high = (0, 1) if y.min() >= 0 and y.max() <= 1 else (None, None)
    shading = ax.imshow(
        y, "cividis", origin="lower", extent=(-0.5, 1.5, -0.5, 1.5), interpolation="bilinear",
        vmin=low, vmax=high,
    )  # fmt: skip
    if (y < 0.5).any() and (y > 0.5).any():
        line = ax.contour(side, side, y, [0.5], colors="white", linewidths=2)
        middles = [segment[len(segment) // 2] for segment in line.allsegs[0]]  # at an edge it would be cut
        ax.clabel(line, fmt="0.5", fontsize=9, manual=middles)
    for corner, true in zip(CORNERS, output(CORNERS) > 0.5, strict=True):
        ax.plot(
            *corner, "o", markersize=10, markerfacecolor="black" if true else "white",
            markeredgecolor="white" if true else "black", markeredgewidth=1.5,
        )  # fmt: skip
    ax.set(xticks=[0, 1], yticks=[0, 1], xlabel="$x_1$", ylabel="$x_2$")
    return shading


def _drawn_units(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the units of a layer that are drawn, and their heights, with the first on top."""
    if size <= MOST_UNITS:
        return np.arange(size), (size - 1) / 2 - np.arange(size)
    heights = ENDS + 0.25 - np.arange(ENDS)  # the gap in the middle is for the ellipsis
    return np.r_[:ENDS, size - ENDS : size], np.r_[heights, -heights[::-1]]
