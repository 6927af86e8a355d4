"""Compact storage of minima: positions to 1e-5 Å, drift taken out, repeats left out."""

import numpy as np
import pytest

from physml.atoms.defects import IRON_A0, bcc, vacancies
from physml.errors import DataError
from physml.io import minima


@pytest.fixture
def shaken():
    atoms = vacancies(bcc(4), [(0, 0, 0)])
    atoms.rattle(0.1, seed=1)
    return atoms


def test_positions_return_to_the_precision_of_the_file(shaken):
    sites, offsets = minima.encode(shaken.positions, 4, IRON_A0)
    stored = minima.Minimum("V1", 0, 1.0, 2.0, sites, offsets)
    drift = shaken.positions - minima.decode(stored, 4, IRON_A0)
    assert len(np.unique(sites)) == 127
    assert np.abs(drift - drift.mean(axis=0)).max() < 2e-5


def test_a_translated_or_wrapped_crystal_is_stored_alike(shaken):
    """Drift and periodic images carry no information."""
    moved = shaken.copy()
    moved.positions += [0.3, -0.2, 0.1]
    wrapped = shaken.copy()
    wrapped.wrap()
    first = minima.encode(shaken.positions, 4, IRON_A0)
    for other in (moved, wrapped):
        again = minima.encode(other.positions, 4, IRON_A0)
        assert (again[0] == first[0]).all()
        assert np.abs(again[1] - first[1]).max() <= 1


def test_sites_are_those_of_the_crystal():
    np.testing.assert_allclose(minima.sites_of(4, IRON_A0), bcc(4).positions, atol=1e-12)


def made(name, energy, entropy):
    return minima.Minimum(
        name, 0, energy, entropy, np.arange(3, dtype=np.int32), np.zeros((3, 3), np.int32)
    )


def test_repeats_agree_in_class_energy_and_entropy():
    several = [
        made("V1", 1.0, 2.0),
        made("V1", 1.000001, 2.0001),
        made("I1", 1.0, 2.0),
        made("V1", 1.0, 2.1),
        made("V1", 1.001, 2.0),
    ]
    assert minima.distinct(several) == [several[0], *several[2:]]


def test_unpack_inverts_pack_and_refuses_what_does_not_fit():
    several = [made("V1", 1.0, 2.0), made("I4", 12.0, 8.0)]
    arrays = minima.pack(several)
    for ours, again in zip(several, minima.unpack(arrays, "file"), strict=True):
        assert ours[:4] == again[:4]
        assert (ours.sites == again.sites).all()
        assert (ours.offsets == again.offsets).all()
    for change, message in (
        ({"atoms": np.array([3, 4])}, "differ in length"),
        ({"formation_energy": np.array([1.0, np.nan])}, "not finite"),
    ):
        with pytest.raises(DataError, match=message):
            minima.unpack({**arrays, **change}, "file")
    del arrays["start"]
    with pytest.raises(DataError, match="lacks start"):
        minima.unpack(arrays, "file")
