import jax
import jraph
import numpy as np
import pytest

from physml.errors import DataError
from physml.tracking import events, geometry, graphs
from physml.tracking.events import Collision, Hits, Particles, Target
from physml.tracking.graphs import EDGE_FEATURES, NODE_FEATURES, EdgeLabels
from physml.tracking.nets import Graph, InteractionNetwork
from physml.tracking.objective import score
from physml.tracking.pairs import Cuts
from physml.tracking.simulate import simulate

DETECTOR = geometry.trackml()


@pytest.fixture(scope="module")
def collision():
    return simulate((3, 1), 10.0, DETECTOR)


@pytest.fixture(scope="module")
def graph(collision):
    return graphs.build_graph(collision.hits, DETECTOR)


def test_the_graph_has_the_agreed_form(graph, collision):
    n, m = len(collision.hits.layer), len(graph.senders)
    assert isinstance(graph, jraph.GraphsTuple) and m > 1000
    assert graph.nodes.shape == (n, len(NODE_FEATURES))
    assert graph.edges.shape == (m, len(EDGE_FEATURES))
    assert graph.nodes.dtype == graph.edges.dtype == np.float32
    assert graph.senders.dtype == graph.receivers.dtype == np.int32
    assert graph.n_node.tolist() == [n] and graph.n_edge.tolist() == [m]
    for ends in graph.senders, graph.receivers:
        assert ends.min() >= 0 and ends.max() < n
    key = graph.receivers.astype(np.int64) * n + graph.senders
    assert (np.diff(key) > 0).all()  # sorted, and none twice


def test_features_are_what_their_names_say(graph, collision):
    position = collision.hits.position
    w, z = position[:, 0] + 1j * position[:, 1], position[:, 2]
    a, b = graph.senders, graph.receivers
    theta = np.arctan2(np.abs(w), z)
    eta = -np.log(np.tan(theta / 2))
    dphi, dr = np.angle(w[b] / w[a]), np.abs(w[b]) - np.abs(w[a])
    mean = (np.abs(w[a]) + np.abs(w[b])) / 2
    expected = (dr, dphi, z[b] - z[a], eta[b] - eta[a], dphi / dr, mean * dphi / dr)
    for column, value, scale in zip(graph.edges.T, expected, EDGE_FEATURES.values(), strict=True):
        np.testing.assert_allclose(column * scale, value, rtol=1e-5, atol=1e-6 * scale)
    barrel = DETECTOR.barrel[collision.hits.layer]
    length = np.log10(DETECTOR.pitch_v)[collision.hits.layer]
    expected = (np.abs(w), z, eta, barrel, length)
    for column, value, scale in zip(graph.nodes.T, expected, NODE_FEATURES.values(), strict=True):
        np.testing.assert_allclose(column * scale, value, rtol=1e-6, atol=1e-6)


def test_features_are_finite_and_of_order_one(graph):
    for table in graph.nodes, graph.edges:
        assert np.isfinite(table).all()
        spread = table.std(axis=0)
        assert (spread > 0.05).all() and (spread < 10).all()


@pytest.mark.parametrize("angle", [0.4, 2.0, -3.0])
def test_a_rotation_changes_nothing(graph, collision, angle):
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])  # fmt: skip
    hits = collision.hits._replace(position=collision.hits.position @ turn.T)
    other = graphs.build_graph(hits, DETECTOR)
    np.testing.assert_array_equal(other.senders, graph.senders)
    np.testing.assert_array_equal(other.receivers, graph.receivers)
    np.testing.assert_allclose(other.nodes, graph.nodes, atol=1e-6)
    np.testing.assert_allclose(other.edges, graph.edges, atol=1e-6)


def test_the_order_of_hits_only_renames_nodes(graph, collision):
    order = np.random.default_rng(1).permutation(len(graph.nodes))
    mixed = graphs.build_graph(Hits(*(column[order] for column in collision.hits)), DETECTOR)
    np.testing.assert_array_equal(mixed.nodes, graph.nodes[order])
    back = np.lexsort([order[mixed.senders], order[mixed.receivers]])
    np.testing.assert_array_equal(order[mixed.senders][back], graph.senders)
    np.testing.assert_array_equal(mixed.edges[back], graph.edges)


