"""The judge: closed forms, brute force, other libraries, published numbers."""

import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from sklearn.isotonic import IsotonicRegression

from physml.calorimeter import classifier, metrics
from physml.calorimeter.events import Showers
from physml.calorimeter.features import features, matrix
from physml.calorimeter.geometry import calogan, dataset_1_photons, dataset_2
from physml.errors import ConfigError, DataError

SMALL = metrics.Settings(sizes=(50, 300), kernel_rows=200)
QUICK = classifier.Protocol("quick", (48,), 6, 250, 5e-3, 0.6, 0.2)


def gaussians(seed, n=2000, f=6, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(f, f))
    return scale * rng.normal(size=(n, f)) @ mixing + shift


def showers(seed, n=400, geometry=None, softer=1.0):
    """No physics: a profile in the layers, exponential noise, and some empty voxels."""
    geometry = geometry or dataset_1_photons()
    rng = np.random.default_rng(seed)
    energy = 1024.0 * 2.0 ** (np.arange(n) % 8)
    layer = np.repeat(np.arange(len(geometry.layers)), [x.size for x in geometry.layers])
    shape = np.exp(-0.5 * ((layer - 1.5 * softer) / 0.8) ** 2) + 0.02
    base = np.random.default_rng(5).exponential(size=len(layer)) ** 2 * shape
    noise = rng.exponential(size=(n, len(layer))) * (rng.random((n, len(layer))) < 0.4)
    deposits = base * noise
    deposits *= (energy * rng.normal(0.95, 0.03, n) / deposits.sum(axis=1))[:, None]
    return Showers(energy, deposits.astype(np.float32))


# Separation power


def test_separation_power_of_two_coins():
    fair, biased = [0.2, 0.7] * 4, [0.3] * 5
    # p = (1/2, 1/2), q = (1, 0): (1/4 / (3/2) + 1/4 / (1/2)) / 2
    assert metrics.separation_power(fair, biased, [0, 0.5, 1]) == pytest.approx(1 / 3, rel=1e-14)
    assert metrics.separation_power(fair, fair, [0, 0.5, 1]) == 0
    assert metrics.separation_power([0.2], [0.7], [0, 0.5, 1]) == 1


def test_what_lies_outside_the_edges_does_not_count():
    edges = np.linspace(0, 1, 5)
    inside = [0.1, 0.3, 0.9]
    assert metrics.separation_power(inside, [*inside, 7, -3, 8], edges) == 0
    assert metrics.separation_power([5.0], [9.0], edges) == 0  # neither has anything there
    assert metrics.separation_power(inside, [9.0], edges) == 1


def test_equal_samples_separate_as_chi_square_says():
    rng, n, bins = np.random.default_rng(0), 4000, 20
    powers = [
        metrics.separation_power(rng.random(n), rng.random(n), np.linspace(0, 1, bins + 1))
        for _ in range(50)
    ]
    # 2 n times the power is the two-sample chi-square with 19 degrees of freedom.
    total = scipy.stats.chi2(50 * (bins - 1))
    assert total.ppf(1e-4) < 2 * n * sum(powers) < total.ppf(1 - 1e-4)


@pytest.mark.parametrize(
    "values, edges, error",
    [
        ([0.5, np.nan], [0, 1], DataError),
        ([0.5], [1, 0], ConfigError),
        ([0.5], [0], ConfigError),
    ],
)
def test_separation_power_refuses(values, edges, error):
    with pytest.raises(error):
        metrics.separation_power([0.5], values, edges)


def by_density(a, b, edges):
    """The definition with histograms of unit area."""
    p, q = (np.histogram(x, edges, density=True)[0] * np.diff(edges) for x in (a, b))
    return 0.5 * np.nansum((p - q) ** 2 / (p + q + 1e-300))


