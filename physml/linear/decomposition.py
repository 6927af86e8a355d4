"""Checked input and the one decomposition behind the linear models (`physml.linear`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float
from numpy.typing import ArrayLike

from physml.errors import ConfigError, DataError

Matrix = Float[np.ndarray, "n p"]
Vector = Float[np.ndarray, " n"]

# X^T X squares the condition number: beyond 1e4 its rounding (eps * cond^2) passes 1e-8.
GRAM_CONDITION = 1e4
RESOLVED_CONDITION = 1e5  # up to here the Gram matrix gives it to 1e-5
LARGEST = 1e150  # squares of larger entries overflow


class Problem(NamedTuple):
    """Checked input; x and y are centred and scaled as asked, the offsets lead back."""

    x: Float[np.ndarray, "n p"]
    y: Float[np.ndarray, " n"]
    x_mean: Float[np.ndarray, " p"]
    x_scale: Float[np.ndarray, " p"]
    y_mean: float
    fit_intercept: bool


class Spectrum(NamedTuple):
    """One decomposition X = U diag(s) V^T that serves every alpha.

    Tall X (n > p): `right` = V and `moment` = V^T X^T y. Wide X (n <= p): `left` = U, a complete
    basis of the n residuals (of those of zero mean, with an intercept), and `moment` = U^T y.
    `eigenvalues` = s^2, zero where s is rounding noise.
    """

    eigenvalues: Float[np.ndarray, " k"]
    moment: Float[np.ndarray, " k"]
    right: Float[np.ndarray, "p k"] | None
    left: Float[np.ndarray, "n k"] | None
    orthogonal: float | None  # |y - U U^T y|^2 where the decomposition gives it
    condition: float
    rank: int
    method: str


def real_array(values: ArrayLike, name: str, ndim: int, check: bool = True) -> np.ndarray:
    """Return `values` as a finite float64 array of `ndim` dimensions, or raise DataError.

    Without `check` the caller finds bad entries at less cost, see `gram_matrix`.
    """
    try:
        raw = np.asarray(values)
        if np.iscomplexobj(raw):
            raise TypeError("complex numbers")
        array = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(name, f"is not an array of real numbers ({error})", "repair it") from error
    if array.ndim != ndim or array.size == 0:
        shape = "(n, p)" if ndim == 2 else "(n,)"
        raise DataError(name, f"has shape {array.shape}", f"give a non-empty {shape} array")
    if check:
        flat = array.ravel(order="K")
        with np.errstate(over="ignore", invalid="ignore"):
            _check_squares(flat @ flat, array, name)
    return array


def _check_squares(squares: np.ndarray, array: np.ndarray, name: str) -> None:
    """Refuse `array` if its sums of squares are not finite; then only look at each entry."""
    if np.all(squares < LARGEST**2):
        return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise DataError(name, f"entry {where} is not finite", "repair or drop that row")
    raise DataError(name, f"is too large to square (sum beyond {LARGEST:g}^2)", "rescale it")


def gram_matrix(x: Matrix) -> Float[np.ndarray, "p p"]:
    """X^T X; its diagonal shows entries that are not finite, which saves a pass over X."""
    with np.errstate(over="ignore", invalid="ignore"):
        gram = x.T @ x
    _check_squares(gram.diagonal(), x, "X")
    return np.asarray(gram)


def rows_and_targets(X: ArrayLike, y: ArrayLike, check: bool = True) -> tuple[Matrix, Vector]:
    """X and y as float64 arrays of one length; `check` as in `real_array`, for X."""
    x, target = real_array(X, "X", 2, check), real_array(y, "y", 1)
    if len(x) != len(target):
        what = f"X has {len(x)} rows and y {len(target)}"
        raise DataError("X, y", what, "give one target per row")
    return x, target


def prepare(X: ArrayLike, y: ArrayLike, fit_intercept: bool, scale: bool) -> Problem:
    """Check X (its entries in `gram_matrix` if it is not touched here) and y, centre and scale."""
    x, target = rows_and_targets(X, y, check=fit_intercept or scale)
    if fit_intercept and len(x) < 2:
        raise DataError("X", "has one row", "an intercept needs at least two")
    x_mean, y_mean = np.zeros(x.shape[1]), 0.0
    if fit_intercept:
        x_mean, y_mean = x.mean(axis=0), float(target.mean())
        x, target = x - x_mean, target - y_mean
    x_scale = np.ones(x.shape[1])
    if scale:
        rms = np.sqrt(np.einsum("ij,ij->j", x, x) / len(x))
        # An empty column keeps weight zero; centring a constant one leaves rounding, not zeros.
        empty = rms <= len(x) * np.finfo(float).eps * np.abs(x_mean)
        x_scale = np.where(empty, 1.0, rms)
        x = np.where(empty, 0.0, x / x_scale)
    return Problem(x, target, x_mean, x_scale, y_mean, fit_intercept)


def features(X: ArrayLike, p: int) -> Matrix:
    """Checked features of a model with p weights."""
    x = real_array(X, "X", 2)
    if x.shape[1] != p:
        raise DataError("X", f"has {x.shape[1]} columns, the model {p}", "give the same features")
    return x


def penalties(alphas: ArrayLike) -> Float[np.ndarray, " a"]:
    """Checked penalties: a non-empty list of finite numbers >= 0."""
    try:
        array = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ConfigError("alphas", "are not numbers", "give penalties >= 0") from error
    if array.ndim != 1 or array.size == 0:
        raise ConfigError("alphas", f"have shape {array.shape}", "give a non-empty list")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        bad = array[~(np.isfinite(array) & (array >= 0))][0]
        raise ConfigError("alphas", f"hold {bad:g}", "give finite penalties >= 0")
    return array


def _is_tall(problem: Problem) -> bool:
    return bool(problem.x.shape[0] - problem.fit_intercept > problem.x.shape[1])


def rotate(problem: Problem, array: np.ndarray) -> np.ndarray:
    """With an intercept: the n - 1 coordinates orthogonal to the constant vector."""
    return _reflect(array)[1:] if problem.fit_intercept else array


def _rotate_back(problem: Problem, basis: np.ndarray) -> np.ndarray:
    if not problem.fit_intercept:
        return basis
    return _reflect(np.concatenate([np.zeros((1, basis.shape[1])), basis]))


def _reflect(array: np.ndarray) -> np.ndarray:
    """Householder reflection that swaps the constant unit vector and -e_1."""
    vector = np.full(len(array), 1 / np.sqrt(len(array)))
    vector[0] += 1.0
    return np.asarray(array - np.multiply.outer(vector, vector @ array) / vector[0])


def _gram_spectrum(problem: Problem, shift: float) -> Spectrum | None:
    """Eigendecomposition of the smaller Gram matrix; None when too ill-conditioned for it.

    The relative rounding error of the solution is about eps * (largest eigenvalue) /
    (smallest eigenvalue + shift), shift being the smallest penalty.
    """
    tall = _is_tall(problem)
    x, y = (problem.x, problem.y) if tall else (rotate(problem, a) for a in problem[:2])
    gram = gram_matrix(x if tall else x.T)
    eigenvalues, vectors = np.linalg.eigh(gram)
    largest = eigenvalues[-1]
    eigenvalues = np.maximum(eigenvalues, 0.0)
    if not eigenvalues[0] + shift > largest / GRAM_CONDITION**2:
        return None
    if eigenvalues[0] > largest / RESOLVED_CONDITION**2:
        condition, rank = float(np.sqrt(largest / eigenvalues[0])), len(gram)
    else:
        condition, rank = condition_and_rank(x)
    if tall:
        moment = vectors.T @ (x.T @ y)
        return Spectrum(eigenvalues, moment, vectors, None, None, condition, rank, "gram")
    moment, left = vectors.T @ y, _rotate_back(problem, vectors)
    return Spectrum(eigenvalues, moment, None, left, 0.0, condition, rank, "gram-dual")


def triangular_condition(r: Float[np.ndarray, "p p"], largest_allowed: float) -> float | None:
    """Condition number of an upper triangular matrix by Lanczos iteration on it and its inverse.

    Costs O(p^2) per step; None where that fails or finds more than `largest_allowed`.
    """
    diagonal = np.abs(r.diagonal())
    if len(r) <= 2 or diagonal.min() * largest_allowed <= diagonal.max():
        return None

    def inverse(v: Vector) -> Vector:
        half = scipy.linalg.solve_triangular(r, v, trans="T", check_finite=False)
        return np.asarray(scipy.linalg.solve_triangular(r, half, check_finite=False))

    start = np.random.default_rng(0).standard_normal(len(r))  # any, but the same every time
    product = 1.0
    for apply in (lambda v: r.T @ (r @ v), inverse):
        operator = scipy.sparse.linalg.LinearOperator(r.shape, apply, dtype=np.float64)
        try:
            product *= scipy.sparse.linalg.eigsh(
                operator, 1, v0=start, tol=1e-7, return_eigenvectors=False
            )[0]
        except scipy.sparse.linalg.ArpackNoConvergence:
            return None
    condition = float(np.sqrt(product))
    return condition if condition < largest_allowed else None


def condition_and_rank(x: Matrix) -> tuple[float, int]:
    """Ratio of the extreme singular values of x, from QR; inf below rank min(n, p)."""
    tall = x if x.shape[0] > x.shape[1] else x.T
    r = scipy.linalg.qr(tall, mode="r", check_finite=False)[0][: tall.shape[1]]
    noise = np.finfo(float).eps * max(x.shape)
    condition = triangular_condition(r, 1 / noise)
    if condition is not None:
        return condition, len(r)
    singular = np.linalg.svd(r, compute_uv=False)
    rank = int(np.sum(singular > noise * singular[0]))
    return (float(singular[0] / singular[-1]) if rank == len(r) else np.inf), rank


def _svd_spectrum(problem: Problem) -> Spectrum:
    """Singular values without squaring: QR of [X y], then SVD of R (tall); SVD of X (wide)."""
    x, y, (n, p), tall = problem.x, problem.y, problem.x.shape, _is_tall(problem)
    if tall:
        # The last column of R is Q^T y, so that Q itself is never formed.
        r = scipy.linalg.qr(np.column_stack([x, y]), mode="r", check_finite=False)[0]
        u, s, vt = np.linalg.svd(r[:p, :p])
        orthogonal = float(r[p, p] ** 2)
        projected = u.T @ r[:p, p]
    else:
        u, s, _ = np.linalg.svd(rotate(problem, x), full_matrices=False)
        orthogonal, projected = 0.0, u.T @ rotate(problem, y)
    keep = s > np.finfo(float).eps * max(n, p) * s[0]
    rank = int(keep.sum())
    condition = float(s[0] / s[-1]) if rank == len(s) else np.inf
    s = np.where(keep, s, 0.0)
    if tall:
        orthogonal += float(np.sum(projected[~keep] ** 2))
        kept = vt[keep].T
        return Spectrum(
            s[keep] ** 2, (s * projected)[keep], kept, None, orthogonal, condition, rank, "qr-svd"
        )
    left = _rotate_back(problem, u)
    return Spectrum(s**2, projected, None, left, orthogonal, condition, rank, "svd")


def decompose(problem: Problem, shift: float) -> Spectrum:
    """Spectrum by the Gram matrix where that is accurate enough at `shift`, else by SVD."""
    return _gram_spectrum(problem, shift) or _svd_spectrum(problem)
