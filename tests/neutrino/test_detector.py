"""The detector: ranges, energy, showers, decays, light, hits."""

import numpy as np
import pytest
from scipy import integrate, stats

from physml import matter
from physml.errors import ConfigError, DataError
from physml.neutrino import geometry, secondaries
from physml.neutrino.detector import BATCH, deposit, respond
from physml.neutrino.events import Particles
from physml.neutrino.geometry import Detector

FAR = Detector()
CLEAN = FAR._replace(sensor_noise=0.0, noise_hits=0.0, threshold=1.0)
OIL = FAR.material
X0 = OIL.radiation_length / OIL.density  # cm
MUON, PROTON, PION0 = 0.1056583755, 0.93827209, 0.1349768


def beam(code, momentum, n, position=(0.3, 0.7, 2000.0), direction=(0.0, 0.0, 1.0)):
    """Many equal particles, one an event."""
    momentum = np.broadcast_to(momentum, (n,))[:, None] * np.array(direction)
    return Particles(
        np.arange(n, dtype=np.int32), np.full(n, code, np.int32),
        np.tile(np.array(position, float), (n, 1)), momentum,
    )  # fmt: skip


def generator(seed=0):
    return np.random.default_rng(seed)


def per_source(found, values, n):
    return np.bincount(found.source, values, minlength=n)


def momentum_of(kinetic, mass):
    return np.sqrt(kinetic * (kinetic + 2 * mass))


def test_muons_of_2_gev_go_ten_metres():
    n = 300
    found = deposit(generator(), beam(13, momentum_of(2.0, MUON), n), FAR)
    depth = np.zeros(n)
    np.maximum.at(depth, found.source, found.z - 2000.0)
    table = matter.range_table(OIL, MUON)
    reach = float(matter.csda_range(table, np.array(2.0))) / OIL.density
    assert reach == pytest.approx(1000, rel=0.04)
    # They wiggle (depth is a little less than the way), straggle and end in a Michel electron.
    assert np.median(depth) == pytest.approx(reach, rel=0.02)
    spread = np.subtract(*np.quantile(depth, [0.84, 0.16])) / 2
    assert 0.025 < spread / reach < 0.05  # straggling 0.029, more from angles and electrons


@pytest.mark.parametrize("code, mass, kinetic", [(2212, PROTON, 0.1), (13, MUON, 0.5)])
def test_tracks_that_stop_leave_all_their_energy(code, mass, kinetic):
    n = 500
    found = deposit(generator(), beam(code, momentum_of(kinetic, mass), n), FAR)
    energy = per_source(found, found.energy, n)
    assert (found.energy >= 0).all()
    if code == 2212:  # a few collide on the way and lose some
        assert (energy < kinetic * (1 + 1e-9)).all()
        assert (energy > kinetic * (1 - 1e-9)).mean() > 0.85
    else:
        electron = energy - kinetic
        assert (electron > 0).all() and (electron < MUON / 2 + 1e-4).all()
        assert electron.mean() == pytest.approx(0.7 * MUON / 2, rel=0.04)


@pytest.mark.parametrize("code", [11, -11, 22])
def test_showers_leave_all_their_energy(code):
    kinetic = np.geomspace(0.003, 10, 40)
    found = deposit(generator(), beam(code, kinetic, 40), FAR)
    mass = 0.0 if code == 22 else 0.51099895e-3
    expected = np.sqrt(kinetic**2 + mass**2) - mass
    np.testing.assert_allclose(per_source(found, found.energy, 40), expected, rtol=1e-9)


def test_electrons_peak_where_the_profile_does():
    found = deposit(generator(), beam(11, 2.0, 500), FAR)
    depth = (found.z - 2000.0) / X0
    counts, edges = np.histogram(depth, np.arange(0, 12, 0.25), weights=found.energy)
    top = edges[counts.argmax()] + 0.125
    assert top == pytest.approx(np.log(2.0 / OIL.critical_energy) - 0.812, abs=0.5)
    assert top == pytest.approx(np.log(2.0 / 0.08) - 0.5, abs=0.6)  # PDG, E_c about 80 MeV


