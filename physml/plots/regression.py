"""Predicted against true values, residuals, learning curves, errors by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator, ScalarFormatter

from physml.errors import DataError
from physml.plots.style import COLOURS, GREY, HALO, checked, look, panel, styled, text

STROKES = ("--", ":", "-.")
NOTE: Any = {"title_fontsize": 8, "alignment": "left"}  # of a legend
FEWEST_FOR_BANDS = 200  # points: fewer make no useful quantiles in bins


@styled
def parity(
    actual: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    quantity: str,
    unit: str,
    *,
    classes: Shaped[np.ndarray, " n"] | None = None,
    bars: Float[np.ndarray, " n"] | None = None,
    bars_label: str = "predictive interval",
    train: tuple[np.ndarray, np.ndarray] | None = None,
    baseline: Float[np.ndarray, " n"] | None = None,
    title: str = "",
) -> Figure:
    """Predicted against computed values on equal axes, with the line of equality.

    Args:
        actual: computed values of the test points.
        predicted: predictions for them.
        quantity: what they are, for both axes.
        unit: of both.
        classes: label of each point; one colour and marker for each.
        bars: half-widths of the predictive interval of each point.
        bars_label: what they are, for the legend.
        train: (actual, predicted) of the training points, drawn in grey beneath.
        baseline: predictions of a trivial model; its errors are printed with the others.
        title: over the panel.

    Raises:
        DataError: see `physml.plots`.
    """
    actual, predicted = checked(quantity, actual, predicted)
    shown = [actual, predicted]
    figure, axes = panel(6.5, 4.8)
    if train is not None:
        shown += checked(f"{quantity} of training", *train)
    low, high = min(a.min() for a in shown), max(a.max() for a in shown)
    margin = 0.04 * ((high - low) or 1.0)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="black", linewidth=0.8, zorder=1)
    lines = []
    if train is not None:
        faint: Any = {"markersize": 2.5, "markeredgewidth": 0, "alpha": 0.35, "rasterized": True}
        axes.plot(*shown[2:], "o", color=GREY, label="train", zorder=2, **faint)
        lines.append(f"train {_errors(shown[2], shown[3], unit)}")
    if bars is not None:
        _error_bars(axes, actual, predicted, checked(quantity, actual, bars)[1], bars_label)
    _points(axes, actual, predicted, classes)
    lines.append(f"test {_errors(actual, predicted, unit)}")
    if baseline is not None:
        lines.append(f"class mean {_errors(actual, checked(quantity, actual, baseline)[1], unit)}")
    axes.set(xlim=limits, ylim=limits, aspect="equal", title=title)
    _corner_text(axes, "\n".join(lines), actual, predicted)
    axes.set(xlabel=f"{quantity}, computed ({unit})", ylabel=f"{quantity}, predicted ({unit})")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def residuals(
    actual: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    quantity: str,
    unit: str,
    *,
    classes: Shaped[np.ndarray, " n"] | None = None,
    title: str = "",
) -> Figure:
    """Predicted minus computed against computed values; with many points, the median in bins.

    The line is the median, the dashed lines enclose the central 68 % of a bin; bins hold equal
    numbers of points.

    Raises:
        DataError: see `physml.plots`.
    """
    actual, predicted = checked(quantity, actual, predicted)
    figure, axes = panel(6.2, 3.8)
    axes.axhline(0.0, color="black", linewidth=0.8, zorder=1)
    _points(axes, actual, predicted - actual, classes)
    if len(actual) >= FEWEST_FOR_BANDS:
        _median_band(axes, actual, predicted - actual)
    minus = "\N{MINUS SIGN}"
    axes.set(xlabel=f"{quantity}, computed ({unit})", ylabel=f"predicted {minus} computed ({unit})")
    axes.set(title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def scatter(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    x_label: str,
    y_label: str,
    *,
    classes: Shaped[np.ndarray, " n"] | None = None,
    labelled: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
) -> Figure:
    """Points of two quantities, coloured by class; `labelled` ones are starred and numbered.

    Raises:
        DataError: see `physml.plots`.
    """
    x, y = checked(y_label, x, y)
    figure, axes = panel(7.2, 4.4)
    _points(axes, x, y, classes)
    hollow: Any = {"markersize": 8, "markeredgewidth": 0.8, "markerfacecolor": "none"}
    for number, (name, point) in enumerate((labelled or {}).items(), start=1):
        axes.plot(*point, "k*", label=f"{number} {name}", zorder=5, **hollow)
        note = axes.annotate(str(number), point, (4, 4), textcoords="offset points", fontsize=8)
        note.set(path_effects=HALO, zorder=6)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def learning_curve(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str,
    *,
    baselines: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Error against the size of the training set, both logarithmic.

    Args:
        curves: name -> (sizes (s,) or (s, folds), errors (s, folds)); the line is the mean over
            folds and the bars their standard deviation.
        x_label: with unit.
        y_label: with unit.
        baselines: name -> an error to draw as a dashed line.
        title: over the panel.

    Raises:
        DataError: see `physml.plots`; or a size or error is not positive.
    """
    figure, axes = panel(6.6, 3.9)
    ticks, folds = set(), 1
    for k, (name, (sizes, errors)) in enumerate(curves.items()):
        table, where = _rows(name, errors), _rows(name, sizes).mean(axis=1)
        checked(name, where, table[:, 0])
        folds = max(folds, table.shape[1])
        ticks |= {round(size) for size in where}
        axes.errorbar(
            where,
            table.mean(axis=1),
            table.std(axis=1, ddof=1) if table.shape[1] > 1 else None,
            capsize=2.5,
            elinewidth=0.8,
            markersize=5,
            label=name,
            **look(k),
        )
    for k, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, color=GREY, linestyle=STROKES[k % 3], label=name)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label, title=title)
    _plain_ticks(axes, sorted(ticks))
    note = f"mean ± standard\ndeviation of {folds} folds" if folds > 1 else None
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title=note, **NOTE)
    return figure


