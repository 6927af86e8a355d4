"""Helix fit: exact helices, pulls, closed forms, another fitter, symmetries, bad tracks."""

import numpy as np
import pytest
from scipy import optimize, stats

from physml import matter
from physml.errors import ConfigError, DataError
from physml.tracking import fits
from physml.tracking.events import Hits, Tracks, tracks_of
from physml.tracking.fits import FitOptions, fit, reject_outliers
from physml.tracking.geometry import trackml
from physml.tracking.simulate import Options, simulate

DETECTOR = trackml()
BARREL = np.flatnonzero(DETECTOR.barrel)
PLAIN = FitOptions(material=0.0)
LIGHT = 0.299792458e-3  # GeV / (T mm)


def helix(parameters, s):
    """Points of helices (t, 5: curvature, phi, d0, z0, cot) at lengths (t, n)."""
    k, phi, d0, z0, cot = parameters.T[..., None]
    x = -d0 * np.sin(phi) + (np.sin(phi + k * s) - np.sin(phi)) / k
    y = d0 * np.cos(phi) - (np.cos(phi + k * s) - np.cos(phi)) / k
    return np.stack([x, y, z0 + cot * s], axis=-1)


def random_helices(t, seed=0, low=0.7, eta=0.7):
    rng = np.random.default_rng(seed)
    pt = np.exp(rng.uniform(np.log(low), np.log(50), t))
    charge = rng.choice([-1, 1], t)
    parameters = np.stack(
        [-charge * LIGHT * 2 / pt, rng.uniform(-np.pi, np.pi, t), rng.normal(0, 1, t),
         rng.normal(0, 50, t), np.sinh(rng.uniform(-eta, eta, t))], axis=1,
    )  # fmt: skip
    return parameters, pt, charge


def length_to_radius(parameters, radius):
    """Bisection: nothing of the code under test."""
    low, high = np.zeros((len(parameters), len(radius))), np.full((1, len(radius)), 1400.0)
    low, high = np.broadcast_arrays(low, high)
    for _ in range(100):
        middle = (low + high) / 2
        far = np.hypot(*np.moveaxis(helix(parameters, middle), -1, 0)[:2]) > radius
        low, high = np.where(far, low, middle), np.where(far, middle, high)
    return low


def as_hits(points, layers):
    t, n = points.shape[:2]
    layers = np.broadcast_to(layers, (t, n)).ravel().astype(np.int32)
    rows = np.arange(t * n)
    hits = Hits(points.reshape(-1, 3), layers, np.full(t * n, -1, np.int32), rows)
    return Tracks(np.arange(t + 1) * n, rows), hits


def barrel_points(parameters):
    return helix(parameters, length_to_radius(parameters, DETECTOR.place[BARREL]))


def smeared(points, seed=1):
    rng = np.random.default_rng(seed)
    du, dv = rng.normal(size=(2, *points.shape[:2])) / np.sqrt(12)
    du, dv = du * DETECTOR.pitch_u[BARREL], dv * DETECTOR.pitch_v[BARREL]
    phi = np.arctan2(points[..., 1], points[..., 0])
    return points + np.stack([-np.sin(phi) * du, np.cos(phi) * du, dv], axis=-1)


def scattered(parameters, material, seed):
    """Points of particles that change direction in each layer, walked on layer by layer."""
    rng = np.random.default_rng(seed)
    points, now = [], parameters.copy()
    for layer in BARREL:
        s = length_to_radius(now, DETECTOR.place[layer : layer + 1])
        point = helix(now, s)[:, 0]
        k, cot = now[:, 0], now[:, 4]
        phi = now[:, 1] + k * s[:, 0]
        stretch = np.sqrt(1 + cot**2)
        momentum = LIGHT * 2 / np.abs(k) * stretch
        radial = point[:, :2] / np.hypot(*point[:, :2].T)[:, None]
        slant = radial[:, 0] * np.cos(phi) + radial[:, 1] * np.sin(phi)
        beta = momentum / np.hypot(momentum, 0.13957)
        angle = matter.highland(material * stretch / slant, momentum, beta)
        turn, tilt = rng.normal(size=(2, len(k))) * angle
        theta = np.arctan2(1, cot) + tilt
        phi = phi + turn * stretch
        k = np.sign(k) * LIGHT * 2 / (momentum * np.sin(theta))
        # The helix from here on: its centre, then its point closest to the axis.
        centre = point[:, 0] + 1j * point[:, 1] + 1j * np.exp(1j * phi) / k
        phi0 = np.angle(-1j * centre * k)
        d0 = np.sign(k) * np.abs(centre) - 1 / k
        way = np.angle(np.exp(1j * (phi - phi0))) / k
        now = np.stack([k, phi0, d0, point[:, 2] - way / np.tan(theta), 1 / np.tan(theta)], axis=1)
        points.append(point)
    return np.stack(points, axis=1)


