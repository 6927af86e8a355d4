"""The hot kernels of this domain at 70,000 rows, written a second time in plain NumPy.

They run with `physml.backend.check` at the head of every experiment on atoms: a compiler that is
wrong only for many rows (jax issue 39103) is caught on the device of the run.
"""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physml.atoms.descriptors import Form, afs_of_vectors
from physml.atoms.neighbors import Neighbors
from physml.atoms.potentials import (
    DENSITY,
    EMBEDDING,
    PAIR_OUTER,
    ackland_mendelev_2004,
    energy_and_forces,
)
from physml.backend import ROWS, Kernel

FORM, CUTOFF, NEIGHBORS = Form(n_max=2, l_max=4), 5.0, 3
SPACING = 40.0  # Å between pairs of atoms: they do not see each other


def kernels() -> tuple[Kernel, ...]:
    """AFS of 70,000 atoms, and the forces of 35,000 iron dimers."""
    random = np.random.default_rng(2004)
    directions = random.normal(size=(ROWS, NEIGHBORS, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    vectors = directions * random.uniform(2.0, 5.5, (ROWS, NEIGHBORS, 1))
    lengths = random.uniform(2.1, 5.5, ROWS // 2)
    double = (np.float64,)
    return (
        Kernel("AFS", _afs, _afs_by_pairs, (vectors,), double),
        Kernel("the forces of iron dimers", _dimer_forces, _dimer_slopes, (lengths,), double),
    )


def _afs(vectors: Float[Array, "rows j 3"]) -> Float[Array, "rows columns"]:
    return afs_of_vectors(vectors, jnp.ones(vectors.shape[:2], bool), FORM, CUTOFF)


def _afs_by_pairs(vectors: Float[np.ndarray, "rows j 3"]) -> Float[np.ndarray, "rows columns"]:
    """The definition: a loop over pairs, an angle for each, S^(-1/2) from its eigenvectors."""
    order = np.arange(1, FORM.n_max + 1)
    power = 5.0 + 2.0 * order
    overlap = np.sqrt(np.outer(power, power)) / (5.0 + np.add.outer(order, order))
    values, axes = np.linalg.eigh(overlap)
    distance = np.linalg.norm(vectors, axis=-1)
    reach = np.maximum(CUTOFF - distance, 0.0)[..., None]
    phi = np.sqrt(power) / CUTOFF ** (order + 2.5) * reach ** (order + 2)
    g = phi @ (axes / np.sqrt(values)) @ axes.T
    columns = np.zeros((len(vectors), FORM.n_max, FORM.l_max + 1))
    for j, k in itertools.combinations(range(NEIGHBORS), 2):
        cosine = (vectors[:, j] * vectors[:, k]).sum(axis=-1) / (distance[:, j] * distance[:, k])
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        waves = np.cos(angle[:, None] * np.arange(FORM.l_max + 1))
        columns += (g[:, j] * g[:, k])[:, :, None] * waves[:, None, :]
    return columns.reshape(len(vectors), -1)


def _dimer_forces(lengths: Float[Array, " pairs"]) -> Float[Array, " pairs"]:
    """Force along x on the first atom of each dimer, all dimers in one call."""
    pairs = len(lengths)
    first = jnp.zeros((pairs, 3)).at[:, 1].set(SPACING * jnp.arange(pairs))
    both = jnp.stack([first, first.at[:, 0].set(lengths)], axis=1).reshape(-1, 3)
    partner = np.arange(2 * pairs, dtype=np.int32) ^ 1
    table = Neighbors(
        partner[:, None], np.zeros((2 * pairs, 1, 3)), np.ones((2 * pairs, 1), dtype=bool)
    )
    species = np.zeros(2 * pairs, dtype=np.int32)
    forces = energy_and_forces(ackland_mendelev_2004(), both, jnp.asarray(species), table)[1]
    return forces[::2, 0]


def _dimer_slopes(lengths: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """dE/dr of phi(r) + 2 F(psi(r)) by a complex step through the published coefficients."""
    step = 1e-30
    r = lengths + 1j * step

    def cubes(terms: np.ndarray) -> np.ndarray:
        total = np.zeros_like(r)
        for amplitude, knot in terms:
            total += np.where(lengths < knot, amplitude * (knot - r) ** 3, 0.0)
        return total

    rho = cubes(DENSITY)
    inside = lengths < DENSITY[:, 1].max()
    safe = np.where(inside, rho, 1.0)
    embedding = -np.sqrt(safe) + EMBEDDING[0] * safe**2 + EMBEDDING[1] * safe**4
    energy = cubes(PAIR_OUTER) + np.where(inside, 2.0 * embedding, 0.0)
    return np.asarray(energy.imag / step)
