import numpy as np
import pytest

from physml.tracking.events import (
    Collision,
    Hits,
    Particles,
    Target,
    eta,
    pt,
    select,
    targets,
    tracks_of,
    true_edges,
)


def particles(*rows):
    """(pdg, charge, vertex, momentum) of each."""
    pdg, charge, vertex, momentum = zip(*rows, strict=True)
    return Particles(
        np.arange(1, len(rows) + 1) * 10,
        np.array(pdg, np.int32),
        np.array(charge, np.int8),
        np.array(vertex, float),
        np.array(momentum, float),
    )


def collision(table, hits):
    """Hits are (x, layer, particle row), all at y = z = 0."""
    x, layer, particle = (np.array(column) for column in zip(*hits, strict=True))
    position = np.stack([x, np.zeros(len(x)), np.zeros(len(x))], axis=1).astype(float)
    made = Hits(position, layer.astype(np.int32), np.zeros(len(x), np.int32), np.arange(len(x)))
    return Collision(0, made, table, particle.astype(np.int32))


ORIGIN = (0.0, 0.0, 0.0)
PION = (211, 1, ORIGIN, (2.0, 0.0, 1.0))


def edges(of):
    return {tuple(pair) for pair in true_edges(of).T.tolist()}


def test_hits_follow_each_other_by_distance_and_not_by_row():
    made = collision(particles(PION, PION), [(70, 1, 0), (30, 0, 0), (30, 0, 1), (110, 2, 0)])
    assert edges(made) == {(1, 0), (0, 3)}


def test_a_skipped_layer_is_bridged_and_noise_is_joined_to_nothing():
    made = collision(particles(PION), [(30, 0, 0), (70, 1, -1), (110, 2, 0)])
    assert edges(made) == {(0, 2)}


def test_hits_in_one_layer_stand_for_each_other():
    made = collision(particles(PION), [(30, 0, 0), (70, 1, 0), (71, 1, 0), (110, 2, 0)])
    assert edges(made) == {(0, 1), (0, 2), (1, 3), (2, 3)}


def test_distance_counts_from_the_vertex():
    displaced = (211, 1, (200.0, 0.0, 0.0), (-2.0, 0.0, 0.0))
    made = collision(particles(displaced), [(30, 0, 0), (110, 2, 0), (70, 1, 0)])
    assert edges(made) == {(1, 2), (2, 0)}


def test_true_edges_of_nothing():
    made = collision(particles(PION), [(30, 0, -1), (70, 1, -1)])
    assert true_edges(made).shape == (2, 0)


def test_true_edges_of_random_collisions_agree_with_loops():
    random = np.random.default_rng(3)
    n, layers = 300, 6
    layer = random.integers(0, layers, n)
    particle = random.integers(-1, 25, n)
    made = collision(
        particles(*[PION] * 25),
        list(zip(layer * 50 + random.random(n), layer, particle, strict=True)),
    )
    expected = set()
    for p in range(25):
        rows = sorted(np.flatnonzero(particle == p), key=lambda k: made.hits.position[k, 0])
        crossed = sorted({layer[k] for k in rows})
        for inner, outer in zip(crossed, crossed[1:], strict=False):
            expected |= {
                (a, b) for a in rows if layer[a] == inner for b in rows if layer[b] == outer
            }
    assert len(expected) > 100
    assert edges(made) == expected


@pytest.mark.parametrize(
    "row, looked_for",
    [
        (PION, True),
        ((211, 1, ORIGIN, (0.9, 0.0, 0.0)), False),  # pT
        ((211, 1, ORIGIN, (1.1, 0.0, 40.0)), False),  # |eta| = 4.3
        ((211, 1, (300.0, 0.0, 0.0), (2.0, 0.0, 0.0)), False),  # vertex beyond 260 mm
        ((-11, 1, ORIGIN, (2.0, 0.0, 0.0)), False),  # positron
        ((22, 0, ORIGIN, (2.0, 0.0, 0.0)), False),
    ],
)
def test_targets(row, looked_for):
    made = collision(particles(row), [(30, 0, 0), (70, 1, 0), (110, 2, 0)])
    assert targets(made, Target()).tolist() == [looked_for]


def test_a_target_crosses_enough_layers():
    made = collision(particles(PION), [(30, 0, 0), (31, 0, 0), (70, 1, 0)])
    assert not targets(made, Target())[0]
    assert targets(made, Target(min_layers=2))[0]


def test_electrons_are_targets_when_asked_for():
    table = particles((11, -1, ORIGIN, (2.0, 0.0, 0.0)))
    made = collision(table, [(30, 0, 0), (70, 1, 0), (110, 2, 0)])
    assert targets(made, Target(electrons=True))[0]


def test_selection_keeps_truth_beside_its_hits():
    made = collision(particles(PION), [(30, 0, 0), (70, 1, -1), (110, 2, 0)])
    kept = select(made, made.particle >= 0)
    assert kept.hits.hit_id.tolist() == [0, 2]
    assert edges(kept) == {(0, 1)}


def test_without_truth_there_is_neither_target_nor_true_edge():
    made = collision(particles(PION), [(30, 0, 0)])._replace(particle=None, particles=None)
    assert len(select(made, np.array([True])).hits.layer) == 1
    with pytest.raises(ValueError, match="without truth"):
        true_edges(made)
    with pytest.raises(ValueError, match="without truth"):
        targets(made, Target())


def test_tracks_hold_rows_of_unequal_number():
    found = tracks_of([np.array([3, 1]), np.array([2, 5, 6])])
    assert found.offsets.tolist() == [0, 2, 5]
    assert found.hit.tolist() == [3, 1, 2, 5, 6]
    assert tracks_of([]).offsets.tolist() == [0]


def test_kinematics():
    momentum = np.array([[3.0, 4.0, 0.0], [1.0, 0.0, np.sinh(2.0)]])
    np.testing.assert_allclose(pt(momentum), [5.0, 1.0])
    np.testing.assert_allclose(eta(momentum), [0.0, 2.0])
