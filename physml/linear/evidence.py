"""Bayesian ridge regression by evidence maximisation (`physml.linear.evidence`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from physml.errors import ConfigError, TrainingError
from physml.linear.decomposition import (
    Problem,
    Spectrum,
    Vector,
    decompose,
    features,
    prepare,
)


class Evidence(NamedTuple):
    """Bayesian ridge: Gaussian noise and weights, their precisions by evidence maximisation.

    | field              | shape    | meaning                                                    |
    |--------------------|----------|------------------------------------------------------------|
    | `weights`, `intercept` | (p,), float | posterior mean, for the columns as given            |
    | `noise_precision`  | float    | 1 / variance of the noise, 1 / unit(y)^2                   |
    | `weight_precision` | float    | 1 / variance of the weights (of the scaled columns)        |
    | `effective`        | float    | number of well-determined parameters                       |
    | `log_evidence`     | float    | log marginal likelihood, hyper-priors included             |
    | `directions`       | (p, k)   | principal directions of the scaled columns                 |
    | `variances`        | (k,)     | posterior variance along each; prior variance elsewhere    |
    | `x_mean`, `x_scale`| (p,)     | what was taken from the columns before the fit             |
    | `n_rows`           | int      | rows fitted; 0 without intercept (its variance is 1/n)     |
    | `n_iter`           | int      | iterations to convergence                                  |
    | `condition`, `rank`, `method` |  | as in RidgePath                                         |
    """

    weights: Float[np.ndarray, " p"]
    intercept: float
    noise_precision: float
    weight_precision: float
    effective: float
    log_evidence: float
    directions: Float[np.ndarray, "p k"]
    variances: Float[np.ndarray, " k"]
    x_mean: Float[np.ndarray, " p"]
    x_scale: Float[np.ndarray, " p"]
    n_rows: int
    n_iter: int
    condition: float
    rank: int
    method: str


def _principal(
    problem: Problem,
) -> tuple[Vector, Vector, Float[np.ndarray, "p k"], float, Spectrum]:
    """Non-zero s^2, U^T y, V and |y - U U^T y|^2 of a problem, each to full precision."""
    spectrum = decompose(problem, 0.0)
    keep = spectrum.eigenvalues > 0
    eigenvalues = spectrum.eigenvalues[keep]
    if spectrum.right is not None:
        right, projected = spectrum.right, spectrum.moment / np.sqrt(eigenvalues)
    else:
        assert spectrum.left is not None
        left = spectrum.left[:, keep]
        right, projected = problem.x.T @ left / np.sqrt(eigenvalues), spectrum.moment[keep]
    if spectrum.orthogonal is None:
        # Not |y|^2 - |U^T y|^2, which cancels when the fit is good.
        residual = problem.y - problem.x @ (right @ (projected / np.sqrt(eigenvalues)))
        orthogonal = float(residual @ residual)
    else:
        orthogonal = spectrum.orthogonal + float(np.sum(spectrum.moment[~keep] ** 2))
    return eigenvalues, projected, right, orthogonal, spectrum


def evidence(
    X: ArrayLike,
    y: ArrayLike,
    *,
    fit_intercept: bool = False,
    scale: bool = False,
    hyper: Sequence[float] = (1e-6, 1e-6, 1e-6, 1e-6),
    tol: float = 1e-12,
    max_iter: int = 10_000,
) -> Evidence:
    """Bayesian ridge regression by evidence maximisation; every iteration costs O(p).

    Noise precision a and weight precision l are iterated to the fixed point
    l = (gamma + 2 l1) / (|w|^2 + 2 l2), a = (n - gamma + 2 a1) / (|y - X w|^2 + 2 a2),
    gamma = sum a s^2 / (l + a s^2), in the basis of the singular vectors. The Gram matrix
    serves up to condition 1e4, QR and SVD above.

    Args:
        X: (n, p) features. y: (n,) targets.
        fit_intercept: add a bias with a flat prior (X and y are centred).
        scale: one prior for the weights of columns divided by their root mean square.
        hyper: a1, a2, l1, l2, shape and rate of the Gamma priors of a and l.
        tol: largest relative change of a and l in the last iteration.
        max_iter: iterations before giving up.

    Raises:
        DataError: empty, mismatched or non-finite input.
        ConfigError: a negative hyper-parameter, or tol or max_iter that is not positive.
        TrainingError: no convergence in `max_iter` iterations.

    Source: MacKay, Neural Computation 4 (1992) 415; Tipping, JMLR 1 (2001) 211.
    """
    _check_evidence_options(hyper, tol, max_iter)
    problem = prepare(X, y, fit_intercept, scale)
    eigenvalues, projected, right, orthogonal, spectrum = _principal(problem)
    n, p = problem.x.shape
    a1, a2, l1, l2 = hyper
    noise = 1.0 / (float(np.var(problem.y)) + np.finfo(float).eps)
    prior = 1.0
    for n_iter in range(1, max_iter + 1):  # noqa: B007
        ratio = prior / noise
        shifted = eigenvalues + ratio
        squared_weights = float(np.sum(eigenvalues * (projected / shifted) ** 2))
        squared_error = orthogonal + float(np.sum((projected * ratio / shifted) ** 2))
        gamma = float(np.sum(eigenvalues / shifted))
        if squared_weights + l2 == 0 or squared_error + a2 == 0 or gamma + l1 == 0:
            what = "has no maximum: the fit is exact or all weights vanish"
            raise TrainingError("evidence", what, "give hyper-parameters above 0")
        new_prior = (gamma + 2 * l1) / (squared_weights + 2 * l2)
        new_noise = (n - gamma + 2 * a1) / (squared_error + 2 * a2)
        change = max(abs(new_prior / prior - 1), abs(new_noise / noise - 1))
        prior, noise = new_prior, new_noise
        if change <= tol:
            break
    else:
        what = f"has not converged after {max_iter} iterations (change {change:.1e})"
        raise TrainingError("evidence", what, "raise max_iter or tol, or scale the columns")
    shifted = eigenvalues + prior / noise
    weights = right @ (np.sqrt(eigenvalues) * projected / shifted) / problem.x_scale
    return Evidence(
        weights=weights,
        intercept=problem.y_mean - float(weights @ problem.x_mean),
        noise_precision=noise,
        weight_precision=prior,
        effective=gamma,
        log_evidence=_log_evidence(eigenvalues, projected, orthogonal, noise, prior, hyper, n),
        directions=right,
        variances=1.0 / (noise * shifted),
        x_mean=problem.x_mean,
        x_scale=problem.x_scale,
        n_rows=n if fit_intercept else 0,
        n_iter=n_iter,
        condition=spectrum.condition,
        rank=spectrum.rank,
        method=spectrum.method,
    )


def _check_evidence_options(hyper: Sequence[float], tol: float, max_iter: int) -> None:
    values = np.asarray(hyper, dtype=float)
    if values.shape != (4,) or not (np.isfinite(values).all() and (values >= 0).all()):
        raise ConfigError("hyper", f"is {tuple(hyper)}", "give four numbers >= 0")
    if not (tol > 0 and max_iter >= 1):
        raise ConfigError("tol, max_iter", f"are {tol}, {max_iter}", "give positive numbers")


def _log_evidence(
    eigenvalues: Vector,
    projected: Vector,
    orthogonal: float,
    noise: float,
    prior: float,
    hyper: Sequence[float],
    n: int,
) -> float:
    """Log marginal likelihood of (noise, prior), plus their log hyper-priors as kernels."""
    ratio = prior / noise
    shifted = eigenvalues + ratio
    fit = noise * (orthogonal + float(np.sum(ratio * projected**2 / shifted)))
    volume = float(np.sum(np.log(shifted / ratio)))
    a1, a2, l1, l2 = hyper
    hyper_prior = l1 * np.log(prior) - l2 * prior + a1 * np.log(noise) - a2 * noise
    return float(hyper_prior + 0.5 * (n * np.log(noise) - volume - fit - n * np.log(2 * np.pi)))


def predictive_std(model: Evidence, X: ArrayLike) -> Float[np.ndarray, " n"]:
    """Standard deviation (n,) of a new observation: noise and parameter uncertainty.

    Raises:
        DataError: X is not finite or has another number of columns than the model.
    """
    x = (features(X, len(model.weights)) - model.x_mean) / model.x_scale
    along = (x @ model.directions) ** 2
    # Outside the directions seen in the fit the prior is all there is.
    outside = np.maximum(np.einsum("ij,ij->i", x, x) - along.sum(axis=1), 0.0)
    if model.directions.shape[1] == len(model.weights):
        outside = np.zeros(len(x))  # not the rounding of that difference
    flat = 1.0 / (model.noise_precision * model.n_rows) if model.n_rows else 0.0
    variance = along @ model.variances + outside / model.weight_precision + flat
    return np.asarray(np.sqrt(1.0 / model.noise_precision + variance))
