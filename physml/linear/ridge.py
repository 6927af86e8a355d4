"""Ridge regression: the whole path with exact leave-one-out from one decomposition."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from physml.errors import DataError
from physml.linear.decomposition import (
    Matrix,
    Spectrum,
    Vector,
    decompose,
    features,
    penalties,
    prepare,
    rows_and_targets,
)
from physml.linear.leave_out import group_labels, left_out_groups, left_out_rows


class LinearModel(Protocol):
    """What `predict` needs; RidgePath and Evidence have it."""

    @property
    def weights(self) -> Float[np.ndarray, " p"]: ...  # noqa: D102
    @property
    def intercept(self) -> float: ...  # noqa: D102


class RidgePath(NamedTuple):
    """Ridge solutions for every alpha, minimising |y - X w - intercept|^2 + alpha |w|^2.

    | field           | shape        | meaning                                                  |
    |-----------------|--------------|----------------------------------------------------------|
    | `alphas`        | (n_alphas,)  | penalties, as given                                      |
    | `coef`          | (n_alphas, p)| weights per alpha, for the columns as given              |
    | `intercepts`    | (n_alphas,)  | zero without `fit_intercept`                             |
    | `loo_residuals` | (n_alphas, n)| y minus the prediction of the fit without that row/group |
    | `loo_rmse`, `loo_mae` | (n_alphas,) | of those; inf where float64 cannot resolve them     |
    | `best`          | int          | index of the chosen alpha                                |
    | `weights`, `intercept` | (p,), float | of the chosen alpha                                |
    | `condition`     | float        | largest / smallest singular value of the scaled X;       |
    |                 |              | inf below rank min(n, p)                                 |
    | `rank`          | int          | numerical rank of the scaled X                           |
    | `method`        | str          | "gram", "gram-dual", "qr-svd" or "svd"                   |
    | `criterion`     | str          | the rule that chose `best`                               |
    """

    alphas: Float[np.ndarray, " a"]
    coef: Float[np.ndarray, "a p"]
    intercepts: Float[np.ndarray, " a"]
    loo_residuals: Float[np.ndarray, "a n"]
    loo_rmse: Float[np.ndarray, " a"]
    loo_mae: Float[np.ndarray, " a"]
    best: int
    weights: Float[np.ndarray, " p"]
    intercept: float
    condition: float
    rank: int
    method: str
    criterion: str


def _path_coef(x: Matrix, spectrum: Spectrum, alphas: Vector) -> Float[np.ndarray, "a p"]:
    """Weights per alpha for the scaled columns; directions of zero singular value get none."""
    shifted = spectrum.eigenvalues[:, None] + alphas
    used = spectrum.eigenvalues[:, None] > 0
    filtered = np.divide(spectrum.moment[:, None], shifted, out=np.zeros_like(shifted), where=used)
    if spectrum.right is not None:
        return np.asarray((spectrum.right @ filtered).T)
    assert spectrum.left is not None
    return np.asarray((x.T @ (spectrum.left @ filtered)).T)


def ridge_path(
    X: ArrayLike,
    y: ArrayLike,
    alphas: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    fit_intercept: bool = False,
    scale: bool = False,
) -> RidgePath:
    """Ridge regression for many penalties with exact leave-one-out, from one decomposition.

    X^T X (or X X^T for n <= p) is diagonalised once, as long as the smallest penalty exceeds
    1e-8 of its largest eigenvalue or the condition number of X is below 1e4; otherwise X itself
    is decomposed (QR, then SVD), because squaring would cost more than eight digits. Leaving
    out row i gives the residual r_i / (1 - h_i); leaving out group g gives (I - H_gg)^-1 r_g.
    The chosen alpha has the smallest root mean square of these (the first of equals).

    Args:
        X: (n, p) features. y: (n,) targets. Any real type; computed in float64.
        alphas: penalties >= 0; zero needs full column rank.
        groups: (n,) labels; given, whole groups are left out instead of rows.
        fit_intercept: add a bias that is not penalised (X and y are centred).
        scale: penalise the weights of columns divided by their root mean square.

    Raises:
        DataError: empty, mismatched or non-finite input, one group, one row, alpha = 0 with a
            singular X, or no alpha at which the left-out residuals are resolved.
        ConfigError: a penalty that is negative or not finite.

    Source: Golub, Heath and Wahba, Technometrics 21 (1979) 215, for rows; the block form
    follows from the same identity.
    """
    strengths = penalties(alphas)
    problem = prepare(X, y, fit_intercept, scale)
    n, p = problem.x.shape
    if n < 2:
        raise DataError("X", "has one row", "leave-one-out needs at least two")
    labels = None if groups is None else group_labels(groups, n)
    spectrum = decompose(problem, float(strengths.min()))
    if strengths.min() == 0 and spectrum.rank < p:
        what = f"is singular (rank {spectrum.rank} of {p} columns) and alpha is 0"
        raise DataError("X", what, "give alpha > 0 or drop dependent columns")
    coef = _path_coef(problem.x, spectrum, strengths) / problem.x_scale
    if labels is None:
        left_out, kind = left_out_rows(problem, spectrum, strengths), "leave-one-out"
    else:
        left_out = left_out_groups(problem, spectrum, strengths, labels)
        kind = "leave-one-group-out"
    rmse = np.linalg.norm(left_out, axis=1) / np.sqrt(n)
    best = int(np.argmin(rmse))
    if not np.isfinite(rmse[best]):
        what = f"the {kind} residuals are not defined at any alpha"
        raise DataError("alphas", what, "give a larger alpha")
    intercepts = problem.y_mean - coef @ problem.x_mean
    return RidgePath(
        alphas=strengths,
        coef=coef,
        intercepts=intercepts,
        loo_residuals=left_out,
        loo_rmse=rmse,
        loo_mae=np.abs(left_out).mean(axis=1),
        best=best,
        weights=coef[best],
        intercept=float(intercepts[best]),
        condition=spectrum.condition,
        rank=spectrum.rank,
        method=spectrum.method,
        criterion=f"smallest {kind} RMSE",
    )


def weighted_ridge(
    X: ArrayLike,
    y: ArrayLike,
    alphas: ArrayLike,
    noise: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    scale: bool = False,
) -> RidgePath:
    """Ridge path without intercept for rows of unequal noise (feasible weighted least squares).

    A first path estimates the noise of each label as the root mean square of its left-out
    residuals; in the second, rows are divided by it. Weights and left-out residuals of the result
    refer to X and y as given; `loo_rmse` is that of the weighted rows, relative to equal noise.

    Args:
        noise: (n,) labels; rows of one label are taken to be equally noisy, and none to be less
            than a thousandth of the whole, so that an exactly fitted label does not take over.
        X, y, alphas, groups, scale: as in `ridge_path`.

    Raises:
        DataError, ConfigError: as `ridge_path`; labels that do not match the rows.
    """
    x, target = rows_and_targets(X, y)
    labels = group_labels(noise, len(x), at_least=1)
    first = ridge_path(x, target, alphas, groups, scale=scale)
    square = first.loo_residuals[first.best] ** 2
    sigma = np.sqrt(np.bincount(labels, square) / np.bincount(labels))
    overall = np.sqrt(square.mean())
    if overall == 0:
        return first  # an exact fit has no noise to weigh
    weight = overall / np.maximum(sigma, 1e-3 * overall)[labels]
    path = ridge_path(x * weight[:, None], target * weight, alphas, groups, scale=scale)
    residuals = path.loo_residuals / weight
    return path._replace(
        loo_residuals=residuals,
        loo_mae=np.abs(residuals).mean(axis=1),
        criterion=f"{path.criterion}, rows weighted by the inverse noise of their label",
    )


def predict(model: LinearModel, X: ArrayLike) -> Float[np.ndarray, " n"]:
    """Predictions (n,) of a fitted model for features X (n, p).

    Raises:
        DataError: X is not finite or has another number of columns than the model.
    """
    x = features(X, len(model.weights))
    return np.asarray(x @ model.weights + model.intercept)
