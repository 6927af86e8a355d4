"""Efficiency figures show the counts they are given with exact intervals, and hide nothing."""

import numpy as np
import pytest
import scipy.stats

from physml import metrics, plots
from physml.errors import DataError

EDGES = np.geomspace(1.0, 16.0, 5)  # 1 2 4 8 16


def made(n=200, edges=EDGES, seed=0):
    random = np.random.default_rng(seed)
    return metrics.binned(np.exp(random.uniform(0, 2, n)), random.random(n) < 0.8, edges)


def points(axes, k=0):
    """x, share, low and high of a series as drawn."""
    line, _, bars = axes.containers[k].lines
    up = np.array([segment[:, 1] for segment in bars[1].get_segments()])
    return line.get_xdata(), line.get_ydata(), up[:, 0], up[:, 1]


def test_points_are_shares_with_clopper_pearson_bars_and_empty_bins_are_left_out():
    found = made()
    assert found.total[-1] == 0  # exp(2) is below 8
    axes = plots.shares({"network": found}, "pT (GeV)", "efficiency", log_x=True).axes[0]
    x, share, low, high = points(axes)
    np.testing.assert_allclose(x, np.sqrt(EDGES[:-2] * EDGES[1:-1]))
    np.testing.assert_allclose(share, found.passed[:3] / found.total[:3])
    for k in range(3):
        test = scipy.stats.binomtest(int(found.passed[k]), int(found.total[k]))
        exact = test.proportion_ci(metrics.ONE_SIGMA, "exact")
        assert (low[k], high[k]) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert axes.get_xscale() == "log" and axes.get_ylim() == (0.0, 1.05)
    assert axes.get_xlim() == pytest.approx((1.0, 16.0))


def test_methods_stand_beside_each_other_within_their_bins():
    series = {name: made(seed=k) for k, name in enumerate("abc")}
    for log in (True, False):
        axes = plots.shares(series, "pT (GeV)", "efficiency", log_x=log).axes[0]
        x = np.array([points(axes, k)[0] for k in range(3)])
        assert (np.diff(x, axis=0) > 0).all()
        assert (EDGES[:3] < x[0]).all() and (x[2] < EDGES[1:4]).all()
        middle = (EDGES[:-1] + EDGES[1:]) / 2 if not log else np.sqrt(EDGES[:-1] * EDGES[1:])
        np.testing.assert_allclose(x[1], middle[:3])
        looks = {(c.lines[0].get_color(), c.lines[0].get_marker()) for c in axes.containers}
        assert len(looks) == 3


def test_points_in_wide_bins_stay_at_their_middle():
    found = metrics.binned(np.array([10.0, 20.0]), np.ones(2, bool), [5.0, 15.0, 25.0])
    axes = plots.shares({"a": found, "b": found}, "mu", "efficiency").axes[0]
    x = np.array([points(axes, k)[0] for k in range(2)])
    np.testing.assert_allclose(x.mean(axis=0), [10, 20])
    assert (np.abs(x - [10, 20]) < 0.01 * 20).all()  # of the axis


def test_rows_outside_are_named_and_small_rates_fill_the_axis():
    found = metrics.binned(np.array([0.1, 1.5, 3.0, 99.0]), np.zeros(4, bool), EDGES)
    axes = plots.shares({"fit": found}, "pT (GeV)", "fakes", log_x=True, y_range=None).axes[0]
    assert axes.containers[0].get_label() == "fit\n(2 outside the axis)"
    bottom, top = axes.get_ylim()
    assert -0.05 < bottom < 0 and found.high[:2].max() < top <= 1.05


@pytest.mark.parametrize(
    "series, options, message",
    [
        ({"a": made(), "b": made(edges=EDGES[:-1])}, {}, "b: has other bins than the first"),
        ({"a": made(edges=EDGES + 99)}, {}, "its bins hold nothing"),
        ({"a": made(edges=EDGES - 1)}, {"log_x": True}, "bins from 0"),
        ({"a": made()}, {"y_range": (0.95, 1.0)}, "shares outside"),
        ({}, {}, "no series"),
    ],
)
def test_what_cannot_be_drawn_is_refused(series, options, message):
    with pytest.raises(DataError, match=message):
        plots.shares(series, "pT (GeV)", "efficiency", **options)
