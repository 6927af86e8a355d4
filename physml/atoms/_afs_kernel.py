"""Angular Fourier series (AFS) as a pure function of the vectors to the neighbours.

Radial functions. The paper's g = S^(-1/2) phi mixes phi_a(r) ~ (r_c - r)^(a+2), a nearly
dependent set: beyond n_max = 8 its float64 transform is rounding noise. The same span has the
orthonormal basis h_k(r) = t^3 p_k(t) / sqrt(r_c), t = 1 - r/r_c, with p_k the orthonormal Jacobi
polynomials of weight t^6 on [0, 1]. So g = O h with an orthogonal matrix O, the polar factor of
the Cholesky factor of S. O is found once in extended precision; all that is evaluated in float64
is then well conditioned.

Angular part. cos(l theta) is a sum of Legendre polynomials, each a sum over the orders m of
products of one function of j and one of k (addition theorem): no loop over pairs remains. The
functions factor into a polynomial of z times the real or imaginary part of (x + iy)^m, so all
sums over the neighbours of an atom are one small matrix product. The terms j = k are subtracted.
No angle is ever formed: collinear neighbours are ordinary points, also for gradients.
"""

from __future__ import annotations

import decimal
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.polynomial import chebyshev, legendre

from physml.errors import ConfigError

N_MAX, L_MAX = 20, 30  # tested against extended precision up to here
BEYOND = 2.0  # cutoffs: where padding is put, so that it counts nothing and divides nothing by zero


