"""What is odd in showers, counted block by block: blank ones, hot voxels, layers out of order.

Odd showers are no errors: soft pions leave no energy, bad generators do all of this. So they are
counted and told, never dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry, Layer, slices
from physml.errors import DataError

RATIO = (0.005, 100.0)
"""Deposits of all showers over the incident energies of all: beyond this, units are mixed up."""
HOT_SHARE, HOT_ENERGY = 0.99, 10e3  # of the deposits in one voxel, of a particle above this (MeV)
EXCESS = 5.0  # times its incident energy
MIN_LAYERS = 10  # alike, for a profile in depth
MIN_SHOWERS = 100  # for a mean to mean something
DEEPEST = 0.6  # of the layers: mean depth of electromagnetic showers lies far above it
SIGMAS, STEP = 5.0, 0.02  # a step of the profile the wrong way counts above both
UNLIKE = 2.0  # sectors of a layer whose mean energies differ by more and by `SIGMAS` are none
SOFT_SHARE = 0.01  # of the voxels with energy: more of them below the threshold are told
KINDS = (
    "hold no energy",
    f"have more than {HOT_SHARE:.0%} of it in one voxel",
    f"hold more than {EXCESS:g} times their incident energy",
)


class Tally(NamedTuple):
    """Sums over the showers seen so far."""

    next: int  # row of the file that comes next
    odd: tuple[int, ...]  # of each of `KINDS`
    first: tuple[int, ...]  # row of the first of each; -1: none
    incident: float  # MeV
    deposited: float  # MeV
    layers: Float64[np.ndarray, "l"]  # sum of the shares of the incident energy
    steps: Float64[np.ndarray, "l-1"]  # sum of the squared steps of these from layer to layer
    sectors: Float64[np.ndarray, "2 s"]  # sums of the shares of each sector, and of their squares
    lit: int  # voxels with energy
    soft: int  # of these below the threshold of the geometry


def empty(geometry: Geometry, first: int = 0) -> Tally:
    """Nothing seen; the next shower is row `first` of the file."""
    n = len(geometry.layers)
    none = (0,) * len(KINDS)
    sectors = np.zeros((2, sum(layer.n_alpha for _, layer in _sectored(geometry))))
    layers = np.zeros(n), np.zeros(n - 1)
    return Tally(first, none, (-1,) * len(KINDS), 0.0, 0.0, *layers, sectors, 0, 0)


def update(tally: Tally, showers: Showers, geometry: Geometry) -> Tally:
    """The tally with more showers."""
    energy, deposits = showers
    parts = [deposits[:, part].sum(axis=1, dtype=np.float64) for part in slices(geometry)]
    shares = np.stack(parts, axis=1) / energy[:, None]
    total = shares.sum(axis=1)
    masks = (
        total == 0,
        (deposits.max(axis=1) > HOT_SHARE * total * energy) & (energy >= HOT_ENERGY),
        total > EXCESS,
    )
    masks = (masks[0], masks[1] & ~masks[0], masks[2])
    sectors = [
        deposits[:, part].reshape(len(energy), layer.n_alpha, -1).sum(axis=2) / energy[:, None]
        for part, layer in _sectored(geometry)
    ]
    sector = np.concatenate(sectors, axis=1) if sectors else np.zeros((len(energy), 0))
    return Tally(
        tally.next + len(energy),
        tuple(n + int(mask.sum()) for n, mask in zip(tally.odd, masks, strict=True)),
        tuple(_first(k, mask, tally.next) for k, mask in zip(tally.first, masks, strict=True)),
        tally.incident + float(energy.sum()),
        tally.deposited + float((total * energy).sum()),
        tally.layers + shares.sum(axis=0),
        tally.steps + (np.diff(shares, axis=1) ** 2).sum(axis=0),
        tally.sectors + np.stack([sector.sum(axis=0), (sector**2).sum(axis=0)]),
        tally.lit + int(np.count_nonzero(deposits)),
        tally.soft + int(((deposits > 0) & (deposits < 0.999 * geometry.threshold)).sum()),
    )


def _sectored(geometry: Geometry) -> list[tuple[slice, Layer]]:
    """Layers with several sectors, and where their voxels are."""
    both = zip(slices(geometry), geometry.layers, strict=True)
    return [(part, layer) for part, layer in both if layer.polar and layer.n_alpha > 1]


def _first(known: int, mask: Bool[np.ndarray, "n"], start: int) -> int:
    return start + int(mask.argmax()) if known < 0 and mask.any() else known


def check_units(incident: float, deposited: float, where: object) -> None:
    """Refuse deposits and incident energies of different units.

    Args:
        incident: sum over many showers.
        deposited: of the same.
        where: the file, for the message.

    Raises:
        DataError: the ratio of the sums is out of `RATIO`. Blank showers alone pass.
    """
    if deposited == 0:
        return
    ratio = deposited / incident
    if not RATIO[0] <= ratio <= RATIO[1]:
        what = f"deposits are {ratio:.3g} of the incident energies"
        raise DataError(where, what, "give both in the units of its form (MeV and GeV mixed up?)")


def lines(tally: Tally, start: int, geometry: Geometry) -> list[str]:
    """What is odd, one line each.

    Args:
        tally: of all showers.
        start: row of the first of them.
        geometry: of their voxels.
    """
    n = tally.next - start
    found = [
        f"{k} of {n} showers {kind} (the first in row {row}); they are kept"
        for k, kind, row in zip(tally.odd, KINDS, tally.first, strict=True)
        if k
    ]
    if tally.soft > SOFT_SHARE * tally.lit:
        share = f"{tally.soft / tally.lit:.1%} of the voxels with energy"
        found.append(f"{share} are below {geometry.threshold:g} MeV (are all energies in GeV?)")
    return found + _order(tally, n, geometry) + _symmetry(tally, n, geometry)


def _symmetry(tally: Tally, n: int, geometry: Geometry) -> list[str]:
    """Layers whose sectors differ as they would if they held voxels of another layer."""
    if n < MIN_SHOWERS:
        return []
    mean = tally.sectors[0] / n
    error = np.sqrt(np.maximum(tally.sectors[1] / n - mean**2, 0.0) / (n - 1))
    bad, first = [], 0
    for _, layer in _sectored(geometry):
        within = slice(first, first := first + layer.n_alpha)
        high, low = (first - layer.n_alpha + f(mean[within]) for f in (np.argmax, np.argmin))
        gap = mean[high] - UNLIKE * mean[low]
        if gap > SIGMAS * np.hypot(error[high], UNLIKE * error[low]):
            bad.append(str(layer.id))
    if not bad:
        return []
    names = ", ".join(bad[:4])
    return [f"sectors of layer {names} are unlike: layers seem to be swapped, or of another XML"]


def _order(tally: Tally, n: int, geometry: Geometry) -> list[str]:
    """Where the mean profile of electromagnetic showers in equal layers does not rise and fall."""
    edges = {(layer.size, *layer.fast.tolist()) for layer in geometry.layers}
    alike = len(edges) == 1 and len(geometry.layers) >= MIN_LAYERS
    if n < MIN_SHOWERS or not alike or geometry.particle not in ("electron", "photon"):
        return []
    profile = tally.layers / n
    depth = np.arange(len(profile)) @ profile / max(profile.sum(), 1e-300)
    if depth > DEEPEST * len(profile):
        return [f"layers seem to be reversed: the mean depth is layer {depth:.0f}"]
    step = np.diff(profile)
    error = np.sqrt(np.maximum(tally.steps / n - step**2, 0.0) / (n - 1))
    wrong = np.where(np.arange(len(step)) < profile.argmax(), -step, step)
    bad = np.flatnonzero((wrong > SIGMAS * error) & (wrong > STEP * profile.max()))
    if len(bad) == 0:
        return []
    names = ", ".join(str(geometry.layers[k].id) for k in bad[:4])
    return [f"layers seem to be swapped: the mean profile jumps behind layer {names}"]
