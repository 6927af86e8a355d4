"""Pixel maps of two-view events: window, levels, sparse store, patches and summed quantities.

Window as published (Aurisano et al., arXiv 1604.01444; D. Rocco's thesis, Minnesota): the first
plane with a hit is the upstream edge; each view shows the next 100 planes of its own (200 planes of
the detector), 80 cells around the median cell of its hits there, and the calibrated energy in 256
levels. Which energy the highest level means is not published: `full_scale`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64, UInt8

from physml.errors import ConfigError, DataError
from physml.neutrino.events import Hits, PixelMaps

LEVELS = 255
FULL_SCALE = 0.255
"""GeV of level 255: 1 MeV a level. A muon leaves about 11 MeV in a cell (1.9 MeV/cm over 6 cm).
Levels are rounded up, as in DUNE's code of the same kind (dunereco, CVNImageUtils)."""


class Losses(NamedTuple):
    """What the pixel maps of n events do not show."""

    beyond_planes: Int64[np.ndarray, "n"]  # hits downstream of the window
    beyond_cells: Int64[np.ndarray, "n"]  # hits beside it
    energy: Float64[np.ndarray, "n"]  # of those hits, GeV
    saturated: Int64[np.ndarray, "n"]  # pixels above `full_scale`, shown as 255


class Patches(NamedTuple):
    """Non-empty squares of n pixel maps, in rising order of place, padded to `limit`."""

    tokens: UInt8[np.ndarray, "n limit area"]  # pixels of each patch, C order; 0 on padding
    place: Int32[np.ndarray, "n limit"]  # flat place in (views, planes/size, cells/size)
    mask: Bool[np.ndarray, "n limit"]  # False on padding
    left_out: Int32[np.ndarray, "n"]  # patches that did not fit, see `patches`


class Summed(NamedTuple):
    """Summed quantities of n events, for linear baselines."""

    names: tuple[str, ...]
    values: Float64[np.ndarray, "n k"]


def pixel_maps(
    hits: Hits,
    n_events: int,
    full_scale: float = FULL_SCALE,
    planes: int = 100,
    cells: int = 80,
) -> PixelMaps:
    """Windowed, quantised pixel maps; `losses` with the same arguments counts what they leave out.

    Args:
        hits: sorted by event; several hits in one cell add up.
        n_events: events, of which some may have no hit: their maps are blank.
        full_scale: GeV of level 255. Level = energy in steps of full_scale / 255, rounded up, so
            that every hit is seen; 255 above full scale.
        planes: planes of each view.
        cells: cells of each view.

    Raises:
        DataError: an energy is not a positive number, or an event, plane or cell is out of range.
        ConfigError: a setting is not positive.
    """
    _check_settings(full_scale, planes, cells)
    pixel = hit_pixels(hits, n_events, planes, cells)
    key, energy = _summed_pixels(hits, pixel, 2 * planes * cells)
    level = np.ceil(energy * (LEVELS / full_scale)).clip(1, LEVELS)
    event, place = np.divmod(key, 2 * planes * cells)
    counts = np.bincount(event, minlength=n_events)
    return PixelMaps(
        (2, planes, cells), _offsets(counts), place.astype(np.int32), level.astype(np.uint8)
    )


