"""Folds that keep groups whole, predictions out of fold, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from physml.errors import ConfigError, DataError
from physml.linear.decomposition import (
    rows_and_targets,
)
from physml.linear.leave_out import group_labels
from physml.linear.ridge import RidgePath, predict, ridge_path, weighted_ridge

Fold = tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]


def grouped_folds(groups: ArrayLike, n_folds: int, seed: int = 0) -> list[Fold]:
    """Split rows into folds that keep every group whole, of nearly equal numbers of rows.

    Groups are shuffled, then dealt from the largest to the smallest, each to the fold with the
    fewest rows. For a random split without groups give `np.arange(n)`.

    Args:
        groups: (n,) labels of any sortable type.
        n_folds: number of folds, at least 2.
        seed: of the shuffle; same seed, same folds.

    Returns:
        `n_folds` pairs (train, test) of sorted row numbers; each row is tested once.

    Raises:
        DataError: labels not finite, or fewer groups than folds. ConfigError: n_folds < 2.
    """
    if n_folds < 2:
        raise ConfigError("n_folds", f"is {n_folds}", "give at least 2")
    labels = group_labels(groups, np.size(groups))
    counts = np.bincount(labels)
    if len(counts) < n_folds:
        what = f"hold {len(counts)} groups for {n_folds} folds"
        raise DataError("groups", what, "give fewer folds")
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    fold_of = np.empty(len(counts), dtype=np.int64)
    filled = np.zeros(n_folds, dtype=np.int64)
    for group in shuffled[np.argsort(-counts[shuffled], kind="stable")]:
        fold_of[group] = int(filled.argmin())
        filled[fold_of[group]] += counts[group]
    tested = fold_of[labels]
    return [(np.flatnonzero(tested != k), np.flatnonzero(tested == k)) for k in range(n_folds)]


class OutOfFold(NamedTuple):
    """Predictions (n,) of each row by the fit that did not see it; alpha per fold (n_folds,)."""

    predictions: Float[np.ndarray, " n"]
    alphas: Float[np.ndarray, " folds"]


def cross_predict(
    X: ArrayLike,
    y: ArrayLike,
    alphas: ArrayLike,
    folds: Sequence[Fold],
    groups: ArrayLike | None = None,
    *,
    noise: ArrayLike | None = None,
    scale: bool = False,
) -> OutOfFold:
    """Predict every row from the other folds, alpha chosen inside them by leave-one-out.

    Args:
        folds: from `grouped_folds`; each row tested exactly once.
        groups: (n,) labels; given, alpha is chosen by leaving out whole groups.
        noise: (n,) labels of equal noise; given, the fits are those of `weighted_ridge`.
        X, y, alphas, scale: as in `ridge_path`.

    Raises:
        DataError, ConfigError: as `ridge_path`; folds that do not test every row once, or that
            train on a row they test.
    """
    x, target = rows_and_targets(X, y)
    labels = None if groups is None else group_labels(groups, len(x))
    noise = None if noise is None else group_labels(noise, len(x), at_least=1)
    _check_folds(folds, len(x))
    predictions, chosen = np.empty(len(x)), np.empty(len(folds))
    for k, (train, test) in enumerate(folds):
        path = _fit(x, target, alphas, train, labels, noise, scale)
        predictions[test] = predict(path, x[test])
        chosen[k] = path.alphas[path.best]
    return OutOfFold(predictions, chosen)


def _fit(
    x: np.ndarray,
    y: np.ndarray,
    alphas: ArrayLike,
    rows: np.ndarray,
    groups: np.ndarray | None,
    noise: np.ndarray | None,
    scale: bool,
) -> RidgePath:
    """Fit some rows, weighted when noise labels are given."""
    inner = None if groups is None else groups[rows]
    if noise is None:
        return ridge_path(x[rows], y[rows], alphas, inner, scale=scale)
    return weighted_ridge(x[rows], y[rows], alphas, noise[rows], inner, scale=scale)


def _check_folds(folds: Sequence[Fold], n: int) -> None:
    tested = np.concatenate([np.asarray(test) for _, test in folds]) if folds else np.zeros(0)
    if not np.array_equal(np.sort(tested), np.arange(n)):
        raise ConfigError("folds", f"do not test each of {n} rows once", "use grouped_folds")
    if any(np.intersect1d(train, test).size for train, test in folds):
        raise ConfigError("folds", "train on rows that they test", "use grouped_folds")


class LearningCurve(NamedTuple):
    """Test errors against training size, per fold: `mae` and `rmse` (n_sizes, n_folds).

    `sizes` (n_sizes, n_folds) counts the training rows, which are nested along the curve.
    """

    sizes: Int[np.ndarray, "s folds"]
    mae: Float[np.ndarray, "s folds"]
    rmse: Float[np.ndarray, "s folds"]


def learning_curve(
    X: ArrayLike,
    y: ArrayLike,
    alphas: ArrayLike,
    folds: Sequence[Fold],
    fractions: Sequence[float],
    groups: ArrayLike | None = None,
    *,
    noise: ArrayLike | None = None,
    seed: int = 0,
    scale: bool = False,
) -> LearningCurve:
    """Test error of ridge fits on growing parts of each training fold, alpha chosen inside.

    Args:
        fractions: parts of the training rows, in (0, 1]; groups stay whole, so a part holds at
            least that many rows.
        groups: (n,) labels; without them every row is its own group.
        seed: of the order in which groups join.
        X, y, alphas, folds, noise, scale: as in `cross_predict`.

    Raises:
        DataError, ConfigError: as `cross_predict`, and fractions outside (0, 1].
    """
    if len(fractions) == 0 or not all(0 < part <= 1 for part in fractions):
        raise ConfigError("fractions", f"are {list(fractions)}", "give numbers in (0, 1]")
    x, target = rows_and_targets(X, y)
    labels = None if groups is None else group_labels(groups, len(x))
    noise = None if noise is None else group_labels(noise, len(x), at_least=1)
    _check_folds(folds, len(x))
    errors = np.empty((3, len(fractions), len(folds)))
    for k, (train, test) in enumerate(folds):
        own = np.arange(len(train)) if labels is None else labels[train]
        for s, rows in enumerate(_nested(own, fractions, seed + k)):
            part = train[rows]
            path = _fit(x, target, alphas, part, labels, noise, scale)
            error = predict(path, x[test]) - target[test]
            errors[:, s, k] = len(part), np.abs(error).mean(), np.sqrt(np.mean(error**2))
    return LearningCurve(errors[0].astype(np.int64), errors[1], errors[2])


def _nested(
    labels: Int[np.ndarray, " n"], fractions: Sequence[float], seed: int
) -> list[Int[np.ndarray, " part"]]:
    """Rows of the first groups, in one shuffled order, that reach each fraction of all rows."""
    names, labels = np.unique(labels, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))[labels]
    reached = np.cumsum(np.bincount(rank))
    last = [int(np.searchsorted(reached, part * len(labels) - 1e-9)) for part in fractions]
    return [np.flatnonzero(rank <= stop) for stop in last]
