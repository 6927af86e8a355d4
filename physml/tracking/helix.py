"""Helices of charged particles in a field along z, and where they cross surfaces, exactly.

A helix is a point on it with the direction there; any point of it will do, so that displaced
vertices need nothing special. s is the length of the path across the field (transverse arc),
mm; z grows by cot(theta) s. The direction turns by `curvature` s, against the clock for negative
charges in a field along +z. Crossings are looked for along the first half turn after the point:
particles that curl up go on from there, but no further than that.

Angles are found from their halves, so that stiff tracks lose no digits; a curvature below 1e-12
per mm (no charge, or above 6e8 GeV in 2 T) is taken for 1e-12.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

SPEED_OF_LIGHT = 0.299792458e-3  # GeV / (T mm): transverse momentum = this x field x radius, exact
STRAIGHT = 1e-12  # 1/mm
HALF_TURN = np.pi

Values = Float64[np.ndarray, "n"]


class Helix(NamedTuple):
    """n helices."""

    x: Values  # a point on each, mm
    y: Values
    z: Values
    phi: Values  # direction across the field there, rad
    cot_theta: Values  # pz / pt
    curvature: Values  # change of phi per mm: -charge x 0.2998e-3 x field / pt


class Perigee(NamedTuple):
    """Parameters of n helices where they come closest to the z axis."""

    d0: Values  # mm: (x, y) = d0 (-sin phi, cos phi)
    z0: Values  # mm
    phi: Values  # direction there, from -pi to pi
    cot_theta: Values
    radius: Values  # of the circle, mm


def helix(
    position: Float64[np.ndarray, "n 3"],
    momentum: Float64[np.ndarray, "n 3"],
    charge: Float64[np.ndarray, "n"],
    field: float,
) -> Helix:
    """Helices of particles.

    Args:
        position: a point on each, mm.
        momentum: there, GeV; not along z.
        charge: e.
        field: along z, T.
    """
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    phi = np.arctan2(momentum[:, 1], momentum[:, 0])
    curvature = safe(-SPEED_OF_LIGHT * field * charge / pt)
    x, y, z = position.T
    return Helix(x, y, z, phi, momentum[:, 2] / pt, curvature)


def safe(curvature: Values) -> Values:
    """Curvatures of at least `STRAIGHT`, which the formulas can divide by."""
    return np.where(np.abs(curvature) < STRAIGHT, STRAIGHT, curvature)


def advance(h: Helix, s: Values) -> Helix:
    """The same helices at a point the transverse arc s further on."""
    half = h.curvature * s / 2
    chord = 2 * np.sin(half) / h.curvature
    return h._replace(
        x=h.x + chord * np.cos(h.phi + half),
        y=h.y + chord * np.sin(h.phi + half),
        z=h.z + h.cot_theta * s,
        phi=h.phi + 2 * half,
    )


def direction(h: Helix) -> Float64[np.ndarray, "n 3"]:
    """Unit vectors along the helices at their points."""
    sine = 1 / np.sqrt(1 + h.cot_theta**2)
    return np.stack([np.cos(h.phi) * sine, np.sin(h.phi) * sine, h.cot_theta * sine], axis=1)


def perigee(h: Helix) -> Perigee:
    """Where the helices come closest to the z axis."""
    along, aside = _local(h)
    angle = np.arctan2(h.curvature * along, 1 + h.curvature * aside)
    p = advance(h, -angle / h.curvature)
    phi = np.arctan2(np.sin(p.phi), np.cos(p.phi))
    return Perigee(_local(p)[1], p.z, phi, h.cot_theta, 1 / np.abs(h.curvature))


def to_cylinder(h: Helix, radius: Values) -> Values:
    """Transverse arc to where the helices leave cylinders around z; NaN where they do not.

    The circle of the helix meets that of the cylinder twice; taken is the crossing outwards.
    """
    along, aside = _local(h)
    a, c = h.curvature * along, 1 + h.curvature * aside
    m = np.hypot(a, c)
    # r² = r0² + 2/k² (c - m cos(turn + offset)) is to be the radius²; 2 grown = k² (r² - r0²).
    grown = h.curvature**2 * (radius**2 - h.x**2 - h.y**2) / 2
    below = np.where(c > 0, a**2 / (m + np.abs(c)), m - c)  # m - c without cancellation
    with np.errstate(invalid="ignore", divide="ignore"):
        turn = 2 * np.arcsin(np.sqrt((below + grown) / (2 * m)))
    turn = np.copysign(turn, h.curvature) - np.arctan2(a, c)
    return _ahead(turn / h.curvature, h.curvature)


def to_disk(h: Helix, z: Values) -> Values:
    """Transverse arc to where the helices cross planes across z; NaN where they do not."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _ahead((z - h.z) / h.cot_theta, h.curvature)


def to_plane(h: Helix, normal: Values, distance: Values) -> Values:
    """Transverse arc, of either sign, to planes that contain the direction of z.

    Args:
        h: helices, which go along the normal rather than against it.
        normal: angle in x-y of the normal of each plane, rad.
        distance: of each plane from the z axis along the normal, mm.

    Returns:
        The nearest crossing in which they still go along the normal; NaN where there is none.
    """
    sine, cosine = np.sin(h.phi - normal), np.cos(h.phi - normal)
    step = h.curvature * (distance - h.x * np.cos(normal) - h.y * np.sin(normal))
    with np.errstate(invalid="ignore"):
        later = np.sqrt(1 - (sine + step) ** 2)
        # sin(turn) is sine' cosine - sine cosine', with cosine - cosine' freed of cancellation.
        turn = np.arcsin(step * (cosine + sine * (2 * sine + step) / (cosine + later)))
    return np.where(cosine > 0, turn / h.curvature, np.nan)


def _local(h: Helix) -> tuple[Values, Values]:
    """Place of the points along their direction and to its left, seen from the z axis."""
    cosine, sine = np.cos(h.phi), np.sin(h.phi)
    return h.x * cosine + h.y * sine, h.y * cosine - h.x * sine


def _ahead(s: Values, curvature: Values) -> Values:
    """NaN for arcs that are behind or more than half a turn away."""
    with np.errstate(invalid="ignore"):
        return np.where((s > 0) & (np.abs(curvature) * s <= HALF_TURN), s, np.nan)
