"""The classical way to tracks: seeds in the inner layers, followed outward by a Kalman filter.

No network and no truth. Seeds are triplets of hits in the layers of one resolution that agree with
a helix from the luminous region. Each is followed from layer to layer: where its helix is to cross
a layer, the hit nearest to it, in units of the errors, is added and the helix updated. Tracks that
share hits are resolved in favour of the longer one, then of the better chi2, and the survivors are
fitted (`fits`). The next pass has the hits that are left: seeds that skip a layer, then seeds in
the outer layers, for particles born on the way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from physml.errors import ConfigError
from physml.tracking import fits, pairs
from physml.tracking.events import Hits, Tracks, tracks_of
from physml.tracking.geometry import Detector
from physml.tracking.helix import SPEED_OF_LIGHT
from physml.tracking.kalman import (
    DEPTH,
    FollowOptions,
    State,
    follow_seeds,
    table_of,
    variances,
    within,
)
from physml.tracking.surfaces import cross, measurements, three_points

SCATTERING = 0.004  # rad, of the direction in phi between two hits of a seed
CHUNK = 200_000  # pairs whose triplets are made at once
ALIKE = 0.3  # difference of the curvatures of triplets that share two hits, in units of the largest
DEFAULT = FollowOptions()


def follow(hits: Hits, detector: Detector, options: FollowOptions = DEFAULT) -> Tracks:
    """Find tracks.

    Args:
        hits: of one collision.
        detector: their detector, with a field.
        options: see `FollowOptions`.

    Returns:
        Tracks that share no hit, their hits from the inside to the outside.

    Raises:
        ConfigError: options out of range, or no field.
        DataError: see `pairs.check`.
    """
    if not (options.min_pt > 0 and options.min_hits >= 3 and options.holes >= 0):
        raise ConfigError("FollowOptions", "are out of range", "see physml.tracking.baseline")
    if not detector.field > 0:
        raise ConfigError("field", f"is {detector.field} T", "give a detector with a field")
    pairs.check(hits, detector)
    steps = [pairs.layer_pairs(detector, skips, max_eta=options.max_eta) for skips in (0, 1)]
    free = np.ones(len(hits.layer), bool)
    found: list[np.ndarray] = []
    for which in _passes(detector, options):
        own = options._replace(max_d0=which.max_d0, min_hits=which.min_hits)
        seeds = _seeds(hits, free, detector, which, steps[which.skips], options)
        state = follow_seeds(seeds, hits, free, detector, steps[1], own)
        tracks = tracks_of(_resolve(state, len(free), own))
        tracks = _confirmed(tracks, hits, free, detector, own)
        free[tracks.hit] = False
        found += np.split(tracks.hit, tracks.offsets[1:-1])
    return tracks_of([rows for rows in found if len(rows)])


class _Pass(NamedTuple):
    """Which seeds are made."""

    layers: Bool[np.ndarray, "l"]  # with their hits
    skips: int  # layers that may be left out between two hits
    chains: bool  # four hits in a row are asked for
    max_d0: float  # mm
    min_hits: int  # of a track


def _passes(detector: Detector, options: FollowOptions) -> list[_Pass]:
    """First the seeds that are most likely right."""
    inner = detector.pitch_v <= 2 * detector.pitch_v.min()
    outer = ~inner & (detector.pitch_v <= 2 * detector.pitch_v[~inner].min(initial=np.inf))
    d0, fewest = options.max_d0, options.min_hits
    found = [
        _Pass(inner, 0, True, d0, fewest),
        _Pass(inner, 1, True, d0, fewest),
        _Pass(inner, 1, False, d0 / 2, fewest + 1),
    ]
    return [*found, _Pass(outer, 0, False, 5 * d0, fewest + 1)] if outer.sum() >= 3 else found


def _seeds(
    hits: Hits,
    free: np.ndarray,
    detector: Detector,
    which: _Pass,
    steps: np.ndarray,
    options: FollowOptions,
) -> Int64[np.ndarray, "t 3"]:
    """Triplets of free hits in the given layers that a helix from the luminous region may leave."""
    cuts = pairs.Cuts(
        min_pt=options.min_pt, max_d0=which.max_d0, max_z0=options.max_z0, scattering=SCATTERING
    )
    crossed = steps[:, which.layers[steps].all(axis=0)]
    rows = np.flatnonzero(free & which.layers[hits.layer])
    part = Hits(*(column[rows] for column in hits))
    inner, outer = pairs.search(part, detector, crossed, cuts)[:2]
    order = np.argsort(inner, kind="stable")
    inner, outer = inner[order], outer[order]
    start = np.searchsorted(inner, np.arange(len(rows) + 1))
    r = np.hypot(part.position[:, 0], part.position[:, 1])
    z = part.position[:, 2]
    theta = np.arctan2(r[outer] - r[inner], z[outer] - z[inner])
    blur = 0.6 * detector.pitch_v[part.layer[inner]] * _across(theta, part, inner, detector)
    blur = blur / np.hypot(r[outer] - r[inner], z[outer] - z[inner])
    found = [np.empty((2, 0), np.int64)]
    for first in range(0, len(inner), CHUNK):
        one, two = _next_to(np.arange(first, min(first + CHUNK, len(inner))), outer, start)
        straight = np.abs(theta[one] - theta[two]) < options.bend + blur[one] + blur[two]
        found.append(np.stack([one[straight], two[straight]]))
    one, two = np.concatenate(found, axis=1)
    triplets = np.stack([inner[one], outer[one], outer[two]], axis=1)
    parameters, spread = three_points(part.position[triplets])
    largest = SPEED_OF_LIGHT * detector.field / options.min_pt
    curvature, _, d0, z0, _ = np.abs(parameters.T)
    kept = spread & (curvature < largest) & (d0 < which.max_d0) & (z0 < options.max_z0)
    if which.chains:
        kept[kept] = _begin(one[kept], two[kept], parameters[kept, 0], len(inner), largest)
    return np.asarray(rows[triplets[kept]])


def _next_to(
    edge: np.ndarray, outer: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of edges of which the second begins where the first ends."""
    count = start[outer[edge] + 1] - start[outer[edge]]
    first = np.repeat(start[outer[edge]] - np.cumsum(count) + count, count)
    return np.repeat(edge, count), np.arange(len(first)) + first


