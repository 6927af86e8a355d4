"""Figures in one style. Functions take NumPy arrays and return a Figure; nothing global changes."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physml.io.manifest import write_bytes

P = ParamSpec("P")

STYLE: Any = {  # settings of matplotlib
    "font.size": 10,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handletextpad": 0.3,
    "lines.linewidth": 1.5,
    "savefig.dpi": 200,
}
# Okabe and Ito's palette, distinct under the common kinds of colour blindness; markers repeat the
# distinction for print in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#B8A900")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "#8A8A8A"


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw within `STYLE`; matplotlib's own settings return afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


@styled
def parity(
    actual: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    quantity: str,
    unit: str,
    *,
    classes: Shaped[np.ndarray, " n"] | None = None,
    bars: Float[np.ndarray, " n"] | None = None,
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
        train: (actual, predicted) of the training points, drawn in grey beneath.
        baseline: predictions of a trivial model; its errors are printed with the others.
        title: over the panel.
    """
    figure, axes = _panel(4.6, 4.6)
    shown = [actual, predicted, *(train or ())]
    low, high = min(a.min() for a in shown), max(a.max() for a in shown)
    margin = 0.04 * ((high - low) or 1.0)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="black", linewidth=0.8, zorder=1)
    lines = []
    if train is not None:
        axes.plot(*train, "o", color=GREY, markersize=2.5, alpha=0.5, label="train", zorder=2)
        lines.append(f"train {_errors(*train, unit)}")
    if bars is not None:
        axes.errorbar(
            actual, predicted, bars, fmt="none", ecolor=GREY, elinewidth=0.5, alpha=0.35, zorder=2
        )
    _points(axes, actual, predicted, classes)
    lines.append(f"test {_errors(actual, predicted, unit)}")
    if baseline is not None:
        lines.append(f"class mean {_errors(actual, baseline, unit)}")
    axes.text(0.04, 0.96, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=8.5)
    axes.set(xlim=limits, ylim=limits, aspect="equal", title=title)
    axes.set(xlabel=f"{quantity}, computed ({unit})", ylabel=f"{quantity}, predicted ({unit})")
    axes.legend(loc="lower right", ncols=2, columnspacing=0.8)
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
    """Predicted minus computed against computed values."""
    figure, axes = _panel(5.4, 3.6)
    axes.axhline(0.0, color="black", linewidth=0.8, zorder=1)
    _points(axes, actual, predicted - actual, classes)
    axes.set(xlabel=f"{quantity}, computed ({unit})", ylabel=f"predicted - computed ({unit})")
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
    """Points of two quantities, coloured by class; `labelled` ones are starred and numbered."""
    figure, axes = _panel(6.4, 4.4)
    _points(axes, x, y, classes)
    for number, (name, point) in enumerate((labelled or {}).items(), start=1):
        axes.plot(*point, "*", color="black", markersize=8, markeredgecolor="white", zorder=4)
        axes.annotate(str(number), point, (4, 3), textcoords="offset points", fontsize=8)
        axes.plot([], [], " ", label=f"{number} {name}")
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
    """
    figure, axes = _panel(5.2, 4.0)
    for k, (name, (sizes, errors)) in enumerate(curves.items()):
        table = errors.reshape(len(errors), -1)
        mean = table.mean(axis=1)
        spread = table.std(axis=1, ddof=1) if table.shape[1] > 1 else np.zeros(len(mean))
        where = sizes.reshape(len(sizes), -1).mean(axis=1)
        axes.errorbar(
            where,
            mean,
            spread,
            color=COLOURS[k % 8],
            marker=MARKERS[k % 8],
            markersize=5,
            capsize=2.5,
            elinewidth=0.8,
            label=name,
        )
    for k, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, color=GREY, linestyle=("--", ":", "-.")[k % 3], label=name)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label, title=title)
    _plain_ticks(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
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
    """
    figure, axes = _panel(max(4.8, 0.75 * len(groups) + 1.5), 3.8)
    place, width = np.arange(len(groups)), 0.8 / max(len(series), 1)
    for k, (name, values) in enumerate(series.items()):
        offset = (k - (len(series) - 1) / 2) * width
        axes.bar(place + offset, values, 0.92 * width, color=COLOURS[k % 8], label=name)
    for k, (name, values) in enumerate((markers or {}).items()):
        style = ("-", ":", "--")[k % 3]
        axes.hlines(values, place - 0.45, place + 0.45, color="black", linestyle=style, label=name)
    for k, (name, value) in enumerate((lines or {}).items()):
        axes.axhline(value, color=GREY, linestyle=("--", ":", "-.")[k % 3], label=name)
    axes.set_xticks(place, list(groups))
    axes.tick_params(axis="x", length=0)
    axes.set(ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, classes: np.ndarray | None) -> None:
    """Points in one colour and marker per class, so small and faint as their number asks."""
    labels = np.full(len(x), "test") if classes is None else _text(classes)
    size = 5.0 if len(x) < 200 else 3.2
    for k, name in enumerate(np.unique(labels)):
        of_class = labels == name
        axes.plot(
            x[of_class],
            y[of_class],
            MARKERS[k % 8],
            color=COLOURS[k % 8],
            markersize=size,
            markeredgewidth=0.3,
            markeredgecolor="white",
            alpha=0.85,
            label=str(name),
            zorder=3,
        )


def _errors(actual: np.ndarray, predicted: np.ndarray, unit: str) -> str:
    error = predicted - actual
    rmse, mae = np.sqrt(np.mean(error**2)), np.abs(error).mean()
    return f"RMSE {rmse:.2f}, MAE {mae:.2f} {unit}"


def _plain_ticks(axes: Axes) -> None:
    """Numbers such as 0.6 and 200 on logarithmic axes, not powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())


def _text(labels: np.ndarray) -> np.ndarray:
    return np.char.decode(labels) if labels.dtype.kind == "S" else labels.astype(str)
