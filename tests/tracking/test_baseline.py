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