def _begin(
    one: np.ndarray, two: np.ndarray, curvature: np.ndarray, edges: int, largest: float
) -> Bool[np.ndarray, "t"]:
    """Triplets that go on in another one of like curvature, and do not themselves go on another."""
    order = np.argsort(one, kind="stable")
    start = np.searchsorted(one[order], np.arange(edges + 1))
    first, place = _next_to(np.arange(len(one)), two, start)
    second = order[place]
    alike = np.abs(curvature[first] - curvature[second]) < ALIKE * largest
    begins, follows = np.zeros((2, len(one)), bool)
    begins[first[alike]], follows[second[alike]] = True, True
    return begins & ~follows


def _across(theta: np.ndarray, hits: Hits, row: np.ndarray, detector: Detector) -> np.ndarray:
    """Part of an error along v that turns the polar angle of a pair."""
    barrel = detector.barrel[hits.layer[row]]
    return np.asarray(np.where(barrel, np.abs(np.sin(theta)), np.abs(np.cos(theta))))


def _resolve(state: State, n: int, options: FollowOptions) -> list[np.ndarray]:
    """Tracks that share no hit: the longest and best first, the others with what is left."""
    hits = state.hits.copy()
    size = (hits >= 0).sum(axis=1)
    lost_inside = 1 * (state.holes > options.holes)  # more is asked of what ends in the detector
    fewest = np.maximum(options.min_hits + lost_inside, np.ceil(size * (1 - options.shared)))
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((-state.chi2, size))] = np.arange(len(size))
    left, found = np.flatnonzero(size >= fewest), []
    while len(left):
        one, place = np.nonzero(hits[left] >= 0)
        track, row = left[one], hits[left[one], place]
        best = np.full(n, -1)
        np.maximum.at(best, row, rank[track])
        lost = np.bincount(one, best[row] != rank[track], minlength=len(left)) > 0
        taken = np.zeros(n + 1, bool)
        for t in left[~lost]:
            found.append(hits[t][hits[t] >= 0])
        taken[hits[left[~lost]].ravel()] = True
        taken[-1] = False  # stands for no hit
        left = left[lost]
        hits[left] = np.where(taken[hits[left]], -1, hits[left])
        left = left[(hits[left] >= 0).sum(axis=1) >= fewest[left]]
    return found


def _confirmed(
    tracks: Tracks, hits: Hits, free: np.ndarray, detector: Detector, options: FollowOptions
) -> Tracks:
    """Tracks that a helix fits, without hits that do not belong, with second hits in layers."""
    limits = options.limits._replace(min_hits=options.min_hits)
    found = fits.fit(tracks, hits, detector, options.fit)
    kept = fits.reject_outliers(tracks, hits, detector, found, limits, options.fit)
    own, row = _second_hits(kept, hits, free, detector, options)
    place = np.append(2 * np.arange(len(kept.tracks.hit)), 2 * own + 1)
    both = np.append(kept.tracks.hit, row)[np.argsort(place)]
    more = np.searchsorted(np.sort(own), kept.tracks.offsets)
    return Tracks(kept.tracks.offsets + more, both)


def _second_hits(
    kept: fits.Rejection, hits: Hits, free: np.ndarray, detector: Detector, options: FollowOptions
) -> tuple[Int64[np.ndarray, "x"], Int64[np.ndarray, "x"]]:
    """Places of hits in the tracks, and the free hits of other modules that belong beside them.

    What the helix is off a hit, it is off the other one as well, but for their errors.
    """
    tracks, fit = kept.tracks, kept.fit
    owner = np.repeat(np.arange(len(fit.pt)), np.diff(tracks.offsets))
    parameters = np.stack([fit.curvature, fit.phi, fit.d0, fit.z0, fit.cot_theta], axis=1)[owner]
    left = free.copy()
    left[tracks.hit] = False
    layer, position = hits.layer[tracks.hit], hits.position[tracks.hit]
    sigma = np.sqrt(variances(tracks.hit, hits, detector))
    steep = np.abs(parameters[:, 4])
    lean = np.where(detector.barrel[layer], steep, 1 / np.maximum(steep, 0.1))
    width = 6 * sigma + np.stack([np.full(len(lean), DEPTH / 2), DEPTH * lean], axis=1)
    one, row = within(table_of(hits, left, detector), layer, position, width, detector)
    other = (hits.module[row] != hits.module[tracks.hit[one]]) | (hits.module[row] < 0)
    one, row = one[other], row[other]
    off = [
        cross(measurements(which[:, None], hits, detector), parameters[one]).residual[:, 0]
        for which in (tracks.hit[one], row)
    ]
    distance = ((off[0] - off[1]) ** 2 / (2 * sigma[one] ** 2)).sum(axis=1)
    order = np.argsort(distance)[: int((distance < options.chi2).sum())]
    for column in (one, row):  # the best of a hit, and each once
        order = order[np.sort(np.unique(column[order], return_index=True)[1])]
    return one[order], row[order]