@pytest.mark.usefixtures("quick_compilation")
def test_scores_know_nothing_of_phi_order_or_padding(graph, collision):
    """From hits to scores, all three at once."""
    network, rng = InteractionNetwork(width=8, steps=2), np.random.default_rng(7)
    like = Graph(graph.nodes, graph.edges, graph.senders, graph.receivers)
    shapes = jax.eval_shape(network.init, jax.random.PRNGKey(0), like)["params"]
    draw = lambda leaf: (0.4 * rng.normal(size=leaf.shape)).astype(np.float32)
    params = jax.tree.map(draw, shapes)
    expected = score(network, params, graph)
    assert expected.std() > 0.02
    phi, order = rng.uniform(-np.pi, np.pi), rng.permutation(len(graph.nodes))
    turn = np.array([[np.cos(phi), -np.sin(phi), 0], [np.sin(phi), np.cos(phi), 0], [0, 0, 1]])
    hits = collision.hits._replace(position=collision.hits.position @ turn.T)
    other = graphs.build_graph(Hits(*(column[order] for column in hits)), DETECTOR)
    n, m = len(other.nodes), len(other.senders)
    padded = graphs.pad(other, n + 100, graphs.bucket(m) + 1)
    found = score(network, params, padded)[:m]
    back = np.lexsort([order[other.senders], order[other.receivers]])
    np.testing.assert_array_equal(order[other.senders][back], graph.senders)
    np.testing.assert_allclose(found[back], expected, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_few_hits_make_graphs_without_edges(collision, n):
    some = Hits(*(column[:n] for column in collision.hits))
    graph = graphs.build_graph(some, DETECTOR)
    assert graph.nodes.shape == (n, 5) and graph.edges.shape == (0, 6)
    padded = graphs.pad(graph, 8, 16)
    assert padded.receivers.tolist() == sorted(padded.receivers.tolist())
    assert padded.receivers.min() >= n and padded.receivers.max() < 8


def test_a_graph_over_the_limit_is_refused(collision, graph):
    m, n = len(graph.senders), len(graph.nodes)
    graphs.build_graph(collision.hits, DETECTOR, max_edges=m)
    with pytest.raises(DataError, match=f"{n} hits give {m} edges.*--max-edges"):
        graphs.build_graph(collision.hits, DETECTOR, max_edges=m - 1)


def made_by_hand():
    """Particle 0: 2 GeV, layers 1, 2, 2 (overlap), 4 of the pixel barrel; 1: too slow; noise."""
    pixel = np.flatnonzero(DETECTOR.volume == 8)
    layer = pixel[[0, 1, 1, 3, 0, 1, 2, 2]].astype(np.int32)
    r = DETECTOR.place[layer] + np.array([0, 0, 1.0, 0, 0, 0, 0, 0])
    phi = np.array([0.0, 0, 0, 0, 0.001, 0.001, 0.001, 0.0005])
    position = np.stack([r * np.cos(phi), r * np.sin(phi), 0 * r], axis=1)
    n = len(layer)
    hits = Hits(position, layer, np.full(n, -1, np.int32), np.arange(n))
    particles = Particles(
        np.array([7, 8]), np.array([211, 211], np.int32), np.array([1, 1], np.int8),
        np.zeros((2, 3)), np.array([[2.0, 0, 0], [0.9, 0, 0]]),
    )  # fmt: skip
    return Collision(0, hits, particles, np.array([0, 0, 0, 0, 1, 1, 1, -1], np.int32))


def test_labels_of_a_collision_made_by_hand():
    collision = made_by_hand()
    graph = graphs.build_graph(collision.hits, DETECTOR)
    labels = graphs.edge_labels(graph, collision)
    ends = list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))
    true = {ends[k] for k in np.flatnonzero(labels.label)}
    assert true == {(0, 1), (0, 2), (1, 3), (2, 3)}  # a skip, an overlap; not 0 to 3
    left_out = {ends[k] for k in np.flatnonzero(~labels.counted)}
    assert left_out == {(4, 5), (5, 6)}
    assert (4, 6) in ends and (0, 5) in ends  # wrong, and counted
    everything = graphs.edge_labels(graph, collision, Target(min_pt=0.5))
    assert everything.counted.all() and everything.label.sum() == 6
    with pytest.raises(DataError, match="8 nodes for 3 hits"):
        some = events.select(collision, np.arange(8) < 3)
        graphs.edge_labels(graph, some)


