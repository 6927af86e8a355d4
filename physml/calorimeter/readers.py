"""Read showers in other people's forms: CaloChallenge, CaloGAN, trees of cells or hits.

| form       | holds                                                                       |
|------------|-----------------------------------------------------------------------------|
| challenge  | HDF5: `incident_energies` (n, 1) MeV, `showers` (n, voxels) MeV             |
| calogan    | HDF5: `energy` (n, 1) GeV, `layer_0`, `layer_1`... (n, rows, cells) MeV,    |
|            | `overflow` (n, 1) or (n, layers) MeV beside the cells                       |
| cells      | ROOT tree: `cell_0`, `cell_1`... MeV, those after the voxels are overflow;  |
|            | `TotalEnergy` GeV (github hep-lbdl/CaloGAN, generation/convert.py)          |
| hits       | ROOT tree with lists of cells and deposits, see `HitColumns`                 |

What is impossible is refused: energies or deposits that are not finite or negative, numbers of
voxels that do not fit the geometry, deposits a hundred times off their incident energy (MeV and
GeV mixed up), damaged files. What is odd is kept, counted and said on stderr, a line each: showers
without energy (soft pions leave such), with nearly all of it in one voxel, with much more than
their particle had; voxels below the threshold of the geometry; layers that seem to be out of order,
by their profile in depth (sets 2 and 3) or by unlike sectors. Layers of one sector and as many
rings can be swapped unseen. Deposits are float32 here, whatever the file has.

What notices damage: files written here carry a sha256 of their own; zlib and Fletcher-32 notice
damaged values of others, and nothing a flip in the tables of HDF5 or in values that are not packed.
Whoever has the sha256 of a file gives it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Num

from physml.calorimeter import events, tally
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import (
    Geometry,
    calogan,
    dataset_1_photons,
    dataset_1_pions,
    dataset_2,
    dataset_3,
)
from physml.errors import ConfigError, DataError
from physml.io import hdf5, manifest

GEV = 1e3  # MeV
BLOCK_BYTES = hdf5.BLOCK_BYTES
MAX_BYTES = 8 << 30  # 8 GiB of deposits that `read` returns, unless the caller says otherwise
PUBLISHED = {
    "dataset_1_photons_1.hdf5": (
        173_797_023, "54011e9ffcc041e30a029fadcef91d33d6d232fe8492360d706022dbec2c1a6f"
    ),
    "dataset_2_1.hdf5": (
        1_356_475_617, "22bf0cac898be609f3cf3904612f74faf212ea7ecec01d36c580755d0efc5614"
    ),
    "dataset_2_2.hdf5": (
        1_366_708_391, "7561885bda9e2cfa2b0464d7ba779cd4066d89e91ce6105d73441254481e5f3a"
    ),
}  # fmt: skip
"""Bytes and sha256 of files of the CaloChallenge (zenodo 8099322 and 6366270), as a Git LFS pointer
in a public repository gives them. The others' were not found."""


class Read(NamedTuple):
    """Showers and what the file holds beside their voxels."""

    showers: Showers
    overflow: Float32[np.ndarray, "n k"]  # MeV, by layer where k > 1; k = 0: the file has none


class HitColumns(NamedTuple):
    """Branches of a ROOT tree with lists of hits, one entry per shower."""

    incident_energy: str  # one number per entry
    cell: str  # list of cell numbers
    deposit: str  # list of as many energies; hits in one voxel are summed
    voxel: Int[np.ndarray, "cells"] | None = None  # of each cell, -1: overflow; None: the same
    incident_unit: float = 1.0  # MeV
    deposit_unit: float = 1.0  # MeV


