"""Write showers in other people's forms; `physml.calorimeter.readers` says what these hold.

Every file is whole or absent. The HDF5 files are packed with gzip and checked by Fletcher-32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from physml.calorimeter import events, tally
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry, slices
from physml.calorimeter.readers import GEV, refuse_voxels
from physml.errors import DataError
from physml.io import hdf5

LEVEL = 4  # of gzip: 13 to 22 times faster than 9 on showers of sets 1 and 2, files 2 to 4 % larger


def write_challenge(
    path: str | Path,
    showers: Showers,
    geometry: Geometry,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write showers as the CaloChallenge does (HDF5, gzip, Fletcher-32), whole or not at all.

    The challenge's own evaluation reads the file as it is.

    Args:
        path: file to write or replace.
        showers: in MeV.
        geometry: of their voxels.
        attributes: text and numbers about the file: seeds, source, what was extrapolated.

    Raises:
        DataError: see `events.check` and `tally.check_units`; another number of voxels than the
            geometry.
    """
    _check_written(path, showers, geometry)
    arrays = {
        "incident_energies": showers.incident_energy[:, None],
        "showers": np.asarray(showers.deposits, np.float32),
    }
    hdf5.write(path, arrays, attributes, LEVEL)


def write_calogan(
    path: str | Path,
    showers: Showers,
    geometry: Geometry,
    overflow: Float32[np.ndarray, "n k"] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write showers as CaloGAN does in HDF5, whole or not at all.

    Args:
        path, showers, geometry, attributes: see `write_challenge`; the incident energies become
            GeV.
        overflow: MeV beside the cells; by default 0 for each layer.

    Raises:
        DataError: see `write_challenge`; an overflow that is not (n, k), negative or not finite.
    """
    _check_written(path, showers, geometry)
    n = len(showers.incident_energy)
    arrays: dict[str, np.ndarray] = {"energy": showers.incident_energy[:, None] / GEV}
    for layer, part in zip(geometry.layers, slices(geometry), strict=True):
        cells = showers.deposits[:, part].reshape(n, layer.n_alpha, layer.n_r)
        arrays[f"layer_{layer.id}"] = np.asarray(cells, np.float32)
    arrays["overflow"] = _overflow(path, overflow, n, len(geometry.layers))
    hdf5.write(path, arrays, attributes, LEVEL)


def write_cells(
    path: str | Path,
    showers: Showers,
    geometry: Geometry,
    overflow: Float32[np.ndarray, "n k"] | None = None,
    tree: str = "fancy_tree",
    more: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write showers as a ROOT tree with a branch per cell, as CaloGAN's program did.

    Slow: 1.9 CPU s for 1,000 showers in the 507 branches of CaloGAN, 2.9 s for 10,000, where
    `write_calogan` takes 0.06 and 0.6 s.

    Args:
        path, showers, geometry, overflow: see `write_calogan`; the overflow follows the cells.
        tree: its name.
        more: further branches, one value per shower.

    Raises:
        DataError: see `write_calogan`.
    """
    from physml.io import root

    _check_written(path, showers, geometry)
    beside = _overflow(path, overflow, len(showers.incident_energy), len(geometry.layers))
    cells = np.concatenate([np.asarray(showers.deposits, np.float32), beside], axis=1)
    columns = {f"cell_{k}": cells[:, k] for k in range(cells.shape[1])}
    columns |= {"TotalEnergy": showers.incident_energy / GEV, **(more or {})}
    root.write(path, tree, columns, overwrite=True)


def _overflow(
    path: str | Path, overflow: np.ndarray | None, n: int, layers: int
) -> Float32[np.ndarray, "n k"]:
    """The overflow given, checked, or none."""
    if overflow is None:
        return np.zeros((n, layers), np.float32)
    beside = np.asarray(overflow, np.float32)
    if beside.ndim != 2 or len(beside) != n:
        what = f"the overflow has shape {beside.shape}"
        raise DataError(path, what, f"give ({n}, k), or none")
    if not (np.isfinite(beside) & (beside >= 0)).all():
        raise DataError(path, "an overflow is negative or not finite", "find out what made it")
    return beside


def _check_written(path: str | Path, showers: Showers, geometry: Geometry) -> None:
    events.check(showers, path)
    if showers.deposits.shape[1] != geometry.size:
        refuse_voxels(path, showers.deposits.shape, geometry)
    deposited = float(showers.deposits.sum(dtype=np.float64))
    tally.check_units(float(showers.incident_energy.sum()), deposited, path)
