"""Layouts of hits and truth in files, event by event under our names; no checks of physics.

TrackML: comma-separated tables (arXiv 1904.06778). ACTS: the trees that its RootSimHitWriter,
RootParticleWriter and RootSpacePointWriter make; names and bits were read in its sources of 2025
and 2026, and in those before: a particle is named by `barcode` (five numbers in a list) or
`barcode_...` (five columns), in tables of particles also by `particle_id` (one number), which is
taken on hits as well. Local measurements (RootMeasurementWriter) are not read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from physml.errors import DataError
from physml.io import csv, root
from physml.tracking.mapping import ASSUMED, PARTICLE, START, WITHOUT
from physml.tracking.trees import Columns, first_repeat, integers, tree_events

BARCODE = ("vertex_primary", "vertex_secondary", "particle", "generation", "sub_particle")

ACTS_HITS = {
    "event": "event_id", "x": "tx", "y": "ty", "z": "tz",
    "volume": "volume_id", "layer": "layer_id", "module": "sensitive_id",
}  # fmt: skip
ACTS_SPACEPOINTS = {"event": "event_id", "x": "x", "y": "y", "z": "z", "geometry": "geometry_id"}
ACTS_PARTICLES = {"event": "event_id", "pdg": "particle_type", "charge": "q"} | {
    name: name for name in ("vx", "vy", "vz", "px", "py", "pz")
}

_HITS = {"hit_id": int, "x": float, "y": float, "z": float} | dict.fromkeys(
    ("volume_id", "layer_id", "module_id"), int
)
_PARTICLES = {"particle_id": int} | dict.fromkeys(("vx", "vy", "vz", "px", "py", "pz", "q"), float)


class Event(NamedTuple):
    """Columns of one event; particles None: no truth."""

    where: str  # for errors
    number: int
    hits: Columns  # x y z; perhaps volume layer module hit_id; with truth `key` of its particle
    particles: Columns | None = None  # key (not 0) particle_id pdg charge vx vy vz px py pz


def events(
    path: Path,
    mapping: Mapping[str, str] | None,
    tree: str | None,
    truth: bool,
    particles: str | Path | None,
) -> Iterator[Event]:
    """Events of a file or folder; see `readers.read_collisions`.

    Raises:
        DataError: see there.
    """
    if mapping is not None:
        return _mapped(path, tree, mapping, truth)
    files = _trackml_files(path)
    path = _acts_file(path, bool(files)) if path.is_dir() else path
    if files:
        return _trackml(files, truth)
    names = _trees(path)
    if "hits" in names:
        return _acts(path, truth, particles)
    if "spacepoints" in names:
        return _mapped(path, "spacepoints", ACTS_SPACEPOINTS, truth=False)
    what = "holds neither the tree 'hits' nor 'spacepoints' of ACTS"
    remedy = f"give a mapping (--mapping); it holds {', '.join(names) or 'no tree'}"
    raise DataError(path, what, remedy)


def _trees(path: Path) -> list[str]:
    return sorted({name.rpartition(";")[0] for name in root.trees(path)})


# TrackML


def _trackml_files(path: Path) -> list[Path]:
    """Tables of hits in a folder, or the one that a path is."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if re.search(r"hits\.csv(\.gz)?$", p.name))
    if not re.search(r"\.csv(\.gz)?$", path.name):
        return []
    if not re.search(r"hits\.csv(\.gz)?$", path.name):
        what = "is not named ...-hits.csv or ...-hits.csv.gz"
        raise DataError(path, what, "give the table of hits, or a folder")
    return [path]


def _trackml(files: list[Path], truth: bool) -> Iterator[Event]:
    numbers = [_event_number(file) for file in files]
    for number, file in zip(numbers, files, strict=True):
        if numbers.count(number) > 1:
            what = f"stands beside another table of hits of event {number}"
            raise DataError(file, what, "keep one of them")
    return (_trackml_event(*both, truth) for both in zip(numbers, files, strict=True))


def _event_number(file: Path) -> int:
    found = re.search(r"event(\d+)", file.name)
    return int(found[1]) if found else 0


