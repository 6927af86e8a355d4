"""The maker of collisions: geometry, physics of the layers, noise, and a real event beside it."""

import gzip

import numpy as np
import pytest
from scipy import stats

from physml import matter
from physml.errors import ConfigError
from physml.tracking import events, helix, modules, transport
from physml.tracking.geometry import trackml
from physml.tracking.simulate import KAON, LAMBDA, Options, simulate
from physml.tracking.spectrum import MASS
from physml.tracking.transport import Flights, Material

DETECTOR = trackml()
NOTHING = Material(collision=0.0, scattering=False, loss=False)
IDEAL = Options(resolution=0.0, inefficiency=0.0, noise=0.0, material=NOTHING)
BEND = 0.299792458e-3 * 2.0  # GeV/mm: transverse momentum = this x radius


@pytest.fixture(scope="module")
def ideal():
    return simulate((3, 0), 60.0, options=IDEAL)


@pytest.fixture(scope="module")
def collisions():
    return [simulate((7, k)) for k in range(4)]


def beam(n, momentum, cot=0.0, seed=0):
    """Muons from the centre, all around: flights and their directions."""
    phi = np.random.default_rng(seed).uniform(-np.pi, np.pi, n)
    pt = np.full(n, momentum / np.sqrt(1 + cot**2))
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * cot], axis=1)
    start = helix.helix(np.zeros((n, 3)), p, np.ones(n), DETECTOR.field)
    return Flights(start, np.full(n, momentum), np.full(n, MASS[13]))


def fly(flights, material=NOTHING, detector=DETECTOR, seed=1):
    return transport.fly(np.random.default_rng(seed), flights, detector, material)


def module_frame(hits):
    """Centre and angle of u of each hit's module, from the table of rings."""
    rings, barrel = DETECTOR.rings, DETECTOR.barrel[hits.layer]
    last = rings.first + rings.count - 1
    ring = np.array([np.flatnonzero((rings.layer == layer) & (rings.first <= m) & (m <= last[:]))[0]
                     for layer, m in zip(hits.layer, hits.module, strict=True)])  # fmt: skip
    k = hits.module - rings.first[ring]
    phi = -np.pi + (k + 0.5) * 2 * np.pi / rings.count[ring]
    z = rings.z[ring] + np.sign(rings.z[ring]) * rings.stagger[ring] * np.where(k % 2, -1, 1)
    r = rings.radius[ring]
    centre = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)
    return ring, barrel, centre, phi + rings.tilt[ring]


def test_hits_lie_on_flat_modules(ideal):
    """In the plane of the module that they name, within its edges."""
    hits = events.Hits(*(column[::5] for column in ideal.hits))
    ring, barrel, centre, angle = module_frame(hits)
    off = hits.position - centre
    across = off[:, 0] * np.cos(angle) + off[:, 1] * np.sin(angle)
    u = -off[:, 0] * np.sin(angle) + off[:, 1] * np.cos(angle)
    np.testing.assert_allclose(np.where(barrel, across, off[:, 2]), 0.0, atol=1e-9)
    v = np.where(barrel, off[:, 2], across)
    rings = DETECTOR.rings
    share = (v / rings.half_length[ring] + 1) / 2
    half = rings.narrow[ring] + share * (rings.wide[ring] - rings.narrow[ring])
    assert (np.abs(u) < half).all() and ((share > 0) & (share < 1)).all()


def test_hits_lie_on_the_helices(ideal):
    """Without matter and errors: on the circle, and z by the angle turned; within half a turn."""
    own = ideal.particle
    p, v = ideal.particles.momentum[own], ideal.particles.vertex[own]
    charge = ideal.particles.charge[own].astype(float)
    pt = np.hypot(p[:, 0], p[:, 1])
    radius = pt / BEND
    # Positive charges turn clockwise: the centre is to the right of the momentum.
    side = charge[:, None] * np.stack([p[:, 1], -p[:, 0]], axis=1) / pt[:, None]
    centre = v[:, :2] + side * radius[:, None]
    from_centre = ideal.hits.position[:, :2] - centre
    np.testing.assert_allclose(np.linalg.norm(from_centre, axis=1), radius, atol=1e-6)
    begin = v[:, :2] - centre
    cross = begin[:, 0] * from_centre[:, 1] - begin[:, 1] * from_centre[:, 0]
    turn = np.arctan2(-charge * cross, (begin * from_centre).sum(axis=1))
    turn = np.where(turn < -0.1, turn + 2 * np.pi, turn)
    z = v[:, 2] + p[:, 2] / pt * radius * turn
    np.testing.assert_allclose(ideal.hits.position[:, 2], z, atol=1e-6)
    assert turn.max() < np.pi + 0.1


