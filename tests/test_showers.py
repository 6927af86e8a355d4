"""Shower profiles: integrals, maxima, containment, NumPy against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from physml import matter, showers

ENERGY = np.array([0.5, 1.0, 5.0, 20.0, 100.0])
OIL, ARGON = matter.CELLS_OF_OIL, matter.LIQUID_ARGON


def average(material, energy):
    return showers.shower_shape(material, energy, (0 * energy, 0 * energy))


def test_the_share_above_a_depth_is_the_integral_of_the_density():
    shape = average(ARGON, ENERGY)
    depth = np.linspace(1e-6, 60, 60_001)[:, None]
    density = showers.shower_density(shape, depth)
    assert np.trapezoid(density, depth, axis=0) == pytest.approx(np.ones(5), abs=1e-4)
    inner = np.trapezoid(density[:8001], depth[:8001], axis=0)
    np.testing.assert_allclose(showers.shower_fraction(shape, np.array(8.0)), inner, atol=1e-4)
    assert (showers.shower_fraction(shape, np.array(-1.0)) == 0).all()


def test_average_showers_peak_near_the_logarithm_of_their_energy():
    # ln(E/E_c) - 0.5 for electrons (PDG); hep-ex/0001020 has 0.812 with its own E_c.
    depth = np.linspace(0.01, 20, 20_000)[:, None]
    for material in (ARGON, OIL):
        top = depth[showers.shower_density(average(material, ENERGY), depth).argmax(axis=0), 0]
        log = np.log(ENERGY / material.critical_energy)
        np.testing.assert_allclose(top, log - 0.812, atol=2e-3)
        assert np.abs(top - (log - 0.5)).max() < 0.35


def test_fluctuations_have_the_published_widths_and_correlation():
    normals = tuple(np.random.default_rng(0).normal(size=(2, 100_000)))
    energy = np.full(100_000, 20.0)
    shape, log = showers.shower_shape(ARGON, energy, normals), np.log(20 / ARGON.critical_energy)
    top, alpha = np.log((shape.alpha - 1) / shape.beta), np.log(shape.alpha)
    assert top.std() == pytest.approx(1 / (-1.4 + 1.26 * log), rel=0.02)
    assert alpha.std() == pytest.approx(1 / (-0.58 + 0.86 * log), rel=0.02)
    assert np.corrcoef(top, alpha)[0, 1] == pytest.approx(0.705 - 0.023 * log, abs=0.01)


def test_soft_showers_shrink_steadily_to_nothing():
    energy = np.geomspace(1e-3, 2, 400)
    shape = average(OIL, energy)
    depth = shape.alpha / shape.beta
    assert (np.diff(depth) > 0).all()
    assert np.diff(np.log(depth)).max() < 0.05  # no jump at 4 critical energies
    soft = energy < 0.01
    way = np.log1p(energy[soft] / OIL.critical_energy)
    assert (depth[soft] < way).all() and (depth[soft] > 0.3 * way).all()


def test_radii_are_drawn_from_the_profile_and_mostly_inside_one_moliere_radius():
    random, n = np.random.default_rng(0), 40_000
    energy = np.full(n, 10.0)
    shape = average(ARGON, energy)
    depth = random.standard_gamma(shape.alpha) / shape.beta
    radial = showers.radial_shape(ARGON, energy, shape, depth)
    inside = [showers.radial_fraction(radial, np.full(n, r)).mean() for r in (1.0, 2.0)]
    np.testing.assert_allclose(inside, [0.9, 0.95], atol=0.07)  # PDG: 90 % and 95 %
    radius = showers.radius(radial, tuple(random.uniform(size=(2, n))))
    uniform = showers.radial_fraction(radial, radius)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    energy = np.geomspace(1e-3, 1e3, 50)
    found = showers.radial_shape(OIL, energy, average(OIL, energy), np.full(50, 0.01))
    assert all((part > 0).all() and np.isfinite(part).all() for part in found[:2])
    assert ((found.share >= 0) & (found.share <= 1)).all()


def test_photons_convert_after_nine_sevenths():
    depth = showers.conversion_depth(1 - np.random.default_rng(0).uniform(size=20_000))
    assert stats.kstest(depth, stats.expon(scale=9 / 7).cdf).pvalue > 1e-3


def test_jax_arrays_give_the_same_numbers():
    def profile(energy, depth):
        shape = showers.shower_shape(ARGON, energy, (0 * energy, energy / 99))
        radial = showers.radial_shape(ARGON, energy, shape, depth)
        return (
            showers.shower_fraction(shape, depth),
            showers.shower_density(shape, depth),
            showers.radius(radial, (depth / 9, depth / 8)),
            showers.radial_fraction(radial, depth),
        )

    depth = np.linspace(0.5, 5, 5)
    with jax.enable_x64(True):
        device = jax.jit(profile)(jnp.asarray(ENERGY), jnp.asarray(depth))
    for ours, theirs in zip(profile(ENERGY, depth), device, strict=True):
        assert isinstance(ours, np.ndarray) and isinstance(theirs, jax.Array)
        np.testing.assert_allclose(theirs, ours, rtol=1e-9)


def test_plates_average_as_their_thickness_in_radiation_lengths():
    # X0 of tungsten 3.504 mm and silicon 93.70 mm: PDG, Atomic and Nuclear Properties.
    medium, plates = showers.plates((matter.TUNGSTEN, 1.4), (matter.SILICON, 0.3))
    pair = 1.4 / 3.504 + 0.3 / 93.70
    assert plates.frequency == pytest.approx(1 / pair, rel=0.003)
    assert 10 * medium.radiation_length / medium.density == pytest.approx(1.7 / pair, rel=0.003)
    assert plates.contrast == pytest.approx(1 - 1 / (1 + 0.007 * 60))
    # R_M of tungsten 9.327 mm (PDG, by another critical energy); silicon makes it larger.
    assert 9.3 < 10 * medium.moliere_radius / medium.density < 1.3 * 9.327


def test_showers_in_plates_peak_earlier_by_the_sampling_terms():
    medium, plates = showers.plates((matter.LEAD, 2.0), (ARGON, 4.0))
    still = 0 * ENERGY, 0 * ENERGY
    there = showers.shower_shape(medium, ENERGY, still, plates)
    top = (there.alpha - 1) / there.beta
    expected = np.log(ENERGY / medium.critical_energy) - 0.812
    expected -= 0.55 / plates.frequency + 0.69 * plates.contrast
    np.testing.assert_allclose(top, expected, rtol=1e-12)
    moved = showers.shower_shape(
        medium, ENERGY, still, plates, showers.Tuning(depth=0.3, exponent=-0.2)
    )
    np.testing.assert_allclose((moved.alpha - 1) / moved.beta, top + 0.3, rtol=1e-12)
    np.testing.assert_allclose(there.alpha - moved.alpha, 0.2, rtol=1e-12)


def density(x, y, scale):
    return scale**2 / np.pi / (x * x + y * y + scale**2) ** 2


@pytest.mark.parametrize("offset", [0.0, 0.4, 3.0])
def test_discs_off_the_axis_hold_the_integral_of_the_profile(offset):
    radii = np.array([0.2, 1.0, 2.5])
    found = showers.disc_fraction(np.full(3, 0.7), radii, np.full(3, offset))
    for radius, share in zip(radii, found, strict=True):
        whole = integrate.dblquad(
            lambda r, a: r * density(r * np.cos(a) - offset, r * np.sin(a), 0.7),
            0, 2 * np.pi, 0, radius,
        )[0]  # fmt: skip
        assert share == pytest.approx(whole, rel=1e-6)


def test_rectangles_hold_the_integral_of_the_profile():
    for x0, x1, y0, y1 in ((-0.5, 1.0, 0.2, 3.0), (1.0, 2.0, -4.0, -1.0)):
        corners = [
            sign * showers.quadrant_fraction(0.7, np.array(x), np.array(y))
            for x, y, sign in ((x1, y1, 1), (x0, y1, -1), (x1, y0, -1), (x0, y0, 1))
        ]
        whole = integrate.dblquad(lambda y, x: density(x, y, 0.7), x0, x1, y0, y1)[0]
        assert sum(corners) == pytest.approx(whole, rel=1e-7)
    assert showers.quadrant_fraction(0.7, np.array(1e9), np.array(1e9)) == pytest.approx(0.25)
