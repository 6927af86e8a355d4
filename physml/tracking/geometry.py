"""Layers of a tracking detector: barrels and disks around the beam, in a solenoid's field.

`trackml()` is the detector of the TrackML challenge (arXiv 1904.06778); its figures are those of
the challenge's module table; `readers.read_detector` reads such a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32

GRAZING = 0.05  # cosine of incidence; flatter tracks are treated so: modules are small


class Rings(NamedTuple):
    """Rings of flat, equal modules; a barrel has one for each place in z, a disk one to three.

    Module k stands at phi = -pi + (k + 1/2) 2 pi / count.
    """

    layer: Int32[np.ndarray, "g"]  # place in the detector's layers
    first: Int32[np.ndarray, "g"]  # number of the ring's first module within its layer
    count: Int32[np.ndarray, "g"]  # type: ignore[assignment]  # modules; not the tuple's method
    radius: Float64[np.ndarray, "g"]  # of their centres, mm
    z: Float64[np.ndarray, "g"]  # of their centres, mm
    stagger: Float64[np.ndarray, "g"]  # disks: even modules are further out in |z| by it, odd less
    tilt: Float64[np.ndarray, "g"]  # barrels: their normal is turned from the radius, rad
    narrow: Float64[np.ndarray, "g"]  # half their width across r at the inner end of a disk, mm
    wide: Float64[np.ndarray, "g"]  # the same at the outer end; of a barrel the same, mm
    half_length: Float64[np.ndarray, "g"]  # along z of a barrel, r of a disk, mm


class Detector(NamedTuple):
    """Layers in the order of their volume and layer numbers."""

    volume: Int32[np.ndarray, "l"]  # numbers that name a layer in files
    layer: Int32[np.ndarray, "l"]
    barrel: Bool[np.ndarray, "l"]  # cylinder around z; else a disk across z
    place: Float64[np.ndarray, "l"]  # radius of a barrel, z of a disk, mm
    low: Float64[np.ndarray, "l"]  # smallest and ...
    high: Float64[np.ndarray, "l"]  # ... largest z of a barrel, r of a disk, mm
    stagger: Float64[np.ndarray, "l"]  # modules stand this far on either side of `place`, mm
    pitch_u: Float64[np.ndarray, "l"]  # across the strips: r phi, mm
    pitch_v: Float64[np.ndarray, "l"]  # along the strips: z of a barrel, r of a disk, mm
    thickness: Float64[np.ndarray, "l"]  # of the sensor, mm
    field: float = 2.0  # T, along z
    rings: Rings | None = None  # where the modules stand, if that is known


# Volume; half the stagger; pitches; thickness (twice module_t); low, high; place of each layer.
_DISKS = (1220.0, 1500.0, 1800.0, 2150.0, 2550.0, 2950.0)
_PIXEL_DISKS = (600.0, 700.0, 820.0, 960.0, 1100.0, 1300.0, 1500.0)
_TRACKML = (
    (7, False, 2.5, 0.05, 0.05625, 0.3, 30.0, 176.0, tuple(-z for z in _PIXEL_DISKS[::-1])),
    (8, True, 0.25, 0.05, 0.05625, 0.3, -491.0, 491.0, (32.0, 72.0, 116.0, 172.0)),
    (9, False, 2.5, 0.05, 0.05625, 0.3, 30.0, 176.0, _PIXEL_DISKS),
    (12, False, 4.5, 0.08, 1.2, 0.5, 240.0, 700.0, tuple(-z for z in _DISKS[::-1])),
    (13, True, 1.5, 0.08, 1.2, 0.5, -1084.0, 1084.0, (260.0, 360.0, 500.0, 660.0)),
    (14, False, 4.5, 0.08, 1.2, 0.5, 240.0, 700.0, _DISKS),
    (16, False, 5.5, 0.12, 10.4, 0.7, 750.0, 1020.0, tuple(-z for z in _DISKS[::-1])),
    (17, True, 1.5, 0.12, 10.8, 0.7, -1084.0, 1084.0, (820.0, 1020.0)),
    (18, False, 5.5, 0.12, 10.4, 0.7, 750.0, 1020.0, _DISKS),
)  # fmt: skip

# Of each barrel: modules around the layers; rings, distance between them, half length and width,
# mm; tilt, rad.
_BARRELS = {
    8: ((16, 32, 52, 78), 14, 70.0, 36.0, 8.4, 0.14),
    13: ((40, 56, 78, 102), 21, 103.0, 54.0, 24.0, -0.15),
    17: ((120, 152), 21, 103.0, 54.0, 24.0, -0.15),
}
# Of each ring of a disk: modules; radius, |z| beyond the disk's, stagger, half widths and length,
# mm.
_SMALL = ((40, 66.0, 0.0, 2.25, 8.4, 8.4, 36.0), (68, 140.0, 0.0, 2.0, 8.4, 8.4, 36.0))
_MIDDLE = (
    (54, 318.0, -3.0, 1.5, 16.4, 24.2, 78.0), (56, 470.0, 3.0, 1.5, 24.2, 32.2, 78.0),
    (60, 622.0, -3.0, 1.5, 32.2, 40.0, 78.0),
)  # fmt: skip
_LARGE = ((48, 828.0, -4.0, 1.5, 54.0, 64.2, 78.0), (50, 942.0, 4.0, 1.5, 66.0, 72.0, 78.0))
_RINGS = {7: _SMALL, 9: _SMALL, 12: _MIDDLE, 14: _MIDDLE, 16: _LARGE, 18: _LARGE}


def trackml() -> Detector:
    """The 48 layers of the TrackML detector in 2 T; layer numbers are 2, 4, ... in each volume.

    Modules of barrels have the numbers of the challenge's table, those of disks are numbered ring
    by ring. In the inner rings of pixel disks, which stand at four places in z, the two nearest are
    put to their mean (0.25 mm off).
    """
    rows = [
        (volume, 2 * k + 2, barrel, place, low, high, stagger, u, v, thickness)
        for volume, barrel, stagger, u, v, thickness, low, high, places in _TRACKML
        for k, place in enumerate(places)
    ]
    volume, layer, barrel, place, low, high, stagger, u, v, thickness = map(
        np.array, zip(*rows, strict=True)
    )
    return Detector(
        volume.astype(np.int32), layer.astype(np.int32), barrel,
        place, low, high, stagger, u, v, thickness, rings=_trackml_rings(rows),
    )  # fmt: skip


def _trackml_rings(rows: list[Any]) -> Rings:
    found: list[tuple[float, ...]] = []
    for k, (volume, number, barrel, place, _, _, stagger, *_) in enumerate(rows):
        if barrel:
            around, n, step, half, width, turn = _BARRELS[volume]
            count = around[number // 2 - 1]
            for i in range(n):  # alternately further out and in, from the ends
                r, z = place + (-1) ** i * stagger, (i - (n - 1) / 2) * step
                found.append((k, 1 + i * count, count, r, z, 0, turn, width, width, half))
            continue
        first = 1
        for count, r, beyond, depth, narrow, wide, half in _RINGS[volume]:
            z = place + np.sign(place) * beyond
            found.append((k, first, count, r, z, depth, 0, narrow, wide, half))
            first += count
    columns = [np.array(column) for column in zip(*found, strict=True)]
    whole = [column.astype(np.int32) for column in columns[:3]]
    return Rings(*whole, *(column.astype(np.float64) for column in columns[3:]))


def places(
    detector: Detector, volume: Int32[np.ndarray, "n"], layer: Int32[np.ndarray, "n"]
) -> Int32[np.ndarray, "n"]:
    """Place of each (volume, layer) in the detector; -1 where it has no such layer."""
    own = {(v, k): i for i, (v, k) in enumerate(zip(detector.volume, detector.layer, strict=True))}
    names, which = np.unique(np.stack([volume, layer]), axis=1, return_inverse=True)
    found = np.array([own.get((v, k), -1) for v, k in names.T], np.int32)
    return found[which.ravel()]
