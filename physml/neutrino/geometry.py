"""A detector of planes of long cells whose direction alternates: sizes, readout, cell numbers.

The default is like the NOvA far detector, not a model of it:

| setting                     | default       | source                                             |
|-----------------------------|---------------|----------------------------------------------------|
| planes, cells               | 896, 384      | 28 blocks of 32 planes, 12 modules of 32 cells:    |
|                             |               | D. Rocco, thesis, University of Minnesota          |
| pitch of planes, cells      | 6.65, 3.97 cm | inner size 6.0 x 3.9 cm as Fermilab News, 2013-12, |
|                             |               | says; the walls are our choice                     |
| Birks constant              | 0.0096 cm/MeV | 0.0094 to 0.0098 measured for liquid scintillators |
|                             |               | based on LAB, arXiv 1301.6403, Chou's term there   |
|                             |               | consistent with zero                               |
| fibre, light, noise, hits   | below         | our choice: no public number was found             |
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike

from physml.errors import ConfigError
from physml.matter import CELLS_OF_OIL, Material


class Detector(NamedTuple):
    """A box that starts at z = 0, centred on x = y = 0; cm and GeV.

    Vertical cells are read at their top, horizontal ones at their end of largest x. The fibre runs
    down the cell and back, so that light reaches the sensor by a short and by a long way.
    """

    planes: int = 896
    cells: int = 384  # of each plane
    plane_pitch: float = 6.65  # cm, along z
    cell_pitch: float = 3.97  # cm, along x (even planes) or y (odd planes)
    material: Material = CELLS_OF_OIL  # averaged over scintillator and walls
    attenuation: float = 700.0  # cm, of the fibre
    light_yield: float = 2800.0  # photoelectrons per GeV left mid-cell by a fast muon
    birks: float = 9.6  # cm/GeV
    chou: float = 0.0  # cm²/GeV²
    sensor_noise: float = 2.5  # photoelectrons, standard deviation
    threshold: float = 12.0  # photoelectrons
    noise_hits: float = 1.0  # mean number per event, near its hits


def check(detector: Detector) -> None:
    """Refuse a detector that cannot be.

    Raises:
        ConfigError: a size or yield is not positive, or a noise is negative.
    """
    positive = ("planes", "cells", "plane_pitch", "cell_pitch", "attenuation", "light_yield")
    for name in (*positive, "birks", "chou", "sensor_noise", "threshold", "noise_hits"):
        value = getattr(detector, name)
        if not (np.isfinite(value) and value >= 0 and (value > 0 or name not in positive)):
            sign = "positive" if name in positive else "zero or positive"
            raise ConfigError(f"detector.{name}", f"is {value}", f"give a {sign} number")


def half_width(detector: Detector) -> float:
    """Half of the side of the box along x and along y, cm; cells are twice as long."""
    return detector.cells * detector.cell_pitch / 2


def length(detector: Detector) -> float:
    """Length of the box along z, cm."""
    return detector.planes * detector.plane_pitch


def inside(detector: Detector, position: Float64[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n"]:
    """Whether points are in the box."""
    width, z = half_width(detector), position[:, 2]
    across = (np.abs(position[:, :2]) < width).all(axis=1)
    return np.asarray(across & (z >= 0) & (z < length(detector)))


def exit_distance(
    detector: Detector,
    position: Float64[np.ndarray, "n 3"],
    direction: Float64[np.ndarray, "n 3"],
) -> Float64[np.ndarray, "n"]:
    """Straight way from points to where they leave the box for good, cm; 0 where they miss it."""
    width = half_width(detector)
    low = np.array([-width, -width, 0.0])
    high = np.array([width, width, length(detector)])
    slow = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    walls = np.stack([(low - position) / slow, (high - position) / slow])
    enter, leave = walls.min(axis=0).max(axis=1), walls.max(axis=0).min(axis=1)
    return np.where((leave > 0) & (leave > enter), leave, 0.0)


def plane_number(detector: Detector, z: ArrayLike) -> Int64[np.ndarray, "*n"]:
    """Plane at depth z; outside 0 ... planes - 1 there is none."""
    return np.floor(np.asarray(z) / detector.plane_pitch).astype(np.int64)


def cell_number(detector: Detector, coordinate: ArrayLike) -> Int64[np.ndarray, "*n"]:
    """Cell at a value of x (view 0) or y (view 1); outside 0 ... cells - 1 there is none."""
    place = np.asarray(coordinate) / detector.cell_pitch + detector.cells / 2
    return np.floor(place).astype(np.int64)


def plane_position(detector: Detector, plane: ArrayLike) -> Float64[np.ndarray, "*n"]:
    """Depth z of the middle of planes, cm."""
    return (np.asarray(plane) + 0.5) * detector.plane_pitch


def cell_position(detector: Detector, cell: ArrayLike) -> Float64[np.ndarray, "*n"]:
    """Place, x (view 0) or y (view 1), of the middle of cells, cm."""
    return (np.asarray(cell) + 0.5 - detector.cells / 2) * detector.cell_pitch


def light(detector: Detector, along: ArrayLike) -> Float64[np.ndarray, "*n"]:
    """Share of light that arrives from a place on the cell, relative to the middle of the cell.

    Half of it goes straight to the sensor, half by the far end of the looped fibre:
    exp(-w/X) + exp(-(2L - w)/X), w from the sensor, L the length of the cell, X the attenuation.

    Args:
        along: y (view 0) or x (view 1), cm; the sensor is at the largest value.
    """
    # The two ways differ by the way u to the far end and back: a hyperbolic cosine.
    u = (np.asarray(along) + half_width(detector)) / detector.attenuation
    return np.asarray(np.cosh(u) / np.cosh(half_width(detector) / detector.attenuation))
