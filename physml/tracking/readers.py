"""Collisions from other people's files: TrackML csv, ACTS ROOT, any ROOT tree by a mapping.

    for collision in read_collisions("event000001000-hits.csv.gz", trackml()): ...
    for collision in read_collisions("my.root", detector, "x=hx,y=hy,z=hz,event=evt"): ...

Files are read event by event (`physml.tracking.layouts`), and each event is checked whole before it
is given: nothing is dropped or repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int32, Int64

from physml.errors import ConfigError, DataError
from physml.io import csv
from physml.tracking import layouts, surfaces
from physml.tracking.events import Collision, Hits, Particles, pt
from physml.tracking.geometry import Detector, places
from physml.tracking.helix import SPEED_OF_LIGHT
from physml.tracking.layouts import Event
from physml.tracking.mapping import WITHOUT, check_mapping, parse_mapping
from physml.tracking.trees import first_repeat, integers

__all__ = ["parse_mapping", "read_collisions", "read_detector"]

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}

TOLERANCE = 20.0
"""mm. Flat modules leave the mean radius of their layer by up to 6.2 mm (TrackML event 1000)."""

MAX_COINCIDENT = 0.01
"""Share of hits at the very place of another. Decays leave a few: 10 of 27,543 in event 1000."""

MAX_RATIO = 10.0
"""Largest factor between the given pT and that of the hits, in the median (`_check_momenta`).

