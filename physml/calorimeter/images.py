"""Images of mean showers, layer by layer, and of correlations between layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from physml.calorimeter.geometry import Layer
from physml.errors import DataError
from physml.plots import styled

RATIOS = (0.5, 2.0)  # of colours
MOST_ERROR = 0.2  # of a difference over the mean of both, beyond which a ratio says nothing
DECADES = 5  # below the largest deposit in images


@styled
def mean_showers(
    layers: Sequence[Layer], rows: Mapping[str, Sequence[np.ndarray]], label: str, *,
    title: str = "", ratio: Sequence[np.ndarray] | None = None,
) -> Figure:  # fmt: skip
    """Images of mean deposits: one layer a column, one sample a row.

    Rings are drawn equally wide, cells to scale. Voxels without energy, or more than `DECADES`
    decades below the largest, are white.

    Args:
        layers: that are shown.
        rows: name -> values of each layer's voxels.
        label: what they are, with unit.
        title: over all.
        ratio: of each layer's voxels, drawn as a last row; not finite where it says nothing.

    Raises:
        DataError: no energy at all.
    """
    peak = max(float(x.max()) for images in rows.values() for x in images)
    if not peak > 0:
        raise DataError("mean showers", "hold no energy", "look at the showers")
    drawn = {**rows, **({"generated / truth": ratio} if ratio is not None else {})}
    size = 1.75 * len(layers) + 1.5, 1.95 * len(drawn) + 0.5
    figure = Figure(figsize=size, layout="constrained")
    grid: list[list[Axes]] = []
    for r, (name, images) in enumerate(drawn.items()):
        last = ratio is not None and r == len(rows)
        norm: Normalize = LogNorm(*RATIOS) if last else LogNorm(peak / 10**DECADES, peak)
        row = []
        for k, (layer, values) in enumerate(zip(layers, images, strict=True)):
            place = r * len(layers) + k + 1
            axes = figure.add_subplot(
                len(drawn), len(layers), place, projection="polar" if layer.polar else None
            )
            image = _image(axes, layer, np.asarray(values, float), norm, last)
            if r == 0:
                axes.set_title(f"layer {layer.id}", fontsize=10)
            if k == 0:
                shift = -0.32 if layer.polar else -0.62
                axes.text(
                    shift, 0.5, name, rotation=90, ha="center", va="center",
                    transform=axes.transAxes, fontsize=10,
                )  # fmt: skip
            row.append(axes)
        grid.append(row)
        if last:
            bar = figure.colorbar(image, ax=row, extend="both", label="ratio", aspect=12)
            bar.set_ticks([0.5, 0.7, 1.0, 1.4, 2.0], labels=["0.5", "0.7", "1", "1.4", "2"])
            bar.ax.yaxis.set_minor_locator(NullLocator())
        elif r == len(rows) - 1:
            figure.colorbar(
                image, ax=[a for part in grid for a in part], label=label, aspect=12 * len(rows)
            )
    figure.suptitle(title, fontsize=11)
    return figure


@styled
def correlation_matrices(
    rows: Mapping[str, Sequence[np.ndarray]], ids: Sequence[int], *, title: str = ""
) -> Figure:
    """Correlations of the layers: truth, generated, and their difference.

    Args:
        rows: what is correlated -> matrices (l, l) of truth and generated.
        ids: of the layers.
        title: over all.
    """
    figure = Figure(figsize=(9.6, 2.9 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False)
    few = len(ids) <= 8
    shown = range(0, len(ids), 1 if few else 10)
    for (what, (a, b)), row in zip(rows.items(), grid, strict=True):
        change = b - a
        span = max(float(np.abs(change).max()), 0.01)
        panels = ((a, 1.0, "truth"), (b, 1.0, "generated"), (change, span, "generated − truth"))
        for axes, (matrix, limit, name) in zip(row, panels, strict=True):
            image = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_xticks(shown, [str(ids[k]) for k in shown])
            axes.set_yticks(shown, [str(ids[k]) for k in shown])
            axes.tick_params(length=0)
            axes.set(xlabel="layer", ylabel="layer")
            axes.set_title(f"{what}\n{name}", fontsize=9)
            figure.colorbar(image, ax=axes, shrink=0.85)
            for (i, j), value in np.ndenumerate(matrix if few else np.zeros((0, 0))):
                colour = "white" if abs(value) > 0.6 * limit else "black"
                axes.text(
                    j,
                    i,
                    f"{round(value, 2) + 0.0:.2f}",
                    ha="center",
                    va="center",
                    size=7,
                    color=colour,
                )
    figure.suptitle(title, fontsize=11)
    return figure


def _image(axes: Axes, layer: Layer, values: np.ndarray, norm: Normalize, ratio: bool) -> QuadMesh:
    """A layer's voxels: rings of equal width, or cells to scale."""
    colours = colormaps["RdBu_r" if ratio else "viridis_r"].with_extremes(
        under=None if ratio else "white", bad="#DDDDDD" if ratio else "white"
    )
    shape = layer.n_alpha, layer.n_r
    shown = np.ma.masked_invalid(values.reshape(shape))
    style: Any = {"cmap": colours, "norm": norm, "rasterized": True}
    if not layer.polar:
        image = axes.pcolormesh(layer.slow, layer.fast, shown.T, **style)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=7)
        axes.set_xlabel("x (mm)", fontsize=8, labelpad=1)
        axes.set_ylabel("y (mm)", fontsize=8, labelpad=1)
        return image
    # One sector alone is drawn as many: a single quadrilateral would be no ring.
    fine = max(1, 60 // layer.n_alpha)
    alpha = np.linspace(layer.slow[0], layer.slow[-1], fine * layer.n_alpha + 1)
    image = axes.pcolormesh(
        alpha, np.arange(layer.n_r + 1), np.repeat(shown, fine, axis=0).T, **style
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"r < {layer.fast[-1]:g} mm", fontsize=8, labelpad=3)
    axes.grid(False)
    return image
