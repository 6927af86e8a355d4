"""Seeds followed outward through a detector by a Kalman filter, all at once.

The state of a track is its helix at the closest approach to the axis, with a covariance. A step to
another layer changes nothing in it; a hit narrows it, scattering in a layer widens it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from physml.tracking.events import Hits
from physml.tracking.fits import DEFAULT, LIMITS, FitOptions, Limits
from physml.tracking.geometry import Detector
from physml.tracking.pairs import TURN, WRAP
from physml.tracking.surfaces import (
    Crossed,
    Surfaces,
    cross,
    deflections,
    measurements,
    three_points,
)

DEPTH = 6.0  # mm that flat, staggered modules leave the nominal surface at most
PRIOR = np.array([1e-3, 0.1, 10.0, 100.0, 1.0])  # widths before the first hit


class FollowOptions(NamedTuple):
    """How seeds are made and followed."""

    min_pt: float = 0.9  # GeV, of a seed
    max_d0: float = 2.0  # mm, of a seed
    max_z0: float = 60.0  # mm, of a seed; the luminous region and decays
    max_eta: float = 4.0  # abs
    bend: float = 0.012  # rad, change of the polar angle within a seed
    chi2: float = 20.0  # of a hit with the helix, two degrees
    holes: int = 2  # layers crossed without a hit
    min_hits: int = 4  # of a track whose seed is a chain of four; others need one more
    shared: float = 0.34  # share of its hits that a track may lose to better ones
    fit: FitOptions = DEFAULT
    limits: Limits = LIMITS


class State(NamedTuple):
    """Seeds on their way."""

    parameters: Float64[np.ndarray, "t 5"]
    covariance: Float64[np.ndarray, "t 5 5"]
    chi2: Float64[np.ndarray, "t"]
    holes: Int64[np.ndarray, "t"]
    hits: Int64[np.ndarray, "t k"]  # rows in the order they were met; -1: none


class Table(NamedTuple):
    """Free hits in the order of layer and phi."""

    row: Int64[np.ndarray, "n"]
    key: Float64[np.ndarray, "n"]  # TURN layer + phi
    along: Float64[np.ndarray, "n"]  # z of a barrel, r of a disk, mm


def follow_seeds(
    seeds: np.ndarray, hits: Hits, free: np.ndarray, detector: Detector, steps: np.ndarray,
    options: FollowOptions,
) -> State:  # fmt: skip
    """Seeds with all the hits that they find."""
    surfaces = measurements(seeds, hits, detector)
    parameters, _ = three_points(surfaces.position)
    t = len(seeds)
    prior = np.where(np.arange(5) == 2, options.max_d0, PRIOR)
    state = State(
        parameters, np.broadcast_to(np.diag(prior**2), (t, 5, 5)).copy(), np.zeros(t),
        np.zeros(t, np.int64), np.full((t, 3 + len(detector.place)), -1),
    )  # fmt: skip
    for k in range(3):
        state = _update(state, np.arange(t), seeds[:, k], k, hits, detector, options)
    table = table_of(hits, free, detector)
    ways = _ways(steps, len(detector.place))
    last, length = (
        hits.layer[seeds[:, 2]].astype(np.int64),
        _length_at(state, seeds[:, 2], hits, detector),
    )
    going = np.arange(t)
    for k in range(3, state.hits.shape[1]):
        layer, length, edge = _next_layer(state.parameters[going], last, length, ways, detector)
        on = layer >= 0
        going, last, length, edge = going[on], layer[on], length[on], edge[on]
        if len(going) == 0:
            break
        before = state.holes[going]
        state = _one_layer(state, going, last, k, table, hits, detector, options)
        state.holes[going[edge]] = before[edge]  # no module may stand there
        on = state.holes[going] <= options.holes
        going, last, length = going[on], last[on], length[on]
    return state


def _ways(steps: np.ndarray, layers: int) -> Int64[np.ndarray, "l w"]:
    """Layers that may come right after each; -1 for none. Modules may miss a layer's edge."""
    inner, outer = steps
    count = np.bincount(inner, minlength=layers)
    ways = np.full((len(count), count.max(initial=0)), -1)
    order = np.argsort(inner, kind="stable")
    place = np.arange(len(inner)) - np.repeat(np.cumsum(count) - count, count)
    ways[inner[order], place] = outer[order]
    return ways


def _length_at(
    state: State, row: np.ndarray, hits: Hits, detector: Detector
) -> Float64[np.ndarray, "t"]:
    return cross(measurements(row[:, None], hits, detector), state.parameters).length[:, 0]


