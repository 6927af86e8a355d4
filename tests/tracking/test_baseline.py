"""Seed and follow: helices found whole, simulated collisions, symmetries, honest limits."""

import numpy as np
import pytest

from physml.errors import ConfigError, DataError
from physml.tracking import events, fits
from physml.tracking.baseline import FollowOptions, follow
from physml.tracking.events import Hits, Target
from physml.tracking.geometry import trackml
from physml.tracking.metrics import match_tracks
from physml.tracking.simulate import Options, simulate

DETECTOR = trackml()


@pytest.fixture(scope="module")
def collision():
    return simulate((3, 1), 15.0, DETECTOR)


@pytest.fixture(scope="module")
def tracks(collision):
    return follow(collision.hits, DETECTOR)


def turned(hits, angle):
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return hits._replace(position=hits.position @ turn.T, module=np.full_like(hits.module, -1))


def sets(tracks):
    ends = zip(tracks.offsets[:-1], tracks.offsets[1:], strict=True)
    return {frozenset(tracks.hit[a:b].tolist()) for a, b in ends}


def test_a_clean_collision_is_found_whole():
    options = Options(inefficiency=0.0, noise=0.0, min_pt=1.2)
    found, total = 0, 0
    for event in range(2):
        collision = simulate((5, event), 30.0, DETECTOR, options=options)
        target = Target(min_pt=1.2, max_radius=2.0, max_eta=3.5, min_layers=5)
        matches = match_tracks(follow(collision.hits, DETECTOR), collision, target)
        found += matches.efficiency.passed
        total += matches.efficiency.total
        assert matches.fake_rate.share < 0.05
    assert total > 80 and found / total > 0.97


def test_a_simulated_collision(collision, tracks):
    matches = match_tracks(tracks, collision, Target(max_radius=2.0))
    assert matches.efficiency.share > 0.9 and matches.efficiency.total > 50
    assert matches.fake_rate.share < 0.05
    assert matches.duplicate_rate.share < 0.01


def test_tracks_share_no_hit_and_go_outward(collision, tracks):
    assert len(tracks.hit) == len(set(tracks.hit.tolist()))
    assert np.diff(tracks.offsets).min() >= FollowOptions().min_hits
    found = fits.fit(tracks, collision.hits, DETECTOR)
    assert found.good.mean() > 0.99
    # Outward: but for second hits of a layer, the distance from the beam grows or abs(z) does.
    r = np.hypot(*collision.hits.position[tracks.hit, :2].T)
    z = np.abs(collision.hits.position[tracks.hit, 2])
    inside = np.diff(np.repeat(np.arange(len(found.pt)), np.diff(tracks.offsets))) == 0
    layer = collision.hits.layer[tracks.hit]
    steps = inside & (np.diff(layer) != 0)
    assert ((np.diff(r) > 0) | (np.diff(z) > 0))[steps].all()


def test_momenta_of_found_particles(collision, tracks):
    found = fits.fit(tracks, collision.hits, DETECTOR)
    first = collision.particle[tracks.hit[tracks.offsets[:-1] + 1]]
    true = events.pt(collision.particles.momentum)[first]
    own = (first >= 0) & (true > 1) & (np.diff(tracks.offsets) > 6)
    off = found.pt[own] / true[own] - 1
    assert np.abs(np.median(off)) < 0.02 and np.median(np.abs(off)) < 0.05
    charge = collision.particles.charge[first[own]]
    assert (found.charge[own] == charge).mean() > 0.97


def test_order_of_hits_does_not_matter(collision, tracks):
    hits = collision.hits
    order = np.random.default_rng(0).permutation(len(hits.layer))
    mixed = follow(Hits(*(column[order] for column in hits)), DETECTOR)
    back = {frozenset(order[list(t)].tolist()) for t in sets(mixed)}
    plain = sets(tracks)
    assert len(back & plain) > 0.98 * len(plain)


def test_rotation(collision):
    plain = sets(follow(turned(collision.hits, 0.0), DETECTOR))
    other = sets(follow(turned(collision.hits, 1.0), DETECTOR))
    assert len(plain & other) > 0.97 * len(plain)


def test_noise_alone_gives_hardly_a_track():
    rng = np.random.default_rng(0)
    one = simulate((4, 0), 40.0, DETECTOR)
    phi = rng.uniform(-np.pi, np.pi, len(one.hits.layer))
    x, y, z = one.hits.position.T
    spun = np.stack([x * np.cos(phi) - y * np.sin(phi), x * np.sin(phi) + y * np.cos(phi), z], 1)
    hits = one.hits._replace(position=spun, module=np.full(len(phi), -1, np.int32))
    assert len(hits.layer) > 15_000
    assert len(follow(hits, DETECTOR).offsets) - 1 < 10


