"""Figures of the calorimeter domain: generated showers beside true ones, with their ratios.

Truth is grey and black, generated showers are coloured. Bars are statistical, one deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from physml.calorimeter import panels as parts
from physml.calorimeter.panels import GENERATED, NAMES, TRUTH, Histogram, Points
from physml.errors import DataError
from physml.plots import COLOURS, GREY, styled
from physml.plots.style import checked


@styled
def histogram_panels(
    panels: Mapping[str, Histogram], x_label: str, *,
    log_x: bool = False, log_y: bool = False, columns: int = 3, title: str = "",
) -> Figure:  # fmt: skip
    """Shares of showers per bin, one panel for each histogram, with the ratios below.

    A panel says which shares of both samples lie outside its bins.

    Args:
        panels: title -> histogram.
        x_label: with unit.
        log_x: logarithmic values.
        log_y: logarithmic shares.
        columns: of panels.
        title: over all.

    Raises:
        DataError: no panels, or one without showers.
    """
    if not panels:
        raise DataError(x_label, "has no panels", "give at least one histogram")
    figure, cells = parts.grid(len(panels), columns, 2.75 if len(panels) > 1 else 5.2, 2.7)
    for k, ((above, below), (name, found)) in enumerate(zip(cells, panels.items(), strict=True)):
        if not found.total[0] > 0:
            raise DataError(name, "cannot be drawn: the truth holds nothing", "give showers")
        shares = [  # a generator may hit nothing at all
            Points(x / max(n, 1), np.sqrt(x) / max(n, 1))
            for x, n in zip(found[1:3], found.total, strict=True)
        ]
        low, high = found.edges[:-1], found.edges[1:]
        middle = np.sqrt(low * high) if log_x else (low + high) / 2
        for sample in (0, 1):
            parts.steps(above, found.edges, middle, shares[sample], sample)
        parts.ratio(below, middle, shares)
        lost = [max(1 - x.value.sum(), 0.0) for x in shares]
        note = f"\noutside: truth {lost[0]:.1%}, gen. {lost[1]:.1%}" if max(lost) >= 5e-4 else ""
        above.set_title(f"{name}{note}", fontsize=9)
        above.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        above.set_xlim(found.edges[0], found.edges[-1])
        if not log_x:
            above.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        if not log_y:
            above.set_ylim(bottom=0)
        if k % columns == 0:
            above.set_ylabel("share of showers")
    parts.finish(figure, cells, columns, x_label, title)
    return figure


@styled
def spectrum(
    edges: Float[np.ndarray, "k+1"], pair: Sequence[Points],
    x_label: str, y_label: str, *, title: str = "",
) -> Figure:  # fmt: skip
    """One spectrum over logarithmic bins, with its ratio.

    Args:
        edges: of the bins, positive.
        pair: values of truth and of the generated in them.
        x_label: with unit.
        y_label: what is counted, for what.
        title: over the panel.

    Raises:
        DataError: see `physml.plots`.
    """
    for name, found in zip(NAMES, pair, strict=True):
        checked(name, edges[1:], *found)
    figure, cells = parts.grid(1, 1, 5.4, 3.9, titles=False)
    above, below = cells[0]
    middle = np.sqrt(edges[1:] * edges[:-1])
    for sample, found in enumerate(pair):
        parts.steps(above, edges, middle, found, sample)
    parts.ratio(below, middle, pair)
    above.set(xscale="log", yscale="log", ylabel=y_label, xlim=(edges[0], edges[-1]))
    # Bars that reach 0 leave the axis at its lower end: the smallest value, not they, sets it.
    lowest = min(float(x.value[x.value > 0].min(initial=np.inf)) for x in pair)
    if np.isfinite(lowest):
        above.set_ylim(bottom=lowest / 3)
    parts.finish(figure, cells, 1, x_label, title)
    return figure


@styled
def against(
    x: Float[np.ndarray, "k"], panels: Mapping[str, tuple[Points, Points]], x_label: str, *,
    log_x: bool = True, log_y: Sequence[str] = (), ticks: Sequence[str] = (), title: str = "",
) -> Figure:  # fmt: skip
    """Quantities of both samples against one variable, with their ratios.

    Args:
        x: places.
        panels: quantity with unit -> points of truth and of the generated.
        x_label: with unit.
        log_x: logarithmic variable.
        log_y: quantities that are drawn on logarithmic axes.
        ticks: names of the places, where they are no numbers.
        title: over all.

    Raises:
        DataError: see `physml.plots`.
    """
    figure, cells = parts.grid(len(panels), len(panels), 4.2, 3.6, titles=False)
    for (above, below), (name, pair) in zip(cells, panels.items(), strict=True):
        for j, (points, colour) in enumerate(zip(pair, (TRUTH, GENERATED), strict=True)):
            checked(name, x, *points)
            marker: Any = {"fmt": "os"[j], "markersize": 4, "color": colour, "elinewidth": 1.0}
            above.errorbar(x, points.value, points.error, label=NAMES[j], **marker)
        parts.ratio(below, x, pair, parts.span_of(pair))
        above.set(ylabel=name)
        if log_x:
            above.set_xscale("log")
        if name in log_y:
            above.set_yscale("log")
        if ticks:
            below.set_xticks(x, ticks)
    parts.finish(figure, cells, len(cells), x_label, title)
    return figure


@styled
def speeds(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str = "") -> Figure:
    """Time of a shower against the batch that it is made in; one point alone is a line.

    Args:
        curves: name -> batch sizes, and ms per shower.
        title: over the panel.

    Raises:
        DataError: times that are not positive; see `physml.plots`.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for k, (name, pair) in enumerate(curves.items()):
        batch, time = checked(name, *pair)
        if not (time > 0).all():
            raise DataError(name, "has times that are not positive", "measure again")
        if len(batch) == 1:
            label = f"{name}: {time[0]:.3g} ms"
            axes.axhline(time[0], color=COLOURS[k % 8], linestyle="--", label=label)
            continue
        axes.plot(batch, time, f"{'os^DvPX<'[k % 8]}-", color=COLOURS[k % 8], label=name)
        for x, y in zip(batch, time, strict=True) if k == 0 else ():
            axes.annotate(
                f"{y:.2g}", (x, y), (0, -13), textcoords="offset points", ha="center", fontsize=8
            )
    axes.margins(0.08, 0.15)
    axes.set(xscale="log", yscale="log", title=title)
    axes.set(xlabel="showers in a batch", ylabel="time per shower (ms)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def score_dots(
    scores: Mapping[str, Mapping[str, tuple[float, float]]], *,
    log: Sequence[str] = (), best: Mapping[str, float] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """One small panel for each number of a scorecard, one line in it for each generator.

    Args:
        scores: number -> generator -> value and error; the first generator is ours.
        log: numbers on logarithmic axes; values of them that are not positive are only written.
        best: number -> value of a perfect generator, drawn as a line.
        title: over all.
    """
    columns = min(4, len(scores))
    rows = -(-len(scores) // columns)
    names = list(dict.fromkeys(name for of in scores.values() for name in of))
    figure = Figure(figsize=(2.5 * columns + 1.5, (0.27 * len(names) + 0.85) * rows + 0.6))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    place = {name: len(names) - 1 - k for k, name in enumerate(names)}
    for axes, (number, of) in zip(grid, scores.items(), strict=False):
        if number in log:
            axes.set_xscale("log")
        if best and number in best:
            axes.axvline(best[number], color=GREY, linewidth=0.8, linestyle=":")
        for name, (value, error) in of.items():
            colour = GENERATED if name == names[0] else TRUTH
            if value > 0 or number not in log:
                axes.errorbar(value, place[name], xerr=error or None, fmt="o", color=colour)
            text = f"{_short(value, 3)} ± {_short(error, 1)}" if error else _short(value, 3)
            axes.annotate(
                text, (1.02, place[name]), xycoords=("axes fraction", "data"),
                va="center", fontsize=8, color=colour,
            )  # fmt: skip
        axes.margins(x=0.15)
        axes.set_title(number, fontsize=9)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_yticks(list(place.values()), names)
        axes.tick_params(labelsize=8)
    for axes in grid[len(scores) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure


def _short(value: float, digits: int) -> str:
    """So many digits that count, without a power of ten: 495, 40, 0.03."""
    return f"{float(f'{value:.{digits}g}'):g}"


@styled
def maker_figure(targets: Sequence[Any], labels: Mapping[str, str], *, title: str = "") -> Figure:
    """Numbers of the maker and of Geant4 in ranges of energy, a row for each sample of Geant4.

    The band in the ratios is what the maker may differ by.

    Args:
        targets: of all samples, each with the same names; with the fields of
            `data_scripts.shower_tuning.Target`.
        labels: name of a target -> what it is, with unit; of a sample -> what it is made of.
        title: over all.

    Raises:
        DataError: no targets.
    """
    rows = {
        (x.sample, x.name): [y for y in targets if (y.sample, y.name) == (x.sample, x.name)]
        for x in targets
    }
    names = list(dict.fromkeys(x.name for x in targets))
    if not rows:
        raise DataError("maker", "has no targets to draw", "give those of a comparison")
    figure, cells = parts.grid(len(rows), len(names), 2.75, 2.7)
    for (above, below), ((sample, name), found) in zip(cells, rows.items(), strict=True):
        low, high = (np.array([getattr(x, k) for x in found]) for k in ("low", "high"))
        pair = [
            Points(*(np.array([getattr(x, k) for x in found]) for k in (kind, f"{kind}_error")))
            for kind in ("geant4", "maker")
        ]
        middle = np.sqrt(low * high)
        wide = np.stack([middle - low, high - middle])
        for j, (points, kind) in enumerate(zip(pair, ("Geant4", "maker"), strict=True)):
            above.errorbar(
                middle * 1.15**j, points.value, points.error, wide if j == 0 else None, fmt="os"[j],
                color=(TRUTH, GENERATED)[j], markersize=4, elinewidth=1.0, label=kind,
            )  # fmt: skip
        share = float(max(x.allowed for x in found))
        below.axhspan(1 - share, 1 + share, color=GREY, alpha=0.35, linewidth=0, label="allowed")
        span = next((s for s in parts.SPANS if s > 1.3 * share), parts.SPANS[-1])
        parts.ratio(below, middle, pair, span)
        above.set(xscale="log", ylabel=labels[name])
        above.set_ylim(0, 1.25 * max(x.value.max() for x in pair))
        above.set_title(labels[sample], fontsize=9)
        below.xaxis.set_major_locator(FixedLocator([1.0, 5.0, 20.0, 100.0]))
        below.xaxis.set_major_formatter("{x:g}")
        below.xaxis.set_minor_locator(NullLocator())
    parts.finish(
        figure, cells, len(names), "energy of the electron (GeV)", title, "maker /\nGeant4"
    )
    return figure