def test_separation_powers_use_the_binnings_of_the_challenge():
    grid = dataset_1_photons()
    a, b = showers(1), showers(2, softer=1.2)
    powers = metrics.separation_powers(a, b, grid)
    x, y = features(a, grid), features(b, grid)
    expected = {
        ("e_ratio", 0): (x["e_ratio"], y["e_ratio"], np.linspace(0.5, 1.5, 101)),
        ("width_eta", 1): (x["width_eta"][:, 1], y["width_eta"][:, 1], np.linspace(0, 100, 101)),
        ("centre_phi", 0): (
            x["centre_phi"][:, 0], y["centre_phi"][:, 0], np.linspace(-100, 100, 101)
        ),
        ("centre_r", 4): (x["centre_r"][:, 4], y["centre_r"][:, 4], np.linspace(0, 500, 101)),
        ("width_r", 4): (x["width_r"][:, 4], y["width_r"][:, 4], np.linspace(0, 400, 101)),
        ("sparsity", 2): (x["sparsity"][:, 2], y["sparsity"][:, 2], np.linspace(0, 1, 20)),
        ("e_layer", 1): (
            x["e_layer"][:, 1], y["e_layer"][:, 1],
            np.logspace(1, np.log10(x["e_layer"][:, 1].max()) + 1e-12, 40),
        ),
        ("cell", 0): (
            a.deposits.ravel(), b.deposits.ravel(),
            np.logspace(1, np.log10(float(a.deposits.max())) + 1e-12, 50),
        ),
    }  # fmt: skip
    for (name, k), arguments in expected.items():
        assert powers[name][k] == pytest.approx(by_density(*arguments), rel=1e-3), name
    lengths = {name: len(values) for name, values in powers.items()}
    assert lengths == {
        "e_ratio": 1, "cell": 1, "outside": 1, "e_layer": 5, "sparsity": 5, "centre_r": 5,
        "width_r": 5, "centre_eta": 2, "width_eta": 2, "centre_phi": 2, "width_phi": 2,
    }  # fmt: skip


def test_separation_powers_of_set_2_use_its_own_binnings():
    grid = dataset_2()
    a, b = showers(1, 60, grid), showers(2, 60, grid, softer=1.2)
    powers = metrics.separation_powers(a, b, grid)
    x, y = features(a, grid), features(b, grid)
    place, width = np.linspace(-30, 30, 101), np.linspace(0, 30, 101)
    energy = np.logspace(np.log10(0.5e-3 / 0.033), np.log10(x["e_layer"][:, 2].max()) + 1e-12, 40)
    for name, edges in (("centre_eta", place), ("width_phi", width), ("e_layer", energy)):
        expected = by_density(x[name][:, 2], y[name][:, 2], edges)
        assert powers[name][2] == pytest.approx(expected, rel=1e-3), name


@pytest.mark.parametrize("make", [dataset_1_photons, dataset_2, calogan])
def test_separation_powers_of_equal_showers_are_zero(make):
    grid = make()
    sample = showers(3, 20, grid)
    for values in metrics.separation_powers(sample, sample, grid).values():
        assert not values.any()


# The classifier


@pytest.fixture(scope="module")
def floor():
    return metrics.classifier_auc(gaussians(1, 3000), gaussians(2, 3000), 0, QUICK)


def test_equal_distributions_cannot_be_told_apart(floor):
    assert abs(floor.value - 0.5) < 3 * floor.error
    assert floor.rows == 600 and floor.protocol == "quick"
    # Without ties it would be the second; calibration makes ties, which scatter less.
    assert 0.5 < floor.error / np.sqrt(1 / 12 * 2 / 600) < 1.1


def test_the_area_is_a_function_of_its_arguments(floor):
    assert floor == metrics.classifier_auc(gaussians(1, 3000), gaussians(2, 3000), 0, QUICK)


def test_shifted_gaussians_give_the_closed_form():
    rng, shift = np.random.default_rng(3), 1.2
    a, b = rng.normal(size=(8000, 3)), rng.normal(size=(8000, 3))
    b[:, 1] += shift
    found = metrics.classifier_auc(a, b, 0, QUICK)
    truth = scipy.stats.norm.cdf(shift / np.sqrt(2))  # 0.802, of the best classifier there is
    assert abs(found.value - truth) < 3 * found.error < 0.04


