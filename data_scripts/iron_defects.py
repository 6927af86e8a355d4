"""Make relaxed minima of point defects in bcc iron, with formation energies and entropies.

    python -m data_scripts.iron_defects --starts 3000 --out my_defects.h5

Random starts of the classes I1-I4 and V1-V4 are relaxed under the Ackland-Mendelev 2004
potential at fixed lattice constant, and their classical harmonic formation entropy at 1000 K is
computed. Start k is a pure function of (seed, k): the file does not depend on how many processes
made it, nor on how often they were killed. Finished blocks stay in `--parts`.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from physml.atoms import relax, vibrational_entropy
from physml.atoms.defects import IRON_A0, bcc, defect_class, random_defect
from physml.atoms.potentials import ackland_mendelev_2004, evaluate
from physml.errors import TrainingError

TEMPERATURE = 1000.0  # K
BLOCK = 20  # starts that are saved together
SCALE = 1e-5  # Å: unit of the stored offsets
# Classes of forty successive starts; clusters with many distinct minima come most often.
SCHEDULE = ["I4"] * 12 + ["I3"] * 9 + ["V4"] * 13 + ["V3"] * 3 + ["I2", "V2"]


class Reference(NamedTuple):
    """Perfect crystal with its energy, eV, and entropy, kB."""

    crystal: Atoms
    energy: float
    entropy: float


@functools.cache
def reference(cells: int) -> Reference:
    """Perfect crystal of 2 cells^3 atoms."""
    crystal, potential = bcc(cells), ackland_mendelev_2004()
    energy = float(evaluate(crystal, potential)[0].sum())
    return Reference(crystal, energy, vibrational_entropy(crystal, potential, TEMPERATURE))


def start_class(index: int) -> str:
    """Class of start `index`; every fortieth is a single defect."""
    place = index % (len(SCHEDULE) + 1)
    single = "I1" if index // (len(SCHEDULE) + 1) % 2 else "V1"
    return SCHEDULE[place] if place < len(SCHEDULE) else single


def encode(atoms: Atoms, crystal: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Nearest lattice site of each atom (n,) and the offset from it (n, 3) in units of 1e-5 Å.

    The common drift of the crystal is taken out.
    """
    half = 0.5 * IRON_A0
    drift = np.median((atoms.positions + 0.5 * half) % half - 0.5 * half, axis=0)
    positions = atoms.positions - drift
    corner = np.round(positions / IRON_A0)
    centre = np.floor(positions / IRON_A0) + 0.5
    far = lambda site: ((positions - IRON_A0 * site) ** 2).sum(axis=1)  # noqa: E731
    site = np.where((far(corner) < far(centre))[:, None], corner, centre)
    offsets = np.round((positions - IRON_A0 * site) / SCALE).astype(np.int32)
    cells = round(float(crystal.cell[0, 0]) / IRON_A0)
    return site_number(site, cells).astype(np.int32), offsets


def site_number(site: np.ndarray, cells: int) -> np.ndarray:
    """Number of a bcc site given in lattice constants, 0 ... 2 cells^3 - 1, in the order of `bcc`."""
    body = (site[:, 0] % 1.0 > 0.25).astype(int)
    x, y, z = (np.floor(site).astype(int) % cells).T
    return 2 * ((x * cells + y) * cells + z) + body


class Minimum(NamedTuple):
    """One relaxed start: class, index, formation energy (eV), entropy (kB), sites, offsets."""

    name: str
    start: int
    energy: float
    entropy: float
    sites: np.ndarray
    offsets: np.ndarray


def make_minimum(seed: int, index: int, cells: int) -> Minimum:
    """Relax start `index` and compute its formation energy and entropy.

    Raises:
        TrainingError: the relaxation reached no minimum.
    """
    bulk, potential = reference(cells), ackland_mendelev_2004()
    rng = np.random.default_rng([seed, index])
    atoms = relax(random_defect(bulk.crystal, start_class(index), rng), potential, seed=index)
    share = len(atoms) / len(bulk.crystal)
    energy = float(evaluate(atoms, potential)[0].sum()) - share * bulk.energy
    entropy = vibrational_entropy(atoms, potential, TEMPERATURE) - share * bulk.entropy
    sites, offsets = encode(atoms, bulk.crystal)
    name = defect_class(atoms, len(bulk.crystal))
    return Minimum(name, index, energy, entropy, sites, offsets)


def make_block(seed: int, first: int, last: int, cells: int, path: Path) -> None:
    """Relax starts first ... last-1 and write them to `path` in one move."""
    made, failed = [], []
    for index in range(first, last):
        try:
            made.append(make_minimum(seed, index, cells))
        except TrainingError:
            failed.append(index)
    arrays = {**pack(made), "failed": np.array(failed, dtype=np.int32)}
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with aside.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(aside, path)


def pack(minima: Sequence[Minimum]) -> dict[str, np.ndarray]:
    """Arrays of a list of minima; `atoms` (m,) counts the rows of each in `sites`, `offsets`."""
    return {
        "class": np.array([m.name for m in minima], dtype="S4"),
        "start": np.array([m.start for m in minima], dtype=np.int32),
        "formation_energy": np.array([m.energy for m in minima], dtype=np.float64),
        "formation_entropy": np.array([m.entropy for m in minima], dtype=np.float64),
        "atoms": np.array([len(m.sites) for m in minima], dtype=np.int32),
        "sites": np.concatenate([m.sites for m in minima] or [np.zeros(0, np.int32)]),
        "offsets": np.concatenate([m.offsets for m in minima] or [np.zeros((0, 3), np.int32)]),
    }
