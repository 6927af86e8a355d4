"""Events of our maker, or a user's pixel maps, as rows that the networks take."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from physml.errors import ConfigError, DataError
from physml.neutrino import readers
from physml.neutrino.events import CLASSES, Hits, Interactions, Particles, PixelMaps, label
from physml.neutrino.layouts import SHAPE
from physml.neutrino.pixelmaps import concatenate, losses, patches, pixel_maps, select, summed
from physml.neutrino.simulate import MASS, simulate
from physml.progress import progress

from .config import Config

BLOCK = 5000  # events made at once
# Keys of the event maker. Test events do not depend on the seed, so that all runs share them.
KEYS = {"test": 1, "validation": 2, "train": 3}
TRUTH = ("energy", "weight")
IDENTITY = ("run", "subrun", "event", "slice")  # what names an event in a friend tree
SAME = {"event": "evt", "slice": "subevt"}  # as CAF files call them
OWN_SHARES = (0.7, 0.1, 0.2)  # train, validation and test of a user's file


class Sample(NamedTuple):
    """Events with enough hits: maps, and what is known of each."""

    maps: PixelMaps
    columns: dict[str, np.ndarray]  # label and those of TRUTH and IDENTITY, (n,)
    made: int  # events made to get them


def load(config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Rows of the splits train, validation and test.

    Raises:
        DataError: see `readers.read_maps`; or a class without training events.
    """
    if config.data is not None:
        return {name: rows(config, sample) for name, sample in own(config).items()}
    sizes = {"train": config.events, "validation": config.validation, "test": config.test}
    found = {}
    for name, size in sizes.items():
        seed = 0 if name == "test" else config.seed
        found[name] = rows(config, made(config, (KEYS[name], seed), size, name))
    missing = set(range(len(CLASSES))) - set(found["train"]["label"].tolist())
    if missing:
        names = ", ".join(CLASSES[k] for k in sorted(missing))
        raise DataError("training events", f"hold no {names}", "give more --events")
    return found


def made(config: Config, key: tuple[int, int], n: int, name: str) -> Sample:
    """The first n events of a key that have enough hits; weights are those of n events."""
    parts: list[Sample] = []
    with_hits = 0
    blocks = iter(range(10**6))
    for _ in progress(range(0, n, BLOCK), f"making {name}"):
        wanted = min(with_hits + BLOCK, n)
        while with_hits < wanted:
            events, _, hits = produced(config, key, next(blocks))
            parts.append(kept(config, events, hits))
            with_hits += len(parts[-1].columns["label"])
            if not with_hits:
                what = f"is {config.min_hits}, which none of {BLOCK} events has"
                raise ConfigError("--min-hits", what, "give fewer")
    everything = join(parts)
    share = n / with_hits
    cut = np.arange(n)
    columns = {name: values[cut] for name, values in everything.columns.items()}
    columns["weight"] = columns["weight"] * BLOCK / (everything.made * share)
    columns["event"] = cut.astype(np.int32)
    return Sample(select(everything.maps, cut), columns, everything.made)


def produced(
    config: Config, key: tuple[int, int], block: int
) -> tuple[Interactions, Particles, Hits]:
    """Events of one block of a key (split, seed)."""
    number = (key[0] * 2**32 + key[1]) * 10**6 + block
    return simulate(number, BLOCK, exposure=MASS * config.exposure)


def kept(config: Config, events: Interactions, hits: Hits) -> Sample:
    """Events with enough hit pixels."""
    n = len(events.pdg)
    maps = pixel_maps(hits, n, config.full_scale)
    lost = losses(hits, n, config.full_scale)
    enough = np.flatnonzero(np.diff(maps.offsets) >= config.min_hits)
    columns = {
        "label": label(events),
        "energy": events.energy,
        "weight": events.weight,
        "hits_beyond": lost.beyond_planes + lost.beyond_cells,
        "saturated": lost.saturated,
        **{name: np.zeros(n, np.int32) for name in IDENTITY},
    }
    return Sample(select(maps, enough), {k: v[enough] for k, v in columns.items()}, n)


def join(parts: list[Sample]) -> Sample:
    """One sample of several."""
    columns = {k: np.concatenate([p.columns[k] for p in parts]) for k in parts[0].columns}
    return Sample(concatenate([p.maps for p in parts]), columns, sum(p.made for p in parts))


def rows(config: Config, sample: Sample) -> dict[str, np.ndarray]:
    """What the networks, the baseline and the figures take."""
    tokens = patches(sample.maps, limit=config.patches, overflow="brightest")
    return {**tokens._asdict(), "summed": summed(sample.maps).values, **sample.columns}


