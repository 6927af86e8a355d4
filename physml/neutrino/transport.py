"""Where particles leave their energy: tracks with energy loss, electromagnetic showers.

A simplified event maker, not a simulation of NOvA. Nothing here loops over particles: all tracks
are cut into steps at once, and the energy at each is read from the range that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from physml import matter, showers
from physml.neutrino import geometry
from physml.neutrino.cross_sections import MUON
from physml.neutrino.geometry import Detector
from physml.neutrino.secondaries import Flying, kinetic, select

STEP = 4.0  # cm, longest step of a track
POINTS = 4  # places on each step that its energy is shared out to
HIGHEST = 1e5  # GeV, of muons; faster ones lose energy as this one does
MARGIN = 30.0  # cm, how far tracks are followed beyond the straight way out
NUCLEONS, PIONS, NEUTRONS = 82.0, 114.9, 58.3
"""Mean ways, g/cm². Interaction length of nucleons in plastic scintillator (R. Bock, Particle
Detector BriefBook, after PDG 1996) and of pions in soft tissue (PDG 2020), used for kaons too.
Neutrons: nuclear collision length in soft tissue (PDG 2020), for what they hit elastically shows.
None of them depends on the energy here."""


class Deposits(NamedTuple):
    """Energy left at points."""

    source: Int64[np.ndarray, "d"]  # row of the particle behind it
    x: Float64[np.ndarray, "d"]  # cm
    y: Float64[np.ndarray, "d"]
    z: Float64[np.ndarray, "d"]
    energy: Float64[np.ndarray, "d"]  # GeV
    visible: Float64[np.ndarray, "d"]  # GeV of a fast muon that would give as much light


class Ends(NamedTuple):
    """Particles at the end of their tracks, with the momentum left."""

    stopped: Flying
    collided: Flying


class Steps(NamedTuple):
    """Steps of all tracks, one after the other."""

    track: Int64[np.ndarray, "s"]  # row of the particle
    number: Int64[np.ndarray, "s"]  # from 0 on each track
    first: Int64[np.ndarray, "n"]  # where each track starts
    last: Int64[np.ndarray, "n"]
    length: Float64[np.ndarray, "s"]  # cm


class Slowing(NamedTuple):
    """What a muon does whose range left is first * exp(ratio * row), g/cm²; see `ENERGY`..."""

    first: float
    ratio: float
    table: Float64[np.ndarray, "k 5"]
    slope: Float64[np.ndarray, "k 5"]  # next row less this one
    ranges: matter.RangeTable


ENERGY, VISIBLE, XI, TRANSFER, ANGLE = range(5)
"""Kinetic energy; the part of it that will be seen; xi in a step of STEP; largest energy given to
an electron, all GeV; width of the scattering angle of such a step, rad."""


def gather(parts: Sequence[Deposits]) -> Deposits:
    """All deposits of several tables."""
    return Deposits(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _seen(detector: Detector, loss: np.ndarray) -> np.ndarray:
    """Light per energy (Birks and Chou) of a loss in GeV/cm."""
    return np.asarray(1 / (1 + detector.birks * loss + detector.chou * loss**2))


@lru_cache(maxsize=8)
def slowing(detector: Detector) -> Slowing:
    """Tables for muons.

    A particle of mass M has M/m times the range and energy of a muon of mass m and the same
    velocity, but for the largest energy given to electrons: within 0.3 % below 10 GeV.
    """
    material = detector.material
    ranges = matter.range_table(material, MUON, HIGHEST, 1000)
    thickness = STEP * material.density
    loss = matter.bethe(material, MUON, ranges.kinetic) * material.density
    seen = _seen(detector, loss) / _seen(detector, loss.min())
    visible = np.cumsum(np.diff(ranges.kinetic, prepend=0.0) * seen)
    momentum = np.sqrt(ranges.kinetic * (ranges.kinetic + 2 * MUON))
    # Squares of angles add, but for the logarithm of Highland's formula: taken for 1 X0.
    angle = matter.highland(np.array(1.0), momentum, momentum / (ranges.kinetic + MUON))
    angle *= np.sqrt(thickness / material.radiation_length)
    xi, transfer, _ = matter.collisions(material, MUON, ranges.kinetic, thickness)
    rows = np.log(ranges.range)
    even = np.linspace(rows[0], rows[-1], 1000)
    columns = np.log([ranges.kinetic, visible, xi, transfer, angle])
    table = np.exp([np.interp(even, rows, column) for column in columns]).T
    slope = np.diff(table, axis=0, append=table[-1:])
    return Slowing(float(ranges.range[0]), float(even[1] - even[0]), table.copy(), slope, ranges)


def _left(slowing: Slowing, energy: np.ndarray) -> np.ndarray:
    """Range left at an energy of a muon, g/cm²: the inverse of `_look`."""
    energies = slowing.table[:, ENERGY]
    place = np.interp(energy, energies, np.arange(len(energies)))
    below = np.minimum(energy / energies[0], 1.0)
    return np.asarray(slowing.first * np.exp(slowing.ratio * place) * below)


def _look(slowing: Slowing, left: np.ndarray) -> np.ndarray:
    """Columns of the table, (5, s); energies below the first row fall to zero."""
    ratio = np.maximum(left / slowing.first, 1e-9)
    place = np.clip(np.log(ratio) / slowing.ratio, 0, len(slowing.table) - 1)
    row = place.astype(np.int64)
    found = np.ascontiguousarray(slowing.table.take(row, axis=0).T)
    found += slowing.slope.take(row, axis=0).T * (place - row)
    found[:2] *= np.minimum(ratio, 1.0)
    return found


def _way(
    generator: np.random.Generator, flying: Flying, detector: Detector, collide: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Range, and the way to a collision and out of the detector, cm; infinite where there is none.

    Ranges straggle (see `matter.range_table`).
    """
    table = slowing(detector)
    heavier = flying.mass / MUON
    scaled = kinetic(flying) / heavier
    mean = _left(table, scaled) * heavier
    spread = np.interp(scaled, table.ranges.kinetic, table.ranges.straggling) * np.sqrt(heavier)
    straggled = np.maximum(mean + spread * generator.normal(size=len(mean)), 0.5 * mean)
    kind = np.abs(flying.pdg)
    length = np.where((kind == 211) | (kind == 321), PIONS, NUCLEONS)
    way = np.where((kind == 13) | (not collide), np.inf, length)
    way = way * generator.exponential(size=len(way))
    size = np.maximum(np.linalg.norm(flying.momentum, axis=1), 1e-12)
    out = geometry.exit_distance(detector, flying.position, flying.momentum / size[:, None])
    density = detector.material.density
    return straggled / density, way / density, np.where(out > 0, 1.1 * out + MARGIN, 0.0)


