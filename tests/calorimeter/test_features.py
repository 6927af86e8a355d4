"""High-level features: closed forms, an independent implementation in loops, real showers."""

import importlib
import math

import numpy as np
import pytest

from physml.calorimeter import geometry, readers
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry, polar_layer
from physml.errors import ConfigError, DataError

features = importlib.import_module("physml.calorimeter.features")  # not its function of that name


def by_loops(shower, grid):
    """Features of one shower from the definitions, in Python numbers: no array, no shared code."""
    found = {name: [] for name in ("e_layer", "sparsity", "centre_r", "width_r")}
    found |= {f"{kind}_{axis}": [] for kind in ("centre", "width") for axis in ("eta", "phi")}
    at = 0
    for layer in grid.layers:
        sums = {axis: [0.0, 0.0] for axis in ("eta", "phi", "r")}
        energy, empty = 0.0, 0
        for sector in range(layer.n_alpha):
            alpha = -math.pi + (sector + 0.5) * 2 * math.pi / layer.n_alpha
            for ring in range(layer.n_r):
                r = (float(layer.r_edges[ring]) + float(layer.r_edges[ring + 1])) / 2
                e = float(shower[at])
                at += 1
                energy, empty = energy + e, empty + (e == 0)
                for axis, x in (
                    ("eta", r * math.cos(alpha)),
                    ("phi", r * math.sin(alpha)),
                    ("r", r),
                ):
                    sums[axis][0] += e * x
                    sums[axis][1] += e * x * x
        found["e_layer"].append(energy)
        found["sparsity"].append(empty / layer.size)
        for axis in ("eta", "phi", "r"):
            if axis == "r" or layer.n_alpha > 1:
                mean, square = (total / energy if energy else 0.0 for total in sums[axis])
                found[f"centre_{axis}"].append(mean)
                found[f"width_{axis}"].append(math.sqrt(max(square - mean**2, 0.0)))
    return found


def compare(showers, grid, rows):
    found = features.features(showers, grid)
    for row in rows:
        expected = by_loops(showers.deposits[row], grid)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][row], values, rtol=1e-6, atol=1e-6, err_msg=name)
        assert found["e_tot"][row] == pytest.approx(sum(expected["e_layer"]), rel=1e-12)
    return found


@pytest.mark.parametrize("make", [geometry.dataset_1_photons, geometry.dataset_1_pions])
def test_features_agree_with_loops(make):
    grid, random = make(), np.random.default_rng(1)
    deposits = random.exponential(50, (30, grid.size)) * (random.random((30, grid.size)) < 0.3)
    deposits[0] = 0
    deposits[1, geometry.slices(grid)[1]] = 0  # one layer without energy
    showers = Showers(np.full(30, 1e4), deposits.astype(np.float32))
    found = compare(showers, grid, range(30))
    assert all(np.isfinite(values).all() for values in found.values())


def test_features_of_real_showers_agree_with_loops(shared_data):
    grid = geometry.dataset_2()
    path = shared_data / "calo/geant4_ds2like_electrons.hdf5"
    compare(readers.read(path, grid).showers, grid, range(0, 275, 40))


def test_real_showers_are_as_theory_and_earlier_measurements_say(shared_data):
    """Depth grows by 1 X0 for each e-fold of energy (hep-ex/0001020: T = ln y - 0.812).

    Radius 5.3 mm and hits 200, 522, 1268 at 1-5, 5-20, 20-100 GeV: measured before with other code.
    """
    grid = geometry.dataset_2()
    showers = readers.read(shared_data / "calo/geant4_ds2like_electrons.hdf5", grid).showers
    found = features.features(showers, grid)
    depth = found["e_layer"] @ np.array([np.mean(layer.depth) for layer in grid.layers])
    fit = np.polyfit(np.log(found["e_inc"]), depth / found["e_tot"], 1)
    assert fit[0] == pytest.approx(1.0, abs=0.1)
    for low, high, hits in ((1, 5, 200), (5, 20, 522), (20, 100, 1268)):
        chosen = (found["e_inc"] >= low * 1e3) & (found["e_inc"] < high * 1e3)
        lit = (1 - found["sparsity"][chosen]) * 144
        assert lit.sum(axis=1).mean() == pytest.approx(hits, rel=0.05)
        weight = found["e_layer"][chosen]
        radius = (found["centre_r"][chosen] * weight).sum() / weight.sum()
        assert radius == pytest.approx(5.3, rel=0.03)
    assert found["e_ratio"].mean() == pytest.approx(0.0315 / 0.033, rel=0.03)  # silicon, corrected
    error = found["centre_eta"][:, 10].std() / math.sqrt(len(depth))
    assert abs(found["centre_eta"][:, 10].mean()) < 4 * error  # the beam is on the axis


GRID = Geometry((polar_layer(0, 4, [0, 10, 30]), polar_layer(3, 1, [0, 10, 30])))


def one(*lit):
    deposits = np.zeros((1, GRID.size), np.float32)
    for voxel, energy in lit:
        deposits[0, voxel] = energy
    return features.features(Showers(np.array([100.0]), deposits), GRID)


