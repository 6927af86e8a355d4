"""What particles turn into: decays, stops and collisions with nuclei.

A simplified event maker, not a simulation of NOvA: spins are ignored, collisions are shares of
energy of our own choice (see `collide`). Masses and branching fractions: PDG 2026, those of a
particle scaled up to a sum of one. Antinucleons are treated as nucleons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from physml.errors import DataError
from physml.neutrino import cross_sections as xs
from physml.neutrino.events import Particles
from physml.neutrino.kinematics import boost, isotropic

STOPPED = 90_000_000
"""Added to a code: the particle at rest, about to decay."""

MASS = {
    11: xs.ELECTRON, 12: 0.0, 13: xs.MUON, 14: 0.0, 15: xs.TAU, 16: 0.0, 22: 0.0,
    111: xs.PION0, 211: xs.PION, 113: 0.775, 213: 0.775, 20213: 1.23, 130: 0.497611,
    310: 0.497611, 311: 0.497611, 321: 0.493677, 2112: xs.NEUTRON, 2212: xs.PROTON,
    3122: 1.115683, 3112: 1.197449, 3222: 1.18937,
    STOPPED + 13: xs.MUON, STOPPED + 211: xs.PION, STOPPED + 321: 0.493677,
}  # fmt: skip
WIDTH = {113: 0.147, 213: 0.149, 20213: 0.42}  # GeV; drawn between the limits that energy sets
LIGHTEST = {113: 2 * xs.PION, 213: 2 * xs.PION, 20213: 3 * xs.PION}
SELF_CONJUGATE = (22, 111, 113, 130, 310)
PAIR = 99  # place of a neutrino pair in `DECAYS`: the decay of a lepton into three

DECAYS: dict[int, tuple[float, tuple[tuple[float, int, int], ...]]] = {
    # code: (c tau in cm, (fraction, product, product)...)
    15: (0.0, ((0.1785, 11, PAIR), (0.1737, 13, PAIR), (0.1082, -211, 16), (0.2549, -213, 16),
               (0.1828, -20213, 16))),
    213: (0.0, ((1.0, 211, 111),)),
    113: (0.0, ((1.0, 211, -211),)),
    20213: (0.0, ((0.5, 213, 111), (0.5, 113, 211))),
    111: (0.0, ((1.0, 22, 22),)),
    310: (2.684, ((0.692, 211, -211), (0.307, 111, 111))),
    3122: (7.845, ((0.641, 2212, -211), (0.359, 2112, 111))),
    3112: (4.434, ((1.0, 2112, -211),)),
    3222: (2.404, ((0.5147, 2212, 111), (0.4843, 2112, 211))),
    STOPPED + 13: (0.0, ((1.0, 11, PAIR),)),
    STOPPED + 211: (0.0, ((1.0, -13, 14),)),
    STOPPED + 321: (0.0, ((0.636, -13, 14), (0.207, 211, 111))),
}  # fmt: skip

PRODUCTION = 0.3  # GeV to spare above which a collision makes a pion
FERMI = 0.2  # GeV, momentum that each product of a collision is given at random, along each axis


class Flying(NamedTuple):
    """Particles on their way."""

    source: Int64[np.ndarray, "n"]  # row of the `Particles` that they come from
    pdg: Int64[np.ndarray, "n"]
    mass: Float64[np.ndarray, "n"]  # GeV
    position: Float64[np.ndarray, "n 3"]  # cm
    momentum: Float64[np.ndarray, "n 3"]  # GeV


_CODES = np.array(sorted(MASS))
_MASSES = np.array([MASS[int(code)] for code in _CODES])
_PARENTS = np.array(sorted(DECAYS))
_MODES = max(len(modes) for _, modes in DECAYS.values())
_SUMS, _PRODUCTS = np.ones((len(_PARENTS), _MODES)), np.zeros((len(_PARENTS), _MODES, 2), np.int64)
_CTAU = np.array([DECAYS[int(code)][0] for code in _PARENTS])
for _row, _code in enumerate(_PARENTS):
    _modes = DECAYS[int(_code)][1]
    _shares = np.cumsum([share for share, _, _ in _modes])
    _SUMS[_row, : len(_modes)] = _shares / _shares[-1]
    _PRODUCTS[_row, : len(_modes)] = [products for _, *products in _modes]


def _place(table: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Place of each |code| in a sorted table."""
    return np.asarray(np.minimum(np.searchsorted(table, np.abs(code)), len(table) - 1))


def select(flying: Flying, rows: np.ndarray) -> Flying:
    """Some of the particles, by mask or index."""
    return Flying(*(column[rows] for column in flying))


