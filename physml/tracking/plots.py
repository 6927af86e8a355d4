"""Event displays, efficiencies, scores of edges and times of the tracking domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from physml import plots
from physml.errors import ConfigError, DataError
from physml.metrics import Shares
from physml.plots import COLOURS, GREY, panel, styled
from physml.tracking import events
from physml.tracking.edge_metrics import EdgeCounts
from physml.tracking.events import Collision, Tracks
from physml.tracking.geometry import Detector
from physml.tracking.metrics import Matches, Variable

FAKE, OTHER, MATCHED, UNKNOWN = 0, 1, 2, 3  # kinds of tracks; unknown: there is no truth
MOST_HITS = 20_000  # drawn in a display; more are thinned out evenly
MOST_LINES = 400  # in a display, some 50 tracks; with more only a wedge in phi is legible
_FRAME = "#DDDDDD"
_FOUND: Any = {"colors": COLOURS[0], "linewidths": 0.8, "zorder": 3}
_OTHER: Any = {"colors": COLOURS[3], "linewidths": 1.0, "zorder": 2}
_MISSED: Any = {"colors": COLOURS[4], "linewidths": 1.1, "linestyles": "--", "zorder": 4}
_FAKE: Any = {"colors": COLOURS[1], "linewidths": 1.1, "linestyles": "--", "zorder": 4}
# Whose variable, its name with unit, and whether its axis is logarithmic.
_NAMES: Mapping[str, tuple[str, bool]] = {
    "pt": ("transverse momentum {} (GeV)", True),
    "eta": ("pseudorapidity {}", False),
    "radius": ("distance from the beam to the vertex {} (mm)", False),
    "mu": ("pile-up interactions per bunch crossing (mean)", False),
}


class Display(NamedTuple):
    """What an event display shows, as plain arrays that results can keep."""

    position: Float32[np.ndarray, "n 3"]  # of all hits, mm
    truth: Int32[np.ndarray, "2 k"] | None  # hits that follow each other on target particles
    found: Bool[np.ndarray, "k"] | None  # whether the particle is found; both None: no truth
    tracks: Int32[np.ndarray, "2 m"]  # hits that follow each other on tracks
    kind: Int8[np.ndarray, "m"]  # FAKE, OTHER (matched, not to a target), MATCHED, UNKNOWN


def display(collision: Collision, tracks: Tracks, matches: Matches | None) -> Display:
    """Lines between hits for `event_display`.

    Args:
        collision: with its truth, if there are matches.
        tracks: of it.
        matches: of these tracks, from one call of `metrics.match_tracks`; None shows the tracks
            alone.

    Raises:
        ValueError: there are matches, but the collision has no truth.
    """
    truth, found = None, None
    kind = np.full(len(tracks.offsets) - 1, -1 if matches else UNKNOWN, np.int8)
    if matches:
        truth, found = _target_lines(collision, matches)
        good = np.where(matches.tracks.on_target, MATCHED, OTHER)
        kind[matches.tracks.row] = np.where(matches.tracks.matched, good, FAKE)
    of_track = np.repeat(np.arange(len(kind)), np.diff(tracks.offsets))
    inner = np.flatnonzero((of_track[1:] == of_track[:-1]) & (kind[of_track[1:]] >= 0))
    return Display(
        collision.hits.position.astype(np.float32),
        None if truth is None else truth.astype(np.int32),
        found,
        tracks.hit[np.stack([inner, inner + 1])].astype(np.int32),
        kind[of_track[inner]],
    )


@styled
def event_display(
    shown: Display,
    detector: Detector,
    *,
    phi: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Truth beside reconstruction, across the beam (x-y) and along it (r-z).

    Lines join hits. Left the target particles, found and missed; right the tracks: those of
    targets, those of other particles, and fakes. Without truth: left the hits, right all tracks.

    Args:
        shown: from `display`.
        detector: its layers are drawn in grey.
        phi: only hits, and lines between hits, in this range, rad. By default all, or of a
            crowded collision a wedge from 0 on, so wide that about `MOST_LINES` are in it.
        title: over the panels; the wedge is added.

    Raises:
        ConfigError: phi is no rising range within -pi to pi.
        DataError: there is no hit in it.
    """
    start, stop = phi or _wedge(shown)
    if not -np.pi <= start < stop <= np.pi:
        raise ConfigError("phi", f"is {phi}", "give a rising range within -pi to pi")
    angle = np.arctan2(shown.position[:, 1], shown.position[:, 0])
    inside = (start <= angle) & (angle <= stop)
    if not inside.any():
        raise DataError("event display", f"has no hit at phi {start:.2f} to {stop:.2f}", "widen it")
    if stop - start < 2 * np.pi:
        title = f"{title}, {start:.2f} < phi < {stop:.2f} rad".removeprefix(", ")
    across = np.clip(np.divide(*np.ptp(shown.position[inside, :2], axis=0)[::-1] + 2), 0.3, 1.2)
    heights = (4.2 * across, 3.4)  # of panels; x and y have one scale
    figure = Figure(figsize=(9.6, sum(heights) + 1.7), layout="constrained")
    grid = figure.subplots(2, 2, sharex="row", sharey="row", height_ratios=heights)
    truth, tracks = _groups(shown)
    r = np.hypot(*shown.position[:, :2].T)
    for row, points in enumerate((shown.position[:, :2], np.stack([shown.position[:, 2], r], 1))):
        for axes, pairs, groups in zip(
            grid[row], (shown.truth, shown.tracks), (truth, tracks), strict=True
        ):
            (_rings, _sheets)[row](axes, detector)
            _draw(axes, points, np.flatnonzero(inside), pairs, groups)
            axes.locator_params(nbins=6)
    grid[0, 0].set(
        aspect="equal", ylabel="y (mm)", title="truth: target particles" if truth else "hits"
    )
    grid[0, 1].set(aspect="equal", title="reconstruction: tracks")
    grid[1, 0].set(ylabel="r (mm)", ylim=(0, None))
    for axes in grid.flat:
        axes.set(xlabel="x (mm)" if axes in grid[0] else "z (mm)")
    for axes in grid[1]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, markerscale=3)
    figure.suptitle(title, fontsize=11)
    return figure


