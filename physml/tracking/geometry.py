"""Layers of a tracking detector: barrels and disks around the beam, in a solenoid's field.

`trackml()` is the detector of the TrackML challenge (arXiv 1904.06778); its figures are those of
the challenge's module table. `from_modules` reads such a table.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32


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


# Volume; half the stagger; pitches; thickness (twice module_t); low, high; place of each layer.
_DISKS = (1220.0, 1500.0, 1800.0, 2150.0, 2550.0, 2950.0)
_PIXEL_DISKS = (600.0, 700.0, 820.0, 960.0, 1100.0, 1300.0, 1500.0)
_TRACKML = (
    (7, False, 2.5, 0.05, 0.05625, 0.3, 30.0, 176.0, tuple(-z for z in _PIXEL_DISKS[::-1])),
    (8, True, 0.3, 0.05, 0.05625, 0.3, -491.0, 491.0, (32.0, 72.0, 116.0, 172.0)),
    (9, False, 2.5, 0.05, 0.05625, 0.3, 30.0, 176.0, _PIXEL_DISKS),
    (12, False, 4.5, 0.08, 1.2, 0.5, 240.0, 700.0, tuple(-z for z in _DISKS[::-1])),
    (13, True, 1.5, 0.08, 1.2, 0.5, -1084.0, 1084.0, (260.0, 360.0, 500.0, 660.0)),
    (14, False, 4.5, 0.08, 1.2, 0.5, 240.0, 700.0, _DISKS),
    (16, False, 5.5, 0.12, 10.4, 0.7, 750.0, 1020.0, tuple(-z for z in _DISKS[::-1])),
    (17, True, 1.5, 0.12, 10.8, 0.7, -1084.0, 1084.0, (820.0, 1020.0)),
    (18, False, 5.5, 0.12, 10.4, 0.7, 750.0, 1020.0, _DISKS),
)  # fmt: skip


def trackml() -> Detector:
    """The 48 layers of the TrackML detector in 2 T; layer numbers are 2, 4, ... in each volume."""
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
        place, low, high, stagger, u, v, thickness,
    )  # fmt: skip


def places(
    detector: Detector, volume: Int32[np.ndarray, "n"], layer: Int32[np.ndarray, "n"]
) -> Int32[np.ndarray, "n"]:
    """Place of each (volume, layer) in the detector; -1 where it has no such layer."""
    own = {(v, k): i for i, (v, k) in enumerate(zip(detector.volume, detector.layer, strict=True))}
    names, which = np.unique(np.stack([volume, layer]), axis=1, return_inverse=True)
    found = np.array([own.get((v, k), -1) for v, k in names.T], np.int32)
    return found[which.ravel()]