def table_of(hits: Hits, free: np.ndarray, detector: Detector) -> Table:
    """Free hits, those near +-pi twice."""
    row = np.flatnonzero(free)
    x, y, z = hits.position[row].T
    phi = np.arctan2(y, x)
    along = np.where(detector.barrel[hits.layer[row]], z, np.hypot(x, y))
    edge = np.flatnonzero(np.abs(phi) > np.pi - WRAP)
    row, along = np.append(row, row[edge]), np.append(along, along[edge])
    phi = np.append(phi, phi[edge] - np.copysign(2 * np.pi, phi[edge]))
    key = TURN * hits.layer[row] + phi
    order = np.argsort(key)
    return Table(row[order], key[order], along[order])


def _nominal(
    parameters: np.ndarray, layer: np.ndarray, detector: Detector
) -> tuple[np.ndarray, np.ndarray]:
    """Length to the nominal surface of a layer (NaN: not crossed), and the point there."""
    curvature, phi, d0, z0, cot = parameters.T
    curvature = np.where(np.abs(curvature) < 1e-12, 1e-12, curvature)
    place, barrel = detector.place[layer], detector.barrel[layer]
    with np.errstate(invalid="ignore", divide="ignore"):
        # r² = d0² + (1 + curvature d0) chord²
        chord = np.sqrt((place**2 - d0**2) / (1 + curvature * d0))
        to_barrel = 2 / curvature * np.arcsin(curvature * chord / 2)
        s = np.where(barrel, to_barrel, (place - z0) / cot)
        s = np.where((s > 0) & (np.abs(curvature) * s < np.pi), s, np.nan)
        half = curvature * s / 2
        across = 1j * d0 + s * np.sinc(half / np.pi) * np.exp(1j * half)
        across = across * np.exp(1j * phi)
    return s, np.stack([across.real, across.imag, z0 + cot * s], axis=1)


