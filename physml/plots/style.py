"""The one style of all figures, and what every kind of figure needs."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from physml.errors import DataError
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
HALO: Any = [withStroke(linewidth=2.0, foreground="white")]  # keeps text legible over points


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


def panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one panel; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def checked(where: str, *arrays: Any) -> list[np.ndarray]:
    """The arrays as float64 (n,), n the same and at least 1, all finite."""
    plain = [np.asarray(a, dtype=np.float64) for a in arrays]
    if any(a.ndim != 1 for a in plain) or len({len(a) for a in plain}) > 1:
        shapes = " and ".join(str(a.shape) for a in plain)
        raise DataError(where, f"cannot be drawn: shapes {shapes}", "give one value per point")
    if len(plain[0]) == 0:
        raise DataError(where, "cannot be drawn: it holds no values", "give at least one point")
    bad = sum(int((~np.isfinite(a)).sum()) for a in plain)
    if bad:
        what = f"cannot be drawn: {bad} values are not finite"
        raise DataError(where, what, "find out what made them")
    return plain


def look(k: int) -> dict[str, Any]:
    """Colour and marker of the k-th class: 64 pairs, the first eight differ in both."""
    return {"color": COLOURS[k % 8], "marker": MARKERS[(k + k // 8) % 8]}


def text(labels: np.ndarray) -> np.ndarray:
    """Labels as text; bytes are decoded."""
    return np.char.decode(labels) if labels.dtype.kind == "S" else labels.astype(str)
