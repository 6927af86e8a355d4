"""Panels with a ratio below: the machinery of the figures in `plots`, and what they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from physml.plots import COLOURS, GREY

TRUTH, GENERATED = COLOURS[6], COLOURS[4]
NAMES = ("truth", "generated")
SPANS = (0.05, 0.1, 0.2, 0.5)  # of ratio panels, up and down; triangles stand for what lies beyond
MARGIN = (0.8, 0.2, 0.55, 0.4)  # left, right, below, above all cells, inches
HEAD = 0.35  # more above, where cells have titles
FEWEST = 0.45  # relative error of a count of the truth beyond which a ratio says nothing
GAP = (0.7, 0.75)  # between cells, inches

Cell = tuple[Axes, Axes]  # values above, ratio below


class Histogram(NamedTuple):
    """Two samples in the same bins, and how many rows they have, those outside included."""

    edges: Float[np.ndarray, "k+1"]
    truth: Float[np.ndarray, "k"]
    generated: Float[np.ndarray, "k"]
    total: tuple[float, float]

    def packed(self) -> Float[np.ndarray, "k+1 3"]:
        """One array that results can keep: edges and counts, the totals in the last row."""
        counts = [np.append(x, n) for x, n in zip(self[1:3], self.total, strict=True)]
        return np.column_stack([self.edges, *counts])


def unpacked(array: Float[np.ndarray, "k+1 3"]) -> Histogram:
    """The inverse of `Histogram.packed`."""
    edges, truth, generated = np.asarray(array, np.float64).T
    total = float(truth[-1]), float(generated[-1])
    return Histogram(edges, truth[:-1], generated[:-1], total)


def binned(samples: Sequence[np.ndarray], edges: np.ndarray) -> Histogram:
    """Values of truth and generated in bins."""
    a, b = (np.histogram(x, edges)[0].astype(np.float64) for x in samples)
    return Histogram(edges, a, b, (float(len(samples[0])), float(len(samples[1]))))


class Points(NamedTuple):
    """A value with its error for each of some places."""

    value: Float[np.ndarray, "k"]
    error: Float[np.ndarray, "k"]


def grid(
    panels: int, columns: int, width: float, height: float, *, titles: bool = True
) -> tuple[Figure, list[Cell]]:
    """A figure of cells with room for values above and a ratio below; sizes of a cell in inches.

    The margins are set, not found: solving for them takes seconds with thirty cells.
    """
    columns = min(columns, panels)
    rows = -(-panels // columns)
    top = MARGIN[3] + HEAD * titles
    size = MARGIN[0] + MARGIN[1] + width * columns, MARGIN[2] + top + height * rows
    figure = Figure(figsize=size)
    outer = figure.add_gridspec(
        rows, columns, left=MARGIN[0] / size[0], right=1 - MARGIN[1] / size[0],
        bottom=MARGIN[2] / size[1], top=1 - top / size[1],
        wspace=GAP[0] / (width - GAP[0]), hspace=GAP[1] / (height - GAP[1]),
    )  # fmt: skip
    cells = []
    for k in range(panels):
        inner = outer[k // columns, k % columns].subgridspec(
            2, 1, height_ratios=(3, 1.1), hspace=0.12
        )
        above = figure.add_subplot(inner[0])
        below = figure.add_subplot(inner[1], sharex=above)
        above.tick_params(labelbottom=False)
        cells.append((above, below))
    return figure, cells


def steps(axes: Axes, edges: np.ndarray, where: np.ndarray, found: Points, sample: int) -> None:
    """Values in bins with bars; truth is filled, and so lies beneath."""
    colour = (TRUTH, GENERATED)[sample]
    if sample == 0:
        axes.stairs(found.value, edges, fill=True, color=GREY, alpha=0.35, label=NAMES[0])
    else:
        axes.stairs(found.value, edges, color=colour, linewidth=1.3, label=NAMES[1])
    used = found.value > 0
    bars: Any = {"fmt": "none", "ecolor": colour, "elinewidth": 0.8}
    axes.errorbar(where[used], found.value[used], found.error[used], **bars)


def ratio_of(truth: Points, generated: Points) -> Points:
    """Generated over truth with both errors; not a number where the truth is 0."""
    value, error = np.full((2, len(truth.value)), np.nan)
    used = truth.value > 0
    a, b = (Points(x.value[used], x.error[used]) for x in (truth, generated))
    value[used] = b.value / a.value
    error[used] = np.hypot(b.error / a.value, value[used] * a.error / a.value)
    return Points(value, error)


def ratio(axes: Axes, where: np.ndarray, pair: Sequence[Points], span: float = 0.5) -> None:
    """Generated over truth with both errors, from 1 - span to 1 + span.

    Places where the truth is 0, or known to worse than `FEWEST`, have no ratio.
    """
    known = pair[0].error < FEWEST * pair[0].value
    value, error = (x[known] for x in ratio_of(*pair))
    x, low, high = where[known], 1 - span, 1 + span
    inside = (value >= low) & (value <= high)
    axes.axhline(1.0, color=TRUTH, linewidth=0.8)
    axes.errorbar(
        x[inside], value[inside], error[inside], fmt="o", markersize=2.5, elinewidth=0.8,
        color=GENERATED,
    )  # fmt: skip
    for outside, marker, edge in ((value > high, "^", high), (value < low, "v", low)):
        place = np.full(int(outside.sum()), edge)
        axes.plot(x[outside], place, marker, color=GENERATED, markersize=4, clip_on=False, zorder=5)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([1 - 0.8 * span, 1.0, 1 + 0.8 * span]))
    axes.tick_params(axis="y", labelsize=8)


def span_of(pair: Sequence[Points]) -> float:
    """The narrowest of `SPANS` that holds all ratios with their errors."""
    found = ratio_of(*pair)
    far = float(np.nanmax(np.abs(found.value - 1) + found.error, initial=0.0))
    return next((span for span in SPANS if span >= far), SPANS[-1])


def finish(
    figure: Figure, cells: list[Cell], columns: int, x_label: str, title: str, ratio: str = "ratio"
) -> None:
    """Labels that all cells share, and one legend over them."""
    columns = min(columns, len(cells))
    for k, (_, below) in enumerate(cells):
        if k % columns == 0:
            below.set_ylabel(ratio)
        if k + columns >= len(cells):
            below.set_xlabel(x_label)
    named = [axes.get_legend_handles_labels() for axes in cells[0]]
    handles, labels = ([*a, *b] for a, b in zip(*named, strict=True))
    width, height = figure.get_size_inches()
    top = 1 - 0.08 / height
    figure.legend(
        handles, labels, loc="upper right", ncols=len(labels), borderaxespad=0,
        bbox_to_anchor=(1 - MARGIN[1] / width, top),
    )  # fmt: skip
    figure.text(MARGIN[0] / width, top, title, fontsize=11, va="top")