def own(config: Config) -> dict[str, Sample]:
    """A user's maps, split at random into 70 % training, 10 % validation and 20 % test.

    Raises:
        DataError: unreadable, without labels, or without enough events.
    """
    assert config.data is not None
    maps, truth = readers.read_maps(config.data, axes=config.axes, keep_odd=True)
    if maps.shape != SHAPE:
        what = f"holds maps of {' x '.join(map(str, maps.shape))} pixels"
        raise DataError(config.data, what, f"give {' x '.join(map(str, SHAPE))}")
    classes = readers.class_of(truth["code"])
    lit = np.flatnonzero(np.diff(maps.offsets) == np.prod(SHAPE))
    if len(lit):
        remedy = "check the file, or take such maps out"
        raise DataError(config.data, f"map {lit[0]} is lit in every pixel", remedy)
    if not (classes >= 0).any():
        remedy = "give codes 0 to 14, see physml.neutrino.layouts.CODES"
        raise DataError(config.data, "names no class of its events", remedy)
    usable = np.flatnonzero((np.diff(maps.offsets) >= config.min_hits) & (classes >= 0))
    if len(usable) < 100:
        what = f"holds {len(usable)} events of known class with {config.min_hits} hits or more"
        raise DataError(config.data, what, "give at least 100")
    if len(np.unique(classes[usable])) < 2:
        raise DataError(config.data, "holds one class only", "give events of two or more")
    n = len(maps.offsets) - 1
    if len(usable) < n:
        print(f"{config.data}: {n - len(usable)} of {n} events left out: too few hits, or a class "
              "that is not ours", file=sys.stderr)  # fmt: skip
    columns: dict[str, np.ndarray] = {
        "label": classes.astype(np.int32),
        "energy": np.asarray(truth.get("energy", np.zeros(n)), float),
        "weight": np.zeros(n),  # no exposure is known
        "hits_beyond": np.zeros(n, np.int64),
        "saturated": np.zeros(n, np.int64),
        **{k: np.asarray(truth.get(SAME.get(k, k), np.arange(n)), np.int64) for k in IDENTITY},
    }
    # Slices of one event stay together.
    keys = np.stack([columns[name][usable] for name in IDENTITY[:3]], axis=1)
    group = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    rank = np.random.default_rng(config.seed).permutation(group.max() + 1)[group]
    part = np.searchsorted(np.cumsum(OWN_SHARES[:-1]) * (group.max() + 1), rank, side="right")
    parts = [usable[part == k] for k in range(3)]
    return {
        name: Sample(select(maps, part), {k: v[part] for k, v in columns.items()}, len(part))
        for name, part in zip(("train", "validation", "test"), parts, strict=True)
    }


def changed(config: Config, n: int) -> Mapping[str, dict[str, np.ndarray]]:
    """The first test events seen by other detectors: energy scale, threshold, noise."""
    events, _, hits = produced(config, (KEYS["test"], 0), 0)
    random = np.random.default_rng(0)
    detectors = {
        "as trained": hits,
        "energy scale -5 %": hits._replace(energy=hits.energy * np.float32(0.95)),
        "energy scale +5 %": hits._replace(energy=hits.energy * np.float32(1.05)),
        "threshold +50 %": _above(hits, 1.5),
        "noise: 10 more hits": _noisier(hits, len(events.pdg), 10, random),
    }
    total = len(events.pdg)
    nominal = np.diff(pixel_maps(hits, total, config.full_scale).offsets)
    same = np.flatnonzero(nominal >= config.min_hits)[:n]  # the same events in every detector
    everything = replace(config, min_hits=0)
    found = {}
    for name, seen in detectors.items():
        sample = kept(everything, events, seen)
        columns = {k: v[same] for k, v in sample.columns.items()}
        found[name] = rows(config, Sample(select(sample.maps, same), columns, total))
    return found


def _above(hits: Hits, factor: float) -> Hits:
    """Only hits whose light passes a threshold raised by a factor."""
    passes = hits.photoelectrons >= factor * hits.photoelectrons.min()
    return Hits(*(field[passes] for field in hits))


def _noisier(hits: Hits, n_events: int, more: int, random: np.random.Generator) -> Hits:
    """More hits of random size, around each event in both views, within the planes it spans."""
    event = np.repeat(np.arange(n_events, dtype=np.int32), more)
    first, last = (np.full(n_events, fill) for fill in (10**6, -1))
    np.minimum.at(first, hits.event, hits.plane)
    np.maximum.at(last, hits.event, hits.plane)
    hit = last[event] >= 0
    event = event[hit]
    low, high = first[event], last[event] + 1
    plane = random.integers(low, high)
    view = hits.event * 2 + hits.plane % 2
    count = np.bincount(view, minlength=2 * n_events)
    middle = np.bincount(view, hits.cell, 2 * n_events) / np.maximum(count, 1)
    cell = np.round(middle[event * 2 + plane % 2] + random.uniform(-35, 35, len(event)))
    there = (cell >= 0) & (cell < 384) & (count[event * 2 + plane % 2] > 0)
    source = random.integers(0, len(hits.energy), len(event))
    added = Hits(
        event, plane.astype(np.int32), cell.astype(np.int32), hits.energy[source],
        hits.photoelectrons[source], np.full(len(event), -1, np.int32),
    )  # fmt: skip
    added = Hits(*(column[there] for column in added))
    order = np.argsort(np.concatenate([hits.event, added.event]), kind="stable")
    return Hits(*(np.concatenate(pair)[order] for pair in zip(hits, added, strict=True)))
