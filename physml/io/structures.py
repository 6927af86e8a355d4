"""Atomic structures from any file that ASE reads, checked before anything is computed."""

from __future__ import annotations

import collections
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from ase.io.formats import filetype, open_with_compression

from physml.errors import DataError, PhysmlError
from physml.io.manifest import atomic_path

FORMATS = "extxyz, POSCAR, cif, LAMMPS data or another format of ASE"
BY_LINES = (
    "extxyz",
    "xyz",
    "vasp",
    "cif",
    "lammps-data",
)  # formats that end with a line of numbers
MIN_VOLUME = 1e-9  # Å^3: less is no cell


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


def write_structures(path: str | Path, structures: Sequence[Atoms]) -> None:
    """Write structures as extended xyz, whole or not at all; the folder is made when needed."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        write(temporary, list(structures), format="extxyz")


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
    if not np.isfinite(atoms.positions).all():
        bad = int(np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))[0])
        raise DataError(where, f"position of atom {bad} is not finite", "repair the coordinates")
    if not np.isfinite(atoms.cell.array).all():
        raise DataError(where, "the cell is not finite", "repair the lattice vectors")
    if not atoms.pbc.all():
        raise DataError(where, "is not periodic in all directions", "give a cell and pbc")
    if abs(np.linalg.det(atoms.cell.array)) < MIN_VOLUME:
        raise DataError(where, "its cell has no volume", "give three lattice vectors in Å")
    other = sorted(set(atoms.get_chemical_symbols()) - set(species or ()))
    if species is not None and other:
        known = ", ".join(species)
        raise DataError(where, f"holds {', '.join(other)}, not {known}", "use another potential")
    height = heights(atoms).min()
    if min_height is not None and height < min_height:
        what = f"its cell is {height:.3f} Å high, shorter than {min_height:.3f} Å"
        raise DataError(where, what, "use a larger supercell")


def heights(atoms: Atoms) -> np.ndarray:
    """Distances (3,) between opposite faces of the cell, Å."""
    return np.asarray(1.0 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1))


def _read(path: str | Path) -> list[Atoms]:
    if not Path(path).is_file():
        raise DataError(path, "is not a readable file", "check the path")
    if Path(path).stat().st_size == 0:
        raise DataError(path, "is empty", f"give {FORMATS}")
    try:
        kind = filetype(str(path))
        declared = _declared_frames(path) if kind in ("extxyz", "xyz") else None
        if kind in BY_LINES:
            _check_last_line(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats; what matters is checked afterwards
            found = read(path, index=":")
    except PhysmlError:
        raise
    except Exception as error:  # each of ASE's readers has exceptions of its own
        reason = str(error) or type(error).__name__
        raise DataError(path, f"cannot be read ({reason[:120]})", f"give {FORMATS}") from error
    frames = found if isinstance(found, list) else [found]
    if declared is not None and len(frames) != declared:
        what = f"{len(frames)} of its {declared} structures can be read"
        raise DataError(path, what, "remove what is between them")
    return frames


def _declared_frames(path: str | Path) -> int:
    """Structures of an (ext)xyz file by its counts; ASE would walk to any count, however wrong."""
    frames = 0
    with open_with_compression(str(path), "rb") as file:
        while line := file.readline():
            if not line.strip() or line.startswith(b"VEC"):  # an old way to give the cell
                continue
            try:
                count = int(line)
            except ValueError:
                what = f"{line.strip()[:30]!r} stands where a number of atoms should"
                raise DataError(path, what, f"give {FORMATS}") from None
            rows = sum(1 for _ in itertools.islice(file, max(count, 0) + 1))
            if count < 1 or rows < count + 1:
                what = f"structure {frames} should have {count} atoms, and has {max(rows - 1, 0)}"
                raise DataError(path, what, "the file is damaged or truncated: restore it")
            frames += 1
    return frames


def _check_last_line(path: str | Path) -> None:
    """A number cut short still reads as a number, so only the missing line end tells."""
    with open_with_compression(str(path), "rb") as file:
        last: list[bytes] = list(collections.deque(file, maxlen=1))
    if last and not last[0].endswith((b"\n", b"\r")):
        what = "its last line is cut off: the file is truncated"
        raise DataError(path, what, "restore the file, or end that line if it is whole")
