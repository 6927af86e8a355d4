"""Cosmic muons: angles, energies, walls."""

import numpy as np
import pytest
from scipy import stats

from physml.errors import ConfigError
from physml.neutrino import geometry
from physml.neutrino.cosmics import cosmic_muons, intensity
from physml.neutrino.detector import respond
from physml.neutrino.events import label
from physml.neutrino.geometry import Detector

FAR = Detector()


@pytest.fixture(scope="module")
def muons():
    return cosmic_muons(np.random.default_rng(0), 40_000, FAR)


def downward(particles):
    return -particles.momentum[:, 1] / np.linalg.norm(particles.momentum, axis=1)


def test_zenith_angles_follow_cosine_squared(muons):
    events, particles = muons
    top = particles.position[:, 1] > geometry.half_width(FAR) - 1e-3
    # Through a level wall: intensity cos², area cos, so cos⁴ is uniform.
    assert stats.kstest(downward(particles)[top] ** 4, "uniform").pvalue > 1e-3
    # Through a wall that stands: integral of cos² sin² times |cos azimuth| over all directions.
    cosine = np.linspace(0, 1, 2001)
    density = cosine**2 * np.sqrt(1 - cosine**2)
    sums = np.cumsum(density) / density.sum()
    side = np.interp(downward(particles)[~top], cosine, sums)
    assert stats.kstest(side, "uniform").pvalue > 1e-3
    # Rates of both: pi/2 a unit of level area; of a wall integral cos² sin² dcos * 2 = pi/8.
    width, length = 2 * geometry.half_width(FAR), geometry.length(FAR)
    rate = np.pi / 2 * width * length, np.pi / 8 * 2 * (width * length + width**2)
    assert top.mean() == pytest.approx(rate[0] / sum(rate), abs=0.01)


def test_all_start_on_a_wall_and_go_inside(muons):
    _, particles = muons
    size = np.linalg.norm(particles.momentum, axis=1)
    unit = particles.momentum / size[:, None]
    assert geometry.inside(FAR, particles.position + 1e-3 * unit).all()
    assert not geometry.inside(FAR, particles.position - 1e-3 * unit).any()
    assert (geometry.exit_distance(FAR, particles.position, unit) > 0).all()


def test_energies_follow_the_published_spectrum(muons):
    events, particles = muons
    energy = np.geomspace(0.5, 1e5, 20_000)
    for low, high in ((0.97, 1.0), (0.5, 0.53)):
        rows = (downward(particles) > low) & (downward(particles) < high)
        density = intensity(energy, np.full(energy.shape, (low + high) / 2)) * energy
        sums = np.cumsum(density) / density.sum()
        uniform = np.interp(events.energy[rows], energy, sums)
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    # Gaisser's formula itself, 100 GeV vertical, and the old E^-2.7 of its low-energy form.
    plain = 0.14 * 100**-2.7 * (1 / (1 + 110 / 115) + 0.054 / (1 + 110 / 850))
    assert intensity(np.array(100.0), np.array(1.0)) == pytest.approx(plain, rel=0.1)


def test_truth_of_cosmic_events(muons):
    events, particles = muons
    assert (label(events) == 4).all() and (events.mode == -1).all() and (events.weight == 1).all()
    np.testing.assert_array_equal(particles.event, np.arange(40_000))
    square = (particles.momentum**2).sum(axis=1)
    np.testing.assert_allclose(events.energy**2 - square, 0.1056583755**2, rtol=1e-6)
    ratio = (particles.pdg == -13).sum() / (particles.pdg == 13).sum()
    assert ratio == pytest.approx(1.268, rel=0.05)


def test_some_stop_and_nearly_all_are_seen():
    events, particles = cosmic_muons(np.random.default_rng(1), 500, FAR)
    hits = respond(np.random.default_rng(2), particles, FAR)
    seen = np.bincount(hits.event, hits.energy, minlength=500)
    assert (seen > 0).mean() > 0.97
    short = events.energy < 2.0
    ratio = seen[short] / (events.energy[short] - 0.1057)
    assert 0.1 < (ratio > 0.8).mean() < 0.95  # the others leave by a wall


def test_no_muons_and_bad_numbers():
    events, particles = cosmic_muons(np.random.default_rng(0), 0, FAR)
    assert len(events.pdg) == len(particles.pdg) == 0
    with pytest.raises(ConfigError, match="n: is -1"):
        cosmic_muons(np.random.default_rng(0), -1, FAR)
    with pytest.raises(ConfigError, match="detector.planes"):
        cosmic_muons(np.random.default_rng(0), 1, FAR._replace(planes=0))
