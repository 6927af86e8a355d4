"""The neutrino experiment on a user's own pixel maps, its own events, and bad input."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.nova_cvn import dataset
from experiments.nova_cvn.config import PRESETS, Config
from physml.errors import ConfigError
from physml.io import hdf5, root
from physml.neutrino.events import CLASSES, label
from physml.neutrino.pixelmaps import dense, pixel_maps
from physml.neutrino.simulate import simulate
from physml.run import main

CODE = np.array([2, 6, 10, 13, 14])  # of our classes: DIS for the charged currents
QUICK = [
    "--width", "16", "--layers", "1", "--descent.steps", "4", "--descent.evaluate-every", "2",
    "--descent.batch-size", "32",
]  # fmt: skip


def command(*arguments):
    """Run a command of the experiment in this process; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main("experiments.nova_cvn", [str(a) for a in arguments])
    return stop.value.code


@pytest.fixture(scope="module")
def images():
    """Maps, codes and energies of 1,000 events."""
    events, _, hits = simulate(77, 1000)
    return dense(pixel_maps(hits, 1000)), CODE[label(events)], events.energy


@pytest.fixture
def own(images, tmp_path):
    """A file such as a user's: flat layout, with keys."""
    maps, code, energy = images
    arrays = {
        "cvnmap": maps.reshape(len(maps), -1), "label": code.astype(np.int32), "energy": energy,
        "run": np.full(1000, 12), "subrun": np.arange(1000) // 100, "evt": np.arange(1000),
        "subevt": np.ones(1000, int),
    }  # fmt: skip
    hdf5.write(tmp_path / "my.h5", arrays)
    return tmp_path / "my.h5"


def test_own_maps_go_the_same_way_and_scores_come_back_by_key(own, images, tmp_path, capsys):
    folder = tmp_path / "run"
    code = command("reproduce", "smoke", "--data", own, "--run-dir", folder, *QUICK)
    assert code == 0, capsys.readouterr().err
    assert "no claims" in capsys.readouterr().out
    names = [
        "run",
        "subrun",
        "event",
        "slice",
        "true_class",
        *(f"cvn_{c.lower()}" for c in CLASSES),
    ]
    found = root.read(folder / "scores.root", "scores", names)
    assert set(found["run"]) == {12} and set(found["slice"]) == {1}
    assert (
        len(found["event"])
        == json.loads((folder / "results.json").read_text())["numbers"]["test events"]
    )
    # Every scored event is found again by its key, with its own class.
    np.testing.assert_array_equal(found["subrun"], found["event"] // 100)
    np.testing.assert_array_equal(CODE[found["true_class"]], images[1][found["event"]])
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert not [name for name in numbers if "merit" in name]  # no exposure is known
    total = sum(found[f"cvn_{c.lower()}"] for c in CLASSES)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_splits_share_no_event(own):
    config = Config(data=own)
    parts = dataset.load(config)
    events = [set(part["event"].tolist()) for part in parts.values()]
    assert not events[0] & events[1] and not events[0] & events[2] and not events[1] & events[2]
    shares = np.array([len(e) for e in events]) / sum(len(e) for e in events)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)


@pytest.fixture(scope="module")
def made():
    config = PRESETS["smoke"]
    return config, dataset.made(config, (1, 0), 1200, "events")


def test_made_events_have_hits_and_weights_of_the_whole_exposure(made):
    """As many events as asked for; their weights are those of all events with enough hits."""
    config, sample = made
    assert len(sample.columns["label"]) == 1200
    assert np.diff(sample.maps.offsets).min() >= config.min_hits
    events, _, hits = dataset.produced(config, (1, 0), 0)
    enough = np.diff(pixel_maps(hits, len(events.pdg)).offsets) >= config.min_hits
    beam = sample.columns["label"] != 4
    expected = events.weight[enough & (events.pdg != 0)].sum()
    assert sample.columns["weight"][beam].sum() == pytest.approx(expected, rel=0.1)


def test_the_test_events_are_the_same_for_every_seed_and_no_training_events(made):
    config, sample = made
    again = dataset.made(Config(seed=5), (1, 0), 1200, "events")
    np.testing.assert_array_equal(again.maps.pixel, sample.maps.pixel)
    train = dataset.made(config, (3, 0), 1200, "events")
    assert len(train.maps.pixel) != len(sample.maps.pixel)


