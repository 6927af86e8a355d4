"""ROC, efficiencies with intervals, score spectra, reliability, confusion, and the fit itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from physml.errors import DataError
from physml.metrics import Reliability, Roc, calibration_error
from physml.plots.style import COLOURS, GREY, checked, look, panel, styled


@styled
def roc_curves(
    curves: Mapping[str, Mapping[str, Roc]],
    *,
    x_label: str = "efficiency",
    y_label: str = "share of the others that pass",
    lowest: float = 1e-4,
    title: str = "",
) -> Figure:
    """Mistaken share, logarithmic, against efficiency.

    Args:
        curves: class -> model -> its ROC; a class has one colour, a model one stroke.
        x_label: of the efficiency.
        y_label: of the mistaken share.
        lowest: end of the logarithmic axis.
        title: over the panel.

    Raises:
        DataError: see `physml.plots`.
    """
    figure, axes = panel(6.8, 4.2)
    for k, (name, models) in enumerate(curves.items()):
        for m, (model, curve) in enumerate(models.items()):
            right, wrong = checked(f"{name}, {model}", curve.efficiency, curve.mistaken)
            area = np.trapezoid(right, wrong)
            stroke = ("-", "--", ":", "-.")[m % 4]
            label = f"{name}, {model}: AUC {_below_one(area)}"
            axes.step(right, wrong, stroke, color=COLOURS[k % 8], label=label, where="pre")
    chance = np.linspace(lowest, 1, 500)
    axes.plot(chance, chance, color=GREY, linewidth=0.8, label="chance: AUC 0.500")
    axes.set(xlim=(0, 1), ylim=(lowest, 1), yscale="log")
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _below_one(share: float) -> str:
    """A share with three digits, or as many as keep it from being rounded up to 1."""
    digits = 3
    while share < 1 and round(share, digits) == 1 and digits < 9:
        digits += 1
    return f"{share:.{digits}f}"


@styled
def efficiency(
    edges: Float[np.ndarray, " b+1"],
    series: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str,
    *,
    title: str = "",
) -> Figure:
    """Shares in bins, with their intervals.

    Args:
        edges: of the bins.
        series: name -> (share, low, high), each (b,), NaN where a bin holds nothing.
        x_label: with unit.
        y_label: what is shared.
        title: over the panel.

    Raises:
        DataError: shapes differ, or a share is outside 0 to 1.
    """
    (where,) = checked(x_label, edges)
    centre = (where[1:] + where[:-1]) / 2
    figure, axes = panel(6.4, 3.9)
    for k, (name, parts) in enumerate(series.items()):
        share, low, high = (np.asarray(part, float) for part in parts)
        used = np.isfinite(share)
        if not share.shape == low.shape == high.shape == centre.shape:
            raise DataError(name, f"has shape {share.shape} for {len(centre)} bins", "one per bin")
        if not ((low[used] >= -1e-9) & (low[used] <= high[used]) & (high[used] <= 1 + 1e-9)).all():
            raise DataError(name, "has intervals outside 0 to 1", "check the counts")
        spread = np.maximum([share - low, high - share], 0.0)[:, used]
        shift = (k - (len(series) - 1) / 2) * 0.12 * np.diff(where)
        axes.errorbar(
            (centre + shift)[used], share[used], spread,
            [(centre + shift - where[:-1])[used], (where[1:] - centre - shift)[used]],
            linestyle="none", markersize=4.5, elinewidth=1.0, label=name, **look(k),
        )  # fmt: skip
    axes.set(xlim=(where[0], where[-1]), ylim=(0, 1.05))
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def histograms(
    edges: Float[np.ndarray, " b+1"],
    counts: Mapping[str, Float[np.ndarray, " b"]],
    x_label: str,
    y_label: str,
    *,
    stacked: bool = False,
    log: bool = False,
    title: str = "",
) -> Figure:
    """Step histograms of several classes over the same bins.

    Args:
        edges: of the bins.
        counts: class -> (b,) weighted counts.
        x_label: with unit.
        y_label: what is counted, with exposure.
        stacked: fill, one on top of the other, the first class lowest.
        log: logarithmic counts.
        title: over the panel.

    Raises:
        DataError: see `physml.plots`.
    """
    figure, axes = panel(6.4, 3.9)
    (where,) = checked(x_label, edges)
    base = np.zeros(len(where) - 1)
    for k, (name, values) in enumerate(counts.items()):
        (height,) = checked(name, values)
        if len(height) != len(base):
            raise DataError(name, f"has {len(height)} counts for {len(base)} bins", "one per bin")
        colour = COLOURS[k % 8]
        if stacked:
            axes.stairs(base + height, where, baseline=base, fill=True, color=colour, label=name)
            base = base + height
        else:
            axes.stairs(height, where, color=colour, label=name, linewidth=1.5)
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlim=(where[0], where[-1]), xlabel=x_label, ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def reliability_diagram(curves: Mapping[str, Reliability], *, title: str = "") -> Figure:
    """Share that came true against stated probability, with the calibration error of each model.

    Args:
        curves: model -> its reliability.
        title: over the panel.

    Raises:
        DataError: see `physml.plots`.
    """
    figure, axes = panel(5.6, 3.9)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="calibrated")
    for k, (name, curve) in enumerate(curves.items()):
        stated, share, low, high = checked(name, *curve[:4])
        label = f"{name}: error {calibration_error(curve):.3f}"
        spread = [share - low, high - share]
        axes.errorbar(stated, share, spread, markersize=4.5, elinewidth=1.0, label=label, **look(k))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
    axes.set(xlabel="stated probability", ylabel="share that came true")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def confusion_matrix(counts: Int[np.ndarray, "k k"], names: Sequence[str]) -> Figure:
    """Shares by true class (efficiency) and by predicted class (purity), beside each other.

    Args:
        counts: true class by predicted class, see `physml.metrics.confusion`.
        names: of the classes.

    Raises:
        DataError: the table is not square with one name per row.
    """
    table = np.asarray(counts, float)
    k = len(names)
    if table.shape != (k, k):
        raise DataError(
            "confusion", f"has shape {table.shape} for {k} names", "give a square table"
        )
    figure, _ = panel(8.4, 3.9)
    figure.clear()
    both = figure.subplots(1, 2)
    for axes, axis, title in zip(
        both, (1, 0), ("rows sum to 1: efficiency", "columns sum to 1: purity"), strict=True
    ):
        total = table.sum(axis, keepdims=True)
        share = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, size=9)
        axes.set_xticks(range(k), list(names))
        axes.set_yticks(range(k), list(names))
        axes.tick_params(length=0)
        axes.set(xlabel="predicted class", ylabel="true class", title=title)
    return figure


@styled
def training(
    logged: Mapping[str, Float[np.ndarray, "n 2"]], y_label: str, *, title: str = ""
) -> Figure:
    """Metrics against the step, as the log of a fit holds them.

    Args:
        logged: name -> (n, 2) of step and value; long ones are averaged over steps.
        y_label: with unit.
        title: over the panel.

    Raises:
        DataError: see `physml.plots`.
    """
    figure, axes = panel(6.4, 3.6)
    for k, (name, values) in enumerate(logged.items()):
        step, value = checked(name, *np.asarray(values, float).T)
        group = max(len(step) // 100, 1)
        cut = len(step) // group * group
        if group > 1:
            name = f"{name}, mean of {group} steps"
        x, y = (a[:cut].reshape(-1, group).mean(1) for a in (step, value))
        axes.plot(
            x, y, label=name, **{**look(k), "marker": "" if len(x) > 30 else look(k)["marker"]}
        )
    axes.set(xlabel="step", ylabel=y_label, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
