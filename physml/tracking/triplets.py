"""Pairs of hits that another pair continues: what makes a graph pure enough for layer skips.

Two pairs that share their middle hit belong to one particle only when their slopes along the beam
agree within the lengths of pixels and strips and multiple scattering, and their curvatures within
scattering and the distance of closest approach. A pair that no other one continues or precedes
is dropped; particles with hits on three layers or more keep theirs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

STRIDE = 100.0
"""Between the sort keys of hits, more than twice any arcsinh of a slope."""


class Pairs(NamedTuple):
    """m pairs of hits."""

    inner: Int64[np.ndarray, "m"]  # row of the hits
    outer: Int64[np.ndarray, "m"]
    bend: Float64[np.ndarray, "m"]  # difference in phi over that of a particle of min_pt
    slope: Float64[np.ndarray, "m"]  # arcsinh of dz over the chord across the beam
    slack: Float64[np.ndarray, "m"]  # error of the slope from the lengths of pixels and strips
    lever: Float64[np.ndarray, "m"]  # bend for a closest approach of 1 mm


class Tolerance(NamedTuple):
    """How far two pairs that share a hit may differ."""

    slope: float = 0.006  # beyond the lengths of pixels and strips
    bend: float = 20.0  # mm, divided by the radius of the hit: multiple scattering
    d0: float = 30.0  # mm, closest approach to the beam


def continued(
    pairs: Pairs,
    layers: tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]],
    radius: Float64[np.ndarray, "n"],
    tolerance: Tolerance,
    threads: int = 1,
) -> Bool[np.ndarray, "m"]:
    """Pairs that share a hit with another pair which agrees with them.

    Args:
        pairs: candidates.
        layers: of the inner and of the outer hit of each.
        radius: of each hit, mm.
        tolerance: of their differences.
        threads: that work on layers.
    """
    kept = np.zeros(len(pairs.inner), bool)

    def one(layer: int) -> None:
        before, after = (np.flatnonzero(number == layer) for number in layers[::-1])
        for joined in _agree(pairs, before, after, radius, tolerance):
            kept[joined] = True

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, np.intersect1d(*layers)))
    return kept


def _agree(
    pairs: Pairs,
    before: Int64[np.ndarray, "a"],
    after: Int64[np.ndarray, "b"],
    radius: Float64[np.ndarray, "n"],
    tolerance: Tolerance,
) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k"]]:
    """Those of two sets of pairs that meet in a hit and agree: one of `before`, one of `after`."""
    middle = pairs.outer[before] * STRIDE + pairs.slope[before]
    order = np.argsort(middle)
    before, middle = before[order], middle[order]
    key = pairs.inner[after] * STRIDE + pairs.slope[after]
    order = np.argsort(key)
    after, key = after[order], key[order]
    reach = pairs.slack[before] + pairs.slack[after].max() + tolerance.slope
    start = np.searchsorted(key, middle - reach)
    count = np.searchsorted(key, middle + reach) - start
    i = np.repeat(before, count)
    j = after[np.arange(len(i)) + np.repeat(start - np.cumsum(count) + count, count)]
    slack = pairs.slack[i] + pairs.slack[j] + tolerance.slope
    good = np.abs(pairs.slope[i] - pairs.slope[j]) <= slack
    i, j = i[good], j[good]
    # bend = curvature + d0 lever: two pairs give both.
    first, second, noise = pairs.lever[i], pairs.lever[j], tolerance.bend / radius[pairs.outer[i]]
    apart = np.abs(pairs.bend[i] - pairs.bend[j])
    curvature = np.abs(pairs.bend[j] * first - pairs.bend[i] * second)
    fine = apart <= noise + tolerance.d0 * (first - second)
    fine &= curvature <= first - second + 0.5 * noise * (first + second)
    return i[fine], j[fine]
