"""Point defects in bcc crystals: vacancies, dumbbells and clusters, named or random.

A class is a letter and a number: V3 misses three atoms, I2 holds two more than the lattice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from jaxtyping import Float, Int

from physml.errors import ConfigError

IRON_A0 = 2.8553  # Å, lattice constant of bcc iron under Ackland-Mendelev 2004 at 0 K
DUMBBELL = 0.75  # lattice constants between the two atoms of a fresh dumbbell
HOT_RADIUS = 6.0  # Å around the defect that is shaken in a hot start

Vector = Sequence[float]


def bcc(cells: int = 8, a0: float = IRON_A0, species: str = "Fe") -> Atoms:
    """Perfect periodic bcc crystal of 2 cells^3 atoms; `a0` in Å.

    Raises:
        ConfigError: fewer than one cell.
    """
    if cells < 1:
        raise ConfigError("cells", f"is {cells}", "give at least 1")
    crystal: Atoms = bulk(species, crystalstructure="bcc", a=a0, cubic=True).repeat(cells)
    return crystal


def defect_class(atoms: Atoms, n_bulk: int) -> str:
    """Class of a defect from its number of atoms: `V3`, `I2`, or `bulk`."""
    excess = len(atoms) - n_bulk
    return f"I{excess}" if excess > 0 else f"V{-excess}" if excess < 0 else "bulk"


def _from_centre(crystal: Atoms, point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Nearest-image vectors from a point to every atom, Å."""
    fractional = crystal.cell.scaled_positions(crystal.positions - point)
    return np.asarray(crystal.cell.cartesian_positions(fractional - np.round(fractional)))


def _site(crystal: Atoms, offset: Vector, a0: float) -> int:
    """Index of the atom at the cell's centre site plus `offset` (lattice constants)."""
    middle = a0 * np.floor(0.5 * np.diag(crystal.cell.array) / a0)
    distance = np.linalg.norm(_from_centre(crystal, middle + a0 * np.array(offset)), axis=1)
    nearest = int(distance.argmin())
    if distance[nearest] > 0.1 * a0:
        raise ConfigError("offset", f"{tuple(offset)} is no lattice site", "use bcc vectors")
    return nearest


def vacancies(crystal: Atoms, offsets: Sequence[Vector], a0: float = IRON_A0) -> Atoms:
    """Remove the atoms at the given sites (in lattice constants from the centre).

    Raises:
        ConfigError: an offset is no lattice site.
    """
    atoms: Atoms = crystal.copy()
    del atoms[sorted({_site(crystal, offset, a0) for offset in offsets})]
    return atoms


def dumbbells(
    crystal: Atoms, offsets: Sequence[Vector], directions: Sequence[Vector], a0: float = IRON_A0
) -> Atoms:
    """Replace the atoms at the given sites by pairs along the given directions.

    Raises:
        ConfigError: an offset is no lattice site, a direction is 0, or the lists differ in length.
    """
    if not np.linalg.norm(np.reshape(directions, (-1, 3)), axis=1).all():
        raise ConfigError("directions", "hold the vector 0", "give a direction for each dumbbell")
    if len(offsets) != len(directions):
        raise ConfigError("directions", "one is needed for each offset", "give lists of one length")
    return _split(crystal, [_site(crystal, offset, a0) for offset in offsets], directions, a0)


def _split(crystal: Atoms, sites: Sequence[int], directions: Sequence[Vector], a0: float) -> Atoms:
    atoms: Atoms = crystal.copy()
    for site, direction in zip(sites, directions, strict=True):
        half = 0.5 * DUMBBELL * a0 * np.array(direction) / np.linalg.norm(direction)
        extra = atoms[[site]]
        extra.positions += half
        atoms.positions[site] -= half
        atoms += extra
    return atoms


_SQUARE = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
_TETRAHEDRON = [(0, 0, 0), (1, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, -0.5)]
_110 = (1, 1, 0)

