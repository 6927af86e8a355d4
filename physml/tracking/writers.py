"""Collisions and found tracks to files: ACTS and TrackML layouts, ROOT trees, text.

Every file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from physml.errors import DataError
from physml.io import csv, manifest, root
from physml.tracking.events import Collision, Particles, Tracks
from physml.tracking.geometry import Detector
from physml.tracking.layouts import BARCODE

BITS = {"vertex_primary": 52, "vertex_secondary": 40, "particle": 24, "generation": 16,
        "sub_particle": 0}  # fmt: skip
"""Lowest bit of each number in a 64-bit barcode of ACTS (12, 12, 16, 8 and 16 bits)."""

_FIT = ("pt", "eta", "phi", "d0", "z0", "charge", "chi2", "ndf")


class Found(NamedTuple):
    """Tracks of one collision and, where they were fitted, their fits (`fits.TrackFit`)."""

    collision: Collision
    tracks: Tracks
    fit: Any = None


def write_collisions(
    folder: str | Path,
    collisions: Iterable[Collision],
    detector: Detector,
    *,
    overwrite: bool = False,
) -> None:
    """Write `hits.root` and, with truth, `particles.root` under the names that ACTS uses.

    tx, ty, tz hold the measured positions (mm, as float64), sensitive_id the module and hit_id, a
    branch that ACTS lacks, the number of the hit. Branches of ACTS for what a `Collision` does not
    know (times, momenta at the hits) are left out. The particle_id is cut into the five numbers
    of a barcode, and stored whole as particle_hash.

    Raises:
        DataError: no collisions; an event twice; some with and some without truth; a file exists
            and `overwrite` is False, or cannot be written.
    """
    held = list(collisions)
    files = [Path(folder) / "hits.root", Path(folder) / "particles.root"]
    _check_events(folder, [c.event for c in held])
    if len({c.particles is None for c in held}) > 1:
        raise DataError(folder, "some collisions have truth and some not", "write them apart")
    truth = held[0].particles is not None
    _check_free(files if truth else files[:1], overwrite)
    if truth:
        tables = [_particle_columns(c.event, c.particles) for c in held if c.particles is not None]
        root.write(files[1], "particles", _jagged(tables), overwrite=True)
    rows = [_hit_columns(c, detector) for c in held]
    joined = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
    root.write(files[0], "hits", joined, overwrite=True)


def write_trackml(
    folder: str | Path, collision: Collision, detector: Detector, *, overwrite: bool = False
) -> None:
    """Write one collision as TrackML tables: hits and, with truth, truth and particles (csv.gz).

    The table of truth names the particle of each hit; true positions are not known here.

    Raises:
        DataError: a file exists and `overwrite` is False, or cannot be written.
    """
    hits, particles = collision.hits, collision.particles
    files = {
        what: Path(folder) / f"event{collision.event:09d}-{what}.csv.gz"
        for what in ("hits", "truth", "particles")
    }
    _check_free(list(files.values()), overwrite)
    if particles is not None:
        own = _particle_columns(collision.event, particles)
        names = ("vx", "vy", "vz", "px", "py", "pz")
        table = {"particle_id": particles.particle_id} | {name: own[name] for name in names}
        table |= {
            "q": particles.charge,
            "nhits": _counts(collision),
            "particle_type": own["particle_type"],
        }
        csv.write(files["particles"], table)
        csv.write(files["truth"], {"hit_id": hits.hit_id, "particle_id": _named(collision)})
    x, y, z = hits.position.T
    csv.write(files["hits"], {
        "hit_id": hits.hit_id, "x": x, "y": y, "z": z, "volume_id": detector.volume[hits.layer],
        "layer_id": detector.layer[hits.layer], "module_id": hits.module,
    })  # fmt: skip


def write_tracks(path: str | Path, found: Iterable[Found], *, overwrite: bool = False) -> None:
    """Write the tree "tracks" with the columns of `track_table`.

    Raises:
        DataError: see `track_table`; the file exists and `overwrite` is False, or cannot be
            written.
    """
    root.write(path, "tracks", track_table(found), overwrite=overwrite)


def track_table(found: Iterable[Found]) -> dict[str, np.ndarray | root.Jagged]:
    """Tracks as columns: one row a track, with event_id, the list hit_id and its fit.

    The columns of the fit are pt (GeV), eta, phi (rad), d0, z0 (mm), charge, chi2, ndf and good.

    Raises:
        DataError: nothing given; an event twice; fits of some collisions only, or of another
            number of tracks.
    """
    held = list(found)
    _check_events("tracks", [item.collision.event for item in held])
    counts = [len(item.tracks.offsets) - 1 for item in held]
    hit_id = np.concatenate([item.collision.hits.hit_id[item.tracks.hit] for item in held])
    lengths = np.concatenate([np.diff(item.tracks.offsets) for item in held])
    columns: dict[str, Any] = {
        "event_id": np.repeat([item.collision.event for item in held], counts),
        "hit_id": root.Jagged(hit_id, np.concatenate([[0], np.cumsum(lengths)])),
    }
    fits = [item.fit for item in held if item.fit is not None]
    if fits and [len(fit.pt) for fit in fits] != counts:
        raise DataError("tracks", "fits do not belong to them", "fit every track, or none")
    for name in (*_FIT, "good") if fits else ():
        columns[name] = np.concatenate([getattr(fit, name) for fit in fits])
    return columns


def write_track_text(path: str | Path, collision: Collision, tracks: Tracks) -> None:
    """Write the hit_ids of each track in one line, inner ones first (as acorn does).

    Raises:
        DataError: the file cannot be written.
    """
    hit_id, edges = collision.hits.hit_id[tracks.hit].tolist(), tracks.offsets.tolist()
    lines = [
        " ".join(map(str, hit_id[a:b])) + "\n" for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    try:
        manifest.write_bytes(path, "".join(lines).encode())
    except OSError as error:
        raise DataError(path, f"cannot be written ({error})", "check folder and space") from error


def _check_events(where: str | Path, numbers: Sequence[int]) -> None:
    if not numbers:
        raise DataError(where, "there is nothing to write", "give at least one collision")
    event, times = np.unique(numbers, return_counts=True)
    if times.max() > 1:
        what = f"event {event[times.argmax()]} is given twice"
        raise DataError(where, what, "number the events differently")


def _check_free(files: Sequence[Path], overwrite: bool) -> None:
    for file in files:
        if file.exists() and not overwrite:
            remedy = "choose another folder, or give overwrite=True"
            raise DataError(file, "exists already", remedy)


def _hit_columns(collision: Collision, detector: Detector) -> dict[str, np.ndarray]:
    hits = collision.hits
    x, y, z = hits.position.T
    columns = {
        "event_id": np.full(len(x), collision.event), "tx": x, "ty": y, "tz": z,
        "volume_id": detector.volume[hits.layer], "layer_id": detector.layer[hits.layer],
        "sensitive_id": hits.module, "hit_id": hits.hit_id,
    }  # fmt: skip
    if collision.particles is None:
        return columns
    return columns | {f"barcode_{n}": c for n, c in _barcode(_named(collision)).items()}


def _particle_columns(event: int, particles: Particles) -> dict[str, Any]:
    vx, vy, vz = particles.vertex.T
    px, py, pz = particles.momentum.T
    return {
        "event_id": event, "particle_hash": particles.particle_id.astype(np.uint64),
        "particle_type": particles.pdg, "vx": vx, "vy": vy, "vz": vz, "px": px, "py": py, "pz": pz,
        "q": particles.charge.astype(np.float32), **_barcode(particles.particle_id),
    }  # fmt: skip


def _barcode(particle_id: Int64[np.ndarray, "n"]) -> dict[str, np.ndarray]:
    """The five numbers that a barcode of ACTS packs into 64 bits; together they are unique."""
    bits = particle_id.astype(np.uint64)
    found, upper = {}, 64
    for name in BARCODE:
        mask = np.uint64((1 << (upper - BITS[name])) - 1)
        found[name] = (bits >> np.uint64(BITS[name]) & mask).astype(np.uint32)
        upper = BITS[name]
    return found


def _jagged(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One entry a table: lists, but for event_id."""
    counts = [len(table["vx"]) for table in tables]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return {"event_id": np.array([table["event_id"] for table in tables])} | {
        name: root.Jagged(np.concatenate([table[name] for table in tables]), offsets)
        for name in tables[0]
        if name != "event_id"
    }


def _named(collision: Collision) -> Int64[np.ndarray, "n"]:
    """particle_id of each hit, 0 for noise."""
    assert collision.particles is not None and collision.particle is not None
    return np.asarray(np.append(collision.particles.particle_id, 0)[collision.particle])


def _counts(collision: Collision) -> Int64[np.ndarray, "p"]:
    assert collision.particles is not None and collision.particle is not None
    own = collision.particle[collision.particle >= 0]
    return np.bincount(own, minlength=len(collision.particles.pdg))
