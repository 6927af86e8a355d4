"""Several runs side by side: trials of a sweep, and learning curves over seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physml.errors import DataError
from physml.plots.style import checked, look, panel, styled

FEW = 6  # whole numbers that each get a tick


@styled
def trials(
    options: Mapping[str, np.ndarray],
    values: Float[np.ndarray, " n"],
    pruned: Bool[np.ndarray, " n"],
    metric: str,
    log: Collection[str] = (),
    maximize: bool = False,
) -> Figure:
    """What trials came to, against each option that varied; the values of others vary along.

    Args:
        options: name -> (n,) values, numbers or words as text.
        values: the metric of each trial.
        pruned: those that were ended early, drawn as crosses.
        metric: its name.
        log: options whose axis is logarithmic.
        maximize: whether the largest value is the best one, which is marked.

    Raises:
        DataError: see `physml.plots`.
    """
    (values,) = checked(metric, values)
    best = int(values.argmax() if maximize else values.argmin())
    count = len(options)
    figure = Figure(figsize=(3.2 * min(count, 3), 2.8 * -(-count // 3)), layout="constrained")
    for k, (name, found) in enumerate(options.items()):
        axes = figure.add_subplot(-(-count // 3), min(count, 3), k + 1)
        axes.margins(0.08)
        places = _places(axes, found)
        for rows, marker, label in ((~pruned, "o", "done"), (pruned, "x", "ended early")):
            if rows.any():
                axes.plot(places[rows], values[rows], marker, ms=5, label=label)
        axes.plot(places[best], values[best], "o", ms=11, mfc="none", mec="black", label="best")
        if name in log:
            axes.set_xscale("log")
        axes.set(xlabel=name, ylabel=worded(metric) if k % 3 == 0 else "")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def _places(axes: Axes, found: np.ndarray) -> np.ndarray:
    """Values as numbers; words become ticks."""
    try:
        numbers = np.asarray(found, float)
    except ValueError:
        words = sorted(set(found.tolist()))
        axes.set_xticks(range(len(words)), words)
        axes.margins(x=0.2)
        return np.array([words.index(word) for word in found])
    if (numbers == np.round(numbers)).all() and len(set(numbers)) <= FEW:
        axes.set_xticks(sorted(set(numbers)))
    return numbers


@styled
def spread(curves: Mapping[str, Sequence[Float[np.ndarray, "n 2"]]], metric: str) -> Figure:
    """Mean and standard deviation over seeds of a logged metric, for groups of runs.

    Args:
        curves: label -> for each seed (n, 2) of step and value. Mean and band stand at the steps
            that all of a group have; a group of one has no band, and thin lines show every run.
        metric: its name.

    Raises:
        DataError: see `physml.plots`; or there is no curve.
    """
    if not any(curves.values()):
        raise DataError(metric, "cannot be drawn: no run has logged it", "wait, or name others")
    figure, axes = panel(6.4, 3.6)
    for k, (label, group) in enumerate(curves.items()):
        colour = look(k)["color"]
        for curve in group:
            step, value = checked(label, *np.asarray(curve, float).T)
            axes.plot(step, value, color=colour, lw=0.5, alpha=0.5)
        shared = sorted(set.intersection(*(set(curve[:, 0]) for curve in group)))
        if not shared:
            continue
        at = np.array([[dict(curve)[s] for s in shared] for curve in map(np.asarray, group)])
        seeds = f", {len(group)} seeds" if len(group) > 1 else ""
        axes.plot(shared, at.mean(0), color=colour, label=f"{label}{seeds}")
        if len(group) > 1:
            low, high = at.mean(0) - at.std(0, ddof=1), at.mean(0) + at.std(0, ddof=1)
            axes.fill_between(shared, low, high, color=colour, alpha=0.2, lw=0)
    axes.set(xlabel="step", ylabel=worded(metric))
    columns = 1 if len(curves) < 4 else 2
    figure.legend(loc="outside lower center", ncols=columns)
    figure.set_size_inches(6.4, 3.4 + 0.2 * -(-len(curves) // columns))
    return figure


def worded(metric: str) -> str:
    """A logged metric in words: "validation_loss" is the loss on validation data."""
    name = metric.removeprefix("validation_")
    return name.replace("_", " ") + (" (validation)" if name != metric else "")
