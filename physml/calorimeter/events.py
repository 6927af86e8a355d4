"""The arrays that the calorimeter domain passes on: showers.

Energies are MeV, lengths mm, angles rad, whatever unit a file has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from physml.errors import DataError

LEAST_ENERGY = 10.0
"""MeV: no shower starts below; files whose energies go below it have been given in GeV."""


class Showers(NamedTuple):
    """n showers; the voxels are flattened as `geometry.Geometry` orders them."""

    incident_energy: Float64[np.ndarray, "n"]  # MeV
    deposits: Float32[np.ndarray, "n voxels"]  # MeV


def select(showers: Showers, rows: np.ndarray | slice) -> Showers:
    """Some of the showers: a mask, row numbers or a slice."""
    return Showers(showers.incident_energy[rows], showers.deposits[rows])


def concatenate(parts: list[Showers]) -> Showers:
    """Showers of several parts, one behind the other."""
    return Showers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def check(showers: Showers, where: object, first: int = 0) -> None:
    """Refuse showers that no generator and no feature could take.

    Args:
        showers: to look at.
        where: the file, for the message.
        first: number of the first of them in the file.

    Raises:
        DataError: numbers of showers differ; an incident energy or deposit is not finite; an
            incident energy is below `LEAST_ENERGY`; a deposit is negative.
    """
    energy, deposits = showers
    if energy.ndim != 1 or deposits.ndim != 2 or len(energy) != len(deposits):
        what = f"holds energies {energy.shape} and showers {deposits.shape}"
        raise DataError(where, what, "give one energy and one row of voxels per shower")
    bad = ~(np.isfinite(energy) & (energy >= LEAST_ENERGY))
    if bad.any():
        k = int(bad.argmax())
        what = f"incident energy of shower {first + k} is {energy[k]:g} MeV"
        raise DataError(where, what, f"give finite MeV from {LEAST_ENERGY:g} (is it in GeV?)")
    # Sums and least values of rows find what is wrong without a mask as large as the data.
    with np.errstate(invalid="ignore", over="ignore"):
        bad = ~np.isfinite(deposits.sum(axis=1, dtype=np.float64))
        bad |= ~(deposits.min(axis=1, initial=0.0) >= 0)
    if bad.any():
        k = int(bad.argmax())
        voxel = int((~(deposits[k] >= 0) | np.isinf(deposits[k])).argmax())
        what = f"voxel {voxel} of shower {first + k} is {deposits[k, voxel]:g} MeV"
        raise DataError(where, what, "give finite deposits, none below 0")
