"""Neutrino beam off its axis, three-flavour oscillations in matter, and event weights.

A simplified event maker, not a simulation of NOvA: pions and kaons of a simple spectrum decay in
flight, two bodies each, and are seen under 14.6 mrad from 810 km.

| constant                          | value          | source                                      |
|-----------------------------------|----------------|---------------------------------------------|
| angle, baseline, pipe             | below          | D. Rocco, thesis (NOvA, 2016)               |
| masses and mixing                 | `NOVA_2018`    | best fit of NOvA, PRD 98 (2018) 032012;     |
|                                   |                | solar and theta13: PDG                      |
| 1 - (m_mu / m)², pi and K; c tau  | below          | PDG 2024 masses and lifetimes               |
| meson spectrum, divergence, yield | below          | our choice: peak, width and rate as NOvA    |
| share of numubar, nue, nuebar     | below          | our choice, of the published order; these   |
|                                   |                | could not be checked                        |
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.special import ive

from physml.errors import ConfigError, DataError
from physml.neutrino.cross_sections import FERMI, MUON, PION
from physml.neutrino.kinematics import ENERGY_MAX, ENERGY_MIN, total_cross_section

ANGLE = 0.0146  # rad off the axis
BASELINE = 810.0  # km
BEAM_SLOPE = 0.052  # rad (3 degrees) that the beam rises in the far detector
PIPE = 675.0  # m in which mesons decay
EXPOSURE = 14.0 * 8.85e20  # kt x protons on target, that of PRD 98 (2018) 032012
HBARC = 1.973269804e-14  # GeV cm, CODATA 2022
AVOGADRO = 6.02214076e23  # per mole, exact
FRACTIONS = (1_303_340.0, 1_354_473.0, 387_969.0, 1_683_050.0)
"""numu, nue, nutau charged and neutral current: NOvA's training events (arXiv 1604.01444)."""

KAON = 0.493677
SLOPE, SCALE = 1.5, 5.0  # mesons: E^1.5 exp(-E / 5 GeV)
KICK, KICK_WIDE = 0.03, 0.3  # GeV sideways, each axis: focused pions, and all other mesons
YIELD = 0.6  # focused pions per proton: NOvA's 222 selected numu (thesis) are 4 in 10 below 5 GeV
KAONS, WIDE, ELECTRONS = 0.064, 0.05, 0.01  # per focused pion: K+ (to mu nu), unfocused pions of
# each charge, nue


class Oscillation(NamedTuple):
    """Normal ordering; dm² in eV², angles as sin², phase in rad, density in g/cm³."""

    dm2_21: float
    dm2_32: float
    theta_12: float
    theta_13: float
    theta_23: float
    delta: float
    density: float


NOVA_2018 = Oscillation(7.53e-5, 2.44e-3, 0.307, 0.0217, 0.56, 1.21 * np.pi, 2.84)
"""sin² 2theta13 = 0.085; electrons are half of the nucleons in the crust."""


def mixing(oscillation: Oscillation) -> np.ndarray:
    """Mixing matrix (e, mu, tau) x (1, 2, 3), PDG convention."""
    s12, s13, s23 = np.sqrt(oscillation[2:5])
    c12, c13, c23 = np.sqrt(1 - np.square([s12, s13, s23]))
    phase = np.exp(1j * oscillation.delta)
    return np.array(
        [
            [c12 * c13, s12 * c13, s13 / phase],
            [-s12 * c23 - c12 * s23 * s13 * phase, c12 * c23 - s12 * s23 * s13 * phase, s23 * c13],
            [s12 * s23 - c12 * c23 * s13 * phase, -c12 * s23 - s12 * c23 * s13 * phase, c23 * c13],
        ]
    )


