"""Hits as measurements on surfaces, and what a helix through the detector predicts there.

The helix: at its point closest to the z axis a particle flies in the direction phi, at
(x, y) = d0 (-sin phi, cos phi) and z0. So d0 > 0 where the z axis is to the right of the flight
(seen against the field). Positive charges turn clockwise in a field along z: the curvature, which
is the change of phi per mm across the field, is -charge * 0.299792458e-3 * field / pT.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex128, Float64

from physml import matter
from physml.tracking.events import Hits
from physml.tracking.geometry import GRAZING, Detector, Rings
from physml.tracking.helix import SPEED_OF_LIGHT


class Surfaces(NamedTuple):
    """Hits of t tracks of the same length n."""

    position: Float64[np.ndarray, "t n 3"]
    normal: Float64[np.ndarray, "t n 3"]  # of the surface that was hit
    u: Float64[np.ndarray, "t n 3"]  # directions measured: across the strips ...
    v: Float64[np.ndarray, "t n 3"]  # ... and along
    sigma: Float64[np.ndarray, "t n 2"]  # mm


class Crossed(NamedTuple):
    """Where helices meet the surfaces of their hits."""

    residual: Float64[np.ndarray, "t n 2"]  # helix less hit along u and v, mm
    slope: Float64[np.ndarray, "t n 2 5"]  # its derivatives by the parameters
    measured: Float64[np.ndarray, "t n 2 3"]  # and by shifts of the helix in space
    point: Complex128[np.ndarray, "t n"]  # x + iy, mm
    direction: Float64[np.ndarray, "t n 3"]  # cos phi, sin phi, cot theta
    slant: Float64[np.ndarray, "t n"]  # of the direction along the normal
    length: Float64[np.ndarray, "t n"]  # across the field, from the point closest to the axis


def measurements(rows: np.ndarray, hits: Hits, detector: Detector) -> Surfaces:
    """Hits of tracks of one length, with surfaces and errors."""
    position, layer = hits.position[rows], hits.layer[rows]
    facing = _facing(position, layer, hits.module[rows], detector.rings)
    zero = np.zeros_like(facing)
    radial = np.stack([np.cos(facing), np.sin(facing), zero], axis=-1)
    around = np.stack([-np.sin(facing), np.cos(facing), zero], axis=-1)
    along = np.broadcast_to([0.0, 0.0, 1.0], radial.shape)
    barrel = detector.barrel[layer][..., None]
    pitch = np.stack([detector.pitch_u[layer], detector.pitch_v[layer]], axis=-1)
    return Surfaces(
        position, np.where(barrel, radial, along), around, np.where(barrel, along, radial),
        pitch / np.sqrt(12),
    )  # fmt: skip


def _facing(
    position: np.ndarray, layer: np.ndarray, module: np.ndarray, rings: Rings | None
) -> Float64[np.ndarray, "t n"]:
    """Azimuth of the normal of a barrel's module, of the strips of a disk's.

    Where the module is not known, or does not stand where the hit is, that of the hit itself.
    """
    phi = np.arctan2(position[..., 1], position[..., 0])
    if rings is None:
        return np.asarray(phi)
    far = 1 << 32
    key = rings.layer.astype(np.int64) * far + rings.first
    order = np.argsort(key)
    ring = np.searchsorted(key[order], layer.astype(np.int64) * far + module, side="right") - 1
    ring = order[np.maximum(ring, 0)]
    spacing = 2 * np.pi / rings.count[ring]
    number = module - rings.first[ring]
    centre = (number + 0.5) * spacing - np.pi
    off = np.abs(np.angle(np.exp(1j * (phi - centre))))
    known = (rings.layer[ring] == layer) & (number >= 0) & (number < rings.count[ring])
    own = known & (module >= 0) & (off < spacing)
    return np.asarray(np.where(own, centre + rings.tilt[ring], phi))


def _arc(curvature: np.ndarray, s: np.ndarray) -> Complex128[np.ndarray, "*n"]:
    """Way across the field, x + iy, of a helix that starts along x, after the length s."""
    half = curvature * s / 2
    return np.asarray(s * np.sinc(half / np.pi) * np.exp(1j * half))


def arc_slope(curvature: np.ndarray, s: np.ndarray) -> Complex128[np.ndarray, "*n"]:
    """Derivative of `_arc` by the curvature."""
    angle = curvature * s
    series = 0.5j - angle / 3 - 0.125j * angle**2 + angle**3 / 30
    small = np.abs(angle) < 1e-2
    safe = np.where(small, 1.0, angle)
    exact = (safe * np.exp(1j * safe) + 1j * (np.exp(1j * safe) - 1)) / safe**2
    return np.asarray(s**2 * np.where(small, series, exact))


def _length(
    curvature: np.ndarray, d0: np.ndarray, local: Complex128[np.ndarray, "t n"]
) -> Float64[np.ndarray, "t n"]:
    """Length across the field to the point next to each hit, whose place is seen along phi."""
    k = np.where(curvature == 0, 1e-30, curvature)
    return np.asarray(np.arctan2(k * local.real, 1 + k * (d0 - local.imag)) / k)


def three_points(position: np.ndarray) -> tuple[np.ndarray, Bool[np.ndarray, "t"]]:
    """Helices through the first, a middle and the last hit; and whether these differ in x and y."""
    xy = position[..., 0] + 1j * position[..., 1]
    own, chord = np.arange(len(xy)), xy[:, -1] - xy[:, 0]
    middle = np.abs(np.abs(xy[:, 1:-1] - xy[:, :1]) - np.abs(chord)[:, None] / 2).argmin(axis=1)
    middle = xy[own, 1 + middle]
    first, second = middle - xy[:, 0], xy[:, -1] - middle
    sides = np.abs(first) * np.abs(second) * np.abs(chord)
    spread = sides > 0
    curvature = 2 * (first.conj() * second).imag / np.where(spread, sides, 1.0)
    # A chord has the direction that the arc has half-way.
    half = np.arcsin(np.clip(curvature * np.abs(chord) / 2, -1, 1))
    direction = np.exp(1j * (np.angle(chord) - half))
    turned = direction - 1j * curvature * xy[:, 0]  # (1 + curvature d0) exp(i phi)
    moment = 2 * (direction.conj() * xy[:, 0]).imag + curvature * np.abs(xy[:, 0]) ** 2
    d0, phi = moment / (1 + np.abs(turned)), np.angle(turned)
    s = _length(curvature[:, None], d0[:, None], xy * np.exp(-1j * phi)[:, None])
    s_off, z = s - s.mean(axis=1, keepdims=True), position[..., 2]
    norm = (s_off**2).sum(axis=1)
    cot = (s_off * z).sum(axis=1) / np.where(norm > 0, norm, 1.0)
    z0 = (z - cot[:, None] * s).mean(axis=1)
    return np.stack([curvature, phi, d0, z0, cot], axis=1), spread


def cross(surfaces: Surfaces, parameters: Float64[np.ndarray, "t 5"]) -> Crossed:
    """Follow helices to the surfaces of their hits.

    Args:
        surfaces: see `measurements`.
        parameters: curvature, phi, d0, z0, cot_theta of each track.
    """
    curvature, phi, d0, z0, cot = parameters.T[..., None]
    turn = np.exp(1j * phi)
    local = (surfaces.position[..., 0] + 1j * surfaces.position[..., 1]) * turn.conj()
    s, reach = _length(curvature, d0, local), 2 * np.abs(local - 1j * d0) + 10
    for _ in range(2):  # from the nearest point onto the surface
        point = turn * (1j * d0 + _arc(curvature, s))
        offset = vector(point, z0 + cot * s) - surfaces.position
        direction = vector(turn * np.exp(1j * curvature * s), cot + 0 * s)
        slant = _dot(surfaces.normal, direction)
        slant = np.where(np.abs(slant) < GRAZING, np.copysign(GRAZING, slant), slant)
        s = np.clip(s - _dot(surfaces.normal, offset) / slant, -reach, reach)
    # What is measured of a shift in space, when the helix is followed to the surface again.
    measured = np.stack(
        [
            m - surfaces.normal * (_dot(m, direction) / slant)[..., None]
            for m in (surfaces.u, surfaces.v)
        ],
        axis=2,
    )
    zero = 0 * s
    shifts = [
        vector(turn * arc_slope(curvature, s), zero), vector(1j * point, zero),
        vector(1j * turn + zero, zero), vector(1j * zero, zero + 1), vector(1j * zero, s),
    ]  # fmt: skip
    return Crossed(
        (measured @ offset[..., None])[..., 0], measured @ np.stack(shifts, axis=-1), measured,
        point, direction, slant, s,
    )  # fmt: skip


def deflections(
    parameters: Float64[np.ndarray, "t 5"], slant: Float64[np.ndarray, "t n"], field: float,
    material: float, mass: float,
) -> tuple[Float64[np.ndarray, "t n"], Float64[np.ndarray, "t n"]]:  # fmt: skip
    """Widths of the changes of azimuth (rad) and of cot_theta by scattering (Highland).

    Args:
        parameters: as in `cross`.
        slant: of each crossing.
        field: T.
        material: X0 of a layer that is crossed at a right angle.
        mass: GeV, for the velocity.
    """
    curvature, cot = parameters[:, :1], parameters[:, 4:]
    stretch = np.sqrt(1 + cot**2)  # 1 / sin theta
    momentum = stretch * SPEED_OF_LIGHT * field / np.maximum(np.abs(curvature), 1e-12)
    momentum = np.maximum(momentum, 0.05)  # a wrong track may curl up
    beta = momentum / np.hypot(momentum, mass)
    angle = matter.highland(material * stretch / np.abs(slant), momentum, beta)
    return angle * stretch, angle * stretch**2


def vector(across: np.ndarray, z: np.ndarray) -> Float64[np.ndarray, "*n 3"]:
    """x, y, z of x + iy and z."""
    return np.stack([across.real, across.imag, z], axis=-1)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("...i,...i->...", a, b))