def read(
    path: str | Path,
    geometry: Geometry,
    rows: tuple[int, int] | None = None,
    *,
    tree: str | None = None,
    hits: HitColumns | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    tell: bool = True,
) -> Read:
    """Showers of a file in one of the forms above, in one piece.

    Args:
        path, geometry, rows, tree, hits, sha256, tell: see `iterate`.
        max_bytes: limit of the deposits returned.

    Raises:
        DataError: see `iterate`; more than `max_bytes`.
    """
    parts, total = [], 0
    given: Any = {"rows": rows, "tree": tree, "hits": hits, "sha256": sha256, "tell": tell}
    for part in iterate(path, geometry, **given):
        total += part.showers.deposits.nbytes
        if total > max_bytes:
            what = f"holds more than {max_bytes / 1e9:.3g} GB of deposits"
            raise DataError(path, what, "take fewer rows, use iterate, or raise max_bytes")
        parts.append(part)
    if not parts:
        raise DataError(path, "holds no showers", "take other rows, or make it again")
    showers = events.concatenate([part.showers for part in parts])
    return Read(showers, np.concatenate([part.overflow for part in parts]))


def iterate(
    path: str | Path,
    geometry: Geometry,
    step: int | None = None,
    rows: tuple[int, int] | None = None,
    *,
    tree: str | None = None,
    hits: HitColumns | None = None,
    sha256: str | None = None,
    max_bytes: int = BLOCK_BYTES,
    tell: bool = True,
) -> Iterator[Read]:
    """Consecutive blocks of showers; the form is recognised by what the file holds.

    Args:
        path: HDF5 or ROOT file.
        geometry: of its voxels.
        step: showers per block; by default as many as `max_bytes` allow.
        rows: first shower and the one behind the last; all by default.
        tree: name of the tree of a ROOT file; by default its only one.
        hits: branches of a ROOT tree with lists of hits; by default one with a branch per cell.
        sha256: what the file should have; files that are named like those of `PUBLISHED` are
            compared with these.
        max_bytes: of the values of a block as the file stores them.
        tell: say on stderr what is odd.

    Raises:
        DataError: missing, damaged, or of no known form; the size or sha256 differs; another number
            of voxels than the geometry; see `events.check` and `tally.check_units`.
        ConfigError: a step below 1.
    """
    if step is not None and step < 1:
        raise ConfigError("step", f"is {step}", "give 1 shower or more, or None")
    _verify(path, sha256)
    start = (rows or (0, 0))[0]
    seen = tally.empty(geometry, start)
    for part in _blocks(path, geometry, step, rows, tree, hits, max_bytes):
        events.check(part.showers, path, seen.next)
        if not (part.overflow >= 0).all() or np.isinf(part.overflow).any():
            raise DataError(path, "an overflow is negative or not finite", "repair the file")
        seen = tally.update(seen, part.showers, geometry)
        if seen.next - start >= tally.MIN_SHOWERS:
            tally.check_units(seen.incident, seen.deposited, path)
        yield part
    tally.check_units(seen.incident, seen.deposited, path)
    for line in tally.lines(seen, start, geometry) if tell else ():
        print(f"{path}: {line}", file=sys.stderr)


def _verify(path: str | Path, sha256: str | None) -> None:
    """Compare a file with what it should be, if that is known."""
    size, published = PUBLISHED.get(Path(path).name, (None, None))
    if size is not None and Path(path).is_file() and Path(path).stat().st_size != size:
        what = f"has {Path(path).stat().st_size} bytes, the published file has {size}"
        raise DataError(path, what, "fetch it again, or rename it if it is your own")
    if sha256 or published:
        manifest.verify(path, sha256 or str(published), "fetch it again, or make it again")


def _blocks(
    path: str | Path,
    geometry: Geometry,
    step: int | None,
    rows: tuple[int, int] | None,
    tree: str | None,
    hits: HitColumns | None,
    max_bytes: int,
) -> Iterator[Read]:
    if hits is not None:
        return _hit_blocks(path, geometry, step, rows, tree, hits, max_bytes)
    if tree is not None or _begins(path, b"root"):
        return _cell_blocks(path, geometry, step, rows, tree, max_bytes)
    shapes = hdf5.shapes(path)
    if {"showers", "incident_energies"} & set(shapes):
        return _challenge_blocks(path, geometry, shapes, step, rows, max_bytes)
    if {"energy", "layer_0"} & set(shapes):
        return _calogan_blocks(path, geometry, shapes, step, rows, max_bytes)
    held = ", ".join(shapes) or "nothing"
    raise DataError(path, f"holds {held}", "give incident_energies and showers, or another form")


