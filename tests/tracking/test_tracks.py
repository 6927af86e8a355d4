"""Tracks from scored edges: hand-made graphs, a slow reference, invariances, truth."""

from types import SimpleNamespace

import numpy as np
import pytest

from physml.errors import ConfigError, DataError
from physml.tracking.events import Collision, Hits, Particles, true_edges
from physml.tracking.tracks import METHODS, TrackCuts, build_tracks

EACH = pytest.mark.parametrize("method", METHODS)


def graph(n, edges):
    edges = np.array(edges, np.int32).reshape(-1, 2)
    return SimpleNamespace(nodes=np.zeros((n, 1)), senders=edges[:, 0], receivers=edges[:, 1])


def built(n, scored, cuts=TrackCuts()):  # noqa: B008
    """Tracks as lists; `scored` maps edges to scores."""
    tracks = build_tracks(graph(n, list(scored)), np.array(list(scored.values()), float), cuts)
    return as_lists(tracks)


def as_lists(tracks):
    ends = zip(tracks.offsets[:-1], tracks.offsets[1:], strict=True)
    return [tracks.hit[a:b].tolist() for a, b in ends]


def random_graph(seed, layers=8, wide=12, share=0.25, length=1):
    """Edges between layers, a few that skip one, and scores that all differ."""
    rng = np.random.default_rng(seed)
    node = np.arange(layers * wide).reshape(layers, wide)
    pairs = [
        (a, b)
        for low, high in [(k, k + 1) for k in range(layers - 1)] + [(1, 3), (4, 6)]
        for a in node[low]
        for b in node[high]
        if rng.random() < share / 3 * length
    ]
    return layers * wide, dict(zip(pairs, rng.random(len(pairs)), strict=True))


def reference(n, scored, cuts):
    """The obvious loops: components, simple paths, then the best path again and again."""
    edges = {e: s for e, s in scored.items() if s >= cuts.edge}
    left, tracks = set(range(n)), []
    neighbours = {k: set() for k in left}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    while left:
        component, todo = set(), [left.pop()]
        while todo:
            k = todo.pop()
            component.add(k)
            new = neighbours[k] & left
            left -= new
            todo += new
        tracks += one_component(
            component, {e: s for e, s in edges.items() if e[0] in component}, cuts
        )
    return sorted(t for t in tracks if len(t) >= cuts.min_hits)


def one_component(component, edges, cuts):
    if cuts.method == "components":
        level = {}
        for _ in component:
            for k in component:
                level[k] = max([level.get(a, 0) + 1 for a, b in edges if b == k], default=0)
        return [sorted(component, key=lambda k: (level[k], k))]
    out = [a for a, _ in edges]
    into = [b for _, b in edges]
    if max([out.count(k) for k in out], default=0) < 2 and len(set(into)) == len(into):
        return paths(edges)
    if cuts.method == "junctions":
        best = {
            e: s
            for e, s in edges.items()
            if s == max(edges[f] for f in edges if f[0] == e[0])
            and s == max(edges[f] for f in edges if f[1] == e[1])
        }
        return paths(best)
    kept = {
        (a, b): s
        for (a, b), s in edges.items()
        if s >= cuts.walk or (s >= cuts.least and s == max(edges[f] for f in edges if f[0] == a))
    }
    found = []
    while kept:
        path = best_path(kept)
        found.append(path)
        kept = {e: s for e, s in kept.items() if not set(e) & set(path)}
    return found


def paths(edges):
    """Of edges that neither branch nor merge."""
    following = dict(edges)
    found = []
    for start in {a for a, _ in following} - {b for _, b in following}:
        path = [start]
        while path[-1] in dict(list(following)):
            path.append(dict(list(following))[path[-1]])
        found.append(path)
    return found


def best_path(edges):
    """The path with the highest sum of scores, by recursion."""

    def onward(k):
        ways = [(s + onward(b)[0], b) for (a, b), s in edges.items() if a == k]
        return max(ways, default=(0.0, None))

    start = max({a for a, _ in edges}, key=lambda k: onward(k)[0])
    path = [start]
    while (step := onward(path[-1])[1]) is not None:
        path.append(step)
    return path


@EACH
def test_a_simple_path(method):
    scored = {(2, 5): 0.9, (5, 1): 0.7, (1, 3): 0.95}
    assert built(6, scored, TrackCuts(method)) == [[2, 5, 1, 3]]