def fitted(found):
    return np.stack([found.curvature, found.phi, found.d0, found.z0, found.cot_theta], axis=1)


def difference(found, parameters):
    off = fitted(found) - parameters
    off[:, 1] = np.angle(np.exp(1j * off[:, 1]))
    return off


def widths(found):
    return np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))


def test_exact_helices_give_their_parameters():
    parameters, pt, charge = random_helices(200)
    found = fit(*as_hits(barrel_points(parameters), BARREL), DETECTOR)
    assert found.good.all() and found.chi2.max() < 1e-12
    np.testing.assert_allclose(difference(found, parameters), 0, atol=1e-8)
    np.testing.assert_allclose(found.pt, pt, rtol=1e-8)
    np.testing.assert_allclose(found.eta, np.arcsinh(parameters[:, 4]), atol=1e-8)
    np.testing.assert_array_equal(found.charge, charge)
    np.testing.assert_array_equal(found.ndf, 15)


@pytest.mark.parametrize("volume", [9, 7])
def test_exact_helices_through_disks(volume):
    disks = np.flatnonzero(DETECTOR.volume == volume)
    disks = disks[np.argsort(np.abs(DETECTOR.place[disks]))]
    parameters, pt, charge = random_helices(100, seed=3)
    z = DETECTOR.place[disks]
    parameters[:, 4] = np.sign(z[0]) * np.random.default_rng(0).uniform(5, 20, 100)
    s = (z - parameters[:, 3:4]) / parameters[:, 4:]
    found = fit(*as_hits(helix(parameters, s), disks), DETECTOR)
    assert found.good.all()
    np.testing.assert_allclose(difference(found, parameters), 0, atol=1e-7)
    np.testing.assert_array_equal(found.charge, charge)


def test_positive_charge_turns_clockwise_and_d0_has_its_sign():
    """Lorentz force: q v x B on a positive charge flying along x, field along z, points to -y."""
    s = np.array([[40.0, 80.0, 160.0, 400.0]])
    parameters = np.array([[-LIGHT * 2, 0.0, 0.5, 0.0, 0.1]])
    points = helix(parameters, s)
    assert points[0, -1, 1] < 0 < points[0, 0, 1] + 0.5
    found = fit(*as_hits(points, BARREL[:4]), DETECTOR)
    assert found.charge[0] == 1 and found.d0[0] == pytest.approx(0.5)
    assert found.pt[0] == pytest.approx(1.0)


def test_pulls_and_chi2_of_pure_resolution():
    parameters, _, _ = random_helices(2000, seed=5)
    found = fit(*as_hits(smeared(barrel_points(parameters)), BARREL), DETECTOR, PLAIN)
    pulls = difference(found, parameters) / widths(found)
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=0.06)  # 4 sigma
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=0.09)
    assert (found.chi2 / found.ndf).mean() == pytest.approx(1, abs=0.04)
    assert stats.kstest(stats.chi2.sf(found.chi2, found.ndf), "uniform").pvalue > 1e-3
    assert stats.kstest(stats.chi2.sf(found.hit_chi2[::7], 2), "uniform").pvalue > 1e-3


