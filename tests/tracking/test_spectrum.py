"""Spectra: what is drawn follows the shapes, the shapes follow a TrackML event."""

import gzip

import numpy as np
import pytest
from scipy import integrate, stats

from physml.tracking import spectrum
from physml.tracking.spectrum import DEFAULT

KINDS = [DEFAULT.pile_up, DEFAULT.hard]


def generator(seed=0):
    return np.random.default_rng(seed)


def density(kind, pt):
    """Of transverse momentum, as the module's docstring has it."""
    scale = kind.power * kind.temperature
    return pt * (1 + (np.hypot(pt, kind.mass) - kind.mass) / scale) ** -kind.power


@pytest.mark.parametrize("kind", KINDS)
def test_the_closed_form_is_the_integral(kind):
    whole, part = (
        integrate.quad(lambda x: density(kind, np.exp(x)) * np.exp(x), np.log(low), np.log(1e5))[0]
        for low in (0.15, 1.0)
    )
    ratio = spectrum.survival(kind, np.array([1.0, 0.15]))
    assert ratio[0] / ratio[1] == pytest.approx(part / whole, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_follows_the_shapes(kind):
    pt = spectrum.transverse_momenta(generator(), kind, 20_000, 0.3)
    ends = spectrum.survival(kind, np.array([0.3, spectrum.HIGHEST]))
    share = (ends[0] - spectrum.survival(kind, pt)) / (ends[0] - ends[1])
    assert stats.kstest(share, "uniform").pvalue > 1e-3 and pt.min() >= 0.3
    eta = spectrum.pseudorapidities(generator(), kind, 20_000, 3.0)
    grid = np.linspace(-3, 3, 2001)
    shape = 1 / (1 + np.exp((np.abs(grid) - kind.plateau) / kind.edge))
    below = integrate.cumulative_trapezoid(shape, grid, initial=0.0)
    assert stats.kstest(np.interp(eta, grid, below / below[-1]), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_multiplicities(kind):
    n = spectrum.multiplicities(generator(), kind, 40_000, spectrum.LOWEST, spectrum.WIDEST)
    seen, mean = 1 - kind.silent, kind.multiplicity
    assert n.mean() == pytest.approx(seen * mean, rel=0.03)
    square = mean**2 + mean + mean**2 / kind.shape
    assert (n**2).mean() == pytest.approx(seen * square, rel=0.05)
    fewer = spectrum.multiplicities(generator(), kind, 40_000, 1.0, 2.5)
    drawn = generator(1)
    pt = spectrum.transverse_momenta(drawn, kind, 100_000, spectrum.LOWEST)
    eta = spectrum.pseudorapidities(drawn, kind, 100_000, spectrum.WIDEST)
    share = ((pt > 1.0) & (np.abs(eta) < 2.5)).mean()
    assert fewer.mean() / n.mean() == pytest.approx(share, rel=0.05)


@pytest.fixture(scope="module")
def event(shared_data):
    """Prompt particles of a TrackML event above 0.15 GeV: collision, pt, |eta|."""
    folder = shared_data / "tracking" / "trackml_event1000_particles"
    with gzip.open(folder / "event000001000-particles.csv.gz", "rt") as file:
        file.readline()
        lines = [line.split(",") for line in file]
    number = np.array([int(line[0]) for line in lines])
    vx, vy, _, px, py, pz = np.array([line[1:7] for line in lines], float).T
    pt = np.hypot(px, py)
    # Identities count, from the top: 12 bits of the collision, ..., the last 16 are 0 for particles
    # that no material made.
    prompt = (np.hypot(vx, vy) < 0.1) & (number & 0xFFFF == 0) & (pt > spectrum.LOWEST)
    return (number >> 52)[prompt], pt[prompt], np.abs(np.arcsinh(pz / pt))[prompt]


@pytest.mark.parametrize("hard", [False, True])
def test_shapes_are_those_of_a_trackml_event(event, hard):
    """Kolmogorov's distance: pile-up 0.03 (7,751 particles), hard collision 0.1 (236)."""
    collision, pt, eta = event
    kind, own = KINDS[hard], (collision == 1) == hard
    limit, n = (0.1, 236) if hard else (0.03, 7751)
    assert own.sum() == n
    above = spectrum.survival(kind, np.array([spectrum.LOWEST]))[0]
    share = stats.kstest(spectrum.survival(kind, pt[own]) / above, "uniform").statistic
    assert share < limit
    grid = np.linspace(0, spectrum.WIDEST, 1001)
    below = integrate.cumulative_trapezoid(spectrum.plateau(kind, grid), grid, initial=0.0)
    assert stats.kstest(np.interp(eta[own], grid, below / below[-1]), "uniform").statistic < limit
    for least in (0.5, 1.0, 2.0):
        expected = spectrum.survival(kind, np.array([least]))[0] / above
        assert (pt[own] > least).mean() == pytest.approx(expected, rel=0.05 + hard * 0.05)


def test_multiplicities_are_those_of_a_trackml_event(event):
    count = np.bincount(event[0])[2:]
    kind = DEFAULT.pile_up
    assert (count == 0).mean() == pytest.approx(kind.silent, abs=0.005)
    seen = count[count > 0]
    assert seen.mean() == pytest.approx(kind.multiplicity, rel=0.005)
    assert seen.std() == pytest.approx(
        np.sqrt(kind.multiplicity + kind.multiplicity**2 / kind.shape), rel=0.01
    )