def test_central_tracks_cross_all_ten_barrels(ideal):
    p, layers = ideal.particles, DETECTOR.barrel[ideal.hits.layer]
    prompt = np.hypot(p.vertex[:, 0], p.vertex[:, 1]) < 0.1
    central = prompt & (events.pt(p.momentum) > 1) & (np.abs(events.eta(p.momentum)) < 0.7)
    pairs = np.unique(np.stack([ideal.particle, ideal.hits.layer])[:, layers], axis=1)
    crossed = np.bincount(pairs[0], minlength=len(central))[central]
    assert len(crossed) > 40 and (crossed == 10).all()


def test_overlaps_are_those_of_the_modules():
    crossings = fly(beam(20_000, 500.0, cot=0.2))
    _, points = modules.cross(crossings, DETECTOR)
    rings = DETECTOR.rings
    own = rings.layer[points.ring]
    for k in np.flatnonzero(DETECTOR.barrel):
        ring = np.flatnonzero(rings.layer == k)
        r, w, tilt = rings.radius[ring].mean(), rings.wide[ring[0]], rings.tilt[ring[0]]
        # Ends of a module, in the frame of its centre: u along (-sin, cos) of the tilt.
        ends = np.array([np.arctan2(u * np.cos(tilt), r - u * np.sin(tilt)) for u in (w, -w)])
        around = rings.count[ring[0]] * (ends[0] - ends[1]) / (2 * np.pi)
        here = (crossings.layer == k).sum()
        # All cross at one z, where one ring or two of them stand.
        z = DETECTOR.place[k] * 0.2
        along = (np.abs(rings.z[ring] - z) < rings.half_length[ring]).sum()
        assert (own == k).sum() / here == pytest.approx(around * along, rel=0.02)


def test_scattering_adds_up_as_highland_says():
    """Shift at a layer: independent deflections in those before, times the way from there."""
    n, momentum = 20_000, 1.0
    material = Material(collision=0.0, loss=False)
    straight, found = fly(beam(n, momentum)), fly(beam(n, momentum), material)
    radii, layers = DETECTOR.place[DETECTOR.barrel], np.flatnonzero(DETECTOR.barrel)
    beta = momentum / np.hypot(momentum, MASS[13])
    thickness = material.thickness * DETECTOR.thickness[layers]
    width = matter.highland(thickness, momentum, beta)
    for j in (1, 2, 3, 5):
        shift = []
        for crossings in (straight, found):
            own = crossings.layer == layers[j]
            order = np.argsort(crossings.particle[own])
            shift.append(np.arctan2(crossings.at.y, crossings.at.x)[own][order] * radii[j])
            shift.append(crossings.at.z[own][order])
        away = np.stack([shift[2] - shift[0], shift[3] - shift[1]])
        away[0] = (away[0] / radii[j] + np.pi) % (2 * np.pi) * radii[j] - np.pi * radii[j]
        expected = np.sqrt(np.sum((width[:j] * (radii[j] - radii[:j])) ** 2))
        np.testing.assert_allclose(away.std(axis=1), expected, rtol=0.03)
        assert np.abs(away.mean(axis=1)).max() < 4 * expected / np.sqrt(n)


def test_particles_lose_what_bethe_says():
    """Muons of 2 GeV go straight enough: ten barrels at right angles."""
    material = Material(collision=0.0, scattering=False)
    found = fly(beam(5, 2.0), material)
    own = found.particle == 3
    energy = np.hypot(found.momentum[own], MASS[13])
    assert found.layer[own].tolist() == np.flatnonzero(DETECTOR.barrel).tolist()
    path = material.thickness * DETECTOR.thickness[found.layer[own]]  # X0
    loss = matter.bethe(matter.SILICON, MASS[13], energy - MASS[13])
    expected = loss * path * matter.SILICON.radiation_length
    np.testing.assert_allclose(-np.diff(energy), expected[:-1], rtol=0.02)


