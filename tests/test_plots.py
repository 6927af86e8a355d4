"""Figures carry the numbers they should, and leave matplotlib's settings alone."""

import matplotlib
import numpy as np
from matplotlib.image import imread

from physml import plots

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
    assert legend == ["train", "I1", "V2"]
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
