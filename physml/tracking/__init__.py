"""Tracks of charged particles: collisions, graphs of hits, networks, track building, metrics.

Lengths are mm, momenta GeV, angles rad, the field T; see `events` for the arrays.
"""

from physml.tracking.graphs import build_graph
from physml.tracking.tracks import build_tracks

__all__ = ["build_graph", "build_tracks"]