def test_one_voxel_has_its_place_and_no_width():
    """Sector 2 of 4 has alpha = pi/4; ring 1 the radius 20."""
    found = one((5, 8.0))
    assert found["e_tot"] == 8 and found["e_ratio"] == 0.08
    assert found["centre_eta"][0] == pytest.approx(20 * math.sqrt(0.5))
    assert found["centre_phi"][0] == pytest.approx(20 * math.sqrt(0.5))
    assert found["centre_r"][0].tolist() == [20, 0]
    for axis in ("eta", "phi", "r"):
        assert not found[f"width_{axis}"].any()
    np.testing.assert_allclose(found["sparsity"], [[7 / 8, 1]])


def test_a_ring_is_centred_and_as_wide_as_its_radius():
    found = one(*((k, 2.0) for k in (1, 3, 5, 7)))
    assert found["centre_eta"][0] == pytest.approx(0, abs=1e-12)
    assert found["width_eta"][0] == pytest.approx(20 / math.sqrt(2))
    assert found["width_phi"][0] == pytest.approx(20 / math.sqrt(2))
    assert found["width_r"][0, 0] == 0


def test_two_voxels_spread_by_their_shares():
    """Shares p and 1 - p at a distance d: width d sqrt(p (1 - p))."""
    found = one((8, 3.0), (9, 1.0))
    assert found["centre_r"][0, 1] == pytest.approx(0.75 * 5 + 0.25 * 20)
    assert found["width_r"][0, 1] == pytest.approx(15 * math.sqrt(0.75 * 0.25))
    assert found["centre_eta"].shape == (1, 1)  # the second layer has no sectors


def test_turning_a_shower_by_a_quarter_turns_its_centre():
    random = np.random.default_rng(2)
    deposits = random.exponential(1, (5, 8)).astype(np.float32)
    turned = np.roll(deposits.reshape(5, 4, 2), 1, axis=1).reshape(5, 8)
    grid = Geometry(GRID.layers[:1])
    before, after = (features.features(Showers(np.ones(5), d), grid) for d in (deposits, turned))
    np.testing.assert_allclose(after["centre_phi"], before["centre_eta"], rtol=1e-10)
    np.testing.assert_allclose(after["centre_eta"], -before["centre_phi"], rtol=1e-10)
    np.testing.assert_allclose(after["width_phi"], before["width_eta"], rtol=1e-10)
    np.testing.assert_allclose(after["width_r"], before["width_r"], rtol=1e-10)


def test_blocks_do_not_change_anything(monkeypatch):
    random = np.random.default_rng(3)
    grid = geometry.dataset_1_photons()
    showers = Showers(np.full(50, 1e3), random.exponential(1, (50, 368)).astype(np.float32))
    whole = features.features(showers, grid)
    edges = features.spectrum_edges(showers, grid)
    counts = features.voxel_spectrum(showers, edges)
    monkeypatch.setattr(features, "BLOCK_BYTES", 8 * 368 * 7)
    for name, values in features.features(showers, grid).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-12)
    assert (features.voxel_spectrum(showers, edges) == counts).all()
    assert counts.sum() == (showers.deposits >= 1.0).sum()  # the threshold of set 1


def test_threshold_counts_what_lies_above_it():
    found = features.features(
        Showers(np.ones(1), np.array([[0.5, 1, 2, 0, 0, 0, 0, 0, 0, 0]])), GRID, 1.0
    )
    np.testing.assert_allclose(found["sparsity"], [[7 / 8, 1]])


def test_matrix_has_the_challenges_columns():
    grid = geometry.dataset_2()
    deposits = np.zeros((2, grid.size), np.float32)
    deposits[0, 0] = 10.0
    table = features.matrix(features.features(Showers(np.array([1e3, 1e4]), deposits), grid))
    assert table.shape == (2, 1 + 5 * 45)
    assert table[:, 0].tolist() == [3.0, 4.0]
    np.testing.assert_allclose(table[0, 1:3], [1, -8])
    alpha = -math.pi + math.pi / 16
    places = 2.325 / 100 * np.array([math.cos(alpha), math.sin(alpha)])
    np.testing.assert_allclose(table[0, [46, 91, 136, 181]], [*places, 0, 0])  # widths: 0
    deposits[0, 8] = 10.0  # the outermost ring of the same sector, 37.2 mm further out
    table = features.matrix(features.features(Showers(np.array([1e3, 1e4]), deposits), grid))
    spread = 18.6 / 100 * np.abs([math.cos(alpha), math.sin(alpha)])
    np.testing.assert_allclose(table[0, [136, 181]], spread)


def test_what_fits_no_geometry_is_refused():
    with pytest.raises(DataError, match="the geometry has 10 voxels"):
        features.features(Showers(np.ones(1), np.zeros((1, 9), np.float32)), GRID)
    for energy in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(DataError, match="not positive"):
            features.features(Showers(np.array([energy]), np.zeros((1, 10), np.float32)), GRID)
    for deposit in (-1.0, np.nan, np.inf):
        with pytest.raises(DataError, match="negative or not finite"):
            one((3, deposit))
    with pytest.raises(ConfigError, match="threshold 0 MeV"):
        features.spectrum_edges(Showers(np.ones(1), np.ones((1, 10), np.float32)), GRID)
