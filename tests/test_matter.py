"""Energy loss, range and scattering: published tables, closed forms, NumPy against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from physml import matter
from physml.errors import ConfigError

MUON = 0.1056583755
ENERGIES = np.array([0.01, 0.1, 1.0, 2.0])
# Muon tables of the PUMAS project (niess/pumas-materials), after Groom, Mokhov and Striganov (2001)
# CSDA range in g/cm², ionisation in MeV cm²/g, at the energies above; the minimum ionisation.
TABLES = {
    "GRAPHITE": ([0.7849, 35.06, 537.2, 1062], [7.119, 1.989, 1.848, 1.954], 1.742),
    "IRON": ([1.030, 43.77, 640.1, 1248], [5.513, 1.616, 1.581, 1.694], 1.452),
    "SILICON": ([0.8848, 38.19, 559.4, 1094], [6.374, 1.850, 1.803, 1.922], 1.665),
    "POLYETHYLENE": ([0.6586, 29.36, 451.2, 894.9], [8.465, 2.384, 2.190, 2.307], 2.079),
}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", TABLES)
def test_muon_ranges_and_losses_are_those_of_the_tables(name):
    material, (ranges, losses, lowest) = getattr(matter, name), TABLES[name]
    table = matter.range_table(material, MUON)
    np.testing.assert_allclose(matter.csda_range(table, ENERGIES), ranges, rtol=4e-3)
    found = 1e3 * matter.bethe(material, MUON, ENERGIES)
    np.testing.assert_allclose(found, losses, rtol=5e-3)
    everywhere = matter.bethe(material, MUON, np.geomspace(0.05, 5, 1000))
    assert 1e3 * everywhere.min() == pytest.approx(lowest, rel=2e-3)


def test_radiation_lengths_are_those_of_the_pdg():
    for z, a, x0 in ((13, 26.9815, 24.01), (74, 183.84, 6.76), (82, 207.2, 6.37)):
        assert matter.radiation_length(z, a) == pytest.approx(x0, abs=0.005)
    water = matter.compound(1.0, {"H": 2 * 1.008, "O": 15.999}, 79.7)
    assert water.radiation_length == pytest.approx(36.08, abs=0.005)
    assert matter.SILICON.radiation_length == pytest.approx(21.82, abs=0.01)
    assert matter.PVC.radiation_length == pytest.approx(25.51, abs=0.01)


def test_soft_tissue_without_fitted_density_effect():
    # PDG: plasma energy 21.39 eV, minimum ionisation 1.982 MeV cm²/g (with fitted parameters).
    assert matter.plasma_energy(1.0, 0.55121) == pytest.approx(21.39, abs=0.005)
    effect = matter.condensed_effect(1.0, 0.55121, 72.3)
    tissue = matter.Material(1.0, 7.0, 0.55121, 72.3, effect, 37.63, 0.08, 9.77)
    loss = 1e3 * matter.bethe(tissue, MUON, np.geomspace(0.05, 5, 1000)).min()
    assert loss == pytest.approx(1.982, rel=0.01)


def test_density_effect_is_continuous_and_tends_to_the_plasma_limit():
    for material in (matter.IRON, matter.POLYETHYLENE, matter.CELLS_OF_OIL):
        x = np.linspace(-1, 4, 50_001)
        delta = matter.density_correction(material, 10**x)
        assert np.abs(np.diff(delta)).max() < 2e-3
        hv = matter.plasma_energy(material.density, material.z_over_a)
        limit = 2 * np.log(1e4 * hv / material.excitation) - 1
        assert delta[-1] == pytest.approx(limit, abs=0.06)  # fitted at other densities


def test_mixture_of_the_neutrino_detector():
    found = matter.CELLS_OF_OIL
    assert found.radiation_length == pytest.approx(35.1, rel=0.01)
    assert found.moliere_radius / found.density == pytest.approx(10.5, rel=0.1)
    half = matter.mixture(1.0, [(1, matter.PVC), (1, matter.PVC)], matter.PVC.effect)
    np.testing.assert_allclose(half[1:4] + half[5:], matter.PVC[1:4] + matter.PVC[5:], rtol=1e-12)
    with pytest.raises(ConfigError, match="positive"):
        matter.mixture(1.0, [(0.0, matter.PVC)])
    with pytest.raises(ConfigError, match="Xx is not in the table"):
        matter.compound(1.0, {"Xx": 1.0}, 50.0)


def test_residual_energy_inverts_the_range():
    table = matter.range_table(matter.IRON, MUON)
    energy = np.geomspace(0.02, 50, 40)
    whole = matter.csda_range(table, energy)
    np.testing.assert_allclose(matter.residual_energy(table, energy, 0 * energy), energy, rtol=1e-9)
    assert (matter.residual_energy(table, energy, 1.0001 * whole) == 0).all()
    # Two halves of a way are the whole way; the loss over a short way is dE/dx.
    once = matter.residual_energy(table, energy, whole / 2)
    twice = matter.residual_energy(
        table, matter.residual_energy(table, energy, whole / 4), whole / 4
    )
    np.testing.assert_allclose(twice, once, rtol=1e-9)
    short = 1e-3 * whole
    loss = (energy - matter.residual_energy(table, energy, short)) / short
    np.testing.assert_allclose(loss, matter.bethe(matter.IRON, MUON, energy), rtol=0.01)


@pytest.mark.parametrize("mass, kinetic, thickness", [(MUON, 2.0, 3.84), (0.13957, 1.0, 0.07)])
def test_thin_layers_fluctuate_like_landau(mass, kinetic, thickness):
    random = np.random.default_rng(0)
    kinetic = np.array(kinetic)
    mean = matter.bethe(matter.CELLS_OF_OIL, mass, kinetic) * thickness
    mode = matter.most_probable_loss(matter.CELLS_OF_OIL, mass, kinetic, thickness)
    xi, transfer, beta2 = matter.collisions(matter.CELLS_OF_OIL, mass, kinetic, thickness)
    deviates = random.normal(size=400_000), random.uniform(size=(2, 400_000))
    loss = matter.fluctuated_loss(mean, xi, transfer, beta2, *deviates)
    assert loss.min() >= 0
    assert loss.mean() == pytest.approx(mean, rel=0.01)
    # SciPy's Landau of scale 1 has a tail 2/(pi x²) and its mode at -0.42931.
    width = np.pi / 2 * xi
    landau = stats.landau(loc=mode + 0.42931 * width, scale=width)
    at = [0.05, 0.25, 0.5, 0.75, 0.9]
    assert np.abs(np.quantile(loss, at) - landau.ppf(at)).max() < 0.6 * xi
    assert np.abs(np.quantile(loss, at[:3]) - landau.ppf(at[:3])).max() < 0.1 * xi
    counts, edges = np.histogram(loss, np.linspace(mode - 2 * xi, mode + 3 * xi, 51))
    assert abs(edges[counts.argmax()] - mode) < 0.5 * xi


def test_thick_layers_fluctuate_normally():
    random = np.random.default_rng(0)
    mass, kinetic, thickness = 0.93827, np.array(0.2), 3.84
    mean = matter.bethe(matter.CELLS_OF_OIL, mass, kinetic) * thickness
    xi, transfer, beta2 = matter.collisions(matter.CELLS_OF_OIL, mass, kinetic, thickness)
    deviates = random.normal(size=100_000), random.uniform(size=(2, 100_000))
    loss = matter.fluctuated_loss(mean, xi, transfer, beta2, *deviates)
    assert loss.mean() == pytest.approx(mean, rel=1e-3)
    assert loss.var() == pytest.approx(xi * transfer * (1 - beta2 / 2), rel=0.02)


def test_range_straggling_is_that_of_muons_followed_step_by_step():
    random, n, step = np.random.default_rng(1), 2000, 1.0
    material, table = matter.GRAPHITE, matter.range_table(matter.GRAPHITE, MUON)
    energy, way = np.full(n, 0.3), np.zeros(n)
    while (alive := energy > 0.003).any():
        e = energy[alive]
        xi, transfer, beta2 = matter.collisions(material, MUON, e, step)
        mean = matter.bethe(material, MUON, e) * step
        deviates = random.normal(size=len(e)), random.uniform(size=(2, len(e)))
        energy[alive] -= matter.fluctuated_loss(mean, xi, transfer, beta2, *deviates)
        way[alive] += step
    expected = float(matter.csda_range(table, np.array(0.3)))
    spread = float(np.interp(0.3, table.kinetic, table.straggling))
    assert way.mean() == pytest.approx(expected, rel=0.01)
    assert way.std() == pytest.approx(spread, rel=0.1)


def test_highland_angle():
    # 1 GeV, velocity of light, one radiation length: 13.6 mrad; a tenth: 13.6 sqrt(0.1) 0.9125.
    found = 1e3 * matter.highland(np.array([1.0, 0.1]), np.array(1.0), np.array(1.0))
    np.testing.assert_allclose(found, [13.6, 3.9244], rtol=1e-4)


def test_jax_arrays_give_the_same_numbers(float64):
    table = matter.range_table(matter.IRON, MUON)
    energy = np.geomspace(0.02, 20, 9)
    functions = (
        lambda e: matter.bethe(matter.IRON, MUON, e),
        lambda e: matter.most_probable_loss(matter.IRON, MUON, e, 2.0),
        lambda e: matter.csda_range(table, e),
        lambda e: matter.residual_energy(table, e, 10 * e),
        lambda e: matter.fluctuated_loss(e, e / 50, e * 9, e * 0 + 0.9, e - 1, (e / 21, e / 22)),
        lambda e: matter.highland(e, e, e / (e + MUON)),
    )
    for function in functions:
        host, device = function(energy), jax.jit(function)(jnp.asarray(energy))
        assert isinstance(host, np.ndarray) and isinstance(device, jax.Array)
        np.testing.assert_allclose(device, host, rtol=1e-12)
