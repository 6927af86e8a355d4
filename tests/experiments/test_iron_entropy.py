"""The iron experiment on a user's own structures, and what it answers to bad ones."""

import json
import shutil

import numpy as np
import pytest
from ase.io import read, write

from experiments.iron_entropy.config import DATA
from physml.atoms import formation_entropy, relax
from physml.atoms.defects import bcc, dumbbells, random_defect, vacancies
from physml.atoms.potentials import ackland_mendelev_2004
from physml.run import main

SMALL = ["--folds", "2", "--named", "0", "--products", "4", "--random-features", "20"]


def command(*arguments):
    """Run a command of the experiment in this process; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main("experiments.iron_entropy", [str(a) for a in arguments])
    return stop.value.code


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    """Twelve relaxed defects of three classes in 128-atom cells."""
    crystal, iron = bcc(4), ackland_mendelev_2004()
    rng = np.random.default_rng(5)
    starts = [random_defect(crystal, name, rng) for name in ("V2", "V3", "V4") * 4]
    path = tmp_path_factory.mktemp("own") / "my.extxyz"
    write(path, [relax(atoms, iron) for atoms in starts])
    return path


def test_own_structures_go_the_same_way(structures, tmp_path, capsys):
    """Entropies of the user's minima are computed, fitted, drawn; nothing is claimed of them."""
    folder = tmp_path / "run"
    code = command("reproduce", "smoke", "--structures", structures, "--run-dir", folder, *SMALL)
    assert code == 0
    assert "no claims" in capsys.readouterr().out
    results = json.loads((folder / "results.json").read_text())
    assert results["numbers"]["minima"] >= 8
    with np.load(folder / "results.npz") as arrays:
        entropy = arrays["entropy"]
    atoms = read(structures, ":")
    iron = ackland_mendelev_2004()
    expected = [formation_entropy(a, bcc(4), iron, 1000.0) for a in atoms]
    assert np.abs(entropy[:, None] - np.array(expected)).min(axis=1).max() < 1e-6


def broken(structures, path, change):
    atoms = read(structures, ":")
    path.parent.mkdir(exist_ok=True)
    change(atoms, path)
    return path


def stretched(atoms, path):
    atoms[3].positions[7] += 0.02
    write(path, atoms)


def saddle(atoms, path):
    crystal = bcc(4, a0=3.6)
    write(path, [crystal] * 12)


def chromium(atoms, path):
    atoms[2].symbols[0] = "Cr"
    write(path, atoms)


def nan(atoms, path):
    atoms[1].positions[0, 0] = np.nan
    write(path, atoms)


def open_box(atoms, path):
    atoms[0].pbc = False
    write(path, atoms)


def doubled(atoms, path):
    atoms[4].append(atoms[4][0])
    write(path, atoms)


def tiny_cell(atoms, path):
    write(path, [bcc(1)] * 12)


def truncated(atoms, path):
    write(path, atoms)
    text = path.read_text()
    path.write_text(text[: int(0.7 * len(text))])


def empty(atoms, path):
    path.write_text("")


def few(atoms, path):
    write(path, atoms[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (stretched, "structure 3: is not at rest"),
        (saddle, "is a saddle"),
        (chromium, "Cr"),
        (nan, "finite"),
        (open_box, "periodic"),
        (doubled, "coincide"),
        (tiny_cell, "shorter than"),
        (truncated, "my.extxyz"),
        (empty, "my.extxyz"),
        (few, "distinct minima"),
    ],
)
def test_bad_structures(structures, tmp_path, capsys, change, message):
    """One line that names the file and the fault, exit 2, and no run folder."""
    path = broken(structures, tmp_path / "in" / "my.extxyz", change)
    folder = tmp_path / "run"
    code = command("reproduce", "smoke", "--structures", path, "--run-dir", folder, *SMALL)
    complaint = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert code == 2
    assert len(complaint) == 1
    assert message in complaint[0]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "sha256"),
        (lambda data: data[:5000] + bytes([data[5000] ^ 4]) + data[5001:], "sha256"),
        (lambda data: b"", "sha256"),
    ],
)
def test_damaged_shipped_data(tmp_path, capsys, damage, message):
    """A truncated or flipped data file is refused by its sha256."""
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    path = folder / "iron_defects.h5"
    path.write_bytes(damage(path.read_bytes()))
    code = command("reproduce", "smoke", "--data", folder, "--run-dir", tmp_path / "run")
    complaint = capsys.readouterr().err
    assert code == 2
    assert str(path) in complaint
    assert message in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "smoke", "--sed", "3"], "perhaps you meant --seed"),
        (["reproduce", "smoke", "--seed", "x"], "--seed"),
        (["reproduce", "huge"], "is no preset"),
        (["repeat"], "is no command"),
        (["reproduce", "smoke", "--potential", "x.eam.fs"], "--structures"),
        (["reproduce", "smoke", "--pool", "0.9"], "--pool"),
        (["reproduce", "smoke", "--cutoff", "-1"], "--cutoff"),
        (["reproduce", "smoke", "--n-max", "50"], "--n-max"),
        (["reproduce", "smoke", "--folds", "1"], "--folds"),
        (["reproduce", "smoke", "--minima", "-3"], "--minima"),
        (["reproduce", "smoke", "--temperature", "0"], "--temperature"),
        (["evaluate", "smoke"], "holds no finished fit"),
        (["figures", "smoke"], "holds no"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, capsys, arguments, message):
    """Refused before any work: one line, exit 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    code = command(*arguments)
    complaint = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(complaint) == 1
    assert message in complaint[0]
    assert not list(tmp_path.iterdir())


def test_interstitials_and_vacancies_know_their_class():
    """Named starts are what the class says (a dumbbell adds, a vacancy removes an atom)."""
    assert len(dumbbells(bcc(4), [(0, 0, 0)], [(1, 1, 0)])) == 129
    assert len(vacancies(bcc(4), [(0, 0, 0)])) == 127


def test_a_run_folder_that_cannot_be_made(tmp_path, capsys):
    """A file in the way is named before any work."""
    (tmp_path / "file").write_text("mine")
    assert command("reproduce", "smoke", "--run-dir", tmp_path / "file" / "run") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
