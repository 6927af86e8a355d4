"""Where other people's files keep pixel maps and their truth, and how to join and orient them.

Four HDF5 layouts met in public code, and the zipped images of DUNE:

| layout      | images                                    | truth                                 |
|-------------|-------------------------------------------|---------------------------------------|
| "caf"       | `rec.training.cvnmaps/cvnmap` (n, 16000)  | `rec.training.trainingdata` and       |
|             |                                           | `rec.mc.nu`, joined by the keys of    |
|             |                                           | `KEYS`; slices without are cosmic     |
| "flat"      | `cvnmap` (n, 16000)                       | `label`, `energy`, `pdg`, or group    |
|             |                                           | `neutrino` with `interaction`         |
| "pixelmaps" | `pixelmaps` (n, 2, 80, 100, 1)            | `labels`                              |
| "sparse"    | `event_pixels_coordinates` (k, 3) and     | `event_target`                        |
|             | `event_pixels_values` (k, views), rows of |                                       |
|             | an event in `event_compressed_index`      |                                       |
| "dune"      | zlib of (3, 500, 500) bytes, a file each  | lines of the .info file beside it     |

The interaction codes are those of the enumeration `cvn::Interaction` in dunereco (CVN/func/
InteractionType.h); they agree with the classes listed for NOvA (arXiv 1604.01444): see `CODES`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

from physml.errors import DataError
from physml.neutrino.events import PixelMaps
from physml.neutrino.pixelmaps import concatenate, from_dense

CODES = tuple(
    f"{flavour} {mode}"
    for flavour in ("numu", "nue", "nutau")
    for mode in ("QE", "RES", "DIS", "other")
) + ("elastic", "NC", "cosmic", "other")
"""Interaction codes 0 to 15; "elastic" is a neutrino on an electron."""

COSMIC, UNKNOWN = 14, -1
KEYS = ("run", "subrun", "cycle", "evt", "subevt")
SHAPE = (2, 100, 80)  # views, planes, cells
SIZES = dict(zip(("view", "plane", "cell"), SHAPE, strict=True))
AXES = ("view plane cell", "view cell plane", "plane cell view", "cell plane view")
TRUTH = {
    "rec.mc.nu": ("pdg", "iscc", "mode", "E"),
    "rec.training.trainingdata": ("interaction", "nuenergy"),
}
"""Groups of CAF-HDF5 with truth, and their columns; the later one wins."""
DUNE_SHAPE = (3, 500, 500)
ELASTIC = 1098  # simb::kNuElectronElastic
INFO = {
    "code": (0, np.int32), "energy": (1, float), "lepton_energy": (2, float), "weight": (6, float),
    "pdg": (7, np.int32), "n_protons": (8, np.int32), "n_charged_pions": (9, np.int32),
    "n_neutral_pions": (10, np.int32), "n_neutrons": (11, np.int32),
}  # fmt: skip
"""Name -> line, from 0, of the .info files of DUNE (written by CVNZlibMaker of dunereco)."""
BLOCK = 4096  # images made sparse at a time
REMEDY = "check that it is the file you mean"
MARGIN = 0.05  # by how much more of the hits another order of the axes must join to be believed
SAMPLE = 500  # images, spread over the file, that the order is judged by
MAX_PIXELS = 1 << 24  # of one event
FEW = 200  # lit pixels, below which no order is judged


class Read(NamedTuple):
    """Pixel maps of n events and what the file says about them."""

    maps: PixelMaps
    truth: dict[str, np.ndarray]  # (n,) each: `code` (see `CODES`), and what the file holds


def join(
    left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray], where: object = "tables"
) -> Int64[np.ndarray, "n"]:
    """Row of `right` with the same key as each row of `left`; -1 where there is none.

    The key is made of those of run, subrun, cycle, evt and subevt that both tables hold.

    Raises:
        DataError: no key column in common, columns of different length, or a key that stands in
            two rows of `right`.
    """
    names = [name for name in KEYS if name in left and name in right]
    columns = [[np.ravel(table[name]) for name in names] for table in (left, right)]
    if not names or any(len({len(c) for c in side}) != 1 for side in columns):
        what = f"have no key columns in common, or of different length: {names}"
        raise DataError(where, what, f"give columns of {KEYS}")
    n, m = (len(side[0]) for side in columns)
    stacked = np.stack([np.concatenate(pair) for pair in zip(*columns, strict=True)], axis=1)
    _, key = np.unique(stacked, axis=0, return_inverse=True)
    row = np.full(key.max(initial=-1) + 1, -1, np.int64)
    row[key[n:]] = np.arange(m)
    if (row[key[n:]] != np.arange(m)).any():
        twice = int(np.flatnonzero(row[key[n:]] != np.arange(m))[0])
        raise DataError(where, f"the key of row {twice} {names} stands twice", REMEDY)
    return np.asarray(row[key[:n]])


def contiguity(images: UInt8[np.ndarray, "n views rows columns"]) -> float:
    """Share of the lit pixels with a lit neighbour in the row before or behind, 0 to 1.

    A neighbour is at most one column aside. With the slower of the stored axes as rows this is
    high in the right order of the axes, for tracks and showers are connected, and near chance in
    a wrong one, which keeps neighbours along the faster axis only.
    """
    lit = np.pad(images > 0, [(0, 0), (0, 0), (1, 1), (1, 1)])
    wide = lit[..., :-2] | lit[..., 1:-1] | lit[..., 2:]
    joined = lit[:, :, 1:-1, 1:-1] & (wide[:, :, :-2] | wide[:, :, 2:])
    return float(joined.sum() / max(1, lit.sum()))


def recognised(path: str | Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Name of the layout that these arrays of an HDF5 file stand in.

    Raises:
        DataError: none, or more than one.
    """
    marks = {"rec.training.cvnmaps/cvnmap": "caf", "cvnmap": "flat", "pixelmaps": "pixelmaps"}
    marks["event_pixels_coordinates"] = "sparse"
    found = [layout for name, layout in marks.items() if name in arrays]
    if len(found) != 1:
        what = f"has no known layout of pixel maps; it holds {sorted(arrays)[:8]}"
        raise DataError(path, what, f"it needs one of {list(marks)}")
    return found[0]


