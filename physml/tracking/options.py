"""Options of the loss of edges, for configs; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EdgeLoss:
    """Binary cross-entropy of edges, or focal loss (Lin et al., arXiv 1708.02002)."""

    gamma: float = 0.0  # 0: cross-entropy; 2 in the paper: edges already told apart count less
    positive: float = 1.0  # factor on the loss of true edges


@dataclass(frozen=True)
class EdgeWeight:
    """The weight of edges that meet every condition; those on the particle hold for true edges."""

    weight: float
    label: bool | None = None  # True: true edges only, False: false ones only
    pt: tuple[float, float] | None = None  # GeV, from below the second
    hits: tuple[int, int] | None = None  # of the particle, from ... to
    pdg: tuple[int, ...] | None = None  # its code is one of these
    not_pdg: tuple[int, ...] | None = None  # ... none of these