def probabilities(
    energy: Float64[np.ndarray, "n"], pdg: int, oscillation: Oscillation = NOVA_2018,
    baseline: float = BASELINE,
) -> Float64[np.ndarray, "n 3"]:  # fmt: skip
    """Chance that a neutrino `pdg` is found as e, mu, tau after `baseline` km of even density.

    Exact: eigenvalues of the Hamiltonian U dm² U^+ / 2E + diag(V, 0, 0) with V = sqrt 2 G_F n_e
    (of the other sign, and U conjugated, for antineutrinos). Rows sum to one.

    Raises:
        DataError: an energy is not positive.
    """
    energy = np.asarray(energy, float)
    if not (np.isfinite(energy) & (energy > 0)).all():
        raise DataError("neutrino energy", "is not positive and finite", "give GeV")
    u = mixing(oscillation) if pdg > 0 else mixing(oscillation).conj()
    splitting = np.array([0.0, oscillation.dm2_21, oscillation.dm2_21 + oscillation.dm2_32])
    vacuum = 1e-18 * (u * splitting) @ u.conj().T  # GeV²
    electrons = oscillation.density * AVOGADRO / 2 * HBARC**3  # GeV³
    matter = np.diag([np.sqrt(2) * FERMI * electrons, 0, 0]) * np.sign(pdg)
    values, vectors = np.linalg.eigh(vacuum / (2 * energy[:, None, None]) + matter)
    phase = np.exp(-1j * values * baseline * 1e5 / HBARC)
    start = (abs(pdg) - 12) // 2
    amplitude = np.einsum("nbk,nk,nk->nb", vectors, phase, vectors[:, start].conj())
    return np.asarray(np.abs(amplitude) ** 2)


def decay_energy(
    parent: Float64[np.ndarray, "*n"], angle: Float64[np.ndarray, "*n"] | float, mass: float = PION
) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"]]:
    """Energy (GeV) of the neutrino of a fast meson's decay to mu nu, seen under a small angle.

    The second value is the neutrinos per unit area at distance 1: (2g / (1 + g² angle²))² / 4 pi.
    """
    gamma = parent / mass
    spread = 1 + (gamma * angle) ** 2
    energy = (1 - (MUON / mass) ** 2) * parent / spread
    return np.asarray(energy), np.asarray((2 * gamma / spread) ** 2 / (4 * np.pi))


@cache
def _beam() -> tuple[np.ndarray, np.ndarray]:
    """Bin centres (GeV) and the flux of numu, numubar, nue, nuebar there, see `flux`."""
    edges = np.linspace(0.0, ENERGY_MAX + 0.5, 206)
    centre = (edges[1:] + edges[:-1]) / 2
    focused = _mesons(edges, PION, 7.8045, KICK)
    kaons = _mesons(edges, KAON, 3.711, KICK_WIDE)
    wide = _mesons(edges, PION, 7.8045, KICK_WIDE)
    other = centre * np.exp(-centre / 1.2)  # three-body decays of muons and kaons: broad
    other *= focused.sum() / other.sum()
    parts = [focused + WIDE * wide + KAONS * kaons, WIDE * (wide + KAONS * kaons)]
    parts += [ELECTRONS * other, 0.1 * ELECTRONS * other]
    return centre, YIELD * np.stack(parts)


def _mesons(edges: np.ndarray, mass: float, ctau: float, kick: float) -> np.ndarray:
    """Neutrinos per cm², GeV and meson from mesons of the beam's spectrum."""
    parent = np.linspace(1.0, 100.0, 600)
    number = parent**SLOPE * np.exp(-parent / SCALE)
    number = number / number.sum() * (1 - np.exp(-PIPE * mass / (parent * ctau)))
    # Angle to the meson: Rice's distribution, a Gaussian kick away from the angle to the axis.
    angle = (np.arange(800) + 0.5) * 1e-4
    spread = (kick / parent[:, None]) ** 2
    weight = angle / spread * np.exp(-((angle - ANGLE) ** 2) / (2 * spread))
    weight = weight * ive(0, angle * ANGLE / spread) * 1e-4
    energy, density = decay_energy(parent[:, None], angle, mass)
    share = number[:, None] * weight * density / (BASELINE * 1e5) ** 2
    counts, _ = np.histogram(energy.ravel(), edges, weights=share.ravel())
    return np.asarray(counts / np.diff(edges))


def flux(energy: Float64[np.ndarray, "*n"], pdg: int) -> Float64[np.ndarray, "*n"]:
    """Neutrinos per cm², GeV and proton on target at 810 km without oscillations; 0 for nutau."""
    centre, parts = _beam()
    place = {14: 0, -14: 1, 12: 2, -12: 3}.get(pdg)
    if place is None:
        return np.zeros(np.shape(energy))
    return np.asarray(np.interp(energy, centre, parts[place]))


def oscillated(
    energy: Float64[np.ndarray, "n"], pdg: int, oscillation: Oscillation = NOVA_2018
) -> Float64[np.ndarray, "n"]:
    """Flux of a flavour in the far detector, as `flux` of all flavours of that sign turns to it."""
    sign, found = np.sign(pdg), (abs(pdg) - 12) // 2
    return np.asarray(
        sum(
            flux(energy, sign * start) * probabilities(energy, sign * start, oscillation)[:, found]
            for start in (12, 14)
        )
    )


