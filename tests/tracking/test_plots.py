"""Figures of the tracking domain show what they are given."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from physml.errors import ConfigError, DataError
from physml.tracking import plots
from physml.tracking.edge_metrics import edge_counts
from physml.tracking.events import Collision, Hits, Particles, Target, tracks_of
from physml.tracking.geometry import trackml
from physml.tracking.metrics import concatenate, efficiency_in, fakes_in, match_tracks

DETECTOR = trackml()
LAYERS = np.flatnonzero(DETECTOR.barrel)
TARGET = Target(min_layers=3)


def fan(pt, copies=1):
    """Straight particles through the barrel at equal angles, the first at phi = 0.05, and noise."""
    n, m = len(pt) * copies, len(LAYERS)
    phi = 0.05 + 2 * np.pi * np.arange(n) / n
    phi = (phi + np.pi) % (2 * np.pi) - np.pi
    ray = np.stack([np.cos(phi), np.sin(phi), 0.3 * np.ones(n)], axis=1)
    position = (ray[:, None] * DETECTOR.place[LAYERS][:, None]).reshape(-1, 3)
    position = np.concatenate([position, [[500.0, 0.0, 0.0]]])
    layer = np.append(np.tile(LAYERS, n), LAYERS[6]).astype(np.int32)
    hits = Hits(position, layer, np.full(len(layer), -1, np.int32), np.arange(len(layer)))
    particles = Particles(
        np.arange(1, n + 1), np.full(n, 211, np.int32), np.ones(n, np.int8),
        np.zeros((n, 3)), ray * np.tile(pt, copies)[:, None],
    )  # fmt: skip
    return Collision(3, hits, particles, np.append(np.repeat(np.arange(n), m), -1).astype(np.int32))


def small():
    """Targets 0 (found) and 1 (missed), particle 2 (no target, found), and a fake of three."""
    made, m = fan([5.0, 5.0, 0.3]), len(LAYERS)
    tracks = tracks_of([np.arange(m), 2 * m + np.arange(m), np.array([m, 2, 2 * m + 4])])
    return made, tracks, match_tracks(tracks, made, TARGET)


def drawn(axes):
    """Label -> segments."""
    found = [c for c in axes.collections if isinstance(c, LineCollection)]
    return {c.get_label(): np.array(c.get_segments()) for c in found}


def test_displays_hold_the_lines_of_targets_and_tracks():
    made, tracks, matches = small()
    m = len(LAYERS)
    shown = plots.display(made, tracks, matches)
    assert shown.truth.shape == (2, 2 * (m - 1)) and shown.found.sum() == m - 1
    assert (made.particle[shown.truth[0]] == made.particle[shown.truth[1]]).all()
    assert set(made.particle[shown.truth[0][shown.found]]) == {0}
    assert [(shown.kind == k).sum() for k in (plots.FAKE, plots.OTHER, plots.MATCHED)] == [
        2, m - 1, m - 1,
    ]  # fmt: skip
    right = shown.tracks[:, shown.kind == plots.MATCHED]
    np.testing.assert_array_equal(right, [np.arange(m - 1), np.arange(1, m)])
    fake = shown.tracks[:, shown.kind == plots.FAKE]
    np.testing.assert_array_equal(fake, [[m, 2], [2, 2 * m + 4]])


def test_tracks_too_short_are_not_shown():
    made, tracks, _ = small()
    shown = plots.display(made, tracks, match_tracks(tracks, made, TARGET, min_hits=4))
    assert (shown.kind != plots.FAKE).all()


def test_event_display_shows_truth_beside_reconstruction():
    made, tracks, matches = small()
    m = len(LAYERS)
    shown = plots.display(made, tracks, matches)
    figure = plots.event_display(shown, DETECTOR, title="event 3")
    across, found, along, _ = figure.axes
    truth, reconstructed = drawn(across), drawn(found)
    np.testing.assert_allclose(
        truth["found"][:, 0], made.hits.position[: m - 1, :2], rtol=1e-6, atol=1e-4
    )
    assert len(truth["missed"]) == m - 1
    sizes = {name: len(lines) for name, lines in reconstructed.items()}
    assert sizes == {"of targets": m - 1, "of other particles": m - 1, "fakes": 2}
    r = np.hypot(*made.hits.position[0, :2])
    np.testing.assert_allclose(drawn(along)["found"][0, 0], [0.3 * r, r], rtol=1e-6)
    assert (across.get_xlabel(), along.get_xlabel(), along.get_ylabel()) == (
        "x (mm)", "z (mm)", "r (mm)",
    )  # fmt: skip
    hits = next(line for line in across.lines if line.get_label() == "hits")
    assert len(hits.get_xdata()) == len(made.particle)
    assert figure.get_suptitle() == "event 3"


def test_a_wedge_holds_its_hits_only():
    made, tracks, matches = small()
    shown = plots.display(made, tracks, matches)
    figure = plots.event_display(shown, DETECTOR, phi=(-0.1, 0.1))
    lines = drawn(figure.axes[0])
    assert len(lines["found"]) == len(LAYERS) - 1
    assert "missed" not in lines  # no entry of the legend that cannot be seen
    hits = next(line for line in figure.axes[0].lines if line.get_label() == "hits")
    assert len(hits.get_xdata()) == len(LAYERS) + 1  # and the noise at phi = 0
    assert figure.get_suptitle() == "-0.10 < phi < 0.10 rad"


def test_tracks_without_truth_are_shown_alone():
    made, tracks, _ = small()
    bare = made._replace(particles=None, particle=None)
    shown = plots.display(bare, tracks, None)
    assert shown.truth is None and (shown.kind == plots.UNKNOWN).all()
    figure = plots.event_display(shown, DETECTOR)
    assert drawn(figure.axes[0]) == {} and figure.axes[0].get_title() == "hits"
    assert {k: len(v) for k, v in drawn(figure.axes[1]).items()} == {"tracks": shown.kind.size}
    none = plots.event_display(plots.display(bare, tracks_of([]), None), DETECTOR)
    assert none.axes[0].get_title() == "hits" and not drawn(none.axes[1])


def test_a_single_hit_can_be_shown():
    position = np.array([[30.0, 0.0, 5.0]], np.float32)
    none = np.zeros((2, 0), np.int32)
    alone = plots.Display(position, None, None, none, np.zeros(0, np.int8))
    low, high = plots.event_display(alone, DETECTOR).axes[0].get_xlim()
    assert low < 30.0 < high


def test_crowded_collisions_are_drawn_as_a_wedge():
    made = fan([5.0], copies=3000)
    tracks = tracks_of([])
    shown = plots.display(made, tracks, match_tracks(tracks, made, TARGET))
    axes = plots.event_display(shown, DETECTOR).axes[0]
    assert len(drawn(axes)["missed"]) == pytest.approx(plots.MOST_LINES, rel=0.05)
    whole = plots.event_display(shown, DETECTOR, phi=(-np.pi, np.pi)).axes[0]
    assert len(drawn(whole)["missed"]) == 3000 * (len(LAYERS) - 1)
    (hits,) = (line for line in whole.lines if line.get_label().startswith("hits"))
    assert hits.get_label() == "hits (1 in 2)" and len(hits.get_xdata()) <= plots.MOST_HITS


def test_efficiencies_and_fakes_name_style_variable_and_unit():
    made, tracks, matches = small()
    fitted = matches._replace(
        tracks=matches.tracks._replace(pt=np.array([5.0, 2.0, 0.0]), eta=np.array([0.3, 0.3, 1.0]))
    )
    both = concatenate([fitted, fitted])
    shares = efficiency_in(both, "pt")
    assert (shares.passed.sum(), shares.total.sum(), shares.outside) == (2, 4, 0)
    axes = plots.efficiencies({"network": shares, "baseline": shares}, "pt", "two_way").axes[0]
    assert axes.get_xlabel() == "transverse momentum of the particle (GeV)"
    assert axes.get_ylabel() == "track efficiency (two_way)" and axes.get_xscale() == "log"
    assert axes.containers[0].lines[0].get_ydata() == [0.5]
    assert -0.1 < axes.get_ylim()[0] < 0  # a marker at 0 is whole
    high = shares._replace(passed=shares.total, low=np.where(shares.total > 0, 0.93, 0.0))
    axes = plots.efficiencies({"network": high}, "pt", "two_way").axes[0]
    bottom, top = axes.get_ylim()
    assert 0.89 < bottom < 0.9 and 1.0 < top < 1.01
    wrong = fakes_in(both, "eta")
    assert (wrong.passed.sum(), wrong.total.sum()) == (2, 6)
    assert fakes_in(both, "eta", on_target=True).total.sum() == both.target_fake_rate.total
    axes = plots.fakes({"network": wrong}, "eta", "atlas").axes[0]
    assert axes.get_ylabel() == "fake rate of tracks (atlas)" and axes.get_xscale() == "linear"
    assert "fitted" in axes.get_xlabel()
    np.testing.assert_allclose(sorted(axes.containers[0].lines[0].get_ydata()), [0.0, 1.0])
    assert fakes_in(both, "pt").outside == 2  # without a fit
    assert efficiency_in(both, "pt", [0.1, 1.0]).outside == 4
    with pytest.raises(DataError, match="of particles: have no mu"):
        efficiency_in(matches, "mu")
    with pytest.raises(DataError, match="of tracks: have no radius"):
        fakes_in(both, "radius")
    with pytest.raises(DataError, match="of tracks: have no pt"):
        fakes_in(matches, "pt")


def edges():
    """Ten edges with scores from 0.05 to 0.95; one with score 1."""
    scores = np.append(np.arange(10) / 10 + 0.05, 1.0)
    label = np.append(np.arange(10) >= 6, True)
    counted = np.append(~np.isin(np.arange(10), [3, 5]), True)
    return scores, label, counted


def test_score_histograms_hold_every_edge():
    scores, label, counted = edges()
    counts = edge_counts(scores, label, counted, 5, np.linspace(0, 1, 11))
    axes = plots.scores(counts).axes[0]
    assert axes.get_yscale() == "log"
    kinds = {p.get_label(): p.get_data().values for p in axes.patches}
    for name, mine in {
        "true, target": label, "true, other": ~counted, "fake": counted & ~label
    }.items():  # fmt: skip
        np.testing.assert_array_equal(
            kinds[name], np.histogram(scores[mine], np.linspace(0, 1, 11))[0]
        )


def test_purities_against_efficiency():
    scores, label, counted = edges()
    counts = edge_counts(scores, label, counted, 5, np.linspace(0, 1.2, 13))
    figure = plots.purities({"network": counts}, references={"acorn": (0.992, 0.929)}, lowest=0.8)
    whole, near = figure.axes
    masked, total, reference = whole.lines
    assert len(masked.get_xdata()) == 11  # nothing passes above 1
    np.testing.assert_allclose(masked.get_ydata()[0], 5 / 9)
    np.testing.assert_allclose(total.get_ydata()[0], 7 / 11)
    assert reference.get_xdata() == [0.992] and near.get_xlim()[0] == pytest.approx(0.8, abs=0.01)
    assert whole.get_xlim()[0] == pytest.approx(0.0, abs=0.05)


def test_times_of_stages():
    runs = {"10k hits": {"graph": 0.05, "network": 0.4}, "100k hits": {"graph": 0.5, "network": 4}}
    figure = plots.stage_times(runs)
    (axes,), (legend,) = figure.axes, figure.legends
    assert [t.get_text() for t in axes.get_yticklabels()] == ["graph", "network"]
    np.testing.assert_allclose([p.get_width() for p in axes.patches], [0.05, 0.4, 0.5, 4])
    assert [t.get_text() for t in axes.texts] == ["50 ms", "400 ms", "500 ms", "4.00 s"]
    labels = [t.get_text() for t in legend.get_texts()]
    assert labels == ["10k hits: 450 ms in all", "100k hits: 4.50 s in all"]
    tops = [t.get_position()[1] for t in axes.get_yticklabels()]
    assert tops[0] > tops[1] and axes.patches[0].get_y() > axes.patches[2].get_y()


SHOWN = plots.display(*small())


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: plots.event_display(SHOWN, DETECTOR, phi=(1, 0)), ConfigError, "rising range"),
        (lambda: plots.event_display(SHOWN, DETECTOR, phi=(0, 4)), ConfigError, "rising range"),
        (lambda: plots.event_display(SHOWN, DETECTOR, phi=(1.0, 1.1)), DataError, "no hit at phi"),
        (
            lambda: plots.scores(edge_counts(*edges(), 5, np.array([0.5]))),
            DataError, "fewer than two cuts",
        ),
        (lambda: plots.stage_times({}), DataError, "same stages"),
        (lambda: plots.stage_times({"a": {"x": 1}, "b": {"y": 1}}), DataError, "same stages"),
        (lambda: plots.stage_times({"a": {"x": np.nan}}), DataError, "measure them again"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