def test_photons_start_later_by_an_exponential_gap():
    n = 20_000  # soft, for their own fluctuations are small
    depth = [
        (per_source(found, found.z, n) / np.bincount(found.source, minlength=n) - 2000.0) / X0
        for found in (deposit(generator(k), beam(c, 0.02, n), FAR) for k, c in ((0, 11), (1, 22)))
    ]
    assert depth[1].mean() - depth[0].mean() == pytest.approx(9 / 7, rel=0.03)
    assert depth[1].var() - depth[0].var() == pytest.approx((9 / 7) ** 2, rel=0.06)
    third = [stats.moment(d, 3) for d in depth]
    assert third[1] - third[0] == pytest.approx(2 * (9 / 7) ** 3, rel=0.2)


def test_photons_of_a_pi0_have_its_mass():
    n = 2000
    flying = secondaries.launch(beam(111, generator().uniform(0, 5, n), n))
    pair = secondaries.decay(generator(), flying)
    assert (pair.pdg == 22).all() and len(pair.pdg) == 2 * n
    order = np.argsort(pair.source, kind="stable")
    p = pair.momentum[order].reshape(n, 2, 3)
    energy = np.linalg.norm(p, axis=2).sum(axis=1)
    mass2 = energy**2 - (p.sum(axis=1) ** 2).sum(axis=1)
    np.testing.assert_allclose(np.sqrt(mass2), PION0, rtol=1e-9)
    np.testing.assert_allclose(p.sum(axis=1), flying.momentum, atol=1e-12)
    # Isotropic in its frame: the energy of a photon is uniform between (E - p)/2 and (E + p)/2.
    total = np.sqrt((flying.momentum**2).sum(axis=1) + PION0**2)
    size = np.linalg.norm(flying.momentum, axis=1)
    share = (np.linalg.norm(p[:, 0], axis=1) - (total - size) / 2) / size
    assert stats.kstest(share, "uniform").pvalue > 1e-3


def test_michel_spectrum():
    x = secondaries.michel(generator(), 50_000)
    assert stats.kstest(x, lambda x: 2 * x**3 - x**4).pvalue > 1e-3


def test_taus_decay_by_the_branching_fractions():
    n = 40_000
    flying = secondaries.launch(beam(15, 5.0, n))
    products = secondaries.decay(generator(), flying)

    def share(code):
        return (np.bincount(products.source[products.pdg == code], minlength=n) > 0).mean()

    assert share(11) == pytest.approx(0.1785 / 0.898, abs=0.01)
    assert share(13) == pytest.approx(0.1737 / 0.898, abs=0.01)
    assert not np.isin(products.pdg, (-11, -13)).any()
    charge = np.isin(products.pdg, (211, -211, 11, 13)) * np.where(products.pdg == 211, 1, -1)
    np.testing.assert_array_equal(np.bincount(products.source, charge, minlength=n), -1)
    energy = np.sqrt((products.momentum**2).sum(axis=1) + products.mass**2)
    seen = per_source(products, energy, n)
    assert (seen < np.hypot(5.0, 1.77693)).all()
    # Along the flight the neutrino takes half of the rest of the two bodies tau -> pi nu.
    alone = np.bincount(products.source, minlength=n) == 1
    pion = alone[products.source] & (products.pdg == -211)
    expected = (1 + (0.13957 / 1.77693) ** 2) / 2 * np.hypot(5.0, 1.77693)
    assert energy[pion].mean() == pytest.approx(expected, rel=0.01)
    plus = secondaries.decay(generator(), secondaries.launch(beam(-15, 5.0, 1000)))
    assert np.isin(plus.pdg, (-11, -13, 211, -211, 22)).all()


