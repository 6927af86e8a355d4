"""Classification figures show the numbers they are given, and refuse what cannot be drawn."""

import numpy as np
import pytest

from physml import metrics, plots
from physml.errors import DataError

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.random(400) < 0.4
CHANCE = np.clip(0.5 * TRUTH + 0.5 * RANDOM.random(400), 0, 1)
EDGES = np.linspace(0, 4, 5)


def test_roc_curves_and_their_areas():
    curve = metrics.roc(CHANCE, TRUTH)
    axes = plots.roc_curves({"nue": {"network": curve, "baseline": curve}}).axes[0]
    network, baseline, chance = axes.lines
    np.testing.assert_array_equal(network.get_xdata(), curve.efficiency)
    np.testing.assert_array_equal(network.get_ydata(), curve.mistaken)
    assert f"AUC {metrics.auc(CHANCE, TRUTH):.3f}" in network.get_label()
    assert network.get_color() == baseline.get_color()
    assert network.get_linestyle() != baseline.get_linestyle()
    np.testing.assert_array_equal(chance.get_xdata(), chance.get_ydata())


@pytest.mark.parametrize(
    "area, shown", [(0.5, "0.500"), (0.99949, "0.999"), (0.9997, "0.9997"), (1.0, "1.000")]
)
def test_an_area_below_1_is_not_shown_as_1(area, shown):
    right, wrong = np.array([0, 2 * area - 1, 1]), np.array([0, 0, 1])
    curve = metrics.Roc(np.array([np.inf, 0.5, 0]), right, wrong)
    label = plots.roc_curves({"edges": {"network": curve}}).axes[0].lines[0].get_label()
    assert label == f"edges, network: AUC {shown}"


def test_efficiencies_leave_empty_bins_out():
    low, high = metrics.clopper_pearson([1, 5, 9, 0], [10, 10, 10, 0])
    share = np.array([0.1, 0.5, 0.9, np.nan])
    axes = plots.efficiency(EDGES, {"a": (share, low, high)}, "energy (GeV)", "efficiency").axes[0]
    points = axes.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), [0.5, 1.5, 2.5])
    np.testing.assert_allclose(points.get_ydata(), share[:3])


def test_histograms_stack():
    counts = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([4.0, 3, 2, 1])}
    axes = plots.histograms(EDGES, counts, "score", "events", stacked=True).axes[0]
    tops = [patch.get_data().values for patch in axes.patches]
    np.testing.assert_array_equal(tops, [[1, 2, 3, 4], [5, 5, 5, 5]])
    side = plots.histograms(EDGES, counts, "score", "events", log=True).axes[0]
    assert side.get_yscale() == "log"
    np.testing.assert_array_equal(side.patches[1].get_data().values, counts["b"])


def test_reliability_and_its_error():
    curve = metrics.reliability(CHANCE, TRUTH)
    axes = plots.reliability_diagram({"network": curve}).axes[0]
    points = axes.containers[0].lines[0]
    np.testing.assert_array_equal(points.get_ydata(), curve.share)
    assert f"{metrics.calibration_error(curve):.3f}" in axes.containers[0].get_label()


def test_confusion_is_normalised_both_ways():
    counts = np.array([[8, 2], [0, 0]])
    rows, columns = plots.confusion_matrix(counts, ["numu", "nue"]).axes
    assert [t.get_text() for t in rows.texts] == ["0.80", "0.20", "0.00", "0.00"]
    assert [t.get_text() for t in columns.texts] == ["1.00", "1.00", "0.00", "0.00"]


def test_a_long_log_is_averaged_over_steps():
    step = np.arange(1.0, 1001)
    axes = plots.training({"loss": np.column_stack([step, 1 / step])}, "loss").axes[0]
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_ydata()[0], np.mean(1 / step[:10]))
    assert len(line.get_xdata()) == 100 and "mean of 10 steps" in line.get_label()


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: plots.efficiency(EDGES, {"a": ([0.5], [0.4], [0.6])}, "x", "y"), "for 4 bins"),
        (lambda: plots.efficiency(EDGES, {"a": ([2] * 4, [1] * 4, [3] * 4)}, "x", "y"), "outside"),
        (lambda: plots.histograms(EDGES, {"a": np.ones(3)}, "x", "y"), "3 counts for 4 bins"),
        (lambda: plots.histograms(EDGES, {"a": np.full(4, np.nan)}, "x", "y"), "not finite"),
        (lambda: plots.confusion_matrix(np.ones((2, 3)), ["a", "b"]), "square"),
        (lambda: plots.training({"loss": np.ones((0, 2))}, "loss"), "holds no values"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(DataError, match=message):
        draw()
