"""The shower experiment on files: sampling, packing, own showers, bad input."""

import numpy as np
import pytest

from experiments.calo_gan import dataset, experiment
from experiments.calo_gan.config import PRESETS, Config
from physml.calorimeter import geometry, pretrained, readers, writers
from physml.errors import DataError
from physml.io import hdf5, root
from physml.run import main

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = (
    "--showers", "450", "--validation", "150", "--test", "400", "--widths", "8",
    "--critic-widths", "8", "--training.steps", "2", "--training.batch-size", "16",
    "--training.evaluate-every", "0",
)  # fmt: skip


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        main("experiments.calo_gan", [str(a) for a in arguments])
    return stop.value.code


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """A folder with a finished, hardly trained fit."""
    folder = tmp_path_factory.mktemp("calo") / "run"
    assert command("train", "smoke", *SMALL, "--run-dir", folder) == 0
    return folder


@pytest.mark.slow
def test_a_sample_is_a_file_of_the_challenge(fit, tmp_path, capsys):
    path = tmp_path / "showers.hdf5"
    options = ("--energies", "1024", "50000", "--count", "30", "--out", path)
    assert command("sample", "smoke", *SMALL, "--run-dir", fit, *options) == 0
    arrays = hdf5.read(path)
    assert arrays["incident_energies"].shape == (60, 1) and arrays["showers"].shape == (60, 368)
    found = readers.read(path, geometry.dataset_1_photons()).showers
    np.testing.assert_array_equal(found.incident_energy, np.repeat([1024.0, 50000.0], 30))
    assert hdf5.read_attributes(path)["outside_trained_energies"] == 0
    assert "warning" not in capsys.readouterr().err

    other = tmp_path / "other.hdf5"
    again = (*options[:-1], other)
    assert command("sample", "smoke", *SMALL, "--run-dir", fit, *again, "--draw", "2") == 0
    assert (hdf5.read(other)["showers"] != arrays["showers"]).any()
    assert command("sample", "smoke", *SMALL, "--run-dir", fit, *again) == 0
    np.testing.assert_array_equal(hdf5.read(other)["showers"], arrays["showers"])


@pytest.mark.slow
def test_a_sample_as_root_beyond_the_trained_energies_says_so(fit, tmp_path, capsys):
    path = tmp_path / "showers.root"
    options = ("--energies", "1e7", "1000", "--count", "3", "--out", path)
    assert command("sample", "smoke", *SMALL, "--run-dir", fit, *options) == 0
    assert "3 of 6 energies are outside the trained 256 to" in capsys.readouterr().err
    found = readers.read(path, geometry.dataset_1_photons()).showers
    np.testing.assert_allclose(found.incident_energy, [1e7] * 3 + [1000] * 3)
    branch = root.read(path, "fancy_tree", {"outside": "outside_trained_energies"})["outside"]
    np.testing.assert_array_equal(branch, [True] * 3 + [False] * 3)


@pytest.mark.slow
def test_a_packed_generator_makes_the_same_showers(fit, tmp_path):
    path = tmp_path / "generator.hdf5"
    assert command("pack", "smoke", *SMALL, "--run-dir", fit, "--out", path) == 0
    about = hdf5.read_attributes(path)
    assert (
        about["seed"] == 0 and len(about["data_sha256"]) == 64 and "showers=450" in about["config"]
    )
    sampled = tmp_path / "showers.hdf5"
    options = ("--energies", "1024", "--count", "5", "--out", sampled)
    assert command("sample", "smoke", *SMALL, "--run-dir", fit, *options) == 0
    config = Config(widths=(8,), critic_widths=(8,))
    made = experiment.sampler(config)(pretrained.read(path), np.full(5, 1024.0), (1, 2))
    np.testing.assert_array_equal(made.deposits, hdf5.read(sampled)["showers"])


@pytest.mark.slow
def test_shipped_weights_sample_without_a_fit_and_are_not_packed_again(tmp_path, capsys):
    path = tmp_path / "showers.hdf5"
    options = ("--run-dir", tmp_path / "run", "--out", path)
    some = ("--energies", "1000", "--count", "4")
    assert command("sample", "pretrained", *options, *some) == 0
    assert "come with the project" in capsys.readouterr().err
    response = hdf5.read(path)["showers"].sum(axis=1) / 1000
    assert ((response > 0.5) & (response < 1.5)).all()
    assert command("pack", "pretrained", *options) == 2
    assert "pack: found no fit of your own" in capsys.readouterr().err


def test_exported_showers_are_ours():
    pytest.importorskip("onnxruntime")
    config = PRESETS["pretrained"]
    energies = dataset.incident_energies(config, "test", 1000)
    files, numbers = experiment.exported(config, experiment.shipped(config), energies)
    assert set(files) == {"generator.onnx", "generator.stablehlo"}
    for name in ("ONNX", "StableHLO"):
        assert numbers[f"{name}: largest difference over largest deposit"] < 1e-5
        assert numbers[f"{name}: showers of 500 with a voxel across the threshold"] < 5


def test_other_files_are_no_generators(tmp_path):
    path = tmp_path / "other.hdf5"
    hdf5.write(path, {"showers": np.ones(3)})
    with pytest.raises(DataError, match="holds no generator"):
        pretrained.read(path)


def test_own_showers_are_split_by_row(tmp_path):
    made = dataset.showers(PRESETS["smoke"], "validation")
    path = tmp_path / "mine.hdf5"
    writers.write_challenge(path, made, geometry.dataset_1_photons())
    config = Config(data=path)
    parts = [dataset.showers(config, name) for name in ("train", "validation", "test")]
    assert [len(p.incident_energy) for p in parts] == [1200, 150, 150]
    joined = np.concatenate([p.deposits for p in parts])
    order = np.lexsort(joined.T), np.lexsort(made.deposits.T)
    np.testing.assert_array_equal(joined[order[0]], made.deposits[order[1]])
    assert len(np.unique(parts[2].incident_energy)) == 15  # not the last rows of a sorted file


def test_test_showers_have_the_energies_of_the_challenge():
    energies = dataset.incident_energies(PRESETS["pretrained"], "test", 121_000)
    values, counts = np.unique(energies, return_counts=True)
    np.testing.assert_array_equal(values, 256.0 * 2.0 ** np.arange(15))
    np.testing.assert_array_equal(counts, [10_000] * 11 + [5_000, 3_000, 2_000, 1_000])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sample", "smoke", "--energies", "0"], "--energies: hold 0 MeV; give MeV from 10"),
        (["sample", "smoke", "--energies=-5"], "--energies: hold -5 MeV"),
        (["sample", "smoke", "--count", "5"], "--count: changes nothing without --energies"),
        (["sample", "smoke", "--out", "x.csv"], "ends in .hdf5 or .root"),
        (["sample", "smoke", "--run-dir", "nowhere"], "nowhere: holds no finished fit"),
        (["reproduce", "smoke", "--widths", "0"], "--widths: are (0,); give widths from 1"),
        (["reproduce", "smoke", "--training.penalty=-1"], "--training.penalty: is -1"),
        (["reproduce", "smoke", "--data", "nowhere.hdf5"], "nowhere.hdf5"),
        (["reproduce", "smoke", "--binning", "x.xml"], "--threshold: goes with --binning"),
        (
            ["reproduce", "smoke", "--binning", "x.xml", "--threshold", "1"],
            "--binning: has layers that our maker",
        ),
        (["reproduce", "smoke", "--detector", "pions_1"], "pions_1 needs showers of your own"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
