"""Angular Fourier series (AFS) of every atom of a structure, or summed over it.

For atom i, over pairs j < k of its neighbours within the cutoff (Bartok, Kondor, Csanyi, Phys.
Rev. B 87, 184115 (2013); for defect entropies: Phys. Rev. Materials 4, 063802 (2020)):

    A_{n,l}(i) = sum_{j<k} g_n(r_ij) g_n(r_ik) cos(l theta_jik),  n = 1..n_max, l = 0..l_max

The host builds neighbour tables, block by block for large structures so that memory stays
bounded; `afs_of_vectors` is the pure function behind the jit line.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import vesin
from ase import Atoms
from jaxtyping import Array, Float, Int
from scipy import sparse

from physml.atoms._afs_kernel import BEYOND, Form, afs_of_padded, afs_of_vectors, tables
from physml.atoms.neighbors import MIN_DISTANCE, check_atoms
from physml.errors import ConfigError, DataError
from physml.precision import float64

__all__ = ["Form", "afs", "afs_of_vectors", "afs_sum"]

BLOCK = 40_000  # atoms per neighbour list: 1e6 atoms then need a few hundred MB, not 10 GB
SLAB = 1024  # atoms per call of the jitted kernel
CHUNK = 8  # atoms per pass of its loop on a CPU, where its intermediates should stay in cache


@functools.partial(jax.jit, static_argnames=("form", "chunk"))
def _slab_rows(
    vectors: Float[Array, "slab j 3"],
    chunks: Int[Array, ""],
    cutoff: Float[Array, ""],
    form: Form,
    chunk: int,
) -> Float[Array, "slab columns"]:
    """AFS of the first `chunks` chunks of a slab; one compilation serves any number of atoms."""

    def step(k: Int[Array, ""], rows: Float[Array, "slab columns"]) -> Float[Array, "slab columns"]:
        part = jax.lax.dynamic_slice_in_dim(vectors, k * chunk, chunk)
        return jax.lax.dynamic_update_slice_in_dim(
            rows, afs_of_padded(part, form, cutoff), k * chunk, axis=0
        )

    start = jnp.zeros((len(vectors), form.columns), vectors.dtype)
    rows: Array = jax.lax.fori_loop(0, chunks, step, start)
    return rows


def _rows(
    table: Float[np.ndarray, "n j 3"], form: Form, cutoff: float
) -> Float[np.ndarray, "n columns"]:
    """AFS of padded neighbours: slabs of one shape, the last one filled up."""
    chunk = CHUNK if jax.default_backend() == "cpu" else SLAB
    rows = np.empty((len(table), form.columns))
    for start in range(0, len(table), SLAB):
        part = table[start : start + SLAB]
        chunks = -(-len(part) // chunk)
        if len(part) < SLAB:
            empty = np.full((SLAB - len(part), *part.shape[1:]), BEYOND * cutoff)
            part = np.concatenate([part, empty])
        filled = _slab_rows(part, chunks, cutoff, form, chunk)
        rows[start : start + SLAB] = np.asarray(filled)[: len(table) - start]
    return rows


def _slots(
    owner: Int[np.ndarray, " entries"], n_own: int, n_points: int
) -> tuple[Int[np.ndarray, " entries"], int]:
    """Where each entry goes in a table with one row per owner, and the columns of that table.

    Entries of points from `n_own` on (halo) go to one slot behind the table. The conversion
    between sparse formats is a counting sort, several times faster than `argsort`.
    """
    entries = np.arange(owner.size + 1, dtype=np.int32)
    ones = np.ones(owner.size, dtype=np.int8)
    by_owner = sparse.csr_array((ones, owner, entries), shape=(owner.size, n_points)).tocsc()
    starts = by_owner.indptr[: n_own + 1]
    counts = np.diff(starts)
    capacity = max(8, -(-int(counts.max(initial=0)) // 8) * 8)
    slots = np.full(owner.size, n_own * capacity)
    offset = np.repeat(np.arange(n_own) * capacity - starts[:-1], counts)
    slots[by_owner.indices[: starts[-1]]] = np.arange(starts[-1]) + offset
    return slots, capacity


def _neighbor_vectors(
    points: Float[np.ndarray, "m 3"],
    box: Float[np.ndarray, "3 3"] | None,
    index: Int[np.ndarray, " m"],
    n_own: int,
    cutoff: float,
    where: object,
) -> Float[np.ndarray, "own j 3"]:
    """Vectors to the neighbours of the first `n_own` points, padded beyond the cutoff."""
    finder = vesin.NeighborList(cutoff=cutoff, full_list=False, sorted=False, n_threads=1)
    cell = np.zeros((3, 3)) if box is None else box
    i, j, vectors, distance = finder.compute(points, cell, box is not None, "ijDd", copy=False)
    if distance.size and distance.min() < MIN_DISTANCE:
        k = int(distance.argmin())
        what = f"atoms {index[i[k]]} and {index[j[k]]} coincide (distance {distance[k]:.1e} Å)"
        raise DataError(where, what, "remove one of them")
    owner = np.concatenate([i, j]).astype(np.int32)
    slots, capacity = _slots(owner, n_own, len(points))
    table = np.full((n_own * capacity + 1, 3), BEYOND * cutoff)
    table[slots[: len(i)]] = vectors
    table[slots[len(i) :]] = -vectors
    return table[:-1].reshape(n_own, capacity, 3)


def _with_images(
    inside: Float[np.ndarray, "n 3"], reach: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, " m"]]:
    """Atoms of the unit cube, then their periodic images within `reach` of it; atom of each."""
    points, index = inside, np.arange(len(inside))
    for axis in range(3):
        turns = int(np.ceil(reach[axis]))
        images, origins = [points], [index]
        for turn in itertools.chain(range(-turns, 0), range(1, turns + 1)):
            moved = points[:, axis] + turn
            near = (moved >= -reach[axis]) & (moved <= 1.0 + reach[axis])
            image = points[near]
            image[:, axis] = moved[near]
            images.append(image)
            origins.append(index[near])
        points, index = np.concatenate(images), np.concatenate(origins)
    return points, index


def _halves(
    points: Float[np.ndarray, "m 3"],
    index: Int[np.ndarray, " m"],
    n_own: int,
    reach: Float[np.ndarray, "3"],
) -> Iterator[tuple[Float[np.ndarray, "h 3"], Int[np.ndarray, " h"], int]]:
    """Cut a brick (its own atoms first, then its halo) until it owns at most BLOCK atoms.

    The cut is at the median of the own atoms along their longest side, so that vacuum or dense
    regions do no harm. Both halves keep a halo of `reach` around their own atoms.
    """
    if n_own <= BLOCK:
        yield points, index, n_own
        return
    own = points[:n_own]
    low, high = own.min(axis=0), own.max(axis=0)
    axis = int(np.argmax((high - low) / reach))
    cut = np.median(own[:, axis])
    cut = cut if cut > low[axis] else 0.5 * (low[axis] + high[axis])
    coordinate = points[:, axis]
    for mine in (coordinate < cut, coordinate >= cut):
        mine[n_own:] = False
        edges = coordinate[mine].min() - reach[axis], coordinate[mine].max() + reach[axis]
        halo = ~mine & (coordinate >= edges[0]) & (coordinate <= edges[1])
        keep = np.concatenate([np.flatnonzero(mine), np.flatnonzero(halo)])
        yield from _halves(points[keep], index[keep], int(mine.sum()), reach)


def _blocks(
    atoms: Atoms, cutoff: float, where: object
) -> Iterator[tuple[Int[np.ndarray, " own"], Float[np.ndarray, "own j 3"]]]:
    """Atoms of each block and the vectors to their neighbours."""
    n, cell = len(atoms), np.ascontiguousarray(atoms.cell.array, dtype=np.float64)
    positions = np.ascontiguousarray(atoms.positions, dtype=np.float64)
    if n <= BLOCK:
        everyone = np.arange(n)
        yield everyone, _neighbor_vectors(positions, cell, everyone, n, cutoff, where)
        return
    inverse = np.linalg.inv(cell)
    reach = 1.0001 * cutoff * np.linalg.norm(inverse, axis=0)  # rounding must not lose a neighbour
    points, index = _with_images((positions @ inverse) % 1.0, reach)
    for part, atom, n_own in _halves(points, index, n, reach):
        table = _neighbor_vectors(part @ cell, None, atom, n_own, cutoff, where)
        yield atom[:n_own], table


def _check(atoms: Atoms, form: Form, cutoff: float, where: object) -> None:
    tables(form.n_max, form.l_max)
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ConfigError("cutoff", f"is {cutoff} Å", "give a positive length in Å")
    check_atoms(atoms, where)


@float64
def afs(
    atoms: Atoms,
    n_max: int = 3,
    l_max: int = 10,
    cutoff: float = 5.0,
    *,
    tensor: bool = False,
    two_body: bool = False,
    where: object = "structure",
) -> Float[np.ndarray, "n columns"]:
    """Angular Fourier series of every atom, Å^-1.

    Args:
        atoms: periodic structure of n atoms; species are not distinguished. The cell may be
            shorter than the cutoff: every image counts as a neighbour of its own.
        n_max: radial functions, 1 to 20.
        l_max: largest angular order, 0 to 30.
        cutoff: Å.
        tensor: all pairs n <= n' of radial functions (in the order 11, 12, .., 22, ..) instead of
            n = n' only: half the sum over ordered pairs j != k of g_n(r_ij) g_n'(r_ik)
            cos(l theta), which is symmetric in n, n' and equals A_{n,l} for n = n'.
        two_body: append n_max columns sum_j g_n(r_ij), in Å^(-1/2).
        where: name of the structure in errors.

    Returns:
        Column (n - 1) (l_max + 1) + l holds A_{n,l}: n major, then l, the order of quippy's
        `cosnx`. An atom without neighbours within the cutoff has a row of zeros.

    Raises:
        DataError: see `check_atoms`, and atoms closer than 1e-3 Å to each other.
        ConfigError: n_max, l_max or the cutoff out of range.
    """
    form = Form(n_max, l_max, tensor, two_body)
    _check(atoms, form, cutoff, where)
    rows = np.empty((len(atoms), form.columns))
    for own, table in _blocks(atoms, float(cutoff), where):
        rows[own] = _rows(table, form, float(cutoff))
    return rows


@float64
def afs_sum(
    atoms: Atoms,
    n_max: int = 3,
    l_max: int = 10,
    cutoff: float = 5.0,
    *,
    tensor: bool = False,
    two_body: bool = False,
    where: object = "structure",
) -> Float[np.ndarray, " columns"]:
    """Sum of `afs` over the atoms, without holding all rows: an extensive descriptor.

    Raises:
        DataError, ConfigError: as `afs`.
    """
    form = Form(n_max, l_max, tensor, two_body)
    _check(atoms, form, cutoff, where)
    blocks = _blocks(atoms, float(cutoff), where)
    sums = [_rows(table, form, float(cutoff)).sum(axis=0) for _, table in blocks]
    return np.asarray(np.sum(sums, axis=0))
