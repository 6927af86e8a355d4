"""Helices against the integrated equation of motion, geometry and invariances."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from physml.tracking import helix
from physml.tracking.helix import Helix

FIELD = 2.0


def particles(n=60, seed=0, spread=20.0):
    """Positions, momenta (0.15 to 20 GeV across the field) and charges; displaced by `spread`."""
    rng = np.random.default_rng(seed)
    position = rng.normal(size=(n, 3)) * [spread, spread, 50.0]
    pt, phi = rng.uniform(np.log(0.15), np.log(20), n), rng.uniform(-np.pi, np.pi, n)
    pt = np.exp(pt)
    pz = pt * rng.normal(size=n)
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz], axis=1)
    return position, momentum, rng.choice([-1.0, 1.0], n)


def start(*args, **kwargs):
    return helix.helix(*particles(*args, **kwargs), FIELD)


def rows(h, chosen):
    return Helix(*(column[chosen] for column in h))


def full(h, value):
    return np.full(len(h.x), value)


def test_paths_obey_the_lorentz_force():
    """dp/dt = q v x B, integrated in the length of the path: 1 T turns 0.2998 GeV in 1 m."""
    position, momentum, charge = particles(5)
    h = helix.helix(position, momentum, charge, FIELD)
    for k in range(5):
        size = np.linalg.norm(momentum[k])

        def force(_, y, q=charge[k], size=size):
            direction = y[3:] / size
            bend = 0.299792458e-3 * q * np.cross(direction, [0, 0, FIELD])
            return np.concatenate([direction, bend])

        length = np.linspace(0, 900, 4)[1:]
        found = solve_ivp(force, (0, 900), np.concatenate([position[k], momentum[k]]),
                          t_eval=length, rtol=1e-10, atol=1e-10)  # fmt: skip
        arc = length * np.hypot(*momentum[k, :2]) / size
        ours = helix.advance(rows(h, [k] * 3), arc)
        np.testing.assert_allclose(np.stack(ours[:3]), found.y[:3], atol=1e-5)
        np.testing.assert_allclose(helix.direction(ours).T * size, found.y[3:], atol=1e-7)


@pytest.mark.parametrize("radius", [32.0, 260.0, 1020.0])
def test_crossings_of_cylinders_lie_on_them_and_lead_out(radius):
    h = start(spread=10.0)
    s = helix.to_cylinder(h, full(h, radius))
    hit = np.isfinite(s)
    inside = np.hypot(h.x, h.y) < radius
    p = helix.advance(rows(h, hit), s[hit])
    np.testing.assert_allclose(np.hypot(p.x, p.y), radius, rtol=1e-12)
    assert (p.x * np.cos(p.phi) + p.y * np.sin(p.phi) > 0).all()
    assert (s[hit] > 0).all() and (np.abs(h.curvature[hit]) * s[hit] <= np.pi).all()
    # They reach it when the farthest point of their circle does, within the half turn.
    path = np.linspace(0, 1, 4001)[:, None] * np.pi / np.abs(h.curvature)
    at = helix.advance(Helix(*(np.tile(c, (4001, 1)) for c in h)), path)
    reached = (np.hypot(at.x, at.y) > radius * (1 + 1e-6)).any(axis=0)
    np.testing.assert_array_equal(hit[inside], reached[inside])


def test_the_first_crossing_is_taken():
    """No point of the path before it lies outside the cylinder, for starts inside."""
    h = start(spread=10.0)
    s = helix.to_cylinder(h, full(h, 300.0))
    h, s = rows(h, np.isfinite(s)), s[np.isfinite(s)]
    for share in np.linspace(0.02, 0.98, 30):
        p = helix.advance(h, share * s)
        assert (np.hypot(p.x, p.y) < 300.0).all()


def test_from_outside_only_what_comes_through_leaves_again():
    radius = 50.0
    inward = Helix(*np.array([[200.0, 0.0, 0.0, np.pi, 0.3, 1e-3], [200.0, 0, 0, 0, 0.3, 1e-3],
                              [200.0, 60.0, 0.0, np.pi, 0.3, 1e-7]]).T)  # fmt: skip
    s = helix.to_cylinder(inward, full(inward, radius))
    assert np.isfinite(s[0]) and np.isnan(s[1:]).all()
    assert s[0] > 200.0


def test_prompt_tracks_follow_the_textbook():
    """From the axis: the turn is 2 asin(r / 2R), z = 2 R asin(r / 2R) cot(theta)."""
    h = start(spread=0.0)
    h = h._replace(z=np.zeros_like(h.z))
    r, radius = 900.0, 1 / np.abs(h.curvature)
    s = helix.to_cylinder(h, full(h, r))
    with np.errstate(invalid="ignore"):
        turn = np.arcsin(r / (2 * radius))
    np.testing.assert_allclose(s, 2 * radius * turn, rtol=1e-11)
    p = helix.advance(h, s)
    np.testing.assert_allclose(p.z, 2 * radius * turn * h.cot_theta, rtol=1e-11)
    bend = np.angle(np.exp(1j * (np.arctan2(p.y, p.x) - h.phi)))
    np.testing.assert_allclose(bend, np.sign(h.curvature) * turn, atol=1e-11)
    assert 0 < np.isnan(s).sum() < len(s)


def test_straight_lines_are_the_limit():
    """A muon of 1e7 GeV, and no field at all: chords of a straight line, no digits lost."""
    position, momentum, charge = particles(spread=3.0)
    momentum[:, :2] /= np.hypot(*momentum[:, :2].T)[:, None]
    ahead = momentum[:, :2]
    along = (position[:, :2] * ahead).sum(axis=1)
    chord = -along + np.sqrt(along**2 + 100.0**2 - (position[:, :2] ** 2).sum(axis=1))
    for scale, field in ((1e7, FIELD), (1.0, 0.0)):
        h = helix.helix(position, momentum * scale, charge, field)
        s = helix.to_cylinder(h, full(h, 100.0))
        np.testing.assert_allclose(s, chord, rtol=1e-6 if field else 1e-9)


def test_crossings_of_disks():
    h = start()
    s = helix.to_disk(h, np.where(h.cot_theta > 0, 600.0, -600.0))
    hit = np.isfinite(s)
    p = helix.advance(rows(h, hit), s[hit])
    np.testing.assert_allclose(np.abs(p.z), 600.0, rtol=1e-12)
    far = np.abs(h.curvature * (600 - np.abs(h.z)) / h.cot_theta) > 1.2 * np.pi
    assert np.isnan(s[far]).all() and far.any() and hit.sum() > 20
    assert np.isnan(helix.to_disk(h, np.where(h.cot_theta > 0, -600.0, 600.0))).all()


def test_crossings_of_planes_lie_on_them():
    h = start(spread=3.0)
    normal = h.phi + np.random.default_rng(1).uniform(-1.2, 1.2, len(h.x))
    here = h.x * np.cos(normal) + h.y * np.sin(normal)
    for distance in (here + 4.0, here - 4.0):
        s = helix.to_plane(h, normal, distance)
        p = helix.advance(h, s)
        np.testing.assert_allclose(p.x * np.cos(normal) + p.y * np.sin(normal), distance, atol=1e-9)
        assert (np.cos(p.phi - normal) > 0).all() and (np.sign(s) == np.sign(distance - here)).all()
    assert np.isnan(helix.to_plane(h, h.phi + np.pi, full(h, 5.0))).all()


def test_the_perigee_is_the_closest_point():
    h = start()
    p = helix.perigee(h)
    steps = np.linspace(-200, 200, 4001)[:, None]
    path = helix.advance(Helix(*(np.tile(c, (4001, 1)) for c in h)), steps)
    np.testing.assert_allclose(np.hypot(path.x, path.y).min(axis=0), np.abs(p.d0), atol=0.06)
    # From the perigee on, the helix comes back to where it was given.
    x, y = -p.d0 * np.sin(p.phi), p.d0 * np.cos(p.phi)
    again = Helix(x, y, p.z0, p.phi, p.cot_theta, h.curvature)
    turn = np.angle(np.exp(1j * (h.phi - p.phi)))
    back = helix.advance(again, turn / h.curvature)
    np.testing.assert_allclose(np.stack(back[:3]), np.stack(h[:3]), atol=1e-8)
    pt = np.hypot(*particles()[1][:, :2].T)
    np.testing.assert_allclose(p.radius, pt / (0.299792458e-3 * FIELD), rtol=1e-12)


def test_parameters_are_the_same_all_along():
    h = start()
    first = helix.perigee(h)
    later = helix.perigee(helix.advance(h, 0.4 / np.abs(h.curvature)))
    for ours, theirs in zip(first, later, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_rotation_and_charge_conjugation():
    position, momentum, charge = particles()
    turn, mirror = 0.7, np.array([1.0, -1.0, 1.0])
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    h = helix.helix(position, momentum, charge, FIELD)
    turned = helix.helix(position @ rotation.T, momentum @ rotation.T, charge, FIELD)
    mirrored = helix.helix(position * mirror, momentum * mirror, -charge, FIELD)
    s = helix.to_cylinder(h, full(h, 172.0))
    for other, change in ((turned, rotation), (mirrored, np.diag(mirror))):
        np.testing.assert_allclose(helix.to_cylinder(other, full(h, 172.0)), s, rtol=1e-9)
        p, q = helix.advance(h, s), helix.advance(other, s)
        np.testing.assert_allclose(change @ np.stack(p[:3]), np.stack(q[:3]), atol=1e-8)
