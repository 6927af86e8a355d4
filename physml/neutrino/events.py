"""The arrays that the neutrino domain passes on: interactions, particles, hits and pixel maps.

Lengths are cm, energies, momenta and masses GeV. z points along the planes (downstream), x to the
side, y up. View 0 ("X") holds the planes with vertical cells, which measure x; view 1 ("Y") those
with horizontal cells, which measure y. Planes alternate: plane p belongs to view p % 2.
Rows of jagged tables name the event that they belong to and are sorted by it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32, Int64, UInt8

CLASSES = ("numu", "nue", "nutau", "NC", "cosmic")
"""What an event is; the labels of the networks are places in this tuple."""

MODES = ("QE", "RES", "DIS", "other")
"""How a neutrino interacts; `Interactions.mode` is a place in this tuple, or -1 for cosmics."""


class Interactions(NamedTuple):
    """Truth of n events."""

    pdg: Int32[np.ndarray, "n"]  # of the neutrino, PDG scheme (negative: antineutrino); 0: cosmic
    charged: Bool[np.ndarray, "n"]  # charged current
    mode: Int8[np.ndarray, "n"]  # see MODES
    energy: Float64[np.ndarray, "n"]  # of the neutrino (of the muon for a cosmic), GeV
    lepton_energy: Float64[np.ndarray, "n"]  # of the outgoing lepton, total, GeV
    q2: Float64[np.ndarray, "n"]  # -(four-momentum transfer)², GeV²
    w: Float64[np.ndarray, "n"]  # mass of the hadronic system, GeV
    vertex: Float64[np.ndarray, "n 3"]  # cm
    weight: Float64[np.ndarray, "n"]  # events expected per event made, see `flux.weights`


class Particles(NamedTuple):
    """Particles that leave the nucleus, or cosmic muons, sorted by event."""

    event: Int32[np.ndarray, "p"]
    pdg: Int32[np.ndarray, "p"]
    position: Float64[np.ndarray, "p 3"]  # where it starts, cm
    momentum: Float64[np.ndarray, "p 3"]  # GeV


class Hits(NamedTuple):
    """Cells above threshold, sorted by event."""

    event: Int32[np.ndarray, "h"]
    plane: Int32[np.ndarray, "h"]  # from 0, upstream first; its view is plane % 2
    cell: Int32[np.ndarray, "h"]  # from 0, along x or y
    energy: Float32[np.ndarray, "h"]  # calibrated, GeV
    photoelectrons: Float32[np.ndarray, "h"]
    particle: Int32[np.ndarray, "h"]  # row of `Particles` that left most of it; -1: noise


class PixelMaps(NamedTuple):
    """Sparse images of n events: pixel k of event i stands at offsets[i] <= k < offsets[i + 1]."""

    shape: tuple[int, int, int]  # views, planes per view, cells: (2, 100, 80) as published
    offsets: Int64[np.ndarray, "n+1"]
    pixel: Int32[np.ndarray, "k"]  # flat place in `shape`, C order, rising within an event
    value: UInt8[np.ndarray, "k"]  # 1 to 255


def label(events: Interactions) -> Int32[np.ndarray, "n"]:
    """Place of each event in `CLASSES`."""
    flavours = {14: 0, 12: 1, 16: 2}
    found = np.full(len(events.pdg), -1, np.int32)
    for pdg, place in flavours.items():
        found[np.abs(events.pdg) == pdg] = place
    found[~events.charged] = 3
    found[events.pdg == 0] = 4
    return found
