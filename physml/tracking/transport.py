"""Charged particles through the layers of a detector: helices, scattering, energy loss.

Particles go from surface to surface, all together, one crossing at a time. In each active layer
they are deflected (Highland's width, no tails), lose the mean energy of Bethe's formula, electrons
also radiate (Bethe and Heitler), and hadrons may end in a nuclear collision. Cylinders are crossed
outwards only (what flies inwards leaves hits when it comes out again), disks away from where the
particle started. A particle is followed for half a turn in all: loopers leave the hits of their
first half turn. There is no beam pipe.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from physml.matter import SILICON, bethe, highland
from physml.tracking import helix
from physml.tracking.geometry import GRAZING, Detector
from physml.tracking.helix import HALF_TURN, SPEED_OF_LIGHT, Helix

EDGE = 5.0  # mm beyond a layer's ends where staggered and tilted modules may still be hit
SAME = 1e-6  # mm: places closer than this are the same
ELECTRON = 1e-3  # GeV: lighter particles radiate and have no nuclear collisions
MUON = 0.11  # GeV: nor have those between ELECTRON and this


class Material(NamedTuple):
    """What layers do to particles that cross them at right angles, for each mm of sensor."""

    thickness: float = 0.05  # X0: with cooling and supports, 1.5 to 3.5 % a layer
    collision: float = 0.028  # chance of a nuclear collision of a hadron
    scattering: bool = True
    loss: bool = True


class Flights(NamedTuple):
    """p particles to be followed."""

    start: Helix  # at their vertices
    momentum: Float64[np.ndarray, "p"]  # GeV
    mass: Float64[np.ndarray, "p"]  # GeV


class Crossings(NamedTuple):
    """c crossings of active layers at their nominal surfaces, before the layer acts."""

    particle: Int64[np.ndarray, "c"]  # row of the flights
    layer: Int32[np.ndarray, "c"]
    at: Helix  # point and direction at the crossing
    momentum: Float64[np.ndarray, "c"]  # GeV
    collided: Bool[np.ndarray, "c"]  # the particle ended here in a nuclear collision


class _Surfaces(NamedTuple):
    """Cylinders, then planes, each with up to m layers in it."""

    radius: np.ndarray  # rising, infinite at the end
    z: np.ndarray  # rising, infinite at both ends
    layer: np.ndarray  # (surface, m)
    low: np.ndarray  # (surface, m): z of a barrel, r of a disk
    high: np.ndarray


def fly(
    generator: np.random.Generator, flights: Flights, detector: Detector, material: Material
) -> Crossings:
    """Follow particles out of the detector, half a turn, or to their end.

    Args:
        generator: source of randomness.
        flights: particles with charge +-1.
        detector: see `geometry`.
        material: of every layer.
    """
    surfaces = _surfaces(detector)
    start = flights.start
    state = np.stack([*start, flights.momentum, flights.mass, np.zeros_like(start.x)])
    outward = start.cot_theta > 0
    # Those that start on a surface leave it without a crossing.
    ring = np.searchsorted(surfaces.radius, np.hypot(start.x, start.y) + SAME)
    disk = np.where(
        outward,
        np.searchsorted(surfaces.z, start.z + SAME),
        np.searchsorted(surfaces.z, start.z - SAME) - 1,
    )
    where = np.stack([np.arange(len(start.x)), ring, disk, np.where(outward, 1, -1)])
    found = [_none()]
    while where.shape[1]:
        state, where, surface = _step(state, where, surfaces)
        layer = _active(surfaces, surface, Helix(*state[:6]))
        hit = np.flatnonzero(layer >= 0)
        before = state[:, hit]
        state[:, hit], collided, stopped = _matter(
            generator, before, layer[hit], detector, material
        )
        at = Helix(*before[:6])
        found.append(Crossings(where[0, hit], layer[hit], at, before[6], collided))
        alive = np.ones(len(layer), bool)
        alive[hit] = ~(collided | stopped)
        state, where = state[:, alive], where[:, alive]
    return gather(found)


def _surfaces(detector: Detector) -> _Surfaces:
    radius = np.unique(detector.place[detector.barrel])
    z = np.unique(detector.place[~detector.barrel])
    groups = [np.flatnonzero(detector.barrel & (detector.place == r)) for r in radius]
    groups += [np.flatnonzero(~detector.barrel & (detector.place == place)) for place in z]
    most = max(map(len, groups))
    layer = np.full((len(groups), most), -1)
    for row, members in zip(layer, groups, strict=True):
        row[: len(members)] = members
    low = np.where(layer >= 0, detector.low[layer] - EDGE, np.inf)
    high = np.where(layer >= 0, detector.high[layer] + EDGE, -np.inf)
    return _Surfaces(np.append(radius, np.inf), np.r_[-np.inf, z, np.inf], layer, low, high)


def _step(
    state: np.ndarray, where: np.ndarray, surfaces: _Surfaces
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move particles to the next surface; those that reach none are left behind."""
    h = Helix(*state[:6])
    _, ring, disk, sense = where
    to_ring = helix.to_cylinder(h, surfaces.radius[ring])
    to_disk = helix.to_disk(h, surfaces.z[disk])
    s = np.fmin(to_ring, to_disk)
    turned = state[8] + np.abs(h.curvature) * s
    on = np.isfinite(s) & (turned <= HALF_TURN)
    first = (to_ring == s)[on]
    state, where = state[:, on], where[:, on]
    state[:6] = helix.advance(Helix(*state[:6]), s[on])
    state[8] = turned[on]
    surface = np.where(first, where[1], len(surfaces.radius) - 2 + where[2])
    where[1] += first
    where[2] += np.where(first, 0, where[3])
    return state, where, surface