def test_few_or_no_hits():
    whole = simulate((3, 1), 0.0, DETECTOR)
    for n in (0, 1, 2):
        hits = Hits(*(column[:n] for column in whole.hits))
        tracks = follow(hits, DETECTOR)
        assert tracks.offsets.tolist() == [0] and len(tracks.hit) == 0


def test_bad_options_are_refused(collision):
    for wrong in (FollowOptions(min_pt=0.0), FollowOptions(min_hits=2), FollowOptions(holes=-1)):
        with pytest.raises(ConfigError, match="out of range"):
            follow(collision.hits, DETECTOR, wrong)
    with pytest.raises(ConfigError, match="field"):
        follow(collision.hits, DETECTOR._replace(field=0.0))
    hits = collision.hits._replace(position=collision.hits.position * np.nan)
    with pytest.raises(DataError, match="finite"):
        follow(hits, DETECTOR)


LIGHT = 0.299792458e-3  # GeV / (T mm)
BARREL = np.flatnonzero(DETECTOR.barrel)  # 4 of pixels, 4 of short strips, 2 of long ones


def one_particle(layers, d0=0.0, cot=0.1, pt=5.0):
    """Exact hits of a helix from the beam in layers that stand in the order of its flight."""
    k, place = -2 * LIGHT / pt, DETECTOR.place[layers]
    chord = np.sqrt((place**2 - d0**2) / (1 + k * d0))
    s = np.where(DETECTOR.barrel[layers], 2 / k * np.arcsin(k * chord / 2), place / cot)
    xy = np.exp(0.3j) * (1j * d0 + (np.exp(1j * k * s) - 1) / (1j * k))
    position = np.stack([xy.real, xy.imag, cot * s], axis=1)
    none = np.full(len(layers), -1, np.int32)
    return Hits(position, np.array(layers, np.int32), none, np.arange(len(layers)))


def found(hits, **options):
    """Rows of each track."""
    return sorted(sorted(track) for track in sets(follow(hits, DETECTOR, FollowOptions(**options))))


def test_so_many_layers_may_be_without_a_hit():
    late, early = (one_particle(np.delete(BARREL, own)) for own in ([5, 6], [4, 5]))
    assert found(late, holes=2) == found(early, holes=2) == [list(range(8))]
    assert found(late, holes=1) == [list(range(5))]  # what it has when it is lost
    assert found(early, holes=1) == []  # lost with four hits, one more is asked for
    assert found(early, holes=1, min_hits=3) == [list(range(4))]


@pytest.mark.parametrize("off, whole", [(3.0, True), (9.0, False)])
def test_a_layer_crossed_at_its_end_need_not_have_a_hit(off, whole):
    """There flat, staggered modules may leave a gap; the hit is missing in the last pixel layer."""
    cot = (DETECTOR.high[BARREL[3]] - off) / DETECTOR.place[BARREL[3]]
    disks = np.flatnonzero(np.isin(DETECTOR.volume, (14, 18)))
    r = DETECTOR.place[disks] / cot
    disks = disks[(r > DETECTOR.low[disks]) & (r < DETECTOR.high[disks])]
    layers = np.concatenate([BARREL[[0, 1, 2, 4, 5]], disks[np.argsort(DETECTOR.place[disks])]])
    everything = list(range(len(layers)))
    assert len(layers) > 8
    assert found(one_particle(layers, cot=cot), holes=1) == [everything]
    assert (found(one_particle(layers, cot=cot), holes=0) == [everything]) == whole


@pytest.mark.parametrize(
    "layers, d0, hits",
    [
        (range(4), 1.9, 4),  # a chain of four in the pixels
        (range(4), 2.1, 0),
        ((0, 1, 2, 4, 5), 0.9, 5),  # three, followed into the strips
        ((0, 1, 2, 4, 5), 1.1, 0),
        ((0, 1, 2, 4), 0.9, 0),
        (range(4, 9), 9.5, 5),  # strips alone
        (range(4, 9), 10.5, 0),
        (range(4, 8), 9.5, 0),
        ((0, 1, 3, 4, 5), 1.9, 0),
    ],
)
def test_each_pass_asks_for_its_own_hits_and_closest_approach(layers, d0, hits):
    """At most 2 mm for chains of four, half of it for three, five times it for the strips alone;
    at least four hits for a chain, five for the others.
    """
    one = one_particle(BARREL[list(layers)], d0=d0)
    assert found(one, max_d0=2.0, min_hits=4, holes=9) == ([list(range(hits))] if hits else [])
