"""SIGTERM and SIGKILL wherever they come: nothing is lost, repeated or half-written."""

import json
import signal
import time

import numpy as np
import pytest

from physml import checkpoint
from physml.run import main
from physml.signals import Stopped, stopping

HERE = __file__.rpartition("/")[0]


@pytest.fixture
def here(monkeypatch):
    """Run commands of the small experiment in this process."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr("physml.backend.check", lambda kernels: None)

    def command(*arguments):
        with pytest.raises(SystemExit) as stop:
            main("waves", [str(a) for a in arguments])
        return stop.value.code

    return command


def logged(folder):
    return (folder / "metrics.jsonl").read_bytes()


FIT = ("--descent.steps", 20, "--descent.evaluate-every", 10)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["load", "compile", "evaluate", "measure"])
def test_sigterm_is_answered_at_once(where, waves, wait_until, tmp_path):
    """Each of them takes five minutes here; the run has to end long before, with exit code 75."""
    told, run = tmp_path / "told", tmp_path / "run"
    options = ("reproduce", "smoke", *FIT, "--tell", told, "--wait", where, "--run-dir", run)
    process = waves(*options)
    wait_until(lambda: told.exists() and where in told.read_text().split(), where)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=900)
    seconds = time.monotonic() - start
    print(f"SIGTERM during {where}: exit code {process.returncode} after {seconds:.1f} s")
    assert process.returncode == 75, out
    assert seconds < 150
    steps = {"load": 0, "compile": 0, "evaluate": 10, "measure": 20}[where]
    found = checkpoint.latest(run / "checkpoints", "step")
    assert (int(found.tree["step"]) if found else 0) == steps
    if found:
        assert found.metadata["place"]["unevaluated"] is (where == "evaluate")
        assert json.loads((run / "status.json").read_text())["state"] == "stopped"


@pytest.mark.slow
def test_an_evaluation_that_was_broken_off_is_made_again(here, tmp_path, monkeypatch):
    """The log and the weights are those of a run that nobody stopped."""
    assert here("train", "smoke", *FIT, "--run-dir", tmp_path / "whole") == 0
    import waves.experiment as experiment

    plain, calls = experiment.objective, []

    def broken(config):
        found = plain(config)

        def evaluate(state, split):
            calls.append(int(state.step))
            if len(calls) in (1, 3):
                signal.raise_signal(signal.SIGTERM)
            return found.evaluate(state, split)

        return found._replace(evaluate=evaluate)

    made = experiment.EXPERIMENT._replace(objective=broken)
    monkeypatch.setattr(experiment, "EXPERIMENT", made)
    run = tmp_path / "run"
    codes = [here("train", "smoke", *FIT, "--run-dir", run) for _ in range(3)]
    assert codes == [75, 75, 0] and calls == [10, 10, 20, 20]
    assert logged(run) == logged(tmp_path / "whole")
    one, two = (checkpoint.latest(f / "checkpoints", "best") for f in (run, tmp_path / "whole"))
    for name, values in one.tree["params"].items():
        np.testing.assert_array_equal(values, two.tree["params"][name])


@pytest.mark.slow
def test_sigterm_during_a_save_lets_it_end(here, tmp_path, monkeypatch):
    save, run = checkpoint.save, tmp_path / "run"

    def slow(path, *rest):
        if path.name == "step-00000010":
            signal.raise_signal(signal.SIGTERM)
        save(path, *rest)

    monkeypatch.setattr(checkpoint, "save", slow)
    assert here("train", "smoke", *FIT, "--run-dir", run) == 75
    found = checkpoint.latest(run / "checkpoints", "step")
    assert int(found.tree["step"]) == 10 and not found.metadata["place"]["unevaluated"]
    assert [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")] == []
    assert here("train", "smoke", *FIT, "--run-dir", run) == 0
    steps = [json.loads(line)["step"] for line in logged(run).splitlines()]
    assert steps == sorted([*range(1, 21), 10, 20])


@pytest.mark.slow
def test_sigkill_costs_the_steps_since_the_last_save_only(
    waves, here, wait_until, tmp_path, capsys
):
    told, run = tmp_path / "told", tmp_path / "run"
    options = ("train", "smoke", *FIT, "--tell", told, "--pause", 2, "--run-dir", run)
    process = waves(*options)
    wait_until(
        lambda: told.exists() and told.read_text().count("evaluate") == 2, "a second evaluation"
    )
    process.kill()
    process.communicate()
    assert here("status", run) == 0
    assert "killed" in capsys.readouterr().out
    assert here(*options) == 0
    assert "going on from" in (said := capsys.readouterr().err) and "step-00000010" in said
    assert here("train", "smoke", *FIT, "--run-dir", tmp_path / "whole") == 0
    ours, theirs = (
        [json.loads(line) for line in logged(folder).splitlines()]
        for folder in (run, tmp_path / "whole")
    )
    for one, two in zip(ours, theirs, strict=True):
        assert one == pytest.approx(two, rel=2e-5)  # the killed one may have had more devices


def test_signals_ask_once_and_raise_where_there_is_no_time():
    with stopping() as asked:
        assert not asked.stop.asked()
        with pytest.raises(Stopped), asked.stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        assert asked.stop.asked() and asked.codes == [75]
        with pytest.raises(Stopped), asked.stop.at_once():
            raise AssertionError("not reached")
        signal.raise_signal(signal.SIGINT)
        assert asked.codes == [75, 130]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
