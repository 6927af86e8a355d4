"""From particles to hits: transport, light, photoelectrons, threshold, calibration.

A simplified event maker, not a simulation of NOvA.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from physml.errors import DataError
from physml.neutrino import geometry, secondaries, transport
from physml.neutrino.events import Hits, Particles
from physml.neutrino.geometry import Detector
from physml.neutrino.transport import Deposits

GENERATIONS = 4
"""Tracks of particles, of what they turn into, and so on; the last ones do not collide."""

BATCH = 1000  # events worked on at once, which need about 100 MB


def respond(generator: np.random.Generator, particles: Particles, detector: Detector) -> Hits:
    """Hits of the detector, calibrated as if each were at the mean place in the other view.

    Args:
        generator: source of randomness.
        particles: sorted by event; neutrinos and nuclei leave nothing.
        detector: see `geometry`.

    Raises:
        DataError: see `secondaries.launch`; particles are not sorted by event.
        ConfigError: see `geometry.check`.
    """
    geometry.check(detector)
    event = particles.event
    if (np.diff(event) < 0).any() or (event < 0).any():
        raise DataError("particles", "are not sorted by event", "sort their rows")
    edges = np.searchsorted(event, np.arange(0, event.max(initial=-1) + 1 + BATCH, BATCH))
    found = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        batch = Particles(*(column[low:high] for column in particles))
        hits = read_out(generator, deposit(generator, batch, detector), batch.event, detector)
        found.append(hits._replace(particle=hits.particle + (hits.particle >= 0) * np.int32(low)))
    return Hits(*(np.concatenate(columns) for columns in zip(_none(), *found, strict=True)))


def _none() -> Hits:
    numbers, values = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return Hits(numbers, numbers, numbers, values, values, numbers)


def deposit(generator: np.random.Generator, particles: Particles, detector: Detector) -> Deposits:
    """Where particles and all that they turn into leave energy; also points outside the detector.

    Raises:
        DataError: see `secondaries.launch`.
    """
    flying = secondaries.launch(particles)
    parts, electromagnetic = [], []
    for generation in range(GENERATIONS + 1):
        flying = secondaries.decay(generator, flying)
        kind = np.abs(flying.pdg)
        shower, neutral = (kind == 11) | (kind == 22), (kind == 2112) | (kind == 130)
        electromagnetic.append(secondaries.select(flying, shower))
        if generation == GENERATIONS or shower.all():
            break
        charged = secondaries.select(flying, ~shower & ~neutral)
        collide = generation < GENERATIONS - 1
        found, ends = transport.tracks(generator, charged, detector, collide=collide)
        parts.append(found)
        at_rest, taken = secondaries.stop(ends.stopped)
        neutral = transport.neutrals(generator, secondaries.select(flying, neutral), detector)
        hit = [ends.collided, secondaries.select(ends.stopped, taken), neutral]
        products = secondaries.collide(generator, secondaries.gather(hit))
        flying = secondaries.gather([at_rest, products])
    parts.append(transport.shower_spots(generator, secondaries.gather(electromagnetic), detector))
    return transport.gather(parts)


def read_out(
    generator: np.random.Generator, deposits: Deposits, event: Int64[np.ndarray, "p"],
    detector: Detector,
) -> Hits:  # fmt: skip
    """Light of each cell, photoelectrons, threshold, noise and calibration.

    Args:
        generator: source of randomness.
        deposits: from `deposit`.
        event: of each particle that `deposits.source` names.
        detector: see `geometry`.
    """
    key, source, expected = _cells(deposits, event, detector)
    noise = detector.sensor_noise * generator.normal(size=len(key))
    seen = generator.poisson(expected) + noise
    above = seen >= detector.threshold
    key, source, seen = _with_noise(generator, key[above], source[above], seen[above], detector)
    number, cell = np.divmod(key, detector.cells)
    number, plane = np.divmod(number, detector.planes)
    energy = seen / _calibration(number, plane, cell, detector)
    return Hits(
        number.astype(np.int32), plane.astype(np.int32), cell.astype(np.int32),
        energy.astype(np.float32), seen.astype(np.float32), source.astype(np.int32),
    )  # fmt: skip


def _cells(
    deposits: Deposits, event: np.ndarray, detector: Detector
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number (event, plane, cell), main source and mean photoelectrons of each lit cell."""
    plane = geometry.plane_number(detector, deposits.z)
    view = plane % 2 == 1
    across = np.where(view, deposits.y, deposits.x)
    along = np.where(view, deposits.x, deposits.y)
    cell = geometry.cell_number(detector, across)
    inside = (plane >= 0) & (plane < detector.planes) & (cell >= 0) & (cell < detector.cells)
    inside &= np.abs(along) < geometry.half_width(detector)
    n = len(event)
    base = event.astype(np.int64) * (detector.planes * detector.cells * n) + np.arange(n)
    label = base[deposits.source] + (plane * detector.cells + cell) * n
    label[~inside] = -1
    # Points in a row often share a cell: sum them first, sort what is left.
    start = np.flatnonzero(np.diff(label, prepend=-2))
    if len(start) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    visible = np.add.reduceat(deposits.visible, start)
    place = np.add.reduceat(deposits.visible * along, start) / np.maximum(visible, 1e-30)
    label = label[start]
    lit = np.flatnonzero(label >= 0)
    order = lit[np.argsort(label[lit])]
    light = visible[order] * detector.light_yield * geometry.light(detector, place[order])
    label, light = _summed(label[order], light)
    key, source = np.divmod(label, max(len(event), 1))
    return _main(key, source, light)


