"""Events of a beam and cosmic muons in the detector, from a key: interactions, particles, hits.

A simplified event maker, not a simulation of NOvA.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from physml.errors import ConfigError
from physml.neutrino import flux
from physml.neutrino.cosmics import cosmic_muons
from physml.neutrino.detector import respond
from physml.neutrino.events import CLASSES, Hits, Interactions, Particles
from physml.neutrino.geometry import Detector, half_width, length
from physml.neutrino.interactions import interact

BLOCK = 1000  # events made at a time
FAR = Detector()
FRACTIONS = (*flux.FRACTIONS, 1_872_258.0)
"""Shares of `events.CLASSES`: the training events of NOvA (arXiv 1604.01444)."""
COSMIC_RATE, SPILL, SPILL_PROTONS, MASS = 1e5, 1e-5, 4.9e13, 14.0
"""1/s, s, protons on target, kt: more than 100 kHz of cosmic muons in the far detector and one
beam spill (D. Rocco, thesis, University of Minnesota, 2016)."""


class _Block(NamedTuple):
    events: Interactions
    particles: Particles
    hits: Hits


def simulate(
    key: int, n: int, detector: Detector = FAR, *,
    fractions: tuple[float, ...] = FRACTIONS, exposure: float = flux.EXPOSURE,
) -> tuple[Interactions, Particles, Hits]:  # fmt: skip
    """Make n events, of all classes in random order.

    Block b of `BLOCK` events depends on the key and b only, so that the first events are the same
    whatever n is; only their weights, which share out an exposure, go as 1/n.

    Args:
        key: seed, 0 or more.
        n: events.
        detector: see `physml.neutrino.geometry`.
        fractions: shares of `events.CLASSES`, in any unit.
        exposure: kt x protons on target that the weights count events for; cosmic muons are
            counted in the spills of that exposure, before any selection.

    Raises:
        ConfigError: a negative key or n, an exposure that is not positive, or fractions that are
            not five numbers of zero or more.
    """
    if key < 0 or n < 0:
        raise ConfigError("simulate", f"key = {key}, n = {n}", "give numbers of zero or more")
    if not (np.isfinite(exposure) and exposure > 0):
        raise ConfigError("exposure", f"is {exposure}", "give kt x protons on target")
    share = np.asarray(fractions, float)
    bad = share.shape != (len(CLASSES),) or not np.isfinite(share).all() or (share < 0).any()
    if bad or not share.any():
        raise ConfigError("fractions", f"are {fractions}", f"give shares of {CLASSES}")
    blocks = [
        _cut(_block(key, b, detector, share / share.sum()), n - b * BLOCK)
        for b in range(max(1, -(-n // BLOCK)))
    ]
    start = np.cumsum([0] + [len(block.particles.event) for block in blocks])
    hits = [
        block.hits._replace(
            event=block.hits.event + np.int32(b * BLOCK),
            particle=np.where(block.hits.particle >= 0, block.hits.particle + start[b], -1).astype(
                np.int32
            ),
        )
        for b, block in enumerate(blocks)
    ]
    particles = [
        block.particles._replace(event=block.particles.event + np.int32(b * BLOCK))
        for b, block in enumerate(blocks)
    ]
    events = Interactions(*_joined([block.events for block in blocks]))
    weight = _weights(events, n, share / share.sum(), exposure)
    return events._replace(weight=weight), Particles(*_joined(particles)), Hits(*_joined(hits))


def _joined(parts: list[Interactions] | list[Particles] | list[Hits]) -> list[np.ndarray]:
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def _block(key: int, block: int, detector: Detector, share: Float64[np.ndarray, "5"]) -> _Block:
    generator = np.random.default_rng([key, block])
    n_cosmic = int(generator.binomial(BLOCK, share[-1])) if share[:-1].any() else BLOCK
    beam = tuple(share[:-1]) if share[:-1].any() else flux.FRACTIONS
    width = half_width(detector)
    box = ((-width, width), (-width, width), (0.0, length(detector)))
    made = interact(generator, BLOCK - n_cosmic, fractions=beam, box=box)
    sky = cosmic_muons(generator, n_cosmic, detector)
    events = Interactions(*_joined([made[0], sky[0]]))
    late = sky[1]._replace(event=sky[1].event + np.int32(BLOCK - n_cosmic))
    particles = Particles(*_joined([made[1], late]))
    order = generator.permutation(BLOCK)
    events = Interactions(*(column[order] for column in events))
    place = np.empty(BLOCK, np.int32)
    place[order] = np.arange(BLOCK, dtype=np.int32)
    row = np.argsort(place[particles.event], kind="stable")
    particles = particles._replace(event=place[particles.event])
    particles = Particles(*(column[row] for column in particles))
    return _Block(events, particles, respond(generator, particles, detector))


def _cut(block: _Block, n: int) -> _Block:
    """The first n events; rows of particles keep their numbers, for tables are sorted by event."""
    if n >= BLOCK:
        return block
    n_particles = int(np.searchsorted(block.particles.event, n))
    n_hits = int(np.searchsorted(block.hits.event, n))
    return _Block(
        Interactions(*(column[:n] for column in block.events)),
        Particles(*(column[:n_particles] for column in block.particles)),
        Hits(*(column[:n_hits] for column in block.hits)),
    )


def _weights(
    events: Interactions, n: int, share: Float64[np.ndarray, "5"], exposure: float
) -> Float64[np.ndarray, "n"]:
    """Events expected per event made: of the beam as `flux.weights`, and cosmic muons in spills."""
    beam = events.pdg != 0
    weight = np.zeros(len(beam))
    if beam.any():
        made = n * float(share[:-1].sum())
        weight[beam] = flux.weights(
            events.pdg[beam], events.charged[beam], events.energy[beam], made,
            exposure=exposure, fractions=tuple(share[:-1]),
        )  # fmt: skip
    if not beam.all():
        spills = exposure / (MASS * SPILL_PROTONS)
        weight[~beam] = spills * SPILL * COSMIC_RATE / (n * share[-1])
    return weight
