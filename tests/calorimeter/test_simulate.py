"""The shower maker: profiles, noise, conservation, symmetry, and Geant4."""

import numpy as np
import pytest
from scipy import integrate, stats

from data_scripts import shower_tuning
from physml import showers
from physml.calorimeter import events, geometry, readers
from physml.calorimeter.simulate import MATERIALS, TUNED, Tuning, simulate
from physml.errors import ConfigError, DataError

STILL = showers.Tuning(depth_width=0.0, exponent_width=0.0)  # every shower has the mean profile
TUNGSTEN = geometry.dataset_2().stack
WHOLE = TUNGSTEN._replace(sampling_fraction=None)
WIDE = (0.0, 1e5)


def stacked(edges, stack=TUNGSTEN, sectors=1, rings=WIDE, threshold=0.0):
    """Layers of rings between depths (X0)."""
    layers = [
        geometry.polar_layer(k, sectors, rings, (float(a), float(b)))
        for k, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True))
    ]
    return geometry.Geometry(tuple(layers), "electron", threshold, stack)


RINGS = np.array([0.0, 2, 4, 8, 15, 30, 60, 200, 1e6])
AXIS = np.linspace(-40, 40, 16 + 1)
# One geometry for most tests, as each takes seconds to compile: thin layers from front to back, and
# three that count the same energy again, in rings, in fine rings and in cells.
LAYERS = (
    *stacked(np.arange(0, 40.5, 0.5)).layers,
    geometry.polar_layer(80, 4, RINGS, (5.6, 6.4)),
    geometry.polar_layer(81, 16, np.linspace(0, 40, 32 + 1), (4.0, 5.0)),
    geometry.cell_layer(82, AXIS, AXIS, (4.0, 5.0)),
)
LAB = geometry.Geometry(LAYERS, "electron", 0.0, TUNGSTEN)
LAB_WHOLE = LAB._replace(stack=WHOLE)
RINGED, FINE, CELLS = geometry.slices(LAB)[80:]


def thin(found):
    """Deposits in the layers of 0.5 X0 from 0 to 40."""
    return found.deposits[:, :80]


def published(energy):
    """T and alpha of the mean shower in tungsten and silicon: hep-ex/0001020, by hand."""
    mass = 0.14 * 19.30, 0.03 * 2.329  # g/cm²
    x0, z, a = (6.763, 21.82), (74, 14), (183.84, 28.0855)
    share = np.array(mass) / sum(mass)
    critical = [2.66 * (x * n / m) ** 1.1 for x, n, m in zip(x0, z, a, strict=True)]
    total = 1 / sum(share / x0)
    y = np.log(energy / (total * sum(share * critical / np.array(x0))))
    inverse = mass[0] / x0[0] + mass[1] / x0[1]  # 1 / F: X0 of a pair of plates
    step = 1 - 1 / (1 + 0.007 * 60)
    top = y - 0.812 - 0.55 * inverse - 0.69 * step
    return top, 0.81 + (0.458 + 2.26 / (share @ np.array(z))) * y - 0.476 * inverse


@pytest.mark.parametrize("energy", [2e3, 50e3])
def test_layers_hold_the_gamma_distribution_of_the_paper(energy):
    n, sampling = 2000, Tuning(STILL, stochastic=0.05)
    deposits = thin(simulate(1, np.full(n, energy), LAB, "electron", sampling))
    top, alpha = published(energy)
    depth = stats.gamma(alpha, scale=top / (alpha - 1))
    expected = np.diff(depth.cdf(np.arange(0, 40.5, 0.5)))
    # A layer of share q has the variance c² q E (GeV): spots, each exponential.
    error = 0.05 * np.sqrt(np.maximum(expected, 1e-6) / (energy / 1e3) / n)
    pull = (deposits.mean(axis=0) / energy - expected) / error
    assert np.abs(pull).max() < 4.5 and 0.6 < pull[expected > 1e-4].std() < 1.4
    middle = np.arange(0.25, 40, 0.5)
    assert middle[deposits.mean(axis=0).argmax()] == pytest.approx(top, abs=0.3)