def _begins(path: str | Path, magic: bytes) -> bool:
    if not Path(path).is_file():
        raise DataError(path, "is not a readable file", "check the path")
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _challenge_blocks(
    path: str | Path,
    geometry: Geometry,
    shapes: Mapping[str, tuple[int, ...]],
    step: int | None,
    rows: tuple[int, int] | None,
    max_bytes: int,
) -> Iterator[Read]:
    if "showers" in shapes and shapes["showers"][1:] != (geometry.size,):
        refuse_voxels(path, shapes["showers"], geometry)
    for block in hdf5.iterate(path, ["incident_energies", "showers"], step, rows, max_bytes):
        deposits = _deposits(path, block["showers"])
        energy = _energy(path, block["incident_energies"])
        yield Read(Showers(energy, deposits), np.zeros((len(energy), 0), np.float32))


def refuse_voxels(path: object, shape: tuple[int, ...], geometry: Geometry) -> None:
    """Say that showers of this shape are not of this geometry.

    Raises:
        DataError: always.
    """
    makers = (dataset_1_photons, dataset_1_pions, dataset_2, dataset_3, calogan)
    fitting = [maker.__name__ for maker in makers if (maker().size,) == shape[1:]]
    what = f"'showers' has shape {shape}, the geometry has {geometry.size} voxels"
    remedy = f"give {fitting[0]}()" if fitting else "give the geometry (XML) it was made with"
    raise DataError(path, what, remedy)


def _calogan_blocks(
    path: str | Path,
    geometry: Geometry,
    shapes: Mapping[str, tuple[int, ...]],
    step: int | None,
    rows: tuple[int, int] | None,
    max_bytes: int,
) -> Iterator[Read]:
    wanted = _cells(geometry)
    names = list(wanted)
    held = {name: shape[1:] for name, shape in shapes.items() if name.startswith("layer_")}
    if held != wanted:
        what = f"holds cells {held}, the geometry has {wanted}"
        fits = held == _cells(calogan())
        remedy = "give calogan()" if fits else "give its geometry, and the layers in their order"
        raise DataError(path, what, remedy)
    overflow = [name for name in ("overflow",) if name in shapes]
    for block in hdf5.iterate(path, ["energy", *names, *overflow], step, rows, max_bytes):
        n = len(block["energy"])
        flat = [_deposits(path, block[name].reshape(n, -1)) for name in names]
        showers = Showers(_energy(path, block["energy"], GEV), np.concatenate(flat, axis=1))
        beside = _deposits(path, block["overflow"].reshape(n, -1)) if overflow else flat[0][:, :0]
        yield Read(showers, beside)


def _cells(geometry: Geometry) -> dict[str, tuple[int, int]]:
    return {f"layer_{layer.id}": (layer.n_alpha, layer.n_r) for layer in geometry.layers}


def _cell_blocks(
    path: str | Path,
    geometry: Geometry,
    step: int | None,
    rows: tuple[int, int] | None,
    tree: str | None,
    max_bytes: int,
) -> Iterator[Read]:
    from physml.io import root

    names = [name for name in root.describe(path, tree) if name.startswith("cell_")]
    wanted = [f"cell_{k}" for k in range(len(names))]
    if len(names) < geometry.size or set(names) != set(wanted):
        what = f"holds {len(names)} branches cell_0, cell_1..., the geometry has {geometry.size}"
        raise DataError(path, what, f"give {'its geometry' if names else 'hits=HitColumns(...)'}")
    columns = ["TotalEnergy", *wanted]
    for block in root.iterate(path, tree, columns, step, rows, max_bytes=max_bytes):
        if any(np.ndim(getattr(block[name], "values", block[name])) != 1 for name in columns):
            raise DataError(path, "a cell has several numbers per entry", "give flat branches")
        cells = _deposits(path, np.stack([block[name] for name in wanted], axis=1))
        energy = _energy(path, np.asarray(block["TotalEnergy"]), GEV)
        yield Read(Showers(energy, cells[:, : geometry.size]), cells[:, geometry.size :])


