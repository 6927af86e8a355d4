"""Geometries: the challenge's own binning files, closed forms of voxels, and what is refused."""

import math

import numpy as np
import pytest

from physml.calorimeter import geometry
from physml.calorimeter.geometry import Geometry, cell_layer, polar_layer
from physml.errors import ConfigError, DataError

BUILT_IN = {
    "1_photons": ("photon", geometry.dataset_1_photons, 368),
    "1_pions": ("pion", geometry.dataset_1_pions, 533),
    "2": ("electron", geometry.dataset_2, 6480),
    "3": ("electron", geometry.dataset_3, 40500),
}
XML = '<Bins><Bin name="photon">{}</Bin></Bins>'
LAYER = '<Layer id="{}" r_edges="{}" n_bin_alpha="{}"/>'


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_geometries_are_those_of_the_challenge(shared_data, name):
    particle, make, size = BUILT_IN[name]
    path = shared_data / f"calo/calochallenge/binning_dataset_{name}.xml"
    own, theirs = make(), Geometry.from_xml(path, particle)
    assert own.size == theirs.size == size
    assert [layer.id for layer in own.layers] == [layer.id for layer in theirs.layers]
    for a, b in zip(own.layers, theirs.layers, strict=True):
        assert a.n_alpha == b.n_alpha
        np.testing.assert_allclose(a.r_edges, b.r_edges, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("make", [*(row[1] for row in BUILT_IN.values()), geometry.calogan])
def test_built_in_geometries_are_sound(make):
    found = make()
    geometry.check(found)
    known = [layer.depth for layer in found.layers if layer.depth is not None]
    assert all(a[1] <= b[0] + 1e-9 for a, b in zip(known[:-1], known[1:], strict=True))
    ends = [(part.start, part.stop) for part in geometry.slices(found)]
    assert ends[0][0] == 0 and ends[-1][1] == found.size
    assert all(a[1] == b[0] for a, b in zip(ends[:-1], ends[1:], strict=True))


def test_stacks_have_the_depth_that_papers_state():
    """Set 2: 0.8 X0 a layer (CaloChallenge); 1.53 mm lead and 4.2 mm argon: 0.30 X0 (Geant4)."""
    first = geometry.dataset_2().layers[0].depth
    assert first[1] - first[0] == pytest.approx(0.8, abs=0.01)
    assert geometry.plate_depth(geometry.dataset_1_photons().stack) == pytest.approx(
        0.30, abs=0.005
    )
    planes = geometry.calogan()
    depths = np.diff([layer.depth for layer in planes.layers], axis=1)[:, 0]
    np.testing.assert_allclose(depths / depths.sum(), np.array([90, 347, 43]) / 480)


def test_calogan_has_504_cells():
    planes = geometry.calogan()
    assert [(layer.n_alpha, layer.n_r) for layer in planes.layers] == [(3, 96), (12, 12), (12, 6)]
    assert planes.size == 504
    assert np.diff(planes.layers[0].fast) == pytest.approx(5.0)
    assert np.diff(planes.layers[2].fast) == pytest.approx(80.0)


def test_centres_of_rings_by_hand():
    """Two sectors from -pi: middles -pi/2 and pi/2; r runs fastest."""
    found = geometry.centres(Geometry((polar_layer(7, 2, [0, 2, 6]),)))
    np.testing.assert_allclose(found.r, [1, 4, 1, 4])
    np.testing.assert_allclose(found.eta, 0, atol=1e-12)
    np.testing.assert_allclose(found.phi, [-1, -4, 1, 4])
    assert found.layer.tolist() == [0, 0, 0, 0]


def test_centres_of_cells_by_hand():
    found = geometry.centres(
        Geometry((cell_layer(0, [0, 2], [0, 4, 8]), cell_layer(1, [0, 6], [0, 8])))
    )
    np.testing.assert_allclose(found.phi, [1, 1, 3])
    np.testing.assert_allclose(found.eta, [2, 6, 4])
    np.testing.assert_allclose(found.r, [math.sqrt(5), math.sqrt(37), 5])
    assert found.layer.tolist() == [0, 0, 1]


@pytest.fixture
def xml(tmp_path):
    def write(content):
        path = tmp_path / "binning.xml"
        path.write_text(content)
        return path

    return write


def test_layers_with_one_edge_are_not_used(xml):
    path = xml(XML.format(LAYER.format(0, "0,5,10", 2) + LAYER.format(1, "0", 1)))
    found = Geometry.from_xml(path, "photon")
    assert [layer.id for layer in found.layers] == [0]
    assert found.size == 4


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "cannot be read as XML"),
        ("<Bins><Bin", "cannot be read as XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares entities"),
        ("<Bins>" + " " * (1 << 20) + "</Bins>", "larger than 1 MB"),
        ("<Bins></Bins>", "describes 'photon' 0 times"),
        (XML.format(""), "give each layer a number"),
        (XML.format(LAYER.format(0, "0,5", 1) * 2), "give each layer a number"),
        (XML.format(LAYER.format(0, "0,5,3", 1)), "do not rise"),
        (XML.format(LAYER.format(0, "-1,5", 1)), "do not rise"),
        (XML.format(LAYER.format(0, "0,nan", 1)), "do not rise"),
        (XML.format(LAYER.format(0, "0,x", 1)), "without whole numbers"),
        (XML.format(LAYER.format("a", "0,5", 1)), "without whole numbers"),
        (XML.format(LAYER.format(0, "0,5", 0)), "0 bins in alpha"),
        (XML.format(LAYER.format(0, "0,5", 10**12)), "bins in alpha"),
        (XML.format(LAYER.format(0, "0,1,2,3", 9_000_000)), "over the limit"),
    ],
)
def test_bad_binning_files_are_refused_in_one_line(xml, content, said):
    with pytest.raises(DataError, match=said) as caught:
        Geometry.from_xml(xml(content), "photon")
    assert "\n" not in str(caught.value)


def test_missing_files_and_particles_are_named(tmp_path, xml):
    with pytest.raises(DataError, match="not a readable file"):
        Geometry.from_xml(tmp_path / "none.xml", "photon")
    with pytest.raises(DataError, match="its particles: photon"):
        Geometry.from_xml(xml(XML.format(LAYER.format(0, "0,5", 1))), "pion")


def test_own_geometries_are_checked():
    layer = polar_layer(0, 4, [0, 5, 10], (0.0, 1.0))
    geometry.check(Geometry((layer,)))
    for bad, said in (
        ((), "give each layer"),
        ((layer, layer), "give each layer"),
        ((layer._replace(depth=(2.0, 1.0)),), "front < back"),
        ((layer._replace(fast=np.array([0.0, 0.0])),), "do not rise"),
    ):
        with pytest.raises(ConfigError, match=said):
            geometry.check(Geometry(bad))
    stack = geometry.Stack("Pb", 2.0, "Ar", 4.0, 80, None)
    geometry.check(Geometry((layer,), stack=stack))
    for change, said in (
        ({"threshold": -1.0}, "threshold of -1 MeV"),
        ({"threshold": math.nan}, "threshold of nan MeV"),
        ({"stack": stack._replace(active_mm=0.0)}, "plates of 2 and 0 mm"),
        ({"stack": stack._replace(passive_mm=-1.0)}, "plates of -1 and 4 mm"),
        ({"stack": stack._replace(sampling_fraction=0.0)}, "sampling fraction of 0"),
        ({"stack": stack._replace(sampling_fraction=3.3)}, "sampling fraction of 3.3"),
    ):
        with pytest.raises(ConfigError, match=said):
            geometry.check(Geometry((layer,))._replace(**change))
