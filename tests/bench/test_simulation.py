"""If jaxneuron evaluates TORAX's surrogate, a simulation gives the same profiles in about the same time."""

import logging

import jax
import pytest

from bench import simulation

pytest.importorskip("torax", reason="TORAX is not installed; scripts/long installs it")
pytestmark = [pytest.mark.once, pytest.mark.long]


@pytest.fixture(scope="module")
def simulations():
    logging.disable()
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield simulation.simulate("iterhybrid_predictor_corrector", rounds=9)
    logging.disable(logging.NOTSET)


def test_the_kernel_evaluates_the_surrogate(simulations):
    assert simulations.evaluated_by
    assert all(text.startswith("fused CPU kernel") for text in simulations.evaluated_by)


def test_profiles_are_the_same(simulations):
    """TORAX computes in float64. Its solver turns rounding errors of 1e-16 into differences of 1e-11."""
    assert {"T_e", "T_i", "n_e", "psi"} <= simulations.differences().keys()
    assert max(simulations.differences().values()) < 1e-9


def test_the_simulation_takes_about_the_same_time(simulations):
    """On two quiet cores it took 1.03 to 1.05 times as long; 1.01 times if no thread was woken to help."""
    assert min(simulations.ours.seconds) <= 1.15 * min(simulations.flax.seconds)
