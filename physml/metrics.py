"""How well scores tell classes apart, with honest errors; for every domain.

Weights count events: a weight of 2 is the same as the row twice, 0 the same as no row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int, Int64
from numpy.typing import ArrayLike

from physml.errors import DataError

ONE_SIGMA = 0.6827


class Roc(NamedTuple):
    """Shares that pass `score >= cut`, for every cut that changes them, from none to all."""

    cut: Float[np.ndarray, " c"]  # falling; the first is infinite, nothing passes
    efficiency: Float[np.ndarray, " c"]  # share of the positives that pass
    mistaken: Float[np.ndarray, " c"]  # share of the negatives that pass


class Reliability(NamedTuple):
    """What a stated probability is worth, in bins of it that hold rows."""

    stated: Float[np.ndarray, " b"]  # mean probability in the bin
    share: Float[np.ndarray, " b"]  # of rows for which it came true
    low: Float[np.ndarray, " b"]  # of the one-sigma Clopper-Pearson interval of the share
    high: Float[np.ndarray, " b"]
    rows: Int[np.ndarray, " b"]


class Shares(NamedTuple):
    """Shares in bins of a variable, with their Clopper-Pearson intervals."""

    edges: Float[np.ndarray, " b+1"]
    passed: Int[np.ndarray, " b"]
    total: Int[np.ndarray, " b"]
    low: Float[np.ndarray, " b"]  # 0 to 1 where a bin holds nothing
    high: Float[np.ndarray, " b"]
    outside: int  # rows below the first or above the last edge


def roc(scores: ArrayLike, positive: ArrayLike, weights: ArrayLike | None = None) -> Roc:
    """Efficiency against mistaken share, over all cuts; rows with the same score pass together.

    Args:
        scores: (n,), larger for the positives.
        positive: (n,) boolean.
        weights: (n,) >= 0, one by default.

    Raises:
        DataError: not finite, shapes differ, a negative weight, or no weight in one of the classes.
    """
    s, truth, w = _scored(scores, positive, weights)
    order = np.argsort(-s, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    passed = np.cumsum(np.where(truth, w, 0.0)[order])[last_of_tie]
    wrong = np.cumsum(np.where(truth, 0.0, w)[order])[last_of_tie]
    return Roc(
        np.append(np.inf, s[order][last_of_tie]),
        np.append(0.0, passed / passed[-1]),
        np.append(0.0, wrong / wrong[-1]),
    )


def auc(scores: ArrayLike, positive: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC: the chance that a positive scores above a negative, ties counting half.

    Arguments and errors as in `roc`.
    """
    curve = roc(scores, positive, weights)
    return float(np.trapezoid(curve.efficiency, curve.mistaken))


