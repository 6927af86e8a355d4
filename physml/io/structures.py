"""Atomic structures from any file that ASE reads, checked before anything is computed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from physml.errors import DataError, PhysmlError

FORMATS = "extxyz, POSCAR, cif, LAMMPS data or another format of ASE"


def read_structures(
    path: str | Path, species: Sequence[str] | None = None, min_height: float | None = None
) -> list[Atoms]:
    """All structures of a file; each is periodic, finite and of the species wanted.

    Args:
        path: a file; ASE finds its format.
        species: chemical symbols allowed, such as those that a potential knows.
        min_height: least distance, Å, between opposite faces of a cell.

    Raises:
        DataError: missing, empty, truncated or unreadable; or a structure without atoms or cell,
            with positions that are not finite, not periodic, of other species, or in too small a
            cell. The message numbers the structure from 0.
    """
    found = _read(path)
    if not found:
        raise DataError(path, "holds no structure", f"give {FORMATS}")
    for number, atoms in enumerate(found):
        check(atoms, f"{path}, structure {number}", species, min_height)
    return found


def check(
    atoms: Atoms,
    where: object,
    species: Sequence[str] | None = None,
    min_height: float | None = None,
) -> None:
    """Refuse a structure that `read_structures` would refuse; `where` names it.

    Raises:
        DataError: see `read_structures`.
    """
    if len(atoms) == 0:
        raise DataError(where, "holds no atoms", "leave it out")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise DataError(where, "positions or cell are not finite", "repair the coordinates")
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise DataError(where, "is not periodic in all directions", "give a cell and pbc")
    other = sorted(set(atoms.get_chemical_symbols()) - set(species or ()))
    if species is not None and other:
        known = ", ".join(species)
        raise DataError(where, f"holds {', '.join(other)}, not {known}", "use another potential")
    height = heights(atoms).min()
    if min_height is not None and height < min_height:
        what = f"its cell is {height:.3f} Å high, shorter than {min_height:.3f} Å"
        raise DataError(where, what, "repeat the cell")


def heights(atoms: Atoms) -> np.ndarray:
    """Distances (3,) between opposite faces of the cell, Å."""
    return np.asarray(1.0 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1))


def _read(path: str | Path) -> list[Atoms]:
    file = Path(path)
    if not file.is_file():
        raise DataError(path, "is not a readable file", "check the path")
    if file.stat().st_size == 0:
        raise DataError(path, "is empty", f"give {FORMATS}")
    if file.suffix in (".xyz", ".extxyz") and not _ends_its_last_line(file):
        what = "its last line is cut off: the file is truncated"
        raise DataError(path, what, "restore the file, or end that line if it is whole")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats; what matters is checked afterwards
            found = read(file, index=":")
    except PhysmlError:
        raise
    except Exception as error:  # each of ASE's readers has exceptions of its own
        reason = str(error) or type(error).__name__
        raise DataError(path, f"cannot be read ({reason[:120]})", f"give {FORMATS}") from error
    return found if isinstance(found, list) else [found]


def _ends_its_last_line(path: Path) -> bool:
    """A number cut short still reads as a number, so only the missing line end tells."""
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) in b"\r\n"