In event 1000 and in simulated ones the median is 1.00 to 1.01; MeV taken for GeV make it 1000.
"""

FEWEST = 5
"""Particles that such a median needs, and hits that each of them needs."""

BENT = 1.0
"""mm. Sagitta of their tracks: far above the pitch, so that the hits tell the momentum."""

SIGN = {11: -1, 13: -1, 15: -1, 211: 1, 321: 1, 2212: 1}  # charge of the PDG code, not its anti

_MODULES = {"volume_id": int, "layer_id": int} | dict.fromkeys(
    ("cx", "cy", "cz", "rot_zw", "module_t", "module_hv", "pitch_u", "pitch_v"), float
)


def read_detector(path: str | Path, field: float = 2.0) -> Detector:
    """Layers of a TrackML module table (`detectors.csv`, plain or gzip; lengths in mm).

    A layer is a barrel when the normals of its modules point across z, a disk when along it. It is
    placed in the middle between its innermost and outermost modules, and ends where the modules do
    along v (the axis that `module_hv` is half of: z of a barrel, r of a disk).

    Args:
        path: the table.
        field: T, along z; the table does not say.

    Raises:
        DataError: see `physml.io.csv.read`; no modules; a layer has modules of both kinds, or ones
            of different thickness or pitch; a number is not finite.
    """
    table = csv.read(path, _MODULES)
    if not len(table["cx"]):
        raise DataError(path, "holds no modules", "restore the file")
    bad = [name for name, values in table.items() if not np.isfinite(values).all()]
    if bad:
        raise DataError(path, f"{bad[0]!r} is not finite everywhere", "repair the table")
    names, which = np.unique(
        np.stack([table["volume_id"], table["layer_id"]]), axis=1, return_inverse=True
    )
    rows = [
        _layer_of(f"{path}, volume {v} layer {k}", {n: c[which == i] for n, c in table.items()})
        for i, (v, k) in enumerate(names.T)
    ]
    barrel, place, low, high, stagger, pitch_u, pitch_v, thickness = map(
        np.array, zip(*rows, strict=True)
    )
    volume, layer = names.astype(np.int32)
    return Detector(
        volume, layer, barrel, place, low, high, stagger, pitch_u, pitch_v, thickness, field
    )


def _layer_of(where: str, modules: dict[str, np.ndarray]) -> tuple[bool | float, ...]:
    """Barrel or not, place, low, high, stagger, pitches and thickness of one layer."""
    upright = np.abs(modules["rot_zw"]) < 0.5**0.5
    if upright.any() != upright.all():
        raise DataError(where, "has modules along z and across it", "part the layer")
    for name in ("module_t", "pitch_u", "pitch_v"):
        if np.ptp(modules[name]) > 0:
            raise DataError(where, f"has modules that differ in {name!r}", "part the layer")
    radius, z = np.hypot(modules["cx"], modules["cy"]), modules["cz"]
    across, along = (radius, z) if upright.all() else (z, radius)
    first, last = float(across.min()), float(across.max())
    return (
        bool(upright.all()), (first + last) / 2, float((along - modules["module_hv"]).min()),
        float((along + modules["module_hv"]).max()), (last - first) / 2,
        *(float(modules[name][0]) for name in ("pitch_u", "pitch_v")),
        2 * float(modules["module_t"][0]),
    )  # fmt: skip


def read_collisions(
    path: str | Path,
    detector: Detector,
    mapping: str | Mapping[str, str] | None = None,
    *,
    tree: str | None = None,
    unit: str = "mm",
    truth: bool = True,
    particles: str | Path | None = None,
    tolerance: float = TOLERANCE,
) -> Iterator[Collision]:
    """Collisions of a file or folder, one at a time; only one is held in memory.

    What a path may be:
      - TrackML: a folder of events, or one `event000001000-hits.csv` (or .csv.gz), with `-truth`
        and `-particles` beside it;
      - ACTS: `hits.root` or `spacepoints.root`, or a folder with one; the truth of hits needs
        `particles.root` beside them;
      - any ROOT tree with a `mapping`. Jagged columns: one entry is one event. Flat ones: rows of
        equal `event` (in one piece, in any order of events), or the whole tree is one event.

    Args:
        path: file or folder.
        detector: what the hits were measured with.
        mapping: our name -> column, or the same as text, see `parse_mapping`. x, y, z are needed.
            Without `volume` and `layer` (or `geometry`, an identifier of ACTS) each hit belongs to
            the nearest layer. `particle` (0: noise) needs px, py, pz and charge of the particle at
            its start, the same for all of its hits; vx, vy, vz are 0 and pdg is 0 where not given.
        tree: name of the tree that `mapping` is for, needed where a file holds several.
        unit: of all lengths, mm, cm or m. Momenta are GeV.
        truth: False leaves it out. Events without any truth are given without it in any case.
        particles: the file of particles that belongs to `hits.root`.
        tolerance: mm, largest distance of a hit from its layer (`TOLERANCE`).

    Yields:
        Collisions. Neutral particles are left out of `particles`, hits are in the order of the
        file. hit_id counts from 0 and module is -1 where the file has none. Identifiers above
        2^63 (unsigned in ACTS) appear as negative ones with the same bits.

    Raises:
        ConfigError: an unknown unit, a mapping that is not readable or misses something, a tree
            without a mapping.
        DataError: see `physml.io.csv.read` and `physml.io.root.read`; a layout that is not known;
            no hits; NaN or infinity; a layer that the detector lacks; a hit far from its layer; a
            hit given twice; truth that does not belong to the hits; an unknown particle; a charge
            that is no whole number or not that of the PDG code; rows of an event in two places;
            momenta that are not those of the hits (`MAX_RATIO`).
    """
    if unit not in UNITS:
        raise ConfigError("unit", f"{unit!r} is unknown", f"give one of {', '.join(UNITS)}")
    if not tolerance > 0:
        raise ConfigError("tolerance", f"is {tolerance}", "give a positive number of mm")
    if tree is not None and mapping is None:
        raise ConfigError("tree", "changes nothing without a mapping", "give a mapping too")
    named = parse_mapping(mapping) if isinstance(mapping, str) else mapping
    if named is not None:
        check_mapping(named, truth)
    events = layouts.events(Path(path), named, tree, truth, particles)
    return (_collision(event, detector, unit, tolerance) for event in events)


def _collision(event: Event, detector: Detector, unit: str, tolerance: float) -> Collision:
    where, hits = event.where, event.hits
    n = len(hits["x"])
    if n == 0:
        raise DataError(where, "has no hits", "drop the event")
    position = _vectors(where, hits, "xyz") * UNITS[unit]
    layer = _layers(where, hits, position, detector)
    _check_place(where, position, layer, detector, tolerance, unit)
    module = _small(where, "module", hits["module"]) if "module" in hits else np.full(n, -1)
    hit_id = integers(where, "hit_id", hits["hit_id"]) if "hit_id" in hits else np.arange(n)
    found = Hits(position, layer, module.astype(np.int32), hit_id.astype(np.int64))
    truth, particle = None, None
    if event.particles is not None:
        truth, particle = _truth(event, UNITS[unit])
    _check_repeats(where, found, particle)
    collision = Collision(event.number, found, truth, particle)
    _check_momenta(where, collision, detector.field)
    return collision


def _vectors(
    where: str, columns: Mapping[str, np.ndarray], names: str | tuple[str, ...]
) -> Float64[np.ndarray, "n 3"]:
    for name in names:
        if columns[name].dtype.kind not in "iuf":
            what = f"{name!r} holds no numbers but {columns[name].dtype}"
            raise DataError(where, what, "name another column")
    found = np.stack([columns[name] for name in names], axis=1).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        what = f"{', '.join(names)} of row {bad[0]} are {_shown(found[bad[0]])}"
        raise DataError(where, what, f"repair or drop it ({len(bad)} such rows)")
    return found


def _layers(
    where: str,
    hits: Mapping[str, np.ndarray],
    position: Float64[np.ndarray, "n 3"],
    detector: Detector,
) -> Int32[np.ndarray, "n"]:
    """Place of each hit in the detector's layers."""
    if "layer" not in hits:
        return _nearest(position, detector)
    volume, layer = (_small(where, name, hits[name]) for name in ("volume", "layer"))
    found = places(detector, volume, layer)
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        k = unknown[0]
        what = f"row {k} is in volume {volume[k]} layer {layer[k]}, which the detector lacks"
        remedy = f"it has {_listed(detector)}; for another detector call read_collisions in Python"
        raise DataError(where, what, remedy)
    return found