def _get(
    path: str | Path, arrays: Mapping[str, np.ndarray], name: str, least: int = 1
) -> np.ndarray:
    """An array of at least one axis and `least` rows."""
    if name not in arrays:
        raise DataError(path, f"holds no {name!r}; it holds {sorted(arrays)[:8]}", REMEDY)
    if not arrays[name].shape or len(arrays[name]) < least:
        raise DataError(path, f"{name!r} is empty", REMEDY)
    return arrays[name]


def _column(path: str | Path, name: str, values: np.ndarray, n: int) -> np.ndarray:
    """A finite number for each of n events, stored as (n,) or (n, 1)."""
    if values.shape not in ((n,), (n, 1)) or values.dtype.kind not in "biuf":
        what = f"{name!r} is {values.dtype} of shape {values.shape}, with {n} events"
        raise DataError(path, what, REMEDY)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        what = f"{name!r} row {bad[0]} is {values.ravel()[bad[0]]}"
        raise DataError(path, what, "repair it, or drop the event")
    return values.reshape(n)


def _read_caf(path: str | Path, arrays: dict[str, np.ndarray], axes: str | None) -> Read:
    images = _get(path, arrays, "rec.training.cvnmaps/cvnmap")
    truth = caf_truth(path, arrays)
    return Read(_sparse_maps(path, "cvnmap", images, axes, AXES[0]), truth)