class Made(NamedTuple):
    """Energies that events are made with: category c (`FRACTIONS`), sign 0 neutrino or 1 anti."""

    energy: Float64[np.ndarray, "k"]  # GeV
    cumulative: Float64[np.ndarray, "4 2 k"]  # rising from 0 to 1
    rate: Float64[np.ndarray, "4 2"]  # integral of flux and cross section, per nucleon and POT


@cache
def made() -> Made:
    """Flux swap: every category has the energies of numu and numubar, times its cross section."""
    energy = np.linspace(ENERGY_MIN, ENERGY_MAX, 4001)
    density = np.zeros((4, 2, len(energy)))
    for category, kind in enumerate((14, 12, 16, 14)):
        for place, sign in enumerate((1, -1)):
            pdg, charged = np.full(len(energy), sign * kind), np.full(len(energy), category < 3)
            sigma = total_cross_section(energy, pdg, charged).sum(axis=(1, 2))
            density[category, place] = sigma * flux(energy, sign * 14)
    cells = (density[..., 1:] + density[..., :-1]) / 2 * np.diff(energy)
    rate = cells.sum(axis=-1)
    cumulative = np.concatenate([np.zeros((4, 2, 1)), np.cumsum(cells, axis=-1)], axis=-1)
    return Made(energy, cumulative / rate[..., None], rate)


def shares(fractions: tuple[float, ...] = FRACTIONS) -> Float64[np.ndarray, "4 2"]:
    """Share of the events made in each category and sign; they sum to one.

    Raises:
        ConfigError: not four numbers of zero or more, or all zero.
    """
    given = np.asarray(fractions, float)
    if given.shape != (4,) or not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise ConfigError("fractions", f"are {fractions}", "give four: numu, nue, nutau, NC")
    rate = made().rate
    return np.asarray((given / given.sum())[:, None] * rate / rate.sum(axis=1, keepdims=True))


def draw(
    generator: np.random.Generator, n: int, fractions: tuple[float, ...] = FRACTIONS
) -> tuple[Int[np.ndarray, "n"], Bool[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """PDG code, charged current or not, and energy (GeV) of n neutrinos that interact."""
    table = made()
    kind = generator.choice(8, size=n, p=shares(fractions).ravel())
    at = generator.random(n)
    energy = np.zeros(n)
    for k in range(8):
        mine = kind == k
        energy[mine] = np.interp(at[mine], table.cumulative[k // 2, k % 2], table.energy)
    pdg = np.array([14, -14, 12, -12, 16, -16, 14, -14], np.int32)[kind]
    return pdg, kind < 6, energy


def weights(
    pdg: Int[np.ndarray, "n"], charged: Bool[np.ndarray, "n"], energy: Float64[np.ndarray, "n"],
    n_made: float, *, exposure: float = EXPOSURE, fractions: tuple[float, ...] = FRACTIONS,
    oscillation: Oscillation = NOVA_2018,
) -> Float64[np.ndarray, "n"]:  # fmt: skip
    """Events expected per event made, on the oscillated flux; their sum is the events expected.

    Args:
        pdg: of the neutrino.
        charged: charged or neutral current.
        energy: of the neutrino, GeV.
        n_made: neutrino events asked of `draw`, or expected; these may be some of them.
        exposure: kt x protons on target.
        fractions: that `draw` was given.
        oscillation: parameters. Neutral currents take the flux of all flavours.

    Raises:
        ConfigError: the exposure is not positive, or wrong fractions.
        DataError: an event of a category that has no share.
    """
    if not (np.isfinite(exposure) and exposure > 0):
        raise ConfigError("exposure", f"is {exposure}", "give kt x protons on target")
    category = np.where(charged, np.array([1, 0, 2])[(np.abs(pdg) - 12) // 2], 3)
    share = shares(fractions)[category, (pdg < 0).astype(int)]
    if (share <= 0).any():
        raise DataError("events", "hold a category of no share", "give the fractions of `draw`")
    rate = made().rate[category, (pdg < 0).astype(int)]
    targets = exposure * 1e9 * AVOGADRO  # nucleons x protons: a gram is one mole of nucleons
    found = np.zeros(len(pdg))
    for code in np.unique(pdg):
        mine = pdg == code
        at, start = energy[mine], int(np.sign(code)) * 14
        here = flux(at, start) + flux(at, int(np.sign(code)) * 12)
        here = np.where(charged[mine], oscillated(at, int(code), oscillation), here)
        found[mine] = here / flux(at, start)
    return np.asarray(found * rate * targets / (share * n_made))
