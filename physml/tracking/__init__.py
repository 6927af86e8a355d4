"""Tracks of charged particles: collisions, graphs of hits, networks, track building, metrics.

Lengths are mm, momenta GeV, angles rad, the field T; see `events` for the arrays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physml.tracking.graphs import build_graph
    from physml.tracking.tracks import build_tracks

__all__ = ["build_graph", "build_tracks"]


def __getattr__(name: str) -> Any:
    """Load what is asked for: command lines are checked by modules here that need no jax."""
    modules = {"build_graph": "graphs", "build_tracks": "tracks"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{modules[name]}"), name)