def caf_truth(path: str | Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keys and truth of the slices of a CAF-HDF5 file; code -1 where it has no truth tables.

    Raises:
        DataError: a column is missing or misshaped, or a key stands twice in a truth table.
    """
    n = len(_get(path, arrays, "rec.training.cvnmaps/cvnmap"))
    slices = _keys(path, arrays, "rec.training.cvnmaps", n)
    code, energy, pdg = np.full(n, float(UNKNOWN)), np.zeros(n), np.zeros(n)
    for group, names in TRUTH.items():
        if not any(name.startswith(f"{group}/") for name in arrays):
            continue
        stored = {name: _get(path, arrays, f"{group}/{name}", 0) for name in names}
        m = stored[names[0]].size
        table = {k: _column(path, f"{group}/{k}", v, m) for k, v in stored.items()}
        row = join(slices, _keys(path, arrays, group, m), f"{path}, {group}")
        hit, row = row >= 0, row[row >= 0]
        code[~hit & (code == UNKNOWN)] = COSMIC
        found = [column[row] for column in table.values()]
        code[hit] = _code(*found[:3]) if len(found) == 4 else found[0]
        energy[hit] = found[-1]
        if len(found) == 4:
            if (np.abs(found[0]) >= 2**31).any():
                raise DataError(path, f"'{group}/pdg' holds what is no code", REMEDY)
            pdg[hit] = found[0]
    if (code != UNKNOWN).any():
        slices |= {"energy": energy, "pdg": pdg.astype(np.int32)}
    return slices | {"code": code}


def _code(
    pdg: Int[np.ndarray, "n"], charged: Int[np.ndarray, "n"], mode: Int[np.ndarray, "n"]
) -> Int64[np.ndarray, "n"]:
    """Interaction code; modes are those of simb::MCNeutrino: 0 QE, 1 RES, 2 DIS, 1098 elastic."""
    kind = np.abs(pdg)
    first = np.select([kind == 14, kind == 12, kind == 16], [0, 4, 8], UNKNOWN)
    current = np.where(first >= 0, first + np.where(np.isin(mode, (0, 1, 2)), mode, 3), 15)
    return np.where(charged.astype(bool), current, np.where(mode == ELASTIC, 12, 13))


def _keys(
    path: str | Path, arrays: Mapping[str, np.ndarray], group: str, n: int
) -> dict[str, np.ndarray]:
    """Key columns (n,) of a group."""
    stored = {key: arrays[f"{group}/{key}"] for key in KEYS if f"{group}/{key}" in arrays}
    return {key: _column(path, f"{group}/{key}", values, n) for key, values in stored.items()}


def _read_flat(path: str | Path, arrays: dict[str, np.ndarray], axes: str | None) -> Read:
    maps = _sparse_maps(path, "cvnmap", _get(path, arrays, "cvnmap"), axes, AXES[0])
    n = len(maps.offsets) - 1
    names: dict[str, tuple[str, ...]] = {key: (key,) for key in ("pdg", *KEYS)}
    names["code"] = ("label", "labels", "neutrino/interaction")
    names["energy"] = ("energy", "neutrino/nuenergy")
    found = {k: next((x for x in options if x in arrays), None) for k, options in names.items()}
    truth = {k: _column(path, x, arrays[x], n) for k, x in found.items() if x}
    return Read(maps, {"code": np.full(n, UNKNOWN, np.int32)} | truth)


def _read_pixelmaps(path: str | Path, arrays: dict[str, np.ndarray], axes: str | None) -> Read:
    maps = _sparse_maps(path, "pixelmaps", _get(path, arrays, "pixelmaps"), axes, AXES[1])
    labels = _get(path, arrays, "labels")
    return Read(maps, {"code": _column(path, "labels", labels, len(maps.offsets) - 1)})


def _read_sparse(path: str | Path, arrays: dict[str, np.ndarray], axes: str | None) -> Read:
    place, values, index, code = (
        _get(path, arrays, f"event_{x}")
        for x in ("pixels_coordinates", "pixels_values", "compressed_index", "target")
    )
    full = "full_pixels_shape" in arrays
    size = _get(path, arrays, "full_pixels_shape" if full else "event_pixels_shape")[-3:]
    k, n = len(place), len(index)
    wanted = ((k, 3), (k, int(size[0])), (n, 2), (3,))
    if tuple(x.shape for x in (place, values, index, size)) != wanted or any(
        x.dtype.kind not in "iu" for x in (place, index, size)
    ):
        what = f"has coordinates {place.shape}, values {values.shape}, index {index.shape}"
        raise DataError(path, what, f"give integers, shapes (k, 3), (k, views), (n, 2): {size}")
    views, planes, cells = (int(x) for x in size)
    ends = np.append(index[:, 0], k).astype(np.int64)
    if ends[0] != 0 or (index[:, 1] != ends[1:]).any() or (np.diff(ends) < 0).any():
        raise DataError(path, "'event_compressed_index' does not divide the pixels", REMEDY)
    if (place < 0).any() or (place >= [1, planes, cells]).any():
        raise DataError(path, f"has coordinates beyond {1, planes, cells}", REMEDY)
    if size.min() < 1 or views * planes * cells > MAX_PIXELS:
        raise DataError(path, f"declares images of {views, planes, cells} pixels", REMEDY)
    return Read(
        _sparse_pixels(path, place.astype(np.int64), values, ends, (views, planes, cells)),
        {"code": _column(path, "event_target", code, n)},
    )


def _sparse_pixels(
    path: str | Path,
    place: Int64[np.ndarray, "k 3"],
    values: np.ndarray,
    ends: Int64[np.ndarray, "n+1"],
    shape: tuple[int, int, int],
) -> PixelMaps:
    """Maps of pixels that hold a value for each view, of which some are zero."""
    row, view = np.nonzero(_levels(path, "event_pixels_values", values))
    event = np.searchsorted(ends, row, side="right") - 1
    pixel = np.ravel_multi_index((view, place[row, 1], place[row, 2]), shape)
    key, first = np.unique(event * math.prod(shape) + pixel, return_index=True)
    if len(key) < len(row):
        raise DataError(path, "names a pixel twice", REMEDY)
    offsets = np.searchsorted(event, np.arange(len(ends))).astype(np.int64)
    level = values[row[first], view[first]].astype(np.uint8)
    return PixelMaps(shape, offsets, pixel[first].astype(np.int32), level)


LAYOUTS = {
    "caf": _read_caf, "flat": _read_flat, "pixelmaps": _read_pixelmaps, "sparse": _read_sparse,
}  # fmt: skip


def _sparse_maps(
    path: str | Path, name: str, images: np.ndarray, axes: str | None, default: str
) -> PixelMaps:
    """Sparse maps of stored images, whose order of axes is checked."""
    if images.ndim < 2 or math.prod(images.shape[1:]) != math.prod(SHAPE):
        what = f"{name!r} has shape {images.shape}, no images of {SHAPE} pixels"
        raise DataError(path, what, "give full pixel maps (16,000 values each)")
    stored = tuple(size for size in images.shape[1:] if size > 1)
    fitting = [order for order in AXES if stored == tuple(SIZES[a] for a in order.split())]
    axes = axes or (fitting or [default])[0]
    rows = np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).astype(int)
    sample = _levels(path, name, images[rows])
    shares = {order: contiguity(_oriented(sample, order, order.split())) for order in AXES}
    best = max(shares, key=lambda order: shares[order])
    if np.count_nonzero(sample) >= FEW and shares[best] > shares[axes] + MARGIN:
        joined = f"{shares[axes]:.2f} of the hits join, {shares[best]:.2f} as {best!r}"
        what = f"{name!r} read as {axes!r} is speckle ({joined})"
        raise DataError(path, what, f"give axes={best!r}")
    blocks = [images[k : k + BLOCK] for k in range(0, len(images), BLOCK)] or [images]
    return concatenate([from_dense(_oriented(_levels(path, name, b), axes)) for b in blocks])


def _oriented(
    images: np.ndarray, axes: str, wanted: Sequence[str] = tuple(SIZES)
) -> UInt8[np.ndarray, "n views planes cells"]:
    """Stored images as (n, view, plane, cell), or with the last two as they stand in `wanted`."""
    names = axes.split()
    shaped = images.reshape(len(images), *(SIZES[name] for name in names))
    order = ["view", *(name for name in wanted if name != "view")]
    return shaped.transpose(0, *(1 + names.index(name) for name in order))


def _levels(path: str | Path, name: str, values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Values as bytes, if they are whole numbers from 0 to 255."""
    if values.dtype == np.uint8:
        return values
    good = values.dtype.kind in "iuf" and np.isfinite(values).all()
    if not good or (values < 0).any() or (values > 255).any() or (values % 1 != 0).any():
        raise DataError(
            path, f"{name!r} holds no whole levels 0 to 255", "scale it to 0-255 and round"
        )
    return values.astype(np.uint8)


def is_zlib(path: str | Path) -> bool:
    """Whether its name ends like those of zipped DUNE images."""
    return Path(path).suffix == ".gz"


def read_dune(path: str | Path) -> Read:
    """All images of a folder by the number in their names, or one."""
    folder = Path(path)
    order = lambda file: (int("0" + "".join(filter(str.isdigit, file.stem))), file.stem)
    files = sorted(folder.glob("*.gz"), key=order) if folder.is_dir() else [folder]
    if not files:
        raise DataError(path, "holds no .gz files", "give the folder of the images")
    maps = concatenate([from_dense(_unzipped(file)[None]) for file in files])
    facts = [file.with_suffix(".info") for file in files]
    missing = [fact for fact in facts if not fact.is_file()]
    if len(missing) == len(facts):
        return Read(maps, {"code": np.full(len(files), UNKNOWN, np.int32)})
    if missing:
        raise DataError(
            missing[0], "is missing, others are there", "restore it, or remove them all"
        )
    lines = np.stack([_info(fact) for fact in facts])
    return Read(maps, {name: lines[:, k].astype(kind) for name, (k, kind) in INFO.items()})


def _unzipped(path: Path) -> UInt8[np.ndarray, "3 500 500"]:
    size = math.prod(DUNE_SHAPE)
    try:
        content = path.read_bytes() if path.stat().st_size <= 2 * size else b""
        stream = zlib.decompressobj()
        data = stream.decompress(content, size + 1)
    except (OSError, zlib.error) as error:
        raise DataError(path, f"cannot be read ({error})", "restore the file") from error
    if len(data) != size or not stream.eof or stream.unused_data:
        raise DataError(path, f"is no zlib stream of {DUNE_SHAPE} bytes", "restore the file")
    return np.frombuffer(data, np.uint8).reshape(DUNE_SHAPE)


def _info(path: Path) -> Float[np.ndarray, "lines"]:
    try:
        numbers = [float(line) for line in path.read_text("utf-8").split()[:12]]
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({error})", "restore the file") from error
    if len(numbers) < 12 or not np.isfinite(numbers).all() or numbers[0] % 1:
        raise DataError(path, "does not begin with 12 numbers", "restore the file")
    return np.array(numbers)
