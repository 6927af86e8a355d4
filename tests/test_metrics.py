"""Metrics against scikit-learn, scipy, and counting."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from physml import metrics
from physml.errors import DataError


def scored(seed, n=300, levels=20):
    """Scores with many ties, truth and weights."""
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.3
    scores = np.round(random.normal(size=n) + truth, 1 if levels else 8)
    return scores, truth, random.gamma(1.0, size=n)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_roc_and_area_equal_scikit_learn(seed):
    scores, truth, weights = scored(seed)
    ours = metrics.roc(scores, truth, weights)
    wrong, right, cut = sklearn.metrics.roc_curve(
        truth, scores, sample_weight=weights, drop_intermediate=False
    )
    assert_allclose(ours.efficiency, right, atol=1e-12)
    assert_allclose(ours.mistaken, wrong, atol=1e-12)
    assert_array_equal(ours.cut, cut)
    expected = sklearn.metrics.roc_auc_score(truth, scores, sample_weight=weights)
    assert metrics.auc(scores, truth, weights) == pytest.approx(expected, abs=1e-12)


def test_area_is_the_chance_to_rank_right():
    scores, truth, _ = scored(1)
    above = scores[truth][:, None] - scores[~truth]
    expected = np.mean((above > 0) + 0.5 * (above == 0))
    assert metrics.auc(scores, truth) == pytest.approx(expected, abs=1e-12)


def test_a_weight_counts_rows():
    scores, truth, _ = scored(2)
    counts = np.random.default_rng(0).integers(0, 4, len(scores))
    twice = metrics.auc(np.repeat(scores, counts), np.repeat(truth, counts))
    assert metrics.auc(scores, truth, counts) == pytest.approx(twice, abs=1e-12)


@pytest.mark.parametrize("level", [0.6827, 0.95])
@pytest.mark.parametrize("passed, total", [(0, 10), (3, 10), (10, 10), (998, 1000), (0, 0)])
def test_intervals_equal_scipy(passed, total, level):
    low, high = metrics.clopper_pearson(passed, total, level)
    if not total:
        assert (low, high) == (0, 1)
        return
    expected = scipy.stats.binomtest(passed, total).proportion_ci(level, "exact")
    assert_allclose((low, high), (expected.low, expected.high), atol=1e-9)


def test_intervals_cover_what_they_promise():
    random = np.random.default_rng(0)
    for truth in (0.02, 0.5, 0.93):
        low, high = metrics.clopper_pearson(random.binomial(40, truth, 4000), 40)
        assert np.mean((low <= truth) & (truth <= high)) > 0.6827 - 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_shares_in_bins_equal_scipy(seed):
    random = np.random.default_rng(seed)
    edges = np.array([-1.0, 0.0, 0.5, 2.0, 9.0])
    values, passed = random.normal(0, 1, 60), random.random(60) < 0.7
    values[:2] = edges[1], edges[-1]  # a lower edge is in its bin, the last edge in the last
    ours = metrics.binned(values, passed, edges, 0.9)
    inside = (values >= -1) & (values <= 9)
    place = np.minimum(np.digitize(values[inside], edges) - 1, 3)
    assert_array_equal(ours.total, np.bincount(place, minlength=4))
    mean = scipy.stats.binned_statistic(values, passed, "sum", edges).statistic
    assert_array_equal(ours.passed, mean)
    assert ours.outside == (~inside).sum()
    for k in range(4):
        expected = (0.0, 1.0)
        if ours.total[k]:
            test = scipy.stats.binomtest(int(ours.passed[k]), int(ours.total[k]))
            expected = test.proportion_ci(0.9, "exact")
        assert_allclose((ours.low[k], ours.high[k]), tuple(expected), atol=1e-9)


def test_bins_of_parts_add_to_the_whole():
    random = np.random.default_rng(7)
    values, passed = random.random(90), random.random(90) < 0.5
    whole = metrics.binned(values, passed, np.linspace(0, 1, 6))
    parts = [metrics.binned(values[k::3], passed[k::3], whole.edges) for k in range(3)]
    assert_array_equal(sum(part.passed for part in parts), whole.passed)
    assert_array_equal(sum(part.total for part in parts), whole.total)


def test_effective_counts_of_equal_weights_are_the_counts():
    passed = np.arange(50) < 20
    assert metrics.effective(passed, np.full(50, 3.0)) == pytest.approx((20.0, 50.0))
    assert metrics.effective(passed, np.zeros(50)) == (0.0, 0.0)
    uneven = np.where(passed, 1.0, 5.0)
    n = uneven.sum() ** 2 / (uneven**2).sum()
    assert metrics.effective(passed, uneven) == pytest.approx((n * 20 / 170, n))


def test_honest_probabilities_are_calibrated_and_sharpened_ones_are_not():
    random = np.random.default_rng(3)
    chance = random.random(200_000)
    happened = random.random(200_000) < chance
    honest = metrics.reliability(chance, happened)
    assert metrics.calibration_error(honest) < 0.005
    assert honest.rows.sum() == 200_000 and len(honest.rows) == 10
    assert ((honest.low < honest.share) & (honest.share < honest.high)).all()
    sharp = metrics.reliability(chance**2 / (chance**2 + (1 - chance) ** 2), happened)
    p = np.linspace(0, 1, 100_001)
    expected = np.mean(np.abs(p**2 / (p**2 + (1 - p) ** 2) - p))
    assert metrics.calibration_error(sharp) == pytest.approx(expected, abs=0.01)


def test_confusion_equals_scikit_learn():
    random = np.random.default_rng(4)
    truth, guess = random.integers(0, 4, (2, 500))
    expected = sklearn.metrics.confusion_matrix(truth, guess, labels=range(5))
    assert_array_equal(metrics.confusion(truth, guess, 5), expected)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.roc([1.0, np.nan], np.array([True, False])), "not finite"),
        (lambda: metrics.roc([1.0, 2.0], np.array([True, True])), "lacks one of the classes"),
        (lambda: metrics.roc([1.0, 2.0], [1, 0]), "give booleans"),
        (lambda: metrics.roc([1.0, 2.0], np.array([True])), "shapes"),
        (lambda: metrics.roc([1.0, 2.0], np.array([True, False]), [-1, 1]), "below 0"),
        (lambda: metrics.clopper_pearson(3, 2), "outside 0 to the total"),
        (lambda: metrics.binned([1.0], np.array([True, False]), [0, 2]), "shapes"),
        (lambda: metrics.binned([1.0], [1], [0, 2]), "give a boolean"),
        (lambda: metrics.binned([np.inf], np.array([True]), [0, 2]), "not finite"),
        (lambda: metrics.binned([1.0], np.array([True]), [2, 0]), "do not rise"),
        (lambda: metrics.reliability([1.5], [True]), "outside 0 to 1"),
        (lambda: metrics.reliability([], []), "equal lists"),
        (lambda: metrics.confusion([0, 3], [0, 1], 3), "outside 0 to 2"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
