"""The iron experiment on a user's own structures, and what it answers to bad ones."""

import json
import shutil

import numpy as np
import pytest
from ase.io import read, write

from experiments.iron_entropy import dataset, experiment
from experiments.iron_entropy.config import DATA, PRESETS
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


def test_a_bulk_with_a_defect_or_with_company_is_refused(structures, tmp_path, capsys):
    write(tmp_path / "hole.extxyz", read(structures, "0"))
    for bulk, message in ((structures, "12 structures"), (tmp_path / "hole.extxyz", "unlike")):
        code = command(
            "train", "smoke", "--structures", structures, "--bulk", bulk, "--run-dir",
            tmp_path / "run", *SMALL,
        )  # fmt: skip
        assert code == 2
        assert message in capsys.readouterr().err


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
    ("change", "message"),
    [
        (lambda m: m.pop("settings"), "says nothing of iron_defects.h5"),
        (lambda m: m.update(settings=[1]), "says nothing of iron_defects.h5"),
        (lambda m: m["settings"].pop("cells"), "no usable settings"),
        (lambda m: m["settings"].update(cells=4), "outside the 4 cells"),
        (lambda m: m.update(files={}), "says nothing of iron_defects.h5"),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path, capsys, change, message):
    shutil.copytree(DATA, tmp_path / "data")
    path = tmp_path / "data" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    assert command("train", "smoke", "--data", tmp_path / "data", "--run-dir", tmp_path / "r") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


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
        (["reproduce", "smoke", "--temperature", "300"], "--temperature: needs --structures"),
        (["reproduce", "smoke", "--minima", "99999"], "--minima: asks for 99999 of 2030"),
        (["reproduce", "smoke", "--products", "34"], "--products: is 34, and 33"),
        (["reproduce", "smoke", "--cutoff", "1"], "--products: is 8, and 0"),
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


CLASSES = np.array(["V1", "V1", "I2", "I2", "V1", "I2"])
TRAIN = {
    "entropy": np.array([1.0, 3.0, 10.0, 20.0, 5.0, 60.0]),
    "classes": CLASSES,
    "kinds": np.char.startswith(CLASSES, "V").astype(np.int32),
}
FOLDS = [(np.array([0, 1, 2, 3]), np.array([4, 5])), (np.array([4, 5]), np.array([0, 1, 2, 3]))]


def test_the_class_mean_never_sees_the_row_it_predicts():
    found = experiment.class_means(TRAIN, FOLDS)
    np.testing.assert_array_equal(found, [5, 5, 60, 60, 2, 15])


def test_errors_are_counted_by_class_and_kind():
    found = experiment.errors("x", TRAIN["entropy"] + [0, 1, -2, 2, 0, 4], TRAIN)
    assert found["x MAE"] == pytest.approx(9 / 6)
    assert found["x RMSE"] == pytest.approx(np.sqrt(25 / 6))
    assert found["x V1 MAE"] == found["x vacancies MAE"] == pytest.approx(1 / 3)
    assert found["x I2 MAE"] == found["x interstitials MAE"] == pytest.approx(8 / 3)


def test_predictive_bars_cover_the_share_they_state():
    """Normal errors: bars from the other fold are one standard deviation wide, per class."""
    random = np.random.default_rng(0)
    width = np.repeat([1.0, 4.0], 4000)
    train = {"entropy": np.zeros(8000), "classes": np.repeat(["a", "b"], 4000)}
    rows = random.permutation(8000)
    folds = [(rows[:4000], rows[4000:]), (rows[4000:], rows[:4000])]
    bars = experiment.predictive_bars(width * random.normal(size=8000), train, folds)
    np.testing.assert_allclose(bars, width, rtol=0.07)


def test_the_pool_holds_whole_groups_and_its_share():
    groups = np.random.default_rng(1).integers(0, 400, 1000)
    pool = experiment._pool(groups, PRESETS["default"])
    assert not set(groups[pool]) & set(groups[~pool])
    assert 0.02 <= pool.mean() < 0.04


def test_near_copies_share_a_group_and_others_do_not():
    energy = np.array([1.0, 1.004, 1.008, 1.0, 1.0, 2.0])
    entropy = np.array([5.0, 5.04, 5.08, 5.0, 5.06, 5.0])
    classes = np.array(["V2", "V2", "V2", "I2", "V2", "V2"])
    found = dataset.groups(dataset.Minima(None, [], classes, energy, entropy))
    assert found[0] == found[1] == found[2] == found[4]  # chained, 0 and 4 over 1
    assert len({found[0], found[3], found[5]}) == 3


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