def efficiencies(
    methods: Mapping[str, Shares],
    variable: Variable,
    style: str,
    *,
    title: str = "",
) -> Figure:
    """Track efficiency against a variable of the particles, methods beside each other.

    The axis begins at 0, or close below the lowest bar where that is above 0.5.

    Args:
        methods: name -> `metrics.efficiency_in`.
        variable: of the bins.
        style: of the matching; it stands on the axis.
        title: over the panel, such as the target.

    Raises:
        DataError: see `physml.plots.shares`.
    """
    name, log = _NAMES[variable]
    label, y_label = name.format("of the particle"), f"track efficiency ({style})"
    lows = [found.low[found.total > 0].min(initial=1.0) for found in methods.values()]
    bottom = np.floor(20 * min(lows, default=0.0)) / 20
    bottom = bottom if bottom >= 0.5 else 0.0
    room = 0.04 * (1 - bottom) + 0.002  # markers at either end are whole
    y_range = (bottom - room, 1 + room)
    return plots.shares(methods, label, y_label, log_x=log, y_range=y_range, title=title)


def fakes(
    methods: Mapping[str, Shares], variable: Variable, style: str, *, title: str = ""
) -> Figure:
    """Fake rate against a variable of the tracks (`metrics.fakes_in`), else as `efficiencies`."""
    name, log = _NAMES[variable]
    label = name.format("of the track, fitted")
    return plots.shares(
        methods, label, f"fake rate of tracks ({style})", log_x=log, y_range=None, title=title
    )


def scores(counts: EdgeCounts, *, title: str = "") -> Figure:
    """Edges of each kind by score, logarithmic; the bins are those between the cuts.

    Args:
        counts: with the lowest cut below all scores, such as 0.
        title: over the panel.

    Raises:
        DataError: fewer than two cuts.
    """
    if len(counts.cut) < 2:
        raise DataError("scores", "have fewer than two cuts", "count edges at more cuts")

    def between(above: np.ndarray) -> np.ndarray:
        return np.append(above[:-2] - above[1:-1], above[-2]).astype(float)

    kinds = {
        "true, target": between(counts.target),
        "fake": between(counts.fake),
        "true, other": between(counts.other),
    }
    return plots.histograms(counts.cut, kinds, "edge score", "edges per bin", log=True, title=title)


@styled
def purities(
    counts: Mapping[str, EdgeCounts],
    *,
    references: Mapping[str, tuple[float, float]] | None = None,
    lowest: float = 0.9,
    title: str = "",
) -> Figure:
    """Masked and total purity of edges against their efficiency over the cuts, whole and close up.

    Args:
        counts: method -> its counts; the cuts at which nothing passes are left out.
        references: name -> (efficiency, masked purity) of published figures.
        lowest: end of both axes close up.
        title: over the panels.

    Raises:
        DataError: there are no target edges.
    """
    figure, _ = panel(9.6, 3.9)
    figure.clear()
    both = figure.subplots(1, 2)
    for axes, low in zip(both, (0.0, lowest), strict=True):
        for k, (name, found) in enumerate(counts.items()):
            used = found.target + found.other + found.fake > 0
            right, colour = found.efficiency[used], COLOURS[k % 8]
            axes.plot(right, found.masked_purity[used], color=colour, label=f"{name}: masked")
            axes.plot(right, found.purity[used], "--", color=colour, label=f"{name}: total")
        for k, (name, point) in enumerate((references or {}).items()):
            axes.plot(*point, "*+x"[k % 3], color="black", markersize=9, label=name)
        room = 0.03 * (1 - low)
        limits = (low - room, 1 + room)
        axes.set(xlim=limits, ylim=limits, xlabel="edge efficiency (target, in the graph)")
        axes.tick_params(axis="x", pad=7)  # clear of the lowest number of the other axis
    both[0].set_ylabel("purity of the edges")
    both[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title, fontsize=11)
    return figure