def _listed(detector: Detector) -> str:
    parts = [
        f"volume {v} (layers {' '.join(map(str, detector.layer[detector.volume == v]))})"
        for v in np.unique(detector.volume)
    ]
    return ", ".join(parts[:12]) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "")


def _nearest(position: Float64[np.ndarray, "n 3"], detector: Detector) -> Int32[np.ndarray, "n"]:
    found, least = np.zeros(len(position), np.int32), np.full(len(position), np.inf)
    for k in range(len(detector.place)):
        away = _distance(position, np.int32(k), detector)
        nearer = away < least
        found[nearer], least[nearer] = k, away[nearer]
    return found


def _distance(
    position: Float64[np.ndarray, "n 3"], layer: np.ndarray | np.int32, detector: Detector
) -> Float64[np.ndarray, "n"]:
    """From the cylinder or ring that a layer is, mm."""
    radius, z = np.hypot(position[:, 0], position[:, 1]), position[:, 2]
    barrel = detector.barrel[layer]
    across, along = np.where(barrel, radius, z), np.where(barrel, z, radius)
    beyond = np.maximum(np.maximum(detector.low[layer] - along, along - detector.high[layer]), 0)
    return np.asarray(np.hypot(across - detector.place[layer], beyond))


def _check_place(
    where: str,
    position: Float64[np.ndarray, "n 3"],
    layer: Int32[np.ndarray, "n"],
    detector: Detector,
    tolerance: float,
    unit: str,
) -> None:
    away = _distance(position, layer, detector)
    far = np.flatnonzero(away > tolerance)
    if not len(far):
        return
    k = far[0]
    what = (
        f"{len(far)} of {len(away)} hits are more than {tolerance:g} mm from their layer, the "
        f"first in row {k}: {_shown(position[k])} mm is {away[k]:.4g} mm from volume "
        f"{detector.volume[layer[k]]} layer {detector.layer[layer[k]]}"
    )
    remedy = "check columns and unit; for another detector or tolerance call read_collisions"
    remedy += " in Python"
    for name, size in UNITS.items():
        other = _distance(position * size / UNITS[unit], layer, detector)
        if name != unit and (other <= tolerance).mean() > 0.9:
            remedy = f"the numbers fit in {name}: give unit {name} (--unit {name})"
    raise DataError(where, what, remedy)


def _check_repeats(where: str, hits: Hits, particle: Int32[np.ndarray, "n"] | None) -> None:
    """Refuse hits given twice.

    Two particles that part in a module leave two hits in one place; one particle leaves one.
    """
    twice = first_repeat(hits.hit_id)
    if twice is not None:
        raise DataError(where, f"hit_id {hits.hit_id[twice]} stands twice", "drop the copies")
    place = np.column_stack([hits.position, hits.layer])
    order = np.lexsort(place.T)
    same = (np.diff(place[order], axis=0) == 0).all(axis=1)
    own = np.zeros(len(same), bool)
    if particle is not None:
        own = same & (np.diff(particle[order]) == 0) & (particle[order][1:] >= 0)
    if own.any() or same.sum() > MAX_COINCIDENT * len(place):
        k = int(np.flatnonzero(own if own.any() else same)[0])
        a, b = sorted(order[k : k + 2])
        what = (
            f"rows {a} and {b} are the same hit ({(own if own.any() else same).sum()} such pairs)"
        )
        raise DataError(where, what, "drop the copies")