def test_rings_hold_the_integral_of_the_radial_density():
    found = simulate(1, np.full(3, 2e4), LAB_WHOLE, "electron", Tuning(STILL, whole=1e7))
    medium, plates = showers.plates((MATERIALS["W"], 1.4), (MATERIALS["Si"], 0.3))
    shape = showers.shower_shape(medium, np.array(20.0), (np.zeros(()), np.zeros(())), plates)
    radial = showers.radial_shape(medium, np.array(20.0), shape, np.array(6.0), plates)
    unit = 10 * medium.moliere_radius / medium.density  # mm

    def density(r):
        parts = [2 * r * (R * unit) ** 2 / (r * r + (R * unit) ** 2) ** 2 for R in radial[:2]]
        return float(radial.share * parts[0] + (1 - radial.share) * parts[1])

    expected = [integrate.quad(density, a, b)[0] for a, b in zip(RINGS, RINGS[1:], strict=False)]
    ours = found.deposits[:, RINGED].reshape(3, 4, 8).sum(axis=1) / 2e4
    layer = np.diff(showers.shower_fraction(shape, np.array([5.6, 6.4])))[0]
    np.testing.assert_allclose(ours, [layer * np.array(expected)] * 3, rtol=0.02, atol=1e-5)


def test_sampling_noise_is_the_stochastic_term_and_the_response_is_linear():
    n, still = 3000, Tuning(STILL, stochastic=0.1)
    for energy in (1e3, 1e4, 1e5):
        found = simulate(2, np.full(n, energy), LAB, "electron", still)
        ratio = thin(found).sum(axis=1) / energy
        width = 0.1 / np.sqrt(energy / 1e3)
        assert ratio.mean() == pytest.approx(1, abs=4.5 * width / np.sqrt(n) + 1e-3)
        assert ratio.std() == pytest.approx(width, rel=0.05)


def test_counted_whole_the_sum_is_the_energy_whatever_the_noise():
    """Thin layers hold all of it; three more count a part again. Some showers are 100 X0 deep."""
    energy = np.geomspace(200, 1e6, 300)
    some = Tuning(showers.Tuning(depth_width=0.6, exponent_width=0.3), lateral=0.05)
    few, many = (
        simulate(3, energy, LAB_WHOLE, "electron", some._replace(whole=whole)).deposits
        for whole in (200.0, 1e7)
    )
    assert (few >= 0).all() and (few == 0).mean() > 2 * (many == 0).mean()
    np.testing.assert_allclose(few.sum(axis=1), many.sum(axis=1), rtol=1e-5)
    inside = many[:, :80].sum(axis=1) / energy
    assert inside.max() < 1 + 2e-3 and np.median(inside) == pytest.approx(1, abs=2e-3)
    again = many[:, RINGED].sum(axis=1) / many[:, 11:13].sum(axis=1)  # 5.5 to 6.5 X0
    assert np.abs(again - 0.8).max() < 0.02


def test_photons_convert_after_an_exponential_way():
    n, middle = 4000, np.arange(0.25, 40, 0.5)
    still, depth = Tuning(STILL, stochastic=0.02), []
    for particle in ("electron", "photon"):
        found = thin(simulate(4, np.full(n, 5e4), LAB, particle, still))
        depth.append(found @ middle / found.sum(axis=1))
    gap = depth[1] - depth[0].mean()
    assert depth[0].std() < 0.1
    assert gap.mean() == pytest.approx(9 / 7, rel=0.06)
    assert gap.std() == pytest.approx(9 / 7, rel=0.08)
    late = [(gap > x).mean() for x in (1, 2, 4)]
    np.testing.assert_allclose(late, np.exp(-7 / 9 * np.array([1, 2, 4])), atol=0.03)


def test_depths_fluctuate_and_neighbouring_layers_follow_each_other():
    found = thin(simulate(5, np.full(2000, 2e4), LAB)).reshape(2000, 20, 4).sum(axis=2)
    share = found / found.sum(axis=1, keepdims=True)
    correlation = np.corrcoef(share[:, :9].T)
    assert correlation[1, 2] > 0.6 and correlation[6, 7] > 0.5 and correlation[1, 7] < -0.3


