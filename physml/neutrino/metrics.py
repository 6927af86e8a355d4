"""What a cut on a score selects from the beam, in events."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from physml.errors import DataError


class CutScan(NamedTuple):
    """What passes `score >= cut`."""

    cut: Float[np.ndarray, " c"]
    efficiency: Float[np.ndarray, " c"]  # share of the signal
    purity: Float[np.ndarray, " c"]  # signal over all that pass; NaN where nothing does
    signal: Float[np.ndarray, " c"]  # weighted events
    background: Float[np.ndarray, " c"]
    merit: Float[np.ndarray, " c"]  # see `figure_of_merit`


def figure_of_merit(signal: ArrayLike, background: ArrayLike) -> np.ndarray:
    """Signal over the statistical error of all events, s / sqrt(s + b); 0 where nothing passes.

    Arguments are expected numbers of events at the exposure, not shares.

    Raises:
        DataError: a number is negative or not finite.
    """
    s, b = np.asarray(signal, float), np.asarray(background, float)
    if not (np.isfinite(s).all() and np.isfinite(b).all() and (s >= 0).all() and (b >= 0).all()):
        raise DataError("figure of merit", "has negative or infinite counts", "check the weights")
    out = np.zeros(np.broadcast(s, b).shape)
    return np.asarray(np.divide(s, np.sqrt(s + b), out=out, where=s + b > 0))


def scan(
    score: Float[np.ndarray, " n"],
    signal: Bool[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    cuts: Float[np.ndarray, " c"],
) -> CutScan:
    """Efficiency, purity and figure of merit of every cut.

    Args:
        score: larger for signal.
        signal: which events are.
        weight: events expected per event made, at the exposure.
        cuts: smallest scores that pass.

    Raises:
        DataError: arrays of unlike length, or a weighted signal of zero.
    """
    if not len(score) == len(signal) == len(weight):
        raise DataError("cut scan", "has lists of unlike length", "give one of each per event")
    total = float(weight[signal].sum())
    if not total > 0:
        raise DataError("cut scan", "has no signal events", "give events of the signal class")

    def passing(rows: Bool[np.ndarray, " n"]) -> np.ndarray:
        order = np.argsort(score[rows])
        below = np.append(0.0, np.cumsum(weight[rows][order]))
        found = below[-1] - below[np.searchsorted(score[rows][order], cuts, side="left")]
        return np.asarray(np.maximum(found, 0.0))  # the sums leave rounding behind

    s, b = passing(signal), passing(~signal)
    purity = np.divide(s, s + b, out=np.full(len(s), np.nan), where=s + b > 0)
    return CutScan(np.asarray(cuts, float), s / total, purity, s, b, figure_of_merit(s, b))
