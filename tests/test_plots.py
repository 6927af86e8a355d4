"""Figures carry the numbers they should, and leave matplotlib's settings alone."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from physml import plots
from physml.errors import DataError

ACTUAL = np.array([1.0, 2.0, 3.0, 4.0])
PREDICTED = np.array([1.0, 2.0, 3.0, 6.0])  # errors 0 0 0 2: RMSE 1, MAE 0.5
CLASSES = np.array([b"V2", b"V2", b"I1", b"I1"])


def words(figure):
    axes = figure.axes[0]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    return "\n".join(text.get_text() for text in axes.texts), legend


def test_parity_prints_its_errors_on_equal_axes():
    figure = plots.parity(
        ACTUAL, PREDICTED, "entropy", "kB", classes=CLASSES, bars=np.ones(4),
        train=(ACTUAL, ACTUAL + 3.0), baseline=ACTUAL - 4.0,
    )  # fmt: skip
    said, legend = words(figure)
    assert "test RMSE 1.00, MAE 0.50 kB" in said
    assert "train RMSE 3.00, MAE 3.00 kB" in said
    assert "class mean RMSE 4.00, MAE 4.00 kB" in said
    assert legend == ["train", "I1", "V2", "predictive interval"]
    axes = figure.axes[0]
    assert axes.get_xlim() == axes.get_ylim() and axes.get_aspect() == 1.0
    assert axes.get_xlim()[0] < 1.0 and axes.get_xlim()[1] > 7.0
    assert axes.get_xlabel() == "entropy, computed (kB)"


def test_residuals_are_predicted_minus_computed():
    axes = plots.residuals(ACTUAL, PREDICTED, "entropy", "kB").axes[0]
    drawn = np.concatenate([line.get_ydata() for line in axes.lines[1:]])
    np.testing.assert_allclose(drawn, PREDICTED - ACTUAL)


def test_learning_curve_draws_mean_and_spread_of_folds():
    errors = np.array([[2.0, 4.0], [1.0, 1.0]])
    figure = plots.learning_curve(
        {"linear": (np.array([10, 100]), errors)}, "n", "MAE (kB)", baselines={"mean": 5.0}
    )
    (container,) = figure.axes[0].containers
    line, _, (bars,) = container.lines
    np.testing.assert_allclose(line.get_ydata(), [3.0, 1.0])
    spread = bars.get_segments()[0][:, 1]
    np.testing.assert_allclose(spread, 3.0 + np.sqrt(2) * np.array([-1, 1]))
    assert set(words(figure)[1]) == {"linear", "mean"}


def test_bars_and_scatter_label_what_they_draw():
    figure = plots.bars(
        ["I1", "V2"], {"a": [1, 2], "b": [3, 4]}, "MAE", markers={"mean": [5, 6]}, lines={"p": 0.2}
    )
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == [1, 2, 3, 4]
    assert set(words(figure)[1]) == {"a", "b", "mean", "p"}
    figure = plots.scatter(
        ACTUAL, PREDICTED, "x", "y", classes=CLASSES, labelled={"star": (1.0, 1.0)}
    )
    assert words(figure) == ("1", ["I1", "V2", "1 star"])


def test_one_point_and_equal_values_draw(tmp_path):
    one = np.array([2.0])
    plots.save(plots.parity(one, one, "q", "u"), tmp_path / "one.png")
    assert imread(tmp_path / "one.png").shape[0] > 500


def test_settings_of_matplotlib_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    figure = plots.parity(ACTUAL, PREDICTED, "q", "u")
    plots.save(figure, tmp_path / "new" / "a.png")
    assert dict(matplotlib.rcParams) == before
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_colours_and_markers_of_classes_are_distinct():
    labels = np.array(list("abcdefgh"))
    figure = plots.residuals(np.arange(8.0), np.zeros(8), "q", "u", classes=labels)
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines[1:]}
    assert len({c for c, _ in looks}) == len({m for _, m in looks}) == 8


def test_twenty_classes_look_different():
    labels = np.array([f"c{k:02d}" for k in range(20)])
    figure = plots.residuals(np.arange(20.0), np.zeros(20), "q", "u", classes=labels)
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines[1:]}
    assert len(looks) == 20


def test_rare_classes_lie_above_common_ones():
    classes = np.array(["A"] * 3 + ["B"] * 30 + ["C"] * 10)
    lines = plots.scatter(np.arange(43.0), np.arange(43.0), "x", "y", classes=classes).axes[0].lines
    height = {line.get_label(): line.get_zorder() for line in lines}
    assert height["B"] < height["C"] < height["A"]


def test_the_band_of_residuals_holds_their_quantiles():
    """Normal errors: the central 68 % reach one standard deviation, here twice as wide above 5."""
    random = np.random.default_rng(0)
    actual = np.linspace(0.0, 10.0, 6000)
    error = 0.5 + random.normal(size=6000) * np.where(actual > 5.0, 2.0, 1.0)
    lines = plots.residuals(actual, actual + error, "q", "u").axes[0].lines
    median, low, high = lines[-3:]
    assert (median.get_label(), low.get_label()) == ("median", "central 68 %")
    width = np.where(np.asarray(median.get_xdata()) > 5.0, 2.0, 1.0)
    np.testing.assert_allclose(median.get_ydata(), 0.5, atol=0.3)
    np.testing.assert_allclose((high.get_ydata() - low.get_ydata()) / (2 * width), 1.0, atol=0.15)


def test_learning_curve_marks_its_sizes_and_says_what_the_bars_are():
    errors = np.array([[2.0, 4.0], [1.0, 1.5], [0.5, 0.6]])
    axes = plots.learning_curve({"a": (np.array([210, 420, 840]), errors)}, "n", "MAE").axes[0]
    assert list(axes.get_xticks()) == [210, 420, 840]
    assert "2 folds" in axes.get_legend().get_title().get_text()


def test_numbers_stand_above_bars_and_markers_lie_within():
    axes = plots.bars(["I1"], {"a": [1.234]}, "MAE", markers={"mean": [7.0]}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.23"]
    assert axes.get_ylim()[1] > 7.0


NAN, ONE = np.array([1.0, np.nan]), np.array([1.0, 2.0])


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: plots.parity(ONE, NAN, "q", "u"), "q: .* 1 values are not finite"),
        (lambda: plots.parity(ONE, ONE[:1], "q", "u"), r"shapes \(2,\) and \(1,\)"),
        (lambda: plots.parity(ONE[:0], ONE[:0], "q", "u"), "holds no values"),
        (lambda: plots.parity(ONE, ONE, "q", "u", train=(ONE, NAN)), "q of training"),
        (lambda: plots.parity(ONE, ONE, "q", "u", bars=NAN), "not finite"),
        (lambda: plots.parity(ONE, ONE, "q", "u", bars=-ONE), "is negative"),
        (lambda: plots.parity(ONE, ONE, "q", "u", baseline=ONE[:1]), "shapes"),
        (lambda: plots.residuals(ONE, ONE, "q", "u", classes=CLASSES), r"classes: has shape \(4,"),
        (lambda: plots.scatter(ONE, NAN, "x", "y"), "y: .* not finite"),
        (lambda: plots.learning_curve({"a": (ONE, 0 * ONE)}, "n", "e"), "must be positive"),
        (lambda: plots.learning_curve({"a": (ONE, ONE[:1])}, "n", "e"), "shapes"),
        (lambda: plots.bars(["I1", "I2"], {"a": [1.0]}, "e"), "shapes"),
        (lambda: plots.bars(["I1"], {"a": [1.0]}, "e", markers={"m": [np.nan]}), "m: .* not fin"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(draw, message):
    with pytest.raises(DataError, match=message) as error:
        draw()
    assert "\n" not in str(error.value)


def test_plots_load_neither_pyplot_nor_jax():
    code = "import sys, physml.plots; print({'jax', 'matplotlib.pyplot'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "outlier, place", [((1.0, 10.0), (0.97, 0.03)), ((10.0, 1.0), (0.03, 0.97))]
)
def test_errors_stand_where_no_outlier_lies(outlier, place):
    actual = np.append(np.linspace(1.0, 10.0, 50), outlier[0])
    predicted = np.append(np.linspace(1.0, 10.0, 50), outlier[1])
    (text,) = plots.parity(actual, predicted, "q", "u").axes[0].texts
    assert text.get_position() == place
