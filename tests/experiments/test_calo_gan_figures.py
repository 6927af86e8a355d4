"""Comparison of showers with generated ones, and the figures drawn from it alone."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from experiments.calo_gan.comparison import (
    compare,
    energy_groups,
    energy_label,
    nearest,
    range_label,
)
from experiments.calo_gan.figures import figures
from physml.calorimeter import geometry, metrics
from physml.calorimeter.events import Showers, select
from physml.errors import DataError

CARD = "judge {}".format
ALWAYS = {
    "average_shower", "average_by_energy", "response", "response_by_energy", "sparsity",
    "response_and_resolution", "layer_shares", "layer_energies", "centre_r", "width_r",
    "voxel_spectrum", "correlations",
}  # fmt: skip


def showers(seed, n, voxels, energies=(1e3, 1e4, 1e5)):
    """Deposits of random shares in half of the voxels; nothing of a calorimeter in them."""
    random = np.random.default_rng(seed)
    energy = np.repeat(np.array(energies), n // len(energies))
    weight = random.exponential(size=(len(energy), voxels))
    weight *= random.random((len(energy), 1)) * 0.5 + 0.5 > random.random(weight.shape)
    weight[:, 0] += 1e-3
    share = weight / weight.sum(axis=1, keepdims=True)
    response = random.normal(0.9, 0.05, len(energy))
    return Showers(energy, (share * (energy * response)[:, None]).astype(np.float32))


@pytest.fixture(scope="module")
def small():
    """Two layers of rings, one with sectors."""
    layers = geometry.polar_layer(0, 1, (0, 5, 10)), geometry.polar_layer(4, 4, (0, 5, 10, 20))
    return geometry.Geometry(layers, "photon", 1.0)


@pytest.fixture(scope="module")
def samples(small):
    """Truth, generated and training showers."""
    return [showers(seed, 600, small.size) for seed in (1, 2, 3)]


def test_equal_samples_differ_in_nothing(samples, small):
    numbers, arrays = compare(samples[0], samples[0], small, samples[2])
    for name, value in numbers.items():
        if "generated over truth" in name:
            assert value == pytest.approx(1.0), name
        if "worst" in name or "largest" in name:
            assert value == pytest.approx(0.0, abs=1e-12), name
    np.testing.assert_array_equal(arrays["nearest truth"], arrays["nearest generated"])


def test_more_energy_shows_in_the_response_and_in_nothing_else(samples, small):
    truth = samples[0]
    made = Showers(truth.incident_energy, truth.deposits * np.float32(1.04))
    numbers, _ = compare(truth, made, small)
    assert numbers["mean of E_tot/E_inc at 10 GeV, generated over truth"] == pytest.approx(1.04)
    worst = "worst relative deviation of the {} of E_tot/E_inc at any energy".format
    assert numbers[worst("mean")] == pytest.approx(0.04, rel=1e-4)
    assert numbers[worst("resolution")] == pytest.approx(0.0, abs=1e-6)
    assert numbers["worst relative deviation of the mean share, layers over 1 %"] < 1e-6


def test_layer_shares_are_found(small):
    energy = np.full(40, 1e4)
    a, b = np.zeros((2, 40, small.size), np.float32)
    a[:, 0], a[:, 2] = 2e3, 8e3
    b[:, 0], b[:, 2] = 3e3, 7e3
    numbers, arrays = compare(Showers(energy, a), Showers(energy, b), small)
    assert numbers["mean energy share of layer 0, generated over truth"] == pytest.approx(1.5)
    assert numbers["mean energy share of layer 4, generated over truth"] == pytest.approx(0.875)
    assert numbers["worst relative deviation of the mean share, layers over 1 %"] == (
        pytest.approx(0.5)
    )
    assert numbers["mean sparsity of layer 4, truth"] == pytest.approx(11 / 12)
    np.testing.assert_allclose(arrays["mean shower truth"][0], a[0])


def test_copies_of_training_showers_are_noticed(samples, small):
    truth, _, train = samples
    copies = Showers(truth.incident_energy, train.deposits * np.float32(1.001))
    numbers, _ = compare(truth, copies, small, train)
    near = "share of generated showers nearer to a training shower than 1 % of truth"
    assert numbers[near] > 0.99
    ratio = "median distance to the nearest training shower, generated over truth"
    assert numbers[ratio] < 0.1
    honest, _ = compare(truth, samples[1], small, train)
    assert honest[near] < 0.04 and honest[ratio] == pytest.approx(1.0, abs=0.1)


def test_nearest_neighbours_are_those_of_all_pairs(small):
    random = np.random.default_rng(5)
    a, b = (random.exponential(3.0, (n, small.size)).astype(np.float32) for n in (20, 1500))
    x, y = np.log1p(a), np.log1p(b)  # the threshold is 1 MeV
    width = np.maximum(y.std(axis=0), 0.5)
    pairs = np.sqrt((((x[:, None] - y) / width) ** 2).mean(axis=2))
    np.testing.assert_allclose(nearest(a, b, small), pairs.min(axis=1), rtol=1e-3)


def test_energies_make_groups_of_enough_showers():
    discrete = np.repeat([256.0, 512.0, 1024.0, 2048.0], [40, 30, 4, 30])
    values, place, _ = energy_groups(discrete, discrete)
    np.testing.assert_array_equal(np.bincount(place), [40, 30, 34])  # the four join the next
    np.testing.assert_allclose(values[:2], [256, 512])
    even = np.geomspace(1e3, 1e6, 1000)
    values, place, other = energy_groups(even, even[::-1])
    np.testing.assert_array_equal(np.bincount(place), 100)
    np.testing.assert_array_equal(place, other[::-1])
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize(
    "energy, text", [(256, "256 MeV"), (1024, "1.02 GeV"), (262144, "262 GeV"), (4.2e6, "4.2 TeV")]
)
def test_energies_are_written_as_one_reads_them(energy, text):
    assert energy_label(energy) == text


def test_groups_of_energies_are_named_by_their_ranges(small):
    """Four energies of few showers make two groups; no mean is given for an energy."""
    assert range_label(256, 256) == "256 MeV"
    assert range_label(256, 512) == "256 to 512 MeV"
    assert range_label(512, 2048) == "512 MeV to 2.05 GeV"
    truth, made = (showers(k, 80, small.size, (1e3, 2e3, 4e3, 8e3)) for k in (1, 2))
    numbers, arrays = compare(truth, made, small)
    assert "mean of E_tot/E_inc at 1 to 2 GeV, generated over truth" in numbers
    assert arrays["response 0"].shape == (6, 3)  # bins fit for forty showers
    drawn = figures({"numbers": numbers, "arrays": arrays})
    titles = [axes.get_title() for axes in drawn["response_by_energy"].axes[::2]]
    assert [title.split("\n")[0] for title in titles] == ["1 to 2 GeV", "4 to 8 GeV"]
    known = drawn["response_by_energy"].axes[1].lines[0]
    assert len(known.get_xdata()) >= 2


def test_figures_say_what_their_quantities_are(samples, small):
    numbers, arrays = compare(*samples[:2], small)
    drawn = figures({"numbers": numbers, "arrays": arrays})
    said = {
        "average_shower": "ratio grey: no energy, or uncertain by over 20 %",
        "centre_eta": "eta, phi: mm across the axis",
        "centre_r": "r: distance from the axis",
        "response_and_resolution": "standard deviation σ over mean",
    }
    for name, text in said.items():
        title = drawn[name].get_suptitle() + " ".join(t.get_text() for t in drawn[name].texts)
        assert text in title, name


def test_labels_stay_within_the_figure(samples, small):
    numbers, arrays = compare(*samples[:2], small)
    drawn = figures({"numbers": numbers, "arrays": arrays})["centre_r"]
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    for axes in drawn.axes:
        assert axes.xaxis.label.get_window_extent().x1 <= drawn.bbox.x1


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda a, b: (select(a, slice(0, 0)), b), "truth: holds no showers"),
        (lambda a, b: (a, Showers(b.incident_energy * 3, b.deposits)), "other incident energies"),
        (lambda a, b: (a, Showers(b.incident_energy, b.deposits * np.nan)), "generated: voxel 0"),
        (lambda a, b: (a, Showers(b.incident_energy, b.deposits[:, 1:])), "the geometry has 14"),
    ],
)
def test_what_cannot_be_compared_is_refused(samples, small, spoil, message):
    with pytest.raises(DataError, match=message):
        compare(*spoil(*samples[:2]), small)


def test_figures_are_drawn_from_arrays_and_numbers_alone(samples, small):
    numbers, arrays = compare(*samples[:2], small, samples[2])
    step = np.arange(1.0, 5.0)
    arrays |= {
        "speed batch": np.array([1, 100]), "speed ms": np.array([0.1, 0.01]),
        "speed torch eager ms": np.array([0.2, 0.02]), "speed Geant4 ms": np.array([103.0]),
        "log distance_showers": np.column_stack([step, step]),
        "log validation_chi2": np.column_stack([step, 1 / step]),
    }  # fmt: skip
    drawn = figures({"numbers": numbers, "arrays": arrays})
    more = {"centre_eta", "centre_phi", "width_eta", "width_phi", "nearest_neighbours", "speed"}
    assert set(drawn) == ALWAYS | more | {"training_critics", "training_chi2"}  # no scorecard
    labels = [text.get_text() for text in drawn["speed"].axes[0].get_legend().texts]
    assert labels == ["this generator", "Geant4: 103 ms", "torch eager"]
    titles = [axes.get_title() for axes in drawn["width_eta"].axes[::2]]
    assert [title.split("\n")[0] for title in titles] == ["layer 4"]


def test_planes_of_cells_are_drawn():
    cells = geometry.calogan()
    numbers, arrays = compare(showers(1, 60, cells.size), showers(2, 60, cells.size), cells)
    drawn = figures({"numbers": numbers, "arrays": arrays})
    mesh = drawn["average_shower"].axes[0].collections[0]
    assert np.abs(mesh.get_coordinates()).max() == 240  # mm
    assert "scorecard" not in drawn


def test_of_many_layers_some_are_shown_and_all_are_counted():
    many = geometry.Geometry(
        tuple(geometry.polar_layer(k, 2, (0, 5, 9)) for k in range(45)), "electron", 0.015
    )
    _, arrays = compare(showers(1, 60, many.size), showers(2, 60, many.size), many)
    shown = [name for name in arrays if name.startswith("width_r layer")]
    assert len(shown) == len(arrays["layer shown"]) == 6
    assert arrays["share truth"].shape == (2, 45)
    assert arrays["share truth"][0].sum() == pytest.approx(1.0)


def test_photons_of_set_1_stand_beside_the_published_gans():
    layers = [geometry.polar_layer(k, 1, (0, 5, 9)) for k in (0, 1, 2, 3, 12)]  # as set 1 has
    photons = geometry.Geometry(tuple(layers), "photon", 1.0)
    truth, made = (showers(seed, 60, photons.size) for seed in (1, 2))
    numbers, arrays = compare(truth, made, photons)
    numbers |= {CARD(k): v for k, v in metrics.published()["BoloGAN"].items()}
    card = figures({"numbers": numbers, "arrays": arrays})["scorecard"]
    names = [text.get_text() for text in card.axes[0].get_yticklabels()]
    assert "own maker: not comparable" in names[0]
    assert names[1:] == list(metrics.published())
    written = [text.get_text() for text in card.axes[0].texts]
    assert written[0] == written[2] and "0.499" in written  # BoloGAN as ours; Geant4
