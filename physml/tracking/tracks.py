"""From scored edges to tracks: components, junction removal, walk through the rest.

Edges point outward, so the graph has no cycle and the best path through every hit follows from
dynamic programming, level by level. The walk keeps the idea of GNN4ITk (arXiv 2103.06995 and its
successors): components that are simple paths are tracks at once; in the others paths are followed
along good edges, and along the best edge of a hit where none is good. Nothing here loops over
tracks: the loops are over levels (about 20) and over rounds of the walk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from physml.errors import ConfigError, DataError
from physml.tracking.events import Tracks

METHODS = ("components", "junctions", "walk")


class TrackCuts(NamedTuple):
    """How scores become tracks; scores are probabilities."""

    method: str = "walk"  # or "components" (join all), "junctions" (best edge in and out)
    edge: float = 0.05  # edges with a lower score do not exist
    walk: float = 0.1  # a walk follows all edges from here on ...
    least: float = 0.05  # ... and, from a hit without one, the best edge from here on
    twin: float = 0.3  # edges that make a second hit in a layer part of a track
    min_hits: int = 3  # shorter tracks are dropped


DEFAULT = TrackCuts()


class Edges(NamedTuple):
    """Edges that passed the cut, in order of sender, then receiver."""

    sender: Int64[np.ndarray, "e"]
    receiver: Int64[np.ndarray, "e"]
    score: Float64[np.ndarray, "e"]


def build_tracks(graph: Any, scores: Float[np.ndarray, "m"], cuts: TrackCuts = DEFAULT) -> Tracks:
    """Tracks of a graph whose edges have scores; each hit is in one track at most.

    The hits of one particle in one layer (overlapping modules) have no edge between them. One is
    on the path; the other joins the track when its edges lead to the path's hits before and after.

    Args:
        graph: anything with `nodes`, `senders` and `receivers`; row k of `nodes` is hit k.
        scores: probability of each edge, 0 to 1.
        cuts: see `TrackCuts`.

    Returns:
        Tracks, in the order of their lowest hit rows; their hits from the inside to the outside.

    Raises:
        ConfigError: an unknown method, or fewer than two hits asked for.
        DataError: scores that are no probabilities or not one for each edge; a node that does not
            exist; edges that form a cycle.
    """
    if cuts.method not in METHODS:
        raise ConfigError("method", f"{cuts.method} is not known", f"use {', '.join(METHODS)}")
    if cuts.min_hits < 2:
        raise ConfigError("min_hits", f"is {cuts.min_hits}", "give 2 or more")
    n = len(graph.nodes)
    edges = _passing(graph, scores, n, cuts.edge)
    level = _levels(edges, n)
    if cuts.method == "components":
        return _assemble(_components(edges, n), level, cuts.min_hits)
    if cuts.method == "junctions":
        following = _best_links(edges, n)
    else:
        following = _walk_through(edges, level, cuts)
    following = _long_enough(following, cuts.min_hits)
    twin, hit = _twins(edges, following, cuts.twin)
    # Twice the level leaves a place for a twin behind its hit.
    label, place = _ends(following), 2 * level
    label[twin], place[twin] = label[hit], place[hit] + 1
    return _assemble(label, place, cuts.min_hits)


def _passing(graph: Any, scores: Any, n: int, cut: float) -> Edges:
    """Edges with at least the score of the cut, once they are known to make sense."""
    sender, receiver = np.asarray(graph.senders), np.asarray(graph.receivers)
    score = np.asarray(scores)
    if score.shape != sender.shape:
        what = f"{score.shape} for {len(sender)} edges"
        raise DataError("scores", what, "give one number for each edge")
    if not (np.min(score, initial=0) >= 0 and np.max(score, initial=1) <= 1):
        raise DataError("scores", "are no probabilities", "give sigmoids of the logits, finite")
    kept = np.flatnonzero(score >= cut)
    sender, receiver = sender[kept].astype(np.int64), receiver[kept].astype(np.int64)
    ends = np.concatenate([sender, receiver])
    if ends.min(initial=0) < 0 or ends.max(initial=-1) >= n:
        raise DataError("graph", f"an edge names a node outside 0 to {n - 1}", "build it anew")
    order = np.argsort(sender * n + receiver)
    return Edges(sender[order], receiver[order], score[kept][order].astype(np.float64))


def _components(edges: Edges, n: int) -> Int64[np.ndarray, "n"]:
    """Label of the component of each node."""
    links = coo_array((np.ones(len(edges.sender), np.int8), edges[:2]), (n, n))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def _levels(edges: Edges, n: int) -> Int64[np.ndarray, "n"]:
    """Edges on the longest way from the inside to each node."""
    level, latest = np.zeros((2, n), np.int64)
    missing = np.bincount(edges.receiver, minlength=n)
    start = np.searchsorted(edges.sender, np.arange(n + 1))
    out = np.diff(start)
    front = np.flatnonzero((missing == 0) & (out > 0))
    seen = 0
    while len(front):
        count = out[front]
        first = np.repeat(start[front] - np.cumsum(count) + count, count)
        goal = edges.receiver[first + np.arange(len(first))]
        seen += len(goal)
        level[goal] = level[front[0]] + 1  # all of a front are of one level
        np.subtract.at(missing, goal, 1)
        goal = goal[missing[goal] == 0]
        latest[goal] = np.arange(len(goal))  # a node stands here once for each edge into it
        front = goal[latest[goal] == np.arange(len(goal))]
    if seen < len(edges.sender):
        raise DataError("graph", "its edges form a cycle", "let them point outward")
    return level


def _best_links(edges: Edges, n: int) -> Int64[np.ndarray, "n"]:
    """Node after each: joined by the best edge out of the one and into the other; -1 for none."""
    following = np.full(n, -1)
    best = _is_best(edges.sender, edges) & _is_best(edges.receiver, edges)
    following[edges.sender[best]] = edges.receiver[best]
    return following


def _is_best(node: np.ndarray, edges: Edges) -> Bool[np.ndarray, "e"]:
    """Whether an edge has the highest score of all with its node; the first of equal ones."""
    size = int(node.max(initial=-1)) + 1
    top, winner = np.zeros(size), np.full(size, -1)
    np.maximum.at(top, node, edges.score)
    place = np.flatnonzero(edges.score == top[node])[::-1]
    winner[node[place]] = place
    return np.asarray(winner[node] == np.arange(len(node)))


def _walk_through(edges: Edges, level: np.ndarray, cuts: TrackCuts) -> Int64[np.ndarray, "n"]:
    """Node after each on simple paths and on the best paths through what is left; -1 for none."""
    n = len(level)
    following = np.full(n, -1)
    out, into = (np.bincount(nodes, minlength=n) for nodes in edges[:2])
    label = _components(edges, n)
    branched = np.bincount(label, (out > 1) | (into > 1), minlength=n) > 0
    inside = branched[label[edges.sender]]
    following[edges.sender[~inside]] = edges.receiver[~inside]
    left = Edges(*(column[inside] for column in edges))
    good = left.score >= cuts.walk
    best = _is_best(left.sender, left) & (left.score >= cuts.least)
    left = Edges(*(column[good | best] for column in left))
    while len(left.sender):
        path = _undisputed(left, level)
        start = np.flatnonzero(path >= 0)
        if len(start) == 0:
            break
        following[start] = path[start]
        # Second hits in layers are kept from forming a path beside that of the first ones.
        twin, _ = _twins(left, _long_enough(path, cuts.min_hits), cuts.twin)
        done = np.zeros(n, bool)
        done[np.concatenate([start, path[start], twin])] = True
        free = ~done[left.sender] & ~done[left.receiver]
        left = Edges(*(column[free] for column in left))
    return following


def _undisputed(edges: Edges, level: np.ndarray) -> Int64[np.ndarray, "n"]:
    """Node after each on paths that no better one disputes; -1 for none.

    An edge is undisputed when it is on the best path outward from its sender and on the best path
    inward from its receiver. The best path of a component consists of such edges. Only where two
    paths are equal may none be complete: then the pieces are taken.
    """
    n = len(level)
    onward = _best_step(edges.sender, edges.receiver, edges.score, -level, n)
    back = _best_step(edges.receiver, edges.sender, edges.score, level, n)
    number = np.arange(len(edges.sender))
    link = np.flatnonzero((onward[edges.sender] == number) & (back[edges.receiver] == number))
    following, before = np.full((2, n), -1)
    following[edges.sender[link]] = edges.receiver[link]
    before[edges.receiver[link]] = edges.sender[link]
    disputed = ((onward >= 0) & (following < 0)) | ((back >= 0) & (before < 0))
    end = _ends(following)
    open_ended = np.bincount(end, disputed, minlength=n) > 0
    complete = np.where(open_ended[end], -1, following)
    return complete if (complete >= 0).any() else following


def _best_step(
    origin: np.ndarray, goal: np.ndarray, score: np.ndarray, rank: np.ndarray, n: int
) -> Int64[np.ndarray, "n"]:
    """First edge of the path from each node that has the highest sum of scores; -1 for none.

    `rank` falls along every path, so goals are finished before their origins.
    """
    order = np.argsort(((rank[origin] - rank.min()) * n + origin) * n + goal)
    origin, goal, score = origin[order], goal[order], score[order]
    first = np.flatnonzero(np.diff(origin, prepend=-1))
    turn = np.flatnonzero(np.diff(rank[origin[first]], prepend=rank.min() - 1))
    bounds = np.append(turn, len(first))
    ends = np.append(first, len(origin))
    gain, chosen = np.zeros(n), np.full(n, -1)
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        a, b = ends[low], ends[high]
        value = score[a:b] + gain[goal[a:b]]
        top = np.maximum.reduceat(value, first[low:high] - a)
        gain[origin[first[low:high]]] = top
        place = a + np.flatnonzero(value == np.repeat(top, np.diff(ends[low : high + 1])))
        place = place[::-1]  # of equal ones the first stays
        chosen[origin[place]] = order[place]
    return chosen


def _long_enough(following: np.ndarray, min_hits: int) -> Int64[np.ndarray, "n"]:
    """The same links without those of chains with too few nodes."""
    end = _ends(following)
    return np.where((np.bincount(end) < min_hits)[end], -1, following)


def _ends(following: np.ndarray) -> Int64[np.ndarray, "n"]:
    """Last node of the chain of each node."""
    end = np.where(following >= 0, following, np.arange(len(following)))
    while not np.array_equal(further := end[end], end):
        end = further
    return end


def _twins(edges: Edges, following: np.ndarray, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Free hits that stand for a hit of a track, and that hit.

    A twin's edges come from the hit before and lead to the hit after the one it stands for; at the
    end of a track one of them is enough. The best one is taken; each hit has one twin at most.
    """
    n = len(following)
    before = np.full(n, -1)
    chain = np.flatnonzero(following >= 0)
    before[following[chain]] = chain
    free = (following < 0) & (before < 0)
    good = edges.score >= cut
    out = np.flatnonzero(good & free[edges.receiver] & (following[edges.sender] >= 0))
    into = np.flatnonzero(good & free[edges.sender] & (before[edges.receiver] >= 0))
    twin = np.concatenate([edges.receiver[out], edges.sender[into]])
    hit = np.concatenate([following[edges.sender[out]], before[edges.receiver[into]]])
    score = np.concatenate([edges.score[out], edges.score[into]])
    pair, which = np.unique(twin * n + hit, return_inverse=True)
    count, total = np.bincount(which, minlength=len(pair)), np.bincount(which, score, len(pair))
    twin, hit = np.divmod(pair, max(n, 1))
    needed = np.where((before[hit] >= 0) & (following[hit] >= 0), 2, 1)
    kept = np.flatnonzero(count >= needed)
    kept = kept[np.argsort(-total[kept], kind="stable")]
    for column in (twin, hit):
        kept = kept[np.sort(np.unique(column[kept], return_index=True)[1])]
    return twin[kept], hit[kept]


def _assemble(label: np.ndarray, place: np.ndarray, min_hits: int) -> Tracks:
    """Tracks of the nodes that share a label, in the order of their places."""
    first = np.full(len(label), len(label))
    np.minimum.at(first, label, np.arange(len(label)))
    label = first[label]
    count = np.bincount(label)
    rows = np.flatnonzero(count[label] >= min_hits) if len(label) else label
    key = label[rows] * (int(place.max(initial=0)) + 1) + place[rows]
    rows = rows[np.argsort(key, kind="stable")]
    size = count[count >= min_hits]
    return Tracks(np.concatenate([[0], np.cumsum(size)]).astype(np.int64), rows)