def tracks(
    generator: np.random.Generator, flying: Flying, detector: Detector, *, collide: bool = True
) -> tuple[Deposits, Ends]:
    """Follow charged particles to where they stop, collide or leave.

    The losses of each track fluctuate from step to step and sum up to what its end implies.

    Args:
        generator: source of randomness.
        flying: muons, charged pions and kaons, protons.
        detector: see `geometry`.
        collide: let hadrons collide with nuclei.
    """
    reach, hit, out = _way(generator, flying, detector, collide)
    way = np.minimum(np.minimum(reach, hit), out)
    rows = np.flatnonzero(way > 0)
    flying, reach, way, hit = select(flying, rows), reach[rows], way[rows], hit[rows]
    steps = _cut(way)
    loss, visible, angle, left = _losses(generator, detector, flying, reach, steps)
    direction, place = _bent(generator, flying, angle, steps)
    deposits = _spread(flying, steps, loss, visible, direction, place)
    end = (place + direction * steps.length)[:, steps.last].T
    size = np.sqrt(left * (left + 2 * flying.mass))
    at_end = flying._replace(position=end, momentum=direction[:, steps.last].T * size[:, None])
    inside = geometry.inside(detector, end)
    stopped, collided = way == reach, way == hit
    return deposits, Ends(select(at_end, inside & stopped), select(at_end, inside & collided))


def _cut(way: np.ndarray) -> Steps:
    counts = np.ceil(way / STEP).astype(np.int64)
    last = np.cumsum(counts) - 1
    first = last - counts + 1
    track = np.repeat(np.arange(len(way)), counts)
    return Steps(track, np.arange(len(track)) - first[track], first, last, (way / counts)[track])