@pytest.mark.parametrize("code", [211, -211, 321, -321, 2212, 2112, 130])
def test_hadrons_never_leave_more_than_they_have(code):
    n = 400
    mass = secondaries.MASS[abs(code)]
    particles = beam(code, momentum_of(1.5, mass), n)
    found = deposit(generator(), particles, FAR)
    energy = per_source(found, found.energy, n)
    rest = 0.0 if abs(code) > 1000 else mass
    assert (energy < 1.5 + rest + 1e-9).all()
    assert energy.mean() > 0.3
    one = secondaries.launch(particles)
    products = secondaries.collide(generator(), one)
    out = per_source(products, secondaries.kinetic(products), n)
    made = per_source(products, np.where(np.isin(np.abs(products.pdg), (111, 211, 321, 130)),
                                         products.mass, 0.0), n)  # fmt: skip
    assert (out + made <= 1.5 + rest + 1e-9).all()


def test_protons_are_quenched_after_birks():
    kinetic, n = 0.1, 300
    found = deposit(generator(), beam(2212, momentum_of(kinetic, PROTON), n), FAR)
    whole = per_source(found, found.energy, n) > kinetic * (1 - 1e-9)
    seen = per_source(found, found.visible, n)[whole] / kinetic

    def light(energy, mass=PROTON):
        loss = float(matter.bethe(OIL, mass, np.array(energy))) * OIL.density
        return 1 / (1 + FAR.birks * loss)

    expected = integrate.quad(light, 1e-3, kinetic)[0] / kinetic / light(0.31, MUON)
    assert seen.mean() == pytest.approx(expected, rel=0.02)
    assert expected < 0.9


def test_scattering_displaces_muons_as_the_pdg_says():
    n, way = 2000, 200.0
    found = deposit(generator(), beam(13, momentum_of(2.0, MUON), n), FAR)
    here = np.abs(found.z - 2000.0 - way) < 2.0
    displaced = np.array([found.x[here] - 0.3, found.y[here] - 0.7])
    energy = 2.0 - 0.19 * way / 100 / 2  # GeV, in the middle
    momentum = momentum_of(energy, MUON)
    angle = matter.highland(np.array(way / X0), momentum, momentum / (energy + MUON))
    assert displaced.std() == pytest.approx(way * angle / np.sqrt(3), rel=0.12)


def test_light_comes_by_two_ways():
    along = np.linspace(-762, 762, 7)
    half, reach = geometry.half_width(FAR), FAR.attenuation

    def two(y):
        short, far = half - y, 3 * half + y
        return np.exp(-short / reach) + np.exp(-far / reach)

    np.testing.assert_allclose(geometry.light(FAR, along), two(along) / two(0.0), rtol=1e-12)


