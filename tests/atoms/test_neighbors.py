"""Neighbour tables against ASE's own list, and refusals of structures that have none."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from physml.atoms.neighbors import displacements, neighbor_table
from physml.errors import ConfigError, DataError


def crystal(repeat=3):
    atoms = bulk("Fe", crystalstructure="bcc", a=2.8553, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.mark.parametrize(("repeat", "cutoff"), [(3, 3.5), (2, 5.3), (1, 6.0)])
def test_same_pairs_as_ase(repeat, cutoff):
    """Every pair, images of small cells included, stands in both lists with the same vector."""
    atoms = crystal(repeat)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0, 1, 0.2], [0, 0, 1.1]], scale_atoms=True)
    table = neighbor_table(atoms, cutoff)
    vectors = np.asarray(displacements(atoms.positions, table))
    rows = np.repeat(np.arange(len(atoms))[:, None], table.mask.shape[1], axis=1)
    ours = np.column_stack([rows[table.mask], table.indices[table.mask], vectors[table.mask]])
    i, j, d = neighbor_list("ijD", atoms, cutoff)
    theirs = np.column_stack([i, j, d])
    sort = lambda a: a[np.lexsort(np.round(a, 4).T)]
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(sort(ours), sort(theirs), atol=2e-6)


def test_padding_points_at_its_own_atom_and_never_out_of_range():
    """Padding rows and columns hold valid indices, because JAX would clamp others in silence."""
    atoms = crystal()
    table = neighbor_table(atoms, 4.0, capacity=40, n_rows=64)
    rows = np.repeat(np.arange(64)[:, None], 40, axis=1)
    assert (table.indices[~table.mask] == rows[~table.mask]).all()
    assert not table.mask[len(atoms) :].any()
    assert table.mask.sum() == neighbor_table(atoms, 4.0).mask.sum()


def test_overflow_names_the_size_needed():
    """A table that is too small raises with the number to give."""
    atoms = crystal()
    needed = int(neighbor_table(atoms, 4.0).mask.sum(axis=1).max())
    with pytest.raises(ConfigError, match=f"give {needed} or more"):
        neighbor_table(atoms, 4.0, capacity=needed - 1)
    with pytest.raises(ConfigError, match="give 54 or more"):
        neighbor_table(atoms, 4.0, n_rows=53)


def broken(change):
    atoms = crystal()
    change(atoms)
    return atoms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.append(a[0]), "coincide"),
        (lambda a: a.positions.__setitem__((5, 1), np.nan), "position of atom 5 is not finite"),
        (lambda a: a.set_pbc([True, True, False]), "not periodic"),
        (lambda a: a.set_cell([[9, 0, 0], [18, 0, 0], [0, 0, 9]]), "no volume"),
        (lambda a: a.__delitem__(slice(None)), "no atoms"),
    ],
)
def test_bad_structures_are_refused_in_one_line(change, message):
    """The error names the structure, what is wrong and what to do."""
    with pytest.raises(DataError, match=message) as caught:
        neighbor_table(broken(change), 4.0, where="my.extxyz")
    assert str(caught.value).startswith("my.extxyz: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_bad_cutoff(cutoff):
    """A cutoff is a positive length."""
    with pytest.raises(ConfigError, match="cutoff"):
        neighbor_table(crystal(), cutoff)


def test_an_isolated_atom_has_no_neighbours():
    """A cell larger than the cutoff around one atom gives an empty row."""
    table = neighbor_table(Atoms("Fe", cell=[20, 20, 20], pbc=True), 5.0)
    assert not table.mask.any()
