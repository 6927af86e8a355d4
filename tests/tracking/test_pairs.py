import functools

import numpy as np
import pytest

from physml.errors import DataError
from physml.tracking import events, geometry, pairs
from physml.tracking.events import Hits
from physml.tracking.pairs import Cuts
from physml.tracking.simulate import simulate
from physml.tracking.triplets import Tolerance

DETECTOR = geometry.trackml()
LOOSE = Cuts(max_d0=5.0, max_z0=200.0)


@functools.cache
def hits_of(mu=2.0, event=1):
    return simulate((3, event), mu, DETECTOR).hits


def turned(hits, angle):
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])  # fmt: skip
    return hits._replace(position=hits.position @ turn.T)


def as_set(found):
    return set(zip(found[0].tolist(), found[1].tolist(), strict=True))


def every_pair(hits, cuts):
    """The cuts on all n^2 pairs, with complex numbers and divisions where `search` has neither."""
    w, z = hits.position[:, 0] + 1j * hits.position[:, 1], hits.position[:, 2]
    r, barrel, half = np.abs(w), DETECTOR.barrel[hits.layer], DETECTOR.pitch_v[hits.layer] / 2
    names = pairs.layer_pairs(DETECTOR, cuts.skips)
    allowed = np.zeros((48, 48), bool)
    allowed[names[0], names[1]] = True
    a, b = np.nonzero(allowed[hits.layer[:, None], hits.layer] & (r > r[:, None]))
    dr, dz, dphi = r[b] - r[a], z[b] - z[a], np.angle(w[b] / w[a])
    z0 = z[a] - r[a] * dz / dr
    error = (half[a] * np.where(barrel[a], r[b], abs(z[b]))
             + half[b] * np.where(barrel[b], r[a], abs(z[a]))) / dr  # fmt: skip
    radius = cuts.min_pt / (0.299792458e-3 * DETECTOR.field)
    turn = np.arcsin(r / 2 / radius)
    turn = turn[b] - turn[a]
    window = turn + cuts.max_d0 * (1 / r[a] - 1 / r[b]) + cuts.scattering * dr / r[b]
    kept = (np.abs(z0) <= cuts.max_z0 + error) & (np.abs(dphi) <= window)
    a, b, dr, dz, dphi, turn = (column[kept] for column in (a, b, dr, dz, dphi, turn))
    if cuts.tolerance is None:
        return set(zip(a.tolist(), b.tolist(), strict=True))
    slope, bend, lever = dz / np.abs(w[b] - w[a]), dphi / turn, dr / (r[a] * r[b] * turn)
    slack = half[a] * np.where(barrel[a], 1, abs(slope)) + half[b] * np.where(
        barrel[b], 1, abs(slope)
    )
    slack, slope = slack / np.hypot(np.abs(w[b] - w[a]), dz), np.arcsinh(slope)
    tolerance, good = cuts.tolerance, set()
    for i in range(len(a)):
        j = np.flatnonzero(a == b[i])
        noise = tolerance.bend / r[b[i]]
        d0 = (bend[i] - bend[j]) / (lever[i] - lever[j])
        fine = np.abs(slope[i] - slope[j]) <= slack[i] + slack[j] + tolerance.slope
        fine &= np.abs(bend[i] - bend[j]) <= noise + tolerance.d0 * (lever[i] - lever[j])
        bound = 1 + noise / 2 * (lever[i] + lever[j]) / (lever[i] - lever[j])
        fine &= np.abs(bend[i] - d0 * lever[i]) <= bound
        good |= {(a[k], b[k]) for k in [*j[fine], *([i] if fine.any() else [])]}
    return good


@pytest.mark.parametrize("cuts", [Cuts(), Cuts(tolerance=None), LOOSE, Cuts(skips=0, min_pt=0.5)])
def test_the_search_finds_what_a_look_at_every_pair_finds(cuts):
    hits = hits_of(2.0)
    found = pairs.edges(hits, DETECTOR, cuts)
    assert found.shape[1] == len(as_set(found)) > 100
    assert as_set(found) == every_pair(hits, cuts)


def test_rotation_order_and_threads_do_not_matter():
    hits = hits_of(10.0)
    found = pairs.edges(hits, DETECTOR, Cuts(), 1)
    np.testing.assert_array_equal(found, pairs.edges(hits, DETECTOR, Cuts(), 3))
    for angle in (0.3, 1.7, np.pi):
        np.testing.assert_array_equal(found, pairs.edges(turned(hits, angle), DETECTOR, Cuts()))
    order = np.random.default_rng(0).permutation(len(hits.layer))
    mixed = pairs.edges(Hits(*(column[order] for column in hits)), DETECTOR, Cuts())
    assert as_set(order[mixed]) == as_set(found)


def test_pairs_are_sorted_and_point_outward():
    hits = hits_of(10.0)
    inner, outer = pairs.edges(hits, DETECTOR, Cuts())
    assert (np.diff(outer * len(hits.layer) + inner) > 0).all()
    r = np.hypot(*hits.position.T[:2])
    assert (r[outer] > r[inner]).all()


def track(phi, layers=(0, 1, 2, 3), field=2.0, pt=2.0):
    """Hits of one particle at right angles to the beam on the pixel barrel."""
    row = np.flatnonzero(DETECTOR.volume == 8)[list(layers)]
    r = DETECTOR.place[row]
    angle = phi - np.arcsin(r * 0.299792458e-3 * field / (2 * pt))
    position = np.stack([r * np.cos(angle), r * np.sin(angle), 0.1 * r], axis=1)
    n = len(row)
    return Hits(position, row.astype(np.int32), np.full(n, -1, np.int32), np.arange(n))