def test_pulls_and_chi2_with_scattering():
    parameters, _, _ = random_helices(2000, seed=6)
    points = smeared(scattered(parameters, 0.025, 7))
    found = fit(*as_hits(points, BARREL), DETECTOR, FitOptions(material=0.025))
    pulls = difference(found, parameters) / widths(found)
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=0.06)
    assert (found.chi2 / found.ndf).mean() == pytest.approx(1, abs=0.04)
    assert stats.kstest(stats.chi2.sf(found.chi2, found.ndf), "uniform").pvalue > 1e-3
    ignorant = fit(*as_hits(points, BARREL), DETECTOR, PLAIN)
    assert np.median(ignorant.chi2 / ignorant.ndf) > 1.5


def test_slow_steep_particles_bend_as_much_as_their_slope_says():
    """Scattering that changes the slope changes pT and with it the curvature: errors of the two
    belong together, and without that, or with half of it, those of the curvature are too small.
    """
    parameters, pt, _ = random_helices(2000, seed=15)
    rng = np.random.default_rng(13)
    parameters[:, 0] *= pt / rng.uniform(0.45, 0.6, 2000)
    parameters[:, 4] = np.sinh(rng.uniform(0.8, 1.4, 2000) * rng.choice([-1, 1], 2000))
    found = fit(*as_hits(smeared(scattered(parameters, 0.025, 7)), BARREL), DETECTOR)
    pulls = difference(found, parameters) / widths(found)
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=0.06)
    sign = np.sign(parameters[:, 0] * parameters[:, 4])
    together = found.covariance[:, 0, 4] / (widths(found)[:, 0] * widths(found)[:, 4])
    assert (sign * together).mean() > 0.2
    # 0.08: 3.5 sigma
    assert (sign * (pulls[:, 0] * pulls[:, 4] - together)).mean() == pytest.approx(0, abs=0.08)


def test_the_default_material_is_that_of_simulated_layers():
    """Each layer of the maker has 1.5 to 3.5 % of a radiation length; slow pions feel it. Errors
    are rather a tenth too large than too small.
    """
    made = simulate((6, 0), 60.0, DETECTOR, options=Options(noise=0.0))
    pt = np.hypot(*made.particles.momentum[:, :2].T)
    slow = (np.abs(made.particles.pdg) == 211) & (pt > 0.6) & (pt < 1.2)
    order = np.argsort(np.linalg.norm(made.hits.position, axis=1))
    owner = made.particle[order]
    rows = [order[owner == k] for k in np.flatnonzero(slow)]
    found = fit(tracks_of([own for own in rows if len(own) > 5]), made.hits, DETECTOR)
    assert found.good.sum() > 300
    assert 0.78 < (found.chi2 / found.ndf)[found.good].mean() < 1


def test_what_a_hit_adds_to_chi2_is_what_its_loss_takes_away():
    parameters, _, _ = random_helices(50, seed=8)
    points = smeared(barrel_points(parameters))
    options = FitOptions(material=1e-3)
    whole = fit(*as_hits(points, BARREL), DETECTOR, options)
    rest = np.arange(10) != 6
    less = fit(*as_hits(points[:, rest], BARREL[rest]), DETECTOR, options)
    # The hit that is left out scatters no more, which changes chi2 a little.
    expected = whole.hit_chi2.reshape(-1, 10)[:, 6]
    np.testing.assert_allclose(whole.chi2 - less.chi2, expected, atol=0.35)
    whole, less = (
        fit(*as_hits(points[:, own], BARREL[own]), DETECTOR, PLAIN)
        for own in (np.arange(10) >= 0, rest)
    )
    expected = whole.hit_chi2.reshape(-1, 10)[:, 6]
    np.testing.assert_allclose(whole.chi2 - less.chi2, expected, rtol=1e-3, atol=1e-4)


def test_momentum_resolution_is_glucksterns():
    """R. L. Gluckstern, NIM 24 (1963) 381: n+1 equal points, sigma_k = sigma/L² sqrt(A), exactly
    A = 720 n³ / ((n-1)(n+1)(n+2)(n+3)), for points at equal distances on a nearly straight track.
    """
    n, sigma = 9, 0.1 / np.sqrt(12)
    place = np.linspace(100, 1000, n + 1)
    even = DETECTOR._replace(
        **{
            name: np.full(n + 1, value)
            for name, value in (("pitch_u", 0.1), ("pitch_v", 0.1), ("barrel", True))
        },
        place=place,
    )
    k = LIGHT * 2 / 100.0  # 100 GeV
    points = helix(np.array([[k, 0.3, 0.0, 0.0, 0.0]]), place[None])
    found = fit(*as_hits(points, np.arange(n + 1)), even, PLAIN)
    factor = 720 * n**3 / ((n - 1) * (n + 1) * (n + 2) * (n + 3))
    assert widths(found)[0, 0] == pytest.approx(sigma / 900**2 * np.sqrt(factor), rel=1e-3)