@styled
def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    y_label: str,
    *,
    markers: Mapping[str, Sequence[float]] | None = None,
    lines: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Grouped bars, one colour per series.

    Args:
        groups: names under the axis.
        series: name -> one value per group.
        y_label: with unit.
        markers: name -> one value per group, drawn as a short line across it (a baseline).
        lines: name -> a value drawn over the whole width (a published value).
        title: over the panel.

    Raises:
        DataError: see `physml.plots`.
    """
    place, width = np.arange(float(len(groups))), 0.8 / max(len(series), 1)
    for name, values in {**series, **(markers or {})}.items():
        checked(name, place, values)
    figure, axes = panel(max(4.8, 0.75 * len(groups) + 2.6), 3.8)
    for k, (name, values) in enumerate(series.items()):
        offset = (k - (len(series) - 1) / 2) * width
        drawn = axes.bar(place + offset, values, 0.92 * width, color=COLOURS[k % 8], label=name)
        annotate_numbers(axes, drawn)
    for k, (name, values) in enumerate((markers or {}).items()):
        style = ("-", ":", "--")[k % 3]
        axes.hlines(values, place - 0.45, place + 0.45, color="black", linestyle=style, label=name)
        axes.update_datalim(np.column_stack([place, values]))
    for k, (name, value) in enumerate((lines or {}).items()):
        axes.axhline(value, color=GREY, linestyle=STROKES[k % 3], label=name)
    axes.set_xticks(place, list(groups))
    axes.tick_params(axis="x", length=0)
    axes.margins(y=0.12)  # room for the numbers
    axes.set(ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def annotate_numbers(axes: Axes, drawn: BarContainer, form: str = "%.2f") -> None:
    """Write the height of each bar above it, upright so that narrow bars have room."""
    for number in axes.bar_label(drawn, fmt=form, fontsize=7, rotation=90, padding=2):
        number.set_path_effects(HALO)
        number.set_zorder(5)


def _rows(where: str, values: Any) -> Float[np.ndarray, "sizes folds"]:
    """One row per size, for logarithmic axes."""
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or table.size == 0 or not (np.isfinite(table) & (table > 0)).all():
        what = "cannot be drawn: sizes and errors must be positive and finite, shape (s, folds)"
        raise DataError(where, what, "find out what made them")
    return table


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, classes: np.ndarray | None) -> None:
    """Points in one look per class, small where they are many; rare classes lie on top."""
    labels = np.full(len(x), "test") if classes is None else text(np.asarray(classes))
    if labels.shape != x.shape:
        raise DataError("classes", f"has shape {labels.shape}, not {x.shape}", "label each point")
    names, counts = np.unique(labels, return_counts=True)
    height = dict(zip(np.argsort(-counts, kind="stable"), range(len(names)), strict=True))
    size = 5.0 if len(x) < 200 else 3.2
    for k, name in enumerate(names):
        axes.plot(
            x[labels == name],
            y[labels == name],
            linestyle="none",
            markersize=size,
            markeredgewidth=0.3,
            markeredgecolor="white",
            alpha=0.85,
            label=str(name),
            zorder=3.0 + height[k] / len(names),
            rasterized=True,
            **look(k),
        )


def _error_bars(
    axes: Axes, x: np.ndarray, y: np.ndarray, half_widths: np.ndarray, label: str
) -> None:
    if (half_widths < 0).any():
        raise DataError(label, "is negative for some points", "give half-widths")
    style: Any = {"fmt": "none", "ecolor": GREY, "elinewidth": 0.5, "alpha": 0.35, "zorder": 2}
    axes.errorbar(x, y, half_widths, label=label, rasterized=True, **style)


def _median_band(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Median and central 68 % of y in bins of x that hold equal numbers of points."""
    bins = np.array_split(np.argsort(x, kind="stable"), min(12, len(x) // 50))
    centre = [np.median(x[b]) for b in bins]
    low, median, high = np.array([np.quantile(y[b], (0.16, 0.5, 0.84)) for b in bins]).T
    style: Any = {"color": "black", "zorder": 5, "path_effects": HALO}
    axes.plot(centre, median, linewidth=1.2, label="median", **style)
    axes.plot(centre, low, "--", linewidth=1.0, label="central 68 %", **style)
    axes.plot(centre, high, "--", linewidth=1.0, **style)


def _corner_text(axes: Axes, text: str, x: np.ndarray, y: np.ndarray) -> None:
    """Text beside the diagonal, in the corner with fewer points, and beneath those."""
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = (x - low) / (high - low), (y - bottom) / (top - bottom)
    upper = ((x < 0.6) & (y > 0.83)).sum() <= ((x > 0.4) & (y < 0.17)).sum()
    place: Any = {"ha": "left", "va": "top"} if upper else {"ha": "right", "va": "bottom"}
    at = (0.03, 0.97) if upper else (0.97, 0.03)
    axes.text(*at, text, fontsize=8.5, zorder=1.5, transform=axes.transAxes, **place)


def _errors(actual: np.ndarray, predicted: np.ndarray, unit: str) -> str:
    error = predicted - actual
    rmse, mae = np.sqrt(np.mean(error**2)), np.abs(error).mean()
    return f"RMSE {rmse:.2f}, MAE {mae:.2f} {unit}"


def _plain_ticks(axes: Axes, sizes: Sequence[int]) -> None:
    """Numbers such as 0.6 on logarithmic axes, not powers of ten; the sizes, where they fit."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    apart = np.diff(np.log(sizes)) > 0.08 * np.log(max(sizes) / min(sizes)) if sizes else []
    if len(sizes) > 1 and np.all(apart):
        axes.xaxis.set_major_locator(FixedLocator([float(size) for size in sizes]))
        axes.xaxis.set_minor_locator(NullLocator())
