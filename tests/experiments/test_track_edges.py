"""The tracking experiment: what it trains on, the user's own files, and what it refuses."""

import dataclasses
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import uproot

from experiments.track_edges import dataset, experiment
from experiments.track_edges.config import PRESETS
from experiments.track_edges.figures import figures
from physml import record
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
        (("--tree", "t"), "changes nothing without --hits"),
        (("--hits", ".", "--tree", "t"), "--tree: changes nothing without --mapping"),
        (("--hits", "a.root", "--mapping", "x=a,y=b"), "--mapping: lacks z; name the column"),
        (("--hits", "a.root", "--mapping", "x=a,yy=b"), "--mapping: 'yy' is unknown"),
        (("--hits", "a.root", "--mapping", "x"), "--mapping: 'x' is not name=column"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    tiny, tmp_path, monkeypatch, capsys, options, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.root").touch()
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
    assert "noise.root: has no collision with 3 hits" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("hits", [1, 2])
def test_too_few_hits_for_a_track_are_one_line(tiny, tmp_path, capsys, hits):
    (collision,) = dataset.produced(SMALL, "test", 1)
    one = select(collision, np.arange(len(collision.particle)) < hits)
    bare = one._replace(particle=None, particles=None)
    flat(tmp_path / "one.root", bare, dataset.DETECTOR, truth=False)
    mapped = ("--unit", "cm", "--mapping", MAPPING)
    assert command(*tiny, "--hits", tmp_path / "one.root", *mapped) == 2
    said = "one.root: has no collision with 3 hits to use, as many as a track needs"
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_tree_of_a_file_is_an_option(tiny, tmp_path, capsys):
    (collision,) = dataset.produced(SMALL, "test", 1)
    flat(tmp_path / "one.root", collision, dataset.DETECTOR)
    columns = root.read(tmp_path / "one.root", "hits", list(root.describe(tmp_path / "one.root")))
    with uproot.recreate(tmp_path / "two.root") as file:
        file["other"], file["mine"] = {"a": np.zeros(3)}, columns
    on = ("--hits", tmp_path / "two.root", "--unit", "cm", "--mapping", MAPPING + TRUTH)
    assert command(*tiny, *on) == 2
    assert "name one (--tree) of mine, other" in capsys.readouterr().err.splitlines()[-1]
    before = set(tiny[-1].glob("applied-*"))
    assert command(*tiny, *on, "--tree", "mine") == 0
    (folder,) = set(tiny[-1].glob("applied-*")) - before
    results = record.read_results(folder)
    assert results["numbers"]["hits per collision"] == len(collision.hits.layer)
    drawn = figures(results)
    assert drawn["scores"].axes[0].get_title().startswith("1 collision, two.root")
    labels = [line.get_label() for line in drawn["purity"].axes[0].lines]
    assert labels == ["graph network: masked", "graph network: total"]  # GNN4ITk has all hits


def test_times_are_without_what_happens_once(monkeypatch):
    calls = []

    def slow_at_first(network, params, graph):
        calls.append(1)
        time.sleep(0.5 if len(calls) == 1 else 0.0)
        return np.zeros(len(graph.edges), np.float32)

    monkeypatch.setattr(experiment, "score", slow_at_first)
    state = SimpleNamespace(params=None)
    one, two = experiment.timed(SMALL, state, [*dataset.produced(SMALL, "test", 1)] * 2)
    assert len(calls) == 3 and max(one.seconds["scores"], two.seconds["scores"]) < 0.3
