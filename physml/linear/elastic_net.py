"""Elastic-net path on the Gram matrix by a semismooth Newton method (`physml.linear`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from physml.errors import ConfigError, DataError, TrainingError
from physml.linear.decomposition import (
    RESOLVED_CONDITION,
    Problem,
    Vector,
    condition_and_rank,
    gram_matrix,
    penalties,
    prepare,
    rotate,
    triangular_condition,
)

NEWTON_STEPS = 100
PROXIMAL_ROUNDS = 12
# Curvature (relative to the mean of the Gram diagonal) below which Newton steps get slow.
ENOUGH_CURVATURE, LEAST_CURVATURE = 1e-2, 1e-7
ROUNDING = 1e-14  # relative: smaller duality gaps and Newton steps are rounding noise


class ElasticNetPath(NamedTuple):
    """Minimisers of |y - X w|^2 / (2 n) + alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2).

    | field        | shape         | meaning                                                      |
    |--------------|---------------|--------------------------------------------------------------|
    | `alphas`     | (n_alphas,)   | penalties, as given or from `alpha_max` down                 |
    | `coef`       | (n_alphas, p) | weights for the columns as given                             |
    | `intercepts` | (n_alphas,)   | zero without `fit_intercept`                                 |
    | `gaps`       | (n_alphas,)   | primal minus dual objective: bounds the excess objective     |
    | `gap_target` | float         | tol |y|^2 / (2 n), tol times the objective at w = 0          |
    | `converged`  | (n_alphas,)   | gap <= gap_target                                            |
    | `n_solves`   | int           | linear systems solved for the whole path                     |
    | `alpha_max`  | float         | smallest alpha with all weights zero                         |
    | `condition`, `rank` | float, int | of the scaled X, as in RidgePath                      |
    """

    alphas: Float[np.ndarray, " a"]
    coef: Float[np.ndarray, "a p"]
    intercepts: Float[np.ndarray, " a"]
    gaps: Float[np.ndarray, " a"]
    gap_target: float
    converged: Bool[np.ndarray, " a"]
    n_solves: int
    alpha_max: float
    condition: float
    rank: int


class Quadratic(NamedTuple):
    """|y - X w|^2 / (2 n) from the Gram matrix X^T X / n, X^T y / n and |y|^2 / n."""

    gram: Float[np.ndarray, "p p"]
    moment: Float[np.ndarray, " p"]
    square: float


def duality_gap(q: Quadratic, w: Vector, l1: float, l2: float) -> float:
    """Primal minus dual objective, the dual point being the residual scaled to be feasible.

    The squared penalty counts as extra rows sqrt(n l2) of X, which leaves a lasso.
    """
    gram_w = q.gram @ w
    steepest = float(np.abs(gram_w + l2 * w - q.moment).max())
    feasible = min(1.0, l1 / steepest) if steepest > 0 else 1.0
    projected = q.moment @ w
    norm = q.square - 2 * projected + w @ gram_w + l2 * (w @ w)
    primal = 0.5 * norm + l1 * np.abs(w).sum()
    dual = feasible * (q.square - projected) - 0.5 * feasible**2 * norm
    return max(float(primal - dual), 0.0)


def _shrink(values: Vector, threshold: float) -> Vector:
    return np.asarray(np.sign(values) * np.maximum(np.abs(values) - threshold, 0.0))


def _newton(q: Quadratic, v: Vector, l1: float, l2: float) -> tuple[Vector, int]:
    """Minimise the negative dual 0.5 v^T G v + |shrink(q - G v, l1)|^2 / (2 l2), needs l2 > 0.

    Convex and piecewise quadratic: Newton with an exact line search ends after finitely many
    steps, when a full step reproduces its active set. Then v is also the primal solution.
    """
    gram_v = q.gram @ v
    # A step below the rounding of q - G v changes no active set: it is the last one.
    smallest = ROUNDING * float(np.abs(q.moment).max())
    signs: Vector | None = None
    for solves in range(NEWTON_STEPS):
        correlation = q.moment - gram_v
        shrunk = _shrink(correlation, l1)
        if signs is not None and np.array_equal(signs, np.sign(shrunk)):
            return v, solves
        signs, active = np.sign(shrunk), np.flatnonzero(shrunk)
        step = shrunk / l2 - v
        step[active] -= _solve_active(q.gram, active, l2, (q.gram @ step)[active])
        gram_step = q.gram @ step
        if np.abs(gram_step).max() <= smallest:
            return v + step, solves + 1
        size = _line_search(correlation, gram_v, step, gram_step, l1, l2)
        v, gram_v = v + size * step, gram_v + size * gram_step
        if size < 1:
            signs = None
    return v, NEWTON_STEPS


def _solve_active(
    gram: Float[np.ndarray, "p p"], active: np.ndarray, l2: float, right: Vector
) -> Vector:
    block = gram[np.ix_(active, active)]
    block.flat[:: len(active) + 1] += l2
    factor = scipy.linalg.cho_factor(block, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, right, check_finite=False))


def _line_search(
    correlation: Vector, gram_v: Vector, step: Vector, gram_step: Vector, l1: float, l2: float
) -> float:
    """Step size in (0, 1] where the convex dual objective is least, by bisection of its slope."""
    linear, square = float(gram_v @ step), float(step @ gram_step)

    def slope(size: float) -> float:
        shrunk = _shrink(correlation - size * gram_step, l1)
        return linear + size * square - float(shrunk @ gram_step) / l2

    if slope(1.0) <= 1e-12 * (abs(linear) + square):  # zero but for rounding
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return high


def _minimise(
    q: Quadratic, w: Vector, l1: float, l2: float, target: float
) -> tuple[Vector, float, int]:
    """Solve one penalty; a vanishing proximal term |w - w_last|^2 helps where l2 is too small."""
    if np.abs(q.moment).max() <= l1 * (1 + 1e-14):
        w = np.zeros_like(w)
        return w, duality_gap(q, w, l1, l2), 0
    mean_curvature = float(q.gram.diagonal().mean())
    extra = max(ENOUGH_CURVATURE * mean_curvature - l2, 0.0)
    best, gap, total = w, duality_gap(q, w, l1, l2), 0
    for _ in range(PROXIMAL_ROUNDS):
        shifted = q._replace(moment=q.moment + extra * w)
        try:
            w, solves = _newton(shifted, w, l1, l2 + extra)
        except np.linalg.LinAlgError:  # extra has become too small for a dependent column
            break
        total += solves
        new_gap = duality_gap(q, w, l1, l2)
        best, gap, stalled = (w, new_gap, False) if new_gap < gap else (best, gap, True)
        if extra == 0 or gap <= ROUNDING * q.square or (stalled and gap <= target):
            break
        extra = max(0.1 * extra, LEAST_CURVATURE * mean_curvature)
    return best, gap, total


def elastic_net_path(
    X: ArrayLike,
    y: ArrayLike,
    l1_ratio: float = 0.5,
    alphas: ArrayLike | None = None,
    n_alphas: int = 100,
    *,
    min_ratio: float = 1e-3,
    tol: float = 1e-8,
    fit_intercept: bool = False,
    scale: bool = False,
    allow_unconverged: bool = False,
) -> ElasticNetPath:
    """Elastic-net solutions for falling penalties, each with a certified duality gap.

    The Gram matrix is formed once; every penalty is then solved by a semismooth Newton method
    on the dual, started from its neighbour. It runs until the active set repeats, so that the
    solution is exact to rounding; the duality gap decides whether it is accepted.

    Args:
        X: (n, p) features. y: (n,) targets.
        l1_ratio: share of the absolute penalty, in (0, 1]; 1 is the lasso.
        alphas: penalties > 0; by default `n_alphas` from alpha_max = max |X^T y| / (n l1_ratio)
            down to `min_ratio` alpha_max, in equal factors.
        n_alphas, min_ratio: of the default grid.
        tol: accepted duality gap, relative to the objective at w = 0.
        fit_intercept: add a bias that is not penalised (X and y are centred).
        scale: penalise the weights of columns divided by their root mean square.
        allow_unconverged: return the path, marked in `converged`, where the gap is missed.

    Raises:
        DataError: empty, mismatched or non-finite input; y orthogonal to every column.
        ConfigError: l1_ratio, alphas, n_alphas, min_ratio or tol out of range.
        TrainingError: a gap above the target, unless `allow_unconverged`.

    Source: Zou and Hastie, J. R. Stat. Soc. B 67 (2005) 301 (the penalty); semismooth Newton
    for it: Li, Sun and Toh, SIAM J. Optim. 28 (2018) 433.
    """
    if not 0 < l1_ratio <= 1:
        raise ConfigError("l1_ratio", f"is {l1_ratio}", "give a number in (0, 1]; 0 is ridge_path")
    if not (tol > 0 and 0 < min_ratio < 1 and n_alphas >= 1):
        what = f"are {tol}, {min_ratio}, {n_alphas}"
        raise ConfigError("tol, min_ratio, n_alphas", what, "give tol > 0, 0 < ratio < 1, n >= 1")
    problem = prepare(X, y, fit_intercept, scale)
    n = len(problem.y)
    gram = gram_matrix(problem.x) / n
    q = Quadratic(gram, problem.x.T @ problem.y / n, float(problem.y @ problem.y) / n)
    alpha_max = float(np.abs(q.moment).max()) / l1_ratio
    grid = _grid(alphas, alpha_max, n_alphas, min_ratio)
    target = 0.5 * tol * q.square
    coef, gaps, solves = np.zeros((len(grid), len(gram))), np.zeros(len(grid)), 0
    w = np.zeros(len(gram))
    for k in np.argsort(-grid, kind="stable"):
        l1, l2 = grid[k] * l1_ratio, grid[k] * (1 - l1_ratio)
        w, gaps[k], count = _minimise(q, w, l1, l2, target)
        coef[k], solves = w, solves + count
    converged = gaps <= target
    if not (converged.all() or allow_unconverged):
        k = int(gaps.argmax())
        what = f"duality gap {gaps[k]:.1e} at alpha {grid[k]:.3g} is above {target:.1e}"
        raise TrainingError("elastic net", what, "raise tol or alpha, or scale the columns")
    condition, rank = _condition(problem, gram)
    coef = coef / problem.x_scale
    intercepts = problem.y_mean - coef @ problem.x_mean
    return ElasticNetPath(
        grid, coef, intercepts, gaps, target, converged, solves, alpha_max, condition, rank
    )


def _grid(
    alphas: ArrayLike | None, alpha_max: float, n_alphas: int, min_ratio: float
) -> Float[np.ndarray, " a"]:
    if alphas is not None:
        grid = penalties(alphas)
        if not (grid > 0).all():
            raise ConfigError("alphas", "hold 0", "give penalties > 0; 0 is ridge_path")
        return grid
    if alpha_max == 0:
        raise DataError("y", "is orthogonal to every column of X", "give alphas")
    return alpha_max * np.geomspace(1.0, min_ratio if n_alphas > 1 else 1.0, n_alphas)


def _condition(problem: Problem, gram: Float[np.ndarray, "p p"]) -> tuple[float, int]:
    """Condition number and rank of X, from its Gram matrix where that resolves them."""
    condition = _small_condition(gram) if len(gram) <= 500 else _large_condition(gram)
    if condition is None:
        return condition_and_rank(rotate(problem, problem.x))
    return condition, len(gram)


def _small_condition(gram: Float[np.ndarray, "p p"]) -> float | None:
    eigenvalues = np.linalg.eigvalsh(gram)
    if not eigenvalues[0] > eigenvalues[-1] / RESOLVED_CONDITION**2:
        return None
    return float(np.sqrt(eigenvalues[-1] / eigenvalues[0]))


def _large_condition(gram: Float[np.ndarray, "p p"]) -> float | None:
    try:
        factor = scipy.linalg.cholesky(gram, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return triangular_condition(factor, RESOLVED_CONDITION)
