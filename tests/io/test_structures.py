"""Structures from files: read as ASE writes them, refused in one line when unusable."""

import gzip

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
        (changed(lambda a: a.set_cell([9, 9, np.inf])), "structure 1: the cell is not finite"),
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


def test_written_structures_return(tmp_path):
    rattled = changed(lambda a: a.rattle(0.1, seed=1))
    structures.write_structures(tmp_path / "new" / "a.extxyz", [IRON, rattled])
    _, found = structures.read_structures(tmp_path / "new" / "a.extxyz", ["Fe"], 8.5)
    np.testing.assert_allclose(found.positions, rattled.positions, atol=1e-8)
    np.testing.assert_allclose(found.cell.array, IRON.cell.array, atol=1e-12)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.extxyz"]


def test_a_cut_poscar_is_refused(tmp_path):
    write(tmp_path / "POSCAR", IRON)
    content = (tmp_path / "POSCAR").read_bytes()
    for end in [*range(0, len(content), 53), *range(len(content) - 30, len(content))]:
        (tmp_path / "POSCAR").write_bytes(content[:end])
        with pytest.raises(DataError):
            structures.read_structures(tmp_path / "POSCAR")


def test_compressed_files_are_held_to_the_same(tmp_path):
    write(tmp_path / "a.extxyz", [IRON, IRON])
    content = (tmp_path / "a.extxyz").read_bytes()
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(content))
    assert len(structures.read_structures(tmp_path / "a.xyz.gz")) == 2
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(content[:-3]))
    with pytest.raises(DataError, match="truncated"):
        structures.read_structures(tmp_path / "a.xyz.gz")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("54\n", "99999999999999\n", r"should have 99999999999999 atoms, and has 110"),
        ("54\n", "-54\n", "should have -54 atoms"),
        ("54\n", "53\n", "stands where a number of atoms should"),
        ("54\n", "55\n", "stands where a number of atoms should"),
        ("54\n", "\n54\n", "0 of its 2 structures can be read"),
        ("Fe ", "Xx ", "cannot be read"),
    ],
)
def test_a_damaged_count_is_refused_at_once(tmp_path, old, new, message):
    """ASE stops at an empty line without a word, and walks to any count, however large."""
    write(tmp_path / "a.extxyz", [IRON, IRON])
    text = (tmp_path / "a.extxyz").read_text()
    (tmp_path / "a.extxyz").write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        structures.read_structures(tmp_path / "a.extxyz")


@pytest.mark.parametrize("content", [b"", b"<html></html>\n", b"\x00\xff" * 50, b"3\nno\nFe 0\n"])
def test_what_is_no_structure_is_refused(tmp_path, content):
    (tmp_path / "a.extxyz").write_bytes(content)
    for name in ("a.extxyz", "missing.extxyz", "."):
        with pytest.raises(DataError):
            structures.read_structures(tmp_path / name)
