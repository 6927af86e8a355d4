"""Charged particles of proton collisions: multiplicity, transverse momentum, rapidity, species.

Shapes with few numbers. Multiplicity: a share of the collisions leaves nothing in sight, the others
follow a negative binomial. Transverse momentum: dN/dpT = pT (1 + (mT - m) / (n T))^-n, the form of
Tsallis, with the same m for all species. Rapidity: a plateau in eta with round edges.

The numbers of `DEFAULT` were fitted by maximum likelihood to the particles of one event of the
TrackML challenge (event 1000: Pythia 8, a top-quark pair among 200 pile-up collisions;
arXiv 1904.06778) that start within 0.1 mm of the beam: 7,751 of pile-up in 214 collisions, 236 of
the hard one. `data_scripts/pileup_spectrum.py` made these numbers and makes them with Pythia too.
One event does not tell how multiplicities of hard collisions vary (`shape`), and it names no
species: these are round numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

MASS = {11: 0.51099895e-3, 13: 0.1056583755, 211: 0.13957039, 321: 0.493677, 2212: 0.93827208816}
"""GeV, by PDG code (PDG review)."""
LOWEST = 0.15  # GeV: multiplicities count particles of more transverse momentum than this
WIDEST = 4.0  # and of smaller |eta|
HIGHEST = 500.0  # GeV, of the transverse momenta that are drawn

Values = Float64[np.ndarray, "n"]


class Kind(NamedTuple):
    """Charged particles of one kind of collision, above `LOWEST` and within `WIDEST`."""

    multiplicity: float  # mean of collisions that are not silent
    shape: float  # k of the negative binomial: variance = mean + mean² / k
    silent: float  # share of collisions without any such particle
    temperature: float  # T of the transverse momentum, GeV
    power: float  # n, above 2
    mass: float  # m, GeV
    plateau: float  # |eta| where the density has fallen to a half
    edge: float  # width of that fall


class Spectrum(NamedTuple):
    """What comes out of the collisions of a bunch crossing."""

    pile_up: Kind
    hard: Kind
    species: tuple[tuple[int, float], ...]  # PDG code and share


DEFAULT = Spectrum(
    pile_up=Kind(49.06, 1.355, 0.262, 0.1407, 5.549, 0.3089, 5.417, 0.732),
    hard=Kind(236.0, 10.0, 0.0, 0.1749, 3.367, 0.4263, 2.062, 1.248),
    species=((211, 0.80), (321, 0.12), (2212, 0.06), (11, 0.015), (13, 0.005)),
)


def survival(kind: Kind, pt: Values) -> Values:
    """Number of particles above transverse momenta, in any unit: the shape's integral, closed."""
    n, scale = kind.power, kind.power * kind.temperature
    x = (np.hypot(pt, kind.mass) - kind.mass) / scale
    tail = scale * (1 + (n - 1) * x) / (n - 2) + kind.mass
    return np.asarray((1 + x) ** (1 - n) * tail)


def plateau(kind: Kind, eta: Values) -> Values:
    """Density in eta, 1 on the plateau."""
    return np.asarray(1 / (1 + np.exp((np.abs(eta) - kind.plateau) / kind.edge)))


def share(kind: Kind, min_pt: float, max_eta: float) -> float:
    """Particles above `min_pt` and within `max_eta` for each of those that `Kind` counts."""
    pt = survival(kind, np.array([min_pt, LOWEST]))
    inside = [np.trapezoid(plateau(kind, e), e) for e in (_grid(max_eta), _grid(WIDEST))]
    return float(pt[0] / pt[1] * inside[0] / inside[1])


def multiplicities(
    generator: np.random.Generator, kind: Kind, n: int, min_pt: float, max_eta: float
) -> Int64[np.ndarray, "n"]:
    """Draw the number of charged particles of n collisions above `min_pt` and within `max_eta`."""
    mean = kind.multiplicity * share(kind, min_pt, max_eta)
    drawn = generator.negative_binomial(kind.shape, kind.shape / (kind.shape + mean), n)
    return np.where(generator.random(n) < kind.silent, 0, drawn)


def transverse_momenta(generator: np.random.Generator, kind: Kind, n: int, lowest: float) -> Values:
    """Draw n transverse momenta from `lowest` to `HIGHEST`, GeV."""
    grid = np.geomspace(lowest, HIGHEST, 2000)
    above = survival(kind, grid)
    chosen = generator.uniform(above[-1], above[0], n)
    return np.exp(np.interp(chosen, above[::-1], np.log(grid)[::-1]))


def pseudorapidities(generator: np.random.Generator, kind: Kind, n: int, largest: float) -> Values:
    """Draw n pseudorapidities from -`largest` to `largest`."""
    grid = _grid(largest)
    density = plateau(kind, grid)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    size = np.interp(generator.uniform(0.0, below[-1], n), below, grid)
    return np.asarray(size * generator.choice([-1.0, 1.0], n))


def _grid(largest: float) -> np.ndarray:
    return np.linspace(0.0, largest, 501)