def losses(
    hits: Hits,
    n_events: int,
    full_scale: float = FULL_SCALE,
    planes: int = 100,
    cells: int = 80,
) -> Losses:
    """Count what `pixel_maps` with the same arguments leaves out or saturates.

    Raises:
        DataError, ConfigError: as `pixel_maps`.
    """
    _check_settings(full_scale, planes, cells)
    pixel = hit_pixels(hits, n_events, planes, cells)
    key, energy = _summed_pixels(hits, pixel, 2 * planes * cells)
    late = _depth(hits, n_events) >= 2 * planes
    outside = pixel < 0
    lost = np.bincount(hits.event[outside], hits.energy[outside], minlength=n_events)
    return Losses(
        np.bincount(hits.event[late], minlength=n_events),
        np.bincount(hits.event[outside & ~late], minlength=n_events),
        lost.astype(np.float64),
        np.bincount(key[energy > full_scale] // (2 * planes * cells), minlength=n_events),
    )


def hit_pixels(
    hits: Hits, n_events: int, planes: int = 100, cells: int = 80
) -> Int64[np.ndarray, "h"]:
    """Flat place in (2, planes, cells) where each hit is shown; -1 where the window ends before.

    Raises:
        DataError: see `pixel_maps`.
    """
    _check_hits(hits, n_events)
    depth = _depth(hits, n_events)
    inside = depth < 2 * planes
    view = hits.plane.astype(np.int64) % 2
    group = hits.event.astype(np.int64) * 2 + view
    middle = _group_median(group[inside], hits.cell[inside], 2 * n_events)
    cell = hits.cell - middle[group] + cells // 2
    inside &= (cell >= 0) & (cell < cells)
    return np.where(inside, (view * planes + depth // 2) * cells + cell, -1)


def pixel_truth(
    hits: Hits,
    pdg: Int32[np.ndarray, "p"],
    maps: PixelMaps,
) -> Int32[np.ndarray, "k"]:
    """PDG code of the particle behind each pixel of `maps`; 0 for noise.

    A pixel with several hits takes the code of the one with most energy.

    Args:
        hits: those that `maps` was made from.
        pdg: code of each particle that `hits.particle` names.
        maps: of `pixel_maps(hits, ...)`.

    Raises:
        DataError: `maps` was not made from these hits, or a particle is out of range.
    """
    _, planes, cells = maps.shape
    pixel = hit_pixels(hits, len(maps.offsets) - 1, planes, cells)
    if hits.particle.max(initial=-1) >= len(pdg):
        raise DataError(
            "hits", "name particles beyond the table", "give the table they were made with"
        )
    shown = np.flatnonzero(pixel >= 0)
    key = hits.event[shown] * np.int64(2 * planes * cells) + pixel[shown]
    order = np.lexsort((-hits.energy[shown], key))
    unique, first = np.unique(key[order], return_index=True)
    if not np.array_equal(unique, _keys(maps)):
        raise DataError("hits", "do not fit the pixel maps", "give the hits they were made from")
    particle = hits.particle[shown[order[first]]]
    return np.where(particle >= 0, np.append(pdg, 0)[particle], 0).astype(np.int32)


def dense(
    maps: PixelMaps, rows: Int[np.ndarray, "m"] | slice = slice(None)
) -> UInt8[np.ndarray, "m views planes cells"]:
    """Images of the named events.

    Raises:
        DataError: a row is out of range.
    """
    picked = select(maps, rows)
    n, size = len(picked.offsets) - 1, math.prod(maps.shape)
    images = np.zeros(n * size, np.uint8)
    images[_keys(picked)] = picked.value
    return images.reshape(n, *maps.shape)


def select(maps: PixelMaps, rows: Int[np.ndarray, "m"] | slice) -> PixelMaps:
    """The named events, in that order; rows may repeat.

    Raises:
        DataError: a row is negative or beyond the last event.
    """
    n = len(maps.offsets) - 1
    places = np.arange(n)[rows] if isinstance(rows, slice) else np.asarray(rows, np.int64)
    if places.size and (places.min() < 0 or places.max() >= n):
        bad = places[(places < 0) | (places >= n)][0]
        raise DataError("pixel maps", f"have no row {bad}", f"give rows from 0 to {n - 1}")
    starts = maps.offsets[places]
    counts = maps.offsets[places + 1] - starts
    offsets = _offsets(counts)
    source = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return PixelMaps(maps.shape, offsets, maps.pixel[source], maps.value[source])


def concatenate(parts: Sequence[PixelMaps]) -> PixelMaps:
    """All events of all parts, in order.

    Raises:
        DataError: no part, or parts of different shape.
    """
    shapes = sorted({part.shape for part in parts})
    if len(shapes) != 1:
        raise DataError("pixel maps", f"have shapes {shapes}", "join maps of one shape")
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return PixelMaps(
        shapes[0],
        _offsets(counts),
        np.concatenate([part.pixel for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def from_dense(images: UInt8[np.ndarray, "n views planes cells"]) -> PixelMaps:
    """Sparse maps of images; `dense` gives them back.

    Raises:
        DataError: not four axes of uint8.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        what = f"are {images.dtype} of shape {images.shape}"
        raise DataError("images", what, "give uint8 of shape (n, views, planes, cells)")
    n, views, planes, cells = images.shape
    flat = images.reshape(n, views * planes * cells)
    event, pixel = np.nonzero(flat)
    counts = np.bincount(event, minlength=n)
    return PixelMaps(
        (views, planes, cells), _offsets(counts), pixel.astype(np.int32), flat[event, pixel]
    )


def mirror(maps: PixelMaps, flip: Bool[np.ndarray, "n views"]) -> PixelMaps:
    """Reflect the chosen views of each event in the cell direction (the published augmentation).

    Raises:
        DataError: `flip` has another shape.
    """
    n, (views, _, cells) = len(maps.offsets) - 1, maps.shape
    if np.shape(flip) != (n, views):
        raise DataError("flip", f"has shape {np.shape(flip)}", f"give ({n}, {views})")
    event = _events(maps)
    view, _, cell = np.unravel_index(maps.pixel, maps.shape)
    turned = maps.pixel + np.where(flip[event, view], cells - 1 - 2 * cell, 0)
    order = np.argsort(event * math.prod(maps.shape) + turned, kind="stable")
    pixel = turned[order].astype(np.int32)
    return PixelMaps(maps.shape, maps.offsets, pixel, maps.value[order])


def summed(maps: PixelMaps) -> Summed:
    """A few numbers for each view of each event, for a linear baseline beside the networks.

    Per view: lit pixels, sum of levels, extent in planes and in cells (both ends included),
    brightest level, and the spread (root mean square around the mean, weighted by level) along
    planes and along cells. A blank view gives zeros.
    """
    n, (views, planes, cells) = len(maps.offsets) - 1, maps.shape
    view, plane, cell = np.unravel_index(maps.pixel, maps.shape)
    group, level = _events(maps) * views + view, maps.value.astype(np.float64)

    def total(weights: Float64[np.ndarray, "k"]) -> Float64[np.ndarray, "g"]:
        return np.bincount(group, weights, minlength=n * views)

    energy = total(level)
    brightest = np.zeros(n * views)
    np.maximum.at(brightest, group, level)
    columns = {"hits": total(np.ones_like(level)), "energy": energy, "brightest": brightest}
    for name, place in (("planes", plane), ("cells", cell)):
        low, high = np.full(n * views, max(planes, cells)), np.full(n * views, -1)
        np.minimum.at(low, group, place)
        np.maximum.at(high, group, place)
        safe = np.maximum(energy, 1.0)  # a lit pixel holds at least level 1
        mean = total(level * place) / safe
        columns[name] = np.where(high < 0, 0, high - low + 1).astype(np.float64)
        columns[f"spread_{name}"] = np.sqrt(total(level * (place - mean[group]) ** 2) / safe)
    names = tuple(f"{name}_{view}" for view in range(views) for name in columns)
    values = np.stack(list(columns.values()), axis=-1).reshape(n, views * len(columns))
    return Summed(names, values)


def patches(
    maps: PixelMaps,
    size: int = 4,
    limit: int = 64,
    overflow: Literal["raise", "brightest"] = "raise",
) -> Patches:
    """Cut each map into size x size squares and keep those with a hit.

    Args:
        maps: n events.
        size: side of a patch; divides planes and cells.
        limit: patches to make room for; any limit that suffices gives the same leading entries.
        overflow: what to do with an event of more patches: refuse it, or keep its brightest (sum
            of levels; of equals the first) and count the others in `left_out`.

    Raises:
        DataError: an event has more than `limit` patches; the limit needed is named.
        ConfigError: `size` does not divide the maps.
    """
    views, planes, cells = maps.shape
    if size < 1 or planes % size or cells % size:
        raise ConfigError("size", f"{size} does not divide {planes} x {cells}", "give a divisor")
    n, grid = len(maps.offsets) - 1, (views, planes // size, cells // size)
    view, plane, cell = np.unravel_index(maps.pixel, maps.shape)
    place = np.ravel_multi_index((view, plane // size, cell // size), grid)
    key = _events(maps) * math.prod(grid) + place
    unique, patch = np.unique(key, return_inverse=True)
    owner, where = np.divmod(unique, math.prod(grid))
    counts = np.bincount(owner, minlength=n)
    needed = int(counts.max(initial=0))
    if needed > limit and overflow == "raise":
        what = f"event {int(counts.argmax())} has {needed} patches, limit {limit}"
        raise DataError("pixel maps", what, f"give limit={needed} or overflow='brightest'")
    kept = np.ones(len(unique), bool)
    if needed > limit:
        light = np.bincount(patch, maps.value, minlength=len(unique))
        order = np.lexsort((where, -light, owner))
        kept[order] = _ranks(counts) < limit
    left_out = np.bincount(owner[~kept], minlength=n).astype(np.int32)
    slot = np.where(
        kept, np.cumsum(kept) - 1 - np.repeat(_offsets(counts - left_out)[:-1], counts), 0
    )
    found = Patches(
        np.zeros((n, limit, size * size), np.uint8),
        np.zeros((n, limit), np.int32),
        np.arange(limit) < (counts - left_out)[:, None],
        left_out,
    )
    found.place[owner[kept], slot[kept]] = where[kept]
    shown = kept[patch]
    pixel_patch, inner = patch[shown], ((plane % size) * size + cell % size)[shown]
    found.tokens[owner[pixel_patch], slot[pixel_patch], inner] = maps.value[shown]
    return found


def _check_settings(full_scale: float, planes: int, cells: int) -> None:
    for name, value in (("full_scale", full_scale), ("planes", planes), ("cells", cells)):
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(name, f"is {value}", "give a positive number")


def _check_hits(hits: Hits, n_events: int) -> None:
    """Refuse what NumPy would index wrongly or turn into NaN."""
    good = np.isfinite(hits.energy) & (hits.energy > 0)
    if not good.all():
        k = int(np.flatnonzero(~good)[0])
        what = f"energy of hit {k} (event {hits.event[k]}) is {hits.energy[k]} GeV"
        raise DataError("hits", what, "repair the calibration or drop the hit")
    if not len(hits.event):
        return
    if hits.event[0] < 0 or hits.event[-1] >= n_events or (np.diff(hits.event) < 0).any():
        what = f"events do not rise from 0 to {n_events - 1}"
        raise DataError("hits", what, "sort the hits by event, and give the number of events")
    if hits.plane.min() < 0 or hits.cell.min() < 0:
        raise DataError("hits", "a plane or cell is negative", "count planes and cells from 0")


def _depth(hits: Hits, n_events: int) -> Int64[np.ndarray, "h"]:
    """Planes of the detector between each hit and the first one of its event."""
    first = np.full(n_events, np.iinfo(np.int64).max)
    np.minimum.at(first, hits.event, hits.plane)
    return np.asarray(hits.plane - first[hits.event], np.int64)


def _group_median(
    group: Int64[np.ndarray, "h"], values: Int32[np.ndarray, "h"], n_groups: int
) -> Int64[np.ndarray, "g"]:
    """Median of each group, half a cell rounded down; 0 for empty groups."""
    ordered = values[np.lexsort((values, group))].astype(np.int64)
    counts = np.bincount(group, minlength=n_groups)
    start, filled = _offsets(counts)[:-1], counts > 0
    low, high = (start + (counts - 1) // 2)[filled], (start + counts // 2)[filled]
    found = np.zeros(n_groups, np.int64)
    found[filled] = (ordered[low] + ordered[high]) // 2
    return found


def _summed_pixels(
    hits: Hits, pixel: Int64[np.ndarray, "h"], size: int
) -> tuple[Int64[np.ndarray, "k"], Float64[np.ndarray, "k"]]:
    """Rising event * size + pixel of each lit pixel, and its energy, GeV."""
    shown = pixel >= 0
    key, place = np.unique(hits.event[shown] * np.int64(size) + pixel[shown], return_inverse=True)
    return key, np.bincount(place, hits.energy[shown], minlength=len(key))


def _offsets(counts: Int[np.ndarray, "n"]) -> Int64[np.ndarray, "n+1"]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _ranks(counts: Int[np.ndarray, "n"]) -> Int64[np.ndarray, "total"]:
    """0, 1, 2... within each group."""
    return np.asarray(np.arange(counts.sum()) - np.repeat(_offsets(counts)[:-1], counts))


def _events(maps: PixelMaps) -> Int64[np.ndarray, "k"]:
    return np.asarray(np.repeat(np.arange(len(maps.offsets) - 1), np.diff(maps.offsets)))


def _keys(maps: PixelMaps) -> Int64[np.ndarray, "k"]:
    """Event * size + pixel: one number for each lit pixel."""
    return np.asarray(_events(maps) * math.prod(maps.shape) + maps.pixel)