def test_padding_keeps_the_graph_and_its_order(graph):
    n, m = len(graph.nodes), len(graph.senders)
    padded = graphs.pad(graph, n + 10, m + 25)
    np.testing.assert_array_equal(padded.nodes[:n], graph.nodes)
    np.testing.assert_array_equal(padded.edges[:m], graph.edges)
    np.testing.assert_array_equal(padded.senders[:m], graph.senders)
    for ends in padded.senders, padded.receivers:
        assert ends[m:].min() >= n and np.bincount(ends[m:] - n).max() == 3
        assert ends.dtype == np.int32
    assert (np.diff(padded.receivers) >= 0).all()
    assert padded.n_node.tolist() == [n, 10] and padded.n_edge.tolist() == [m, 25]
    assert jraph.get_number_of_padding_with_graphs_edges(padded) == 25
    again = graphs.pad(graph, n, m)
    np.testing.assert_array_equal(again.receivers, graph.receivers)
    for sizes in ((n - 1, m), (n, m - 1), (n, m + 1)):
        with pytest.raises(DataError, match="do not fit into"):
            graphs.pad(graph, *sizes)


def test_buckets_are_few_and_hold_what_they_must():
    counts = np.arange(1, 100_000, 7)
    sizes = np.array([graphs.bucket(int(count)) for count in counts])
    assert (sizes >= counts).all() and (sizes <= np.maximum(1.125 * counts, 1024)).all()
    assert len(np.unique(sizes)) == 1 + 8 * 6 + 5  # to 1024, six doublings, and on to 106,496
    assert [graphs.bucket(count) for count in (1, 1024, 1025, 2048, 2049)] == [
        1024, 1024, 1152, 2048, 2304
    ]  # fmt: skip


def test_stacked_rows_hold_graphs_and_weights(graph, collision):
    small = graphs.build_graph(collision.hits, DETECTOR, Cuts(skips=0, max_z0=20.0))
    both = [graph, small]
    labels = [graphs.edge_labels(one, collision) for one in both]
    batch = graphs.stack(both, labels)
    size = graphs.bucket(len(graph.senders))
    assert batch["edges"].shape == (2, size, 6) and batch["weight"].dtype == np.float32
    for row, (one, truth) in enumerate(zip(both, labels, strict=True)):
        m = len(one.senders)
        padded = graphs.pad(one, batch["nodes"].shape[1], size)
        for name in ("nodes", "edges", "senders", "receivers"):
            np.testing.assert_array_equal(batch[name][row], getattr(padded, name))
        np.testing.assert_array_equal(batch["label"][row, :m], truth.label)
        np.testing.assert_array_equal(batch["weight"][row, :m], truth.counted)
        assert not batch["weight"][row, m:].any() and not batch["label"][row, m:].any()
    with pytest.raises(DataError, match="are none"):
        graphs.stack([], [])
    with pytest.raises(DataError, match="edges but 3 labels"):
        graphs.stack([graph], [EdgeLabels(*(column[:3] for column in labels[0]))])


def test_bad_hits_are_refused(collision):
    hits = collision.hits
    with pytest.raises(DataError, match="millimetres"):
        graphs.build_graph(hits._replace(position=hits.position / 1000), DETECTOR)
