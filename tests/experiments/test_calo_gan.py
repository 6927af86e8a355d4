"""The shower experiment on files: sampling, packing, own showers, bad input."""

import dataclasses

import numpy as np
import pytest

from experiments.calo_gan import dataset, experiment
from experiments.calo_gan.config import PRESETS, Config, check, parse_columns
from physml.calorimeter import geometry, pretrained, readers, writers
from physml.calorimeter.events import Showers
from physml.errors import ConfigError, DataError
from physml.io import hdf5, root
from physml.options import Adversarial
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


GRID = geometry.dataset_1_photons()


@pytest.fixture(scope="module")
def thousand():
    """As many showers as a user must bring."""
    found = dataset.showers(PRESETS["smoke"], "validation")
    rows = slice(0, 1500, 15), slice(100, 1000)
    parts = [Showers(*(x[r] for x in found)) for r in rows]
    return Showers(*(np.concatenate(pair) for pair in zip(*parts, strict=True)))


def jagged(path, showers):
    """A tree of hits: energies in GeV, deposits in MeV."""
    offsets = np.append(0, np.count_nonzero(showers.deposits, axis=1).cumsum())
    columns = {
        "E": showers.incident_energy / 1e3,
        "c": root.Jagged(np.nonzero(showers.deposits)[1], offsets),
        "d": root.Jagged(showers.deposits[showers.deposits > 0], offsets),
    }
    root.write(path, "hits", columns)
    return path


def test_lists_of_hits_are_showers_too(tmp_path, thousand):
    columns = "incident_energy=E, cell=c, deposit=d, incident_unit=GeV"
    config = Config(data=jagged(tmp_path / "my.root", thousand), columns=columns)
    check(config)
    plain = Config(data=tmp_path / "my.hdf5", columns=None)
    writers.write_challenge(plain.data, thousand, GRID)
    found, expected = (dataset.showers(x, "train") for x in (config, plain))
    np.testing.assert_array_equal(found.deposits, expected.deposits)
    np.testing.assert_allclose(found.incident_energy, expected.incident_energy)


def test_columns_are_fields_of_the_reader():
    text = "incident_energy=E,cell=c,deposit=d,incident_unit=GeV,deposit_unit=MeV"
    found = readers.HitColumns(**parse_columns(text))
    assert found == ("E", "c", "d", None, 1e3, 1.0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("cell=c,deposit=d", "lack incident_energy"),
        ("cell=c,cell=d", "cannot take 'cell=d'"),
        ("cell", "cannot take 'cell'"),
        ("voxel=v", "cannot take 'voxel=v'"),
        ("deposit_unit=keV", "'keV' is no unit; give MeV or GeV"),
    ],
)
def test_columns_that_name_no_hits_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_columns(text)


def test_remedies_name_options(tmp_path, thousand):
    """What the readers say to a caller in Python is said in the words of the command line."""
    pions, cells = geometry.dataset_1_pions(), geometry.calogan()
    few = Showers(*(x[:3] for x in thousand))
    wide = Showers(few.incident_energy, np.pad(few.deposits, ((0, 0), (0, 136))))
    other = np.pad(few.deposits, ((0, 0), (0, pions.size - 368)))
    paths = [tmp_path / name for name in ("pions.hdf5", "calogan.hdf5", "cells.root")]
    writers.write_challenge(paths[0], Showers(few.incident_energy, other), pions)
    writers.write_calogan(paths[1], wide, cells)
    root.write(paths[2], "t", {"TotalEnergy": np.ones(3), "cell_0": np.ones(3)})
    paths.append(jagged(tmp_path / "jagged.root", few))
    ends = (
        "; give --detector pions_1", "; give --detector calogan", "its --detector or --binning",
        '; give --columns "incident_energy=E,cell=c,deposit=d"',
    )  # fmt: skip
    for path, end in zip(paths, ends, strict=True):
        with pytest.raises(DataError) as caught:
            dataset.load(Config(data=path))
        assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(end)


def test_own_files_are_judged_before_the_fit(tmp_path, thousand, capsys):
    """Odd showers are told once, in one line; few ones and too large batches are refused."""
    odd = Showers(thousand.incident_energy, thousand.deposits.copy())
    odd.deposits[3] = 0
    path, test = tmp_path / "mine.hdf5", tmp_path / "test.hdf5"
    writers.write_challenge(path, odd, GRID)
    writers.write_challenge(test, Showers(*(x[:50] for x in thousand)), GRID)
    small = Adversarial(batch_size=800)
    dataset.load(Config(data=path, training=small))
    line = f"{path}: 1 of 1000 showers hold no energy (the first in row 3); they are kept\n"
    assert capsys.readouterr().err == line
    with pytest.raises(ConfigError, match=r"--training.batch-size: is 801, but 800 showers"):
        dataset.load(Config(data=path, training=dataclasses.replace(small, batch_size=801)))
    with pytest.raises(DataError, match="test.hdf5: holds 50 showers; give 100 or more"):
        dataset.load(Config(data=path, test_data=test))


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
        (["reproduce", "smoke", "--data", "nowhere.hdf5"], "--data: nowhere.hdf5 is not there"),
        (["reproduce", "smoke", "--columns", "cell=c"], "--columns: lack incident_energy"),
        (
            ["train", "smoke", "--columns", "incident_energy=E,cell=c,deposit=d"],
            "--columns: names branches of a ROOT tree",
        ),
        (
            ["train", "smoke", "--training.batch-size", "1000000"],
            "--training.batch-size: is 1000000, but --showers only 3000; give 1 to 3000",
        ),
        (["evaluate", "calogan", "--export"], "--export: cannot write CaloGAN's network"),
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