def gather(parts: Sequence[Flying]) -> Flying:
    """All particles of several tables."""
    return Flying(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def kinetic(flying: Flying) -> Float64[np.ndarray, "n"]:
    """Kinetic energy, GeV."""
    square = np.einsum("ni,ni->n", flying.momentum, flying.momentum)
    return np.asarray(np.sqrt(square + flying.mass**2) - flying.mass)


def launch(particles: Particles) -> Flying:
    """Particles ready to fly, without those that leave no trace: neutrinos, nuclei (ten digits).

    Raises:
        DataError: a code that is not known, or a place or momentum that is not finite.
    """
    code = particles.pdg.astype(np.int64)
    seen = ~np.isin(np.abs(code), (12, 14, 16)) & (np.abs(code) < 10**9)
    code = np.where(np.abs(code) == 221, 111, code)  # eta: only its decay to photons
    known = np.isin(np.abs(code), _CODES[_CODES < STOPPED])
    if not (known | ~seen).all():
        codes = ", ".join(str(c) for c in np.unique(code[seen & ~known])[:5])
        raise DataError("particles", f"codes {codes} are not known", "let them decay first")
    for name, values in (("position", particles.position), ("momentum", particles.momentum)):
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise DataError(f"particles.{name}", f"row {row} is not finite", "drop that particle")
    mass = _MASSES[_place(_CODES, code)]
    everything = Flying(np.arange(len(code)), code, mass, particles.position, particles.momentum)
    return select(everything, seen)


def decay(generator: np.random.Generator, flying: Flying) -> Flying:
    """All particles with those of `DECAYS` replaced by what they decay to, until none is left."""
    stable = []
    while len(flying.pdg):
        neutral = np.abs(flying.pdg) == 311
        short = generator.uniform(size=neutral.sum()) < 0.5
        flying.pdg[neutral] = np.where(short, 310, 130)
        row = _place(_PARENTS, flying.pdg)
        unstable = _PARENTS[row] == np.abs(flying.pdg)
        stable.append(select(flying, ~unstable))
        flying = _two_bodies(generator, select(flying, unstable), row[unstable])
    return gather(stable) if stable else flying


def _two_bodies(generator: np.random.Generator, parent: Flying, row: np.ndarray) -> Flying:
    """Both products of each decay, neutrinos left out."""
    n = len(row)
    mode = (generator.uniform(size=n)[:, None] > _SUMS[row]).sum(axis=1)
    code = _PRODUCTS[row, mode]
    conjugate = (parent.pdg < 0)[:, None] & ~np.isin(code, SELF_CONJUGATE)
    code = np.where(conjugate, -code, code)
    mass = _product_masses(generator, parent.mass, code)
    momentum = two_body(generator, parent, mass)
    step = _CTAU[row] * generator.exponential(size=n) / parent.mass  # times momentum: the way
    place = parent.position + step[:, None] * parent.momentum
    visible = ~np.isin(np.abs(code), (14, 16, PAIR))
    parts = [Flying(parent.source, code[:, k], mass[:, k], place, momentum[:, k]) for k in (0, 1)]
    return gather([select(part, visible[:, k]) for k, part in enumerate(parts)])


def _product_masses(
    generator: np.random.Generator, parent: np.ndarray, code: np.ndarray
) -> np.ndarray:
    """Masses of two products (n, 2): resonances and neutrino pairs have none of their own."""
    mass = np.where(np.abs(code) == PAIR, 0.0, _MASSES[_place(_CODES, code)])
    for k in (0, 1):
        for wide, width in WIDTH.items():
            rows = np.abs(code[:, k]) == wide
            low, high = LIGHTEST[wide], parent[rows] - mass[rows, 1 - k]
            ends = [np.arctan((end - MASS[wide]) * 2 / width) for end in (low, high)]
            angle = ends[0] + (ends[1] - ends[0]) * generator.uniform(size=rows.sum())
            mass[rows, k] = MASS[wide] + width / 2 * np.tan(angle)
    pair = np.abs(code[:, 1]) == PAIR
    x = michel(generator, int(pair.sum()))
    most = (parent[pair] - mass[pair, 0]) ** 2
    mass[pair, 1] = np.sqrt(np.minimum((1 - x) * parent[pair] ** 2, most * (1 - 1e-9)))
    return mass


def michel(generator: np.random.Generator, n: int) -> Float64[np.ndarray, "n"]:
    """Energies of electrons of n muon decays as shares of their maximum: density 2x²(3 - 2x).

    It is two thirds of 3x² and one third of 12x²(1 - x).
    """
    first = generator.uniform(size=n) < 2 / 3
    return np.where(first, generator.uniform(size=n) ** (1 / 3), generator.beta(3, 2, size=n))


def two_body(
    generator: np.random.Generator, parent: Flying, mass: Float64[np.ndarray, "n 2"]
) -> Float64[np.ndarray, "n 2 3"]:
    """Momenta of two products, isotropic in the rest frame of the parent."""
    m2, a, b = parent.mass**2, mass[:, 0] ** 2, mass[:, 1] ** 2
    energy = (m2 + a - b) / (2 * parent.mass)
    size = np.sqrt(np.maximum(energy**2 - a, 0.0))
    back = size[:, None] * isotropic(generator, len(size))
    total = np.sqrt(np.einsum("ni,ni->n", parent.momentum, parent.momentum) + m2)
    frame = np.concatenate([parent.momentum, total[:, None]], axis=1)
    first = boost(np.concatenate([back, energy[:, None]], axis=1), frame)[:, :3]
    return np.stack([first, parent.momentum - first], axis=1)


def stop(flying: Flying) -> tuple[Flying, Bool[np.ndarray, "n"]]:
    """Particles that decay at rest, and which of those given are rather taken up by a nucleus.

    Muons of both charges decay (no capture), so do pi+ and K+; pi- and K- are taken up; protons
    stay where they are.
    """
    kind = np.abs(flying.pdg)
    muon, positive = kind == 13, (flying.pdg == 211) | (flying.pdg == 321)
    at_rest = select(flying, muon | positive)
    at_rest = at_rest._replace(
        pdg=np.sign(at_rest.pdg) * (STOPPED + np.abs(at_rest.pdg)),
        momentum=np.zeros_like(at_rest.momentum),
    )
    return at_rest, ~muon & ~positive & np.isin(kind, (211, 321))


def collide(generator: np.random.Generator, flying: Flying) -> Flying:
    """Products of collisions with nuclei, a crude model of our own.

    A quarter of the pions and all mesons at rest are absorbed, with their mass. Else the particle
    goes on with 20 to 90 % (nucleons: 0 to 100 %) of its energy, one pion in five as a pi0,
    nucleons as p or n. Above `PRODUCTION` to spare a pion of any charge takes a uniform share of
    what exceeds its mass. Two nucleons share 70 % of the rest, the remainder is lost to binding and
    soft fragments. Nucleons below 2 MeV are left out. Energy is never gained, momentum is not
    conserved.
    """
    n, kind = len(flying.pdg), np.abs(flying.pdg)
    draw = generator.uniform(size=(9, n))
    nucleon, pion = (kind == 2212) | (kind == 2112), kind == 211
    at_rest = ~nucleon & (kinetic(flying) < 1e-3)
    absorbed = at_rest | (pion & (draw[0] < 0.25))
    energy = kinetic(flying) + np.where(absorbed, flying.mass, 0.0)
    share = np.where(nucleon, draw[1], 0.2 + 0.7 * draw[1])
    leading = np.where(absorbed, 0.0, energy * share)
    rest = energy - leading
    makes = rest > PRODUCTION
    made = np.where(makes, (rest - xs.PION) * draw[2], 0.0)
    rest = 0.7 * np.where(makes, rest - made - xs.PION, rest)
    codes = np.stack([
        np.where(nucleon, np.where(draw[3] < 0.5, 2212, 2112),
                 np.where(pion & (draw[3] < 0.2), 111, flying.pdg)),
        np.array([211, -211, 111])[(3 * draw[4]).astype(np.int64)],
        np.where(draw[5] < 0.5, 2212, 2112),
        np.where(draw[6] < 0.5, 2212, 2112),
    ])  # fmt: skip
    energies = np.stack([leading, made, rest * draw[7], rest * (1 - draw[7])])
    heavy = (codes == 2212) | (codes == 2112)
    keep = np.where(heavy, energies > 2e-3, energies > 0)
    slot, row = np.nonzero(keep)
    code, energy = codes[slot, row], energies[slot, row]
    mass = _MASSES[_place(_CODES, code)]
    size = np.sqrt(energy * (energy + 2 * mass))
    along = flying.momentum[row]
    along = along / np.maximum(np.linalg.norm(along, axis=1), 1e-9)[:, None]
    kicked = size[:, None] * along + FERMI * generator.normal(size=along.shape)
    kicked *= (size / np.linalg.norm(kicked, axis=1))[:, None]
    return Flying(flying.source[row], code, mass, flying.position[row], kicked)
