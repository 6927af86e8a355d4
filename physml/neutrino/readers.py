"""Read pixel maps, hits and generated events from other people's files.

`read_maps` takes the layouts that `physml.neutrino.layouts` describes, `read_hits` flat ROOT trees,
`particles_from_hepmc` the events of GENIE, NuWro and others for our own detector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from physml.errors import ConfigError, DataError
from physml.io import hdf5, hepmc
from physml.neutrino.events import Interactions, Particles, PixelMaps
from physml.neutrino.layouts import (
    AXES,
    CODES,
    LAYOUTS,
    UNKNOWN,
    Read,
    caf_truth,
    is_zlib,
    read_dune,
    recognised,
)

CLASS_OF_CODE = np.array([0] * 4 + [1] * 4 + [2] * 4 + [3, 3, 4, UNKNOWN, UNKNOWN], np.int32)
"""Place in `events.CLASSES` of codes 0 to 15 and, at the end, of -1 (no truth in the file)."""

NUCLEON = 0.939  # GeV, mean of proton and neutron to 0.1 MeV (CODATA 2022)


def read_maps(
    path: str | Path,
    layout: str | None = None,
    axes: str | None = None,
    *,
    keep_odd: bool = False,
    max_bytes: int = hdf5.MAX_BYTES,
) -> Read:
    """Pixel maps and truth of a file in one of the layouts of `physml.neutrino.layouts`.

    Args:
        path: HDF5 file; or, for DUNE, one .gz file or a folder of them.
        layout: one of the table; by default recognised by what the file holds.
        axes: order of the stored axes of each image, one of `AXES`; by default that of the layout.
            Every other order is tried, and when it joins hits to tracks better (the wrong one
            turns them into speckle) the file is refused with the order to give.
        keep_odd: keep blank and saturated maps, which are refused otherwise.
        max_bytes: largest sum of declared values of an HDF5 file.

    Returns:
        Maps, and truth columns: `code` int32 (-1: the file holds no truth), `energy` of the
        neutrino in GeV where given (0 for cosmics), `pdg` where given (0 for cosmics), and those of
        run, subrun, cycle, evt, subevt that the file holds.

    Raises:
        DataError: see `physml.io.hdf5.read`; a dataset is missing or of another shape, values are
            no levels 0 to 255, codes are unknown, an energy is negative or not finite, the axes
            are in another order, a map is blank or saturated.
        ConfigError: an unknown layout or order.
    """
    if axes is not None and axes not in AXES:
        raise ConfigError("axes", f"{axes!r} is unknown", f"give one of {AXES}")
    if layout == "dune" or (layout is None and (Path(path).is_dir() or is_zlib(path))):
        found = read_dune(path)
    else:
        arrays = hdf5.read(path, max_bytes)
        layout = layout or recognised(path, arrays)
        if layout not in LAYOUTS:
            raise ConfigError(
                "layout", f"{layout!r} is unknown", f"give one of {[*LAYOUTS, 'dune']}"
            )
        found = LAYOUTS[layout](path, arrays, axes)
    if not keep_odd:
        _check_maps(path, found.maps)
    return Read(found.maps, _checked_truth(path, found.truth))


def read_truth(path: str | Path, max_bytes: int = hdf5.MAX_BYTES) -> dict[str, np.ndarray]:
    """Keys and truth of each slice of a CAF-HDF5 file, without its images; see `read_maps`.

    Raises:
        DataError: as `read_maps`.
    """
    arrays = hdf5.read(path, max_bytes)
    return _checked_truth(path, caf_truth(path, arrays))


def class_of(code: Int[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
    """Place in `events.CLASSES` of interaction codes; -1 for "other" and for no truth.

    Raises:
        DataError: a code is not -1 to 15.
    """
    if np.size(code) and (np.min(code) < UNKNOWN or np.max(code) >= len(CODES)):
        raise DataError("interaction codes", "are not all -1 to 15", "see layouts.CODES")
    return np.asarray(CLASS_OF_CODE[code])


def read_hits(
    path: str | Path, tree: str, columns: Mapping[str, str], entries: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Columns of a flat ROOT tree (one branch a leaf, as flat CAF files have), under new names.

    Args:
        path: ROOT file.
        tree: name of the tree.
        columns: new name -> branch, such as {"plane": "rec.slc.hit.plane"}.
        entries: first and last (exclusive) entry; all by default.

    Returns:
        New name -> array, or `physml.io.root.Jagged` for a branch of variable length; all jagged
        columns have the same lengths. Columns called energy are finite and not negative.

    Raises:
        DataError: see `physml.io.root.read`; jagged columns differ in length; a bad energy.
    """
    from physml.io import root

    found: dict[str, Any] = root.read(path, tree, columns, entries)
    jagged = {name: column for name, column in found.items() if hasattr(column, "offsets")}
    first = next(iter(jagged), "")
    for name, column in found.items():
        if name in jagged and not np.array_equal(column.offsets, jagged[first].offsets):
            what = f"{columns[name]!r} and {columns[first]!r} have different lengths"
            raise DataError(path, what, "read them apart")
        if "energy" in name:
            _check_energy(path, columns[name], getattr(column, "values", column))
    return found


