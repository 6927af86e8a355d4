"""Harmonic vibrations of a minimum: explicit Hessian, log-determinant, entropy, free energy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Array, Float, Int
from scipy import linalg, sparse

from physml.atoms.neighbors import Neighbors, displacements, safe_norm
from physml.atoms.potentials import Potential, evaluate, species_indices, system
from physml.errors import ConfigError, DataError
from physml.precision import float64
from physml.units import AMU_KG, ANGSTROM_M, BOLTZMANN_EV_PER_K, EV_J, HBAR_EV_S

FMAX = 1e-4  # eV/Å: a structure with a larger force is not at rest
# Angular frequency, rad/s, of a mode of 1 eV/Å^2 and 1 u.
FREQUENCY_UNIT = float(np.sqrt(EV_J / (AMU_KG * ANGSTROM_M**2)))


class _Curvatures(NamedTuple):
    """Second-derivative ingredients of each pair and atom.

    units (n, k, 3); radial and tangential stiffness (n, k) eV/Å^2 of the pair with the
    embedding slopes held fixed; density slope (n, k) 1/Å; embedding curvature (n,) eV.
    """

    units: Float[Array, "n k 3"]
    radial: Float[Array, "n k"]
    tangential: Float[Array, "n k"]
    density_slope: Float[Array, "n k"]
    embedding_curvature: Float[Array, " n"]


@functools.partial(jax.jit, static_argnums=0)
def _curvatures(
    potential: Potential,
    positions: Float[Array, "n 3"],
    species: Int[Array, " n"],
    neighbors: Neighbors,
) -> _Curvatures:
    vectors = displacements(positions, neighbors)
    distance = safe_norm(vectors)
    mask = jnp.asarray(neighbors.mask) & (distance < potential.cutoff)
    r = jnp.where(mask, distance, potential.cutoff)
    here, there = jnp.asarray(species)[:, None], jnp.asarray(species)[neighbors.indices]

    def two_slopes(function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        one = jnp.ones_like(x)
        slope = lambda y: jax.jvp(function, (y,), (one,))[1]  # noqa: E731
        return jax.jvp(slope, (x,), (one,))

    phi1, phi2 = two_slopes(lambda x: potential.pair(x, here, there), r)
    psi1, psi2 = two_slopes(lambda x: potential.density(x, there, here), r)
    back1, back2 = (
        (psi1, psi2)
        if len(potential.species) == 1
        else two_slopes(lambda x: potential.density(x, here, there), r)
    )
    rho = jnp.sum(jnp.where(mask, potential.density(r, there, here), 0.0), axis=1)
    f1, f2 = two_slopes(lambda x: potential.embedding(x, species), rho)
    theirs = f1[neighbors.indices]
    slope = phi1 + f1[:, None] * psi1 + theirs * back1
    radial = phi2 + f1[:, None] * psi2 + theirs * back2
    return _Curvatures(
        units=vectors / distance[..., None],
        radial=jnp.where(mask, radial, 0.0),
        tangential=jnp.where(mask, slope / r, 0.0),
        density_slope=jnp.where(mask, psi1, 0.0),
        embedding_curvature=f2,
    )


def _block_matrix(
    blocks: Float[np.ndarray, "n k a 3"], neighbors: Neighbors, keep: np.ndarray
) -> sparse.csr_array:
    """Place block (i, k) at rows of atom i, columns of its neighbour; minus their sum at (i, i)."""
    n, _, height, _ = blocks.shape
    blocks = np.where(keep[..., None, None], blocks, 0.0)
    own = -blocks.sum(axis=1)
    columns = np.concatenate([neighbors.indices, np.arange(n)[:, None]], axis=1)
    keep = np.concatenate([keep, np.ones((n, 1), dtype=bool)], axis=1)
    data = np.concatenate([blocks, own[:, None]], axis=1)[keep]
    starts = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    shape = (height * n, 3 * n)
    matrix = sparse.bsr_array((data, columns[keep], starts), shape=shape, blocksize=(height, 3))
    return matrix.tocsr()


@float64
def hessian(
    atoms: Atoms, potential: Potential, where: object = "structure"
) -> Float[np.ndarray, "3n 3n"]:
    """Second derivatives of the energy, eV/Å^2, rows and columns ordered x1 y1 z1 x2 ...

    Pairs give 3x3 blocks; the curvature of the embedding couples all neighbours of an atom:
    H = pair blocks + G^T diag(F'') G with G = d rho / d x, both sparse.

    Raises:
        DataError: see `neighbor_table` and `species_indices`.
    """
    padded = system(atoms, potential, where=where)
    terms = _curvatures(potential, *padded)
    units, radial, tangential, slope, curvature = (np.asarray(t)[: len(atoms)] for t in terms)
    neighbors = Neighbors(*(field[: len(atoms)] for field in padded.neighbors))
    outer = units[..., :, None] * units[..., None, :]
    blocks = (radial - tangential)[..., None, None] * outer
    blocks += tangential[..., None, None] * np.eye(3)
    stiffness = _block_matrix(-blocks, neighbors, neighbors.mask)
    gradient = _block_matrix((slope[..., None] * units)[:, :, None, :], neighbors, slope != 0.0)
    coupling = gradient.T @ sparse.diags_array(curvature) @ gradient
    return np.asarray((stiffness + coupling).toarray())


class Factor(NamedTuple):
    """Lower Cholesky factor of the mass-weighted Hessian whose translations were stiffened.

    | field       | shape, unit       | meaning                                          |
    |-------------|-------------------|--------------------------------------------------|
    | `lower`     | (3n, 3n)          | factor of D + c sum_x v_x v_x^T, D in eV/(Å^2 u) |
    | `masses`    | (n,) u            |                                                  |
    | `stiffness` | eV/(Å^2 u)        | c, given to the three translations               |
    """

    lower: Float[np.ndarray, "3n 3n"]
    masses: Float[np.ndarray, " n"]
    stiffness: float


def factorise(matrix: Float[np.ndarray, "3n 3n"], masses: Float[np.ndarray, " n"]) -> Factor | None:
    """Cholesky factor of a Hessian (which is overwritten), or None: "not a minimum".

    The three uniform translations v_x of a periodic system cost nothing. Adding c v_x v_x^T
    moves their eigenvalues from 0 to c and leaves all others as they are, exactly.
    """
    root = np.repeat(np.sqrt(masses), 3)
    matrix /= root[:, None]
    matrix /= root[None, :]
    stiffness = float(np.mean(matrix.diagonal()))
    mode = np.sqrt(masses / masses.sum())
    for x in range(3):
        matrix[x::3, x::3] += stiffness * np.outer(mode, mode)
    lower, failure = linalg.lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    return None if failure else Factor(lower, masses, stiffness)


def solve(factor: Factor, forces: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Newton step H^-1 f, Å, of forces in eV/Å; the uniform translation is taken out."""
    root = np.sqrt(factor.masses)[:, None]
    weighted = (forces / root).ravel()
    step = linalg.cho_solve((factor.lower, True), weighted, check_finite=False).reshape(-1, 3)
    step = np.asarray(step / root)
    return step - np.average(step, axis=0, weights=factor.masses)


