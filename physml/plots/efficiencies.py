"""Shares that pass against a variable, with Clopper-Pearson bars, several methods side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from physml.errors import DataError
from physml.metrics import Shares
from physml.plots.style import GREY, look, panel, styled

SHIFT = 0.12  # of a bin between methods, so that their bars do not hide each other ...
WIDEST = 0.012  # ... and of the axis at most


@styled
def shares(
    series: Mapping[str, Shares],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    y_range: tuple[float, float] | None = (0.0, 1.05),
    title: str = "",
) -> Figure:
    """Shares in bins of a variable; empty bins are left out.

    Args:
        series: method -> its shares (`physml.metrics.binned`), all in the same bins.
        x_label: with unit.
        y_label: what is shared.
        log_x: logarithmic variable.
        y_range: of the axis; None: from 0 to the highest bar.
        title: over the panel.

    Raises:
        DataError: no series, no rows in the bins, bins that differ, a logarithmic axis from 0 or
            below, or a share that the axis would hide.
    """
    if not series:
        raise DataError(y_label, "has no series", "give at least one")
    edges = next(iter(series.values())).edges
    figure, axes = panel(6.4, 3.9)
    top = 0.0
    for k, (name, found) in enumerate(series.items()):
        _drawable(name, found, edges, log_x)
        used = found.total > 0
        share = found.passed[used] / found.total[used]
        if y_range and not ((y_range[0] <= share) & (share <= y_range[1])).all():
            raise DataError(name, f"has shares outside {y_range}", "widen the axis")
        low, high = found.low[used], found.high[used]
        top = max(top, float(high.max()))
        left, x, right = _places(found.edges, k - (len(series) - 1) / 2, log_x)
        axes.errorbar(
            x[used], share, np.maximum([share - low, high - share], 0.0),
            [(x - left)[used], (right - x)[used]],
            linestyle="none", markersize=4.5, elinewidth=1.0, label=_label(name, found), **look(k),
        )  # fmt: skip
    if log_x:
        _log_axis(axes)
    bottom, top = y_range or (-0.03 * top, min(1.1 * top, 1.05))  # markers at 0 are whole
    if bottom < 1.0 < top:
        axes.axhline(1.0, color=GREY, linewidth=0.8, zorder=0)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(bottom, top))
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _drawable(name: str, found: Shares, edges: np.ndarray, log_x: bool) -> None:
    if not np.array_equal(found.edges, edges):
        raise DataError(name, "has other bins than the first", "use the same bins for all")
    if not found.total.any():
        raise DataError(name, "cannot be drawn: its bins hold nothing", "check range and unit")
    if log_x and edges[0] <= 0:
        raise DataError(name, f"has bins from {edges[0]:g}", "draw them without log_x")


def _label(name: str, found: Shares) -> str:
    """The name, and how many rows the axis does not show."""
    return f"{name}\n({found.outside} outside the axis)" if found.outside else name


def _places(edges: np.ndarray, shift: float, log_x: bool) -> tuple[np.ndarray, ...]:
    """Lower edges, centres as the axis shows them, moved by steps, and upper edges of the bins."""
    where = np.log(edges) if log_x else edges
    step = np.minimum(SHIFT * np.diff(where), WIDEST * (where[-1] - where[0]))
    centre = (where[1:] + where[:-1]) / 2 + shift * step
    return edges[:-1], np.exp(centre) if log_x else centre, edges[1:]


def _log_axis(axes: Axes) -> None:
    """Plain numbers such as 0.5 and 20, not powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
