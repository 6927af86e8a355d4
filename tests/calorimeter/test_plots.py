"""Calorimeter figures show the numbers they are given, and refuse what cannot be drawn."""

from typing import NamedTuple

import numpy as np
import pytest

from physml.calorimeter import geometry, images, panels, plots
from physml.calorimeter.panels import Histogram, Points
from physml.errors import DataError

EDGES = np.linspace(0, 4, 5)
TRUTH, MADE = np.array([0.5, 1.5, 1.5, 9.0]), np.array([0.5, 0.5, 0.5, 1.5, 2.5])


class Target(NamedTuple):
    sample: str
    name: str
    low: float
    high: float
    geant4: float
    geant4_error: float
    maker: float
    maker_error: float
    allowed: float


def points(*values):
    return Points(np.array(values, float), np.full(len(values), 0.01))


def ratios(axes):
    """Values of a ratio panel that lie inside it."""
    return axes.containers[0].lines[0].get_ydata()


def test_histograms_keep_their_totals_when_packed():
    found = panels.binned((TRUTH, MADE), EDGES)
    np.testing.assert_array_equal(found.truth, [1, 2, 0, 0])
    again = panels.unpacked(found.packed())
    assert again.total == (4, 5)
    for a, b in zip(found[:3], again[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_panel_shows_shares_and_says_what_lies_outside():
    figure = plots.histogram_panels({"a": panels.binned((TRUTH, MADE), EDGES)}, "x (mm)")
    above, below = figure.axes
    assert "outside: truth 25.0%, gen. 0.0%" in above.get_title()
    np.testing.assert_allclose(above.patches[0].get_data().values, [0.25, 0.5, 0, 0])
    np.testing.assert_allclose(above.patches[1].get_data().values, [0.6, 0.2, 0.2, 0])
    assert below.get_xlabel() == "x (mm)"


def test_the_error_of_a_ratio_is_that_of_two_counts():
    random = np.random.default_rng(0)
    a, b = random.poisson(400, 20_000), random.poisson(900, 20_000)
    found = panels.ratio_of(
        Points(np.array([400.0]), np.array([20.0])), Points(np.array([900.0]), np.array([30.0]))
    )
    assert found.value[0] == pytest.approx(2.25)
    assert found.error[0] == pytest.approx((b / a).std(), rel=0.05)


def test_ratios_need_a_known_truth_and_mark_what_lies_beyond():
    counts = np.array([100.0, 100, 100, 4, 0]), np.array([100.0, 900, 10, 4, 50])
    found = Histogram(np.linspace(0, 5, 6), *counts, (304.0, 1064.0))
    below = plots.histogram_panels({"a": found}, "x").axes[1]
    assert len(ratios(below)) == 0  # 0.29, 2.57, 0.03; then a truth of 4 and of 0
    up, down = below.lines[-2:]
    assert (len(up.get_xdata()), len(down.get_xdata())) == (1, 2)
    np.testing.assert_allclose(down.get_xdata(), [0.5, 2.5])


@pytest.mark.parametrize("far, span", [(1.02, 0.05), (1.15, 0.2), (0.6, 0.5), (9.0, 0.5)])
def test_ratio_panels_are_as_narrow_as_they_can_be(far, span):
    pair = points(1, 1), Points(np.array([1.0, far]), np.full(2, 0.001))
    figure = plots.against(np.array([1.0, 2.0]), {"mean": pair}, "energy (GeV)")
    assert figure.axes[1].get_ylim() == pytest.approx((1 - span, 1 + span))


def test_a_spectrum_is_drawn_with_its_ratio():
    edges = np.geomspace(1, 100, 3)
    figure = plots.spectrum(edges, (points(1, 2), points(1.1, 2)), "energy (MeV)", "voxels")
    np.testing.assert_allclose(ratios(figure.axes[1]), [1.1, 1.0])


def test_a_bar_that_reaches_zero_does_not_stretch_the_axis():
    pair = Points(np.array([10.0, 0.002, 0]), np.array([1.0, 0.002, 0])), points(10, 0.004, 0)
    above = plots.spectrum(np.geomspace(1, 100, 4), pair, "energy (MeV)", "voxels").axes[0]
    low, high = above.get_ylim()
    assert 1e-4 < low < 0.002 and high > 10


@pytest.mark.parametrize("make", [geometry.dataset_1_photons, geometry.calogan])
def test_images_show_every_voxel_of_every_layer(make):
    layers = make().layers
    rows = [np.arange(1.0, layer.size + 1) for layer in layers]
    ratio = [np.full(layer.size, 1.2) for layer in layers]
    figure = images.mean_showers(layers, {"truth": rows}, "MeV", ratio=ratio)
    drawn = [axes.collections[0] for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(drawn) == 2 * len(layers)
    for mesh, values in zip(drawn, rows + ratio, strict=True):
        np.testing.assert_array_equal(np.unique(mesh.get_array()), np.unique(values))


def test_the_innermost_ring_is_drawn_innermost():
    layer = geometry.polar_layer(0, 4, (0.0, 1.0, 3.0))
    values = np.array([10.0, 1.0] * 4)  # rings run fastest
    figure = images.mean_showers([layer], {"truth": [values]}, "MeV")
    mesh = next(axes.collections[0] for axes in figure.axes if axes.name == "polar")
    np.testing.assert_array_equal(np.unique(mesh.get_array()[0]), [10.0])
    np.testing.assert_array_equal(mesh.get_coordinates()[:, 0, 1], [0, 1, 2])


def test_correlations_and_their_difference():
    a, b = np.array([[1, 0.5], [0.5, 1]]), np.array([[1, 0.75], [0.75, 1]])
    figure = images.correlation_matrices({"energies": (a, b)}, [0, 12])
    texts = [[t.get_text() for t in axes.texts] for axes in figure.axes[:3]]
    assert texts[0] == ["1.00", "0.50", "0.50", "1.00"]
    assert texts[2] == ["0.00", "0.25", "0.25", "0.00"]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "12"]


def test_speeds_draw_a_single_time_as_a_line():
    curves = {"ours": (np.array([1, 100]), np.array([0.1, 0.01])), "Geant4": ([1], [100.0])}
    axes = plots.speeds(curves).axes[0]
    ours, line = axes.lines
    np.testing.assert_array_equal(ours.get_ydata(), [0.1, 0.01])
    np.testing.assert_array_equal(line.get_ydata(), [100.0, 100.0])
    assert "100 ms" in line.get_label()


def test_scores_that_are_not_positive_are_written_on_a_logarithmic_axis():
    scores = {"KPD": {"ours": (-0.03, 0.1), "other": (2.0, 0.0), "far": (495.2, 41.0)}}
    axes = plots.score_dots(scores, log=["KPD"]).axes[0]
    assert {t.get_text() for t in axes.texts} == {"-0.03 ± 0.1", "2", "495 ± 40"}
    assert len(axes.containers) == 2
    assert [t.get_text() for t in axes.get_yticklabels()] == ["ours", "other", "far"]


def test_maker_panels_hold_values_ratios_and_the_allowed_band():
    targets = [
        Target(sample, "depth", low, high, 10.0, 0.1, 10.5, 0.05, 0.03)
        for sample in ("W", "Pb")
        for low, high in ((1.0, 5.0), (5.0, 20.0))
    ]
    labels = {"W": "tungsten", "Pb": "lead", "depth": "mean depth (X0)"}
    figure = plots.maker_figure(targets, labels)
    assert len(figure.axes) == 4
    above, below = figure.axes[:2]
    assert (above.get_title(), above.get_ylabel()) == ("tungsten", "mean depth (X0)")
    np.testing.assert_allclose(ratios(below), [1.05, 1.05])
    (band,) = below.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.97, 1.03))
    assert band.get_label() == "allowed"


def test_a_generator_that_hits_nothing_is_drawn_beside_the_truth():
    figure = plots.histogram_panels({"a": panels.binned((TRUTH, MADE[:0]), EDGES)}, "x")
    assert "gen. 100.0%" in figure.axes[0].get_title()


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: plots.histogram_panels({}, "x"), "has no panels"),
        (
            lambda: plots.histogram_panels({"a": panels.binned((TRUTH[:0], MADE), EDGES)}, "x"),
            "the truth holds nothing",
        ),
        (
            lambda: plots.against(np.ones(2), {"m": (points(1, np.nan), points(1, 1))}, "x"),
            "not finite",
        ),
        (
            lambda: plots.spectrum(EDGES + 1, (points(1, 2), points(1, 2, 3, 4)), "x", "y"),
            "cannot be drawn",
        ),
        (lambda: plots.speeds({"a": ([1, 2], [1.0, 0.0])}), "not positive"),
        (lambda: plots.maker_figure([], {}), "no targets"),
        (
            lambda: images.mean_showers(
                [geometry.polar_layer(0, 1, (0, 1))], {"truth": [np.zeros(1)]}, "MeV"
            ),
            "no energy",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(DataError, match=message):
        draw()
