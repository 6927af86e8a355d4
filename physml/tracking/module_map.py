"""Cuts learned from collisions with truth: ranges of pairs of hits in each cell of the detector.

A cell is a pair of layers and a bin in eta of the inner hit. Each holds the range of phislope and
of z0 of the pairs that target particles left there. Cells in which none was seen join no hits, so
a map needs enough collisions: learned from 1, 4 and 16 of mu = 185, the edges of another one
(91,794 hits) held 0.941, 0.977 and 0.986 of its target pairs in 27, 49 and 79 thousand edges.
The idea is that of GNN4ITk's module map (ATL-SOFT-PROC-2023-038), whose cells are
modules and whose ranges are of triplets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

from physml.errors import DataError
from physml.io import hdf5
from physml.tracking import events, pairs
from physml.tracking.events import Collision, Hits, Target
from physml.tracking.geometry import Detector
from physml.tracking.pairs import Cuts
from physml.tracking.triplets import Tolerance

MAX_ETA = 5.0  # abs, hits beyond stand in the outermost bins
WIDE = Cuts(max_d0=2.0, max_z0=100.0, scattering=0.01, tolerance=Tolerance(d0=16.0))
"""Cuts that come before the ranges: a map keeps no pair that they drop."""


class ModuleMap(NamedTuple):
    """Ranges of c cells; cells are sorted by their key."""

    key: Int64[np.ndarray, "c"]  # (inner layer * layers + outer layer) * bins + bin
    low: Float64[np.ndarray, "c 2"]  # smallest and ...
    high: Float64[np.ndarray, "c 2"]  # ... largest phislope (rad/mm) and z0 (mm)
    layers: int
    bins: int
    collisions: int  # learned from
    cuts: Cuts = WIDE


def learn(
    collisions: Sequence[Collision],
    detector: Detector,
    target: Target = Target(),  # noqa: B008
    *,
    bins: int = 20,
    margin: float = 0.1,
    cuts: Cuts = WIDE,
) -> ModuleMap:
    """Ranges that the true edges of target particles span.

    Args:
        collisions: with truth.
        detector: whose layers they name.
        target: particles to learn from.
        bins: of eta.
        margin: ranges are widened by this share of their width on either side.
        cuts: that come before the ranges.

    Raises:
        DataError: see `pairs.check`; no true edge of a target particle.
        ValueError: a collision has no truth.
    """
    layers = len(detector.place)
    keys, values = [np.empty(0, np.int64)], [np.empty((0, 2))]
    for collision in collisions:
        pairs.check(collision.hits, detector)
        inner, outer = events.true_edges(collision)
        own = events.targets(collision, target)[np.asarray(collision.particle)[inner]]
        keys.append(_cell(collision.hits, inner[own], outer[own], layers, bins))
        values.append(_values(collision.hits, inner[own], outer[own]))
    cell, value = np.concatenate(keys), np.concatenate(values)
    if not len(cell):
        raise DataError("module map", "no target particle left two hits", "give more collisions")
    order = np.argsort(cell, kind="stable")
    key, start = np.unique(cell[order], return_index=True)
    low = np.minimum.reduceat(value[order], start)
    high = np.maximum.reduceat(value[order], start)
    wider = margin * (high - low)
    return ModuleMap(key, low - wider, high + wider, layers, bins, len(collisions), cuts)


def edges(
    hits: Hits, detector: Detector, module_map: ModuleMap, threads: int = 2
) -> Int64[np.ndarray, "2 m"]:
    """Edges of a graph, as `pairs.edges`, from a map.

    Raises:
        DataError: the map was learned on another detector.
    """
    if module_map.layers != len(detector.place):
        what = f"is for {module_map.layers} layers, the detector has {len(detector.place)}"
        raise DataError("module map", what, "learn it on this detector")
    found = pairs.search(hits, detector, _layers(module_map), module_map.cuts, threads)
    args = hits, found.inner, found.outer
    cell = _cell(*args, module_map.layers, module_map.bins)
    k = np.minimum(np.searchsorted(module_map.key, cell), len(module_map.key) - 1)
    value = _values(*args)
    inside = (value >= module_map.low[k]) & (value <= module_map.high[k])
    kept = (module_map.key[k] == cell) & inside.all(axis=1)
    return pairs.sort(hits, pairs.follow(hits, pairs.select(found, kept), module_map.cuts, threads))


def _layers(module_map: ModuleMap) -> Int32[np.ndarray, "2 k"]:
    names = np.unique(module_map.key // module_map.bins)
    return np.stack(np.divmod(names, module_map.layers)).astype(np.int32)


def _cell(
    hits: Hits,
    inner: Int64[np.ndarray, "m"],
    outer: Int64[np.ndarray, "m"],
    layers: int,
    bins: int,
) -> Int64[np.ndarray, "m"]:
    eta = np.clip((events.eta(hits.position) / MAX_ETA + 1) / 2, 0, 1)
    bin_ = np.minimum((bins * eta).astype(np.int64), bins - 1)
    layer = hits.layer.astype(np.int64)
    return np.asarray((layer[inner] * layers + layer[outer]) * bins + bin_[inner])


def _values(
    hits: Hits, inner: Int64[np.ndarray, "m"], outer: Int64[np.ndarray, "m"]
) -> Float64[np.ndarray, "m 2"]:
    """Phislope and z0 of pairs of hits; those of one radius have none, and are in no range."""
    x, y, z = hits.position.T
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    dphi = phi[outer] - phi[inner]
    dphi -= 2 * np.pi * np.round(dphi / (2 * np.pi))
    dr = r[outer] - r[inner]
    dr = np.where(dr == 0, np.nan, dr)
    return np.stack([dphi / dr, z[inner] - r[inner] * (z[outer] - z[inner]) / dr], axis=1)


def save(path: str | Path, module_map: ModuleMap) -> None:
    """Write a map as plain arrays (HDF5)."""
    cuts = module_map.cuts
    tolerance = () if cuts.tolerance is None else cuts.tolerance
    arrays = {name: getattr(module_map, name) for name in ("key", "low", "high")}
    arrays["shape"] = np.array([module_map.layers, module_map.bins, module_map.collisions])
    arrays["cuts"] = np.array(cuts[:-1], np.float64)
    arrays["tolerance"] = np.array(tolerance, np.float64)
    hdf5.write(path, arrays, {"content": "module map", "units": "mm, rad, GeV"})


def load(path: str | Path) -> ModuleMap:
    """Read a map.

    Raises:
        DataError: damaged, or no module map.
    """
    arrays = hdf5.read(path)
    missing = {"key", "low", "high", "shape", "cuts", "tolerance"} - arrays.keys()
    if missing:
        what = f"is no module map, {', '.join(sorted(missing))} missing"
        raise DataError(path, what, "give a file that module_map.save wrote")
    tolerance = Tolerance(*arrays["tolerance"].tolist()) if arrays["tolerance"].size else None
    layers, bins, collisions = arrays["shape"].tolist()
    min_pt, max_d0, max_z0, scattering, skips = arrays["cuts"].tolist()
    cuts = Cuts(min_pt, max_d0, max_z0, scattering, int(skips), tolerance)
    return ModuleMap(arrays["key"], arrays["low"], arrays["high"], layers, bins, collisions, cuts)
