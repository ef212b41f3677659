"""The functions of jaxneuron.plot draw the right lines, points and texts."""

import itertools
import re
import time

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from jaxneuron import MLP, Affine, gates, init_mlp, mlp_forward, neuron
from jaxneuron import plot as pictures
from jaxneuron._math import oracle
from jaxneuron._math.activations import OF_ROWS
from jaxneuron._names import BY_NAME
from jaxneuron._ulp import ulp_error
from jaxneuron.plot import plot_activation, plot_decision, plot_error, plot_gates, plot_network
from tests import make_qlknn

pytestmark = pytest.mark.once


@pytest.fixture
def ax():
    return Figure(figsize=(6, 4), layout="constrained").add_subplot()


@pytest.fixture(autouse=True)
def _nothing_global_changes():
    before = dict(matplotlib.rcParams), plt.get_fignums()
    yield
    assert (dict(matplotlib.rcParams), plt.get_fignums()) == before


def curves(ax):
    return {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}


def level_lines(ax):
    """Returns the heights of the horizontal lines that cross the whole picture."""
    return sorted({float(line.get_ydata()[0]) for line in ax.get_lines() if list(line.get_xdata()) == [0, 1]})


def texts(ax):
    return [text.get_text() for text in ax.texts]


# --- truth ---


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - set(OF_ROWS)))
def test_a_curve_equals_its_function(ax, name):
    assert plot_activation(name, ax=ax) is ax
    z, y = curves(ax)[name].get_data()
    assert (z[0], z[-1], len(z)) == (-8, 8, 801)
    np.testing.assert_allclose(y, oracle.activation(name, z), rtol=1e-5, atol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_legend()) == ("z", f"{name}(z)", None)


def test_sigmoid_is_drawn_with_its_marks_by_default(ax):
    plot_activation(ax=ax)
    assert list(curves(ax)) == ["sigmoid"]
    assert level_lines(ax) == [0, 1]
    (point,) = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([0], [0.5])
    assert "(0, 0.5)" in texts(ax)
    (stretch,) = ax.patches
    assert (stretch.get_x(), stretch.get_width()) == (-3, 6)


def test_compared_activations_differ_in_colour_or_dashes(ax):
    names = sorted(set(BY_NAME) - set(OF_ROWS))
    plot_activation(*names, jnp.cos, ax=ax)
    drawn = curves(ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(drawn) == [*names, "cos"]
    np.testing.assert_allclose(drawn["cos"].get_ydata(), np.cos(drawn["cos"].get_xdata()), atol=1e-6)
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn.values()}) == len(drawn)
    neighbours = [line.get_linestyle() for line in drawn.values()]
    assert all(a != b for a, b in itertools.pairwise(neighbours))  # can be told apart in greyscale
    np.testing.assert_allclose(level_lines(ax), [-1.0507009873554805 * 1.6732632423543772, -1, 0, 1])
    assert not ax.patches
    assert texts(ax) == []


@pytest.mark.parametrize(
    ("params", "filled"),
    [
        (gates.AND, [0, 0, 0, 1]),
        (gates.XOR, [0, 1, 1, 0]),
        (Affine([[0.0], [1.0]], [-0.5]), [0, 1, 0, 1]),
        (jax.tree.map(lambda a: a.astype("bfloat16"), gates.NAND), [1, 1, 1, 0]),
    ],
)
def test_decision_shades_outputs_and_draws_the_line_of_one_half(ax, params, filled):
    assert plot_decision(params, ax=ax) is ax
    forward = mlp_forward if isinstance(params, MLP) else neuron
    (shading,) = ax.images
    side = np.linspace(-0.5, 1.5, 201)
    assert shading.get_extent() == [-0.5, 1.5, -0.5, 1.5]
    assert shading.get_clim() == (0, 1)
    for row, column in ((0, 0), (0, 200), (77, 31), (200, 100)):  # rows are x_2, from the bottom up
        expected = float(forward(params, np.array([side[column], side[row]])).reshape(()))
        assert shading.get_array()[row, column] == pytest.approx(expected, rel=1e-5)
    assert shading.origin == "lower"
    corners = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert [line.get_xydata().tolist() for line in corners] == [[[a, b]] for a in (0, 1) for b in (0, 1)]
    assert [line.get_markerfacecolor() for line in corners] == ["black" if f else "white" for f in filled]
    (contour,) = [c for c in ax.collections if isinstance(c, ContourSet)]
    (path,) = contour.get_paths()
    assert len(path.vertices) > 10
    np.testing.assert_allclose(forward(params, path.vertices).reshape(-1), 0.5, atol=0.02)