# Starts of well-known defects: name -> function of the crystal. Sites in lattice constants.
NAMED: Mapping[str, Callable[[Atoms], Atoms]] = {
    "V1": lambda c: vacancies(c, _TETRAHEDRON[:1]),
    "V2 first neighbours": lambda c: vacancies(c, [(0, 0, 0), (0.5, 0.5, 0.5)]),
    "V2 second neighbours": lambda c: vacancies(c, [(0, 0, 0), (1, 0, 0)]),
    "V2 third neighbours": lambda c: vacancies(c, [(0, 0, 0), (1, 1, 0)]),
    "V3 compact": lambda c: vacancies(c, _TETRAHEDRON[:3]),
    "V4 tetrahedron": lambda c: vacancies(c, _TETRAHEDRON),
    "V4 square": lambda c: vacancies(c, _SQUARE),
    "I1 110 dumbbell": lambda c: dumbbells(c, [(0, 0, 0)], [_110]),
    "I2 parallel 110 dumbbells": lambda c: dumbbells(
        c, [(0, 0, 0), (0.5, -0.5, 0.5)], [_110, _110]
    ),
    "I2 110 dumbbells along 111": lambda c: dumbbells(
        c, [(0, 0, 0), (0.5, 0.5, 0.5)], [_110, _110]
    ),
    "I3 110 dumbbells": lambda c: dumbbells(
        c, [(0, 0, 0), (0.5, -0.5, 0.5), (0.5, -0.5, -0.5)], [_110] * 3
    ),
    "I4 110 dumbbells": lambda c: dumbbells(
        c, [(0, 0, 0), (0.5, -0.5, 0.5), (0.5, -0.5, -0.5), (1, -1, 0)], [_110] * 4
    ),
}


def _cluster(
    crystal: Atoms, count: int, reach: float, rng: np.random.Generator
) -> Int[np.ndarray, " count"]:
    """Choose `count` sites, each within `reach` Å of one that was chosen before."""
    chosen = [int(rng.integers(len(crystal)))]
    while len(chosen) < count:
        anchor = crystal.positions[chosen[rng.integers(len(chosen))]]
        distance = np.linalg.norm(_from_centre(crystal, anchor), axis=1)
        near = np.setdiff1d(np.flatnonzero(distance < reach), chosen)
        chosen.append(int(rng.choice(near)))
    return np.array(chosen)


def _random_directions(count: int, rng: np.random.Generator) -> Float[np.ndarray, "count 3"]:
    """110, 111, 100 axes, or any direction; all parallel in half of the clusters."""
    families = [(1, 1, 0), (1, 1, 1), (1, 0, 0)]
    axes = [
        rng.permutation(families[kind]) * rng.choice([-1, 1], 3) if kind < 3 else rng.normal(size=3)
        for kind in rng.choice(4, size=count, p=[0.5, 0.3, 0.05, 0.15])
    ]
    return np.array([axes[0]] * count if rng.random() < 0.5 else axes)


def random_defect(
    crystal: Atoms, name: str, rng: np.random.Generator, a0: float = IRON_A0
) -> Atoms:
    """Start of a random defect of a class such as `V3` or `I4`, not relaxed.

    Sites lie within one to two and a half lattice constants of each other. Four starts in ten are
    hot: atoms within 6 Å are displaced by up to 0.4 Å (standard deviation, per axis), which
    leads to minima that are high in energy.

    Raises:
        ConfigError: not a class.
    """
    kind, count = name[:1], name[1:]
    if kind not in ("V", "I") or not count.isdigit() or int(count) < 1:
        raise ConfigError(
            "defect class", f"{name!r} is not known", "use V1, V2, ... or I1, I2, ..."
        )
    sites = _cluster(crystal, int(count), a0 * rng.uniform(1.05, 2.5), rng)
    atoms: Atoms = crystal.copy()
    if kind == "V":
        del atoms[np.sort(sites)]
    else:
        atoms = _split(crystal, sites.tolist(), _random_directions(len(sites), rng).tolist(), a0)
    if rng.random() < 0.4:
        nearest = np.min(
            [np.linalg.norm(_from_centre(atoms, crystal.positions[s]), axis=1) for s in sites],
            axis=0,
        )
        noise = rng.normal(0.0, rng.uniform(0.1, 0.4), atoms.positions.shape)
        atoms.positions += np.where((nearest < HOT_RADIUS)[:, None], noise, 0.0)
    return atoms