def log_determinant(factor: Factor) -> float:
    """Log of the product of the 3n - 3 non-zero eigenvalues of D, in eV/(Å^2 u)."""
    diagonal = factor.lower.diagonal()
    return float(2.0 * np.log(diagonal).sum() - 3.0 * np.log(factor.stiffness))


def _check_temperature(temperature: float) -> None:
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError("temperature", f"is {temperature}", "give a positive number of kelvin")


def largest_force(atoms: Atoms, potential: Potential, where: object = "structure") -> float:
    """Largest force on an atom, eV/Å."""
    forces = evaluate(atoms, potential, where)[1]
    return float(np.sqrt((forces**2).sum(axis=1)).max())


def check_at_rest(atoms: Atoms, potential: Potential, where: object = "structure") -> None:
    """Refuse a structure that has not been relaxed.

    Raises:
        DataError: a force exceeds 1e-4 eV/Å.
    """
    fmax = largest_force(atoms, potential, where)
    if fmax > FMAX:
        what = f"is not at rest under {potential.name} (largest force {fmax:.2g} eV/Å)"
        raise DataError(where, what, "relax it first with physml.atoms.relax")


def _minimum_factor(atoms: Atoms, potential: Potential, where: object) -> Factor:
    if len(atoms) < 2:
        raise DataError(where, "has one atom, which has no vibration", "repeat the cell")
    check_at_rest(atoms, potential, where)
    species = species_indices(atoms, potential, where)
    factor = factorise(hessian(atoms, potential, where), np.array(potential.masses)[species])
    if factor is None:
        what = "is a saddle: its Hessian has a negative eigenvalue"
        raise DataError(where, what, "displace it a little and relax it again")
    return factor