@pytest.mark.parametrize("b", [-50.0, 50.0, 0.0])
def test_decision_draws_no_line_if_no_output_crosses_one_half(ax, b):
    plot_decision(Affine([0.0, 0.0], b), ax=ax)
    assert not [c for c in ax.collections if isinstance(c, ContourSet)]
    faces = {line.get_markerfacecolor() for line in ax.get_lines()}
    assert faces == {"black" if b > 0 else "white"}  # 0.5 is not above 0.5


def test_decision_shades_outputs_beyond_0_and_1(ax):
    plot_decision(MLP([([[4.0], [0.0]], [0.0])], final_activation="identity"), ax=ax)
    np.testing.assert_allclose(ax.images[0].get_clim(), (-2, 6))


def test_gates_are_drawn_in_one_figure():
    figure = Figure()
    axes = plot_gates(figure)
    assert axes == figure.axes[:4]
    assert len(figure.axes) == 5  # the fifth is the colour bar
    filled = {
        ax.get_title(): [line.get_markerfacecolor() == "black" for line in ax.get_lines()] for ax in axes
    }
    assert filled == {
        "AND": [False, False, False, True],
        "OR": [False, True, True, True],
        "NAND": [True, True, True, False],
        "XOR": [False, True, True, False],
    }
    # Each line has a label. AND, OR and NAND have one line, XOR has two.
    assert [texts(ax) for ax in axes] == [["0.5"], ["0.5"], ["0.5"], ["0.5", "0.5"]]


def units(ax):
    return [len(c.get_offsets()) for c in ax.collections if c.get_label() == "units"]


def test_network_shows_units_weights_and_counts(ax):
    layer = Affine(np.array([[1.0, -2.0], [0.0, 0.5], [4.0, -1.0]]), None)
    assert plot_network(MLP([layer, ([[1.0], [1.0]], [0.0])], "relu", jnp.tan), ax=ax) is ax
    assert units(ax) == [3, 2, 1]
    assert texts(ax) == ["3\ninputs", "parameters", "2\nrelu", "6", "1\ntan", "3"]
    first, second = [c for c in ax.collections if isinstance(c, LineCollection)]
    found = {
        tuple(map(tuple, segment)): (to_hex(colour), width)
        for segment, colour, width in zip(
            first.get_segments(), first.get_colors(), first.get_linewidths(), strict=True
        )
    }
    plus, minus = to_hex(pictures.POSITIVE), to_hex(pictures.NEGATIVE)
    # The keys are ((layer, height), (layer, height)). The first unit is on top. The weight of 0 is not drawn.
    assert found == {
        ((0, 1), (1, 0.5)): (plus, 0.625),
        ((0, 1), (1, -0.5)): (minus, 1.25),
        ((0, 0), (1, -0.5)): (plus, 0.3125),
        ((0, -1), (1, 0.5)): (plus, 2.5),
        ((0, -1), (1, -0.5)): (minus, 0.625),
    }
    assert len(second.get_segments()) == 2
    lightness = [np.dot(to_rgba(c)[:3], (0.299, 0.587, 0.114)) for c in (plus, minus)]
    assert lightness[1] - lightness[0] > 0.25  # can be told apart in greyscale


def test_layers_of_more_than_12_units_are_elided(ax):
    plot_network(init_mlp(jax.random.key(0), (1, 12, 13, 1000)), ax=ax)
    assert units(ax) == [1, 12, 10, 10]
    assert texts(ax).count("⋮") == 2
    assert {"1\ninput", "12\nsigmoid", "13\nsigmoid", "1,000\nsigmoid", "24", "169", "14,000"} <= set(
        texts(ax)
    )


def test_only_weights_of_drawn_units_are_drawn(ax):
    w = np.zeros((13, 1))
    w[[0, 4, 5, 7, 8, 12], 0] = [1, 2, 100, 100, 3, -4]  # the units 5 to 7 are elided
    plot_network(MLP([(w, None)]), ax=ax)
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(lines.get_linewidths(), 2.5 * np.array([1, 2, 3, 4]) / 4)
    heights = ax.collections[1].get_offsets()[:, 1]
    np.testing.assert_allclose([s[0, 1] for s in lines.get_segments()], heights[[0, 4, 5, 9]])