def test_another_fitter_agrees():
    parameters, _, _ = random_helices(4, seed=9)
    points = smeared(barrel_points(parameters))
    found = fit(*as_hits(points, BARREL), DETECTOR, PLAIN)
    sigma = np.stack([DETECTOR.pitch_u[BARREL], DETECTOR.pitch_v[BARREL]], axis=1) / np.sqrt(12)
    for i, start in enumerate(parameters):

        def residuals(scaled, hits=points[i]):
            p = (scaled * [1e-4, 1e-2, 1, 1, 1e-2])[None]
            # On the cylinder of each hit, where the fit has tangent planes: the same to 1e-3.
            s = np.concatenate([length_to_radius(p, [r]) for r in np.hypot(*hits.T[:2])], axis=1)
            x = helix(p, s)[0]
            off = np.angle((x[:, 0] + 1j * x[:, 1]) / (hits[:, 0] + 1j * hits[:, 1]))
            off = np.stack([off * np.hypot(*hits.T[:2]), x[:, 2] - hits[:, 2]], axis=1)
            return (off / sigma).ravel()

        other = optimize.least_squares(residuals, start / [1e-4, 1e-2, 1, 1, 1e-2], diff_step=1e-6)
        off = difference(found, (other.x * [1e-4, 1e-2, 1, 1, 1e-2])[None])[i]
        np.testing.assert_allclose(off / widths(found)[i], 0, atol=5e-3)
        assert found.chi2[i] == pytest.approx(2 * other.cost, rel=1e-3)


def test_rotation_and_mirror():
    parameters, _, _ = random_helices(100, seed=10)
    points = smeared(barrel_points(parameters))
    plain = fit(*as_hits(points, BARREL), DETECTOR)
    angle = 2.1
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    turned = fit(*as_hits(points @ turn.T, BARREL), DETECTOR)
    np.testing.assert_allclose(
        np.angle(np.exp(1j * (turned.phi - plain.phi - angle))), 0, atol=1e-9
    )
    np.testing.assert_allclose(turned.pt, plain.pt, rtol=1e-8)
    np.testing.assert_allclose(turned.d0, plain.d0, atol=1e-8)
    np.testing.assert_allclose(turned.hit_chi2, plain.hit_chi2, atol=1e-6)
    mirrored = fit(*as_hits(points * [1, -1, 1], BARREL), DETECTOR)
    np.testing.assert_array_equal(mirrored.charge, -plain.charge)
    np.testing.assert_allclose(mirrored.d0, -plain.d0, atol=1e-8)
    np.testing.assert_allclose(mirrored.chi2, plain.chi2, rtol=1e-6)
    order = np.array([0, 3, 1, 2, 6, 5, 4, 8, 7, 9])  # the ends give the direction
    shuffled = fit(*as_hits(points[:, order], BARREL[order]), DETECTOR)
    np.testing.assert_allclose(shuffled.pt, plain.pt, rtol=1e-8)


def test_tracks_of_all_lengths_are_fitted_as_alone():
    parameters, _, _ = random_helices(30, seed=11)
    _, hits = as_hits(smeared(barrel_points(parameters)), BARREL)
    size = np.random.default_rng(1).integers(0, 11, 30)
    offsets = np.concatenate([[0], np.cumsum(size)])
    rows = np.concatenate([10 * i + np.arange(n) for i, n in enumerate(size)])
    together = fit(Tracks(offsets, rows), hits, DETECTOR)
    np.testing.assert_array_equal(together.good, size >= 3)
    for i, n in enumerate(size):
        alone = fit(Tracks(np.array([0, n]), rows[offsets[i] : offsets[i + 1]]), hits, DETECTOR)
        assert alone.pt[0] == pytest.approx(together.pt[i], rel=1e-9)
        assert alone.chi2[0] == pytest.approx(together.chi2[i], rel=1e-6, abs=1e-12)


