"""Event displays and cut scans of the neutrino domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from physml.errors import DataError
from physml.neutrino.metrics import CutScan
from physml.plots import COLOURS, panel, styled

VIEWS = ("X", "Y")


@styled
def event_displays(
    maps: Shaped[np.ndarray, "n views planes cells"],
    titles: Sequence[str],
    unit: str,
    *,
    diverging: bool = False,
) -> Figure:
    """Both views of events, one event a row, on one colour scale.

    Args:
        maps: pixel values; zero is drawn white.
        titles: of each event.
        unit: what the values are, for the colour bar.
        diverging: values of both signs (such as changes of a score) instead of a log scale.

    Raises:
        DataError: shapes do not fit, or nothing but zeros.
    """
    values = np.asarray(maps, float)
    if values.ndim != 4 or len(values) != len(titles) or not len(values):
        raise DataError("event displays", f"have shape {values.shape}", "give (n, views, 100, 80)")
    if not np.isfinite(values).all() or not values.any():
        raise DataError("event displays", "hold no finite non-zero value", "check the maps")
    n, views = values.shape[:2]
    figure = Figure(figsize=(3.7 * views, 2.4 * n + 0.3), layout="constrained")
    grid = figure.subplots(n, views, squeeze=False, sharex=True, sharey=True)
    peak = float(np.abs(values).max())
    norm: Normalize = LogNorm(float(np.abs(values[values != 0]).min()), max(peak, 1e-30))
    if diverging:
        norm = TwoSlopeNorm(0.0, -peak, peak)
    for row, (event, title) in enumerate(zip(values, titles, strict=True)):
        for view in range(views):
            axes = grid[row][view]
            shown = np.ma.masked_equal(event[view].T, 0.0)
            drawn = axes.imshow(
                shown, origin="lower", aspect="auto", norm=norm, interpolation="nearest",
                cmap="RdBu_r" if diverging else "viridis_r",
            )  # fmt: skip
            name = VIEWS[view] if views == 2 else str(view)
            axes.set_title(f"{title}, {name} view" if view == 0 else f"{name} view", fontsize=9)
            if view == 0:
                axes.set_ylabel("cell")
            if row == n - 1:
                axes.set_xlabel("plane of the view")
    figure.colorbar(drawn, ax=grid, label=unit, fraction=0.04, pad=0.01)
    return figure


@styled
def cut_scans(scans: Mapping[str, CutScan], x_label: str, *, title: str = "") -> Figure:
    """Efficiency and purity above, figure of merit below, against the cut.

    Args:
        scans: model -> its scan; the cut of the best figure of merit is marked.
        x_label: of the score.
        title: over the panels, such as the exposure.
    """
    figure, _ = panel(6.4, 5.4)
    figure.clear()
    above, below = figure.subplots(2, 1, sharex=True)
    for k, (name, found) in enumerate(scans.items()):
        colour = COLOURS[k % 8]
        best = int(np.argmax(found.merit))
        above.plot(found.cut, found.efficiency, color=colour, label=f"{name}: efficiency")
        above.plot(found.cut, found.purity, "--", color=colour, label=f"{name}: purity")
        label = f"{name}: {found.merit[best]:.2f} at {found.cut[best]:.2f}"
        below.plot(found.cut, found.merit, color=colour, label=label)
        for axes in (above, below):
            axes.axvline(found.cut[best], color=colour, linewidth=0.8, linestyle=":")
    above.set(ylim=(0, 1.05), ylabel="share", title=title)
    below.set(xlabel=x_label, ylabel="s / √(s + b)")
    below.set_ylim(bottom=0)
    for axes in (above, below):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def robustness(
    changes: Sequence[str], series: Mapping[str, Float[np.ndarray, " c"]], y_label: str
) -> Figure:
    """A number under changes of the detector, one row each; the first is the unchanged one.

    Args:
        changes: their names.
        series: name -> value under each change.
        y_label: what the value is.
    """
    figure, axes = panel(6.4, 0.34 * len(changes) + 1.5)
    place = np.arange(len(changes))[::-1]
    for k, (name, values) in enumerate(series.items()):
        colour = COLOURS[k % 8]
        axes.axvline(values[0], color=colour, linewidth=0.8, linestyle=":")
        axes.plot(values, place, "osD^"[k % 4], color=colour, label=name, markersize=5)
    axes.set_yticks(place, list(changes))
    axes.set(xlabel=y_label, ylim=(-0.6, len(changes) - 0.4))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