@pytest.mark.parametrize("phi", [np.pi, np.pi + 0.01, -np.pi + 0.02, 0.0])
def test_particles_cross_the_seam_of_phi(phi):
    found = as_set(pairs.edges(track(phi), DETECTOR, Cuts()))
    assert found == {(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)}
    alone = as_set(pairs.edges(track(phi), DETECTOR, Cuts(skips=0)))
    assert alone == {(0, 1), (1, 2), (2, 3)}


def test_slow_particles_are_left_out():
    assert pairs.edges(track(1.0, pt=0.2), DETECTOR, Cuts()).shape[1] == 0
    assert pairs.edges(track(1.0, pt=1.0), DETECTOR, Cuts()).shape[1] == 5


def test_single_pairs_are_kept_on_demand_only():
    two = track(1.0, layers=(0, 1))
    assert pairs.edges(two, DETECTOR, Cuts()).shape == (2, 0)
    assert as_set(pairs.edges(two, DETECTOR, Cuts(tolerance=None))) == {(0, 1)}


def test_a_kink_breaks_the_chain():
    hits = track(1.0, layers=(0, 1, 2))
    hits.position[2, 2] += 10.0
    assert pairs.edges(hits, DETECTOR, Cuts(skips=0)).shape == (2, 0)
    tolerance = Tolerance(slope=0.5)
    assert pairs.edges(hits, DETECTOR, Cuts(skips=0, tolerance=tolerance)).shape == (2, 2)


def test_layer_pairs_hold_the_crossings_of_straight_lines():
    generator, names = np.random.default_rng(5), set()
    for skips in (0, 1):
        found = pairs.layer_pairs(DETECTOR, skips)
        assert names < set(map(tuple, found.T.tolist()))
        names = set(map(tuple, found.T.tolist()))
    for eta, z0 in zip(generator.uniform(-4, 4, 300), generator.normal(0, 5, 300), strict=True):
        slope, crossed = np.sinh(eta), []
        for k, (place, low, high) in enumerate(
            zip(DETECTOR.place, DETECTOR.low, DETECTOR.high, strict=True)
        ):
            r = place if DETECTOR.barrel[k] else (place - z0) / slope
            across = z0 + r * slope if DETECTOR.barrel[k] else r
            if r > 0 and low < across < high:
                crossed.append((r, k))
        order = [k for _, k in sorted(crossed)]
        assert set(zip(order, order[1:], strict=False)) <= names
        assert set(zip(order, order[2:], strict=False)) <= names


def test_layer_pairs_join_barrels_disks_and_strips():
    inner, outer = pairs.layer_pairs(DETECTOR)
    volumes = set(
        zip(DETECTOR.volume[inner].tolist(), DETECTOR.volume[outer].tolist(), strict=True)
    )
    assert {(8, 8), (8, 13), (8, 9), (8, 7), (9, 14), (13, 17), (13, 14), (14, 18)} <= volumes
    assert (7, 9) not in volumes and (9, 7) not in volumes and not (inner == outer).any()


def test_few_hits_give_no_pairs():
    hits = hits_of()
    for n in (0, 1):
        some = Hits(*(column[:n] for column in hits))
        pairs.check(some, DETECTOR)
        assert pairs.edges(some, DETECTOR, Cuts()).shape == (2, 0)


def spoiled(hits, row, place):
    position = hits.position.copy()
    position[row] = place
    return hits._replace(position=position)


def test_bad_hits_are_refused():
    hits = hits_of()
    with pytest.raises(DataError, match="row 3 lies at"):
        pairs.check(spoiled(hits, 3, np.nan), DETECTOR)
    with pytest.raises(DataError, match="off the beam"):
        pairs.check(spoiled(hits, 0, [0, 0, 600]), DETECTOR)
    with pytest.raises(DataError, match="give millimetres"):
        pairs.check(hits._replace(position=hits.position / 1000), DETECTOR)
    for layer in (-1, 48):
        with pytest.raises(DataError, match=f"layer {layer}; give layers from 0 to 47"):
            pairs.check(hits._replace(layer=np.full_like(hits.layer, layer)), DETECTOR)
    with pytest.raises(DataError, match="give x y z of each hit"):
        pairs.check(hits._replace(position=hits.position[1:]), DETECTOR)
    layer = np.broadcast_to(np.int32(0), 2**31)
    position = np.broadcast_to(0.0, (2**31, 3))
    with pytest.raises(DataError, match="more than 2"):
        pairs.check(hits._replace(layer=layer, position=position), DETECTOR)


def test_target_particles_keep_their_edges():
    collision = simulate((11, 5), 40.0, DETECTOR)
    n = len(collision.hits.layer)
    inner, outer = events.true_edges(collision)
    own = events.targets(collision, events.Target())[collision.particle[inner]]
    found = pairs.edges(collision.hits, DETECTOR, Cuts())
    kept = np.isin((outer * n + inner)[own], found[1] * n + found[0])
    vertex = np.hypot(*collision.particles.vertex.T[:2])[collision.particle[inner[own]]]
    assert kept[vertex < 2].mean() > 0.99
    assert kept.mean() > 0.98
    assert found.shape[1] < 3 * n