def _active(surfaces: _Surfaces, surface: np.ndarray, h: Helix) -> np.ndarray:
    """Layer of a surface that has modules at a point, or -1."""
    cylinders = len(surfaces.radius) - 1
    place = np.where(surface < cylinders, h.z, np.hypot(h.x, h.y))[:, None]
    inside = (place > surfaces.low[surface]) & (place < surfaces.high[surface])
    chosen = np.take_along_axis(surfaces.layer[surface], inside.argmax(axis=1)[:, None], axis=1)
    return np.where(inside.any(axis=1), chosen[:, 0], -1).astype(np.int32)


def _matter(
    generator: np.random.Generator, state: np.ndarray, layer: np.ndarray, detector: Detector,
    material: Material,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """State behind a layer; which particles collided in it, which stopped."""
    x, y, _, phi, cot, curvature, momentum, mass, _ = state
    sine = 1 / np.sqrt(1 + cot**2)
    radial = (x * np.cos(phi) + y * np.sin(phi)) / np.hypot(x, y)
    cosine = np.where(detector.barrel[layer], sine * radial, cot * sine)
    sensor = detector.thickness[layer] / np.maximum(np.abs(cosine), GRAZING)  # mm
    thickness = material.thickness * sensor  # X0
    energy = np.hypot(momentum, mass)
    after = state.copy()
    if material.scattering:
        width = highland(thickness, momentum, momentum / energy)
        kick = width * generator.standard_normal((2, len(width)))
        # Direction plus a kick to the side and one in theta, normalised.
        along, z = sine * (1 + kick[1] * cot), sine * (cot - kick[1])
        after[3] += np.arctan2(kick[0], along)
        after[4] = z / np.hypot(along, kick[0])
    stopped = np.zeros(len(mass), bool)
    if material.loss:
        energy, stopped = _lose(generator, energy, mass, thickness)
        after[6] = np.sqrt(np.maximum(energy**2 - mass**2, 1e-18))
    across = after[6] / np.sqrt(1 + after[4] ** 2)
    after[5] = helix.safe(np.sign(curvature) * SPEED_OF_LIGHT * abs(detector.field) / across)
    collided = (mass > MUON) & (generator.random(len(mass)) < material.collision * sensor)
    return after, collided, stopped


def _lose(
    generator: np.random.Generator, energy: np.ndarray, mass: np.ndarray, thickness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Energy behind a layer, and which particles end in it."""
    kinetic = energy - mass
    loss = bethe(SILICON, mass, kinetic) * SILICON.radiation_length * thickness
    left = np.maximum(kinetic - loss, 0.0)
    light = np.flatnonzero(mass < ELECTRON)
    left[light] *= np.exp(-generator.gamma(thickness[light] / np.log(2)))
    # Bethe's formula holds down to beta gamma = 0.1; below it the range is less than a layer.
    stopped = (left + mass) ** 2 < 1.01 * mass**2
    return left + mass, stopped


def _none() -> Crossings:
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    return Crossings(whole, whole.astype(np.int32), Helix(*[real] * 6), real, whole > 0)


def gather(parts: list[Crossings]) -> Crossings:
    """Crossings of all steps in one."""
    at = Helix(*(np.concatenate(c) for c in zip(*(part.at for part in parts), strict=True)))
    particle, layer, momentum, collided = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("particle", "layer", "momentum", "collided")
    )
    return Crossings(particle, layer, at, momentum, collided)
