"""Embedded-atom potentials: the closed form of iron and any eam.fs or eam.alloy file.

E = sum_i F(rho_i) + 1/2 sum_{i != j} phi(r_ij),  rho_i = sum_{j != i} psi(r_ij)

Energies in eV, lengths in Å, masses in unified atomic mass units.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses, atomic_numbers
from jaxtyping import Array, Float, Int
from scipy.interpolate import CubicSpline

from physml.atoms.neighbors import (
    Neighbors,
    displacements,
    neighbor_table,
    pad_rows,
    padded_rows,
    safe_norm,
)
from physml.errors import DataError
from physml.precision import float64

PairFunction = Callable[[Array, Array, Array], Array]


class Potential(NamedTuple):
    """An embedded-atom potential; hashable, so that jit can take it as a static argument.

    | field       | meaning                                                                |
    |-------------|------------------------------------------------------------------------|
    | `name`      | where it comes from                                                    |
    | `species`   | chemical symbols, in the order of the species indices below            |
    | `masses`    | u, one per species                                                     |
    | `cutoff`    | Å, the longest reach of `pair` and `density`                           |
    | `pair`      | phi(r, species_i, species_j), eV                                       |
    | `density`   | psi(r, source, target): density at a target atom from a source atom    |
    | `embedding` | F(rho, species), eV                                                    |
    """

    name: str
    species: tuple[str, ...]
    masses: tuple[float, ...]
    cutoff: float
    pair: PairFunction
    density: PairFunction
    embedding: Callable[[Array, Array], Array]

    def calculator(self) -> EAMCalculator:
        """Return an ASE calculator of energy, forces and stress."""
        return EAMCalculator(self)


# Ackland, Mendelev, Srolovitz, Han, Barashev, J. Phys.: Condens. Matter 16, S2629 (2004), iron.
EMBEDDING = (-6.7314115586063e-4, 7.6514905604792e-8)
DENSITY = np.array([(11.686859407970, 2.4), (-0.014710740098830, 3.2), (0.47193527075943, 4.2)])
PAIR_OUTER = np.array(
    [
        (-27.444805994228, 2.2),
        (15.738054058489, 2.3),
        (2.2077118733936, 2.4),
        (-2.4989799053251, 2.5),
        (4.2099676494795, 2.6),
        (-0.77361294129713, 2.7),
        (0.80656414937789, 2.8),
        (-2.3194358924605, 3.0),
        (2.6577406128280, 3.3),
        (-1.0260416933564, 3.7),
        (0.35018615891957, 4.2),
        (-0.058531821042271, 4.7),
        (-0.0030458824556234, 5.3),
    ]
)
_PAIR_JOIN = (7.4122709384068, -0.64180690713367, -2.6043547961722, 0.62625393931230)
_PAIR_CORE = 9734.2365892908  # eV Å: screened nuclear repulsion (Biersack-Ziegler)
_PAIR_SCREENING = np.array(
    [
        (0.1818, 28.616724320005),
        (0.5099, 8.4267310396064),
        (0.2802, 3.6030244464156),
        (0.02817, 1.8028536321603),
    ]
)
_INNER, _OUTER = 1.0, 2.05  # Å: where the three forms of phi meet


def _truncated_cubes(r: Array, terms: np.ndarray) -> Array:
    """Sum of a (c - r)^3 over the (a, c) terms whose knot c lies beyond r."""
    total = jnp.zeros_like(r)
    for amplitude, knot in terms:
        total = total + amplitude * jnp.maximum(knot - r, 0.0) ** 3
    return total


def _iron_pair(r: Array, _i: Array, _j: Array) -> Array:
    """phi(r) of iron; the two short-range forms are computed only when an atom is that close."""

    def with_core(r: Array) -> Array:
        near = jnp.minimum(r, _OUTER)
        join = jnp.exp(sum(c * near**k for k, c in enumerate(_PAIR_JOIN)))
        screening = sum(a * jnp.exp(-b * near) for a, b in _PAIR_SCREENING)
        inside = jnp.where(near < _INNER, _PAIR_CORE / near * screening, join)
        return jnp.where(r < _OUTER, inside, _truncated_cubes(r, PAIR_OUTER))

    pair: Array = jax.lax.cond(
        jnp.any(r < _OUTER), with_core, lambda r: _truncated_cubes(r, PAIR_OUTER), r
    )
    return pair


def _iron_density(r: Array, _source: Array, _target: Array) -> Array:
    return _truncated_cubes(r, DENSITY)


def _iron_embedding(rho: Array, _species: Array) -> Array:
    occupied = rho > 0
    safe = jnp.where(occupied, rho, 1.0)
    value = -jnp.sqrt(safe) + EMBEDDING[0] * safe**2 + EMBEDDING[1] * safe**4
    return jnp.where(occupied, value, 0.0)


@functools.cache
def ackland_mendelev_2004() -> Potential:
    """Iron of Ackland et al., J. Phys.: Condens. Matter 16, S2629 (2004), in closed form."""
    return Potential(
        name="Ackland-Mendelev 2004",
        species=("Fe",),
        masses=(float(atomic_masses[atomic_numbers["Fe"]]),),
        cutoff=float(PAIR_OUTER[:, 1].max()),
        pair=_iron_pair,
        density=_iron_density,
        embedding=_iron_embedding,
    )


def _floats(path: Path, words: Iterator[str], count: int) -> np.ndarray:
    """Take the next `count` numbers of the file."""
    taken = list(itertools.islice(words, count))
    try:
        values = np.array([float(word) for word in taken])
    except ValueError as error:
        raise DataError(path, str(error), "get the file again") from None
    if values.size < count:
        raise DataError(path, "ends too early: a table is incomplete", "get the file again")
    if not np.isfinite(values).all():
        raise DataError(path, "holds a number that is not finite", "get the file again")
    return values


def _spline(values: np.ndarray, step: float) -> Callable[[Array, Array], Array]:
    """Cubic spline through rows of `values` on the grid 0, step, ...; linear beyond its end.

    Returns f(row index, x); rows share one grid, so one gather serves every species pair.
    """
    n = values.shape[1]
    coefficients = np.stack([CubicSpline(np.arange(n) * step, row).c.T for row in values])

    def evaluate(row: Array, x: Array) -> Array:
        cell = jnp.clip((x / step).astype(jnp.int32), 0, n - 2)
        c = jnp.asarray(coefficients)[row, cell]
        t = x - cell * step
        inside = jnp.minimum(t, step)
        value = ((c[..., 0] * inside + c[..., 1]) * inside + c[..., 2]) * inside + c[..., 3]
        slope = (3.0 * c[..., 0] * step + 2.0 * c[..., 1]) * step + c[..., 2]
        return value + slope * jnp.maximum(t - step, 0.0)

    return evaluate


def _header(path: Path, lines: list[str]) -> tuple[tuple[str, ...], int, float, int, float, float]:
    """Read species, n_rho, rho step, n_r, r step and cutoff from lines four and five."""
    try:
        count, *species = lines[3].split()
        n_rho, rho_step, n_r, r_step, cutoff = (float(x) for x in lines[4].split())
        if int(count) != len(species) or min(n_rho, n_r) < 4 or min(rho_step, r_step, cutoff) <= 0:
            raise ValueError
    except (ValueError, IndexError):
        what = "lines 4 and 5 are not the head of a setfl file"
        raise DataError(path, what, "give an eam.fs or eam.alloy file") from None
    return tuple(species), int(n_rho), rho_step, int(n_r), r_step, cutoff


@functools.cache
@float64
def read_eam(path: str | Path) -> Potential:
    """Read a tabulated potential in the setfl form: `*.fs` (Finnis-Sinclair) or `*.alloy`.

    Tables become cubic splines, so second derivatives are continuous; beyond the last tabulated
    density F goes on linearly, as in LAMMPS. In `.fs` files the section of element A holds the
    density from an A atom at each element in turn (LAMMPS pair_style eam/fs).

    Raises:
        DataError: not readable, not a setfl file, truncated, or not finite.
    """
    path = Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            path, f"cannot be read ({error})", "give an eam.fs or .alloy file"
        ) from None
    species, n_rho, rho_step, n_r, r_step, cutoff = _header(path, lines)
    size = len(species)
    targets = size if path.suffix == ".fs" else 1
    words = (word for line in lines[5:] for word in line.split())
    masses, embedding, density = [], [], []
    for _ in species:
        masses.append(float(_floats(path, itertools.islice(words, 2), 2)[1]))
        next(itertools.islice(words, 2, 2), None)  # lattice constant and structure, unused
        embedding.append(_floats(path, words, n_rho))
        rows = [_floats(path, words, n_r) for _ in range(targets)]
        density += rows * (size // targets)
    lower = {(i, j): _floats(path, words, n_r) for i in range(size) for j in range(i + 1)}
    pair = [lower[max(i, j), min(i, j)] for i in range(size) for j in range(size)]
    return _tabulated(
        path, species, tuple(masses), cutoff,
        _spline(np.array(embedding), rho_step),
        _spline(np.array(density), r_step),
        _spline(np.array(pair), r_step),
    )  # fmt: skip


def _tabulated(
    path: Path,
    species: tuple[str, ...],
    masses: tuple[float, ...],
    cutoff: float,
    embedding: Callable[[Array, Array], Array],
    density: Callable[[Array, Array], Array],
    pair: Callable[[Array, Array], Array],
) -> Potential:
    """Wrap splines of F, psi and r * phi into a Potential that ends at the cutoff."""
    size = len(species)

    def within(function: Callable[[Array, Array], Array]) -> PairFunction:
        return lambda r, i, j: jnp.where(r < cutoff, function(i * size + j, r), 0.0)

    scaled = within(pair)
    return Potential(
        name=path.name,
        species=species,
        masses=masses,
        cutoff=cutoff,
        pair=lambda r, i, j: scaled(r, i, j) / r,
        density=within(density),
        embedding=lambda rho, i: embedding(i, rho),
    )


def species_indices(atoms: Atoms, potential: Potential, where: object = "structure") -> np.ndarray:
    """Index of each atom's element in `potential.species`, (n,) int32.

    Raises:
        DataError: an element that the potential does not describe.
    """
    symbols = np.array(atoms.get_chemical_symbols())
    unknown = sorted(set(symbols) - set(potential.species))
    if unknown:
        what = f"holds {', '.join(unknown)}, which {potential.name} does not describe"
        raise DataError(where, what, f"use atoms of {', '.join(potential.species)}")
    order = {symbol: k for k, symbol in enumerate(potential.species)}
    return np.array([order[symbol] for symbol in symbols], dtype=np.int32)


class PairTerms(NamedTuple):
    """What a table of pairs contributes; `slope` and `curvature` are d/dr and d2/dr2.

    | field              | shape         | meaning                                             |
    |--------------------|---------------|-----------------------------------------------------|
    | `units`            | (n, k, 3)     | unit vectors from i to j                            |
    | `distances`        | (n, k) Å      | 1 or more on padding                                |
    | `energy`           | (n,) eV       | energy of each atom, half of each pair              |
    | `slope`            | (n, k) eV/Å   | phi' + F'_i psi'_ij + F'_j psi'_ji                  |
    | `density_slope`    | (n, k) 1/Å    | psi' of the density at i from j                     |
    """

    units: Float[Array, "n k 3"]
    distances: Float[Array, "n k"]
    energy: Float[Array, " n"]
    slope: Float[Array, "n k"]
    density_slope: Float[Array, "n k"]


def _with_slope(function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    return jax.jvp(function, (x,), (jnp.ones_like(x),))


def pair_terms(
    potential: Potential,
    positions: Float[Array, "n 3"],
    species: Int[Array, " n"],
    neighbors: Neighbors,
) -> PairTerms:
    """Energies and radial slopes of every pair in the table; pure, for use inside jit."""
    vectors = displacements(positions, neighbors)
    r = safe_norm(vectors)
    mask = jnp.asarray(neighbors.mask) & (r < potential.cutoff)
    r = jnp.where(mask, r, potential.cutoff)
    here, there = jnp.asarray(species)[:, None], jnp.asarray(species)[neighbors.indices]
    phi, phi_slope = _with_slope(lambda x: potential.pair(x, here, there), r)
    psi, psi_slope = _with_slope(lambda x: potential.density(x, there, here), r)
    if len(potential.species) == 1:
        back_slope = psi_slope
    else:
        _, back_slope = _with_slope(lambda x: potential.density(x, here, there), r)
    rho = jnp.sum(jnp.where(mask, psi, 0.0), axis=1)
    f, f_slope = _with_slope(lambda x: potential.embedding(x, species), rho)
    slope = phi_slope + f_slope[:, None] * psi_slope + f_slope[neighbors.indices] * back_slope
    return PairTerms(
        units=vectors / safe_norm(vectors)[..., None],
        distances=r,
        energy=f + 0.5 * jnp.sum(jnp.where(mask, phi, 0.0), axis=1),
        slope=jnp.where(mask, slope, 0.0),
        density_slope=jnp.where(mask, psi_slope, 0.0),
    )


def energy_and_forces(
    potential: Potential,
    positions: Float[Array, "n 3"],
    species: Int[Array, " n"],
    neighbors: Neighbors,
) -> tuple[Float[Array, ""], Float[Array, "n 3"]]:
    """Total energy, eV, and analytic forces, eV/Å; pure, for use inside jit."""
    terms = pair_terms(potential, positions, species, neighbors)
    forces = jnp.einsum("nk,nkx->nx", terms.slope, terms.units)
    return jnp.sum(terms.energy), forces


@functools.partial(jax.jit, static_argnums=0)
def _energy_forces_stress(
    potential: Potential,
    positions: Float[Array, "n 3"],
    species: Int[Array, " n"],
    neighbors: Neighbors,
) -> tuple[Array, Array, Array]:
    terms = pair_terms(potential, positions, species, neighbors)
    forces = jnp.einsum("nk,nkx->nx", terms.slope, terms.units)
    weight = 0.5 * terms.slope * terms.distances
    virial = jnp.einsum("nk,nkx,nky->xy", weight, terms.units, terms.units)
    return terms.energy, forces, virial


class System(NamedTuple):
    """A structure ready for jit: rows padded to a bucket, so that similar sizes share a compile.

    positions (rows, 3) Å, species (rows,), neighbour table (rows, capacity); padding rows have
    no neighbours and stand at the origin.
    """

    positions: Float[np.ndarray, "rows 3"]
    species: Int[np.ndarray, " rows"]
    neighbors: Neighbors


def system(
    atoms: Atoms, potential: Potential, skin: float = 0.0, where: object = "structure"
) -> System:
    """Prepare a structure for the functions above; pairs within `potential.cutoff + skin` Å.

    Raises:
        DataError: see `neighbor_table` and `species_indices`.
    """
    rows = padded_rows(len(atoms))
    species = species_indices(atoms, potential, where)
    neighbors = neighbor_table(atoms, potential.cutoff + skin, n_rows=rows, where=where)
    return System(pad_rows(atoms.positions, rows), pad_rows(species, rows), neighbors)


@float64
def evaluate(
    atoms: Atoms, potential: Potential, where: object = "structure"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies (n,) eV, forces (n, 3) eV/Å and virial (3, 3) eV of one periodic structure.

    Raises:
        DataError: see `neighbor_table` and `species_indices`.
    """
    n = len(atoms)
    values = _energy_forces_stress(potential, *system(atoms, potential, where=where))
    energies, forces, virial = (np.asarray(value) for value in values)
    return energies[:n], forces[:n], virial


class EAMCalculator(Calculator):
    """ASE calculator of a `Potential`: energy, per-atom energies, free energy, forces, stress."""

    implemented_properties = ["energy", "energies", "free_energy", "forces", "stress"]

    def __init__(self, potential: Potential) -> None:
        """Wrap `potential`; nothing is computed yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Any = all_changes,
    ) -> None:
        """Fill `results` (ASE's contract); stress is in eV/Å^3, Voigt order."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        structure = cast(Atoms, self.atoms)  # ASE keeps a copy, or the last one given
        energies, forces, virial = evaluate(structure, self.potential)
        stress = virial / structure.get_volume()
        self.results = {
            "energy": float(energies.sum()),
            "free_energy": float(energies.sum()),
            "energies": energies,
            "forces": forces,
            "stress": stress.flat[[0, 4, 8, 5, 2, 1]],
        }