def test_rings_and_cells_agree_on_where_the_axis_is():
    moved, asymmetry = Tuning(STILL, whole=1e7, lateral=0.1), []
    found = simulate(6, np.full(200, 2e3), LAB_WHOLE, "electron", moved).deposits
    centre = geometry.centres(LAB)
    for part in (FINE, CELLS):
        for place in (centre.eta[part], centre.phi[part]):
            side = found[:, part] @ np.sign(place)
            asymmetry.append(side / found[:, part].sum(axis=1))
    for ours, theirs in zip(asymmetry[:2], asymmetry[2:], strict=True):
        assert ours.std() > 0.15
        np.testing.assert_allclose(ours, theirs, atol=0.05)
    assert abs(np.corrcoef(asymmetry[0], asymmetry[1])[0, 1]) < 0.25


def test_showers_are_the_same_to_the_left_and_to_the_right():
    voxels, n = geometry.dataset_2(), 200
    deposits = simulate(7, np.full(n, 1e4), voxels).deposits
    layer = deposits.reshape(n, 45, 16, 9).sum(axis=(1, 3))
    mean, error = layer.mean(axis=0), layer.std(axis=0) / np.sqrt(n)
    for mirrored in (np.arange(16)[::-1], (np.arange(16) + 8) % 16):
        assert (np.abs(mean - mean[mirrored]) < 4.5 * np.hypot(error, error[mirrored])).all()
    centre = geometry.centres(voxels)
    total = deposits.sum(axis=1)
    for place in (centre.eta, centre.phi):
        eta = deposits @ place / total
        assert abs(eta.mean()) < 4 * eta.std() / np.sqrt(n)


def test_nothing_is_stored_below_the_threshold():
    voxels = geometry.dataset_2()
    deposits = simulate(8, np.full(20, 1e4), voxels).deposits
    lit = deposits[deposits > 0]
    assert lit.min() >= np.float32(voxels.threshold)
    high = simulate(8, np.full(20, 1e4), voxels._replace(threshold=5.0)).deposits
    np.testing.assert_array_equal(high, np.where(deposits < 5.0, 0, deposits))


def test_photons_of_set_1_have_its_form_from_256_mev_to_4_tev():
    """The noise is that of lead and argon (c = 0.075); 1 MeV is the least that a voxel holds."""
    voxels, n = geometry.dataset_1_photons(), 400
    energy = np.repeat(256.0 * 2.0 ** np.arange(15), n)
    found = simulate(12, energy, voxels).deposits
    assert found[found > 0].min() >= 1.0
    ratio = (found.sum(axis=1, dtype=float) / energy).reshape(15, n)
    mean, rms = ratio.mean(axis=1), ratio.std(axis=1)
    assert 0.85 < mean[0] < 0.92  # 2 X0 in front of the layers and the threshold take a part
    assert (mean[4:] > 0.975).all() and (mean < 1).all()
    assert (np.diff(mean)[:4] > 0).all() and (np.diff(mean)[10:] < 0).all()  # then: leakage
    term = rms[3:9] * np.sqrt(energy[3 * n : 9 * n : n] / 1e3)
    assert (term > 0.068).all() and (term < 0.095).all()
    whole = voxels._replace(threshold=0.0)
    free = simulate(12, energy, whole).deposits
    np.testing.assert_array_equal(found, np.where(free < 1.0, 0, free))
    lost = (1 - found.sum(axis=1, dtype=float) / free.sum(axis=1)).reshape(15, n).mean(axis=1)
    assert (np.diff(lost) < 0).all() and lost[0] > 0.01