def clopper_pearson(
    passed: ArrayLike, total: ArrayLike, level: float = ONE_SIGMA
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of an efficiency that covers the true one in at least `level` of all experiments.

    Clopper and Pearson, Biometrika 26, 404 (1934). Without trials it is (0, 1). Weighted counts
    may be given as effective ones, see `effective`.

    Raises:
        DataError: more passed than there were, or negative counts.
    """
    k, n = np.broadcast_arrays(np.asarray(passed, float), np.asarray(total, float))
    if not (np.isfinite(n).all() and (k >= 0).all() and (k <= n * (1 + 1e-12)).all()):
        raise DataError("efficiency", "has counts outside 0 to the total", "check the counts")
    tail, k = (1 - level) / 2, np.minimum(k, n)
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, scipy.stats.beta.ppf(tail, k, n - k + 1), 0.0)
        high = np.where(k < n, scipy.stats.beta.ppf(1 - tail, k + 1, n - k), 1.0)
    return low, high


def binned(
    values: ArrayLike, passed: ArrayLike, edges: ArrayLike, level: float = ONE_SIGMA
) -> Shares:
    """Share of the rows that pass, in bins of a variable.

    Args:
        values: (n,) of the variable.
        passed: (n,) boolean.
        edges: (b + 1,) rising; a bin holds its lower edge, the last one its upper edge as well.
        level: of the intervals.

    Raises:
        DataError: shapes differ, values are not finite, or edges do not rise.
    """
    x, right, where = np.asarray(values, float), np.asarray(passed), np.asarray(edges, float)
    if x.ndim != 1 or x.shape != right.shape or right.dtype.kind != "b":
        raise DataError("bins", f"have shapes {x.shape}, {right.shape}", "give a boolean per value")
    if not np.isfinite(x).all():
        raise DataError("bins", "have values that are not finite", "find out what made them")
    if where.ndim != 1 or len(where) < 2 or not (np.diff(where) > 0).all():
        raise DataError("bins", "have edges that do not rise", "give at least two, rising")
    total = np.histogram(x, where)[0]
    count = np.histogram(x[right], where)[0]
    low, high = clopper_pearson(count, total, level)
    return Shares(where, count, total, low, high, len(x) - int(total.sum()))


def effective(
    passed: Bool[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> tuple[float, float]:
    """Unweighted counts (passed, total) with the efficiency and spread of weighted rows.

    The total is (sum w)^2 / sum w^2 (Kish, Survey Sampling, 1965).
    """
    total = float(weights.sum() ** 2 / (weights**2).sum()) if weights.any() else 0.0
    return (total * float(weights[passed].sum() / weights.sum()) if total else 0.0), total


def reliability(chance: ArrayLike, happened: ArrayLike, bins: int = 10) -> Reliability:
    """Stated probabilities against the shares that came true, in `bins` of equal width.

    Args:
        chance: (n,) probabilities, 0 to 1.
        happened: (n,) boolean.
        bins: how many; those without rows are left out.

    Raises:
        DataError: shapes differ or a probability is outside 0 to 1.
    """
    p, truth = np.asarray(chance, float), np.asarray(happened, bool)
    if p.ndim != 1 or p.shape != truth.shape or not len(p):
        raise DataError("reliability", f"has shapes {p.shape}, {truth.shape}", "give equal lists")
    if not ((p >= 0) & (p <= 1 + 1e-6)).all():
        raise DataError("probabilities", "lie outside 0 to 1", "apply softmax to the logits first")
    place = np.minimum((p * bins).astype(int), bins - 1)
    rows = np.bincount(place, minlength=bins)
    used = rows > 0
    stated = np.bincount(place, p, bins)[used] / rows[used]
    true = np.bincount(place, truth, bins)[used]
    low, high = clopper_pearson(true, rows[used])
    return Reliability(stated, true / rows[used], low, high, rows[used])


def calibration_error(curve: Reliability) -> float:
    """Expected calibration error: mean |stated - share| over the rows (arXiv 1706.04599)."""
    return float(np.average(np.abs(curve.stated - curve.share), weights=curve.rows))


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> Int64[np.ndarray, "k k"]:
    """Rows of each class (first axis) by the class predicted (second axis).

    Raises:
        DataError: a label outside 0 to classes - 1, or lists of unlike length.
    """
    truth, guess = np.asarray(labels), np.asarray(predicted)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise DataError("labels", f"have shapes {truth.shape}, {guess.shape}", "give equal lists")
    both = np.concatenate([truth, guess])
    if len(both) and not (0 <= both.min() and both.max() < classes):
        raise DataError("labels", f"lie outside 0 to {classes - 1}", "number the classes from 0")
    counts = np.bincount(truth.astype(np.int64) * classes + guess, minlength=classes**2)
    return counts.reshape(classes, classes)


def _scored(
    scores: ArrayLike, positive: ArrayLike, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    s, truth = np.asarray(scores, float), np.asarray(positive)
    w = np.ones(s.shape) if weights is None else np.asarray(weights, float)
    if s.ndim != 1 or s.shape != truth.shape or s.shape != w.shape:
        shapes = f"has shapes {s.shape}, {truth.shape}, {w.shape}"
        raise DataError("roc", shapes, "give one truth and weight per score")
    if truth.dtype.kind not in "b":
        raise DataError("roc", f"has truth of type {truth.dtype}", "give booleans")
    if not (np.isfinite(s).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise DataError("roc", "has scores not finite or weights below 0", "check the network")
    if not (w[truth].sum() > 0 and w[~truth].sum() > 0):
        raise DataError("roc", "lacks one of the classes", "give events of both")
    return s, truth, w
