"""The tracking experiment: what it trains on, the user's own files, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.track_edges import dataset
from experiments.track_edges.config import PRESETS
from physml.io import root
from physml.run import main
from physml.tracking import readers, writers
from physml.tracking.events import select

SMALL = dataclasses.replace(PRESETS["smoke"], mu=5.0)
MAPPING = "x=hx,y=hy,z=hz,volume=vol,layer=lay,event=evt,hit_id=id"
TRUTH = ",particle=pid,px=px,py=py,pz=pz,vx=vx,vy=vy,vz=vz,charge=q"


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        main("experiments.track_edges", [str(a) for a in arguments])
    return stop.value.code


def flat(path, collision, detector, truth=True, scale=0.1):
    """One row per hit, in cm."""
    hits = collision.hits
    columns = dict(zip(("hx", "hy", "hz"), hits.position.T * scale, strict=True))
    columns |= {"vol": detector.volume[hits.layer], "lay": detector.layer[hits.layer]}
    columns |= {"evt": np.full(len(hits.layer), collision.event), "id": hits.hit_id}
    if truth:
        row, table = collision.particle, collision.particles
        pick = lambda values: np.where(row >= 0, values[row], 0)
        columns |= {"pid": pick(table.particle_id), "q": pick(table.charge.astype(np.int32))}
        names = ("px", "py", "pz", "vx", "vy", "vz")
        values = [*table.momentum.T, *(table.vertex.T * scale)]
        columns |= {name: pick(value) for name, value in zip(names, values, strict=True)}
    root.write(path, "hits", columns)


def numbers(run):
    (folder,) = run.glob("applied-*")
    return json.loads((folder / "results.json").read_text())["numbers"], folder


def test_no_collision_is_in_two_splits():
    first = {
        name: [c.particles.momentum[0, 0] for c in dataset.produced(SMALL, name, 2)]
        for name in dataset.KEYS
    }
    everything = [value for values in first.values() for value in values]
    assert len(set(everything)) == 6
    other = dataclasses.replace(SMALL, seed=1)
    again = [c.particles.momentum[0, 0] for c in dataset.produced(other, "test", 2)]
    assert again == first["test"]  # the same for every seed
    train = [c.particles.momentum[0, 0] for c in dataset.produced(other, "train", 2)]
    assert not set(train) & set(everything)


def test_only_fast_particles_are_kept_unless_all_are_asked_for():
    (kept,) = dataset.produced(SMALL, "test", 1)
    (full,) = dataset.produced(dataclasses.replace(SMALL, occupancy="full"), "test", 1)
    assert (kept.particle >= 0).all()
    assert (np.hypot(*kept.particles.momentum[kept.particle, :2].T) > 1).all()
    assert len(full.hits.layer) > 2 * len(kept.hits.layer) and (full.particle < 0).any()


@pytest.mark.slow
def test_a_trained_network_on_other_files(tmp_path, shared_data, capsys):
    run, real = tmp_path / "run", shared_data / "tracking" / "trackml_event1000_barrel50"
    assert command("train", "smoke", "--run-dir", run) == 0
    on = ("evaluate", "smoke", "--run-dir", run, "--hits")
    assert command(*on, real, "--export") == 0
    found, folder = numbers(run)
    assert found["edge AUC"] > 0.985 and found["graph efficiency"] > 0.985
    assert found["network efficiency two_way"] > 0.9
    assert found["network fake rate two_way"] < 0.05
    assert found["largest difference of an ONNX score"] < 1e-5
    assert found["largest difference of a StableHLO score"] < 1e-5
    assert "24436 of 27543 hits are left out" in capsys.readouterr().err
    tracks = root.read(folder / "tracks.root", "tracks", ["pt", "hit_id"])
    ids = np.sort(tracks["hit_id"].values)
    assert (np.diff(ids) > 0).all()  # each hit on one track at most
    folder.rename(tmp_path / "csv")

    (collision,) = readers.read_collisions(real, dataset.DETECTOR)
    flat(tmp_path / "flat.root", collision, dataset.DETECTOR)
    mapped = ("--unit", "cm", "--mapping", MAPPING + TRUTH)
    assert command(*on, tmp_path / "flat.root", *mapped) == 0
    again, folder = numbers(run)
    for name, value in again.items():
        assert value == pytest.approx(found[name], abs=2e-4), name  # positions took another unit
    folder.rename(tmp_path / "flat")

    flat(tmp_path / "bare.root", collision, dataset.DETECTOR, truth=False)
    capsys.readouterr()
    assert command(*on, tmp_path / "bare.root", "--unit", "cm", "--mapping", MAPPING) == 0
    alone, folder = numbers(run)
    assert "has no truth: all its 27543 hits are used" in capsys.readouterr().err
    assert "edge AUC" not in alone and alone["hits per collision"] == 27543
    assert (folder / "figures" / "display_network.png").exists()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, quick_compilation):
    """A fit of a few steps, and a collision to apply it to."""
    run = tmp_path_factory.mktemp("tiny") / "run"
    options = ("--mu", 5, "--collisions", 2, "--descent.steps", 2, "--descent.evaluate-every", 0)
    assert command("train", "smoke", *options, "--run-dir", run) == 0
    return ("evaluate", "smoke", *options, "--run-dir", run)


def spoilt(folder, name):
    """A TrackML event with something wrong."""
    (collision,) = dataset.produced(dataclasses.replace(SMALL, occupancy="full"), "test", 1)
    hits = collision.hits
    position = hits.position.copy()
    if name == "nan":
        position[3, 1] = np.nan
    changed = hits._replace(position=position * (1e-3 if name == "metres" else 1.0))
    if name == "twice":
        changed = type(hits)(*(np.append(column, column[:1], axis=0) for column in changed))
    if name == "none":
        changed = type(hits)(*(column[:0] for column in changed))
    bare = collision._replace(hits=changed, particles=None, particle=None)
    flat(folder / "hits.root", bare, dataset.DETECTOR, truth=False, scale=1.0)
    return folder / "hits.root"


@pytest.mark.parametrize(
    "name, said",
    [
        ("nan", "x, y, z of row 3 are (-"),
        ("metres", "the numbers fit in m: give unit m"),
        ("twice", "stands twice"),
        ("none", "hits.root"),
    ],
)
def test_bad_hits_are_one_line(tiny, tmp_path, capsys, name, said):
    path = spoilt(tmp_path, name)
    capsys.readouterr()
    run, before = tiny[-1], set(tiny[-1].glob("applied-*"))
    assert command(*tiny, "--hits", path, "--mapping", MAPPING) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("error: ") and said in err[-1]
    assert set(run.glob("applied-*")) == before


@pytest.mark.parametrize(
    "options, said",
    [
        (("--mapping", MAPPING), "changes nothing without --hits"),
        (("--hits", "nowhere"), "nowhere is not there"),
        (("--unit", "cm"), "changes nothing without --hits"),
        (("--no-truth",), "changes nothing without --hits"),
    ],
)
def test_options_that_make_no_sense_are_one_line(tiny, capsys, options, said):
    assert command(*tiny, *options) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_graph_over_the_limit_is_named_with_the_option(tiny, tmp_path, capsys):
    (collision,) = dataset.produced(dataclasses.replace(SMALL, occupancy="full"), "test", 1)
    writers.write_collisions(tmp_path, [collision], dataset.DETECTOR)
    assert command(*tiny, "--hits", tmp_path / "hits.root", "--max-edges", 1000) == 2
    assert "--max-edges" in capsys.readouterr().err.splitlines()[-1]
    assert command(*tiny, "--hits", tmp_path / "hits.root") == 0


def test_a_collision_of_noise_alone_is_said_to_have_nothing(tiny, tmp_path, capsys):
    (collision,) = dataset.produced(dataclasses.replace(SMALL, occupancy="full"), "test", 1)
    noise = collision._replace(particle=np.full_like(collision.particle, -1))
    flat(tmp_path / "noise.root", noise, dataset.DETECTOR)
    mapped = ("--unit", "cm", "--mapping", MAPPING + TRUTH)
    assert command(*tiny, "--hits", tmp_path / "noise.root", *mapped) == 2
    assert "noise.root: has no hit to use" in capsys.readouterr().err.splitlines()[-1]


def test_one_hit_has_no_tracks(tiny, tmp_path):
    (collision,) = dataset.produced(SMALL, "test", 1)
    one = select(collision, np.arange(len(collision.particle)) == 5)
    bare = one._replace(particle=None, particles=None)
    flat(tmp_path / "one.root", bare, dataset.DETECTOR, truth=False)
    mapped = ("--unit", "cm", "--mapping", MAPPING)
    assert command(*tiny, "--hits", tmp_path / "one.root", *mapped) == 0
    folders = sorted(tiny[-1].glob("applied-*"), key=lambda p: p.stat().st_mtime)
    found = json.loads((folders[-1] / "results.json").read_text())["numbers"]
    assert found["hits per collision"] == 1 and found["network tracks per collision"] == 0