def test_a_trained_network_is_drawn_quickly(ax, tmp_path):
    mlp = make_qlknn.folded_qlknn()
    start = time.perf_counter()
    plot_network(mlp, ax=ax)
    ax.figure.savefig(tmp_path / "qlknn.png")
    assert time.perf_counter() - start < 10  # drawing each line by itself would take minutes
    assert units(ax) == [10, 10, 10, 10, 10, 10, 8]
    assert {"133\ntanh", "8\nidentity", "17,822", "1,072"} <= set(texts(ax))


@pytest.mark.parametrize("sizes", [(0, 3, 1), (2, 0, 1), (2, 3, 0), (1, 1)])
def test_networks_with_empty_layers_are_drawn(ax, sizes):
    plot_network(init_mlp(jax.random.key(0), sizes), ax=ax)
    ax.figure.canvas.draw()
    assert units(ax) == list(sizes)


def greatest_errors(ax):
    return [patch.get_data().values for patch in ax.patches]


def test_error_compares_sigmoid_with_that_of_jax_by_default(ax):
    assert plot_error(ax=ax) is ax
    assert len(greatest_errors(ax)) == 2
    for values in greatest_errors(ax):
        assert values.shape == (256,)
        assert 0.4 < values.max() < 2.5  # 2.5 is the bound that sigmoid states
        assert values[-1] < 0.1  # sigmoid(8) is nearly 1
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    worst = [f"{values.max():.3g}" for values in greatest_errors(ax)]
    assert labels == [
        "correctly rounded, at most 0.5",
        f"sigmoid (jaxneuron), at most {worst[0]}",
        f"sigmoid (jax), at most {worst[1]}",
    ]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z", "greatest error (ULP of float32)")
    assert ax.get_yscale() == "linear"


def moved_sine(shift):
    """Returns a function that gives the correctly rounded sine, moved by `shift` floats."""

    def function(z):
        y = np.sin(np.asarray(z, np.float64)).astype(np.float32)
        return jnp.asarray((y.view(np.int32) + np.int32(shift)).view(np.float32))

    return function


def test_error_counts_ulps(ax):
    plot_error(moved_sine(0), moved_sine(3), moved_sine(-1000), reference=np.sin, span=(0.1, 1.4), ax=ax)
    none, three, thousand = greatest_errors(ax)
    assert none.max() <= 0.5
    assert np.median(none) > 0.45  # the greatest of 32 errors is nearly always close to 0.5
    assert ((three > 3) & (three <= 3.5)).all()
    # Below a power of two, floats are half as far apart: errors that cross it count less than 1000 ULP.
    assert ((thousand > 499) & (thousand <= 1000.5)).all()
    assert ax.get_yscale() == "symlog"
    assert ax.get_ylim()[1] > 1000.5
    assert "at most 1e+03" in ax.get_legend().get_texts()[-1].get_text()


def test_error_is_right_for_subnormal_and_infinite_results(ax):
    tiny = 2.0**-149
    cases = {
        "1.75 of the smallest": (1, 2.75 * tiny, 1.75),
        "zero for half the smallest": (0, 0.5 * tiny, 0.5),
        "infinity for what rounds to it": (np.inf, 1e39, 0),
        "NaN for NaN": (np.nan, np.nan, 0),
        "infinity for 1": (np.inf, 1.0, np.inf),
        "NaN for 1": (np.nan, 1.0, np.inf),
        "the float below 1": (1 - 2.0**-24, 1.0, 0.5),
    }
    for case, (y, exact, error) in cases.items():
        y = tiny if case.startswith("1.75") else y
        assert ulp_error(np.array([y], np.float32), np.array([exact])) == [error], case
    plot_error(lambda z: z / 0, reference=lambda z: z, ax=ax)
    ax.figure.canvas.draw()
    assert np.isinf(greatest_errors(ax)[0]).all()


def test_error_against_a_named_reference(ax):
    plot_error(jax.nn.softplus, reference="softplus", span=(-5, 5), ax=ax)
    assert ax.get_xlim() == (-5, 5)
    assert 0.4 < greatest_errors(ax)[0].max() < 20


