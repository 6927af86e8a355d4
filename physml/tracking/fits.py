"""Fit of helices to tracks, and rejection of hits that do not belong.

Weighted least squares over all hits of a track at once, the scattering in the full covariance of
the hits. A Kalman filter with smoother gives the same numbers for the same errors; this form is a
few batched matrix products, and what each hit adds to chi2 follows from one formula.

Parameters and signs: see `surfaces`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64
from scipy.special import chdtrc

from physml.errors import ConfigError, DataError
from physml.tracking.events import Hits, Tracks
from physml.tracking.geometry import Detector
from physml.tracking.helix import SPEED_OF_LIGHT
from physml.tracking.surfaces import (
    Crossed,
    Surfaces,
    arc_slope,
    cross,
    deflections,
    measurements,
    three_points,
    vector,
)

LARGEST_PT = 1e5  # GeV, given where no curvature is seen
LONGEST = 64  # hits of a track that is fitted
FARTHEST = np.array([0.05, 10.0, 1e4, 1e5, 100.0])  # curvature, phi, d0, z0, cot_theta of a fit
SETTLED = 1e-14  # fall of chi2 below which a fit rests


class FitOptions(NamedTuple):
    """What the fit assumes."""

    material: float = 0.025  # X0 of a layer that is crossed at a right angle; 0: no scattering
    mass: float = 0.13957039  # GeV, charged pion (PDG), for the velocity
    rounds: int = 10  # of Gauss and Newton at most


DEFAULT = FitOptions()


class TrackFit(NamedTuple):
    """Fit of t tracks; all numbers finite, zero where a track could not be fitted."""

    pt: Float64[np.ndarray, "t"]  # GeV
    eta: Float64[np.ndarray, "t"]
    phi: Float64[np.ndarray, "t"]  # -pi to pi, where the track is closest to the z axis
    d0: Float64[np.ndarray, "t"]  # mm, sign: see the module
    z0: Float64[np.ndarray, "t"]  # mm
    charge: Int8[np.ndarray, "t"]
    chi2: Float64[np.ndarray, "t"]
    ndf: Int64[np.ndarray, "t"]  # two for each hit less five
    good: Bool[np.ndarray, "t"]  # fitted, bent, and the fit came to rest
    curvature: Float64[np.ndarray, "t"]  # 1 / mm
    cot_theta: Float64[np.ndarray, "t"]
    covariance: Float64[np.ndarray, "t 5 5"]  # of curvature, phi, d0, z0, cot_theta
    hit_chi2: Float64[np.ndarray, "k"]  # how much chi2 falls without the hit; two degrees


class Limits(NamedTuple):
    """What `reject_outliers` tolerates."""

    hit_chi2: float = 16.0  # a hit that adds more to chi2 is taken out
    probability: float = 1e-4  # of a larger chi2; tracks with less are dropped
    min_hits: int = 3  # no hit is taken from a track of so many
    rounds: int = 2  # hits taken from a track at most, the worst one in each round


LIMITS = Limits()


class Rejection(NamedTuple):
    """What `reject_outliers` left, and what it took."""

    tracks: Tracks
    fit: TrackFit
    kept: Int64[np.ndarray, "t"]  # which of the tracks given these are
    hits_removed: int  # taken out of tracks
    not_fitted: int  # tracks dropped because their fit is not good
    bad_chi2: int  # tracks dropped because of their chi2


def fit(tracks: Tracks, hits: Hits, detector: Detector, options: FitOptions = DEFAULT) -> TrackFit:
    """Fit a helix to each track.

    Errors are pitch / sqrt(12) along and across the strips of the layer and multiple scattering
    (Highland, from the fitted momentum) in the layers that were hit; energy loss is neglected.
    A track flies from its first to its last hit; the order of the others does not matter.
    Not good are tracks of fewer than three hits in different places or more than `LONGEST` hits,
    straight ones, and those whose fit did not come to rest.

    Args:
        tracks: rows of hits.
        hits: of the collision.
        detector: its layers give surfaces, pitches and the field.
        options: see `FitOptions`.

    Raises:
        ConfigError: no field, or options that are not positive.
        DataError: a track names a hit that does not exist, or one in no layer or nowhere finite.
    """
    _check(tracks, hits, detector, options)
    t = len(tracks.offsets) - 1
    size = np.diff(tracks.offsets)
    parameters, covariance = np.zeros((t, 5)), np.zeros((t, 5, 5))
    chi2, good, hit_chi2 = np.zeros(t), np.zeros(t, bool), np.zeros(len(tracks.hit))
    for n in np.unique(size[(size >= 3) & (size <= LONGEST)]):
        rows = np.flatnonzero(size == n)
        places = tracks.offsets[rows][:, None] + np.arange(n)
        surfaces = measurements(tracks.hit[places], hits, detector)
        start, spread = three_points(surfaces.position)
        use = np.flatnonzero(spread & _sensible(start))
        rows, surfaces = rows[use], Surfaces(*(column[use] for column in surfaces))
        result = _least_squares(surfaces, start[use], detector.field, options)
        parameters[rows], covariance[rows], chi2[rows], good[rows], hit_chi2[places[use]] = result
    return _named(parameters, covariance, chi2, size, good, hit_chi2, detector.field)


def reject_outliers(
    tracks: Tracks, hits: Hits, detector: Detector, found: TrackFit, limits: Limits = LIMITS,
    options: FitOptions = DEFAULT,
) -> Rejection:  # fmt: skip
    """Take out hits that do not belong, fit again, and drop tracks that do not fit.

    Args:
        tracks: rows of hits.
        hits: of the collision.
        detector: as for `fit`.
        found: fit of these tracks.
        limits: see `Limits`.
        options: those of the fit.

    Raises:
        ConfigError, DataError: see `fit`; the fit is not that of the tracks.
    """
    if len(found.good) != len(tracks.offsets) - 1 or len(found.hit_chi2) != len(tracks.hit):
        raise DataError("found", "is not the fit of these tracks", "fit them first")
    given = len(tracks.hit)
    for _ in range(limits.rounds):
        place, track = _worst(tracks, found, limits)
        if len(place) == 0:
            break
        tracks = _without(tracks, place)
        found = found._replace(hit_chi2=np.delete(found.hit_chi2, place))
        part, places = _pick(tracks, track)
        found = _renewed(found, fit(part, hits, detector, options), track, places)
    unlikely = found.good & (chdtrc(np.maximum(found.ndf, 1), found.chi2) < limits.probability)
    kept = np.flatnonzero(found.good & ~unlikely)
    left, places = _pick(tracks, kept)
    columns = [*(column[kept] for column in found[:-1]), found.hit_chi2[places]]
    removed, not_fitted = given - len(tracks.hit), int((~found.good).sum())
    return Rejection(left, TrackFit(*columns), kept, removed, not_fitted, int(unlikely.sum()))


def _worst(
    tracks: Tracks, found: TrackFit, limits: Limits
) -> tuple[Int64[np.ndarray, "x"], Int64[np.ndarray, "x"]]:
    """Places of the hits to be taken out, one of a track, and their tracks."""
    size = np.diff(tracks.offsets)
    owner = np.repeat(np.arange(len(size)), size)
    top = np.zeros(len(size))
    np.maximum.at(top, owner, found.hit_chi2)
    asked = found.good & (size > max(limits.min_hits, 3)) & (top > limits.hit_chi2)
    place = np.flatnonzero(asked[owner] & (found.hit_chi2 == top[owner]))
    place = place[np.diff(owner[place], prepend=-1) > 0]
    return place, owner[place]


def _without(tracks: Tracks, place: np.ndarray) -> Tracks:
    """Tracks less the hits that stand at some places."""
    before = np.searchsorted(place, tracks.offsets)
    return Tracks(tracks.offsets - before, np.delete(tracks.hit, place))


def _pick(tracks: Tracks, rows: np.ndarray) -> tuple[Tracks, Int64[np.ndarray, "k"]]:
    """Some of the tracks, and the places where their hits stood."""
    size = np.diff(tracks.offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    places = np.arange(offsets[-1]) + np.repeat(tracks.offsets[rows] - offsets[:-1], size)
    return Tracks(offsets, tracks.hit[places]), places


def _renewed(found: TrackFit, new: TrackFit, rows: np.ndarray, places: np.ndarray) -> TrackFit:
    """The fit with new results for some tracks, whose hits stand at some places."""
    columns = [column.copy() for column in found]
    for k, (column, values) in enumerate(zip(columns, new, strict=True)):
        column[places if k == len(columns) - 1 else rows] = values
    return TrackFit(*columns)


def _check(tracks: Tracks, hits: Hits, detector: Detector, options: FitOptions) -> None:
    if not detector.field > 0:
        raise ConfigError("field", f"is {detector.field} T", "give a detector with a field")
    if not (options.material >= 0 and options.mass > 0 and options.rounds >= 1):
        raise ConfigError("FitOptions", "are not positive", "give positive numbers")
    if tracks.hit.min(initial=0) < 0 or tracks.hit.max(initial=-1) >= len(hits.layer):
        raise DataError("tracks", "name a hit that does not exist", "give the hits they are of")
    layer = hits.layer[tracks.hit]
    if layer.min(initial=0) < 0 or layer.max(initial=-1) >= len(detector.place):
        raise DataError("hits", "lie in no layer of the detector", "give the detector they are of")
    if not np.isfinite(hits.position[tracks.hit]).all():
        raise DataError("hits", "a position is not finite", "leave such hits out")


def _named(
    parameters: np.ndarray, covariance: np.ndarray, chi2: np.ndarray, size: np.ndarray,
    good: np.ndarray, hit_chi2: np.ndarray, field: float,
) -> TrackFit:  # fmt: skip
    """Parameters under the names that are used."""
    curvature, phi, d0, z0, cot = parameters.T
    bent = np.abs(curvature) > SPEED_OF_LIGHT * field / LARGEST_PT
    fitted = covariance[:, 0, 0] > 0
    pt = np.where(bent, SPEED_OF_LIGHT * field / np.where(bent, np.abs(curvature), 1.0), LARGEST_PT)
    return TrackFit(
        np.where(fitted, pt, 0.0), np.arcsinh(cot), np.angle(np.exp(1j * phi)), d0, z0,
        -np.sign(curvature).astype(np.int8), chi2, 2 * size - 5, good & bent,
        curvature, cot, covariance, hit_chi2,
    )  # fmt: skip


def _least_squares(
    surfaces: Surfaces, parameters: np.ndarray, field: float, options: FitOptions
) -> tuple[np.ndarray, ...]:
    """Gauss-Newton from a start: parameters, covariance, chi2, good, hit_chi2."""
    t, n = surfaces.sigma.shape[:2]
    step = np.full(t, np.inf)
    moving = np.arange(t)
    for _ in range(options.rounds):
        part = Surfaces(*(column[moving] for column in surfaces))
        moved, step[moving] = _improve(part, parameters[moving], field, options)
        lost = ~_sensible(moved)
        parameters[moving] = np.where(lost[:, None], parameters[moving], moved)
        step[moving[lost]] = np.inf
        moving = moving[~lost & (step[moving] > SETTLED)]
        if len(moving) == 0:
            break
    residual, slope, error = _linear(surfaces, parameters, field, options)
    weight = np.linalg.inv(error)
    weighted = weight @ slope
    covariance = _inverse(slope.mT @ weighted)
    pull = weight @ residual[..., None]
    chi2 = (residual * pull[..., 0]).sum(axis=1)
    projector = weight - weighted @ covariance @ weighted.mT
    hit_chi2 = _left_out(projector, pull, n) if n > 3 else np.repeat(chi2[:, None], n, axis=1)
    return parameters, covariance, chi2, step < 1e-4, hit_chi2


def _sensible(parameters: np.ndarray) -> Bool[np.ndarray, "t"]:
    """Whether a helix may be one in a detector: numbers stay finite."""
    return np.asarray((np.abs(parameters) < FARTHEST).all(axis=1))


def _improve(
    surfaces: Surfaces, parameters: np.ndarray, field: float, options: FitOptions
) -> tuple[np.ndarray, np.ndarray]:
    """One step, and by how much it was to lower chi2."""
    residual, slope, error = _linear(surfaces, parameters, field, options)
    solved = np.linalg.solve(error, np.concatenate([slope, residual[..., None]], axis=2))
    gradient = (slope.mT @ solved[..., 5:])[..., 0]
    step = (_inverse(slope.mT @ solved[..., :5]) @ gradient[..., None])[..., 0]
    return parameters - step, (step * gradient).sum(axis=1)


def _inverse(matrix: np.ndarray) -> Float64[np.ndarray, "t 5 5"]:
    """Inverse of positive matrices whose rows have different units."""
    scale = np.sqrt(np.maximum(np.diagonal(matrix, axis1=1, axis2=2), 0.0))
    scale = 1 / np.where(scale > 0, scale, 1.0)
    both = scale[:, :, None] * scale[:, None, :]
    return np.asarray(np.linalg.inv(matrix * both + 1e-14 * np.eye(5)) * both)


def _left_out(projector: np.ndarray, pull: np.ndarray, n: int) -> Float64[np.ndarray, "t n"]:
    """How much chi2 falls when one hit is left out."""
    t, own = len(pull), np.arange(n)
    surfaces = projector.reshape(t, n, 2, n, 2)[:, own, :, own, :].swapaxes(0, 1)
    a, b = np.moveaxis(pull.reshape(t, n, 2), -1, 0)
    determinant = surfaces[..., 0, 0] * surfaces[..., 1, 1] - surfaces[..., 0, 1] ** 2
    square = (
        surfaces[..., 1, 1] * a**2 - 2 * surfaces[..., 0, 1] * a * b + surfaces[..., 0, 0] * b**2
    )
    return np.asarray(square / determinant)


def _linear(
    surfaces: Surfaces, parameters: np.ndarray, field: float, options: FitOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (t, 2n), their derivatives (t, 2n, 5) and their covariance."""
    t, n = surfaces.sigma.shape[:2]
    crossed = cross(surfaces, parameters)
    error = np.zeros((t, 2 * n, 2 * n))
    error[:, np.arange(2 * n), np.arange(2 * n)] = surfaces.sigma.reshape(t, 2 * n) ** 2
    if options.material > 0:
        kicks = _kicks(crossed, parameters, field, options)
        error += kicks @ kicks.mT
    return crossed.residual.reshape(t, 2 * n), crossed.slope.reshape(t, 2 * n, 5), error


