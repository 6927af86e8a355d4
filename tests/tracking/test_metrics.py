"""Metrics of edges and tracks against hand-made cases, counting with dictionaries, scikit-learn."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from physml.errors import ConfigError, DataError
from physml.tracking import edge_metrics, events
from physml.tracking.events import Collision, Hits, Particles, Target, Tracks, tracks_of
from physml.tracking.metrics import (
    STYLES,
    Rate,
    concatenate,
    hit_weights,
    match_tracks,
    trackml_score,
)

ALL = Target(min_pt=0.0, max_eta=10.0, max_radius=1e4, min_layers=1, electrons=True)
NONE = Target(min_pt=1e6)


def collision(owner, pt=None, z=None, vertex=None, event=0):
    """Hits of the particle rows `owner` (-1: noise), one layer after the other."""
    owner = np.asarray(owner, np.int32)
    n, p = len(owner), max(int(owner.max(initial=-1)) + 1, 0 if pt is None else len(pt))
    position = np.zeros((n, 3))
    position[:, 0] = 30.0 + np.arange(n)
    position[:, 2] = np.arange(n) if z is None else z
    hits = Hits(position, np.arange(n, dtype=np.int32), np.full(n, -1, np.int32), np.arange(n))
    momentum = np.zeros((p, 3))
    momentum[:, 0] = 2.0 if pt is None else pt
    start = np.zeros((p, 3)) if vertex is None else np.array(vertex, float)
    particles = Particles(
        np.arange(1, p + 1), np.full(p, 211, np.int32), np.ones(p, np.int8), start, momentum
    )
    return Collision(event, hits, particles, owner)


def random_case(seed, shared_hits):
    """A collision with noise, and tracks of random lengths that mix its particles."""
    random = np.random.default_rng(seed)
    owner = random.integers(-1, 6, 40)
    rows = random.permutation(40)
    near = rows[np.argsort(owner[rows] + random.normal(0, 0.8, 40))]
    cuts = np.sort(random.integers(0, 41, 9))
    tracks = [part for part in np.split(near, cuts) if len(part)]
    if shared_hits:
        tracks += [random.choice(40, k, replace=False) for k in random.integers(1, 9, 5)]
    return collision(owner, pt=random.uniform(0.2, 4.0, 6)), tracks


def by_counting(tracks, owner, wanted, style, min_hits):
    """(found, wanted), (fakes, tracks), (fakes, tracks) on targets, (extra, found); slowly."""
    own = Counter(owner.tolist())
    finds, fakes, kept, target_fakes, on_target = Counter(), 0, 0, 0, 0
    for rows in tracks:
        if len(rows) < min_hits:
            continue
        kept += 1
        matched, best = False, {True: 0, False: 0}
        for particle, shared in Counter(owner[rows].tolist()).items():
            if particle < 0:
                continue
            purity, share = shared / len(rows), shared / own[particle]
            rule = {
                "one_way": (share > 0.5, purity > 0.5),
                "two_way": (share > 0.5 and purity > 0.5,) * 2,
                "atlas": (purity > 0.5,) * 2,
                "lhc": (purity > 0.75,) * 2,
                "perfect": (share == 1 and purity == 1,) * 2,
            }[style]
            finds[particle] += rule[0]
            matched |= rule[1]
            best[wanted[particle]] = max(best[wanted[particle]], shared)
        fakes += not matched
        on_target += best[True] > best[False]
        target_fakes += best[True] > best[False] and not matched
    times = [finds[k] for k, yes in enumerate(wanted) if yes]
    found = sum(t > 0 for t in times)
    return (
        (found, len(times)), (fakes, kept), (target_fakes, on_target),
        (sum(t - 1 for t in times if t), found),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(STYLES), st.integers(1, 5))
def test_rates_equal_counting_one_by_one(seed, shared_hits, style, min_hits):
    made, tracks = random_case(seed, shared_hits)
    target = Target(min_pt=1.0)
    ours = match_tracks(tracks_of(tracks), made, target, style, min_hits)
    wanted = events.targets(made, target).tolist()
    expected = by_counting(tracks, made.particle, wanted, style, min_hits)
    rates = (ours.efficiency, ours.fake_rate, ours.target_fake_rate, ours.duplicate_rate)
    assert tuple(map(tuple, rates)) == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_stricter_styles_find_less(seed):
    made, tracks = random_case(seed, shared_hits=True)
    by_style = {s: match_tracks(tracks_of(tracks), made, ALL, s) for s in STYLES}
    found = {s: m.particles.found for s, m in by_style.items()}
    matched = {s: m.tracks.matched for s, m in by_style.items()}
    for strict, loose in [
        ("perfect", "two_way"), ("perfect", "lhc"), ("two_way", "one_way"),
        ("two_way", "atlas"), ("lhc", "atlas"),
    ]:  # fmt: skip
        assert (found[strict] <= found[loose]).all()
        assert (matched[strict] <= matched[loose]).all()
    assert_array_equal(found["two_way"] <= (found["one_way"] & found["atlas"]), True)
    assert_array_equal(matched["one_way"], matched["atlas"])


# One particle (0) of 8 hits and another (1) of 4; what each style says of one track:
# (particle 0 found, track matched), in the order of STYLES.
DIFFERENT = {
    "all hits": ([0] * 8, [], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
    "all hits and one more": ([0] * 8, [1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]),
    "a pure half": ([0] * 4, [], [0, 0, 1, 1, 0], [1, 0, 1, 1, 0]),
    "most hits, two thirds pure": ([0] * 6, [1] * 3, [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]),
    "exactly three quarters pure": ([0] * 6, [1] * 2, [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]),
    "all hits, half noise": ([0] * 8, [-1] * 8, [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    "a few of it": ([0] * 2, [-1] * 4, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_the_styles_differ_where_they_should(case):
    right, wrong, found, matched = DIFFERENT[case]
    owner = np.array([0] * 8 + [1] * 4 + [-1] * 8)
    rows = np.concatenate([np.flatnonzero(owner == k)[: part.count(k)]
                           for part in (right, wrong) for k in sorted(set(part))])  # fmt: skip
    assert len(rows) == len(right) + len(wrong)
    for style, yes, good in zip(STYLES, found, matched, strict=True):
        ours = match_tracks(tracks_of([rows]), collision(owner), ALL, style)
        assert ours.particles.found[0] == yes, style
        assert ours.tracks.matched[0] == good, style


def test_perfect_tracks_are_perfect_in_every_style():
    owner = np.repeat(np.arange(20), 9)
    made = collision(owner)
    tracks = tracks_of([np.flatnonzero(owner == k) for k in range(20)])
    for style in STYLES:
        ours = match_tracks(tracks, made, ALL, style)
        assert ours.efficiency == Rate(20, 20) and ours.fake_rate == Rate(0, 20)
        assert ours.duplicate_rate == Rate(0, 20) and ours.efficiency.share == 1.0
    assert trackml_score(tracks, made) == pytest.approx(1.0, abs=1e-12)


def test_a_split_particle_is_a_duplicate_only_by_purity():
    owner = np.zeros(12, int)
    tracks = tracks_of([np.arange(7), np.arange(7, 12)])
    twice = {s: match_tracks(tracks, collision(owner), ALL, s).duplicate_rate for s in STYLES}
    assert twice == {
        "one_way": (0, 1), "two_way": (0, 1), "atlas": (1, 1), "lhc": (1, 1), "perfect": (0, 0),
    }  # fmt: skip
    assert match_tracks(tracks, collision(owner), ALL, "two_way").fake_rate == (1, 2)
    assert twice["perfect"].share is None


def test_tracks_of_particles_that_are_not_looked_for_are_no_fakes():
    owner = np.repeat([0, 1], 5)
    made = collision(owner, pt=[5.0, 0.3])
    ours = match_tracks(tracks_of([np.arange(5), np.arange(5, 10)]), made, Target(min_layers=3))
    assert ours.efficiency == (1, 1) and ours.fake_rate == (0, 2)
    assert ours.target_fake_rate == (0, 1)
    assert_array_equal(ours.tracks.on_target, [True, False])


def test_noise_is_no_particle():
    owner = np.array([-1] * 6 + [0] * 3)
    ours = match_tracks(tracks_of([np.arange(6)]), collision(owner), ALL)
    assert ours.efficiency == (0, 1) and ours.fake_rate == (1, 1)
    assert ours.target_fake_rate == (0, 0)


def test_short_tracks_are_no_tracks():
    owner = np.array([0, 0, 1, 1, 1])
    tracks = tracks_of([np.array([0, 1]), np.array([2, 3, 4])])
    assert match_tracks(tracks, collision(owner), ALL).efficiency == (1, 2)
    assert match_tracks(tracks, collision(owner), ALL).fake_rate == (0, 1)
    assert match_tracks(tracks, collision(owner), ALL, min_hits=2).efficiency == (2, 2)
    assert match_tracks(tracks, collision(owner), ALL, min_hits=4).fake_rate == (0, 0)


def test_hits_in_one_layer_both_count():
    made = collision([0, 0, 0, 0, 1])
    made = made._replace(hits=made.hits._replace(layer=np.array([0, 0, 1, 1, 2], np.int32)))
    tracks = tracks_of([np.array([0, 2])])
    assert match_tracks(tracks, made, ALL, "one_way", 1).efficiency == (0, 2)
    assert match_tracks(tracks_of([np.array([0, 1, 2])]), made, ALL, "one_way").efficiency == (1, 2)


def test_nothing_to_count_is_none_and_not_a_number():
    made = collision([0, 0, 0, 0])
    empty = match_tracks(tracks_of([]), made, ALL)
    assert empty.efficiency.share == 0.0
    assert empty.fake_rate.share is None and empty.duplicate_rate.share is None
    assert match_tracks(tracks_of([np.arange(4)]), made, NONE).efficiency.share is None
    assert trackml_score(tracks_of([]), made) == 0.0


def test_noise_alone_is_all_fakes():
    made = collision([-1] * 5)
    ours = match_tracks(tracks_of([np.arange(5)]), made, ALL)
    assert ours.efficiency == (0, 0) and ours.fake_rate == (1, 1)
    assert edge_metrics.target_edges(made, ALL) == 0


def test_events_add():
    cases = [random_case(seed, False) for seed in range(3)]
    target = Target(min_pt=1.0)
    parts = [
        match_tracks(tracks_of(tracks), made, target, "two_way", mu=20.0 * k)
        for k, (made, tracks) in enumerate(cases)
    ]
    whole = concatenate(parts)
    for name in ("efficiency", "fake_rate", "target_fake_rate", "duplicate_rate"):
        expected = np.sum([getattr(part, name) for part in parts], axis=0)
        assert tuple(getattr(whole, name)) == tuple(expected)
    # The same collisions side by side in one list of hits and particles.
    shift = np.cumsum([0] + [len(made.particle) for made, _ in cases])
    owner = np.concatenate([np.where(made.particle < 0, -1, made.particle + 6 * k)
                            for k, (made, _) in enumerate(cases)])  # fmt: skip
    pt = np.concatenate([events.pt(made.particles.momentum) for made, _ in cases])
    joint = tracks_of([rows + shift[k] for k, (_, tracks) in enumerate(cases) for rows in tracks])
    together = match_tracks(joint, collision(owner, pt=pt), target)
    assert together.efficiency == whole.efficiency and together.fake_rate == whole.fake_rate
    assert_array_equal(together.particles.found, whole.particles.found)
    assert_allclose(together.particles.pt, whole.particles.pt)
    assert_array_equal(np.unique(whole.particles.mu), [0.0, 20.0, 40.0])


class Fitted(NamedTuple):
    """The part of a fit that metrics read."""

    pt: np.ndarray
    eta: np.ndarray


def test_particles_and_tracks_carry_what_rates_are_drawn_against():
    made = collision([0] * 6, pt=[5.0], vertex=[[3.0, 4.0, 0.0]])
    momentum = np.array([[3.0, 4.0, 2.5]])
    made = made._replace(particles=made.particles._replace(momentum=momentum))
    tracks = tracks_of([np.arange(2), np.arange(6)])
    fitted = Fitted(np.array([1.0, 4.9]), np.array([0.0, 0.48]))
    ours = match_tracks(tracks, made, ALL, "two_way", 3, fit=fitted, mu=12.0)
    assert (ours.particles.pt[0], ours.particles.radius[0]) == (5.0, 5.0)
    assert ours.particles.eta[0] == pytest.approx(np.arcsinh(0.5))
    assert ours.particles.mu[0] == ours.tracks.mu[0] == 12.0
    assert_array_equal(ours.tracks.row, [1])  # the short one is left out
    assert (ours.tracks.pt[0], ours.tracks.eta[0]) == (4.9, 0.48)
    bare = match_tracks(tracks, made, ALL)
    assert bare.tracks.pt is None and bare.particles.mu is None


def test_order_of_tracks_and_hits_does_not_matter():
    made, tracks = random_case(5, True)
    random = np.random.default_rng(0)
    mixed = [random.permutation(tracks[k]) for k in random.permutation(len(tracks))]
    for style in STYLES:
        first, second = (
            match_tracks(tracks_of(some), made, ALL, style) for some in (tracks, mixed)
        )
        assert_array_equal(first.particles.tracks, second.particles.tracks)
        assert first.fake_rate == second.fake_rate
    assert trackml_score(tracks_of(tracks), made) == trackml_score(tracks_of(mixed), made)


def score_by_counting(tracks, owner, weights):
    """Definition of the challenge, for tracks without common hits."""
    own, total = Counter(owner.tolist()), 0.0
    for rows in tracks:
        particle, shared = Counter(owner[rows].tolist()).most_common(1)[0]
        if particle >= 0 and 2 * shared > len(rows) and 2 * shared > own[particle]:
            total += weights[rows][owner[rows] == particle].sum()
    return total / weights.sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_trackml_score_equals_its_definition(seed):
    made, tracks = random_case(seed, shared_hits=False)
    weights = np.where(made.particle < 0, 0.0, np.random.default_rng(seed).random(40))
    ours = trackml_score(tracks_of(tracks), made, weights)
    assert ours == pytest.approx(score_by_counting(tracks, made.particle, weights), abs=1e-12)
    assert 0 <= trackml_score(tracks_of(tracks), made) <= 1 + 1e-12


def test_a_shared_hit_scores_once():
    made = collision([0, 0, 0, 0, 1, 1, 1, 1])
    tracks = tracks_of([np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([4, 5])])
    assert trackml_score(tracks, made, np.full(8, 0.125)) == pytest.approx(0.5)


def test_hit_weights_by_hand():
    """Nine hits have the nine weights of the challenge; five hits every second of them."""
    order = np.array([10, 8, 6, 5, 3, 3, 3, 5, 6.0])
    owner = np.repeat([0, 1, 2, 3, 4, -1], [9, 5, 3, 9, 9, 4])
    pt = [5.0, 0.4, 5.0, 1.75, 0.04]  # weights 1, 0.2, no matter, 0.6, 0
    z = np.concatenate([-10.0 - np.arange(9)[::-1], np.arange(len(owner) - 9)])
    weights = hit_weights(collision(owner, pt=pt, z=z))
    assert weights.sum() == pytest.approx(1.0)
    expected = np.zeros(len(owner))
    expected[:9] = order[::-1] / order.sum()  # the last one is closest to the vertex
    expected[9:14] = 0.2 * order[::2] / order[::2].sum()
    expected[17:26] = 0.6 * order / order.sum()
    assert_allclose(weights, expected / expected.sum(), atol=1e-15)


def test_hits_after_the_twentieth_weigh_nothing():
    weights = hit_weights(collision(np.zeros(23, int)))
    assert (weights[:20] > 0).all() and not weights[20:].any()
    assert weights[0] == weights.max() and weights.sum() == pytest.approx(1.0)


def scored(seed, m=500):
    random = np.random.default_rng(seed)
    kind = random.choice(3, m, p=[0.3, 0.2, 0.5])  # target, other, fake
    scores = np.round(np.clip(random.normal(0.6 - 0.3 * (kind == 2), 0.2, m), 0, 1), 2)
    return scores, kind == 0, kind != 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_edges_equal_counting_and_scikit_learn(seed):
    scores, label, counted = scored(seed)
    cuts = np.linspace(0, 1, 6)
    ours = edge_metrics.edge_counts(scores, label, counted, int(label.sum()) + 40, cuts)
    for k, cut in enumerate(cuts):
        passed = scores >= cut
        found = (passed & label).sum()
        assert ours.target[k] == found
        if passed.any():
            true = label | ~counted
            assert ours.purity[k] == sklearn.metrics.precision_score(true, passed)
            assert ours.target_purity[k] == sklearn.metrics.precision_score(label, passed)
            assert ours.efficiency[k] == sklearn.metrics.recall_score(label, passed)
        if passed[counted].any():
            masked = sklearn.metrics.precision_score(label[counted], passed[counted])
            assert ours.masked_purity[k] == masked
        assert ours.cumulative[k] == pytest.approx(found / (label.sum() + 40))
    assert_allclose(ours.cumulative, ours.efficiency * ours.graph_efficiency)
    area = sklearn.metrics.roc_auc_score(label[counted], scores[counted])
    assert edge_metrics.edge_auc(scores, label, counted) == pytest.approx(area, abs=1e-12)


def test_nothing_above_the_cut_is_pure():
    scores, label, counted = scored(0)
    ours = edge_metrics.edge_counts(scores, label, counted, 500, np.array([0.5, 2.0]))
    assert ours.purity[1] == ours.masked_purity[1] == ours.target_purity[1] == 1.0
    assert ours.efficiency[1] == 0.0 and ours.target[1] == ours.fake[1] == 0


def test_edges_of_events_add():
    cuts, cases = np.linspace(0, 1, 11), [scored(seed) for seed in range(3)]
    parts = [edge_metrics.edge_counts(*case, 400, cuts) for case in cases]
    whole = edge_metrics.edge_counts(*map(np.concatenate, zip(*cases, strict=True)), 1200, cuts)
    for ours, expected in zip(edge_metrics.add_edges(parts), whole, strict=True):
        assert_array_equal(ours, expected)


def test_true_edges_of_targets_bridge_a_missing_layer():
    made = collision(np.repeat([0, 1, -1], [6, 4, 3]), pt=[2.0, 0.5])
    assert edge_metrics.target_edges(made, Target(min_layers=3)) == 5
    skipped = events.select(made, np.arange(13) != 2)
    assert edge_metrics.target_edges(skipped, Target(min_layers=3)) == 4
    assert edge_metrics.target_edges(made, ALL) == 8


LABELS = np.array([True, False]), np.array([True, True])
MADE = collision([0, 0, 0, 0])
LINE = tracks_of([np.arange(4)])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: match_tracks(LINE, MADE, ALL, "cms"), ConfigError, "'cms' is not known; take one"),
        (lambda: match_tracks(LINE, MADE, ALL, min_hits=0), ConfigError, "min_hits: is 0"),
        (lambda: match_tracks(LINE, MADE._replace(particle=None), ALL), DataError, "no truth"),
        (lambda: trackml_score(LINE, MADE._replace(particles=None)), DataError, "no truth"),
        (
            lambda: match_tracks(tracks_of([np.array([0, 4])]), MADE, ALL),
            DataError, "tracks of event 0: name hits outside 0 to 3",
        ),
        (lambda: match_tracks(tracks_of([np.array([1, 1])]), MADE, ALL), DataError, "hit twice"),
        (
            lambda: match_tracks(Tracks(np.array([0, 3]), np.arange(4)), MADE, ALL),
            DataError, "offsets that do not fit",
        ),
        (
            lambda: match_tracks(LINE, MADE, ALL, fit=Fitted(np.ones(0), np.ones(0))),
            DataError, "fit: has 0 rows for 1 tracks",
        ),
        (lambda: trackml_score(LINE, MADE, np.zeros(4)), DataError, "are all 0"),
        (lambda: trackml_score(LINE, MADE, np.ones(3)), DataError, "shape"),
        (lambda: hit_weights(collision([0, 0, 0])), DataError, "are all 0"),
        (lambda: concatenate([]), DataError, "at least one, of one style"),
        (
            lambda: concatenate([match_tracks(LINE, MADE, ALL, s) for s in STYLES]),
            DataError, "of one style",
        ),
        (
            lambda: concatenate([match_tracks(LINE, MADE, ALL, mu=mu) for mu in (None, 1.0)]),
            DataError, "for some collisions only",
        ),
        (
            lambda: edge_metrics.edge_counts(np.array([0.1]), *LABELS, 1, np.array([0.5])),
            DataError, "shapes",
        ),
        (
            lambda: edge_metrics.edge_counts(np.array([np.nan, 0]), *LABELS, 1, np.array([0.5])),
            DataError, "not finite",
        ),
        (
            lambda: edge_metrics.edge_counts(np.ones(2), *LABELS, 0, np.array([0.5])),
            DataError, "1 target edges of 0",
        ),
        (
            lambda: edge_metrics.edge_counts(np.ones(2), *LABELS, 1, np.array([0.5, 0.1])),
            DataError, "rising order",
        ),
        (
            lambda: edge_metrics.edge_counts(
                np.ones(2), LABELS[0], ~LABELS[0], 1, np.array([0.5])
            ),
            DataError, "do not count",
        ),
        (
            lambda: edge_metrics.edge_counts(
                np.ones(2), ~LABELS[1], LABELS[1], 0, np.array([0.5])
            ).efficiency,
            DataError, "there are no target edges",
        ),
        (lambda: edge_metrics.add_edges([]), DataError, "at least one"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
