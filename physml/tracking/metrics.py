"""How good edges and tracks are, by the definitions of the field, each under its own name.

Definitions differ between experiments. The styles of `match_tracks`, for a track that shares hits
with a particle (purity: shared / hits of the track; share: shared / hits of the particle):

| style   | finds the particle  | matches the track   | after                            |
| ------- | ------------------- | ------------------- | -------------------------------- |
| one_way | share > 1/2         | purity > 1/2        | acorn `one_way`                  |
| two_way | both > 1/2          | both > 1/2          | acorn `two_way`; double majority |
| atlas   | purity > 1/2        | purity > 1/2        | acorn `ATLAS`                    |
| lhc     | purity > 3/4        | purity > 3/4        | gnn_tracking `lhc`               |
| perfect | purity = share = 1  | purity = share = 1  | gnn_tracking `perfect`           |

acorn: GNN4ITkTeam/CommonFramework, acorn/stages/track_building, utils.py and
track_building_stage.py; gnn_tracking: gnn-tracking/gnn_tracking, metrics/cluster_metrics.py; both
read, not run. Different here: noise is no particle (acorn counts a track of mostly noise as
matched), and `perfect` is exact (gnn_tracking lets a purity above 0.99 pass). ACTS'
TrackTruthMatcher is two_way for the particle with most hits, with exactly one half passing.
Metrics of edges are in `edge_metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike

from physml import metrics
from physml.errors import ConfigError, DataError
from physml.tracking import events
from physml.tracking.events import Collision, Particles, Target, Tracks

if TYPE_CHECKING:
    from physml.tracking.fits import TrackFit

Style = Literal["one_way", "two_way", "atlas", "lhc", "perfect"]
Columns = TypeVar("Columns", "FoundParticles", "MatchedTracks")
STYLES: tuple[Style, ...] = ("one_way", "two_way", "atlas", "lhc", "perfect")

Variable = Literal["pt", "eta", "radius", "mu"]
LOW_PT_BINS = np.geomspace(0.5, 50.0, 13)  # GeV, for a target of 0.5 GeV
BINS: Mapping[Variable, Float64[np.ndarray, "b+1"]] = {
    "pt": np.geomspace(1.0, 50.0, 11),  # GeV
    "eta": np.linspace(-4.0, 4.0, 21),  # 0.4 wide, as in acorn
    "radius": np.array([0.0, 10, 20, 40, 60, 80, 120, 160, 200, 260]),  # mm, of the vertex
    "mu": np.arange(0.0, 301.0, 25.0),  # collisions at a time
}

# Weight of the hits of a particle from its first to its last, stretched over as many as it has,
# and its limits: trackml-library, weights.py (of the challenge, arXiv 1904.06778).
_ORDER_WEIGHT = (10.0, 8.0, 6.0, 5.0, 3.0, 3.0, 3.0, 5.0, 6.0)
_FEWEST, _MOST = 4, 20  # hits


class Rate(NamedTuple):
    """A share as the two counts, so that events can be added."""

    passed: int
    total: int

    @property
    def share(self) -> float | None:
        """Passed over total; None (undefined) where there is nothing to count."""
        return self.passed / self.total if self.total else None


class FoundParticles(NamedTuple):
    """The target particles."""

    row: Int64[np.ndarray, "p"]  # of the collision's particles
    tracks: Int64[np.ndarray, "p"]  # that find it
    pt: Float64[np.ndarray, "p"]  # GeV
    eta: Float64[np.ndarray, "p"]
    radius: Float64[np.ndarray, "p"]  # of its vertex from the beam, mm
    mu: Float64[np.ndarray, "p"] | None  # pile-up of its collision, where it is known

    @property
    def found(self) -> Bool[np.ndarray, "p"]:
        """Whether a track finds it."""
        return self.tracks > 0


class MatchedTracks(NamedTuple):
    """The tracks with enough hits."""

    row: Int64[np.ndarray, "t"]  # of the tracks
    matched: Bool[np.ndarray, "t"]  # to any particle; others are fakes
    on_target: Bool[np.ndarray, "t"]  # shares more hits with a target than with any other
    pt: Float64[np.ndarray, "t"] | None  # of the fit where one is given, GeV; 0: not fitted
    eta: Float64[np.ndarray, "t"] | None
    mu: Float64[np.ndarray, "t"] | None


class Matches(NamedTuple):
    """What a style finds in one collision, or in several (`concatenate`)."""

    style: str
    particles: FoundParticles
    tracks: MatchedTracks

    @property
    def efficiency(self) -> Rate:
        """Target particles that are found, of all."""
        return Rate(int(self.particles.found.sum()), len(self.particles.row))

    @property
    def fake_rate(self) -> Rate:
        """Tracks that are not matched, of all (acorn).

        Where a style asks for a share of the particle, a pure track that holds too few of its
        hits is a fake as well, whether the particle is looked for or not.
        """
        return Rate(int((~self.tracks.matched).sum()), len(self.tracks.row))

    @property
    def target_fake_rate(self) -> Rate:
        """The same of tracks with a target as the majority particle only (gnn_tracking).

        One minus it is what gnn_tracking calls `lhc` for that style: an efficiency per track.
        """
        return Rate(
            int((~self.tracks.matched & self.tracks.on_target).sum()),
            int(self.tracks.on_target.sum()),
        )

    @property
    def duplicate_rate(self) -> Rate:
        """Tracks that find a target particle again, per found one (acorn); may exceed 1."""
        extra = np.maximum(self.particles.tracks - 1, 0)
        return Rate(int(extra.sum()), int(self.particles.found.sum()))


class _Pairs(NamedTuple):
    """Tracks and particles that share hits."""

    track: Int64[np.ndarray, "k"]
    particle: Int64[np.ndarray, "k"]
    shared: Int64[np.ndarray, "k"]  # hits, at least one
    size: Int64[np.ndarray, "k"]  # hits of the track, noise as well
    own: Int64[np.ndarray, "k"]  # hits of the particle


def match_tracks(
    tracks: Tracks,
    collision: Collision,
    target: Target,
    style: Style = "two_way",
    min_hits: int = 3,
    *,
    fit: TrackFit | None = None,
    mu: float | None = None,
) -> Matches:
    """Which target particles are found, and which tracks are fakes.

    Args:
        tracks: with rows of the collision's hits; they may share hits.
        collision: with its truth. The hits of a particle are those in it: a cut on hits before
            makes particles shorter.
        target: particles that are looked for.
        style: see the table of this module.
        min_hits: shorter tracks are no tracks: they neither find particles nor count as fakes.
        fit: pT and eta of each track, for fake rates against them.
        mu: pile-up of the collision, for rates against it.

    Raises:
        ConfigError: an unknown style, or min_hits below 1.
        DataError: no truth; tracks with rows outside the hits or with a hit twice; a fit of other
            tracks.
    """
    if style not in STYLES:
        raise ConfigError("style", f"{style!r} is not known", f"take one of {', '.join(STYLES)}")
    if min_hits < 1:
        raise ConfigError("min_hits", f"is {min_hits}", "give at least 1")
    n = len(tracks.offsets) - 1
    if fit is not None and not len(fit.pt) == len(fit.eta) == n:
        raise DataError("fit", f"has {len(fit.pt)} rows for {n} tracks", "fit these tracks")
    particles = _truth(collision)[1]
    pairs = _pairs(tracks, collision, min_hits)
    finds, matches = _relations(pairs, style)
    wanted = events.targets(collision, target)
    times = np.bincount(pairs.particle[finds], minlength=len(wanted))
    rows = np.flatnonzero(wanted)
    long = np.flatnonzero(np.diff(tracks.offsets) >= min_hits)
    matched = np.zeros(n, bool)
    matched[pairs.track[matches]] = True
    on_target = _on_target(pairs, wanted, n)
    return Matches(
        style,
        FoundParticles(
            rows,
            times[rows],
            events.pt(particles.momentum[rows]),
            events.eta(particles.momentum[rows]),
            np.hypot(particles.vertex[rows, 0], particles.vertex[rows, 1]),
            None if mu is None else np.full(len(rows), float(mu)),
        ),
        MatchedTracks(
            long,
            matched[long],
            on_target[long],
            None if fit is None else np.asarray(fit.pt, np.float64)[long],
            None if fit is None else np.asarray(fit.eta, np.float64)[long],
            None if mu is None else np.full(len(long), float(mu)),
        ),
    )


def concatenate(parts: Sequence[Matches]) -> Matches:
    """The particles and tracks of several collisions; `row` still counts within each.

    Raises:
        DataError: none is given, their styles differ, or only some have a fit or pile-up.
    """
    if not parts or len({part.style for part in parts}) > 1:
        raise DataError("matches", "cannot be joined", "give at least one, of one style")
    return Matches(
        parts[0].style,
        _joined([part.particles for part in parts]),
        _joined([part.tracks for part in parts]),
    )


def efficiency_in(
    matches: Matches, variable: Variable, edges: ArrayLike | None = None
) -> metrics.Shares:
    """Share of the target particles that is found, in bins of their true pT, eta, radius or mu.

    Args:
        matches: of one collision or several.
        variable: of the particles.
        edges: of the bins; those of `BINS` by default.

    Raises:
        DataError: the matches have no pile-up; see `physml.metrics.binned`.
    """
    values = _column(matches.particles._asdict(), variable, "particles")
    return metrics.binned(
        values, matches.particles.found, BINS[variable] if edges is None else edges
    )


def fakes_in(
    matches: Matches,
    variable: Variable,
    edges: ArrayLike | None = None,
    *,
    on_target: bool = False,
) -> metrics.Shares:
    """Share of the tracks that are fakes, in bins of their fitted pT or eta, or of mu.

    Tracks have no radius, and pT and eta only with a fit. Tracks that could not be fitted have
    pT 0 and lie outside the bins of pT.

    Args:
        matches: of one collision or several.
        variable: of the tracks.
        edges: of the bins; those of `BINS` by default.
        on_target: as `Matches.target_fake_rate`; else as `Matches.fake_rate`.

    Raises:
        DataError: the matches lack the variable; see `physml.metrics.binned`.
    """
    values = _column(matches.tracks._asdict(), variable, "tracks")
    used = matches.tracks.on_target | (not on_target)
    where = BINS[variable] if edges is None else edges
    return metrics.binned(values[used], ~matches.tracks.matched[used], where)


def hit_weights(collision: Collision) -> Float64[np.ndarray, "n"]:
    """Weight of each hit in the TrackML score; they sum to 1, noise has 0.

    The product of two: one for the place on the particle (10 for the first hit, less in the
    middle, 6 for the last; summing to 1 per particle; 0 for particles of under 4 hits), one for
    its pT (0.2 up to 0.5 GeV, rising linearly to 1 at 3 GeV; 0 below 0.05 GeV). Source: the
    challenge's trackml-library, weights.py. Hits are ordered by abs(z - z of the vertex) as there,
    but with the measured z. On particles of more than 20 hits those from the 21st on weigh 0.

    Raises:
        DataError: no truth, or no hit has a weight.
    """
    particle, particles = _truth(collision)
    rows = np.flatnonzero(particle >= 0)
    away = np.abs(collision.hits.position[rows, 2] - particles.vertex[particle[rows], 2])
    rows = rows[np.lexsort([away, particle[rows]])]
    own = particle[rows]
    count = np.bincount(own, minlength=len(particles.pdg))
    place = np.arange(len(rows)) - (np.cumsum(count) - count)[own]
    length = np.minimum(count, _MOST)[own]
    used = (length >= _FEWEST) & (place < _MOST)
    steps = np.arange(len(_ORDER_WEIGHT))
    along = np.interp(place * steps[-1] / np.maximum(length - 1, 1), steps, _ORDER_WEIGHT) * used
    total = np.bincount(own, along, len(count))[own]
    pt = events.pt(particles.momentum)
    strength = np.where(pt < 0.05, 0.0, np.interp(pt, [0.5, 3.0], [0.2, 1.0]))[own]
    weights = np.zeros(len(particle))
    weights[rows] = np.divide(along, total, out=np.zeros(len(rows)), where=total > 0) * strength
    if not weights.any():
        raise DataError("hit weights", "are all 0", "give a collision with particles of 4 hits")
    return np.asarray(weights / weights.sum())


def trackml_score(tracks: Tracks, collision: Collision, weights: ArrayLike | None = None) -> float:
    """Score of the TrackML challenge, 0 to 1: weight of the hits on doubly matched tracks.

    The weights of those hits of tracks with double majority (`two_way`, any length, any particle)
    that are of the matched particle, over the weights of all hits (arXiv 1904.06778;
    trackml-library, score.py). There a hit is on one track at most; here a hit that several
    tracks share counts once.

    Args:
        tracks: with rows of the collision's hits.
        collision: with its truth.
        weights: (n,) of the hits; those of `hit_weights` by default.

    Raises:
        DataError: as `match_tracks`, or the weights do not fit the hits, are negative, or all 0.
    """
    particle = _truth(collision)[0]
    weight = hit_weights(collision) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != particle.shape or not (np.isfinite(weight) & (weight >= 0)).all():
        raise DataError("hit weights", f"have shape {weight.shape}", "give one >= 0 per hit")
    if not weight.any():
        raise DataError("hit weights", "are all 0", "give the weights of the challenge, or none")
    pairs = _pairs(tracks, collision, 1)
    _, matches = _relations(pairs, "two_way")
    winner = np.full(len(tracks.offsets) - 1, -2)
    winner[pairs.track[matches]] = pairs.particle[matches]
    of_track = np.repeat(winner, np.diff(tracks.offsets))
    right = np.zeros(len(particle), bool)
    right[tracks.hit[of_track == particle[tracks.hit]]] = True
    return float(weight[right].sum() / weight.sum())


def _column(table: Mapping[str, np.ndarray | None], variable: Variable, whose: str) -> np.ndarray:
    values = table.get(variable)
    if values is None:
        remedy = "give match_tracks the fit or the pile-up, or take another variable"
        raise DataError(f"matches of {whose}", f"have no {variable}", remedy)
    return values


def _truth(collision: Collision) -> tuple[np.ndarray, Particles]:
    if collision.particle is None or collision.particles is None:
        remedy = "give one with particles, or do not ask for metrics"
        raise DataError(f"event {collision.event}", "has no truth", remedy)
    return collision.particle, collision.particles


def _pairs(tracks: Tracks, collision: Collision, min_hits: int) -> _Pairs:
    """Pairs of tracks with at least min_hits and of particles, sorted by track."""
    particle, particles = _truth(collision)
    size = np.diff(tracks.offsets)
    where = f"tracks of event {collision.event}"
    if (size < 0).any() or tracks.offsets[0] != 0 or tracks.offsets[-1] != len(tracks.hit):
        raise DataError(where, "have offsets that do not fit", "make them rise from 0 to the hits")
    if len(tracks.hit) and not (0 <= tracks.hit.min() and tracks.hit.max() < len(particle)):
        raise DataError(where, f"name hits outside 0 to {len(particle) - 1}", "give rows of Hits")
    track = np.repeat(np.arange(len(size)), size)
    place = np.sort(track * len(particle) + tracks.hit)
    if (place[1:] == place[:-1]).any():
        raise DataError(where, "hold a hit twice on one track", "give each hit once per track")
    p = len(particles.pdg)
    used = (particle[tracks.hit] >= 0) & (size[track] >= min_hits)
    key, shared = np.unique(track[used] * p + particle[tracks.hit[used]], return_counts=True)
    first, second = np.divmod(key, max(p, 1))
    own = np.bincount(particle[particle >= 0], minlength=p)
    return _Pairs(first, second, shared, size[first], own[second])


def _relations(pairs: _Pairs, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Whether the track finds the particle, and whether the particle makes the track matched."""
    pure, whole = 2 * pairs.shared > pairs.size, 2 * pairs.shared > pairs.own
    if style == "one_way":
        return whole, pure
    if style == "atlas":
        return pure, pure
    both = pure & whole
    if style == "lhc":
        both = 4 * pairs.shared > 3 * pairs.size
    elif style == "perfect":
        both = (pairs.shared == pairs.size) & (pairs.shared == pairs.own)
    return both, both


def _on_target(pairs: _Pairs, wanted: Bool[np.ndarray, "p"], n: int) -> Bool[np.ndarray, "t"]:
    """Tracks that share more hits with a target than with any particle that is none."""
    most = np.zeros((2, n), np.int64)
    np.maximum.at(most, (wanted[pairs.particle].astype(np.int64), pairs.track), pairs.shared)
    return np.asarray(most[1] > most[0])


def _joined(parts: Sequence[Columns]) -> Columns:
    """One of the two tables of matches, end to end; a column is given by all or by none."""
    columns = list(zip(*parts, strict=True))
    if any(0 < sum(part is None for part in column) < len(column) for column in columns):
        what = "have a fit or pile-up for some collisions only"
        raise DataError("matches", what, "give it for all or for none")
    return type(parts[0])._make(None if c[0] is None else np.concatenate(c) for c in columns)