def test_splits_of_our_events_share_none():
    assert len(set(dataset.KEYS.values())) == 3
    small = replace(PRESETS["smoke"], events=300, validation=300, test=300)
    parts = dataset.load(small)
    seen = [{row.tobytes() for row in part["tokens"]} for part in parts.values()]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_no_event_has_that_many_hits():
    with pytest.raises(ConfigError, match="--min-hits: is 3000"):
        dataset.load(replace(PRESETS["smoke"], min_hits=3000))


def test_slices_of_one_event_stay_in_one_split(own):
    """The same key for ten rows each."""
    arrays = hdf5.read(own)
    hdf5.write(own, {**arrays, "evt": np.arange(1000) // 10, "subevt": np.arange(1000) % 10})
    parts = dataset.load(Config(data=own))
    events = [set(part["event"].tolist()) for part in parts.values()]
    assert not events[0] & events[1] and not events[0] & events[2] and not events[1] & events[2]


def test_changed_detectors_change_what_they_say():
    found = dataset.changed(replace(PRESETS["smoke"], patches=400), 500)
    light = {name: part["tokens"].sum() / len(part["tokens"]) for name, part in found.items()}
    pixels = {name: (part["tokens"] > 0).sum() for name, part in found.items()}
    plain = light["as trained"]
    assert light["energy scale +5 %"] == pytest.approx(1.05 * plain, rel=0.02)
    assert light["energy scale -5 %"] == pytest.approx(0.95 * plain, rel=0.03)
    assert pixels["threshold +50 %"] < pixels["as trained"]
    gained = (pixels["noise: 10 more hits"] - pixels["as trained"]) / 500
    assert 7 < gained < 10
    for part in found.values():
        np.testing.assert_array_equal(part["label"], found["as trained"]["label"])


def spoiled(maps, code, **changes):
    arrays = {"cvnmap": maps.reshape(len(maps), -1), "label": code.astype(np.int32)}
    return {**arrays, **changes}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m, c: spoiled(m.transpose(0, 3, 2, 1), c), "axes"),
        (lambda m, c: spoiled(m[:60], c[:60]), "at least 100"),
        (lambda m, c: spoiled(m, c + 20), "my.h5"),
        (lambda m, c: {"label": c}, "my.h5"),
        (lambda m, c: spoiled(m, 0 * c + 14), "one class only"),
        (lambda m, c: {"cvnmap": m.reshape(len(m), -1)}, "names no class"),
        (
            lambda m, c: spoiled(np.where(np.arange(len(m))[:, None, None, None] == 3, 255, m), c),
            "map 3 is lit in every pixel",
        ),
        (lambda m, c: spoiled(m, c[:-1]), "my.h5"),
        (lambda m, c: spoiled(m, c, energy=np.full(len(c), np.nan)), "my.h5"),
        (lambda m, c: spoiled(m, c, energy=np.full(len(c), -2.0)), "my.h5"),
    ],
)
def test_bad_files_are_one_line(images, tmp_path, capsys, spoil, message):
    hdf5.write(tmp_path / "my.h5", spoil(images[0], images[1]))
    folder = tmp_path / "run"
    assert command("train", "smoke", "--data", tmp_path / "my.h5", "--run-dir", folder) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(lines) == 1 and message in lines[0]
    assert not folder.exists()


def test_a_truncated_file_is_refused(own, tmp_path, capsys):
    own.write_bytes(own.read_bytes()[:-5000])
    assert command("train", "smoke", "--data", own, "--run-dir", tmp_path / "run") == 2
    assert "my.h5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "30"], "--width: is 30; give a multiple of 8"),
        (["--axes", "view plane cell"], "--axes: changes nothing without --data"),
        (["--descent.learning-rate", "-1"], "--descent.learning-rate: is -1"),
        (["--network", "resnet"], "--network"),
        (["--dropout", "1.0"], "--dropout: is 1.0"),
        (["--events", "5"], "--events: is 5"),
        (["--full-scale", "nan"], "--full-scale: is nan"),
        (["--data", "absent.h5"], "absent.h5"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert command("train", "smoke", *arguments) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(lines) == 1 and message in lines[0]
    assert not list(tmp_path.rglob("config.json"))