def _trackml_event(number: int, file: Path, truth: bool) -> Event:
    table = csv.read(file, _HITS)
    hits = {name.removesuffix("_id") if name != "hit_id" else name: c for name, c in table.items()}
    truth_file = _beside(file, "truth")
    if truth and truth_file is None and (beside := _beside(file, "particles")):
        what = f"{beside.name} is beside it but no table of truth"
        print(f"{file}: {what}: read without truth, nothing can be measured", file=sys.stderr)
    if not truth or truth_file is None or not len(hits["x"]):
        return Event(str(file), number, hits)
    if (twice := first_repeat(hits["hit_id"])) is not None:
        raise DataError(file, f"hit_id {hits['hit_id'][twice]} stands twice", "drop the copies")
    particle_file = _beside(file, "particles")
    if particle_file is None:
        what = "has truth but no table of particles beside it"
        raise DataError(file, what, f"add the table of particles, or {WITHOUT}")
    named = csv.read(truth_file, {"hit_id": int, "particle_id": int})
    hits["key"] = _joined(truth_file, hits["hit_id"], named)
    own = csv.read(particle_file, _PARTICLES | {"particle_type": int}, optional=("particle_type",))
    own["key"], own["charge"] = own["particle_id"], own.pop("q")
    own["pdg"] = own.pop("particle_type", np.zeros(len(own["key"]), np.int64))
    return Event(str(file), number, hits, own)


def _beside(file: Path, what: str) -> Path | None:
    stem = re.sub(r"hits\.csv(\.gz)?$", what, file.name)
    found = [p for p in (file.with_name(f"{stem}.csv{end}") for end in ("", ".gz")) if p.exists()]
    if len(found) > 1:
        raise DataError(found[0], f"stands beside {found[1].name}", "keep one of them")
    return found[0] if found else None


def _joined(file: Path, hit_id: np.ndarray, named: Columns) -> Int64[np.ndarray, "n"]:
    """Particle of each hit."""
    order, other = np.argsort(hit_id, kind="stable"), np.argsort(named["hit_id"], kind="stable")
    if not np.array_equal(hit_id[order], named["hit_id"][other]):
        lost = np.setxor1d(hit_id, named["hit_id"])
        if not len(lost):
            raise DataError(file, "names a hit twice", "keep one row a hit")
        side = "has no row for" if lost[0] in hit_id else "names, but the hits lack,"
        what = f"{side} hit {lost[0]} ({len(lost)} such hits)"
        raise DataError(file, what, "give truth and hits of the same event")
    found = np.empty(len(hit_id), np.int64)
    found[order] = named["particle_id"][other]
    return found


# ROOT


def _mapped(
    path: Path, tree: str | None, mapping: Mapping[str, str], truth: bool
) -> Iterator[Event]:
    wanted = {
        name: column
        for name, column in mapping.items()
        if truth or name not in ("particle", *PARTICLE, *START)
    }
    if tree is None and len(found := _trees(path)) > 1:
        remedy = f"name one (--tree) of {', '.join(found)}"
        raise DataError(path, f"holds {len(found)} trees", remedy)
    for number, columns in tree_events(path, tree, wanted, "x"):
        where = f"{path}, event {number}"
        if "geometry" in columns:
            columns |= _decoded(where, columns.pop("geometry"))
        if "particle" not in columns:
            yield Event(where, number, columns)
            continue
        columns["key"] = integers(where, "particle", columns["particle"])
        yield Event(where, number, columns, _own_particles(where, columns))
    for names, told in ASSUMED.items():  # said of events that were fit to be used
        absent = ", ".join(name for name in names if name not in wanted)
        if "particle" in wanted and absent:
            print(f"{path}: the mapping names no {absent}: {told}", file=sys.stderr)


def _decoded(where: str, geometry: np.ndarray) -> Columns:
    """Bits of an identifier of ACTS: volume 8, boundary 8, layer 12, approach 8, sensitive 20."""
    bits = integers(where, "geometry", geometry)
    return {
        "volume": bits >> 56 & 0xFF,
        "layer": bits >> 36 & 0xFFF,
        "module": bits >> 8 & 0xFFFFF,
    }


def _own_particles(where: str, hits: Columns) -> Columns:
    """Table of particles from columns that repeat a particle at each of its hits."""
    keys, first, which = np.unique(hits["key"], return_index=True, return_inverse=True)
    real = keys != 0
    found = {"key": keys[real], "particle_id": keys[real]}
    for name in (*PARTICLE, *START):
        if name not in hits:
            found[name] = np.zeros(real.sum(), np.int64 if name == "pdg" else np.float64)
            continue
        values = hits[name][first]
        differ = (hits["key"] != 0) & (hits[name] != values[which])
        if differ.any():
            what = f"{name!r} differs among the hits of particle {hits['key'][differ.argmax()]}"
            raise DataError(where, what, "name the column of the particle at its start")
        found[name] = values[real]
    return found


