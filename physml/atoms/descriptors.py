"""Angular Fourier series (AFS) of atomic environments, and extensive sums built on them.

A_{n,l}(i) = sum over pairs j < k of neighbours of i:  g_n(r_ij) g_n(r_ik) cos(l theta_jik),
Bartok, Kondor, Csanyi, Phys. Rev. B 87, 184115 (2013), with n = 1..n_max, l = 0..l_max.

Radial functions. The paper's g = S^(-1/2) phi mixes phi_a(r) ~ (r_c - r)^(a+2), a nearly
dependent set: beyond n_max = 8 its float64 transform is rounding noise. The same span has the
orthonormal basis h_k(r) = t^3 p_k(t) / sqrt(r_c), t = 1 - r/r_c, with p_k the Jacobi polynomials
of weight t^6. So g = O h with an orthogonal matrix O (the polar factor of the Cholesky factor of
S), found once in extended precision; everything evaluated in float64 is then well conditioned.

Angular part. cos(l theta) is a sum of Legendre polynomials, each a sum over the orders m of
products of one function of j and one of k (addition theorem): no loop over pairs remains. The
functions factor into T_k(z) times the real or imaginary part of (x + iy)^m, so all sums over
neighbours of an atom are one small matrix product. The terms j = k are subtracted. No angle is
ever formed: collinear neighbours are ordinary points, also for gradients.
"""

from __future__ import annotations

import decimal
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import vesin
from ase import Atoms
from jaxtyping import Array, Bool, Float, Int
from scipy import sparse

from physml.atoms.neighbors import MIN_DISTANCE, check_atoms
from physml.errors import ConfigError, DataError
from physml.precision import float64

N_MAX, L_MAX = 20, 30  # the ranges that the tests cover against extended precision
CHUNK = 64  # atoms per call of the kernel: its intermediates stay in the second-level cache
BLOCK = 40_000  # atoms per neighbour list: bounds the memory of large structures