def particles_from_hepmc(path: str | Path) -> tuple[Interactions, Particles]:
    """Neutrino events of a HepMC3 ascii file (GENIE, NuWro, Achilles...) for our detector.

    The mode comes from the process number (NuHepMC rule E.C.1: hundreds 2 QE, 4 RES, 5 and 6
    DIS), "other" without one. The lepton is the most energetic particle, left or decayed, that is
    the neutrino itself (NC) or its charged partner (CC); a process number decides between both.
    Q² and W follow from both momenta and a nucleon at rest; W is 0 where that would make W² < 0,
    as motion inside the nucleus can.

    Raises:
        DataError: see `physml.io.hepmc.read`; an event without neutrino beam or without lepton.
    """
    read = hepmc.read(path, statuses=(1, 2))
    pdg, n = read["beam_pdg"], len(read["number"])
    owner, made = read["particle_event"], read["pdg"]
    said, said_charged = read["process"] >= 100, read["process"] % 100 < 50
    neutral = made == pdg[owner]
    charged = made == (np.abs(pdg) - 1)[owner] * np.sign(pdg[owner])
    lepton = np.where(
        said[owner], np.where(said_charged[owner], charged, neutral), neutral | charged
    )
    for bad, what in (
        (~np.isin(np.abs(pdg), (12, 14, 16)), "has no neutrino of status 4"),
        (np.bincount(owner[lepton], minlength=n) == 0, "has no outgoing lepton"),
    ):
        if bad.any():
            raise DataError(f"{path}, event {read['number'][bad][0]}", what, "write whole events")
    row = np.flatnonzero(lepton)
    row = row[np.lexsort((-read["momentum"][row, 3], owner[row]))]
    row = row[np.unique(owner[row], return_index=True)[1]]
    transfer = read["beam"] - read["momentum"][row]
    q2 = (transfer[:, :3] ** 2).sum(axis=1) - transfer[:, 3] ** 2
    w2 = NUCLEON**2 + 2 * NUCLEON * transfer[:, 3] - q2
    place = read["position"] + read["lab_position"][owner]
    mode = np.full(n, 3, np.int8)
    for hundred, number in ((2, 0), (4, 1), (5, 2), (6, 2)):
        mode[read["process"] // 100 == hundred] = number
    left = read["status"] == 1
    events = Interactions(
        pdg.astype(np.int32), charged[row], mode, read["beam"][:, 3], read["momentum"][row, 3],
        q2, np.sqrt(np.maximum(w2, 0.0)), place[row], read["weight"],
    )  # fmt: skip
    particles = Particles(
        owner[left].astype(np.int32), made[left].astype(np.int32), place[left],
        read["momentum"][left, :3],
    )  # fmt: skip
    return events, particles


def _check_energy(path: str | Path, name: str, values: np.ndarray) -> None:
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise DataError(
            path, f"{name!r} row {k} is {values[k]} GeV", "repair it, or drop the event"
        )


def _checked_truth(path: str | Path, truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    code = truth["code"]
    bad = ~np.isin(code, np.arange(UNKNOWN, len(CODES)))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise DataError(path, f"interaction code of row {k} is {code[k]}", "give codes 0 to 15")
    if "energy" in truth:
        _check_energy(path, "energy", truth["energy"])
    return truth | {"code": code.astype(np.int32)}


def _check_maps(path: str | Path, maps: PixelMaps) -> None:
    """Refuse maps without a hit, and those with more than half of the pixels at the top."""
    n = len(maps.offsets) - 1
    counts = np.diff(maps.offsets)
    event = np.repeat(np.arange(n), counts)
    top = np.bincount(event[maps.value == 255], minlength=n)
    for bad, what in ((counts == 0, "blank"), (2 * top > math.prod(maps.shape), "saturated")):
        if bad.any():
            what = f"{bad.sum()} of {n} maps are {what}, the first in row {bad.argmax()}"
            raise DataError(path, what, "drop them, or give keep_odd=True")
