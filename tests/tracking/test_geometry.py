"""The detector against the TrackML challenge's module table."""

import gzip

import numpy as np
import pytest
from scipy.spatial import cKDTree

from physml.tracking.geometry import places, trackml

DETECTOR = trackml()


@pytest.fixture(scope="module")
def table(shared_data):
    """Columns of the module table, and the layer of each module."""
    path = shared_data / "tracking" / "detectors.csv.gz"
    with gzip.open(path, "rt") as file:
        names = file.readline().strip().split(",")
        columns = dict(zip(names, np.loadtxt(file, delimiter=",").T, strict=True))
    layer = places(DETECTOR, columns["volume_id"].astype(int), columns["layer_id"].astype(int))
    return columns, layer


def test_layers_are_those_of_the_table(table):
    columns, layer = table
    assert set(layer.tolist()) == set(range(48)) and len(DETECTOR.place) == 48
    r = np.hypot(columns["cx"], columns["cy"])
    for k in range(48):
        own = layer == k
        place = r[own] if DETECTOR.barrel[k] else columns["cz"][own]
        assert place.min() == pytest.approx(DETECTOR.place[k] - DETECTOR.stagger[k], abs=0.01)
        assert place.max() == pytest.approx(DETECTOR.place[k] + DETECTOR.stagger[k], abs=0.01)
        along = columns["cz"][own] if DETECTOR.barrel[k] else r[own]
        half = columns["module_hv"][own]
        assert (along - half).min() == pytest.approx(DETECTOR.low[k], abs=0.01)
        assert (along + half).max() == pytest.approx(DETECTOR.high[k], abs=0.01)
        for name, figure in (("pitch_u", DETECTOR.pitch_u), ("pitch_v", DETECTOR.pitch_v)):
            np.testing.assert_array_equal(columns[name][own], figure[k])
        np.testing.assert_allclose(2 * columns["module_t"][own], DETECTOR.thickness[k])


def modules():
    """Layer, number, centre, angle of u, half widths and length of every module of the rings."""
    rings = DETECTOR.rings
    ring = np.repeat(np.arange(len(rings.count)), rings.count)
    k = np.arange(len(ring)) - np.repeat(np.cumsum(rings.count) - rings.count, rings.count)
    phi = -np.pi + (k + 0.5) * 2 * np.pi / rings.count[ring]
    z = rings.z[ring] + np.sign(rings.z[ring]) * rings.stagger[ring] * np.where(k % 2, -1, 1)
    r = rings.radius[ring]
    centre = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)
    return rings.layer[ring], rings.first[ring] + k, centre, phi + rings.tilt[ring], ring


def test_modules_are_those_of_the_table(table):
    """All 18,728: centre, tilt and size; numbers too, in the barrels."""
    columns, layer = table
    own, number, centre, angle, ring = modules()
    assert len(own) == len(layer) == 18_728
    rings, theirs = DETECTOR.rings, np.stack([columns[c] for c in ("cx", "cy", "cz")], axis=1)
    for k in range(48):
        mine, other = np.flatnonzero(own == k), np.flatnonzero(layer == k)
        apart, pair = cKDTree(theirs[other]).query(centre[mine])
        assert len(set(pair)) == len(mine) == len(other)
        assert apart.max() < 0.26  # inner pixel rings: 2.5 and 2 mm, see `trackml`
        other = other[pair]
        for name, value in (("module_minhu", rings.narrow), ("module_maxhu", rings.wide),
                            ("module_hv", rings.half_length)):  # fmt: skip
            np.testing.assert_array_equal(columns[name][other], value[ring[mine]])
        if DETECTOR.barrel[k]:
            np.testing.assert_array_equal(columns["module_id"][other], number[mine])
            u = np.arctan2(columns["rot_yu"][other], columns["rot_xu"][other])
            off = np.angle(np.exp(1j * (u - np.pi / 2 - angle[mine])))
            assert np.abs(off).max() < 1e-4
        assert sorted(number[mine]) == list(range(1, len(mine) + 1))


def test_unknown_layers_have_no_place():
    volume, layer = np.array([8, 8, 99, 18]), np.array([2, 3, 2, 12])
    expected = [np.flatnonzero((DETECTOR.volume == 8) & (DETECTOR.layer == 2))[0], -1, -1, 47]
    assert places(DETECTOR, volume, layer).tolist() == expected
