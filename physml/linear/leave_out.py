"""Exact leave-one-out and leave-one-group-out residuals of a ridge path."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from physml.errors import DataError
from physml.linear.decomposition import Problem, Spectrum, Vector

# Below this 1 - h (or pivot of I - H_gg) is rounding noise: the left-out residual is unresolved.
LEVERAGE_FLOOR = 1e-9
ROWS = 1024  # rows per block: a block stays in cache


def _filters(spectrum: Spectrum, alphas: Vector) -> Float[np.ndarray, "k a"]:
    """Diagonal D with H = Z D Z^T for tall X (Z = X V); with I - H = U D U^T for wide X."""
    shifted = spectrum.eigenvalues[:, None] + alphas
    numerator = np.ones_like(shifted) if spectrum.left is None else alphas + 0 * shifted
    return np.asarray(np.divide(numerator, shifted, out=np.zeros_like(shifted), where=shifted > 0))


def _basis(problem: Problem, spectrum: Spectrum, rows: slice | np.ndarray) -> np.ndarray:
    """Rows of Z = X V (tall) or of U (wide), see `_filters`."""
    if spectrum.left is not None:
        return np.asarray(spectrum.left[rows])
    return np.asarray(problem.x[rows] @ spectrum.right)


def _residuals(
    problem: Problem, spectrum: Spectrum, alphas: Vector
) -> tuple[Float[np.ndarray, "a n"], Float[np.ndarray, "a n"]]:
    """Training residuals and 1 - h per alpha and row, in blocks of rows."""
    n, tall = len(problem.y), spectrum.left is None
    filters = _filters(spectrum, alphas).T
    weighted = filters * spectrum.moment
    residuals, rest = np.empty((len(alphas), n)), np.empty((len(alphas), n))
    for start in range(0, n, ROWS):
        rows = slice(start, start + ROWS)
        z = _basis(problem, spectrum, rows).T
        np.matmul(weighted, z, out=residuals[:, rows])
        np.matmul(filters, z * z, out=rest[:, rows])
    if tall:
        np.subtract(problem.y, residuals, out=residuals)
        np.subtract(1.0 - problem.fit_intercept / n, rest, out=rest)
    return residuals, rest


def _floor(spectrum: Spectrum) -> float:
    """1 - h of wide X is a sum of positive terms: exact however small. Of tall X it cancels."""
    return LEVERAGE_FLOOR if spectrum.left is None else 0.0


def left_out_rows(problem: Problem, spectrum: Spectrum, alphas: Vector) -> Float[np.ndarray, "a n"]:
    """Exact leave-one-out residuals r / (1 - h); inf where 1 - h is not resolved."""
    residuals, rest = _residuals(problem, spectrum, alphas)
    if rest.min() > _floor(spectrum):
        return np.asarray(np.divide(residuals, rest, out=residuals))
    resolved = rest > _floor(spectrum)
    return np.asarray(np.divide(residuals, rest, out=np.full_like(rest, np.inf), where=resolved))


def left_out_groups(
    problem: Problem, spectrum: Spectrum, alphas: Vector, labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "a n"]:
    """Exact leave-one-group-out residuals (I - H_gg)^-1 r_g, groups of one size at a time."""
    residuals, _ = _residuals(problem, spectrum, alphas)
    filters = _filters(spectrum, alphas)
    left_out = np.empty_like(residuals)
    for members in _batches(labels, len(spectrum.eigenvalues)):
        z = _basis(problem, spectrum, members.ravel()).reshape(*members.shape, -1)
        for a in range(len(alphas)):
            left_out[a, members] = _solve_blocks(
                problem, spectrum, z, filters[:, a], residuals[a, members]
            )
    return left_out


def _batches(labels: Int[np.ndarray, " n"], width: int) -> Iterator[Int[np.ndarray, "g m"]]:
    """Row numbers (groups, members) of groups of equal size, a bounded number at a time."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    for size in np.unique(counts):
        first = starts[counts == size]
        step = max(1, 2**22 // int(size * max(size, width)))
        for k in range(0, len(first), step):
            yield order[first[k : k + step, None] + np.arange(size)]


def _solve_blocks(
    problem: Problem,
    spectrum: Spectrum,
    z: Float[np.ndarray, "g m k"],
    diagonal: Float[np.ndarray, " k"],
    residuals: Float[np.ndarray, "g m"],
) -> Float[np.ndarray, "g m"]:
    """Solve (I - H_gg) x = r for a batch of groups, in the smaller of the two dimensions."""
    share, wide = problem.fit_intercept / len(problem.y), spectrum.left is not None
    floor = _floor(spectrum)
    if wide or z.shape[1] <= z.shape[2]:
        block = (z * diagonal) @ z.swapaxes(1, 2)
        block = block if wide else np.eye(z.shape[1]) - share - block
        return _solve_positive(block, residuals, floor)
    # Woodbury: (I - F F^T)^-1 r = r + F (I - F^T F)^-1 F^T r, the intercept a column of F.
    factor = z * np.sqrt(diagonal)
    if share:
        factor = np.concatenate([factor, np.full((*z.shape[:2], 1), np.sqrt(share))], axis=2)
    small = np.eye(factor.shape[2]) - factor.swapaxes(1, 2) @ factor
    inner = _solve_positive(small, np.einsum("gmk,gm->gk", factor, residuals), floor)
    return np.asarray(residuals + np.einsum("gmk,gk->gm", factor, inner))


def _solve_positive(
    blocks: Float[np.ndarray, "g m m"], right: Float[np.ndarray, "g m"], floor: float
) -> Float[np.ndarray, "g m"]:
    """Solve positive definite systems; inf for a batch in which one is not resolved."""
    try:
        pivots = np.linalg.cholesky(blocks).diagonal(axis1=1, axis2=2) ** 2
    except np.linalg.LinAlgError:
        return np.full_like(right, np.inf)
    solution = np.linalg.solve(blocks, right[..., None])[..., 0]
    return np.where(pivots.min(axis=1)[:, None] > floor, solution, np.inf)


def group_labels(groups: ArrayLike, n: int, at_least: int = 2) -> Int[np.ndarray, " n"]:
    """Number the groups 0, 1, ...; refuse a wrong length or too few groups."""
    array = np.asarray(groups)
    if array.shape != (n,):
        raise DataError("groups", f"have shape {array.shape}, not ({n},)", "give one per row")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("groups", "hold a label that is not finite", "give every row a group")
    try:
        names, labels = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise DataError("groups", f"cannot be sorted ({error})", "give one type") from error
    if len(names) < at_least:
        raise DataError("groups", "hold one group only", "give at least two groups")
    return labels.reshape(n)
