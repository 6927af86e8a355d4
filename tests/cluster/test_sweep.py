"""Sweeps: points, workers that die, folds, pruning, the best run in `evaluate`."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter

import numpy as np
import pytest

from physml import search, sweep
from physml.errors import ConfigError
from physml.run import main

HERE = __file__.rpartition("/")[0]
SHORT = ("--descent.steps", "4", "--descent.evaluate-every", "2")


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main("waves", [str(a) for a in arguments])
    return stop.value.code


@pytest.fixture
def here(monkeypatch):
    """Run commands of the small experiment in this process."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr("physml.backend.check", lambda kernels: None)
    return run


def results(home):
    return {
        path.parent.name: json.loads(path.read_text()) for path in home.glob("trial-*/result.json")
    }


def worker(arguments):
    from physml import backend

    sys.path.insert(0, HERE)
    backend.check = lambda kernels: None
    main("waves", arguments)


@pytest.mark.slow
def test_twelve_trials_by_three_workers_of_which_one_is_killed(wait_until, tmp_path, here):
    """Twelve results, none twice, and the trial of the dead worker among them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["physml.sweep", "physml.descent", "orbax.checkpoint"])
    home = tmp_path / "sweep"
    arguments = [
        "sweep", "smoke", "--sweep.method", "random", "--sweep.trials", "12", "--sweep.over",
        "width=4:16", "descent.learning-rate=1e-3:1e-1:log", "--pause", "0.5", *SHORT,
        "--run-dir", str(home),
    ]  # fmt: skip
    workers = [context.Process(target=worker, args=(arguments,)) for _ in range(3)]
    for process in workers:
        process.start()

    def at_work():
        """A trial of the first worker that has been begun and not ended."""
        for path in home.glob("trial-*/status.json"):
            about = json.loads(path.read_text())
            if about["process"] == workers[0].pid and about["state"] == "running":
                return path.parent
        return None

    left = wait_until(at_work, "a trial of the first worker")
    os.kill(workers[0].pid, signal.SIGKILL)
    assert not (left / "result.json").exists()
    for process in workers:
        process.join(1800)
    assert [process.exitcode for process in workers] == [-signal.SIGKILL, 0, 0]
    found = results(home)
    by = Counter(json.loads((home / name / "status.json").read_text())["process"] for name in found)
    print(f"12 trials, results: {len(found)}; by worker: {sorted(by.values())}; left: {left.name}")
    assert len(found) == 12 and left.name in found
    assert set(by) == {workers[1].pid, workers[2].pid}  # the dead one's was done by another
    points = [json.loads(path.read_text())["values"] for path in home.glob("trial-*/trial.json")]
    assert len({json.dumps(point) for point in points}) == 12
    for name in found:
        lines = (home / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 2, 3, 4, 4]
    assert len((home / "trials.csv").read_text().splitlines()) == 13
    assert (home / "figures" / "sweep.png").exists()


@pytest.mark.slow
def test_a_grid_has_all_points_and_the_best_is_evaluated(here, tmp_path, capsys):
    home = tmp_path / "sweep"
    options = ("--sweep.over", "width=4,8", "seed=0,1", *SHORT, "--run-dir", home)
    assert here("sweep", "smoke", *options, "--sweep.take", 1) == 0
    assert "1 of 4 trials are done" in capsys.readouterr().out
    assert here("evaluate", "smoke", "--run-dir", home) == 0  # of those that are done
    assert here("sweep", "smoke", *options) == 0
    assert "4 of 4 trials are done" in capsys.readouterr().out
    found = results(home)
    points = [json.loads((home / name / "trial.json").read_text())["values"] for name in found]
    assert {(p["width"], p["seed"]) for p in points} == {(w, s) for w in "48" for s in "01"}
    best = min(found, key=lambda name: found[name]["value"])
    logged = (home / best / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line).get("validation_loss") for line in logged]
    assert found[best]["value"] == min(v for v in values if v is not None)
    assert here("evaluate", "smoke", "--run-dir", home) == 0
    numbers = json.loads((home / best / "results.json").read_text())["numbers"]
    assert numbers["error"] == pytest.approx(found[best]["value"], rel=1e-5)
    assert here("sweep", "smoke", *options, "--sweep.metric", "error") == 2
    assert "sweep with other metric" in capsys.readouterr().err
    assert here("evaluate", "default", "--run-dir", home) == 2
    assert "is a sweep of smoke" in capsys.readouterr().err
    assert here("status", home) == 0
    said = capsys.readouterr()
    assert said.out.count(" done ") == 4 and (home / "status.png").exists()


@pytest.mark.slow
def test_bayesian_search_learns_from_a_journal_and_finishes_what_was_left(here, tmp_path):
    pytest.importorskip("optuna")
    home = tmp_path / "sweep"
    options = (
        "sweep", "smoke", "--sweep.method", "bayes", "--sweep.trials", 4, "--sweep.over",
        "descent.learning-rate=1e-3:1e-1:log", "width=4,8", "--rows", 16, *SHORT,
        "--run-dir", home,
    )  # fmt: skip
    assert here(*options, "--sweep.take", 2) == 0
    (home / "trial-0001" / "result.json").unlink()  # as if its worker had been killed
    shutil.rmtree(home / "trial-0001" / "checkpoints")
    (home / "trial-0001" / "metrics.jsonl").unlink()
    assert here(*options) == 0
    assert len(results(home)) == 4
    journal = [json.loads(line) for line in (home / "study.journal").read_text().splitlines()]
    ends = [line for line in journal if line.get("values")]
    assert sorted(line["trial_id"] for line in ends) == [0, 1, 2, 3]  # each learned from once
    rates = [
        float(json.loads(path.read_text())["values"]["descent.learning-rate"])
        for path in home.glob("trial-*/trial.json")
    ]
    assert len(set(rates)) == 4 and all(1e-3 <= rate <= 1e-1 for rate in rates)


@pytest.mark.slow
def test_folds_keep_groups_whole_and_their_mean_is_the_value(here, tmp_path, capsys):
    home = tmp_path / "sweep"
    options = ("sweep", "smoke", "--sweep.folds", 2, "--sweep.over", "width=4", *SHORT)
    assert here(*options, "--run-dir", home) == 0
    found = results(home)["trial-0000"]
    assert len(found["folds"]) == 2 and found["value"] == pytest.approx(np.mean(found["folds"]))
    assert found["error"] == pytest.approx(abs(np.subtract(*found["folds"])) / 2)
    assert here("evaluate", "smoke", "--run-dir", home) == 2
    assert "holds folds only" in capsys.readouterr().err
    for fold in ("fold-0", "fold-1"):  # each a run of its own, that can be told and resumed
        noted = json.loads((home / "trial-0000" / fold / "config.json").read_text())
        assert noted["width"] == 4
    assert here("status", home) == 0
    assert capsys.readouterr().out.count(" done ") == 2
    import waves.experiment as experiment

    config = experiment.PRESETS["smoke"]
    splits = experiment.load(config)
    left_out = []
    for _, kept, out in sweep.folds(experiment.EXPERIMENT, config, splits, 4, 0):
        assert not set(kept["train"]["group"]) & set(out["group"])
        assert len(kept["train"]["x"]) + len(out["x"]) == 64
        left_out += out["group"].tolist()
    assert sorted(left_out) == sorted(splits["train"]["group"])


@pytest.mark.slow
def test_a_hopeless_trial_ends_early_and_a_failed_one_is_told(here, tmp_path, monkeypatch):
    home = tmp_path / "sweep"
    rates = "descent.learning-rate=0.02,0.03,0.04,1e-9"
    options = ("sweep", "smoke", "--sweep.prune", "--sweep.over", rates, *SHORT)
    assert here(*options, "--run-dir", home) == 0
    found = results(home)
    assert found["trial-0003"]["pruned"] == 2  # above the median at the first evaluation
    assert "pruned" in (home / "trials.csv").read_text()
    over = ("--sweep.over", "descent.clip=1.0", "--descent.learning-rate", 1e-3)
    import waves.experiment as experiment

    broken = experiment.EXPERIMENT._replace(load=lambda c: nan_rows(experiment.load(c)))
    monkeypatch.setattr(experiment, "EXPERIMENT", broken)
    assert here("sweep", "smoke", *over, *SHORT, "--run-dir", tmp_path / "nan") == 0
    assert "not finite" in results(tmp_path / "nan")["trial-0000"]["failed"]


@pytest.mark.slow
def test_options_that_do_not_fit_together_fail_their_trial_alone(
    here, tmp_path, capsys, monkeypatch
):
    import waves.experiment as experiment

    def load(config):
        if config.width == 4:
            raise ConfigError("--width", "4 is too narrow for 64 rows", "give 8")
        return kept.load(config)

    kept = experiment.EXPERIMENT
    monkeypatch.setattr(experiment, "EXPERIMENT", kept._replace(load=load))
    home, over = tmp_path / "sweep", ("--sweep.over", "width=4,8", *SHORT)
    assert here("sweep", "smoke", *over, "--run-dir", home) == 0
    found = results(home)
    assert "too narrow" in found["trial-0000"]["failed"] and "value" in found["trial-0001"]
    assert "too narrow" in (home / "trials.csv").read_text()
    wrong = ("--sweep.metric", "depth", "--run-dir", tmp_path / "wrong", "--sweep.over", "width=8")
    assert here("sweep", "smoke", *SHORT, *wrong) == 2  # of the whole sweep, not of its trial
    assert "depth is not measured" in capsys.readouterr().err
    assert not results(tmp_path / "wrong")


def nan_rows(splits):
    return {**splits, "train": {**splits["train"], "y": np.full(64, np.nan, np.float32)}}


def test_axes_are_values_or_ranges():
    assert search.axis("width=4,8").values == ("4", "8")
    assert search.axis("--descent.learning_rate=1e-4:1e-2:log").name == "descent.learning-rate"
    rate = search.axis("rate=1e-4:1e-2:log")
    assert float(rate.at(0.5)) == pytest.approx(1e-3) and float(rate.at(0.0)) == pytest.approx(1e-4)
    layers = search.axis("layers=1:4")
    assert [layers.at(share) for share in (0.0, 0.26, 0.51, 0.99)] == ["1", "2", "3", "4"]
    assert math.isclose(float(search.axis("x=-1:3.0").at(0.5)), 1.0)


@pytest.mark.parametrize(
    "text", ["width", "width=", "=3", "x=2:1", "x=0:1:log", "x=a:b", "x=1:2:lg"]
)
def test_an_axis_that_reads_otherwise_is_refused(text):
    with pytest.raises(ConfigError, match=r"--sweep\.over"):
        search.axis(text)


@pytest.mark.parametrize(
    "options, message",
    [
        ((), "--sweep.over: is missing"),
        (("--sweep.over", "width=1:4"), "no place for the range of width"),
        (("--sweep.over", "width=1", "--sweep.trials", "3"), "no place for --sweep.trials"),
        (("--sweep.over", "width=1:4", "--sweep.method", "random"), "--sweep.trials: is missing"),
        (("--sweep.over", "widthh=1"), "perhaps you meant --width"),
        (("--sweep.over", "width=a"), "invalid literal"),
        (("--sweep.over", "width=1", "--sweep.folds", "1"), "give 2 folds or more"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_any_work(
    here, tmp_path, capsys, options, message
):
    assert here("sweep", "smoke", *options, "--run-dir", tmp_path / "sweep") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
