"""The beam against closed forms of pion decay, oscillations against textbook limits."""

import numpy as np
import pytest

from physml.errors import ConfigError, DataError
from physml.neutrino import flux
from physml.neutrino.cross_sections import MUON, PION
from physml.neutrino.kinematics import total_cross_section

ENERGY = np.linspace(0.5, 10.0, 200)
PHASE = 1.26693 * flux.BASELINE  # dm² L / 4 E in eV², km, GeV (PDG review of mixing)


def test_decay_in_flight_is_that_of_special_relativity():
    parent, angle = np.array([4.0, 9.56, 30.0])[:, None], np.array([0.0, 0.005, 0.0146])
    energy, density = flux.decay_energy(parent, angle)
    gamma = parent / PION
    doppler = gamma - np.sqrt(gamma**2 - 1) * np.cos(angle)
    np.testing.assert_allclose(energy, (PION**2 - MUON**2) / (2 * PION) / doppler, rtol=2e-3)
    np.testing.assert_allclose(density, 1 / (4 * np.pi * doppler**2), rtol=4e-3)


def test_energy_off_axis_peaks_where_the_closed_form_says():
    parent = np.linspace(1, 60, 6000)
    energy, _ = flux.decay_energy(parent, flux.ANGLE)
    assert parent[energy.argmax()] == pytest.approx(PION / flux.ANGLE, abs=0.01)
    assert energy.max() == pytest.approx((PION**2 - MUON**2) / PION / 2 / flux.ANGLE, rel=1e-5)


def test_the_spectrum_is_narrow_around_2_gev():
    at = np.linspace(0.3, 20, 4000)
    found = flux.flux(at, 14)
    assert 1.7 < at[found.argmax()] < 2.05
    half = at[found > found.max() / 2]
    assert 0.7 < half[-1] - half[0] < 1.4
    assert 0.05 < found[at > 3].sum() / found.sum() < 0.2
    near = (at > 1) & (at < 5)
    for pdg, low, high in ((-14, 0.005, 0.04), (12, 0.003, 0.015), (-12, 1e-4, 0.003)):
        assert low < flux.flux(at, pdg)[near].sum() / found[near].sum() < high
    assert not flux.flux(at, 16).any()


@pytest.mark.parametrize("pdg", [14, -14, 12, -12, 16])
def test_every_neutrino_stays_a_neutrino(pdg):
    found = flux.probabilities(ENERGY, pdg)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert (found >= 0).all()


def test_two_flavours_in_vacuum():
    two = flux.NOVA_2018._replace(dm2_21=0.0, theta_13=0.0, density=0.0)
    found = flux.probabilities(ENERGY, 14, two)
    amplitude = 4 * 0.56 * 0.44
    expected = 1 - amplitude * np.sin(PHASE * two.dm2_32 / ENERGY) ** 2
    np.testing.assert_allclose(found[:, 1], expected, atol=2e-5)
    np.testing.assert_allclose(found[:, 1] + found[:, 2], 1, atol=1e-12)
    at = np.linspace(1.2, 2.2, 5001)
    dip = at[flux.probabilities(at, 14, two)[:, 1].argmin()]
    assert dip == pytest.approx(2 * PHASE * two.dm2_32 / np.pi, abs=1e-3)


@pytest.mark.parametrize("pdg", [14, -14])
def test_appearance_in_matter_to_leading_order(pdg):
    one = flux.NOVA_2018._replace(dm2_21=0.0, theta_13=0.002)
    energy = np.array([1.5, 2.0, 3.0, 5.0])
    # Freund, hep-ph/0103300: A = 2 E V / dm², 2 E V = 7.63e-5 eV² (density g/cm³) (E GeV)
    a = np.sign(pdg) * 7.63e-5 * one.density * energy / one.dm2_32
    delta = PHASE * one.dm2_32 / energy
    leading = 0.56 * 4 * 0.002 * 0.998 * np.sin((1 - a) * delta) ** 2 / (1 - a) ** 2
    found = flux.probabilities(energy, pdg, one)[:, 0]
    np.testing.assert_allclose(found, leading, rtol=0.01, atol=1e-6)


def test_matter_favours_neutrinos_and_cp_swaps_with_the_phase():
    assert flux.probabilities(np.array([2.0]), 14)[0, 0] > 0.03
    vacuum = flux.NOVA_2018._replace(density=0.0)
    back = vacuum._replace(delta=-vacuum.delta)
    np.testing.assert_allclose(
        flux.probabilities(ENERGY, -14, vacuum), flux.probabilities(ENERGY, 14, back), atol=1e-12
    )
    real = flux.NOVA_2018._replace(delta=0.0)
    both = [flux.probabilities(np.array([2.0]), sign * 14, real)[0, 0] for sign in (1, -1)]
    assert both[0] > 1.1 * both[1]


@pytest.mark.parametrize("fractions", [flux.FRACTIONS, (1.0, 1.0, 1.0, 0.2)])
def test_weights_count_what_an_integral_counts(fractions):
    generator = np.random.default_rng(1)
    pdg, charged, energy = flux.draw(generator, 150_000, fractions)
    weight = flux.weights(pdg, charged, energy, 150_000, exposure=1e21, fractions=fractions)
    at = np.linspace(0.3, 20, 3000)
    for code, current in ((14, True), (12, True), (16, True), (14, False)):
        made = np.full(len(at), code), np.full(len(at), current)
        sigma = total_cross_section(at, *made).sum(axis=(1, 2))
        if current:
            beam = sum(
                flux.flux(at, start) * flux.probabilities(at, start)[:, (code - 12) // 2]
                for start in (12, 14)
            )
        else:
            beam = flux.flux(at, 12) + flux.flux(at, 14)
        expected = 1e21 * 6.022e32 * (beam * sigma).sum() * (at[1] - at[0])
        mine = (pdg == code) & (charged == current)
        found, error = weight[mine].sum(), np.sqrt((weight[mine] ** 2).sum())
        assert abs(found - expected) < 4 * error + 0.003 * expected


def test_rate_without_oscillations_leaves_room_for_the_selected_events():
    """Of 14 kt x 2.74e20 protons NOvA predicts 222 selected (D. Rocco, thesis)."""
    pdg, charged, energy = flux.draw(np.random.default_rng(2), 20_000, (1.0, 0.0, 0.0, 0.0))
    still = flux.NOVA_2018._replace(dm2_21=0.0, dm2_32=0.0)
    weight = flux.weights(
        pdg, charged, energy, 20_000, exposure=14 * 2.74e20, fractions=(1.0, 0.0, 0.0, 0.0),
        oscillation=still,
    )  # fmt: skip
    assert 0.3 < 222 / weight[energy < 5].sum() < 0.6


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="neutrino energy: is not positive"):
        flux.probabilities(np.array([1.0, np.nan]), 14)
    with pytest.raises(ConfigError, match="fractions: are"):
        flux.draw(np.random.default_rng(0), 5, (1.0, -1.0, 0.0, 0.0))
    event = np.array([14]), np.array([True]), np.array([2.0])
    with pytest.raises(ConfigError, match="exposure: is 0"):
        flux.weights(*event, 1, exposure=0.0)
    with pytest.raises(DataError, match="no share"):
        flux.weights(*event, 1, fractions=(0.0, 1.0, 0.0, 0.0))