def _check_momenta(where: str, collision: Collision, field: float) -> None:
    """Refuse momenta in another unit: those that the hits bend with differ by a large factor.

    The curvature is that of the circle through the first, a middle and the last hit of a particle.
    Nothing is said of a collision with fewer than `FEWEST` particles of as many hits, visibly bent.
    """
    particles, particle = collision.particles, collision.particle
    if particles is None or particle is None or not field > 0:
        return
    rows = np.flatnonzero(particle >= 0)
    away = collision.hits.position[rows] - particles.vertex[particle[rows]]
    rows = rows[np.lexsort([np.einsum("ij,ij->i", away, away), particle[rows]])]
    own, first, size = np.unique(particle[rows], return_index=True, return_counts=True)
    own, first, size = (column[size >= FEWEST] for column in (own, first, size))
    position = collision.hits.position[rows[np.stack([first, first + size // 2, first + size - 1])]]
    parameters, _ = surfaces.three_points(position.swapaxes(0, 1))
    curvature = np.abs(parameters[:, 0])
    bent = curvature * np.hypot(*(position[2] - position[0]).T[:2]) ** 2 / 8 > BENT
    if bent.sum() < FEWEST:
        return
    given = pt(particles.momentum[own[bent]])
    ratio = float(np.median(given * curvature[bent] / (SPEED_OF_LIGHT * field)))
    if not 1 / MAX_RATIO < ratio < MAX_RATIO:
        what = f"momenta are {ratio:.3g} times those that the hits bend with at {field:g} T (median"
        what += f" of {bent.sum()} particles)"
        raise DataError(where, what, "give px, py, pz in GeV (MeV: divide them by 1000)")


def _truth(event: Event, scale: float) -> tuple[Particles, Int32[np.ndarray, "n"]]:
    """Charged particles, and the row of each hit among them (-1: noise)."""
    assert event.particles is not None
    where, table = f"{event.where}, particles", event.particles
    key = table["key"]
    if (key == 0).any():
        raise DataError(where, f"row {np.argmax(key == 0)} has number 0, that of noise", "drop it")
    twice = first_repeat(key)
    if twice is not None:
        what = f"{table['particle_id'][twice]} stands twice"
        raise DataError(where, what, "keep one row a particle")
    charge = _charges(where, table)
    kept = charge != 0
    particles = Particles(
        table["particle_id"][kept], table["pdg"][kept].astype(np.int32),
        charge[kept].astype(np.int8), _vectors(where, table, ("vx", "vy", "vz"))[kept] * scale,
        _vectors(where, table, ("px", "py", "pz"))[kept],
    )  # fmt: skip
    if (still := ~particles.momentum.any(axis=1)).any():
        what = f"{particles.particle_id[still][0]} has no momentum"
        raise DataError(where, what, "drop it, or repair it")
    row = _rows(event.where, event.hits["key"], key)
    owned = row >= 0
    if (neutral := owned & ~np.append(kept, True)[row]).any():
        what = f"{table['particle_id'][row[neutral][0]]} has hits and charge 0"
        raise DataError(where, what, "repair its charge")
    number = np.cumsum(kept) - 1
    return particles, np.append(number, -1)[row].astype(np.int32)


def _charges(where: str, table: Mapping[str, np.ndarray]) -> Int64[np.ndarray, "p"]:
    charge = integers(where, "charge", table["charge"])
    pdg = _small(where, "pdg", table["pdg"])
    wrong = np.abs(charge) > 127
    for code, sign in SIGN.items():
        wrong |= (np.abs(pdg) == code) & (charge != sign * np.sign(pdg))
    if wrong.any():
        k = int(wrong.argmax())
        what = f"{table['particle_id'][k]} has charge {charge[k]} and PDG code {pdg[k]}"
        raise DataError(where, what, "repair one of them")
    return charge


def _rows(
    where: str, key: Int64[np.ndarray, "n"], keys: Int64[np.ndarray, "p"]
) -> Int64[np.ndarray, "n"]:
    """Row of each hit in the table of particles, -1 for noise."""
    order = np.argsort(keys)
    place = np.searchsorted(keys[order], key)
    found = np.append(order, -1)[place]
    lost = (key != 0) & (np.append(keys, 0)[found] != key)
    if lost.any():
        what = f"{lost.sum()} hits are of particles that the table of particles lacks, "
        what += f"the first in row {lost.argmax()}"
        raise DataError(where, what, f"give the whole table, or {WITHOUT}")
    return np.where(key == 0, -1, found)


def _small(where: str, name: str, values: np.ndarray) -> Int32[np.ndarray, "n"]:
    found = integers(where, name, values)
    if len(found) and max(abs(int(found.min())), abs(int(found.max()))) >= 2**31:
        raise DataError(where, f"{name!r} goes from {found.min()} to {found.max()}", "check it")
    return found.astype(np.int32)


def _shown(vector: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in vector) + ")"
