"""Cosmic-ray muons that enter the detector.

Angles: intensity cos² of the zenith angle (PDG review "Cosmic rays", for muons of about 3 GeV),
downgoing only. Energies: Gaisser's formula with the change for low energies of arXiv 1509.06176,
made for 0.5 GeV and up. Charge ratio 1.268 (arXiv hep-ph/0102042, above 10 GeV, used for all).
No overburden, no rate: these are muons one by one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from physml.errors import ConfigError
from physml.neutrino import geometry
from physml.neutrino.cross_sections import MUON
from physml.neutrino.events import Interactions, Particles
from physml.neutrino.geometry import Detector

LOWEST = 0.5  # GeV, total energy
CHARGE_RATIO = 1.268
SHIFT, SLANT, INDEX = 3.64, 1.29, 2.7  # GeV; arXiv 1509.06176, eq. 3
PION, KAON, KAON_SHARE = 115.0, 850.0, 0.054  # GeV, GeV; the same
CURVATURE = (0.102573, -0.068287, 0.958633, 0.0407253, 0.817285)  # P1 to P5, the same


def intensity(
    energy: Float64[np.ndarray, "*n"], cosine: Float64[np.ndarray, "*n"]
) -> Float64[np.ndarray, "*n"]:
    """Muons at sea level per cm², s, sr and GeV (arXiv 1509.06176, eq. 3).

    Args:
        energy: total, GeV, 0.5 and up.
        cosine: of the zenith angle.
    """
    slope = star(cosine)
    power = (energy + SHIFT / slope**SLANT) ** -INDEX
    return np.asarray(0.14 * power * _decays(energy, slope))


def star(cosine: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Cosine of the zenith angle where the muon was made: the Earth is round."""
    p1, p2, p3, p4, p5 = CURVATURE
    square = (cosine**2 + p1**2 + p2 * cosine**p3 + p4 * cosine**p5) / (1 + p1**2 + p2 + p4)
    return np.sqrt(square)


def _decays(energy: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Pions and kaons that decay before they collide."""
    x = 1.1 * energy * slope
    return np.asarray(1 / (1 + x / PION) + KAON_SHARE / (1 + x / KAON))


def cosmic_muons(
    generator: np.random.Generator, n: int, detector: Detector
) -> tuple[Interactions, Particles]:
    """Events of one muon each, at the point where it enters the box.

    Args:
        generator: source of randomness.
        n: events.
        detector: see `geometry`.

    Raises:
        ConfigError: n is negative, or see `geometry.check`.
    """
    if n < 0:
        raise ConfigError("n", f"is {n}", "give the number of events")
    geometry.check(detector)
    direction = _directions(generator, n, detector)
    entry = _entries(generator, direction, detector)
    energy = _energies(generator, -direction[:, 1])
    momentum = np.sqrt(energy**2 - MUON**2)[:, None] * direction
    positive = generator.uniform(size=n) < CHARGE_RATIO / (1 + CHARGE_RATIO)
    zeros = np.zeros(n)
    events = Interactions(
        pdg=np.zeros(n, np.int32), charged=np.zeros(n, bool), mode=np.full(n, -1, np.int8),
        energy=energy, lepton_energy=energy.copy(), q2=zeros, w=zeros.copy(), vertex=entry,
        weight=np.ones(n),
    )  # fmt: skip
    code = np.where(positive, -13, 13).astype(np.int32)
    return events, Particles(np.arange(n, dtype=np.int32), code, entry.copy(), momentum)


def _areas(detector: Detector) -> np.ndarray:
    """Areas of the walls across x, y and z, cm²."""
    width, length = 2 * geometry.half_width(detector), geometry.length(detector)
    return np.array([width * length, width * length, width * width])


def _directions(generator: np.random.Generator, n: int, detector: Detector) -> np.ndarray:
    """Directions of muons that hit the box: cos² of the zenith angle times the area they see."""
    areas = _areas(detector)
    found, have = np.zeros((n, 3)), 0
    while have < n:
        size = 3 * (n - have) + 16
        cosine = generator.uniform(size=size) ** (1 / 3)  # density 3 cos² per unit of cosine
        angle, sine = 2 * np.pi * generator.uniform(size=size), np.sqrt(1 - cosine**2)
        trial = np.stack([sine * np.sin(angle), -cosine, sine * np.cos(angle)], axis=1)
        seen = np.abs(trial) @ areas
        good = trial[generator.uniform(size=size) * np.linalg.norm(areas) < seen][: n - have]
        found[have : have + len(good)] = good
        have += len(good)
    return found


def _entries(
    generator: np.random.Generator, direction: np.ndarray, detector: Detector
) -> np.ndarray:
    """Uniform points on the walls that muons of a direction enter by."""
    n = len(direction)
    sums = np.cumsum(np.abs(direction) * _areas(detector), axis=1)
    wall = (generator.uniform(size=n)[:, None] * sums[:, -1:] > sums).sum(axis=1)
    half = geometry.half_width(detector)
    size = np.array([2 * half, 2 * half, geometry.length(detector)])
    place = generator.uniform(size=(n, 3))
    rows = np.arange(n)
    place[rows, wall] = np.where(direction[rows, wall] > 0, 1e-9, 1 - 1e-9)
    return np.asarray(place * size - [half, half, 0.0])


def _energies(generator: np.random.Generator, cosine: np.ndarray) -> np.ndarray:
    """Energies after `intensity` at each zenith angle: the power law, then by rejection."""
    slope = star(cosine)
    shift = SHIFT / slope**SLANT
    energy, todo = np.zeros(len(cosine)), np.arange(len(cosine))
    while len(todo):
        u = 1 - generator.uniform(size=len(todo))
        trial = (LOWEST + shift[todo]) * u ** (1 / (1 - INDEX)) - shift[todo]
        keep = generator.uniform(size=len(todo)) * (1 + KAON_SHARE) < _decays(trial, slope[todo])
        energy[todo[keep]] = trial[keep]
        todo = todo[~keep]
    return energy