class Tables(NamedTuple):
    """Fixed numbers of the kernel for one n_max and l_max (host arrays, float64).

    | field      | shape                          | meaning                                      |
    |------------|--------------------------------|----------------------------------------------|
    | `centre`   | (n_max,)                       | a_k of 2t - 1, recurrence of p_k             |
    | `couple`   | (n_max + 1,)                   | b_k of the same                              |
    | `rotation` | (n_max, n_max)                 | O in g = O h                                 |
    | `legendre` | (2 l_max + 1, l_max + 1, l_max + 1) | order m, degree l: coefficients of T_k(z) |
    | `cosine`   | (l_max + 1, l_max + 1)         | cos(l theta) in Legendre polynomials         |
    """

    centre: Float[np.ndarray, " n"]
    couple: Float[np.ndarray, " n1"]
    rotation: Float[np.ndarray, "n n"]
    legendre: Float[np.ndarray, "m l l"]
    cosine: Float[np.ndarray, "l l"]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Gauss-Jordan inverse of a matrix of `Decimal`; the matrices here need no pivoting by size."""
    n = len(matrix)
    work = np.hstack([matrix, np.vectorize(decimal.Decimal, otypes=[object])(np.eye(n, dtype=int))])
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(work[k:, k])))
        work[[k, pivot]] = work[[pivot, k]]
        work[k] = work[k] / work[k, k]
        others = np.arange(n) != k
        work[others] -= np.outer(work[others, k], work[k])
    return work[:, n:]


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    lower = np.full_like(matrix, decimal.Decimal(0))
    for i in range(len(matrix)):
        for j in range(i + 1):
            rest = matrix[i, j] - sum(lower[i, :j] * lower[j, :j], decimal.Decimal(0))
            lower[i, j] = rest.sqrt() if i == j else rest / lower[j, j]
    return lower


@functools.cache
def _rotation(n_max: int) -> Float[np.ndarray, "n n"]:
    """O = S^(-1/2) C with S = C C^T: the orthogonal polar factor of C, by Newton's iteration.

    The condition of C passes 1e15 at n_max = 20, so the work is done with 100 decimal digits.
    """
    with decimal.localcontext(decimal.Context(prec=100)):
        root = [decimal.Decimal(5 + 2 * a).sqrt() for a in range(1, n_max + 1)]
        overlap = [[x * y / (7 + a + b) for b, y in enumerate(root)] for a, x in enumerate(root)]
        factor = _cholesky(np.array(overlap, dtype=object))
        for _ in range(100):
            inverse = _inverse(factor).T
            scale = (np.sum(inverse**2) / np.sum(factor**2)).sqrt().sqrt()
            update = (factor * scale + inverse / scale) / 2
            moved = np.max(np.abs(update - factor))
            factor = update
            if moved < decimal.Decimal("1e-30"):
                break
        return factor.astype(np.float64)


def _legendre_maps(l_max: int) -> tuple[np.ndarray, np.ndarray]:
    """`legendre` and `cosine` of `Tables`, from values at quadrature nodes.

    P_l(u.v) = sum_m N_lm^2 P_l^(m)(z_u) P_l^(m)(z_v) Re[(x+iy)_u^m conj (x+iy)_v^m], with P^(m) the
    m-th derivative and N_lm^2 = (2 - delta_m0) (l-m)! / (l+m)!.
    """
    polynomial, size = np.polynomial, l_max + 1
    nodes = polynomial.chebyshev.chebpts1(size)
    to_chebyshev = np.linalg.inv(polynomial.chebyshev.chebvander(nodes, l_max))
    legendre = np.zeros((2 * l_max + 1, size, size))
    for degree in range(size):
        series, norm = np.eye(size)[degree], 1.0
        for order in range(degree + 1):
            if order:
                series = polynomial.legendre.legder(series)
                norm /= (degree - order + 1) * (degree + order)
            weight = np.sqrt(norm * (2 if order else 1))
            row = to_chebyshev @ (weight * polynomial.legendre.legval(nodes, series))
            legendre[order, degree] = row
            legendre[l_max + order if order else 0, degree] = row
    x, w = polynomial.legendre.leggauss(size)
    projector = polynomial.legendre.legvander(x, l_max) * (np.arange(size) + 0.5) * w[:, None]
    cosine = polynomial.chebyshev.chebvander(x, l_max).T @ projector
    return legendre, cosine


@functools.cache
def tables(n_max: int, l_max: int) -> Tables:
    """Fixed numbers of the kernel; see `Tables`.

    Raises:
        ConfigError: n_max outside 1..20 or l_max outside 0..30.
    """
    if not 1 <= n_max <= N_MAX:
        raise ConfigError("n_max", f"is {n_max}", f"give 1 to {N_MAX} radial functions")
    if not 0 <= l_max <= L_MAX:
        raise ConfigError("l_max", f"is {l_max}", f"give an angular order from 0 to {L_MAX}")
    k = np.arange(n_max + 1.0)
    couple = k * (k + 6) / ((k + 3) * np.sqrt((2 * k + 7) * (2 * k + 5)))
    centre = 9.0 / ((k + 3) * (k + 4))
    return Tables(centre[:-1], couple, _rotation(n_max), *_legendre_maps(l_max))


def _radial(
    r: Float[Array, "*b j"], cutoff: float | Array, table: Tables
) -> Float[Array, "*b n j"]:
    """g_n(r), zero from the cutoff on (Å^-1/2)."""
    t = jnp.maximum(1.0 - r / cutoff, 0.0)
    x = 2.0 * t - 1.0
    term = t**3 * (np.sqrt(7.0) / jnp.sqrt(jnp.asarray(cutoff, r.dtype)))
    before = jnp.zeros_like(term)
    rotation = jnp.asarray(table.rotation, r.dtype)
    total = rotation[:, :1] * term[..., None, :]
    for k in range(len(table.centre) - 1):
        after = ((x - table.centre[k]) * term - table.couple[k] * before) / table.couple[k + 1]
        before, term = term, after
        total = total + rotation[:, k + 1 : k + 2] * term[..., None, :]
    return total


def _chebyshev(z: Float[Array, "*b j"], top: int) -> Float[Array, "*b k j"]:
    """T_0..T_top of z, doubled in size by T_{a+b} = 2 T_a T_b - T_{a-b}."""
    rows = jnp.stack([jnp.ones_like(z), z], axis=-2)[..., : top + 1, :]
    while (last := rows.shape[-2] - 1) < top:
        new = min(last, top - last)
        lower = jnp.flip(rows[..., last - new : last, :], axis=-2)
        fresh = 2.0 * rows[..., last:, :] * rows[..., 1 : new + 1, :] - lower
        rows = jnp.concatenate([rows, fresh], axis=-2)
    return rows


def _circular(
    x: Float[Array, "*b j"], y: Float[Array, "*b j"], top: int
) -> Float[Array, "*b m j"]:
    """Real parts of (x + iy)^m, m = 0..top, then imaginary parts, m = 1..top."""
    real = jnp.stack([jnp.ones_like(x), x], axis=-2)[..., : top + 1, :]
    imag = jnp.stack([jnp.zeros_like(y), y], axis=-2)[..., : top + 1, :]
    while (last := real.shape[-2] - 1) < top:
        new = slice(1, min(last, top - last) + 1)
        a, b, c, d = real[..., last:, :], imag[..., last:, :], real[..., new, :], imag[..., new, :]
        real = jnp.concatenate([real, a * c - b * d], axis=-2)
        imag = jnp.concatenate([imag, a * d + b * c], axis=-2)
    return jnp.concatenate([real, imag[..., 1:, :]], axis=-2)


def _pair_list(n_max: int, tensor: bool) -> tuple[np.ndarray, np.ndarray]:
    """Radial indices (n, n') of the columns: n = n' only, or all n <= n' (`tensor`)."""
    if tensor:
        return np.triu_indices(n_max)
    return np.arange(n_max), np.arange(n_max)


def afs_of_vectors(
    vectors: Float[Array, "*b j 3"],
    mask: Bool[Array, "*b j"],
    n_max: int = 3,
    l_max: int = 10,
    cutoff: float | Array = 5.0,
    tensor: bool = False,
) -> Float[Array, "*b columns"]:
    """AFS from the vectors to the neighbours of each atom: pure, for jit, vmap and grad.

    Args:
        vectors: atom to neighbour, Å; entries outside the mask may hold anything finite.
        mask: True where there is a neighbour.
        n_max: radial functions, 1 to 20 (static under jit).
        l_max: largest angular order, 0 to 30 (static under jit).
        cutoff: Å; neighbours beyond it count nothing.
        tensor: give all n <= n', see `afs`.

    Returns:
        Columns as in `afs`, in the dtype of `vectors`. Differentiable everywhere, collinear and
        masked neighbours included. Without neighbours the row is zero.

    Raises:
        ConfigError: n_max or l_max out of range.
    """
    table = tables(n_max, l_max)
    safe = jnp.where(mask[..., None], vectors, 2.0 * cutoff)
    r = jnp.sqrt(jnp.sum(safe * safe, axis=-1))
    unit = safe / r[..., None]
    radial = _radial(r, cutoff, table)
    heights = _chebyshev(unit[..., 2], l_max)
    rows = radial[..., :, None, :] * heights[..., None, :, :]
    circles = _circular(unit[..., 0], unit[..., 1], l_max)
    moments = jnp.einsum("...nkj,...mj->...nkm", rows, circles)
    legendre = jnp.asarray(table.legendre, r.dtype)
    harmonics = jnp.einsum("...nkm,mlk->...nlm", moments, legendre)
    first, second = _pair_list(n_max, tensor)
    power = jnp.sum(harmonics[..., first, :, :] * harmonics[..., second, :, :], axis=-1)
    itself = jnp.sum(radial[..., first, :] * radial[..., second, :], axis=-1)
    cosine = jnp.asarray(table.cosine, r.dtype)
    columns = 0.5 * (power @ cosine.T - itself[..., None])
    return columns.reshape(*columns.shape[:-2], -1)


_kernel = jax.jit(afs_of_vectors, static_argnames=("n_max", "l_max", "tensor"))


def _pairs(
    points: np.ndarray, box: np.ndarray | None, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs: index i and vector to the neighbour."""
    finder = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    i, vectors = finder.compute(points, np.zeros((3, 3)) if box is None else box, box is not None, "iD")
    return i, vectors


@float64
def afs(
    atoms: Atoms, n_max: int = 3, l_max: int = 10, cutoff: float = 5.0
) -> Float[np.ndarray, "n columns"]:
    """x."""
    check_atoms(atoms)
    i, vectors = _pairs(np.ascontiguousarray(atoms.positions), atoms.cell.array, cutoff)
    n = len(atoms)
    i = i.astype(np.int64)
    counts = np.bincount(i, minlength=n)
    capacity = max(8, -(-int(counts.max()) // 8) * 8)
    column = np.arange(i.size) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = -(-n // CHUNK) * CHUNK
    table = np.full((rows, capacity, 3), 2 * cutoff)
    table[i, column] = vectors
    mask = np.zeros((rows, capacity), bool)
    mask[i, column] = True
    out = [
        _kernel(table[s : s + CHUNK], mask[s : s + CHUNK], n_max, l_max, cutoff)
        for s in range(0, rows, CHUNK)
    ]
    return np.concatenate([np.asarray(o) for o in out])[:n]