def _next_layer(
    parameters: np.ndarray, last: np.ndarray, length: np.ndarray, ways: np.ndarray,
    detector: Detector,
) -> tuple[Int64[np.ndarray, "t"], Float64[np.ndarray, "t"], Bool[np.ndarray, "t"]]:  # fmt: skip
    """Layer that each helix crosses next, or -1, the length there, and whether at its edge."""
    t, count = len(parameters), ways.shape[1]
    layer = ways[last].ravel()
    seed = np.flatnonzero(layer >= 0)
    s, point = _nominal(parameters[seed // count], layer[seed], detector)
    own = layer[seed]
    along = np.where(detector.barrel[own], point[:, 2], np.hypot(point[:, 0], point[:, 1]))
    margin = 2 * detector.pitch_v[own]
    inside = (along > detector.low[own] - margin) & (along < detector.high[own] + margin)
    # Further than the stagger of the layer left behind.
    inside &= s > length[seed // count] + 1e-6
    far = np.full(t * count, np.inf)
    far[seed[inside]] = s[inside]
    far = far.reshape(t, count)
    best = far.argmin(axis=1)
    far = far[np.arange(t), best]
    edge = np.zeros(t * count, bool)
    edge[seed] = (along < detector.low[own] + DEPTH) | (along > detector.high[own] - DEPTH)
    edge = edge.reshape(t, count)[np.arange(t), best]
    return np.asarray(np.where(np.isfinite(far), ways[last, best], -1)), far, edge


def _one_layer(
    state: State, going: np.ndarray, layer: np.ndarray, k: int, table: Table, hits: Hits,
    detector: Detector, options: FollowOptions,
) -> State:  # fmt: skip
    """Look for the nearest hit of each seed in its next layer."""
    seed, row = _near(state, going, layer, table, hits, detector, options)
    _, crossed, error = _predicted(state, seed, row, hits, detector)
    distance = _squared(crossed, error)
    good = distance < options.chi2
    seed, row, distance = seed[good], row[good], distance[good]
    order = np.lexsort((distance, seed))
    order = order[np.diff(seed[order], prepend=-1) > 0]
    missed = np.ones(len(state.chi2), bool)
    missed[seed[order]] = False
    missed = going[missed[going]]
    state.holes[missed] += 1
    return _update(state, seed[order], row[order], k, hits, detector, options)


def _near(
    state: State, going: np.ndarray, layer: np.ndarray, table: Table, hits: Hits,
    detector: Detector, options: FollowOptions,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Pairs of a seed and a hit of its next layer in a window around the crossing."""
    _, point = _nominal(state.parameters[going], layer, detector)
    there = np.isfinite(point).all(axis=1)
    going, layer, point = going[there], layer[there], point[there]
    none = np.full(len(point), -1, np.int32)
    nominal = Hits(point, layer.astype(np.int32), none, none)
    surfaces, crossed, error = _predicted(state, going, np.arange(len(point)), nominal, detector)
    width = np.sqrt(options.chi2 * np.diagonal(error, axis1=1, axis2=2))
    # A module before or behind the nominal surface is crossed elsewhere.
    away = crossed.measured[:, 0] @ surfaces.normal[:, 0, :, None]
    width = width + DEPTH * np.abs(away[..., 0])
    one, row = within(table, layer, point, width, detector)
    return going[one], row


def within(
    table: Table, layer: np.ndarray, point: np.ndarray, width: np.ndarray, detector: Detector
) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
    """Points and rows of the hits of their layers within half widths (n, 2), across and along."""
    r, phi = np.hypot(point[:, 0], point[:, 1]), np.arctan2(point[:, 1], point[:, 0])
    window = np.minimum(width[:, 0] / r, WRAP)
    key = TURN * layer + phi
    start = np.searchsorted(table.key, key - window)
    count = np.searchsorted(table.key, key + window) - start
    one = np.repeat(np.arange(len(point)), count)
    place = np.arange(len(one)) + np.repeat(start - np.cumsum(count) + count, count)
    along = np.where(detector.barrel[layer], point[:, 2], r)
    near = np.abs(table.along[place] - along[one]) < width[one, 1]
    return one[near], table.row[place[near]]


def _predicted(
    state: State, seed: np.ndarray, row: np.ndarray, hits: Hits, detector: Detector
) -> tuple[Surfaces, Crossed, Float64[np.ndarray, "m 2 2"]]:
    """Helices of seeds at the surfaces of hits, and the covariance of the residuals."""
    surfaces = measurements(row[:, None], hits, detector)
    crossed = cross(surfaces, state.parameters[seed])
    slope = crossed.slope[:, 0]
    error = slope @ state.covariance[seed] @ slope.mT
    error[:, [0, 1], [0, 1]] += surfaces.sigma[:, 0] ** 2
    return surfaces, crossed, error


def _squared(crossed: Crossed, error: np.ndarray) -> Float64[np.ndarray, "m"]:
    """Squares of the distances in units of the errors."""
    u, v = crossed.residual[:, 0].T
    determinant = error[:, 0, 0] * error[:, 1, 1] - error[:, 0, 1] ** 2
    square = error[:, 1, 1] * u**2 - 2 * error[:, 0, 1] * u * v + error[:, 0, 0] * v**2
    return np.asarray(square / determinant)


def _update(
    state: State, seed: np.ndarray, row: np.ndarray, k: int, hits: Hits, detector: Detector,
    options: FollowOptions,
) -> State:  # fmt: skip
    """Add a hit to seeds, then the scattering in its layer."""
    _, crossed, error = _predicted(state, seed, row, hits, detector)
    slope, covariance = crossed.slope[:, 0], state.covariance[seed]
    gain = covariance @ slope.mT @ np.linalg.inv(error)
    moved = (gain @ crossed.residual[:, 0, :, None])[..., 0]
    kept = np.eye(5) - gain @ slope  # Joseph's form keeps the covariance positive
    noise = gain * variances(row, hits, detector)[:, None, :]
    state.parameters[seed] -= moved
    state.chi2[seed] += _squared(crossed, error)
    state.hits[seed, k] = row
    kicks = _kicks(state.parameters[seed], crossed, detector.field, options.fit)
    state.covariance[seed] = kept @ covariance @ kept.mT + noise @ gain.mT + kicks @ kicks.mT
    return state


def variances(row: np.ndarray, hits: Hits, detector: Detector) -> Float64[np.ndarray, "m 2"]:
    """Squares of the errors of hits along u and v, mm²: pitch² / 12."""
    layer = hits.layer[row]
    return np.stack([detector.pitch_u[layer], detector.pitch_v[layer]], axis=1) ** 2 / 12


def _kicks(
    parameters: np.ndarray, crossed: Crossed, field: float, fit: FitOptions
) -> Float64[np.ndarray, "m 5 2"]:
    """Changes of the parameters by one sigma of scattering at a point: azimuth, then slope.

    The helix turns about the point, and its closest approach to the axis moves along with it.
    """
    curvature, phi, d0, _, cot = parameters.T
    azimuth, tilt = (
        column[:, 0]
        for column in deflections(
            parameters, crossed.slant, field, max(fit.material, 1e-9), fit.mass
        )
    )
    local = crossed.point[:, 0] * np.exp(-1j * phi)
    s, ahead = crossed.length[:, 0], 1 + curvature * d0
    bend = curvature * cot / (1 + cot**2) * tilt
    zero = np.zeros_like(s)
    turned = [
        zero,
        1 - curvature * local.imag / ahead,
        -local.real,
        -cot * local.imag / ahead,
        zero,
    ]
    tilted = [bend, -s * bend, s**2 / 2 * bend, -s * tilt, tilt]
    return np.stack([np.stack(turned, axis=1) * azimuth[:, None], np.stack(tilted, axis=1)], axis=2)