def _kicks(
    crossed: Crossed, parameters: np.ndarray, field: float, options: FitOptions
) -> Float64[np.ndarray, "t j i"]:
    """Shifts (2n) measured behind each scattering (2n: azimuth, then slope) of one sigma."""
    curvature, cot = parameters[:, :1], parameters[:, 4:]
    azimuth, slope = deflections(parameters, crossed.slant, field, options.material, options.mass)
    s, point, direction = crossed.length, crossed.point, crossed.direction
    ahead = np.maximum(s[:, :, None] - s[:, None, :], 0.0)
    way = np.where(ahead > 0, point[:, :, None] - point[:, None, :], 0)
    # The momentum stays, so a steeper track bends more.
    heading = (direction[..., 0] + 1j * direction[..., 1])[:, None]
    bend = arc_slope(curvature[..., None], ahead) * heading
    bend = bend * (curvature * cot / (1 + cot**2))[..., None]
    turned = vector(1j * way * azimuth[:, None], 0 * ahead)
    tilted = vector(bend, ahead) * slope[:, None, :, None]
    effect = np.stack([turned, tilted], axis=-2)  # t, j, i, 2, 3
    t, n = s.shape
    shifts = np.einsum("tjma,tjika->tjmik", crossed.measured, effect)
    return np.asarray(shifts.reshape(t, 2 * n, 2 * n))