def _losses(
    generator: np.random.Generator, detector: Detector, flying: Flying, reach: np.ndarray,
    steps: Steps,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Loss, visible loss and width of the angle of each step; energy at the end of each track."""
    table = slowing(detector)
    heavier = flying.mass / MUON
    # Range of a muon of the same velocity; a track that straggles has its energy range spread out.
    mean = _left(table, kinetic(flying) / heavier)
    shorten = (mean / reach)[steps.track]
    after = (reach[steps.track] - (steps.number + 1) * steps.length) * shorten
    end = _look(table, after)
    start = np.roll(end, 1, axis=1)
    start[:, steps.first] = _look(table, mean)
    share, weight = steps.length / STEP, heavier[steps.track]
    average = (start[ENERGY] - end[ENERGY]) * weight
    xi = start[XI] * share
    beta2 = table.table[-1, XI] / start[XI]  # the last row is that of the velocity of light
    normal, uniforms = generator.normal(size=len(xi)), tuple(generator.uniform(size=(2, len(xi))))
    loss = matter.fluctuated_loss(average, xi, start[TRANSFER], beta2, normal, uniforms)
    if len(loss):
        made = np.maximum(np.add.reduceat(loss, steps.first), 1e-30)
        loss *= (np.add.reduceat(average, steps.first) / made)[steps.track]
    slowed = np.maximum(start[ENERGY] - end[ENERGY], 1e-30)  # some steps are shorter than rounding
    visible = loss * (start[VISIBLE] - end[VISIBLE]) / slowed
    left = end[ENERGY, steps.last] * heavier
    return loss, visible, start[ANGLE] * np.sqrt(share) / weight, left


def _bent(
    generator: np.random.Generator, flying: Flying, angle: np.ndarray, steps: Steps
) -> tuple[np.ndarray, np.ndarray]:
    """Direction on each step and place of its start, (3, s)."""
    unit = flying.momentum / np.linalg.norm(flying.momentum, axis=1)[:, None]
    slopes = _summed(angle * generator.normal(size=(2, len(angle))), steps)
    slant = 1 / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
    one, other = slopes * slant
    side, up = across(unit)
    direction, place = np.empty((3, len(angle))), np.empty((3, len(angle)))
    for k in range(3):
        each = np.stack([unit[:, k], side[:, k], up[:, k]])[:, steps.track]
        direction[k] = slant * each[0] + one * each[1] + other * each[2]
        way = direction[k] * steps.length
        place[k] = flying.position[steps.track, k] + _summed(way, steps) - way
    return direction, place


def _summed(values: np.ndarray, steps: Steps) -> np.ndarray:
    """Sums along each track, each step included."""
    sums = np.cumsum(values, axis=-1)
    before = sums[..., steps.first] - values[..., steps.first]
    return np.asarray(sums - before[..., steps.track])


def across(unit: Float64[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across each unit vector and across each other."""
    x, y, z = unit.T
    sign = np.where(z < 0, -1.0, 1.0)  # Duff et al., J. Comput. Graph. Tech. 6 (2017): no branch
    a = -1 / (sign + z)
    b = x * y * a
    side = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1)
    return side, np.stack([b, sign + y * y * a, -y], axis=1)


def _spread(
    flying: Flying, steps: Steps, loss: np.ndarray, visible: np.ndarray, direction: np.ndarray,
    place: np.ndarray,
) -> Deposits:  # fmt: skip
    """Share out the energy of each step to places along it."""
    along = (np.arange(POINTS) + 0.5) / POINTS * steps.length[:, None]
    where = np.empty((3, *along.shape))
    for k in range(3):
        np.multiply(direction[k][:, None], along, out=where[k])
        where[k] += place[k][:, None]
    x, y, z = where.reshape(3, -1)
    source = np.repeat(flying.source[steps.track], POINTS)
    return Deposits(
        source, x, y, z, np.repeat(loss / POINTS, POINTS), np.repeat(visible / POINTS, POINTS)
    )


def shower_spots(generator: np.random.Generator, flying: Flying, detector: Detector) -> Deposits:
    """Electrons, positrons and photons as GFlash showers of equal spots (hep-ex/0001020).

    Photons convert first, so that there is a gap. Spots: 93 ln(Z) E^0.876, at least 8 (ours).
    """
    material = detector.material
    n, energy = len(flying.pdg), kinetic(flying)
    shape = showers.shower_shape(material, energy, tuple(generator.normal(size=(2, n))))
    gap = showers.conversion_depth(1 - generator.uniform(size=n)) * (flying.pdg == 22)
    spots = np.ceil(np.maximum(93 * np.log(material.z) * energy**0.876, 8)).astype(np.int64)
    shower = np.repeat(np.arange(n), spots)
    each = showers.ShowerShape(*(np.asarray(part)[shower] for part in shape))
    depth = generator.standard_gamma(each.alpha) / each.beta
    radial = showers.radial_shape(material, energy[shower], each, depth)
    distance = showers.radius(radial, tuple(generator.uniform(size=(2, len(shower)))))
    distance *= material.moliere_radius / material.density
    angle = 2 * np.pi * generator.uniform(size=len(shower))
    unit = flying.momentum / np.linalg.norm(flying.momentum, axis=1)[:, None]
    side, up = across(unit)
    way = (gap[shower] + depth) * material.radiation_length / material.density
    right, over = distance * np.cos(angle), distance * np.sin(angle)
    x, y, z = (
        flying.position[shower, k] + unit[shower, k] * way + side[shower, k] * right
        + up[shower, k] * over
        for k in range(3)
    )  # fmt: skip
    spot = (energy / spots)[shower]
    return Deposits(flying.source[shower], x, y, z, spot, spot)


def neutrals(generator: np.random.Generator, flying: Flying, detector: Detector) -> Flying:
    """Neutrons and neutral kaons where they collide, in the detector."""
    way = NEUTRONS / detector.material.density * generator.exponential(size=len(flying.pdg))
    size = np.linalg.norm(flying.momentum, axis=1)
    place = flying.position + flying.momentum * (way / size)[:, None]
    return select(flying._replace(position=place), geometry.inside(detector, place))