def test_splits_partition_the_rows_as_the_challenge_does():
    # Two layers behind the first, 50 epochs, batch 1000, Adam at 2e-4: options of its program.
    assert metrics.CHALLENGE[1:5] == ((2048,) * 3, 50, 1000, 2e-4)
    parts = classifier.split_rows(121_000, 3, metrics.CHALLENGE, 0)
    assert [len(part) for part in parts] == [80_000, 20_000, 21_000]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(121_000))
    other = classifier.split_rows(121_000, 3, metrics.CHALLENGE, 1)
    assert (parts[0] != other[0]).any()


def test_calibration_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    scores, wanted = rng.normal(size=500).round(1), 2 * rng.normal(size=300)
    happened = (rng.random(500) < 1 / (1 + np.exp(-2 * scores))).astype(float)
    other = IsotonicRegression(y_min=1e-6, y_max=1 - 1e-6, out_of_bounds="clip")
    expected = other.fit(scores, happened).predict(wanted)
    found = classifier.calibrate(scores, happened, wanted)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_error_of_the_area_is_its_spread():
    rng = np.random.default_rng(0)
    positive = np.arange(450) < 150
    found = []
    for _ in range(400):
        scores = (rng.normal(size=450) + positive).round(1)  # with ties
        found.append(classifier.auc_error(scores, positive))
    assert found[-1][0] == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores))
    areas, errors = np.array(found).T
    assert errors.mean() == pytest.approx(areas.std(ddof=1), rel=0.12)  # of 400: 3.5 %


def test_the_classifier_refuses():
    with pytest.raises(DataError, match="needs 210 rows of each sample, has 100 and 100"):
        metrics.classifier_auc(gaussians(1, 100), gaussians(2, 100), 0, QUICK)
    with pytest.raises(ConfigError, match="shares above 0"):
        metrics.classifier_auc(gaussians(1), gaussians(1), 0, QUICK._replace(train=0.9))
    with pytest.raises(DataError, match="400 reference and 500 generated"):
        metrics.classifier_auc(gaussians(1, 400), gaussians(2, 500), 0, QUICK)


def test_low_level_features():
    sample = showers(1, 7)
    found = classifier.voxels(sample)
    assert found.shape == (7, 369) and found.dtype == np.float32
    np.testing.assert_allclose(10 ** found[:, 0].astype(float), sample.incident_energy, rtol=1e-5)
    shares = 100 * sample.deposits / sample.incident_energy[:, None]
    np.testing.assert_allclose(found[:, 1:], shares, rtol=1e-6)


# All of it


def test_correlations_are_those_of_numpy():
    found = features(showers(1), dataset_1_photons())
    expected = np.corrcoef(found["e_layer"].T)
    np.testing.assert_allclose(metrics.correlations(found), expected, atol=1e-12)
    other = {"e_layer": found["e_layer"] * [1, -1, 1, 1, 1]}
    pairs = np.abs(2 * expected[1, [0, 2, 3, 4]]).sum() / 10
    assert metrics.correlation_distance(found, other) == pytest.approx(pairs, rel=1e-12)
    empty = {"e_layer": found["e_layer"] * [1, 0, 1, 1, 1]}
    np.testing.assert_allclose(metrics.correlations(empty)[1], [0, 1, 0, 0, 0])
    with pytest.raises(DataError, match="5 and 4 layers"):
        metrics.correlation_distance(found, {"e_layer": found["e_layer"][:, 1:]})


def test_scorecard_holds_the_parts(monkeypatch):
    grid, a, b = dataset_1_photons(), showers(1), showers(2, softer=1.3)
    judged = []

    def area(real, made, seed, protocol):
        judged.append((real.shape, made.shape, seed, protocol))
        return classifier.Auc(0.5 + len(judged) / 10, 0.01, 1, 80, protocol.name)

    monkeypatch.setattr(metrics, "classifier_auc", area)
    card = metrics.scorecard(a, b, grid, SMALL._replace(auc=QUICK))
    x, y = (matrix(features(s, grid)) for s in (a, b))
    assert card["fpd_e3"] == 1e3 * metrics.frechet_distance(x, y, SMALL.sizes).value
    assert card["kpd_e3"] == 1e3 * metrics.kernel_distance(x, y, SMALL.kernel_rows).value
    assert card["coverage"] == metrics.precision_recall_density_coverage(x, y).coverage
    powers = metrics.separation_powers(a, b, grid)
    assert card["sep_width_r_e3"] == pytest.approx(1e3 * powers["width_r"].mean(), rel=1e-12)
    assert (card["auc_high"], card["auc_low"], card["full_size"]) == (0.6, 0.7, 0.0)
    assert judged == [((400, f), (400, f), 42, QUICK) for f in (14, 369)]
    assert np.isfinite(list(card.values())).all()


