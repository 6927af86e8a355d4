"""Pairs of hits that a particle may have left one after the other: the edges of a graph.

A particle from the luminous region crosses layers in an order that the geometry gives; on a pair
of layers its hits lie within windows in phi (curvature, scattering, distance of closest approach)
and in the place along the beam to which the pair points. See `Cuts`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from physml.errors import ConfigError, DataError
from physml.tracking import triplets
from physml.tracking.events import Hits
from physml.tracking.geometry import Detector
from physml.tracking.helix import SPEED_OF_LIGHT
from physml.tracking.triplets import Pairs, Tolerance


class Cuts(NamedTuple):
    """What a particle must fulfil for its hits to be joined.

    The defaults suit a luminous region of a few mm, as TrackML's (standard deviation 5.5 mm); for
    the 50 mm of HL-LHC raise `max_z0` to 150. Measured share of the consecutive pairs of target
    particles above 1 GeV that are edges, on five simulated collisions that the defaults were not
    chosen on: 0.996, 0.995, 0.994, 0.996 and 0.992 in 570, 789, 810, 1038 and 1075 thousand edges
    of 94, 107, 109, 121 and 121 thousand hits. On TrackML event 1000 (barrel only, 27,543 hits),
    on which they were: 0.994 in 85,163 edges. What is lost comes mostly from particles born more
    than 2 mm off the beam, of whose pairs 0.87 to 0.95 are kept.
    """

    min_pt: float = 0.95  # GeV; sets the curvature
    max_d0: float = 1.0  # mm, closest approach to the beam
    max_z0: float = 60.0  # mm, where the pair points to on the beam
    scattering: float = 0.02  # rad, of the direction in phi; also for particles from decays
    skips: int = 1  # layers without a hit between the two
    tolerance: Tolerance | None = Tolerance()  # of two pairs in a row; None: single pairs are kept


def layer_pairs(
    detector: Detector, skips: int = 1, max_z0: float = 150.0, max_eta: float = 4.0
) -> Int32[np.ndarray, "2 k"]:
    """Layers that a straight line from the beam can cross one after the other.

    Lines start within `max_z0` (mm) of the origin and have abs(eta) up to `max_eta`; up to `skips`
    of the layers between are left out. Row 0 is the inner layer, row 1 the outer one.
    """
    slope = np.sinh(np.linspace(-max_eta, max_eta, 401))[:, None, None]
    z0 = np.linspace(-max_z0, max_z0, 13)[:, None]
    slope, z0 = np.broadcast_arrays(slope, z0)
    slope, z0 = slope.reshape(-1, 1), z0.reshape(-1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(detector.barrel, detector.place, (detector.place - z0) / slope)
        along = np.where(detector.barrel, z0 + r * slope, r)
    margin = 2 * detector.stagger + 2.0
    crossed = (r > 0) & (along > detector.low - margin) & (along < detector.high + margin)
    order = np.argsort(np.where(crossed, r, np.inf), axis=1)
    crossed = np.take_along_axis(crossed, order, axis=1)
    found = []
    for step in range(1, skips + 2):
        both = crossed[:, step:]
        found.append(np.stack([order[:, :-step][both], order[:, step:][both]]))
    return np.asarray(np.unique(np.concatenate(found, axis=1), axis=1).astype(np.int32))


class _Layer(NamedTuple):
    """Hits of one layer in bins of z (barrel) or r (disk), each bin in the order of phi."""

    row: Int64[np.ndarray, "n"]  # of `Hits`
    r: Float64[np.ndarray, "n"]
    z: Float64[np.ndarray, "n"]
    phi: Float64[np.ndarray, "n"]
    turn: Float64[np.ndarray, "n"]  # arcsin(r / 2R): azimuth that min_pt has turned by
    key: Float64[np.ndarray, "n"]  # TURN bin + phi
    low: float  # where the first bin begins, mm
    bins: int


FAR = 100.0  # mm, no hit lies farther than this from its layer
BIN = 50.0  # mm, width of a bin
TURN = 10.0  # rad, more than a turn and the copies at its ends
WRAP = 0.8  # rad, hits this near to +-pi are repeated at the other end


def check(hits: Hits, detector: Detector) -> None:
    """Refuse hits that no graph can be built of.

    Raises:
        DataError: columns differ in length; more hits than int32 counts; a layer that the detector
            has not; a position not finite, on the beam, or `FAR` from its layer.
    """
    n = len(hits.layer)
    if hits.position.shape != (n, 3):
        what = f"positions have shape {hits.position.shape} for {n} layers"
        raise DataError("hits", what, "give x y z of each hit")
    if n > np.iinfo(np.int32).max:
        raise DataError("hits", f"are {n}, more than 2^31 - 1", "cut the collision into parts")
    unknown = np.flatnonzero((hits.layer < 0) | (hits.layer >= len(detector.place)))
    if len(unknown):
        what = f"row {unknown[0]} lies on layer {hits.layer[unknown[0]]}"
        raise DataError("hits", what, f"give layers from 0 to {len(detector.place) - 1}")
    r, z = np.hypot(hits.position[:, 0], hits.position[:, 1]), hits.position[:, 2]
    bad = np.flatnonzero(~np.isfinite(r + z) | (r == 0))
    if len(bad):
        where = hits.position[bad[0]]
        raise DataError("hits", f"row {bad[0]} lies at {where}", "give finite places off the beam")
    away = np.abs(np.where(detector.barrel[hits.layer], r, z) - detector.place[hits.layer])
    if (away > FAR).any():
        what = f"row {away.argmax()} lies {away.max():.4g} mm from its layer"
        raise DataError("hits", what, "give millimetres, and the detector that measured them")


def edges(hits: Hits, detector: Detector, cuts: Cuts, threads: int = 2) -> Int64[np.ndarray, "2 m"]:
    """Edges of a graph: row 0 the inner hit, row 1 the outer one; sorted by row 1, then row 0."""
    found = search(hits, detector, layer_pairs(detector, cuts.skips), cuts, threads)
    return sort(hits, follow(hits, found, cuts, threads))


def follow(hits: Hits, found: Pairs, cuts: Cuts, threads: int) -> Pairs:
    """Pairs that other pairs continue, see `triplets`; all where `cuts` has no tolerance."""
    if cuts.tolerance is None:
        return found
    radius = np.hypot(hits.position[:, 0], hits.position[:, 1])
    layers = hits.layer[found.inner], hits.layer[found.outer]
    return select(found, triplets.continued(found, layers, radius, cuts.tolerance, threads))


def select(found: Pairs, kept: Bool[np.ndarray, "m"]) -> Pairs:
    """Some of the pairs."""
    return Pairs(*(column[kept] for column in found))


def sort(hits: Hits, found: Pairs) -> Int64[np.ndarray, "2 m"]:
    """Rows of the inner and of the outer hits, by the outer one, then the inner one."""
    order = np.argsort(found.outer * len(hits.layer) + found.inner)
    return np.stack([found.inner[order], found.outer[order]])


def search(
    hits: Hits, detector: Detector, pairs: Int32[np.ndarray, "2 k"], cuts: Cuts, threads: int = 2
) -> Pairs:
    """Pairs of hits on the given layers that fulfil the cuts.

    Raises:
        ConfigError: particles of the smallest pT turn back before the outermost hit.
    """
    outermost = np.hypot(hits.position[:, 0], hits.position[:, 1]).max(initial=0.0)
    lowest = 0.51 * outermost * SPEED_OF_LIGHT * detector.field
    if cuts.min_pt < lowest:
        what = f"is {cuts.min_pt:g} GeV: such particles turn back before {outermost:.0f} mm"
        raise ConfigError("min_pt", what, f"give {lowest:.2f} or more")
    layers = [_layer(hits, detector, i, cuts) for i in range(len(detector.place))]

    def one(pair: Int32[np.ndarray, "2"]) -> Pairs:
        a, b = int(pair[0]), int(pair[1])
        return _search_pair(layers[a], layers[b], a, b, detector, cuts)

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, pairs.T))
    return _join(found)


def _layer(hits: Hits, detector: Detector, i: int, cuts: Cuts) -> _Layer:
    row = np.flatnonzero(hits.layer == i)
    x, y, z = hits.position[row].T
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    far = np.abs(phi) > np.pi - WRAP
    copies = row[far], r[far], z[far], (phi - np.copysign(2 * np.pi, phi))[far]
    row, r, z, phi = (np.concatenate(both) for both in zip((row, r, z, phi), copies, strict=True))
    along = z if detector.barrel[i] else r
    low = float(along.min()) if len(along) else 0.0
    bin_ = ((along - low) // BIN).astype(np.int64)
    key = TURN * bin_ + phi
    order = np.argsort(key)
    radius = cuts.min_pt / (SPEED_OF_LIGHT * detector.field)
    turn = np.arcsin(np.minimum(r / (2 * radius), 1.0))
    row, r, z, phi, turn, key = (column[order] for column in (row, r, z, phi, turn, key))
    return _Layer(row, r, z, phi, turn, key, low, int(bin_.max(initial=-1)) + 1)


def _search_pair(a: _Layer, b: _Layer, i: int, j: int, detector: Detector, cuts: Cuts) -> Pairs:
    """Candidates from the bins that the windows touch, then the cuts themselves."""
    own = np.flatnonzero(np.abs(a.phi) <= np.pi)  # not the copies
    if not len(own) or not len(b.row):
        return _join([])
    low, high = _reach(a, b, i, j, detector, cuts)
    top = np.minimum(b.r.max(), np.inf if detector.barrel[j] else high)
    window = _window(a.r, top, cuts, detector)
    first = np.clip((low - b.low) / BIN, 0, b.bins).astype(np.int64)
    last = np.floor(np.clip((high - b.low) / BIN, -1, b.bins - 1)).astype(np.int64)
    own = own[(top > a.r)[own]]
    parts = []
    for step in range(int((last - first)[own].max(initial=-1)) + 1):
        k = own[first[own] + step <= last[own]]
        at = TURN * (first[k] + step) + a.phi[k]
        start = np.searchsorted(b.key, at - window[k])
        count = np.searchsorted(b.key, at + window[k]) - start
        s = np.repeat(k, count)
        t = np.arange(len(s)) + np.repeat(start - np.cumsum(count) + count, count)
        kept = _fulfil(a, b, s, t, i, j, detector, cuts)
        parts.append(_measure(a, b, s[kept], t[kept], i, j, detector))
    return _join(parts)


def _join(parts: list[Pairs]) -> Pairs:
    rows, none = np.empty(0, np.int64), np.empty(0)
    empty = Pairs(rows, rows, none, none, none, none)
    return Pairs(*(np.concatenate(columns) for columns in zip(empty, *parts, strict=True)))


def _measure(
    a: _Layer, b: _Layer, s: np.ndarray, t: np.ndarray, i: int, j: int, detector: Detector
) -> Pairs:
    """Curvature and slope of pairs of hits."""
    half, turned = 0.5 * detector.pitch_v, b.turn[t] - a.turn[s]
    dr, dphi = b.r[t] - a.r[s], b.phi[t] - a.phi[s]
    chord = np.sqrt(dr**2 + 4 * a.r[s] * b.r[t] * np.sin(dphi / 2) ** 2)
    slope = (b.z[t] - a.z[s]) / chord
    error = sum(half[k] * (1.0 if detector.barrel[k] else np.abs(slope)) for k in (i, j))
    slack = error / (chord * np.sqrt(1 + slope**2))
    lever = dr / (a.r[s] * b.r[t] * turned)
    bend = dphi / turned
    return Pairs(a.row[s], b.row[t], bend, np.arcsinh(slope), slack, lever)


def _window(
    inner: Float64[np.ndarray, "m"], outer: Float64[np.ndarray, "m"], cuts: Cuts, detector: Detector
) -> Float64[np.ndarray, "m"]:
    """Largest difference in phi between the radii `inner` and `outer`, rad."""
    radius = 2 * cuts.min_pt / (SPEED_OF_LIGHT * detector.field)
    turn = np.arcsin(np.minimum(outer / radius, 1)) - np.arcsin(np.minimum(inner / radius, 1))
    return np.asarray(turn + (cuts.max_d0 / inner + cuts.scattering) * (1 - inner / outer))


def _reach(
    a: _Layer, b: _Layer, i: int, j: int, detector: Detector, cuts: Cuts
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Range of z (barrel) or r (disk) on layer j that fulfils `_points`, for each hit of i."""
    barrel, z0 = detector.barrel, cuts.max_z0
    half, across = 0.5 * detector.pitch_v[i], 0.5 * detector.pitch_v[j]
    if barrel[j]:
        r = np.array([[b.r.min()], [b.r.max()]])
        far = r if barrel[i] else np.abs(b.z).max()
        spread = (z0 * (r - a.r) + half * far) / a.r + across
        centre = a.z * r / a.r
        return (centre - spread).min(axis=0), (centre + spread).max(axis=0)
    side = 1.0 if detector.place[j] > 0 else -1.0
    z, near = side * np.array([[b.z.min()], [b.z.max()]]), side * a.z
    slack = across * np.abs(near) + (0 if barrel[i] else half * np.abs(z))
    steep, flat = near - z0 - (half if barrel[i] else 0), near + z0 + (half if barrel[i] else 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.where(steep > 0, (a.r * (z - z0) + slack) / steep, np.inf)
        low = np.where(flat > 0, (a.r * (z + z0) - slack) / flat, np.inf)
    return low.min(axis=0), np.minimum(high.max(axis=0), b.r.max() + 1.0)


def _fulfil(
    a: _Layer, b: _Layer, s: np.ndarray, t: np.ndarray, i: int, j: int, detector: Detector,
    cuts: Cuts,
) -> Bool[np.ndarray, "m"]:  # fmt: skip
    """Whether pairs of hits fulfil the cuts."""
    barrel, half = detector.barrel, 0.5 * detector.pitch_v
    r, z, far, along = a.r[s], a.z[s], b.r[t], b.z[t]
    error = half[i] * (far if barrel[i] else np.abs(along))
    error = error + half[j] * (r if barrel[j] else np.abs(z))
    kept = np.abs(z * far - along * r) <= cuts.max_z0 * (far - r) + error
    turn = b.turn[t] - a.turn[s] + (cuts.max_d0 / r + cuts.scattering) * (1 - r / far)
    return np.asarray(kept & (np.abs(b.phi[t] - a.phi[s]) <= turn) & (far > r))
