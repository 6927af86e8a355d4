"""Sums of random spots against NumPy's own Poisson and gamma deviates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from physml.calorimeter.spots import FEW, spot_sums


@pytest.mark.parametrize("mean", [0.02, 0.5, 3.0, FEW - 0.1, FEW + 0.1, 40.0, 1e4])
def test_sums_follow_poisson_numbers_of_exponential_spots(mean):
    n = 100_000
    ours = np.asarray(jax.jit(spot_sums)(jax.random.key(3), jnp.full(n, mean, jnp.float32)))
    random = np.random.default_rng(4)
    theirs = random.standard_gamma(random.poisson(mean, n))
    assert ours.mean() == pytest.approx(mean, abs=4.5 * np.sqrt(2 * mean / n))
    spread = np.sqrt((24 * mean + 8 * mean**2) / n)  # of the variance: fourth cumulant 24 m
    assert ours.var() == pytest.approx(2 * mean, abs=4.5 * spread)
    assert (ours == 0).mean() == pytest.approx(np.exp(-mean), abs=5 / np.sqrt(n) * 0.5)
    assert stats.ks_2samp(ours, theirs).statistic < 0.015
    assert (ours >= 0).all()


def test_no_spots_no_energy():
    assert (spot_sums(jax.random.key(0), jnp.zeros(1000, jnp.float32)) == 0).all()