def test_neighbours_are_drawn_from_all_energies():
    grid, sample = dataset_1_photons(), showers(1)
    order = np.argsort(sample.incident_energy, kind="stable")  # as files have them
    real = Showers(sample.incident_energy[order], sample.deposits[order])
    made = real._replace(deposits=real.deposits.copy())
    made.deposits[200:, :8] = 0  # wrong where the first 200 rows do not reach
    made.deposits[200:, 8:] = made.deposits[200:, :7:-1]
    card = metrics.scorecard(real, made, grid, SMALL._replace(neighbour_rows=200))
    assert 0.3 < card["precision"] < 0.7
    with pytest.raises(ConfigError, match="are 0; give 1 or more"):
        metrics.scorecard(real, made, grid, SMALL._replace(neighbour_rows=0))


def test_scorecard_of_equal_showers():
    card = metrics.scorecard(showers(1), showers(1), dataset_1_photons(), SMALL)
    assert card["correlation_distance"] == 0 == card["outside"]
    assert not any(value for name, value in card.items() if name.startswith("sep_"))
    assert card["precision"] == card["recall"] == card["coverage"] == 1
    assert "auc_high" not in card


def test_scorecard_refuses_what_cannot_be_judged():
    grid, good = dataset_1_photons(), showers(1)
    with pytest.raises(DataError, match="the geometry has 6480 voxels"):
        metrics.scorecard(good, good, dataset_2(), SMALL)
    hotter = Showers(4 * good.incident_energy, 4 * good.deposits)
    with pytest.raises(DataError, match="other incident energies"):
        metrics.scorecard(good, hotter, grid, SMALL)
    broken = good.deposits.copy()
    broken[3, 5] = np.nan
    with pytest.raises(DataError, match="generated showers: voxel 5 of shower 3 is nan"):
        metrics.scorecard(good, good._replace(deposits=broken), grid, SMALL)
    with pytest.raises(DataError, match=r"needs 50000 rows .* 400 and 400; .*Settings\(sizes="):
        metrics.scorecard(good, good, grid)
    none = Showers(good.incident_energy[:0], good.deposits[:0])
    with pytest.raises(DataError, match="generated showers: are none"):
        metrics.scorecard(good, none, grid, SMALL)


def test_published_numbers_are_those_of_the_challenge(shared_data):
    path = shared_data / "calo" / "calochallenge" / "results.json"
    results = json.loads(path.read_text())["ds1_photons"]
    keys = {
        "auc_low": "binary cls low", "auc_high": "binary cls high", "fpd_e3": "FPD * 1e3",
        "kpd_e3": "KPD * 1e3", "sep_width_eta_e3": "sep EC eta std",
        "sep_width_phi_e3": "sep EC phi std", "sep_width_r_e3": "sep EC r std",
        "sep_sparsity_e3": "sep sparsity",
    }  # fmt: skip
    for model, values in metrics.published().items():
        for name, value in values.items():
            found = np.mean(results[model][keys.get(name, name)])
            scale = 1e3 if name.startswith("sep_") else 1
            assert value == pytest.approx(scale * found, rel=5e-3), (model, name)


def test_the_table_says_that_it_does_not_compare():
    lines = metrics.table({"fpd_e3": 12.34}, "run 7")
    assert "run 7 (own maker: not comparable)" in lines[1] and "CaloShower3GAN" in lines[1]
    row = next(line for line in lines if line.startswith("fpd_e3"))
    assert row.split() == ["fpd_e3", "12.34", "0.1192", "142.4", "52.1", "20.52"]
    assert len(lines) == 2 + len(metrics.published()["GEANT4"])