def test_the_key_decides_and_the_first_showers_do_not_depend_on_the_rest():
    voxels, energy = geometry.dataset_2(), np.geomspace(1e3, 1e5, 170)
    first = simulate((9, 1), energy, voxels)
    again = simulate((9, 1), energy[:90], voxels)  # ends in another block
    np.testing.assert_array_equal(first.deposits[:90], again.deposits)
    assert first.deposits.dtype == np.float32 and first.incident_energy.dtype == np.float64
    assert (simulate((9, 2), energy[:3], voxels).deposits != again.deposits[:3]).any()
    assert len(simulate(9, [], voxels).deposits) == 0


def test_electrons_in_homogeneous_argon():
    argon = geometry.Stack("Pb", 0.0, "Ar", 1.0, 1, None)
    found = simulate(1, np.full(4, 2e4), stacked(np.arange(0, 40, 0.5), argon), "electron",
                     Tuning(STILL, whole=1e6)).deposits  # fmt: skip
    critical = 2.66e-3 * (19.55 * 18 / 39.948) ** 1.1
    top = np.log(20 / critical) - 0.812
    assert 0.5 * found.mean(axis=0).argmax() + 0.25 == pytest.approx(top, abs=0.3)


@pytest.mark.parametrize("name", ["W", "Pb"])
def test_geant4_showers_that_were_not_tuned_on_are_met(shared_data, name):
    sample = shower_tuning.samples()[name]
    truth = readers.read(shared_data / "calo" / sample.file, sample.geometry).showers
    odd = events.select(truth, slice(1, None, 2))
    theirs = shower_tuning.summarise(odd, sample.geometry)

    def excess(tuning):  # over the target, in units of the statistical error of Geant4
        made = shower_tuning.made(odd, sample, tuning, 4)
        ours = shower_tuning.summarise(made, sample.geometry)
        rows = [ours.names.index(part) for part in shower_tuning.TARGETS]
        allowed = np.array(list(shower_tuning.TARGETS.values()))[:, None] * theirs.value[rows]
        return (np.abs(ours.value - theirs.value)[rows] - allowed) / theirs.error[rows]

    assert (excess(TUNED[name]) < 1).all()
    assert (excess(Tuning()) > 4).any()  # as published it is far off


@pytest.mark.parametrize(
    "energies",
    [[1e3, 0.0], [1e3, -5.0], [np.nan], [np.inf], [2e11], [[1e3]], 1e3, ["a"], [[1e3, 2], [3]]],
)
def test_energies_that_are_none_are_refused(energies):
    with pytest.raises(DataError, match=r"energies: .*positive energies in MeV"):
        simulate(0, energies, geometry.dataset_2())


def test_unusual_energies_are_warned_of():
    with pytest.warns(UserWarning, match="2 of 3 are outside"):
        found = simulate(0, [5.0, 1e4, 1e9], geometry.dataset_2())
    assert np.isfinite(found.deposits).all() and found.deposits.any(axis=1)[1:].all()


def test_bad_geometries_particles_and_tunings_are_refused():
    voxels = geometry.dataset_2()
    with pytest.raises(ConfigError, match="hadrons are not"):
        simulate(0, [1e3], geometry.dataset_1_pions())
    with pytest.raises(ConfigError, match="'muon' is not covered"):
        simulate(0, [1e3], voxels, "muon")
    with pytest.raises(ConfigError, match="what it is made of"):
        simulate(0, [1e3], voxels._replace(stack=None))
    bare = tuple(layer._replace(depth=None) for layer in voxels.layers)
    with pytest.raises(ConfigError, match="where its layers stand"):
        simulate(0, [1e3], voxels._replace(layers=bare))
    with pytest.raises(ConfigError, match="Xx is no known material"):
        simulate(0, [1e3], voxels._replace(stack=TUNGSTEN._replace(active="Xx")))
    for wrong in (
        Tuning(stochastic=0.0),
        Tuning(lateral=np.nan),
        Tuning(showers.Tuning(radius=-1)),
    ):
        with pytest.raises(ConfigError, match="tuning"):
            simulate(0, [1e3], voxels, "electron", wrong)
    for key in (-1, 0.5, (1, "a")):
        with pytest.raises(ConfigError, match="key"):
            simulate(key, [1e3], voxels)