@pytest.mark.parametrize(
    "draw",
    [plot_activation, lambda: plot_decision(gates.OR), lambda: plot_network(gates.XOR), plot_error],
)
def test_without_ax_a_new_figure_is_made(draw):
    already = plt.get_fignums()
    ax = draw()
    try:
        assert plt.get_fignums() != already
        assert ax.figure is plt.gcf()
    finally:
        plt.close(ax.figure)


def test_without_fig_a_new_figure_is_made():
    axes = plot_gates()
    try:
        assert axes[0].figure is plt.gcf()
    finally:
        plt.close(axes[0].figure)


# --- refusals ---

KNOWN = f"activation must be a callable or one of {', '.join(sorted(BY_NAME))}"
REFERENCE = f"plot_error: reference must be a function of a float64 array or one of {', '.join(oracle.FORMULAS)}, or the functions must include one of these"
TWO_INPUTS = "plot_decision: params must have 2 inputs and 1 output, got {}; fold the other inputs into the first layer's bias, and draw one output at a time"
STACKED = jax.tree.map(lambda a: jnp.stack([a, a]), gates.XOR)


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot_activation("tanh", "sigmiod"), ValueError, f"plot_activation: {KNOWN}, got 'sigmiod'; did you mean 'sigmoid'?"),
        (lambda: plot_activation("softmax"), ValueError, "plot_activation: softmax is not elementwise, so it has no curve; pass another activation"),
        (lambda: plot_activation(jnp.sum), ValueError, "plot_activation: sum must give float32 (801,) for float32 (801,), got float32 (); use an elementwise function that keeps its dtype"),
        (lambda: plot_activation(3), TypeError, "plot_activation: activation must be a name or a hashable callable, got int; pass a plain function"),
        (lambda: plot_activation("tanh", ax=3), TypeError, "plot_activation: ax must be matplotlib's Axes, got int; leave it out for a new figure"),
        (lambda: plot_decision([[0.5, 0.5], 0.1]), TypeError, "plot_decision: params must be an Affine or an MLP, got list; pass Affine(w, b) or MLP(layers)"),
        (lambda: plot_decision(Affine([1.0, 2.0, 3.0], 0.0)), ValueError, TWO_INPUTS.format("3 and 1")),
        (lambda: plot_decision(make_qlknn.folded_qlknn()), ValueError, TWO_INPUTS.format("10 and 8")),
        (lambda: plot_decision(STACKED), ValueError, "plot_decision: layer 0: w must have shape (n_in,) for a neuron or (n_in, n_out) for a layer, got (2, 2, 2); evaluate stacked networks with jax.vmap"),
        (lambda: plot_gates(Figure().add_subplot()), TypeError, "plot_gates: fig must be matplotlib's Figure or SubFigure, got Axes; leave it out for a new figure"),
        (lambda: plot_network(gates.AND), TypeError, "plot_network: mlp must be an MLP, got Affine; pass MLP([layer]) for a layer"),
        (lambda: plot_network(STACKED), ValueError, "plot_network: mlp must be one network, got a stack of 2 networks; pass a member, such as the first, jax.tree.map(lambda a: a[0], mlp)"),
        (lambda: plot_network(MLP([(np.array([[1.0], [np.nan]]), None)])), ValueError, "plot_network: layer 0: w must be finite, got 1 of 2 numbers that are not; replace them with jax.numpy.nan_to_num"),
        (lambda: plot_error(jnp.sin, jnp.sin), ValueError, f"{REFERENCE}, got sin, sin; pass reference="),
        (lambda: plot_error(jnp.cos, reference="cos"), ValueError, f"{REFERENCE}, got reference 'cos'; pass reference="),
        (lambda: plot_error("tanh", reference=3), ValueError, f"{REFERENCE}, got reference 3; pass reference="),
        (lambda: plot_error("tanh", reference=np.sum), ValueError, "plot_error: reference must give an array (8192,) for an array (8192,), got (); pass an elementwise function"),
        (lambda: plot_error(span=3), ValueError, "plot_error: span must be (low, high), low < high, both finite, got 3; pass (-8, 8)"),
        (lambda: plot_error(span=(3, -3)), ValueError, "plot_error: span must be (low, high), low < high, both finite, got (3, -3); pass (-8, 8)"),
        (lambda: plot_error("tanh", lambda z: z.astype("float16")), ValueError, "plot_error: <lambda> must give float32 (8192,) for float32 (8192,), got float16 (8192,); use an elementwise function that keeps its dtype"),
    ],
)  # fmt: skip
def test_refusals(draw, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        draw()