def test_cells_know_their_places():
    cell, plane = np.arange(FAR.cells), np.arange(FAR.planes)
    assert (geometry.cell_number(FAR, geometry.cell_position(FAR, cell)) == cell).all()
    assert (geometry.plane_number(FAR, geometry.plane_position(FAR, plane)) == plane).all()
    half, length = geometry.half_width(FAR), geometry.length(FAR)
    start = np.array([[0.0, 0.0, 10.0], [0.0, 0.0, -10.0], [0.0, half + 1, 10.0]])
    way = np.array([[0.0, 0.6, 0.8], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    expected = [half / 0.6, length + 10, 0.0]
    np.testing.assert_allclose(geometry.exit_distance(FAR, start, way), expected)


def test_hits_of_muons_high_and_low_differ_in_light_but_not_in_energy():
    up, down = (
        respond(generator(), beam(13, 5.0, 60, position=(0.3, y, 300.0)), CLEAN)
        for y in (600.0, -600.0)
    )
    mean = [hits.photoelectrons[hits.plane % 2 == 0].mean() for hits in (up, down)]
    light = [geometry.light(FAR, y) for y in (600.0, -600.0)]
    assert mean[0] / mean[1] == pytest.approx(light[0] / light[1], rel=0.05)
    calibrated = [hits.energy[hits.plane % 2 == 0].mean() for hits in (up, down)]
    assert calibrated[0] == pytest.approx(calibrated[1], rel=0.03)


def test_a_fast_muon_leaves_its_mean_loss_in_each_plane():
    hits = respond(generator(), beam(13, 5.0, 200, position=(0.3, 0.7, 500.0)), CLEAN)
    first = (hits.plane > 80) & (hits.plane < 120)  # 0.3 to 3 m on
    per_plane = hits.energy[first].sum() / (200 * 39)
    expected = float(matter.bethe(OIL, MUON, np.array(4.5))) * OIL.density * FAR.plane_pitch
    assert per_plane == pytest.approx(expected, rel=0.03)


def test_hits_are_in_order_in_range_and_above_threshold():
    hits = respond(generator(), beam(11, 2.0, 300), FAR)
    key = (hits.event.astype(np.int64) * FAR.planes + hits.plane) * FAR.cells + hits.cell
    assert (np.diff(key) > 0).all()
    assert (hits.photoelectrons >= FAR.threshold).all() and (hits.energy > 0).all()
    assert [column.dtype.str[1:] for column in hits] == ["i4", "i4", "i4", "f4", "f4", "i4"]
    assert (hits.plane >= 0).all() and (hits.plane < FAR.planes).all()
    noise = hits.particle == -1
    assert noise.sum() / 300 == pytest.approx(FAR.noise_hits, abs=0.25)
    np.testing.assert_array_equal(hits.particle[~noise], hits.event[~noise])
    again = respond(generator(), beam(11, 2.0, 300), FAR)
    for ours, theirs in zip(hits, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_hit_names_the_particle_that_left_most():
    two = Particles(
        np.zeros(2, np.int32), np.array([13, 13], np.int32),
        np.array([[-50.0, -50.0, 1000.0], [50.0, 50.0, 1000.0]]),
        np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 2.0]]),
    )  # fmt: skip
    hits = respond(generator(), two, CLEAN)
    near = hits.plane < 190  # before they wander
    right = geometry.cell_position(FAR, hits.cell) > 0
    np.testing.assert_array_equal(hits.particle[near], right[near])


def test_events_are_numbered_through_all_batches():
    n = BATCH + 50
    particles = beam(13, 0.3, n)
    some = particles.event % 3 > 0  # events without any particle have no hit
    hits = respond(generator(), Particles(*(column[some] for column in particles)), CLEAN)
    assert np.unique(hits.event).tolist() == np.flatnonzero(some).tolist()
    np.testing.assert_array_equal(np.flatnonzero(some)[hits.particle], hits.event)


def test_neutrinos_and_nuclei_leave_nothing():
    for code in (14, -12, 1000060120, 2000000101):
        assert len(respond(generator(), beam(code, 2.0, 3), FAR).event) == 0
    assert len(respond(generator(), beam(13, 2.0, 0), FAR).event) == 0
    outside = beam(13, 2.0, 3, position=(0.0, 2000.0, 100.0))
    assert len(respond(generator(), outside, FAR).event) == 0


def test_bad_input_is_refused():
    particles = beam(13, 1.0, 4)
    with pytest.raises(DataError, match="codes 9 are not known"):
        respond(generator(), particles._replace(pdg=np.array([13, 9, 9, 22], np.int32)), FAR)
    with pytest.raises(DataError, match="momentum: row 2 is not finite"):
        momentum = particles.momentum.copy()
        momentum[2, 1] = np.nan
        respond(generator(), particles._replace(momentum=momentum), FAR)
    with pytest.raises(DataError, match="not sorted by event"):
        respond(generator(), particles._replace(event=particles.event[::-1]), FAR)
    with pytest.raises(ConfigError, match="detector.attenuation: is nan"):
        respond(generator(), particles, FAR._replace(attenuation=np.nan))
