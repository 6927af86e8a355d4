"""Sets of relaxed minima in one small file: class, energy, entropy, and positions to 1e-5 Å.

Positions are kept as the nearest bcc lattice site and the offset from it in units of 1e-5 Å, which
compresses three times better than floating point. Rounding leaves forces of about 1e-4 eV/Å: one
call of `physml.atoms.relax` (a Newton step) brings a structure back to rest before an entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from physml.errors import DataError

SCALE = 1e-5  # Å, unit of the stored offsets
MAX_BYTES = 2 << 30
REMEDY = "restore the file with git, or make it again with data_scripts.iron_defects"


class Minimum(NamedTuple):
    """One relaxed defect.

    | field       | unit      | meaning                                              |
    |-------------|-----------|------------------------------------------------------|
    | `name`      |           | class, such as V3 or I2                              |
    | `start`     |           | number of the random start that led to it            |
    | `energy`    | eV        | formation energy                                     |
    | `entropy`   | kB        | formation entropy                                    |
    | `sites`     | (n,)      | nearest lattice site of each atom                    |
    | `offsets`   | (n, 3)    | position minus that site, in units of 1e-5 Å         |
    """

    name: str
    start: int
    energy: float
    entropy: float
    sites: Int[np.ndarray, " n"]
    offsets: Int[np.ndarray, "n 3"]


def sites_of(cells: int, a0: float) -> Float[np.ndarray, "sites 3"]:
    """Positions of the 2 cells^3 bcc lattice sites, Å, in the order of `physml.atoms.bcc`."""
    corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(
        -1, 1, 3
    )
    return np.asarray(a0 * (corner + np.array([0.0, 0.5])[:, None]).reshape(-1, 3))


def encode(
    positions: Float[np.ndarray, "n 3"], cells: int, a0: float
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "n 3"]]:
    """Nearest lattice site of each atom and its offset; the common drift is taken out."""
    half = 0.5 * a0
    drift = np.median((positions + 0.5 * half) % half - 0.5 * half, axis=0)
    positions = positions - drift
    candidates = np.stack([np.round(positions / a0), np.floor(positions / a0) + 0.5])
    distance = ((positions - a0 * candidates) ** 2).sum(axis=-1)
    body = distance[1] <= distance[0]
    site = np.where(body[:, None], candidates[1], candidates[0])
    offsets = np.round((positions - a0 * site) / SCALE).astype(np.int32)
    x, y, z = (np.floor(site).astype(np.int64) % cells).T
    return (2 * ((x * cells + y) * cells + z) + body).astype(np.int32), offsets


def decode(minimum: Minimum, cells: int, a0: float) -> Float[np.ndarray, "n 3"]:
    """Positions, Å, of a stored minimum."""
    return np.asarray(sites_of(cells, a0)[minimum.sites] + SCALE * minimum.offsets)


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


def unpack(arrays: dict[str, np.ndarray], where: object) -> list[Minimum]:
    """Inverse of `pack`.

    Raises:
        DataError: an array is missing, lengths disagree, or a value is not finite.
    """
    missing = sorted(set(pack([])) - set(arrays))
    if missing:
        raise DataError(where, f"lacks {', '.join(missing)}", REMEDY)
    counts = arrays["atoms"]
    columns = ("class", "start", "formation_energy", "formation_entropy")
    lengths = {len(arrays[name]) for name in columns} | {len(counts)}
    rows = {len(arrays["sites"]), len(arrays["offsets"]), int(counts.sum())}
    if len(lengths) > 1 or len(rows) > 1:
        raise DataError(where, "its arrays differ in length", REMEDY)
    if not all(np.isfinite(arrays[name]).all() for name in columns[2:]):
        raise DataError(where, "holds energies or entropies that are not finite", REMEDY)
    stops = np.cumsum(counts)
    return [
        Minimum(
            arrays["class"][k].decode(),
            int(arrays["start"][k]),
            float(arrays["formation_energy"][k]),
            float(arrays["formation_entropy"][k]),
            arrays["sites"][stop - counts[k] : stop],
            arrays["offsets"][stop - counts[k] : stop],
        )
        for k, stop in enumerate(stops)
    ]


def distinct(
    minima: Sequence[Minimum], energy: float = 1e-5, entropy: float = 1e-3
) -> list[Minimum]:
    """Keep the first of all minima that agree in class, energy (eV) and entropy (kB)."""
    kept: list[Minimum] = []
    seen: dict[str, list[tuple[float, float]]] = {}
    for m in minima:
        known = seen.setdefault(m.name, [])
        if not any(abs(m.energy - e) < energy and abs(m.entropy - s) < entropy for e, s in known):
            known.append((m.energy, m.entropy))
            kept.append(m)
    return kept