def test_wrong_hits_are_taken_out_and_wrong_tracks_dropped():
    parameters, pt, _ = random_helices(300, seed=12)
    points = smeared(barrel_points(parameters))
    phi = np.arctan2(points[:100, 5, 1], points[:100, 5, 0])
    points[:100, 5] += np.stack([-np.sin(phi), np.cos(phi), 0 * phi], axis=1)  # off by 1 mm
    points[100:150, 3:7] = points[150:200, 3:7]  # half of another one
    tracks, hits = as_hits(points, BARREL)
    found = fit(tracks, hits, DETECTOR)
    result = reject_outliers(tracks, hits, DETECTOR, found)
    assert result.bad_chi2 + result.not_fitted >= 50
    assert len(result.kept) + result.bad_chi2 + result.not_fitted == 300
    assert not np.isin(np.arange(100, 150), result.kept).any()
    assert np.isin(np.arange(100), result.kept).sum() >= 98
    left = [result.tracks.hit[a:b] for a, b in zip(
        result.tracks.offsets[:-1], result.tracks.offsets[1:], strict=True)]  # fmt: skip
    assert not any(10 * i + 5 in rows for i, rows in zip(result.kept, left, strict=True) if i < 100)
    again = fit(result.tracks, hits, DETECTOR)
    for ours, fresh in zip(result.fit, again, strict=True):
        np.testing.assert_allclose(ours, fresh, rtol=1e-6, atol=1e-9)
    clean = reject_outliers(*as_hits(points[200:], BARREL), DETECTOR, fit(
        *as_hits(points[200:], BARREL), DETECTOR))  # fmt: skip
    assert len(clean.kept) >= 98 and clean.hits_removed <= 5


def test_tracks_that_cannot_be_fitted_are_finite_and_flagged():
    line = np.array([[32.0, 0, 1], [72.0, 0, 2], [116.0, 0, 3.1]])
    same = np.tile([32.0, 1, 5], (3, 1))
    pair = np.array([[32.0, 1, 5], [32.0, 1, 5], [72.0, 1, 5]])
    axis = np.zeros((3, 3))
    wild = np.random.default_rng(0).normal(size=(200, 3, 3)) * [300, 300, 900]
    points = np.concatenate([np.stack([line, same, pair, axis]), wild])
    tracks, hits = as_hits(points, BARREL[:3])
    disks = hits._replace(layer=hits.layer * 0)
    for case in (hits, disks):
        found = fit(tracks, case, DETECTOR)
        assert not found.good[:4].any()
        assert all(np.isfinite(column).all() for column in found)
    assert fit(tracks, hits, DETECTOR).pt[0] == fits.LARGEST_PT
    none = fit(Tracks(np.zeros(1, np.int64), np.zeros(0, np.int64)), hits, DETECTOR)
    assert len(none.pt) == 0
    long = Tracks(np.array([0, 600]), np.arange(600))
    assert not fit(long, hits, DETECTOR).good.any()


def test_bad_input_is_refused():
    tracks, hits = as_hits(barrel_points(random_helices(2)[0]), BARREL)
    with pytest.raises(ConfigError, match="field"):
        fit(tracks, hits, DETECTOR._replace(field=0.0))
    with pytest.raises(ConfigError, match="positive"):
        fit(tracks, hits, DETECTOR, FitOptions(mass=0.0))
    with pytest.raises(DataError, match="does not exist"):
        fit(tracks._replace(hit=tracks.hit + 5), hits, DETECTOR)
    with pytest.raises(DataError, match="layer"):
        fit(tracks, hits._replace(layer=hits.layer - 99), DETECTOR)
    with pytest.raises(DataError, match="finite"):
        fit(tracks, hits._replace(position=hits.position * np.nan), DETECTOR)
    found = fit(tracks, hits, DETECTOR)
    with pytest.raises(DataError, match="not the fit"):
        reject_outliers(Tracks(tracks.offsets[:2], tracks.hit[:10]), hits, DETECTOR, found)
