"""Figures in one style. Functions take NumPy arrays and return a Figure; nothing global changes.

Values that are empty, of unequal length or not finite are refused (DataError) before drawing.
"""

from physml.plots.classification import (
    confusion_matrix,
    efficiency,
    histograms,
    reliability_diagram,
    roc_curves,
    training,
)
from physml.plots.efficiencies import shares
from physml.plots.regression import (
    annotate_numbers,
    bars,
    learning_curve,
    parity,
    residuals,
    scatter,
)
from physml.plots.style import COLOURS, GREY, STYLE, panel, save, styled

__all__ = [
    "COLOURS",
    "GREY",
    "STYLE",
    "annotate_numbers",
    "bars",
    "confusion_matrix",
    "efficiency",
    "histograms",
    "learning_curve",
    "panel",
    "parity",
    "reliability_diagram",
    "residuals",
    "roc_curves",
    "save",
    "scatter",
    "shares",
    "styled",
    "training",
]
