"""Counts, classes and reproducibility of defect starts."""

import numpy as np
import pytest

from physml.atoms.defects import NAMED, bcc, defect_class, dumbbells, random_defect, vacancies
from physml.atoms.neighbors import neighbor_table
from physml.errors import ConfigError


@pytest.mark.parametrize("name", NAMED)
def test_named_starts_have_the_class_they_are_named_after(name):
    """Twelve starts; the first word of each name is its class."""
    crystal = bcc(5)
    assert defect_class(NAMED[name](crystal), len(crystal)) == name.split()[0]


def test_second_neighbour_divacancy_leaves_the_right_hole():
    """Fourteen first neighbours lose one or two bonds: 8 + 8 broken first-neighbour bonds."""
    crystal = bcc(5)
    atoms = vacancies(crystal, [(0, 0, 0), (1, 0, 0)])
    bonds = neighbor_table(atoms, 2.6).mask.sum(axis=1)
    assert len(atoms) == 248
    assert bonds.sum() == 250 * 8 - 2 * 16
    assert sorted(np.unique(bonds, return_counts=True)[1].tolist()) == [4, 8, 236]


@pytest.mark.parametrize("name", ["I1", "I2", "I3", "I4", "V1", "V2", "V3", "V4"])
def test_random_starts(name):
    """The right number of atoms, the same start from the same seed, another from another."""
    crystal = bcc(8)
    make = lambda seed: random_defect(crystal, name, np.random.default_rng(seed))
    starts = [make(seed) for seed in (1, 1, 2)]
    assert {defect_class(a, len(crystal)) for a in starts} == {name}
    assert (starts[0].positions == starts[1].positions).all()
    assert not np.array_equal(starts[0].positions, starts[2].positions)


def test_refusals():
    """Wrong classes and offsets are named."""
    crystal = bcc(4)
    for name in ("X2", "V", "I0", "V-1", ""):
        with pytest.raises(ConfigError, match="not known"):
            random_defect(crystal, name, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="no lattice site"):
        vacancies(crystal, [(0.3, 0, 0)])
    with pytest.raises(ConfigError, match="one is needed"):
        dumbbells(crystal, [(0, 0, 0)], [])
    with pytest.raises(ConfigError, match="vector 0"):
        dumbbells(crystal, [(0, 0, 0)], [(0, 0, 0)])
    with pytest.raises(ConfigError, match="cells"):
        bcc(0)