@styled
def stage_times(runs: Mapping[str, Mapping[str, float]], *, title: str = "") -> Figure:
    """Time of each stage, one horizontal bar per run.

    Args:
        runs: name (such as the number of hits) -> stage -> seconds; the same stages in all.
        title: over the panel, such as the machine.

    Raises:
        DataError: stages differ, or times are not finite or below 0.
    """
    stages = list(next(iter(runs.values()), {}))
    if not stages or any(list(times) != stages for times in runs.values()):
        raise DataError("times", "have other stages in each run", "time the same stages in all")
    seconds = np.array([list(times.values()) for times in runs.values()], float)
    if not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise DataError("times", "are not finite or below 0", "measure them again")
    figure, axes = panel(6.8, 1.1 + len(stages) * (0.22 + 0.2 * len(runs)) + 0.25 * len(runs))
    place, width = np.arange(len(stages))[::-1], 0.8 / len(runs)
    for k, (name, times) in enumerate(zip(runs, seconds, strict=True)):
        offset = ((len(runs) - 1) / 2 - k) * width
        label = f"{name}: {_time(times.sum())} in all"
        drawn = axes.barh(place + offset, times, 0.9 * width, color=COLOURS[k % 8], label=label)
        axes.bar_label(drawn, [_time(t) for t in times], padding=3, fontsize=8)
    axes.set_yticks(place, stages)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.15)  # room for the numbers
    axes.set(xlabel="time (s)", title=title)
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center")
    return figure


def _target_lines(collision: Collision, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """True edges of target particles, and whether each is of a found one."""
    truth = events.true_edges(collision)
    particles, particle = collision.particles, collision.particle
    assert particles is not None and particle is not None  # true_edges has refused them
    state = np.full(len(particles.pdg), -1)
    state[matches.particles.row] = matches.particles.found
    state = state[particle[truth[0]]]
    return truth[:, state >= 0], state[state >= 0] > 0


def _groups(shown: Display) -> tuple[dict[str, Any], dict[str, Any]]:
    """Label -> lines and their look, of the truth and of the tracks."""
    if shown.found is None:
        return {}, {"tracks": (shown.kind == UNKNOWN, _FOUND)}
    truth = {"found": (shown.found, _FOUND), "missed": (~shown.found, _MISSED)}
    tracks = {
        "of targets": (shown.kind == MATCHED, _FOUND),
        "of other particles": (shown.kind == OTHER, _OTHER),
        "fakes": (shown.kind == FAKE, _FAKE),
    }
    return truth, tracks


def _wedge(shown: Display) -> tuple[float, float]:
    lines = max(0 if pairs is None else pairs.shape[1] for pairs in (shown.truth, shown.tracks))
    width = 2 * np.pi * MOST_LINES / max(lines, MOST_LINES)
    return (0.0, width) if width < np.pi else (-np.pi, np.pi)


def _draw(
    axes: Axes,
    points: np.ndarray,
    rows: np.ndarray,
    pairs: np.ndarray | None,
    groups: Mapping[str, Any],
) -> None:
    """Hits and lines in one panel, which is as large as the hits; empty groups are left out."""
    step = -(-len(rows) // MOST_HITS)
    label = "hits" if step == 1 else f"hits (1 in {step})"
    dots: Any = {"markersize": 1.6, "markeredgewidth": 0, "rasterized": True, "zorder": 1}
    axes.plot(*points[rows[::step]].T, "o", color=GREY, label=label, **dots)
    inside = np.zeros(len(points), bool)
    inside[rows] = True
    for label, (mine, look) in groups.items():
        assert pairs is not None  # there are no groups without lines
        lines = points[pairs[:, mine & inside[pairs].all(axis=0)].T]
        if len(lines):
            axes.add_collection(LineCollection(list(lines), label=label, rasterized=True, **look))
    low, high = points[rows].min(axis=0), points[rows].max(axis=0)
    room = np.maximum(0.05 * (high - low), 10.0)  # mm
    low, high = low - room, high + room
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _rings(axes: Axes, detector: Detector) -> None:
    """Barrels seen along the beam."""
    turn = np.linspace(0, 2 * np.pi, 181)
    for radius in detector.place[detector.barrel]:
        axes.plot(radius * np.cos(turn), radius * np.sin(turn), color=_FRAME, lw=0.7, zorder=0)


def _sheets(axes: Axes, detector: Detector) -> None:
    """Barrels and disks seen from the side."""
    barrel = detector.barrel
    style: Any = {"colors": _FRAME, "linewidth": 0.9, "zorder": 0}
    axes.hlines(detector.place[barrel], detector.low[barrel], detector.high[barrel], **style)
    axes.vlines(detector.place[~barrel], detector.low[~barrel], detector.high[~barrel], **style)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.995 else f"{1e3 * seconds:.3g} ms"
