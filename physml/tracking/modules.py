"""Flat modules of a detector: which ones a crossing meets, points on them, measured positions.

Points on a module have u across the strips (along phi at its centre) and v along them (z of a
barrel, r of a disk), mm from its centre.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from physml.tracking import helix
from physml.tracking.geometry import Detector, Rings
from physml.tracking.helix import Helix
from physml.tracking.transport import Crossings

REACH = 6.0  # mm that a module stands from the layer's nominal surface at most
SLACK = 3.0  # mm


class Points(NamedTuple):
    """n points on modules."""

    ring: Int64[np.ndarray, "n"]
    module: Int64[np.ndarray, "n"]  # in its ring
    u: Float64[np.ndarray, "n"]
    v: Float64[np.ndarray, "n"]


def cross(crossings: Crossings, detector: Detector) -> tuple[Int64[np.ndarray, "n"], Points]:
    """Where the helices of crossings meet modules, exactly; where modules overlap, more than once.

    Returns:
        The crossing of each point, and the points.
    """
    row, ring, module = _near(crossings, detector)
    rings = _rings(detector)
    barrel = detector.barrel[rings.layer[ring]]
    h = Helix(*(column[row] for column in crossings.at))
    angle = _angle(rings, ring, module)
    u, v = np.empty(len(row)), np.empty(len(row))
    b, d = np.flatnonzero(barrel), np.flatnonzero(~barrel)
    u[b], v[b] = _on_barrel(_take(h, b), rings, ring[b], angle[b])
    u[d], v[d] = _on_disk(_take(h, d), rings, ring[d], module[d], angle[d])
    half = rings.half_length[ring]
    mean, slope = rings.narrow[ring] + rings.wide[ring], rings.wide[ring] - rings.narrow[ring]
    with np.errstate(invalid="ignore"):
        inside = (np.abs(v) < half) & (np.abs(u) < (mean + slope * v / half) / 2)
    return row[inside], select(Points(ring, module, u, v), inside)


def _take(h: Helix, rows: np.ndarray) -> Helix:
    return Helix(*(column[rows] for column in h))


def _rings(detector: Detector) -> Rings:
    assert detector.rings is not None
    return detector.rings


def _angle(rings: Rings, ring: np.ndarray, module: np.ndarray) -> np.ndarray:
    return np.asarray((module + 0.5) * (2 * np.pi / rings.count[ring]) - np.pi)


def _near(crossings: Crossings, detector: Detector) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Modules that may be met: of the two nearest rings, the two nearest modules in phi."""
    rings, at = _rings(detector), crossings.at
    r, phi = np.hypot(at.x, at.y), np.arctan2(at.y, at.x)
    barrel = detector.barrel[crossings.layer]
    place = np.where(barrel, at.z, r)
    centre = np.where(detector.barrel[rings.layer], rings.z, rings.radius)
    # Rings sorted by layer and centre; layers are further apart than any centres.
    far = 1e5
    order = np.lexsort([centre, rings.layer])
    above = np.searchsorted((rings.layer * far + centre)[order], crossings.layer * far + place)
    steep = np.abs(at.cot_theta)
    margin = SLACK + REACH * np.where(barrel, steep, 1 / np.maximum(steep, 1e-9))
    found = []
    for k in (above - 1, above):
        ring = order[np.clip(k, 0, len(order) - 1)]
        near = (rings.layer[ring] == crossings.layer) & (
            np.abs(place - centre[ring]) < rings.half_length[ring] + margin
        )
        row = np.flatnonzero(near)
        ring = ring[row]
        count = rings.count[ring]
        t = (phi[row] + np.pi) * count / (2 * np.pi) - 0.5
        left = np.floor(t)
        size = rings.wide[ring] + SLACK + np.where(barrel[row], 0.0, margin[row])
        step = 2 * np.pi / count * r[row]
        for module, away in ((left, t - left), (left + 1, left + 1 - t)):
            close = np.flatnonzero(away * step < size)
            found.append((row[close], ring[close], (module[close] % count[close])))
    row, ring, module = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return row, ring, module.astype(np.int64)


def _on_barrel(
    h: Helix, rings: Rings, ring: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    normal = angle + rings.tilt[ring]
    radius = rings.radius[ring]
    s = helix.to_plane(h, normal, radius * np.cos(rings.tilt[ring]))
    p = helix.advance(h, s)
    u = -p.x * np.sin(normal) + p.y * np.cos(normal) + radius * np.sin(rings.tilt[ring])
    return u, p.z - rings.z[ring]


def _on_disk(
    h: Helix, rings: Rings, ring: np.ndarray, module: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    p = helix.advance(h, (_height(rings, ring, module) - h.z) / h.cot_theta)
    u = -p.x * np.sin(angle) + p.y * np.cos(angle)
    return u, p.x * np.cos(angle) + p.y * np.sin(angle) - rings.radius[ring]


def _height(rings: Rings, ring: np.ndarray, module: np.ndarray) -> np.ndarray:
    """Place in z of the modules of a disk."""
    z = rings.z[ring]
    return np.asarray(z + np.sign(z) * rings.stagger[ring] * np.where(module % 2, -1, 1))


def anywhere(generator: np.random.Generator, detector: Detector, n: int) -> Points:
    """Make n points, evenly spread over all modules whatever their size, and over each module."""
    rings = _rings(detector)
    which = generator.integers(rings.count.sum(), size=n)
    first = np.cumsum(rings.count) - rings.count
    ring = np.searchsorted(first, which, side="right") - 1
    side = generator.uniform(-1, 1, (2, n))
    # A trapezium: the wide end is likelier.
    narrow, wide = rings.narrow[ring], rings.wide[ring]
    side[1] = _uneven(side[1], (wide - narrow) / (wide + narrow))
    u = side[0] * (narrow + wide + (wide - narrow) * side[1]) / 2
    return Points(ring, which - first[ring], u, side[1] * rings.half_length[ring])


def _uneven(t: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """From uniform in -1 to 1 to a density 1 + slope x there."""
    return np.asarray((2 * t + slope) / (1 + np.sqrt(1 + slope * (2 * t + slope))))


def measure(
    points: Points, detector: Detector, errors: Float64[np.ndarray, "2 n"]
) -> tuple[np.ndarray, np.ndarray, Float64[np.ndarray, "n 3"]]:
    """Layer, module and position of points that are moved by errors in u and v, in pitches."""
    rings = _rings(detector)
    ring, module = points.ring, points.module
    layer = rings.layer[ring]
    barrel = detector.barrel[layer]
    u = points.u + errors[0] * detector.pitch_u[layer]
    v = points.v + errors[1] * detector.pitch_v[layer]
    angle = _angle(rings, ring, module)
    turn = angle + rings.tilt[ring]
    r = rings.radius[ring] + np.where(barrel, 0.0, v)
    x = r * np.cos(angle) - u * np.sin(turn)
    y = r * np.sin(angle) + u * np.cos(turn)
    z = np.where(barrel, rings.z[ring] + v, _height(rings, ring, module))
    number = rings.first[ring] + module
    return layer, number.astype(np.int32), np.stack([x, y, z], axis=1)


def select(points: Points, rows: np.ndarray) -> Points:
    """Some of the points."""
    return Points(*(column[rows] for column in points))


def join(parts: list[Points]) -> Points:
    """All points of the parts."""
    return Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
