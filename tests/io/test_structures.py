"""Structures from files: read as ASE writes them, refused in one line when unusable."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from physml.errors import DataError
from physml.io import structures

IRON = bulk("Fe", "bcc", a=2.8553, cubic=True) * (3, 3, 3)


def changed(change):
    atoms = IRON.copy()
    change(atoms)
    return atoms


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "POSCAR", "a.cif", "a.traj"])
def test_formats_return_the_same_structure(tmp_path, name):
    write(tmp_path / name, IRON)
    (found,) = structures.read_structures(tmp_path / name, species=["Fe"], min_height=8.5)
    np.testing.assert_allclose(found.get_all_distances(mic=True)[0],
                               IRON.get_all_distances(mic=True)[0], atol=1e-6)  # fmt: skip


def test_all_structures_are_read_in_order(tmp_path):
    write(tmp_path / "a.extxyz", [IRON, IRON[:-1], IRON[:-2]])
    found = structures.read_structures(tmp_path / "a.extxyz")
    assert [len(atoms) for atoms in found] == [54, 53, 52]


@pytest.mark.parametrize(
    "atoms, message",
    [
        (changed(lambda a: a.set_pbc([True, True, False])), "structure 1: is not periodic"),
        (changed(lambda a: a.set_cell(np.zeros((3, 3)))), "structure 1: its cell has no volume"),
        (changed(lambda a: a.positions.__setitem__(3, np.nan)), "not finite"),
        (changed(lambda a: a.symbols.__setitem__(0, "Cu")), "holds Cu, not Fe"),
        (Atoms(cell=[9, 9, 9], pbc=True), "holds no atoms"),
        (bulk("Fe", cubic=True), r"2\.870 Å high, shorter than 5\.300 Å"),
    ],
)
def test_an_unusable_structure_is_named_by_its_number(tmp_path, atoms, message):
    write(tmp_path / "a.traj", [IRON, atoms])
    with pytest.raises(DataError, match=message) as error:
        structures.read_structures(tmp_path / "a.traj", species=("Fe",), min_height=5.3)
    assert "\n" not in str(error.value)


def test_heights_are_those_of_a_skewed_cell():
    skewed = Atoms("Fe", cell=[[4, 0, 0], [3, 4, 0], [0, 0, 7]], pbc=True)
    np.testing.assert_allclose(structures.heights(skewed), [3.2, 4.0, 7.0])


def test_a_truncated_file_never_gives_wrong_numbers(tmp_path):
    """Only a cut exactly between two structures reads as a shorter file; no format can tell."""
    write(tmp_path / "a.extxyz", [IRON, IRON])
    text = (tmp_path / "a.extxyz").read_text()
    for end in [*range(0, len(text) // 2, 97), *range(len(text) - 60, len(text))]:
        (tmp_path / "cut.extxyz").write_text(text[:end])
        with pytest.raises(DataError) as error:
            structures.read_structures(tmp_path / "cut.extxyz")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html></html>\n", b"\x00\xff" * 50, b"3\nno\nFe 0\n"])
def test_what_is_no_structure_is_refused(tmp_path, content):
    (tmp_path / "a.extxyz").write_bytes(content)
    for name in ("a.extxyz", "missing.extxyz", "."):
        with pytest.raises(DataError):
            structures.read_structures(tmp_path / name)