def _hit_blocks(
    path: str | Path,
    geometry: Geometry,
    step: int | None,
    rows: tuple[int, int] | None,
    tree: str | None,
    hits: HitColumns,
    max_bytes: int,
) -> Iterator[Read]:
    from physml.io import root

    names = dict(zip(("energy", "cell", "deposit"), hits[:3], strict=True))
    # The dense showers take more than the lists: count both.
    step = step or max(1, max_bytes // (8 * geometry.size + 1))
    for block in root.iterate(path, tree, names, step, rows, max_bytes=max_bytes):
        yield _summed(path, geometry, hits, block)


def _summed(
    path: str | Path, geometry: Geometry, hits: HitColumns, block: Mapping[str, Any]
) -> Read:
    """Deposits of hits in the voxels of their showers."""
    cell, deposit = block["cell"], block["deposit"]
    if not hasattr(cell, "offsets") or not hasattr(deposit, "offsets"):
        raise DataError(path, "cells or deposits are no lists", "name branches of hits")
    if not np.array_equal(cell.offsets, deposit.offsets):
        raise DataError(path, f"{hits.cell!r} and {hits.deposit!r} differ in length", "repair it")
    voxel = np.arange(geometry.size) if hits.voxel is None else np.asarray(hits.voxel)
    if voxel.min(initial=-1) < -1 or voxel.max(initial=-1) >= geometry.size:
        raise DataError(path, "the map of cells leads out of the geometry", "give -1 or a voxel")
    number = cell.values
    bad = ~((number >= 0) & (number < len(voxel)) & (number % 1 == 0))
    if bad.any():
        what = f"names cell {number[bad][0]}, the map knows 0 to {len(voxel) - 1}"
        raise DataError(path, what, "give `voxel` for all cells")
    n = len(cell.offsets) - 1
    shower = np.repeat(np.arange(n), np.diff(cell.offsets))
    place = voxel[number.astype(np.int64)] + 1  # the first column takes the overflow
    wide = geometry.size + 1
    values = deposit.values * hits.deposit_unit
    summed = np.bincount(shower * wide + place, values, n * wide).reshape(n, wide)
    energy = _energy(path, np.asarray(block["energy"]), hits.incident_unit)
    _check_hits(path, values)
    return Read(Showers(energy, _deposits(path, summed[:, 1:])), _deposits(path, summed[:, :1]))


def _check_hits(path: str | Path, values: np.ndarray) -> None:
    """A negative hit could hide in a sum."""
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        what = f"a hit deposits {values[bad][0]:g} MeV"
        raise DataError(path, what, "give finite deposits, none below 0")


def _energy(path: str | Path, values: Num[np.ndarray, "..."], unit: float = 1.0) -> np.ndarray:
    """Incident energies of (n,) or (n, 1) as float64 MeV."""
    if values.dtype.kind not in "iuf" or values.shape not in ((len(values),), (len(values), 1)):
        what = f"incident energies have shape {values.shape} of {values.dtype}"
        raise DataError(path, what, "give one number per shower")
    return values.reshape(-1).astype(np.float64) * unit


def _deposits(path: str | Path, values: Num[np.ndarray, "n k"]) -> Float32[np.ndarray, "n k"]:
    """Deposits as float32; what float32 cannot hold becomes infinite, and is refused after."""
    if values.dtype.kind not in "iuf":
        raise DataError(path, f"deposits are {values.dtype}", "give numbers")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)
