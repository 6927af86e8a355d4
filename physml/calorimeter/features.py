"""High-level features of showers, by the definitions of the CaloChallenge (arXiv 2410.21611).

With e_i the deposits of the voxels of a layer and x_i the middle of each (eta = r cos(alpha),
phi = r sin(alpha), or r itself: mm, `geometry.centres`), the centre of energy is
<x> = sum e_i x_i / (sum e_i + 1e-16 MeV), the width sqrt(<x²> - <x>²); a layer without energy has
0 for both. Eta and phi are taken in layers with several sectors only. The sparsity is the share of
voxels that hold no more than a threshold. These are the definitions of the challenge's program
(github CaloChallenge/homepage, code/HighLevelFeatures.py), written anew, in float64.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from physml.calorimeter import geometry as geometries
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry
from physml.errors import ConfigError, DataError

BLOCK_BYTES = 32 << 20  # of float64 deposits worked on at a time
TINY = 1e-16  # MeV, added to the energy of a layer as the challenge does
NOISE = 1e-14
"""A variance below this share of the mean square is rounding: the width of one voxel is 0."""

Features = dict[str, np.ndarray]


def features(showers: Showers, geometry: Geometry, threshold: float = 0.0) -> Features:
    """High-level features of n showers in a geometry of l layers, m of them with sectors.

    Returns float64 arrays by name:

    | name         | shape  | meaning                                                      |
    |--------------|--------|--------------------------------------------------------------|
    | `e_inc`      | (n,)   | incident energy, MeV                                         |
    | `e_tot`      | (n,)   | energy of all voxels, MeV                                    |
    | `e_ratio`    | (n,)   | `e_tot` / `e_inc`: the response                              |
    | `e_layer`    | (n, l) | energy of each layer, MeV: the profile in depth              |
    | `centre_eta` | (n, m) | where the shower is, mm: 0 on average for a beam on the axis |
    | `centre_phi` | (n, m) |                                                              |
    | `width_eta`  | (n, m) | how wide it is along either axis, mm                         |
    | `width_phi`  | (n, m) |                                                              |
    | `centre_r`   | (n, l) | mean distance from the axis, mm                              |
    | `width_r`    | (n, l) | and its spread, mm                                           |
    | `sparsity`   | (n, l) | share of voxels with no more than `threshold`                |

    Args:
        showers: finite deposits, none negative, see `events.check`.
        geometry: of their voxels.
        threshold: MeV; 0 as in the challenge, whose files have no deposits below theirs.
            `geometry.threshold` leaves softer deposits of a generator out of the count.

    Raises:
        DataError: another number of voxels than the geometry; an incident energy is not positive; a
            deposit is negative or not finite.
    """
    energy, deposits = showers
    if deposits.shape != (len(energy), geometry.size):
        what = f"have shape {deposits.shape}, the geometry has {geometry.size} voxels"
        raise DataError("showers", what, "give the geometry they were made with")
    if not ((energy > 0) & np.isfinite(energy)).all():
        raise DataError("showers", "have incident energies that are not positive", "drop them")
    moments, sparsity = _moments(deposits, geometry, threshold)
    if not np.isfinite(moments).all() or deposits.min(initial=0.0) < 0:
        what = "have deposits that are negative or not finite"
        raise DataError("showers", what, "find out what made them")
    sectors = [k for k, layer in enumerate(geometry.layers) if layer.n_alpha > 1]
    found = {"e_inc": energy.astype(np.float64), "e_tot": moments[:, :, 0].sum(axis=1)}
    found |= {"e_ratio": found["e_tot"] / found["e_inc"], "e_layer": moments[:, :, 0]}
    for k, axis in enumerate(("eta", "phi", "r")):
        layers = list(range(len(geometry.layers))) if axis == "r" else sectors
        first, second = (moments[:, layers, j] for j in (1 + k, 4 + k))
        weight = moments[:, layers, 0] + TINY
        centre, square = first / weight, second / weight
        variance = square - centre**2
        found[f"centre_{axis}"] = centre
        found[f"width_{axis}"] = np.sqrt(np.where(variance > NOISE * square, variance, 0.0))
    return found | {"sparsity": sparsity}


def _moments(
    deposits: np.ndarray, geometry: Geometry, threshold: float
) -> tuple[Float64[np.ndarray, "n l 7"], Float64[np.ndarray, "n l"]]:
    """Sums of e, e x and e x² (x: eta, phi, r) of each layer, and its sparsity, block by block."""
    middle = geometries.centres(geometry)
    x = np.stack([middle.eta, middle.phi, middle.r], axis=1)
    columns = np.concatenate([np.ones((geometry.size, 1)), x, x**2], axis=1)
    parts = geometries.slices(geometry)
    moments = np.empty((len(deposits), len(parts), 7))
    sparsity = np.empty((len(deposits), len(parts)))
    step = max(1, BLOCK_BYTES // (8 * geometry.size))
    for start in range(0, len(deposits), step):
        rows = slice(start, start + step)
        block = deposits[rows].astype(np.float64)
        for k, part in enumerate(parts):
            moments[rows, k] = block[:, part] @ columns[part]
            sparsity[rows, k] = 1.0 - (block[:, part] > threshold).mean(axis=1)
    return moments, sparsity


def matrix(found: Features) -> Float64[np.ndarray, "n f"]:
    """The features as the challenge's high-level classifier takes them, one row per shower.

    Columns: log10 of `e_inc` and of `e_layer` + 1e-8 (MeV); centres in eta, in phi, widths in eta,
    in phi, each over 100 mm (github CaloChallenge/homepage, code/evaluate.py).
    """
    shapes = [
        found[f"{kind}_{axis}"] / 1e2 for kind in ("centre", "width") for axis in ("eta", "phi")
    ]
    logs = [np.log10(found["e_inc"])[:, None], np.log10(found["e_layer"] + 1e-8)]
    return np.concatenate(logs + shapes, axis=1)


def spectrum_edges(
    showers: Showers, geometry: Geometry, points: int = 50
) -> Float64[np.ndarray, "points"]:
    """Edges of the voxel spectrum, MeV: equal in the logarithm from the threshold to the largest.

    Args:
        showers: the reference, which the challenge takes the largest deposit of.
        geometry: its `threshold` is the first edge: 15.15 keV in sets 2 and 3, 1 MeV in set 1.
        points: edges; 50 as in the challenge.

    Raises:
        ConfigError: the geometry has no threshold, or no deposit lies above it.
    """
    largest = float(showers.deposits.max(initial=0.0))
    if not 0 < geometry.threshold < largest:
        what = f"threshold {geometry.threshold:g} MeV is not between 0 and {largest:g} MeV"
        raise ConfigError("voxel spectrum", what, "give the geometry a threshold")
    return np.geomspace(geometry.threshold, largest, points)


def voxel_spectrum(showers: Showers, edges: Float64[np.ndarray, "k+1"]) -> Int64[np.ndarray, "k"]:
    """Voxels of all showers between each pair of edges (MeV), in bounded memory."""
    step = max(1, BLOCK_BYTES // (8 * max(showers.deposits.shape[1], 1)))
    counts = np.zeros(len(edges) - 1, np.int64)
    for start in range(0, len(showers.deposits), step):
        block = showers.deposits[start : start + step]
        counts += np.histogram(block[block > 0].astype(np.float64), edges)[0]
    return counts