def classical_entropy(log_det: float, n_atoms: int, temperature: float) -> float:
    """Entropy, kB, of 3n - 3 classical modes from the log-determinant of D (eV/(Å^2 u)).

    S = sum_k [1 + ln(kB T / hbar w_k)] = (3n-3) [1 + ln(kB T / hbar w_0)] - 1/2 ln det' D.
    """
    modes = 3 * n_atoms - 3
    quantum = HBAR_EV_S * FREQUENCY_UNIT / (BOLTZMANN_EV_PER_K * temperature)
    return modes * (1.0 - float(np.log(quantum))) - 0.5 * log_det


def frequencies(
    atoms: Atoms, potential: Potential, where: object = "structure"
) -> Float[np.ndarray, " 3n-3"]:
    """Angular frequencies of a minimum, rad/s, ascending, without the three translations.

    Raises:
        DataError: not at rest, or a saddle.
    """
    factor = _minimum_factor(atoms, potential, where)
    lower = np.tril(factor.lower)
    values = linalg.eigvalsh(lower @ lower.T, overwrite_a=True, check_finite=False)
    moved = np.argsort(np.abs(values - factor.stiffness))[:3]
    return np.asarray(FREQUENCY_UNIT * np.sqrt(np.delete(values, moved)))


@float64
def vibrational_entropy(
    atoms: Atoms,
    potential: Potential,
    temperature: float,
    quantum: bool = False,
    where: object = "structure",
) -> float:
    """Harmonic vibrational entropy of a relaxed structure, kB.

    Args:
        atoms: a minimum of the potential, n atoms.
        potential: eV, Å, u.
        temperature: K.
        quantum: count quantised oscillators (needs all eigenvalues, about 8 times slower).
        where: name of the structure in errors.

    Raises:
        DataError: forces above 1e-4 eV/Å, or a saddle.
        ConfigError: the temperature is not positive.
    """
    _check_temperature(temperature)
    if not quantum:
        log_det = log_determinant(_minimum_factor(atoms, potential, where))
        return classical_entropy(log_det, len(atoms), temperature)
    x = _reduced_quanta(atoms, potential, temperature, where)
    return float(np.sum(x / np.expm1(x) - np.log(-np.expm1(-x))))


@float64
def vibrational_free_energy(
    atoms: Atoms,
    potential: Potential,
    temperature: float,
    quantum: bool = False,
    where: object = "structure",
) -> float:
    """Harmonic vibrational free energy, eV; the quantum form holds the zero-point energy.

    Raises:
        DataError: not at rest, or a saddle.
        ConfigError: the temperature is not positive.
    """
    _check_temperature(temperature)
    thermal = BOLTZMANN_EV_PER_K * temperature
    if not quantum:
        entropy = vibrational_entropy(atoms, potential, temperature, where=where)
        return thermal * (3 * len(atoms) - 3 - entropy)
    x = _reduced_quanta(atoms, potential, temperature, where)
    return float(thermal * np.sum(0.5 * x + np.log(-np.expm1(-x))))


def _reduced_quanta(
    atoms: Atoms, potential: Potential, temperature: float, where: object
) -> Float[np.ndarray, " 3n-3"]:
    thermal = BOLTZMANN_EV_PER_K * temperature
    return HBAR_EV_S * frequencies(atoms, potential, where) / thermal


def formation_entropy(
    defect: Atoms, bulk: Atoms, potential: Potential, temperature: float, quantum: bool = False
) -> float:
    """Formation entropy S_d - (N_d / N_b) S_b of a defect at fixed cell, kB.

    The convention of Phys. Rev. Materials 4, 063802 (2020): both structures in the same cell,
    the bulk scaled by the number of atoms; classical unless `quantum`.

    Raises:
        DataError: either structure is not a minimum, or their cells differ.
        ConfigError: the temperature is not positive.
    """
    if not np.allclose(defect.cell.array, bulk.cell.array, rtol=0.0, atol=1e-6):
        what = "has another cell than the bulk"
        raise DataError("defect", what, "give a perfect crystal in the same cell")
    with_defect = vibrational_entropy(defect, potential, temperature, quantum, where="defect")
    perfect = vibrational_entropy(bulk, potential, temperature, quantum, where="bulk")
    return with_defect - len(defect) / len(bulk) * perfect
