"""Graphs of hits: nodes with features, edges from inner to outer hits, labels, padding.

Node k is row k of the hits. Edges are sorted by receiver, then sender, and none is there twice.
No feature changes when the collision is turned about the beam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jraph
import numpy as np
from jaxtyping import Bool, Float32, Int64

from physml.errors import DataError
from physml.tracking import events, pairs
from physml.tracking import module_map as module_maps
from physml.tracking.events import Collision, Hits, Target
from physml.tracking.geometry import Detector
from physml.tracking.module_map import ModuleMap
from physml.tracking.pairs import Cuts

MAX_EDGES = 3_000_000
"""More are refused, for a training step of so large a graph does not fit into 32 GB."""

NODE_FEATURES = {
    "r": 1000.0,  # mm
    "z": 1000.0,  # mm
    "eta": 2.0,  # of the line from the origin to the hit
    "barrel": 1.0,  # 1 on a barrel, 0 on a disk
    "length": 1.0,  # log10 of the length of its pixel or strip in mm
}
"""Name -> what its value, in the unit named beside it, is divided by."""

EDGE_FEATURES = {
    "dr": 100.0,  # mm, receiver less sender, as all differences
    "dphi": 0.03,  # rad, between -pi and pi
    "dz": 300.0,  # mm
    "deta": 0.1,
    "phislope": 3e-4,  # dphi / dr in rad/mm; 0 where dr is 0
    "rphislope": 0.1,  # phislope times the mean of the two radii, rad
}
"""Name -> what its value is divided by; named as the six of GNN4ITk (acorn, `CTD_2023`)."""


class EdgeLabels(NamedTuple):
    """Truth of m edges."""

    label: Bool[np.ndarray, "m"]  # joins hits that follow each other on a target particle
    counted: Bool[np.ndarray, "m"]  # False: true, but of a particle that is no target


def build_graph(
    hits: Hits,
    detector: Detector,
    cuts: Cuts = Cuts(),  # noqa: B008
    *,
    module_map: ModuleMap | None = None,
    max_edges: int = MAX_EDGES,
    threads: int = 2,
) -> jraph.GraphsTuple:
    """Graph of one collision: nodes (n, 5) and edges (m, 6) float32, from inner to outer hits.

    Without hits, or with one, the graph has no edges.

    Args:
        hits: of one collision.
        detector: whose layers the hits name.
        cuts: see `pairs.Cuts`.
        module_map: learned ranges, which stand in place of `cuts`.
        max_edges: refuse larger graphs.
        threads: that search pairs of layers.

    Raises:
        DataError: see `pairs.check`; more than `max_edges` edges.
    """
    pairs.check(hits, detector)
    if module_map is None:
        senders, receivers = pairs.edges(hits, detector, cuts, threads)
    else:
        senders, receivers = module_maps.edges(hits, detector, module_map, threads)
    if len(senders) > max_edges:
        what = f"{len(hits.layer)} hits give {len(senders)} edges, over the limit of {max_edges}"
        raise DataError("graph", what, "tighten the cuts, or raise --max-edges")
    return jraph.GraphsTuple(
        nodes=_node_features(hits, detector),
        edges=_edge_features(hits, senders, receivers),
        senders=senders.astype(np.int32),
        receivers=receivers.astype(np.int32),
        n_node=np.array([len(hits.layer)], np.int32),
        n_edge=np.array([len(senders)], np.int32),
        globals=None,
    )


def _node_features(hits: Hits, detector: Detector) -> Float32[np.ndarray, "n f"]:
    r, z = np.hypot(hits.position[:, 0], hits.position[:, 1]), hits.position[:, 2]
    barrel, length = detector.barrel[hits.layer], np.log10(detector.pitch_v)[hits.layer]
    return _scaled(NODE_FEATURES, r, z, np.arcsinh(z / r), barrel, length)


def _edge_features(
    hits: Hits, senders: Int64[np.ndarray, "m"], receivers: Int64[np.ndarray, "m"]
) -> Float32[np.ndarray, "m d"]:
    x, y, z = hits.position.T
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    eta = np.arcsinh(z / r)
    dr, dz, deta = (v[receivers] - v[senders] for v in (r, z, eta))
    dphi = phi[receivers] - phi[senders]
    dphi -= 2 * np.pi * np.round(dphi / (2 * np.pi))
    slope = np.divide(dphi, dr, out=np.zeros_like(dr), where=dr != 0)
    mean = (r[receivers] + r[senders]) / 2
    return _scaled(EDGE_FEATURES, dr, dphi, dz, deta, slope, slope * mean)


def _scaled(scales: dict[str, float], *columns: np.ndarray) -> Float32[np.ndarray, "n f"]:
    table = np.empty((len(columns[0]), len(scales)), np.float32)
    for k, (scale, column) in enumerate(zip(scales.values(), columns, strict=True)):
        table[:, k] = column / scale
    return table


def edge_labels(
    graph: jraph.GraphsTuple, collision: Collision, target: Target = Target()  # noqa: B008
) -> EdgeLabels:  # fmt: skip
    """Which edges join consecutive hits of a particle (see `events.true_edges`).

    Raises:
        DataError: the graph has not one node for each hit of the collision.
        ValueError: the collision has no truth.
    """
    n = len(collision.hits.layer)
    if int(graph.n_node.sum()) != n:
        what = f"has {int(graph.n_node.sum())} nodes for {n} hits"
        raise DataError("graph", what, "build it from the hits of this collision")
    inner, outer = events.true_edges(collision)
    own = events.targets(collision, target)[np.asarray(collision.particle)[inner]]
    key = graph.receivers.astype(np.int64) * n + graph.senders
    label = np.isin(key, (outer * n + inner)[own])
    return EdgeLabels(label, label | ~np.isin(key, (outer * n + inner)[~own]))


def pad(graph: jraph.GraphsTuple, n_node: int, n_edge: int) -> jraph.GraphsTuple:
    """A graph with a second one of padding, so that it has the given sizes.

    Padded edges join padded nodes, as many to each as may be, and receivers stay sorted.

    Raises:
        DataError: the sizes are too small; a padded edge needs a padded node.
    """
    n, m = len(graph.nodes), len(graph.senders)
    more, longer = n_node - n, n_edge - m
    if more < 0 or longer < 0 or (longer and not more):
        what = f"{n} nodes and {m} edges do not fit into {n_node} and {n_edge}"
        raise DataError("padding", what, f"give at least {n + 1} nodes and {m} edges")
    filler = n + np.arange(longer) * more // max(longer, 1)
    return graph._replace(
        nodes=np.pad(graph.nodes, [(0, more), (0, 0)]),
        edges=np.pad(graph.edges, [(0, longer), (0, 0)]),
        senders=np.concatenate([graph.senders, filler]).astype(np.int32),
        receivers=np.concatenate([graph.receivers, filler]).astype(np.int32),
        n_node=np.append(graph.n_node, more).astype(np.int32),
        n_edge=np.append(graph.n_edge, longer).astype(np.int32),
    )


def part(
    graph: jraph.GraphsTuple, kept: Bool[np.ndarray, "n"]
) -> tuple[jraph.GraphsTuple, Bool[np.ndarray, "m"]]:
    """The graph of some nodes and of the edges between them, and which edges those are.

    Raises:
        DataError: the mask is not one of its nodes.
    """
    if kept.shape != (len(graph.nodes),):
        what = f"has shape {kept.shape}, the graph {len(graph.nodes)} nodes"
        raise DataError("mask", what, "give one truth value per node")
    number = np.cumsum(kept) - 1
    edges = kept[graph.senders] & kept[graph.receivers]
    inside = graph._replace(
        nodes=graph.nodes[kept], edges=graph.edges[edges],
        senders=number[graph.senders[edges]].astype(np.int32),
        receivers=number[graph.receivers[edges]].astype(np.int32),
        n_node=np.array([kept.sum()]), n_edge=np.array([edges.sum()]),
    )  # fmt: skip
    return inside, edges


def bucket(count: int) -> int:
    """Smallest size of the ladder 1024, 1152, 1280, ... (8 per doubling) that holds `count`.

    Graphs padded to such sizes are compiled for a few times only; at most an eighth is padding.
    """
    unit = 1 << max(int(count - 1).bit_length() - 4, 0)
    return max(-(-count // unit) * unit, 1024)


def stack(
    graphs: Sequence[jraph.GraphsTuple],
    labels: Sequence[EdgeLabels],
    n_node: int | None = None,
    n_edge: int | None = None,
) -> dict[str, np.ndarray]:
    """Rows of a training set: g graphs, padded to one size.

    Returns:
        nodes (g, N, F), edges (g, M, D), senders, receivers (g, M) int32; label (g, M) float32;
        weight (g, M) float32: 0 on padding and on edges that are not counted, else 1.

    Raises:
        DataError: no graphs; labels of others; sizes too small for them.
    """
    if not graphs:
        raise DataError("graphs", "are none", "give at least one")
    n_node = n_node or bucket(1 + max(len(graph.nodes) for graph in graphs))
    n_edge = n_edge or bucket(max(len(graph.senders) for graph in graphs))
    for graph, truth in zip(graphs, labels, strict=True):
        if len(truth.label) != len(graph.senders):
            what = f"a graph has {len(graph.senders)} edges but {len(truth.label)} labels"
            raise DataError("labels", what, "give those of the same graph")
    batch: dict[str, np.ndarray] = {}
    for k, (graph, truth) in enumerate(zip(graphs, labels, strict=True)):
        for name, column in _row(graph, truth, n_node, n_edge).items():
            if k == 0:  # filled one by one: there is no room for large graphs twice
                batch[name] = np.empty((len(graphs), *column.shape), column.dtype)
            batch[name][k] = column
    return batch


def _row(
    graph: jraph.GraphsTuple, truth: EdgeLabels, n_node: int, n_edge: int
) -> dict[str, np.ndarray]:
    row = pad(graph, n_node, n_edge)
    found = {name: getattr(row, name) for name in ("nodes", "edges", "senders", "receivers")}
    for name, column in ("label", truth.label), ("weight", truth.counted):
        found[name] = np.pad(column.astype(np.float32), (0, n_edge - len(column)))
    return found
