"""How good the edges of a graph are, as functions of the cut on their score.

Edges are of three kinds: true edges of target particles, true edges of other particles, and fakes.
Efficiencies count the first. The three purities differ in the second: right (total), wrong
(target), or left out (masked). acorn logs them as total_pur, target_pur and pur, and the AUC
without the second kind as auc (GNN4ITkTeam/CommonFramework, edge_classifier_stage.py; read, not
run; there `score > cut` passes, here `score >= cut`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from physml import metrics
from physml.errors import DataError
from physml.tracking import events
from physml.tracking.events import Collision, Target


class EdgeCounts(NamedTuple):
    """Edges with `score >= cut`, by their truth; of one event or the sum of several."""

    cut: Float64[np.ndarray, "c"]  # rising
    target: Int64[np.ndarray, "c"]  # true edges of target particles
    other: Int64[np.ndarray, "c"]  # true edges of other particles
    fake: Int64[np.ndarray, "c"]
    in_graph: int  # true edges of target particles among all edges of the graph
    all_true: int  # the same among all pairs of hits

    @property
    def efficiency(self) -> Float64[np.ndarray, "c"]:
        """Edge efficiency: target edges that pass, of those in the graph."""
        return self.target / _some("edge efficiency", self.in_graph)

    @property
    def graph_efficiency(self) -> float:
        """Target edges in the graph, of all there are: what graph building keeps."""
        return self.in_graph / _some("graph efficiency", self.all_true)

    @property
    def cumulative(self) -> Float64[np.ndarray, "c"]:
        """Target edges that pass, of all there are: edge times graph efficiency."""
        return self.target / _some("cumulative efficiency", self.all_true)

    @property
    def purity(self) -> Float64[np.ndarray, "c"]:
        """Total purity: true edges of any particle, of all that pass; 1 where nothing passes."""
        return _purity(self.target + self.other, self.fake)

    @property
    def target_purity(self) -> Float64[np.ndarray, "c"]:
        """Target edges, of all that pass."""
        return _purity(self.target, self.other + self.fake)

    @property
    def masked_purity(self) -> Float64[np.ndarray, "c"]:
        """Target edges, of those that pass and are no true edges of others."""
        return _purity(self.target, self.fake)


def edge_counts(
    scores: Float[np.ndarray, "m"],
    label: Bool[np.ndarray, "m"],
    counted: Bool[np.ndarray, "m"],
    all_true: int,
    cuts: Float[np.ndarray, "c"],
) -> EdgeCounts:
    """Edges above each cut; the columns of `graphs.edge_labels` are what it takes.

    Args:
        scores: of the edges of a graph without padding.
        label: true edges of target particles.
        counted: False for true edges of other particles.
        all_true: how many true edges of targets there are, see `target_edges`.
        cuts: smallest scores that pass, rising.

    Raises:
        DataError: shapes differ, scores are not finite, cuts do not rise, or the labels
            contradict each other or `all_true`.
    """
    cut = np.asarray(cuts, np.float64)
    if not scores.shape == label.shape == counted.shape or scores.ndim != 1:
        shapes = f"have shapes {scores.shape}, {label.shape}, {counted.shape}"
        raise DataError("edges", shapes, "give one score and label per edge")
    if not np.isfinite(scores).all():
        raise DataError("edge scores", "are not finite", "check the network")
    if cut.ndim != 1 or not (np.isfinite(cut).all() and (np.diff(cut) > 0).all()):
        raise DataError("cuts", "do not rise", "give finite cuts in rising order")
    if (label & ~counted).any():
        raise DataError("edge labels", "hold target edges that do not count", "count them")
    in_graph = int(label.sum())
    if in_graph > all_true:
        what = f"hold {in_graph} target edges of {all_true}"
        raise DataError("edge labels", what, "give labels and true edges of one event and target")
    kind = np.where(label, 0, np.where(counted, 2, 1))
    passes = np.searchsorted(cut, scores, side="right")  # this many of the cuts
    table = np.bincount(kind * (len(cut) + 1) + passes, minlength=3 * (len(cut) + 1))
    above = table.reshape(3, -1)[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return EdgeCounts(cut, above[0], above[1], above[2], in_graph, int(all_true))


def add_edges(parts: Sequence[EdgeCounts]) -> EdgeCounts:
    """The sum over events.

    Raises:
        DataError: none is given, or their cuts differ.
    """
    if not parts or any(not np.array_equal(part.cut, parts[0].cut) for part in parts):
        raise DataError("edge counts", "cannot be added", "give at least one, with equal cuts")
    return EdgeCounts(parts[0].cut, *(sum(column) for column in list(zip(*parts, strict=True))[1:]))


def target_edges(collision: Collision, target: Target) -> int:
    """How many true edges the target particles of a collision have (`events.true_edges`)."""
    inner = events.true_edges(collision)[0]
    assert collision.particle is not None  # true_edges has refused it
    return int(events.targets(collision, target)[collision.particle[inner]].sum())


def edge_auc(
    scores: Float[np.ndarray, "m"], label: Bool[np.ndarray, "m"], counted: Bool[np.ndarray, "m"]
) -> float:
    """Area under the ROC of target edges against fakes; true edges of others are left out.

    Raises:
        DataError: see `physml.metrics.auc`.
    """
    return metrics.auc(scores[counted], label[counted])


def _some(name: str, total: int) -> int:
    if total <= 0:
        raise DataError(name, "is undefined: there are no target edges", "widen the target")
    return total


def _purity(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    passed = right + wrong
    return np.asarray(np.divide(right, passed, out=np.ones(len(right)), where=passed > 0))