def _summed(
    label: Int64[np.ndarray, "n"], values: Float64[np.ndarray, "n"]
) -> tuple[np.ndarray, np.ndarray]:
    """Different labels of a sorted array and the sums of their values."""
    start = np.flatnonzero(np.diff(label, prepend=-1))
    return label[start], np.add.reduceat(values, start) if len(start) else values[:0]


def _main(
    key: np.ndarray, source: np.ndarray, light: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different keys of a sorted array, the source of most light and the sum of light of each."""
    start = np.flatnonzero(np.diff(key, prepend=-1))
    if len(start) == 0:
        return key, source, light
    counts = np.diff(start, append=len(key))
    most = light == np.repeat(np.maximum.reduceat(light, start), counts)
    place = np.flatnonzero(most)
    place = place[np.diff(key[place], prepend=-1) > 0]  # the first of equal ones
    return key[start], source[place], np.add.reduceat(light, start)


def _with_noise(
    generator: np.random.Generator, key: np.ndarray, source: np.ndarray, seen: np.ndarray,
    detector: Detector,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Add noise hits, just above threshold, near real hits: others would not be in the slice.

    Each is within 20 cells of a random hit of the event, in a plane between its first and last.
    """
    if len(key) == 0:
        return key, source, seen
    number = key // (detector.planes * detector.cells)
    first = np.flatnonzero(np.diff(number, prepend=-1))
    counts = np.diff(first, append=len(key))
    chosen = np.repeat(np.arange(len(first)), generator.poisson(detector.noise_hits, len(first)))
    near = first[chosen] + (counts[chosen] * generator.uniform(size=len(chosen))).astype(np.int64)
    cell = key[near] % detector.cells + generator.integers(-20, 21, len(chosen))
    planes = key // detector.cells  # counted through all events
    low, high = planes[first[chosen]], planes[(first + counts - 1)[chosen]]
    plane = low + ((high - low + 1) * generator.uniform(size=len(chosen))).astype(np.int64)
    extra = plane * detector.cells + cell
    free = key[np.minimum(np.searchsorted(key, extra), len(key) - 1)] != extra
    extra = np.unique(extra[free & (cell >= 0) & (cell < detector.cells)])
    size = detector.threshold + detector.sensor_noise * generator.exponential(size=len(extra))
    everything = np.concatenate([key, extra])
    order = np.argsort(everything)
    source = np.concatenate([source, np.full(len(extra), -1)])
    return everything[order], source[order], np.concatenate([seen, size])[order]


def _calibration(
    event: np.ndarray, plane: np.ndarray, cell: np.ndarray, detector: Detector
) -> np.ndarray:
    """Photoelectrons per GeV at the mean place of the hits of the event in the other view.

    The middle of the cell where the other view has no hit.
    """
    group = 2 * event + plane % 2
    size = 2 * (int(event.max(initial=-1)) + 1)
    place = geometry.cell_position(detector, cell)
    counts = np.bincount(group, minlength=size)
    mean = np.bincount(group, place, minlength=size) / np.maximum(counts, 1)
    return detector.light_yield * geometry.light(detector, mean[group ^ 1])