def test_a_branch_goes_to_the_better_path():
    scored = {(0, 1): 0.9, (1, 2): 0.9, (2, 3): 0.9, (1, 4): 0.8, (4, 5): 0.95}
    assert built(6, scored) == [[0, 1, 2, 3]]
    scored[4, 5] = scored[5, 6] = 0.99  # longer, though its first edge is worse
    assert built(7, scored) == [[0, 1, 4, 5, 6]]
    short = TrackCuts(min_hits=2)
    assert built(7, scored, short) == [[0, 1, 4, 5, 6], [2, 3]]
    assert built(7, scored, short._replace(method="junctions")) == [[0, 1, 2, 3], [4, 5, 6]]


def test_two_tracks_that_touch_are_parted():
    first, second = [0, 2, 4, 6, 8], [1, 3, 5, 7, 9]
    scored = {e: 0.9 for t in (first, second) for e in zip(t, t[1:], strict=False)}
    scored[4, 7] = 0.7
    assert built(10, scored) == [first, second]
    assert built(10, scored, TrackCuts("junctions")) == [first, second]
    assert len(built(10, scored, TrackCuts("components"))) == 1


def test_tracks_that_merge():
    scored = {(0, 1): 0.9, (1, 2): 0.9, (2, 3): 0.9, (4, 5): 0.9, (5, 6): 0.8, (6, 2): 0.65}
    assert built(7, scored) == [[4, 5, 6, 2, 3]]
    scored[6, 2] = 0.15  # under both cuts of the walk
    assert built(7, scored, TrackCuts(edge=0.1, walk=0.6, least=0.2)) == [[0, 1, 2, 3], [4, 5, 6]]


def test_an_edge_that_skips_a_layer_does_not_leave_out_its_hit():
    scored = {(0, 1): 0.8, (1, 2): 0.8, (0, 2): 0.95, (2, 3): 0.9}
    assert built(4, scored) == [[0, 1, 2, 3]]
    assert built(4, {(0, 2): 0.95, (2, 3): 0.9}) == [[0, 2, 3]]


def test_second_hits_in_a_layer_join_their_track():
    middle = {(0, 1): 0.9, (0, 2): 0.8, (1, 3): 0.9, (2, 3): 0.8, (3, 4): 0.9}
    assert built(5, middle) == [[0, 1, 2, 3, 4]]
    ends = {(0, 2): 0.9, (1, 2): 0.8, (2, 3): 0.9, (3, 4): 0.9, (3, 5): 0.8}
    assert built(6, ends) == [[0, 1, 2, 3, 4, 5]] or built(6, ends) == [[0, 1, 2, 3, 4, 5]]
    poor = middle | {(2, 3): 0.25}  # another particle's hit may have one good edge
    assert built(5, poor) == [[0, 1, 3, 4]]
    assert built(5, middle, TrackCuts(twin=1.0)) == [[0, 1, 3, 4]]


def test_a_second_hit_joins_one_track_only():
    tracks = ([0, 1, 2, 3], [4, 5, 6, 7])
    scored = {e: 0.95 for t in tracks for e in zip(t, t[1:], strict=False)}
    scored |= {(0, 8): 0.7, (8, 2): 0.7, (4, 8): 0.8, (8, 6): 0.8}
    assert built(9, scored) == [[0, 1, 2, 3], [4, 5, 8, 6, 7]]


@EACH
def test_a_ring_of_equal_scores_ends(method):
    scored = dict.fromkeys([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6)], 0.9)
    found = built(7, scored, TrackCuts(method))
    assert len(found) == 1 and len(set(found[0])) == len(found[0]) >= 5
    # Equal paths of which those from the inside and those from the outside prefer others.
    crossed = dict.fromkeys([(0, 1), (0, 2), (1, 4), (2, 3), (4, 5), (3, 5)], 0.9)
    found = built(6, crossed, TrackCuts(method, twin=1.0))
    assert found and {0, 5} & set(sum(found, []))


@EACH
def test_nothing_to_build(method):
    assert built(5, {}, TrackCuts(method)) == []
    assert built(0, {}, TrackCuts(method)) == []
    assert built(4, {(0, 1): 0.04, (1, 2): 0.0, (2, 3): 0.03}, TrackCuts(method)) == []
    assert built(4, {(0, 1): 0.9, (2, 3): 0.9}, TrackCuts(method)) == []


@pytest.mark.parametrize("length", [0.5, 1, 2])
@EACH
def test_against_obvious_loops(method, length):
    for seed in range(6):
        n, scored = random_graph(seed, length=length)
        cuts = TrackCuts(method, edge=0.1, walk=0.6, least=0.2, twin=1.1)
        ours = built(n, scored, cuts)
        assert sorted(ours) == reference(n, scored, cuts), seed
        assert [min(t) for t in ours] == sorted(min(t) for t in ours)


