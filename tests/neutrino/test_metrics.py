"""Cut scans against counting, and figures that hold their numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from physml.errors import DataError
from physml.neutrino import plots
from physml.neutrino.metrics import figure_of_merit, scan

RANDOM = np.random.default_rng(0)
SIGNAL = RANDOM.random(500) < 0.2
SCORE = np.round(RANDOM.normal(size=500) + 1.5 * SIGNAL, 1)  # with ties
WEIGHT = RANDOM.gamma(1.0, size=500)
CUTS = np.linspace(-3, 5, 41)


def test_a_scan_is_a_count_at_every_cut():
    found = scan(SCORE, SIGNAL, WEIGHT, CUTS)
    for k, cut in enumerate(CUTS):
        s = WEIGHT[SIGNAL & (SCORE >= cut)].sum()
        b = WEIGHT[~SIGNAL & (SCORE >= cut)].sum()
        assert_allclose((found.signal[k], found.background[k]), (s, b), atol=1e-9)
        assert_allclose(found.efficiency[k], s / WEIGHT[SIGNAL].sum(), atol=1e-9)
    some = found.signal + found.background > 1e-6
    total = found.signal + found.background
    assert_allclose(found.purity[some], (found.signal / np.where(some, total, 1))[some])
    assert_allclose(found.merit[some] ** 2, (found.signal**2 / np.where(some, total, 1))[some])
    assert found.efficiency[0] == pytest.approx(1.0)


def test_the_merit_grows_with_the_root_of_the_exposure():
    one, four = (scan(SCORE, SIGNAL, k * WEIGHT, CUTS).merit for k in (1, 4))
    assert_allclose(four, 2 * one, atol=1e-9)
    assert figure_of_merit(9.0, 7.0) == pytest.approx(9 / 4)
    assert figure_of_merit(0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: scan(SCORE, SIGNAL[:9], WEIGHT, CUTS), "unlike length"),
        (lambda: scan(SCORE, SIGNAL & False, WEIGHT, CUTS), "no signal events"),
        (lambda: figure_of_merit(-1.0, 1.0), "negative"),
        (lambda: plots.event_displays(np.zeros((1, 2, 4, 3)), ["a"], "GeV"), "non-zero"),
        (lambda: plots.event_displays(np.ones((2, 2, 4, 3)), ["a"], "GeV"), "shape"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_displays_show_every_pixel_of_both_views():
    maps = np.zeros((1, 2, 5, 4))
    maps[0, 0, 1, 2], maps[0, 1, 3, 0] = 7.0, 2.0
    figure = plots.event_displays(maps, ["numu"], "energy (MeV)")
    x, y = (axes.images[0].get_array().filled(0) for axes in figure.axes[:2])
    np.testing.assert_array_equal(x, maps[0, 0].T)
    np.testing.assert_array_equal(y, maps[0, 1].T)
    assert figure.axes[0].images[0].norm is figure.axes[1].images[0].norm  # one colour scale


def test_scans_name_the_best_cut():
    found = scan(SCORE, SIGNAL, WEIGHT, CUTS)
    figure = plots.cut_scans({"network": found}, "nue score", title="1e21 POT")
    best = np.argmax(found.merit)
    label = figure.axes[1].lines[0].get_label()
    assert f"{found.merit[best]:.2f} at {found.cut[best]:.2f}" in label