def _acts_file(folder: Path, trackml: bool) -> Path:
    found = [n for n in ("hits.root", "spacepoints.root") if (folder / n).is_file()]
    if trackml and found:
        what = f"holds {found[0]} and tables of hits"
        raise DataError(folder, what, "name the file")
    if not found and not trackml:
        what = "holds no ...-hits.csv, hits.root or spacepoints.root"
        raise DataError(folder, what, "name a file")
    return folder / found[0] if found else folder


def _acts(path: Path, truth: bool, particles: str | Path | None) -> Iterator[Event]:
    kinds = root.describe(path, "hits")
    wanted = ACTS_HITS | ({"hit_id": "hit_id"} if "hit_id" in kinds else {})
    named = _named_by(kinds)
    if not (truth and named):
        for number, hits in tree_events(path, "hits", wanted, "x"):
            yield Event(f"{path}, event {number}", number, hits)
        return
    file = _particle_file(path, particles)
    tables = _lookup(file, _particles(file, list(named)))
    for number, hits in tree_events(path, "hits", wanted | named, "x"):
        where, own = f"{path}, event {number}", tables(number)
        names = _barcodes(where, hits, list(named))
        key = _numbered(np.concatenate([names, _barcodes(str(file), own, list(named))]))
        hits["key"], own["key"] = key[: len(names)], key[len(names) :]
        yield Event(where, number, hits, own)


def _named_by(kinds: Mapping[str, str]) -> dict[str, str]:
    """Columns that name a particle, under our names; empty where there are none."""
    if "particle_id" in kinds:
        return {"id": "particle_id"}
    if "barcode" in kinds:
        return {"barcode": "barcode"}
    found = {name: "barcode_" + name for name in BARCODE}
    return found if all(column in kinds for column in found.values()) else {}


def _particle_file(path: Path, given: str | Path | None) -> Path:
    file = path.with_name("particles.root") if given is None else Path(given)
    if not file.is_file():
        what = f"names particles, but {file.name} is not beside it"
        raise DataError(path, what, f"put particles.root beside it, or {WITHOUT}")
    return file


def _particles(file: Path, named: list[str]) -> Iterator[tuple[int, Columns]]:
    kinds = root.describe(file, "particles")
    number = "particle_id" if "particle_id" in kinds else "particle_hash"
    wanted = ACTS_PARTICLES | {"particle_id": number}
    if named != ["id"]:
        wanted |= {name: name for name in BARCODE}
    for event, columns in tree_events(file, "particles", wanted, "px"):
        columns["particle_id"] = integers(file, number, columns["particle_id"])
        yield event, columns


def _lookup(file: Path, tables: Iterator[tuple[int, Columns]]) -> Callable[[int], Columns]:
    """A function that gives the table of an event; those read on the way wait for their turn."""
    held: dict[int, Columns] = {}

    def find(event: int) -> Columns:
        while event not in held:
            found = next(tables, None)
            if found is None:
                what = f"has no event {event}"
                raise DataError(file, what, f"give particles of these hits, or {WITHOUT}")
            held[found[0]] = found[1]
        return held.pop(event)

    return find


def _barcodes(where: str, columns: Columns, named: list[str]) -> Int64[np.ndarray, "n k"]:
    """Numbers that name a particle, in one or five columns."""
    if named == ["id"]:
        column = columns["id"] if "id" in columns else columns["particle_id"]
        return integers(where, "particle_id", column)[:, None]
    if "barcode" in columns:
        return integers(where, "barcode", columns["barcode"])
    return np.stack([integers(where, name, columns[name]) for name in BARCODE], axis=1)


def _numbered(names: Int64[np.ndarray, "n k"]) -> Int64[np.ndarray, "n"]:
    """The same number for the same names, 0 where all are 0."""
    found = np.zeros(len(names), np.int64)
    for column in names.T:
        _, place = np.unique(column, return_inverse=True)
        _, found = np.unique(found * (place.max(initial=0) + 1) + place, return_inverse=True)
    return np.where(names.any(axis=1), found + 1, 0)
