"""Multinomial logistic regression by Newton steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.special
from jaxtyping import Float
from numpy.typing import ArrayLike

from physml.errors import ConfigError, DataError, TrainingError
from physml.linear.decomposition import Matrix, Vector, features, real_array

ITERATIONS = 100
TOLERANCE = 1e-10  # largest entry of the gradient over the number of rows


class Logistic(NamedTuple):
    """Weights of K classes; the log-odds of row x are x @ weights + intercepts.

    | field        | shape  | meaning                                      |
    |--------------|--------|----------------------------------------------|
    | `weights`    | (p, K) | for the columns as given; rows sum to zero   |
    | `intercepts` | (K,)   | unpenalised; sum to zero                     |
    | `iterations` | int    | Newton steps taken                           |
    """

    weights: Float[np.ndarray, "p K"]
    intercepts: Float[np.ndarray, " K"]
    iterations: int


def logistic(X: ArrayLike, y: ArrayLike, alpha: float = 1.0, *, scale: bool = False) -> Logistic:
    """Minimise -sum_i log p(y_i | x_i) + alpha/2 |weights|^2 over weights and free intercepts.

    Newton's method on the whole softmax (Boehning, Ann. Inst. Statist. Math. 44, 197 (1992), gives
    its Hessian), the step halved until the objective falls.

    Args:
        X: (n, p) features.
        y: (n,) class of each row, integers from 0 to K - 1, none of them empty.
        alpha: penalty > 0.
        scale: penalise the weights of columns divided by their standard deviation.

    Raises:
        DataError: not finite, wrong shapes, or a class without rows.
        ConfigError: alpha is not a positive number.
        TrainingError: no convergence in 100 steps.
    """
    x, labels = real_array(X, "X", 2), _labels(y)
    if len(labels) != len(x):
        raise DataError("y", f"has {len(labels)} rows, X has {len(x)}", "give one label per row")
    if not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError("alpha", f"is {alpha}", "give a positive number")
    # Centring and scaling only condition the Newton steps; the penalty is what `scale` says.
    mean, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([(x - mean) / spread, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], alpha) / (1.0 if scale else spread**2), 0.0)
    solution, iterations = _newton(design, np.eye(labels.max() + 1)[labels], penalty)
    weights = solution[:-1] / spread[:, None]
    return Logistic(weights, solution[-1] - mean @ weights, iterations)


def probabilities(model: Logistic, X: ArrayLike) -> Float[np.ndarray, "n K"]:
    """Probability of each class for rows X (n, p); every row sums to one.

    Raises:
        DataError: not finite, or not p columns.
    """
    x = features(X, len(model.weights))
    return np.asarray(scipy.special.softmax(x @ model.weights + model.intercepts, axis=1))


def _labels(y: ArrayLike) -> np.ndarray:
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError("y", "is no list of integer labels", "number the classes from 0")
    if len(labels) and labels.min() < 0:
        raise DataError("y", f"holds the label {labels.min()}", "number the classes from 0")
    counts = np.bincount(labels)
    if len(counts) < 2 or not counts.all():
        empty = np.flatnonzero(counts == 0).tolist() or "all but one"
        raise DataError("y", f"has no rows of class {empty}", "number the classes without gaps")
    return labels


def _newton(x: Matrix, targets: Matrix, penalty: Vector) -> tuple[Matrix, int]:
    (n, p), k = x.shape, targets.shape[1]
    w = np.zeros((p, k))
    value, chance = _objective(x, targets, penalty, w)
    for iteration in range(ITERATIONS):
        gradient = x.T @ (chance - targets) + penalty[:, None] * w
        if np.abs(gradient).max() <= TOLERANCE * n:
            return w - w.mean(1, keepdims=True), iteration
        step = scipy.linalg.solve(_hessian(x, chance, penalty), gradient.ravel(), assume_a="pos")
        size = 1.0
        while size > 1e-10:
            trial = w - size * step.reshape(p, k)
            lower, chance_there = _objective(x, targets, penalty, trial)
            if lower <= value:
                break
            size /= 2
        else:  # rounding hides any further descent
            return w - w.mean(1, keepdims=True), iteration
        w, value, chance = trial, lower, chance_there
    raise TrainingError(
        "logistic", f"has not converged in {ITERATIONS} steps", "give a larger alpha"
    )


def _objective(x: Matrix, targets: Matrix, penalty: Vector, w: Matrix) -> tuple[float, Matrix]:
    logits = x @ w
    lost = scipy.special.logsumexp(logits, axis=1) - (logits * targets).sum(1)
    return (
        float(lost.sum() + 0.5 * (penalty[:, None] * w**2).sum()),
        np.asarray(scipy.special.softmax(logits, axis=1)),
    )


def _hessian(x: Matrix, chance: Matrix, penalty: Vector) -> Matrix:
    """Second derivatives by (column, class), flat.

    The same shift of all intercepts changes no probability; its direction gets a unit curvature.
    """
    p, k = x.shape[1], chance.shape[1]
    found = np.empty((p, k, p, k))
    for a in range(k):
        for b in range(a, k):
            weight = chance[:, a] * ((a == b) - chance[:, b])
            found[:, a, :, b] = found[:, b, :, a] = x.T @ (weight[:, None] * x)
    found[-1, :, -1, :] += 1.0
    flat = found.reshape(p * k, p * k)
    flat[np.diag_indices(p * k)] += np.repeat(penalty, k)
    return flat
