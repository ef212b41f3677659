"""People with any kind of colour blindness can tell the colours of jaxneuron.plot apart."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from jaxneuron import gates
from jaxneuron.plot import COLOURS, NEGATIVE, POSITIVE, plot_decision

pytestmark = pytest.mark.once

# Matrices that give the linear RGB that a person with full colour blindness sees. From Machado, Oliveira and
# Fernandes (2009), "A physiologically-based model for simulation of color vision deficiency".
EYES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of sRGB
WHITE = XYZ.sum(axis=1)


def lab(colour, eyes=((1, 0, 0), (0, 1, 0), (0, 0, 1))):
    """Returns a colour as CIE L*a*b*, where people just notice a distance of 2.3."""
    v = np.array(to_rgb(colour))
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(np.array(eyes) @ linear, 0, 1) / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", EYES)
def test_colours_differ_with_every_kind_of_colour_blindness(kind):
    for one, other in (*itertools.combinations(COLOURS, 2), (POSITIVE, NEGATIVE)):
        assert np.linalg.norm(lab(one, EYES[kind]) - lab(other, EYES[kind])) > 10, (one, other)


def test_matplotlibs_green_and_red_are_too_close_with_deuteranopia():
    green, red = "#2ca02c", "#d62728"  # the third and fourth colours of matplotlib
    seen = [lab(colour, EYES["deuteranopia"]) for colour in (green, red)]
    assert np.linalg.norm(seen[0] - seen[1]) < 10
    assert np.linalg.norm(lab(green) - lab(red)) > 100


def test_shading_grows_lighter_with_the_output():
    (shading,) = plot_decision(gates.OR, ax=Figure().add_subplot()).images
    for eyes in EYES.values():
        lightness = [lab(colour[:3], eyes)[0] for colour in shading.cmap(np.linspace(0, 1, 101))]
        assert (np.diff(lightness) > 0).all()
        assert lightness[-1] - lightness[0] > 70