def test_slow_protons_stop_and_electrons_radiate():
    flights = beam(200, 0.13)
    proton = flights._replace(mass=np.full(200, MASS[2212]))
    layers = fly(proton, Material(collision=0.0)).particle
    assert np.bincount(layers, minlength=200).max() <= 2
    electrons = beam(20_000, 5.0)._replace(mass=np.full(20_000, MASS[11]))
    material = Material(collision=0.0, scattering=False)
    found = fly(electrons, material)
    layers = np.flatnonzero(DETECTOR.barrel)
    passed = (material.thickness * DETECTOR.thickness[layers[:6]]).sum()  # X0 before the seventh
    left = found.momentum[found.layer == layers[6]] / 5.0
    # Bethe and Heitler: the mean energy falls as exp(-x/X0); Bethe's loss is 1 MeV a layer.
    assert left.mean() == pytest.approx(np.exp(-passed), abs=0.01)
    assert (left < 0.5).mean() == pytest.approx(stats.gamma.sf(np.log(2), passed / np.log(2)),
                                                rel=0.15)  # fmt: skip


def test_hadrons_collide_and_muons_do_not():
    material = Material(scattering=False, loss=False)
    pions = beam(20_000, 20.0)._replace(mass=np.full(20_000, MASS[211]))
    found = fly(pions, material)
    layers = np.flatnonzero(DETECTOR.barrel)
    chance = [found.collided[found.layer == k].mean() for k in layers]
    np.testing.assert_allclose(chance, material.collision * DETECTOR.thickness[layers], rtol=0.2)
    assert not fly(beam(5000, 20.0), material).collided.any()


def test_what_is_made_in_a_layer_leaves_no_hit_there(collisions):
    c = collisions[0]
    own = np.flatnonzero(c.particle >= 0)
    vertex, layer = c.particles.vertex[c.particle[own]], c.hits.layer[own]
    r = np.hypot(vertex[:, 0], vertex[:, 1])
    place = np.where(DETECTOR.barrel[layer], r, vertex[:, 2])
    assert (np.abs(place - DETECTOR.place[layer]) > 1e-3).all()
    born = np.hypot(*c.particles.vertex[:, :2].T)[:, None]
    assert (np.abs(born - DETECTOR.place[DETECTOR.barrel]) < 1e-6).sum() > 500