@EACH
def test_order_of_edges_and_hits_does_not_matter(method):
    n, scored = random_graph(3, length=2)
    cuts = TrackCuts(method)
    expected = {frozenset(t) for t in built(n, scored, cuts)}
    rng = np.random.default_rng(0)
    for _ in range(5):
        new = rng.permutation(n)
        items = [((new[a], new[b]), s) for (a, b), s in scored.items()]
        rng.shuffle(items)
        tracks = built(n, dict(items), cuts)
        back = np.argsort(new)
        assert {frozenset(back[t].tolist()) for t in tracks} == expected


@EACH
def test_each_hit_once_along_its_edges(method):
    for seed in range(5):
        n, scored = random_graph(seed, layers=10, wide=30, length=1)
        for twin in (0.3, 1.1):
            tracks = built(n, scored, TrackCuts(method, twin=twin, min_hits=4))
            hits = sum(tracks, [])
            assert len(hits) == len(set(hits)) and min(map(len, tracks), default=4) >= 4
        if method != "components":
            assert all(e in scored for t in tracks for e in zip(t, t[1:], strict=False))


def collision(seed=0, particles=40, layers=9):
    """Straight tracks from the origin, some with two hits in a layer, some with a layer missed."""
    rng = np.random.default_rng(seed)
    rows, layer, own = [], [], []
    for p in range(particles):
        phi, cot = rng.uniform(-3, 3), rng.normal()
        for k in range(layers):
            for copy in range(rng.choice([0, 1, 2], p=[0.05, 0.8, 0.15])):
                r = 30.0 * (k + 1) + 0.5 * copy
                rows.append([r * np.cos(phi), r * np.sin(phi), r * cot])
                layer.append(k)
                own.append(p)
    order = rng.permutation(len(rows))
    n = len(rows)
    hits = Hits(
        np.array(rows)[order], np.array(layer, np.int32)[order], np.zeros(n, np.int32), np.arange(n)
    )
    zeros = np.zeros((particles, 3))
    truth = Particles(
        np.arange(particles) + 1, np.full(particles, 211), np.ones(particles), zeros, zeros + 1
    )
    return Collision(0, hits, truth, np.array(own, np.int32)[order])


@EACH
def test_perfect_scores_give_all_particles(method):
    event = collision()
    true = true_edges(event).T
    rng = np.random.default_rng(1)
    layer = event.hits.layer
    wrong = rng.integers(0, len(layer), (3000, 2))
    wrong = wrong[layer[wrong[:, 0]] < layer[wrong[:, 1]]]
    true_set = set(map(tuple, true.tolist()))
    wrong = np.array([e for e in set(map(tuple, wrong.tolist())) if e not in true_set])
    scores = np.concatenate([np.ones(len(true)), np.zeros(len(wrong))])
    edges = np.concatenate([true, wrong])
    tracks = as_lists(build_tracks(graph(len(layer), edges), scores, TrackCuts(method)))
    found = {int(event.particle[t[0]]): t for t in tracks}
    sizes = np.bincount(event.particle)
    for p, size in enumerate(sizes):
        assert (event.particle[found[p]] == p).all()
        assert (np.diff(layer[found[p]]) >= 0).all()
        if method == "components":
            assert len(found[p]) == size
        else:  # where a layer has two hits and so has the next, one twin may find no place
            assert len(found[p]) > 0.5 * size
    if method == "walk":
        assert sum(map(len, found.values())) >= 0.95 * sizes.sum()
    assert len(tracks) == len(sizes)


def test_bad_input_is_refused():
    line = graph(4, [(0, 1), (1, 2), (2, 3)])
    with pytest.raises(ConfigError, match="method: kalman"):
        build_tracks(line, np.ones(3), TrackCuts("kalman"))
    with pytest.raises(ConfigError, match="min_hits"):
        build_tracks(line, np.ones(3), TrackCuts(min_hits=1))
    with pytest.raises(DataError, match="for 3 edges"):
        build_tracks(line, np.ones(4))
    for wrong in (np.array([0.5, np.nan, 0.5]), np.array([0.5, 3.0, 0.5]), np.array([-1.0, 1, 1])):
        with pytest.raises(DataError, match="no probabilities"):
            build_tracks(line, wrong)
    with pytest.raises(DataError, match="outside 0 to 3"):
        build_tracks(graph(4, [(0, 1), (1, 4)]), np.ones(2))
    with pytest.raises(DataError, match="cycle"):
        build_tracks(graph(4, [(0, 1), (1, 2), (2, 1)]), np.ones(3))