class Tables(NamedTuple):
    """Fixed numbers of the kernel for one n_max and l_max (host arrays, float64).

    | field      | shape                        | meaning                                       |
    |------------|------------------------------|-----------------------------------------------|
    | `centre`   | (n_max - 1,)                 | a_k in the recurrence of p_k, argument 2t - 1 |
    | `couple`   | (n_max,)                     | b_k in the same; b_0 = 0                      |
    | `rotation` | (n_max, n_max)               | O in g = O h                                  |
    | `degree`   | (orders, l_max + 1, heights) | per order m and degree l: weights of heights  |
    | `cosine`   | (l_max + 1, l_max + 1)       | cos(l theta) in Legendre polynomials          |
    """

    centre: Float[np.ndarray, " n-1"]
    couple: Float[np.ndarray, " n"]
    rotation: Float[np.ndarray, "n n"]
    degree: Float[np.ndarray, "m l k"]
    cosine: Float[np.ndarray, "l l"]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Gauss-Jordan inverse of a matrix of `Decimal`."""
    n = len(matrix)
    work = np.hstack([matrix, np.eye(n, dtype=int).astype(object) * decimal.Decimal(1)])
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
    """O = S^(-1/2) C with S = C C^T: the polar factor of C, by Newton's iteration.

    The condition of C passes 1e15 at n_max = 20, so the work is done with 100 decimal digits.
    Newton: Higham, SIAM J. Sci. Stat. Comput. 7, 1160 (1986).
    """
    with decimal.localcontext(decimal.Context(prec=100)):
        root = [decimal.Decimal(5 + 2 * a).sqrt() for a in range(1, n_max + 1)]
        overlap = [[x * y / (7 + a + b) for b, y in enumerate(root)] for a, x in enumerate(root)]
        factor = _cholesky(np.array(overlap, dtype=object))
        moved = decimal.Decimal(1)
        while moved > decimal.Decimal("1e-30"):
            inverse = _inverse(factor).T
            scale = (np.sum(inverse**2) / np.sum(factor**2)).sqrt().sqrt()
            update = (factor * scale + inverse / scale) / 2
            moved = np.max(np.abs(update - factor))
            factor = update
        return np.asarray(factor, dtype=np.float64)


def _grid(l_max: int) -> tuple[int, int]:
    """Width and height of the smallest near-square grid with l_max + 1 points."""
    width = int(np.ceil(np.sqrt(l_max + 1)))
    return width, -(-(l_max + 1) // width)


def _degree_maps(l_max: int) -> Float[np.ndarray, "m l k"]:
    """Weights that turn sums of (height function k) x (order m) into spherical harmonics.

    P_l(u.v) = sum_m N_lm^2 P_l^(m)(z_u) P_l^(m)(z_v) Re[(x+iy)_u^m conj (x+iy)_v^m], with P^(m) the
    m-th derivative and N_lm^2 = (2 - delta_m0) (l-m)! / (l+m)!. N_lm P_l^(m) is written in the
    height functions T_a T_{wb} by interpolation at Chebyshev nodes.
    """
    width, height = _grid(l_max)
    size = width * height
    nodes = chebyshev.chebpts1(size)
    values = chebyshev.chebvander(nodes, width * (height - 1) + width - 1)
    products = values[:, None, :width] * values[:, : width * height : width, None]
    to_heights = np.linalg.inv(products.reshape(size, size))
    maps = np.zeros((2, size, l_max + 1, size))
    for degree in range(l_max + 1):
        series, norm = np.eye(l_max + 1)[degree], 1.0
        for order in range(degree + 1):
            if order:
                series = legendre.legder(series)
                norm /= (degree - order + 1) * (degree + order)
            weights = to_heights @ legendre.legval(nodes, series)
            maps[: 2 if order else 1, order, degree] = np.sqrt(norm * (2 if order else 1)) * weights
    return maps.reshape(2 * size, l_max + 1, size)


def _cosine_map(l_max: int) -> Float[np.ndarray, "l l"]:
    """Coefficients of T_l in Legendre polynomials, by quadrature that is exact at these degrees."""
    x, weight = legendre.leggauss(l_max + 1)
    project = legendre.legvander(x, l_max) * (np.arange(l_max + 1) + 0.5) * weight[:, None]
    return chebyshev.chebvander(x, l_max).T @ project


@functools.cache
def tables(n_max: int, l_max: int) -> Tables:
    """Fixed numbers of the kernel; see `Tables`.

    Raises:
        ConfigError: n_max outside 1..20 or l_max outside 0..30.
    """
    for name, value, low, high in (("n_max", n_max, 1, N_MAX), ("l_max", l_max, 0, L_MAX)):
        whole = isinstance(value, int | np.integer)
        if not whole or not low <= value <= high:
            raise ConfigError(name, f"is {value}", f"give a whole number from {low} to {high}")
    k = np.arange(float(n_max))
    couple = k * (k + 6) / ((k + 3) * np.sqrt((2 * k + 7) * (2 * k + 5)))
    centre = 9.0 / ((k[:-1] + 3) * (k[:-1] + 4))
    return Tables(centre, couple, _rotation(n_max), _degree_maps(l_max), _cosine_map(l_max))


def radial(r: Float[Array, "b j"], n_max: int, cutoff: float | Array) -> Float[Array, "b n j"]:
    """g_n(r), zero from the cutoff on, Å^(-1/2)."""
    table = tables(n_max, 0)
    t = jnp.maximum(1.0 - r / cutoff, 0.0)
    x = 2.0 * t - 1.0
    terms = [t**3 * (np.sqrt(7.0) / jnp.sqrt(jnp.asarray(cutoff, r.dtype)))]
    for k in range(n_max - 1):
        before = table.couple[k] * terms[k - 1]  # k = 0: zero times the only term
        terms.append(((x - table.centre[k]) * terms[k] - before) / table.couple[k + 1])
    # A product with O: as a sum it would be fused into, and repeated by, all that uses g.
    return jnp.einsum("nk,kbj->bnj", jnp.asarray(table.rotation, r.dtype), jnp.stack(terms))


def _stacked(values: Sequence[Float[Array, "*b j"]]) -> Float[Array, "*b k j"]:
    """Stack on the axis before the last by selection: XLA's CPU loop over it is vectorised.

    `jnp.stack` becomes a concatenation that branches at every element.
    """
    place = np.arange(len(values))[:, None]
    total = values[-1][..., None, :]
    for k in range(len(values) - 2, -1, -1):
        total = jnp.where(place == k, values[k][..., None, :], total)
    return jnp.broadcast_to(total, (*values[0].shape[:-1], len(values), values[0].shape[-1]))


def _heights(z: Float[Array, "*b j"], l_max: int) -> Float[Array, "*b h w j"]:
    """Products T_{wb}(z) T_a(z), a < w, b < h: they span all polynomials up to degree l_max.

    Products of two short stacks cost less to fill than a stack of l_max + 1 recurrences.
    """
    width, height = _grid(l_max)
    values = [jnp.ones_like(z), z]
    while len(values) <= width * (height - 1):
        values.append(2.0 * z * values[-1] - values[-2])
    short, long = _stacked(values[:width]), _stacked(values[: width * height : width][:height])
    return long[..., :, None, :] * short[..., None, :, :]


def _orders(
    x: Float[Array, "*b j"], y: Float[Array, "*b j"], l_max: int
) -> Float[Array, "*b 2 h w j"]:
    """Real and imaginary parts of (x + iy)^(wb + a), as products of two short stacks."""
    width, height = _grid(l_max)
    powers = [(jnp.ones_like(x), jnp.zeros_like(y)), (x, y)]
    while len(powers) <= width * (height - 1):
        a, b = powers[-1]
        powers.append((a * x - b * y, a * y + b * x))
    a, b = (_stacked(part)[..., None, :, :] for part in zip(*powers[:width], strict=True))
    steps = powers[: width * height : width][:height]
    c, d = (_stacked(part)[..., :, None, :] for part in zip(*steps, strict=True))
    return jnp.stack([a * c - b * d, a * d + b * c], axis=-4)


def radial_pairs(n_max: int, tensor: bool) -> tuple[np.ndarray, np.ndarray]:
    """Radial indices (n, n') of the columns: n = n' only, or all n <= n' (`tensor`)."""
    return np.triu_indices(n_max) if tensor else (np.arange(n_max), np.arange(n_max))


def _flat(values: Array, axes: int) -> Array:
    """Join all axes but the first `axes` and the last."""
    return values.reshape(*values.shape[:axes], -1, values.shape[-1])


class Form(NamedTuple):
    """Which columns to compute; hashable, so static under jit. See `afs` for their meaning."""

    n_max: int = 3
    l_max: int = 10
    tensor: bool = False
    two_body: bool = False

    @property
    def columns(self) -> int:
        """Number of columns."""
        pairs = len(radial_pairs(self.n_max, self.tensor)[0])
        return pairs * (self.l_max + 1) + self.n_max * self.two_body


def afs_of_padded(
    vectors: Float[Array, "b j 3"], form: Form, cutoff: float | Array
) -> Float[Array, "b columns"]:
    """AFS of atoms whose padding lies beyond the cutoff; see `afs_of_vectors`."""
    table, n_atoms = tables(form.n_max, form.l_max), len(vectors)
    r = jnp.sqrt(jnp.sum(vectors * vectors, axis=-1))
    x, y, z = (vectors[..., axis] / r for axis in range(3))
    g = radial(r, form.n_max, cutoff)
    rows = _flat(g[:, :, None, None, :] * _heights(z, form.l_max)[:, None], 1)
    moments = jnp.einsum("bkj,bmj->bkm", rows, _flat(_orders(x, y, form.l_max), 1))
    moments = moments.reshape(n_atoms, form.n_max, -1, moments.shape[-1])
    harmonics = jnp.einsum("bnkm,mlk->bnlm", moments, jnp.asarray(table.degree, r.dtype))
    first, second = radial_pairs(form.n_max, form.tensor)
    power = jnp.sum(harmonics[:, first] * harmonics[:, second], axis=-1)
    itself = jnp.sum(g[:, first] * g[:, second], axis=-1)
    columns = 0.5 * (power @ jnp.asarray(table.cosine.T, r.dtype) - itself[..., None])
    columns = columns.reshape(n_atoms, -1)
    return jnp.concatenate([columns, g.sum(axis=-1)], axis=1) if form.two_body else columns


def afs_of_vectors(
    vectors: Float[Array, "*b j 3"],
    mask: Bool[Array, "*b j"],
    form: Form = Form(),  # noqa: B008 (an immutable NamedTuple)
    cutoff: float | Array = 5.0,
) -> Float[Array, "*b columns"]:
    """AFS from the vectors to the neighbours of each atom: pure, for jit, vmap and grad.

    Args:
        vectors: from the atom to its neighbours, Å; anything may stand outside the mask.
        mask: True where there is a neighbour.
        form: n_max (1 to 20), l_max (0 to 30), tensor, two_body; static under jit.
        cutoff: Å; neighbours beyond it count nothing.

    Returns:
        Columns as in `afs`, in the dtype of `vectors`. Gradients are finite everywhere, collinear
        and masked neighbours included. Without neighbours the row is zero.

    Raises:
        ConfigError: n_max or l_max out of range.
    """
    vectors, mask = jnp.asarray(vectors), jnp.asarray(mask)
    padded = jnp.where(mask[..., None], vectors, jnp.asarray(BEYOND * cutoff, vectors.dtype))
    columns = afs_of_padded(padded.reshape(-1, *padded.shape[-2:]), form, cutoff)
    return columns.reshape(*padded.shape[:-2], -1)