def test_three_points_give_the_momentum():
    """Curvature of stiff tracks: spread as the pitches say, mean as the momentum."""
    crossings = fly(beam(4000, 50.0, cot=0.1))
    row, points = modules.cross(crossings, DETECTOR)
    errors = np.random.default_rng(0).random((2, len(row))) - 0.5
    layer, _, position = modules.measure(points, DETECTOR, errors)
    chosen = np.flatnonzero(DETECTOR.barrel)[[0, 6, 9]]
    where = np.full((3, 4000), -1)
    for k, name in enumerate(chosen):
        own = np.flatnonzero(layer == name)
        where[k, crossings.particle[row[own]]] = own
    xy = position[where[:, (where >= 0).all(axis=0)], :2]
    a, b, c = xy[1] - xy[0], xy[2] - xy[1], xy[2] - xy[0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    sides = np.prod([np.linalg.norm(d, axis=1) for d in (a, b, c)], axis=0)
    curvature = -2 * area / sides
    assert curvature.mean() == pytest.approx(BEND / (50.0 / np.sqrt(1.01)), rel=0.01)
    r, sigma = DETECTOR.place[chosen], DETECTOR.pitch_u[chosen] / np.sqrt(12)
    weights = 2 / np.array([(r[1] - r[0]) * (r[2] - r[0]), -(r[1] - r[0]) * (r[2] - r[1]),
                            (r[2] - r[0]) * (r[2] - r[1])])  # fmt: skip
    expected = np.sqrt(((weights * sigma) ** 2).sum())
    assert curvature.std() == pytest.approx(expected, rel=0.05)


def test_symmetries_of_the_flights():
    """Charge and field reversed: the same. Mirrored with charge, or turned: mirrored, turned."""
    flights = beam(300, 0.6, cot=0.7)
    h = flights.start
    plain = fly(flights)
    both = flights._replace(start=h._replace(curvature=-h.curvature))
    mirrored = both._replace(start=both.start._replace(phi=-h.phi))
    turned = flights._replace(start=h._replace(phi=h.phi + 0.4))
    mirror, rotated = fly(mirrored), fly(turned)
    for other, point in ((mirror, np.conj), (rotated, lambda w: w * np.exp(0.4j))):
        np.testing.assert_array_equal(other.layer, plain.layer)
        ours = point(plain.at.x + 1j * plain.at.y)
        np.testing.assert_allclose(other.at.x + 1j * other.at.y, ours, atol=1e-8)
        np.testing.assert_allclose(other.at.z, plain.at.z, atol=1e-8)
    particles = np.zeros((1, 3)), np.array([[0.3, 0.4, 0.2]])
    one = helix.helix(*particles, np.array([1.0]), 2.0)
    other = helix.helix(*particles, np.array([-1.0]), -2.0)
    assert one == other


def test_inefficiency_and_resolution():
    whole, some = (simulate((1, 2), 30.0, options=IDEAL._replace(**change))
                   for change in ({}, {"inefficiency": 0.1}))  # fmt: skip
    n = len(whole.particle)
    assert len(some.particle) == pytest.approx(0.9 * n, abs=5 * np.sqrt(0.09 * n))
    smeared = simulate((1, 2), 30.0, options=IDEAL._replace(resolution=1.0))
    off = smeared.hits.position - whole.hits.position
    ring, barrel, _, angle = module_frame(whole.hits)
    u = -off[:, 0] * np.sin(angle) + off[:, 1] * np.cos(angle)
    v = np.where(barrel, off[:, 2], off[:, 0] * np.cos(angle) + off[:, 1] * np.sin(angle))
    layer = whole.hits.layer
    for k in (8, 27, 40):  # a layer of each kind
        own = layer == k
        for error, pitch in ((u, DETECTOR.pitch_u), (v, DETECTOR.pitch_v)):
            assert error[own].std() == pytest.approx(pitch[k] / np.sqrt(12), rel=0.15)
            assert np.abs(error[own]).max() <= pitch[k] / 2 + 1e-9


def test_noise_is_spread_over_the_modules(collisions):
    share = np.mean([(c.particle < 0).mean() for c in collisions])
    assert share == pytest.approx(0.15, abs=0.003)
    layer = np.concatenate([c.hits.layer[c.particle < 0] for c in collisions])
    size = np.bincount(DETECTOR.rings.layer, DETECTOR.rings.count)
    assert stats.chisquare(np.bincount(layer), len(layer) * size / size.sum()).pvalue > 1e-4


def test_form_of_a_collision(collisions):
    c = collisions[1]
    hits, particles = c.hits, c.particles
    assert c.event == 1
    assert (np.diff(hits.layer * 10_000 + hits.module) >= 0).all()
    np.testing.assert_array_equal(hits.hit_id, np.arange(1, len(hits.layer) + 1))
    assert hits.position.dtype == np.float64 and np.isfinite(hits.position).all()
    assert [hits.layer.dtype, hits.module.dtype, c.particle.dtype] == [np.int32] * 3
    assert len(set(particles.particle_id)) == len(particles.pdg) and particles.particle_id.min() > 0
    assert set(particles.charge) == {-1, 1}
    assert (events.pt(particles.momentum) >= 0.15).all()
    light = np.isin(particles.pdg, (11, 13, -211, -321, -2212))
    np.testing.assert_array_equal(particles.charge, np.where(light, -1, 1))
    fields = zip(simulate((7, 1)).hits, hits, strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in fields)
    assert len(collisions[0].particle) != len(collisions[1].particle)


def test_size_of_a_collision(collisions):
    """TrackML: about 100,000 hits of about 10,000 particles (arXiv 1904.06778)."""
    assert np.mean([len(c.particle) for c in collisions]) == pytest.approx(110_000, rel=0.1)
    seen = [len(np.unique(c.particle)) - 1 for c in collisions]
    assert np.mean(seen) == pytest.approx(10_000, rel=0.1)
    assert 500 < len(simulate((7, 0), 0.0).particle) < 10_000


def test_pairs_have_the_masses_and_lives_of_their_parents():
    parts = [simulate((2, k), 200.0, options=IDEAL).particles for k in range(3)]
    found = []
    for p in parts:
        _, which, count = np.unique(p.vertex, axis=0, return_inverse=True, return_counts=True)
        away = np.hypot(p.vertex[:, 0], p.vertex[:, 1]) > 0.2
        rows = np.flatnonzero((count[which] == 2) & away)
        pair = rows[np.argsort(which[rows], kind="stable")].reshape(-1, 2)
        assert (p.charge[pair].sum(axis=1) == 0).all()
        mass = np.vectorize(MASS.get)(np.abs(p.pdg[pair]))
        energy = np.sqrt((p.momentum[pair] ** 2).sum(axis=2) + mass**2).sum(axis=1)
        total = p.momentum[pair].sum(axis=1)
        own = np.sqrt(energy**2 - (total**2).sum(axis=1))
        found.append((own, p.vertex[pair[:, 0]], total, np.abs(p.pdg[pair]).max(axis=1)))
    mass, vertex, total, heavy = (np.concatenate(c) for c in zip(*found, strict=True))
    expected = np.where(heavy == 2212, LAMBDA.mass, KAON.mass)
    np.testing.assert_allclose(mass, expected, rtol=1e-6)
    # Across the beam they fly (length / mass) pt; short flights may not tell from the beam.
    pt = np.hypot(total[:, 0], total[:, 1])
    life = np.hypot(vertex[:, 0], vertex[:, 1]) * mass / pt
    kaons = (heavy == 211) & (life > 2.0)
    assert kaons.sum() > 300
    assert stats.kstest(life[kaons] - 2.0, "expon", (0, KAON.length)).pvalue > 1e-3


@pytest.fixture(scope="module")
def real(shared_data):
    """Event 1000 above 0.15 GeV: radius of vertex, momentum, charge, hits, if made in matter."""
    folder = shared_data / "tracking" / "trackml_event1000_particles"
    with gzip.open(folder / "event000001000-particles.csv.gz", "rt") as file:
        file.readline()
        lines = [line.split(",") for line in file]
    matter_made = np.array([int(line[0]) & 0xFFFF > 0 for line in lines])
    values = np.array([line[1:] for line in lines], float)
    own = np.hypot(values[:, 3], values[:, 4]) > 0.15
    values, matter_made = values[own], matter_made[own]
    return (
        np.hypot(values[:, 0], values[:, 1]),
        values[:, 3:6],
        values[:, 6],
        values[:, 7],
        matter_made,
    )


def made(collisions):
    """The same of ours; those made in matter start on a layer."""
    columns = []
    for c in collisions:
        p = c.particles
        r, z = np.hypot(p.vertex[:, 0], p.vertex[:, 1]), p.vertex[:, 2]
        on = (np.abs(r[:, None] - DETECTOR.place[DETECTOR.barrel]) < 1e-6).any(axis=1)
        on |= (np.abs(z[:, None] - DETECTOR.place[~DETECTOR.barrel]) < 1e-6).any(axis=1)
        hits = np.bincount(c.particle[c.particle >= 0], minlength=len(r))
        columns.append((r, p.momentum, p.charge, hits, on))
    return [np.concatenate(c) for c in zip(*columns, strict=True)]


def test_particles_are_like_those_of_a_trackml_event(real, collisions):
    """One real event, whose number of pile-up collisions is drawn too: 15 % in numbers.

    The real detector has matter at radii of 180 to 270 mm, beside its layers, where ours has none.
    """
    ours, n = made(collisions), len(collisions)
    found = []
    for r, momentum, charge, hits, matter_made in (ours, real):
        prompt, pt = ~matter_made & (r < 0.1), events.pt(momentum)
        decay = ~matter_made & ~prompt
        found.append({
            "prompt": prompt.sum(), "decays": decay.sum(), "made": matter_made.sum(),
            "hits": hits.sum(), "mean pt": pt[prompt].mean(),
            "above 1 GeV": (pt[prompt] > 1).mean(),
            "pt made": pt[matter_made].mean(), "charge made": charge[matter_made].mean(),
            "central": (np.abs(events.eta(momentum[prompt])) < 1.0).mean(),
            "central made": (np.abs(events.eta(momentum[matter_made])) < 1.0).mean(),
            "hits of prompt": hits[prompt].mean(), "hits of decays": hits[decay].mean(),
            "hits of made": hits[matter_made].mean(),
            "vertices > 1 mm": (r > 1).mean(), "vertices > 30 mm": (r > 30).mean(),
            "vertices > 100 mm": (r > 100).mean(), "vertices > 300 mm": (r > 300).mean(),
        })  # fmt: skip
    numbers = {"prompt": 0.15, "decays": 0.15, "made": 0.15, "hits": 0.15,
               "vertices > 300 mm": 0.35, "mean pt": 0.08, "above 1 GeV": 0.05,
               "hits of prompt": 0.04, "hits of made": 0.2}  # fmt: skip
    for name, value in found[1].items():
        mine = found[0][name] / (n if name in ("prompt", "decays", "made", "hits") else 1)
        assert mine == pytest.approx(value, rel=numbers.get(name, 0.12)), name


def test_hits_by_angle_are_like_those_of_a_trackml_event(real, collisions):
    """Mean hits of prompt particles above 0.5 GeV, in steps of 0.5 in |eta|."""
    means = []
    for r, momentum, _, hits, matter_made in (made(collisions), real):
        own = ~matter_made & (r < 0.1) & (events.pt(momentum) > 0.5) & (hits > 0)
        step = (np.abs(events.eta(momentum[own])) / 0.5).astype(int)
        means.append((np.bincount(step, hits[own]) / np.bincount(step))[:8])
    np.testing.assert_allclose(means[0], means[1], rtol=0.11)


def test_barrels_are_filled_like_those_of_a_trackml_event(shared_data, collisions):
    """Shares of the ten barrels, one hit per particle and layer, and where in z; noise apart.

    The sample holds no particle above |eta| = 3.
    """
    folder = shared_data / "tracking" / "trackml_event1000_barrel50"
    tables = []
    for name in ("hits", "truth"):
        with gzip.open(folder / f"event000001000-{name}.csv.gz", "rt") as file:
            file.readline()
            tables.append(np.loadtxt(file, delimiter=","))
    hits, noise = tables[0], tables[1][:, 1] == 0
    layers = np.flatnonzero(DETECTOR.barrel)
    named = DETECTOR.volume[layers] * 100 + DETECTOR.layer[layers]
    theirs = np.searchsorted(named, hits[:, 4] * 100 + hits[:, 5])
    ours, place, ring_noise = [], [], []
    for c in collisions:
        barrel = DETECTOR.barrel[c.hits.layer]
        within = np.append(np.abs(events.eta(c.particles.momentum)) < 3.0, False)
        signal = np.flatnonzero(barrel & within[c.particle])
        _, first = np.unique(c.particle[signal] * 100 + c.hits.layer[signal], return_index=True)
        ours.append(np.searchsorted(layers, c.hits.layer[signal[first]]))
        place.append(np.abs(c.hits.position[signal[first], 2]))
        ring_noise.append(np.searchsorted(layers, c.hits.layer[barrel & (c.particle < 0)]))
    ours, place = np.concatenate(ours), np.concatenate(place)
    shares = [np.bincount(k) / len(k) for k in (ours, theirs[~noise])]
    np.testing.assert_allclose(shares[0], shares[1], rtol=0.12)
    shares = [np.bincount(k) / len(k) for k in (np.concatenate(ring_noise), theirs[noise])]
    np.testing.assert_allclose(shares[0], shares[1], rtol=0.25)  # 93 noise hits in the first
    for k in range(10):
        quarters = np.quantile(np.abs(hits[:, 3][~noise & (theirs == k)]), [0.25, 0.5, 0.75])
        np.testing.assert_allclose(np.quantile(place[ours == k], [0.25, 0.5, 0.75]), quarters,
                                   rtol=0.12)  # fmt: skip


def test_extremes_leave_valid_collisions():
    blind = simulate((1, 0), 5.0, options=Options(inefficiency=1.0))
    assert len(blind.particle) == 0 and len(blind.particles.pdg) > 0
    straight = simulate((1, 0), 5.0, DETECTOR._replace(field=0.0), options=IDEAL)
    way = straight.hits.position - straight.particles.vertex[straight.particle]
    off = np.cross(way, straight.particles.momentum[straight.particle])
    assert np.abs(off).max() < 1e-4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mu": -1.0}, "mu: is -1.0"),
        ({"mu": np.nan}, "mu: is nan"),
        ({"mu": 1e9}, "mu: is 1000000000.0"),
        ({"key": ()}, "key: is ()"),
        ({"key": (1, -2)}, "key: is"),
        ({"options": Options(min_pt=0.0)}, "options.min_pt: is 0.0"),
        ({"options": Options(noise=1.0)}, "options.noise: is 1.0; give 0 to 0.9"),
        ({"options": Options(inefficiency=np.nan)}, "options.inefficiency: is nan"),
        ({"options": Options(material=Material(thickness=0.0))}, "options.material"),
        ({"detector": DETECTOR._replace(rings=None)}, "use geometry.trackml()"),
    ],
)
def test_bad_arguments_are_refused(change, complaint):
    with pytest.raises(ConfigError) as error:
        simulate(**{"key": (1,), **change})
    assert complaint in str(error.value) and "\n" not in str(error.value)
