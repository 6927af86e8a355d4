"""HepMC3 ascii files (plain or gzip): particles of each event, as arrays, in bounded memory.

The format is that of the HepMC3 library (Buckley et al., arXiv 1912.08005): records E (event),
U (units), W (weights), A (attributes), P (particles), V (vertices) between a start and an end line.
A particle names what it comes from: a vertex (negative), another particle (positive), or nothing.
A vertex without position stands where its incoming particles were made, else at the event.
Neutrino generators add an attribute for the process and one for the place in the laboratory
(NuHepMC, arXiv 2310.13211, rules E.R.2 and E.R.4; their spelling differs between its versions).
Plain text has no checksum: a flipped digit is a wrong number. Gzip notices it.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from physml.errors import DataError, PhysmlError

START = "HepMC::Asciiv3-START_EVENT_LISTING"
END = "HepMC::Asciiv3-END_EVENT_LISTING"
ENERGY = {"GEV": 1.0, "MEV": 1e-3}  # in GeV
LENGTH = {"MM": 0.1, "CM": 1.0}  # in cm
MAX_LINE = 1 << 20  # characters
MAX_PARTICLES = 100_000  # in one event
REMEDY = "restore the file, or write it again"


class _Event(NamedTuple):
    """Records of one event, as read; lengths and energies in the units of the file."""

    head: list[str]  # fields of its E line
    units: list[str]
    weights: list[str]
    attributes: dict[str, str]  # of the event; lower case, without underscores
    particles: list[list[str]]  # fields behind the P
    vertices: dict[int, tuple[list[int], list[float] | None]]  # incoming particles, position


def read(path: str | Path, statuses: Collection[int] = (1,)) -> dict[str, np.ndarray]:
    """All events of a file, see `iterate`.

    Raises:
        DataError: as `iterate`.
    """
    parts = list(iterate(path, statuses, step=2000))
    first = np.cumsum([0, *(len(part["number"]) for part in parts)])
    for part, start in zip(parts, first[:-1], strict=True):
        part["particle_event"] += start
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def iterate(
    path: str | Path, statuses: Collection[int] = (1,), step: int = 1000
) -> Iterator[dict[str, np.ndarray]]:
    """Events of a HepMC3 ascii file, `step` at a time (the last time fewer).

    Args:
        path: the file; gzip is recognised by its first bytes.
        statuses: which particles to return: 1 are those that leave, 2 those that decayed.
        step: events to hold in memory.

    Yields:
        n events: `number` (n,), `weight` (n,) the first one, 1 where there is none, `process` (n,)
        -1 where not given, `beam_pdg` (n,), `beam` (n, 4) momentum and energy of the first
        particle of status 4, GeV (code 0 where there is none), `lab_position` (n, 3) cm, 0 where
        not given; and of p particles `particle_event` (p,) row of these n, `pdg`, `status` (p,),
        `momentum` (p, 4) momentum and energy, GeV, `position` (p, 3) where it starts relative to
        `lab_position`, cm.

    Raises:
        DataError: missing, not HepMC3 ascii, truncated, a count that differs from what the event
            announces, an unknown unit, a number that is not finite, a negative energy.
    """
    held: list[dict[str, Any]] = []
    n_events = 0
    for n_events, event in enumerate(_events(path), 1):  # noqa: B007
        held.append(_interpreted(event, path, statuses))
        if len(held) == step:
            yield _stacked(held)
            held = []
    if n_events == 0:
        raise DataError(path, "holds no event", REMEDY)
    if held:
        yield _stacked(held)


def _events(path: str | Path) -> Iterator[_Event]:
    lines = _lines(path)
    if not next(lines, "").startswith("HepMC::Version") or next(lines, "") != START:
        raise DataError(path, "is no HepMC3 ascii file", f"write it as ascii: line 2 is {START!r}")
    event: _Event | None = None
    for line in lines:
        if line == END:
            if event:
                yield event
            return
        kind, fields = line[:1], line.split()[1:]
        if kind == "E":
            if event:
                yield event
            event = _Event(fields, [], [], {}, [], {})
        elif event:
            try:
                _take(event, kind, fields, line)
            except (ValueError, IndexError) as error:
                raise DataError(path, f"has a damaged line {line[:60]!r}", REMEDY) from error
            if len(event.particles) > MAX_PARTICLES:
                what = f"event {event.head[:1]} has more than {MAX_PARTICLES} particles"
                raise DataError(path, what, REMEDY)
        elif kind not in "WTAN":
            raise DataError(path, f"has {line[:60]!r} before the first event", REMEDY)
    raise DataError(path, "ends without its last line: it is cut short", REMEDY)


def _take(event: _Event, kind: str, fields: list[str], line: str) -> None:
    """Put one record into its event."""
    if kind == "P":
        if len(fields) != 9 or int(fields[0]) != len(event.particles) + 1:
            raise ValueError
        event.particles.append(fields)
    elif kind == "V":
        incoming = [int(k) for k in fields[2].strip("[]").split(",") if k]
        place = [float(x) for x in fields[4:8]] if fields[3:4] == ["@"] else None
        if len(fields) not in (3, 8) or (place and not all(map(math.isfinite, place))):
            raise ValueError
        event.vertices[int(fields[0])] = (incoming, place)
    elif kind == "U":
        event.units.extend(fields)
    elif kind == "W":
        event.weights.extend(fields)
    elif kind == "A":
        if int(fields[0]) == 0:
            event.attributes[fields[1].lower().replace("_", "")] = line.split(None, 3)[3]
    elif kind not in "T":
        raise ValueError


def _interpreted(event: _Event, path: str | Path, statuses: Collection[int]) -> dict[str, Any]:
    """Plain numbers of one event, in GeV and cm."""
    name = f"{path}, event {event.head[0] if event.head else '?'}"
    try:
        number, n_vertices, n_particles = map(int, event.head[:3])
        energy, length = ENERGY[" ".join(event.units[:1])], LENGTH[" ".join(event.units[1:])]
        origin = [float(x) for x in event.head[4:7]] if event.head[3:4] == ["@"] else [0.0] * 3
        fields = np.array(event.particles, dtype=object).reshape(-1, 9)
        pdg, status = fields[:, 2].astype(np.int64), fields[:, 8].astype(np.int64)
        momentum = fields[:, 3:7].astype(np.float64) * energy
        weight = float(event.weights[0]) if event.weights else 1.0
        lab = [float(x) for x in event.attributes.get("labpos", "0 0 0").split()[:3]]
        process = event.attributes.get("procid", event.attributes.get("signalprocessid", "-1"))
        place = _positions(event, origin)
        whole = max([number, int(process), *np.abs(pdg)])
        if len(lab) != 3 or len(origin) < 3 or whole >= 2**31:
            raise ValueError
        values: dict[str, Any] = dict(number=number, weight=weight, process=int(process))
    except KeyError as error:
        raise DataError(
            name, f"has no known units ({error})", "write GEV or MEV, MM or CM"
        ) from error
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise DataError(name, "has a number that cannot be read", REMEDY) from error
    implied = {int(f[1]) for f in event.particles if int(f[1]) > 0}  # vertices without a V line
    found = (len(event.vertices) + len(implied), len(event.particles))
    if found != (n_vertices, n_particles):
        what = f"announces {n_vertices, n_particles} vertices and particles and has {found}"
        raise DataError(name, what, REMEDY)
    numbers = np.concatenate([momentum.ravel(), place.ravel(), lab, [weight]])
    if not np.isfinite(numbers).all() or (momentum[:, 3] < 0).any():
        raise DataError(name, "has a number that is not finite, or a negative energy", REMEDY)
    beam = np.flatnonzero(status == 4)[:1]
    kept = np.isin(status, list(statuses))
    values |= dict(
        beam_pdg=int(pdg[beam].sum()), beam=momentum[beam].sum(axis=0),
        lab_position=np.array(lab) * length, pdg=pdg[kept], status=status[kept],
        momentum=momentum[kept], position=place[kept] * length,
    )  # fmt: skip
    return values


def _positions(event: _Event, origin: list[float]) -> np.ndarray:
    """Where each particle starts, (particles, 3): one pass, for parents stand before children."""
    known: dict[int, list[float]] = {}
    places: list[list[float]] = []
    for fields in event.particles:
        parent = int(fields[1])
        if parent < 0:
            if parent not in known:
                incoming, place = event.vertices[parent] if parent in event.vertices else ([], None)
                if parent not in event.vertices or any(k > len(places) for k in incoming):
                    raise ValueError
                known[parent] = (
                    place[:3] if place else places[incoming[0] - 1] if incoming else origin
                )
            places.append(known[parent])
        elif parent > len(places):
            raise ValueError
        else:
            places.append(places[parent - 1] if parent else origin)
    return np.array(places, np.float64).reshape(-1, 3)


def _stacked(events: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    per_event = {"number": np.int64, "weight": float, "process": np.int64, "beam_pdg": np.int64}
    found = {name: np.array([e[name] for e in events], kind) for name, kind in per_event.items()}
    for name in ("beam", "lab_position"):
        found[name] = np.stack([event[name] for event in events])
    counts = [len(event["pdg"]) for event in events]
    found["particle_event"] = np.repeat(np.arange(len(events)), counts)
    for name in ("pdg", "status", "momentum", "position"):
        found[name] = np.concatenate([event[name] for event in events])
    return found


def _lines(path: str | Path) -> Iterator[str]:
    """Lines with content, without their ends; never more than one of them in memory."""
    try:
        if not Path(path).is_file():  # a pipe would block, a folder cannot be read
            raise DataError(path, "is not a readable file", "check the path")
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if zipped else raw
            while line := stream.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise DataError(path, f"has a line beyond {MAX_LINE} bytes", REMEDY)
                if text := line.decode("utf-8").strip():
                    yield text
    except PhysmlError:
        raise
    except Exception as error:  # gzip: OSError, EOFError, zlib.error; text: UnicodeDecodeError
        raise DataError(path, f"cannot be read ({error})", REMEDY) from error
