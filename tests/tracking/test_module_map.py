import numpy as np
import pytest

from physml.errors import DataError
from physml.io import hdf5
from physml.tracking import events, geometry, graphs, module_map
from physml.tracking.simulate import simulate

DETECTOR = geometry.trackml()


@pytest.fixture(scope="module")
def collisions():
    return [simulate((9, k), 30.0, DETECTOR) for k in range(7)]


@pytest.fixture(scope="module")
def learned(collisions):
    return module_map.learn(collisions[1:], DETECTOR)


def efficiency(graph, collision):
    inner, _ = events.true_edges(collision)
    own = events.targets(collision, events.Target())[collision.particle[inner]]
    return graphs.edge_labels(graph, collision).label.sum() / own.sum()


def test_a_map_learns_more_from_more_collisions(collisions, learned):
    few = module_map.learn(collisions[1:2], DETECTOR)
    assert few.collisions == 1 and learned.collisions == 6
    assert np.isin(few.key, learned.key).all() and len(few.key) < len(learned.key)
    build = [graphs.build_graph(collisions[0].hits, DETECTOR, module_map=m) for m in (few, learned)]
    assert len(build[0].senders) < len(build[1].senders)
    less, more = (efficiency(graph, collisions[0]) for graph in build)
    assert less < more and more > 0.85


def test_edges_lie_in_the_ranges_and_are_those_of_the_cuts(collisions, learned):
    hits = collisions[0].hits
    graph = graphs.build_graph(hits, DETECTOR, module_map=learned)
    plain = graphs.build_graph(hits, DETECTOR, learned.cuts)
    n = len(hits.layer)
    key, wide = (g.receivers.astype(np.int64) * n + g.senders for g in (graph, plain))
    assert np.isin(key, wide).all() and 0 < len(key) < len(wide)
    names = dict(zip(learned.key.tolist(), range(len(learned.key)), strict=True))
    w, z = hits.position[:, 0] + 1j * hits.position[:, 1], hits.position[:, 2]
    for a, b in zip(graph.senders[::37], graph.receivers[::37], strict=True):
        eta = np.arcsinh(z[a] / abs(w[a]))
        cell = (hits.layer[a] * 48 + hits.layer[b]) * 20 + int((eta + 5) * 2)
        low, high = learned.low[names[int(cell)]], learned.high[names[int(cell)]]
        dr = abs(w[b]) - abs(w[a])
        value = np.array([np.angle(w[b] / w[a]) / dr, z[a] - abs(w[a]) * (z[b] - z[a]) / dr])
        assert (value >= low - 1e-9).all() and (value <= high + 1e-9).all()


def test_a_map_comes_back_from_its_file(tmp_path, learned):
    for number, cuts in enumerate([learned.cuts, learned.cuts._replace(tolerance=None)]):
        path = tmp_path / f"{number}.h5"
        module_map.save(path, learned._replace(cuts=cuts))
        back = module_map.load(path)
        for ours, theirs in zip(back[:3], learned[:3], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert back[3:] == (*learned[3:6], cuts)


def test_bad_maps_are_refused(tmp_path, collisions, learned):
    with pytest.raises(DataError, match="is for 7 layers, the detector has 48"):
        module_map.edges(collisions[0].hits, DETECTOR, learned._replace(layers=7))
    with pytest.raises(DataError, match="no target particle left two hits"):
        module_map.learn([], DETECTOR)
    with pytest.raises(ValueError, match="without truth"):
        module_map.learn([collisions[0]._replace(particle=None)], DETECTOR)
    hdf5.write(tmp_path / "other.h5", {"key": np.arange(3)})
    with pytest.raises(DataError, match="is no module map, cuts, high, low"):
        module_map.load(tmp_path / "other.h5")
