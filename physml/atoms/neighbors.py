"""Periodic neighbour tables: built on the host by vesin, padded to a fixed shape for jit."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import vesin
from ase import Atoms
from jaxtyping import Array, Bool, Float, Int

from physml.errors import ConfigError, DataError

MIN_DISTANCE = 1e-3  # Å: closer than this, two atoms are one atom written twice


class Neighbors(NamedTuple):
    """Padded full neighbour table of n atoms.

    | field     | shape, unit       | meaning                                            |
    |-----------|-------------------|----------------------------------------------------|
    | `indices` | (n, capacity)     | neighbour j of atom i; padding points at atom i    |
    | `shifts`  | (n, capacity, 3) Å | lattice translation to add to the position of j    |
    | `mask`    | (n, capacity)     | False on padding                                   |
    """

    indices: Int[np.ndarray, "n capacity"]
    shifts: Float[np.ndarray, "n capacity 3"]
    mask: Bool[np.ndarray, "n capacity"]


def padded_rows(n_atoms: int) -> int:
    """Rows to give n atoms, so that cells with a few atoms more or less share one compilation."""
    return -(-n_atoms // 64) * 64


def pad_rows(values: np.ndarray, n_rows: int) -> np.ndarray:
    """Append rows of zeros until `values` has `n_rows` rows."""
    return np.concatenate(
        [values, np.zeros((n_rows - len(values), *values.shape[1:]), values.dtype)]
    )


def check_atoms(atoms: Atoms, where: object = "structure") -> None:
    """Refuse structures no periodic calculation can use.

    Raises:
        DataError: no atoms, non-finite positions or cell, a direction that is not periodic,
            or a cell without volume.
    """
    if len(atoms) == 0:
        raise DataError(where, "holds no atoms", "give at least one atom")
    if not np.isfinite(atoms.positions).all():
        bad = int(np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))[0])
        raise DataError(where, f"position of atom {bad} is not finite", "repair the coordinates")
    if not np.isfinite(atoms.cell.array).all():
        raise DataError(where, "the cell is not finite", "repair the lattice vectors")
    if not atoms.pbc.all():
        raise DataError(where, "is not periodic in all directions", "set pbc=True and a cell")
    if abs(np.linalg.det(atoms.cell.array)) < MIN_DISTANCE**3:
        raise DataError(where, "the cell has no volume", "give three lattice vectors in Å")


def neighbor_pairs(
    atoms: Atoms, cutoff: float, where: object = "structure"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return all ordered pairs (i, j, shift) closer than `cutoff`, sorted by i.

    Returns:
        i, j (pairs,) int64; shift (pairs, 3) integer lattice translations; distance (pairs,) Å.

    Raises:
        DataError: see `check_atoms`, and atoms closer than 1e-3 Å to each other.
        ConfigError: the cutoff is not positive.
    """
    check_atoms(atoms, where)
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ConfigError("cutoff", f"is {cutoff} Å", "give a positive length in Å")
    finder = vesin.NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
    i, j, shift, distance = finder.compute(
        points=np.ascontiguousarray(atoms.positions, dtype=np.float64),
        box=np.ascontiguousarray(atoms.cell.array, dtype=np.float64),
        periodic=True,
        quantities="ijSd",
    )
    if distance.size and distance.min() < MIN_DISTANCE:
        k = int(distance.argmin())
        what = f"atoms {i[k]} and {j[k]} coincide (distance {distance[k]:.1e} Å)"
        raise DataError(where, what, "remove one of them")
    return i.astype(np.int64), j.astype(np.int64), shift, distance


def neighbor_table(
    atoms: Atoms,
    cutoff: float,
    capacity: int | None = None,
    n_rows: int | None = None,
    where: object = "structure",
) -> Neighbors:
    """Build the padded neighbour table of a periodic structure (host side, NumPy).

    Args:
        atoms: periodic structure of n atoms.
        cutoff: Å; may exceed half the cell, images are counted as separate neighbours.
        capacity: columns; by default the largest neighbour count, rounded up to a multiple of 16.
        n_rows: rows, by default n; further rows are padding without neighbours.
        where: name of the structure in errors.

    Raises:
        DataError: see `neighbor_pairs`.
        ConfigError: `capacity` or `n_rows` is too small; the size needed is named.
    """
    i, j, shift, _ = neighbor_pairs(atoms, cutoff, where)
    n = len(atoms)
    n_rows = n if n_rows is None else n_rows
    counts = np.bincount(i, minlength=n)
    needed = int(counts.max(initial=0))
    if capacity is None:
        capacity = max(16, -(-needed // 16) * 16)
    if needed > capacity:
        raise ConfigError("capacity", f"{capacity} < {needed} neighbours", f"give {needed} or more")
    if n > n_rows:
        raise ConfigError("n_rows", f"{n_rows} < {n} atoms", f"give {n} or more")
    column = np.arange(i.size) - np.repeat(np.cumsum(counts) - counts, counts)
    indices = np.repeat(np.arange(n_rows, dtype=np.int32)[:, None], capacity, axis=1)
    shifts = np.zeros((n_rows, capacity, 3))
    mask = np.zeros((n_rows, capacity), dtype=bool)
    indices[i, column] = j
    shifts[i, column] = shift @ atoms.cell.array
    mask[i, column] = True
    return Neighbors(indices, shifts, mask)


def displacements(
    positions: Float[Array, "n 3"], neighbors: Neighbors
) -> Float[Array, "n capacity 3"]:
    """Vectors from each atom to its neighbours, Å; padding holds (1, 1, 1) Å, safe to divide by.

    Pure and differentiable: the host has checked the indices, so nothing is clamped here.
    """
    vectors = positions[neighbors.indices] + neighbors.shifts - positions[:, None, :]
    return jnp.where(jnp.asarray(neighbors.mask)[..., None], vectors, 1.0)


def safe_norm(vectors: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
    """Euclidean length of vectors that are never zero (see `displacements`)."""
    return jnp.sqrt(jnp.sum(vectors * vectors, axis=-1))
