"""Minima to learn from: the shipped ones, or a user's own structures with their entropies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from scipy.sparse import coo_array, csgraph
from scipy.spatial import cKDTree

from physml.atoms import vibrational_entropy
from physml.atoms.defects import bcc, defect_class
from physml.atoms.potentials import (
    Potential,
    ackland_mendelev_2004,
    evaluate,
    read_eam,
    species_indices,
)
from physml.errors import ConfigError, DataError
from physml.io import hdf5, minima, structures
from physml.io.manifest import read_manifest
from physml.progress import progress

from .config import Config

SHIPPED = "iron_defects.h5"
NEAR_ENERGY, NEAR_ENTROPY = 0.005, 0.05  # eV, kB: minima this close in both belong to one group


class Minima(NamedTuple):
    """Relaxed defects and what is to be predicted.

    | field     | shape, unit    | meaning                                     |
    |-----------|----------------|---------------------------------------------|
    | `crystal` |                | the perfect crystal they are compared with  |
    | `atoms`   | m              | structures                                  |
    | `classes` | (m,)           | such as V3 or I2                            |
    | `energy`  | (m,) eV        | formation energy                            |
    | `entropy` | (m,) kB        | formation entropy                           |
    """

    crystal: Atoms
    atoms: list[Atoms]
    classes: np.ndarray
    energy: np.ndarray
    entropy: np.ndarray


def read(config: Config) -> Minima:
    """Minima named by the config: shipped ones, or `--structures` under `--potential`.

    Raises:
        DataError: a file is missing, damaged or unphysical; a structure is not a minimum.
    """
    found = shipped(config) if config.structures is None else own(config)
    if config.structures is None and (config.minima or 0) > len(found.atoms):
        what = f"asks for {config.minima} of {len(found.atoms)} minima"
        raise ConfigError("--minima", what, f"give 1 to {len(found.atoms)}")
    keep = slice(config.minima)
    return Minima(found.crystal, found.atoms[keep], *(a[keep] for a in found[2:]))


def shipped(config: Config) -> Minima:
    """The minima of this folder, verified against their sha256."""
    manifest, path = read_manifest(config.data), config.data / SHIPPED
    about = manifest.get("settings")
    if SHIPPED not in manifest["files"] or not isinstance(about, dict):
        what = f"says nothing of {SHIPPED} and its settings"
        raise DataError(config.data / "manifest.json", what, "make it with data_scripts")
    try:
        cells, a0 = int(about["cells"]), float(about["a0_angstrom"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"has no usable settings ({error})"
        raise DataError(config.data / "manifest.json", what, "make it with data_scripts") from error
    stored = minima.unpack(hdf5.read(path), path)
    if any(not 0 <= m.sites.min() <= m.sites.max() < 2 * cells**3 for m in stored if len(m.sites)):
        what = f"holds lattice sites outside the {cells} cells of its manifest"
        raise DataError(path, what, "make it with data_scripts")
    crystal = bcc(cells, a0)
    return Minima(
        crystal,
        [_atoms(crystal, minima.decode(m, cells, a0)) for m in stored],
        np.array([m.name for m in stored]),
        np.array([m.energy for m in stored]),
        np.array([m.entropy for m in stored]),
    )


def _atoms(crystal: Atoms, positions: np.ndarray) -> Atoms:
    symbol = crystal.get_chemical_symbols()[0]
    return Atoms(f"{symbol}{len(positions)}", positions=positions, cell=crystal.cell, pbc=True)


def own(config: Config) -> Minima:
    """A user's structures: entropies and energies under the potential, one after the other."""
    assert config.structures is not None
    potential = ackland_mendelev_2004() if config.potential is None else read_eam(config.potential)
    reach = max(potential.cutoff, config.cutoff)
    atoms = structures.read_structures(
        config.structures, species=potential.species, min_height=reach
    )[: config.minima]
    species = {symbol for item in atoms for symbol in item.get_chemical_symbols()}
    if len(species) > 1:
        what = f"holds {', '.join(sorted(species))}: these descriptors know one species"
        raise DataError(config.structures, what, "give structures of one element")
    crystal = perfect_crystal(config, atoms[0], potential)
    bulk = _energy_entropy(crystal, potential, config.temperature, config.bulk or "perfect crystal")
    energies, entropies = [], []
    for k, item in enumerate(progress(atoms, "entropies")):
        where = f"{config.structures}, structure {k}"
        if not np.allclose(item.cell.array, crystal.cell.array, atol=1e-6):
            raise DataError(where, "its cell is not that of the perfect crystal", "use one cell")
        energy, entropy = _energy_entropy(item, potential, config.temperature, where)
        share = len(item) / len(crystal)
        energies.append(energy - share * bulk[0])
        entropies.append(entropy - share * bulk[1])
    classes = np.array([defect_class(item, len(crystal)) for item in atoms])
    return Minima(crystal, atoms, classes, np.array(energies), np.array(entropies))


def _energy_entropy(
    atoms: Atoms, potential: Potential, temperature: float, where: object
) -> tuple[float, float]:
    energy = float(evaluate(atoms, potential, where)[0].sum())
    return energy, vibrational_entropy(atoms, potential, temperature, where=where)


def perfect_crystal(config: Config, example: Atoms, potential: Potential) -> Atoms:
    """The crystal of `--bulk`, or bcc with the nearest number of atoms in the cell of `example`.

    Raises:
        DataError: the cell is no cube of bcc cells.
    """
    if config.bulk is not None:
        found = structures.read_structures(config.bulk, species=potential.species)
        if len(found) > 1:
            what = f"holds {len(found)} structures"
            raise DataError(config.bulk, what, "give a file with the perfect crystal alone")
        return found[0]
    cells = round((len(example) / 2) ** (1 / 3))
    crystal = bcc(cells, float(example.cell[0, 0]) / cells, example.get_chemical_symbols()[0])
    species_indices(crystal, potential)
    if not np.allclose(crystal.cell.array, example.cell.array, atol=1e-6):
        what = f"its cell is no cube of {cells} bcc cells"
        raise DataError(config.structures, what, "give the perfect crystal with --bulk")
    return crystal


def groups(found: Minima) -> np.ndarray:
    """Number of the group of each minimum (m,): near-copies of one another share a group.

    Minima of one class within 0.005 eV and 0.05 kB of each other are linked, and links are chained.
    """
    classes = np.unique(found.classes, return_inverse=True)[1]
    points = np.column_stack(
        [10.0 * classes, found.energy / NEAR_ENERGY, found.entropy / NEAR_ENTROPY]
    )
    pairs = cKDTree(points).query_pairs(1.0, p=np.inf, output_type="ndarray")
    size = len(points)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return np.asarray(csgraph.connected_components(links, directed=False)[1])
