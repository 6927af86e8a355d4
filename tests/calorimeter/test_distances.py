"""Fréchet and kernel distances, neighbourhoods: closed forms, brute force, jetnet."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from physml.calorimeter import distances, metrics
from physml.errors import ConfigError, DataError

SIZES = (200, 1500)  # of batches in tests


def gaussians(seed, n=2000, f=6, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(f, f))
    return scale * rng.normal(size=(n, f)) @ mixing + shift


# Fréchet and kernel distances


def plain_frechet(a, b):
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    shift = a.mean(axis=0) - b.mean(axis=0)
    return shift @ shift + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)


def test_gaussian_distance_agrees_with_a_matrix_root():
    a, b = gaussians(1, shift=0.3), gaussians(2, scale=1.4)
    assert distances.gaussian_distance(a, b) == pytest.approx(plain_frechet(a, b), rel=1e-10)
    turn = scipy.stats.special_ortho_group.rvs(6, random_state=3)
    turned = distances.gaussian_distance(a @ turn, b @ turn)
    assert turned == pytest.approx(plain_frechet(a, b), rel=1e-10)


def test_frechet_distance_is_the_line_through_plain_distances():
    a, b = gaussians(4, shift=0.1), gaussians(5, scale=1.1)
    found = metrics.frechet_distance(a, b, SIZES, seed=7)
    x, y = (s / np.abs(a).max(axis=0) for s in (a, b))
    counts = (1 / np.linspace(1 / SIZES[0], 1 / SIZES[1], 10)).astype(int)
    rng, means = np.random.default_rng(7), []
    for n in counts:
        pairs = [(rng.choice(len(x), n), rng.choice(len(y), n)) for _ in range(20)]
        means.append(np.mean([plain_frechet(x[i], y[j]) for i, j in pairs]))
    (_, intercept), covariance = np.polyfit(1 / counts, means, 1, cov=True)
    assert found.value == pytest.approx(intercept, rel=1e-6)
    assert found.error == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-4)


def test_frechet_distance_extrapolates_to_the_closed_form():
    rng, n = np.random.default_rng(8), 40_000
    a, b = rng.normal(0, 1, (n, 2)), rng.normal((0.5, 0), (1.0, 1.5), (n, 2))
    largest = np.abs(a).max(axis=0)
    truth = (0.5 / largest[0]) ** 2 + (0.5 / largest[1]) ** 2
    found = metrics.frechet_distance(a, b, (500, 4000), seed=1)
    batch = np.mean([plain_frechet(a[k::80] / largest, b[k::80] / largest) for k in range(8)])
    assert found.value == pytest.approx(truth, rel=0.03)  # of 40,000 rows: the truth has 1.5 %
    assert batch - truth > 2 * abs(found.value - truth)  # what 500 rows alone would say


def test_constant_features_add_the_square_of_their_difference():
    a, b = gaussians(1), gaussians(1)
    a, b = (np.column_stack([x, np.full(len(x), c)]) for x, c in ((a, 2.0), (b, 3.0)))
    found = distances.gaussian_distance(*distances.scaled(a, b, 1, ""))
    assert found == pytest.approx((3 / 2 - 1) ** 2, rel=1e-9)
    assert np.isfinite(metrics.frechet_distance(a, b, SIZES))[0]


def test_kernel_distance_agrees_with_sums_over_all_pairs():
    a, b = gaussians(1, 600), gaussians(2, 700, scale=1.2)
    found = metrics.kernel_distance(a, b, 400, seed=3)
    x, y = (s / np.abs(a).max(axis=0) for s in (a, b))
    values = []
    for batch in range(10):
        rng = np.random.default_rng(3 + 1000 * batch)
        u, v = x[rng.choice(600, 400)], y[rng.choice(700, 400)]
        uu, vv, uv = ((p @ q.T / 6 + 1) ** 4 for p, q in ((u, u), (v, v), (u, v)))
        pairs = ~np.eye(400, dtype=bool)
        values.append(uu[pairs].mean() + vv[pairs].mean() - 2 * uv.mean())
    assert found.value == pytest.approx(np.median(values), rel=1e-9)
    spread = scipy.stats.iqr(values, rng=(16.275, 83.725)) / 2
    assert found.error == pytest.approx(spread, rel=1e-9)


def test_kernel_distance_of_equal_distributions_scatters_about_zero():
    found = [metrics.kernel_distance(gaussians(k, 4000), gaussians(k + 50, 4000), 500)
             for k in range(10)]  # fmt: skip
    values = np.array([x.value for x in found])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(10)
    shifted = metrics.kernel_distance(gaussians(1, 4000), gaussians(2, 4000, shift=0.5), 500)
    assert shifted.value > 5 * shifted.error


def test_distances_agree_with_jetnet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = pytest.importorskip("jetnet.evaluation", reason="jetnet is not installed")
        a, b = gaussians(1, 3000), gaussians(2, 3000, shift=0.1)
        fpd = other.fpd(a, b, *SIZES, seed=5)
        kpd = other.kpd(a, b, batch_size=500, seed=5)
    np.testing.assert_allclose(metrics.frechet_distance(a, b, SIZES, 5), fpd, rtol=1e-6)
    np.testing.assert_allclose(metrics.kernel_distance(a, b, 500, 5), kpd, rtol=1e-6)


def test_distances_depend_on_the_seed_alone():
    a, b = gaussians(1), gaussians(2)
    for call in (
        lambda seed: metrics.frechet_distance(a, b, SIZES, seed),
        lambda seed: metrics.kernel_distance(a, b, 300, seed),
    ):
        assert call(1) == call(1) != call(2)


# Neighbourhoods


def brute_force(real, made, k):
    """Every pair, from the definitions (eq. 1 to 4 of arXiv 2002.09797)."""
    scale = np.abs(real).max(axis=0)
    real, made = real / scale, made / scale

    def between(x, y):
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=2))

    radius = [np.sort(between(x, x), axis=1)[:, k] for x in (real, made)]
    inside = between(real, made) < radius[0][:, None]
    reached = between(real, made) < radius[1][None]
    return (
        inside.any(axis=0).mean(), reached.any(axis=1).mean(),
        inside.sum() / (k * len(made)), inside.any(axis=1).mean(),
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("change", [{}, {"shift": 1.0}, {"scale": 0.4}])
def test_neighbourhoods_agree_with_brute_force(k, change):
    real, made = gaussians(1, 300, 4), gaussians(2, 250, 4, **change)
    found = metrics.precision_recall_density_coverage(real, made, k)
    np.testing.assert_allclose(found, brute_force(real, made, k), rtol=1e-12)


def test_neighbourhoods_with_copies_agree_with_brute_force():
    real = gaussians(1, 200, 3)
    real[50:70] = real[50]  # as empty showers are
    made = np.concatenate([gaussians(2, 100, 3), real[40:80]])
    found = metrics.precision_recall_density_coverage(real, made, 5)
    np.testing.assert_allclose(found, brute_force(real, made, 5), rtol=1e-12)


def test_limits_of_neighbourhoods():
    real = gaussians(1, 500, 3)
    same = metrics.precision_recall_density_coverage(real, real.copy())
    np.testing.assert_allclose(same, 1.0, rtol=1e-12)
    assert metrics.precision_recall_density_coverage(real, real + 1e3) == (0, 0, 0, 0)
    spot = real[7] + 1e-6 * gaussians(2, 500, 3)  # a generator that makes one shower only
    collapsed = metrics.precision_recall_density_coverage(real, spot)
    assert collapsed.precision == 1
    assert collapsed.recall < 0.01 and collapsed.coverage < 0.05


def test_balls_are_searched_in_groups(monkeypatch):
    real, made = gaussians(1, 300, 4), gaussians(2, 250, 4)
    whole = metrics.precision_recall_density_coverage(real, made)
    monkeypatch.setattr(distances, "PAIRS", 10)
    assert metrics.precision_recall_density_coverage(real, made) == whole


@pytest.mark.parametrize(
    "call",
    [metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall_density_coverage],
)
def test_distances_refuse_what_cannot_be_compared(call):
    good = gaussians(1, 60_000 if call is metrics.frechet_distance else 6000, 3)
    bad = good.copy()
    bad[17, 1] = np.nan
    with pytest.raises(DataError, match="generated rows that are not finite, first 17"):
        call(good, bad)
    with pytest.raises(DataError, match="same columns"):
        call(good, good[:, :2])
    with pytest.raises(DataError, match=r"needs \d+ rows of each sample, has \d+ and 5"):
        call(good, good[:5])


@pytest.mark.parametrize(
    "call",
    [
        lambda x: metrics.frechet_distance(x, x, (100, 100)),
        lambda x: metrics.kernel_distance(x, x, 1),
        lambda x: metrics.precision_recall_density_coverage(x, x, 0),
    ],
)
def test_distances_refuse_impossible_settings(call):
    with pytest.raises(ConfigError):
        call(gaussians(1))
