"""The commands, on a small experiment of its own: a straight line through noisy points."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from physml import checkpoint
from physml.io import root
from physml.run import main

CONFIG = '''
"""A straight line through noisy points."""

from dataclasses import dataclass
from pathlib import Path

from physml.options import apply_to


@dataclass(frozen=True)
class Config:
    """Options."""

    seed: int = 0  # of the noise
    noise: float = 0.1  # standard deviation
    points: int = 50  # how many
    data: Path | None = None  # slope in a file
    at: float | None = apply_to()  # where the line is read off


PRESETS = {"smoke": Config(points=20), "default": Config()}
'''
EXPERIMENT = """
import numpy as np
from matplotlib.figure import Figure

from physml.errors import DataError
from physml.claims import Claim
from physml.run import Experiment
from physml.train import Objective, TrainState

from linefit.config import PRESETS


def load(config):
    if config.points < 2:
        raise DataError("points", "are too few", "give two")
    slope = 2.0 if config.data is None else float(config.data.read_text())
    random = np.random.default_rng(config.seed)
    x = np.linspace(0, 1, config.points)
    return {"train": {"x": x, "y": slope * x + config.noise * random.normal(size=len(x))}}


def objective(config):
    def step(state, train):
        print("FITTING")
        slope = train["x"] @ train["y"] / (train["x"] @ train["x"])
        return state._replace(params={"slope": np.array(slope)}, step=state.step + 1), {"s": slope}

    init = lambda key, train: TrainState({"slope": np.zeros(())})
    return Objective(init, step, lambda s, b: {}, compiled=False)


def evaluate(config, state, splits):
    slope = float(state.params["slope"])
    numbers = {"slope": slope, "trivial slope": 0.0, "points": config.points}
    if config.at is not None:
        numbers["height"] = slope * config.at
    return {"numbers": numbers, "arrays": {**splits["train"], "name": np.array(["line"])}}


def figures(results):
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().plot(results["arrays"]["x"], results["arrays"]["y"], ".")
    return {"line": figure}


CLAIM = Claim("slope", "", LOW, 2.2, 2.0, "by construction", "trivial slope")
EXPERIMENT = Experiment(
    "linefit", PRESETS, load, objective, evaluate, figures,
    {name: (CLAIM,) for name in PRESETS},
)
"""


@pytest.fixture
def linefit(tmp_path, monkeypatch):
    """Write the package; return a function that runs a command of it in this process."""
    folder = tmp_path / "code" / "linefit"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "config.py").write_text(CONFIG)
    (folder / "experiment.py").write_text(EXPERIMENT.replace("LOW", "1.8"))
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.chdir(tmp_path)
    checked = []
    monkeypatch.setattr("physml.backend.check", lambda kernels: checked.append(len(kernels)))

    def command(*arguments):
        for name in [m for m in sys.modules if m.partition(".")[0] == "linefit"]:
            del sys.modules[name]
        with pytest.raises(SystemExit) as stop:
            main("linefit", [str(a) for a in arguments])
        return stop.value.code

    command.checked = checked
    yield command
    for name in [m for m in sys.modules if m.partition(".")[0] == "linefit"]:
        del sys.modules[name]


def edit(tmp_path, old, new, name="experiment.py"):
    path = tmp_path / "code" / "linefit" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_reproduce_leaves_a_whole_record(linefit, tmp_path, capsys):
    assert linefit("reproduce", "smoke", "--run-dir", "out") == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("slope")]
    assert line.split()[2:] == ["[1.8,", "2.2]", "0", "2"]
    assert "paper: by construction" in said
    folder = tmp_path / "out"
    assert json.loads((folder / "config.json").read_text())["points"] == 20
    assert json.loads((folder / "metrics.jsonl").read_text())["step"] == 1
    results = json.loads((folder / "results.json").read_text())
    (claim,) = results["claims"]
    x = np.linspace(0, 1, 20)
    y = 2 * x + 0.1 * np.random.default_rng(0).normal(size=20)
    assert results["numbers"]["slope"] == pytest.approx(x @ y / (x @ x), rel=1e-12)
    assert claim["holds"] and claim["baseline_value"] == 0.0 and claim["paper"] == 2.0
    environment = json.loads((folder / "environment.json").read_text())
    assert {"versions", "device", "git", "code_sha256", "data_sha256"} <= set(environment)
    assert environment["versions"]["jax"]
    assert (folder / "figures" / "line.png").read_bytes().startswith(b"\x89PNG")


def test_every_run_checks_the_compiler_first(linefit, tmp_path):
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    assert linefit("figures", "smoke", "--run-dir", "out") == 2  # computes nothing
    assert linefit.checked == [0]
    edit(tmp_path, "EXPERIMENT = Experiment(", "KERNELS = lambda: (1, 2)\nEXPERIMENT = Experiment(")
    edit(tmp_path, "    {name: (CLAIM,) for name in PRESETS},\n",
         "    {name: (CLAIM,) for name in PRESETS}, KERNELS,\n")  # fmt: skip
    assert linefit("evaluate", "smoke", "--run-dir", "out") == 0
    assert linefit.checked == [0, 2]


def test_the_same_folder_resumes_and_figures_never_train(linefit, tmp_path, capsys):
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    assert "FITTING" in capsys.readouterr().out
    assert not (tmp_path / "out" / "results.json").exists()
    for command in ("reproduce", "evaluate", "figures"):
        assert linefit(command, "smoke", "--run-dir", "out") == 0
        assert "FITTING" not in capsys.readouterr().out
    drawn = tmp_path / "out" / "figures" / "line.png"
    before = drawn.read_bytes()
    drawn.unlink()
    assert linefit("figures", "smoke", "--run-dir", "out") == 0
    assert drawn.read_bytes() == before


def test_changed_code_or_data_is_fitted_again(linefit, tmp_path, capsys):
    (tmp_path / "slope.txt").write_text("2.0")
    options = ("smoke", "--data", tmp_path / "slope.txt", "--run-dir", "out")
    assert linefit("train", *options) == 0
    (tmp_path / "slope.txt").write_text("3.0")
    capsys.readouterr()
    assert linefit("evaluate", *options) == 0  # the old fit, and says so
    out, err = capsys.readouterr()
    assert "FITTING" not in out and "changed: data_sha256" in err
    assert linefit("reproduce", *options) == 0
    out, err = capsys.readouterr()
    assert "FITTING" in out and "data_sha256" in err
    edit(tmp_path, "slope = train", "slope = 1.5 * train")
    assert linefit("reproduce", *options) == 0
    out, err = capsys.readouterr()
    assert "FITTING" in out and "code_sha256" in err
    kept = checkpoint.latest(tmp_path / "out" / "earlier-1" / "checkpoints", "step").tree
    assert float(kept["params"]["slope"]) == pytest.approx(2.0, abs=0.2)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["numbers"]["slope"] == pytest.approx(4.5, abs=0.3)


@pytest.mark.parametrize("name, code", [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_ends_after_the_step_and_the_same_command_goes_on(
    linefit, tmp_path, capsys, name, code
):
    edit(tmp_path, "compiled=False)", "steps=3, compiled=False)")
    edit(tmp_path, 'print("FITTING")', 'print("FITTING", state.step + 1)')
    assert linefit("reproduce", "smoke", "--run-dir", "whole") == 0
    edit(
        tmp_path,
        "        slope = train",
        f"""        import os, signal
        if state.step == 1 and not os.path.exists("once"):
            open("once", "w").close()
            os.kill(os.getpid(), signal.{name})
        slope = train""",
    )
    capsys.readouterr()
    assert linefit("reproduce", "smoke", "--run-dir", "out") == code
    out, err = capsys.readouterr()
    assert "FITTING 2" in out and "FITTING 3" not in out and "stopped and saved" in err
    assert linefit("evaluate", "smoke", "--run-dir", "out") == 2
    assert "no finished fit" in capsys.readouterr().err
    edit(tmp_path, "are too few", "are much too few")  # code changed
    assert linefit("reproduce", "smoke", "--run-dir", "out") == 0
    out, err = capsys.readouterr()
    assert "FITTING 3" in out and "FITTING 2" not in out and "code_sha256" in err
    whole, stopped = ((tmp_path / f / "metrics.jsonl").read_bytes() for f in ("whole", "out"))
    assert whole == stopped


def test_a_fit_without_a_whole_checkpoint_is_refused(linefit, tmp_path, capsys):
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    for path in (tmp_path / "out" / "checkpoints").rglob("manifest.json"):
        path.write_text("{}")
    assert linefit("reproduce", "smoke", "--run-dir", "out") == 2
    assert "step-00000001" in capsys.readouterr().err


def test_a_checkpoint_of_other_options_is_refused(linefit, tmp_path, capsys):
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    (tmp_path / "out" / "config.json").unlink()
    for command in ("reproduce", "evaluate", "train"):
        assert linefit(command, "smoke", "--seed", "7", "--run-dir=out") == 2
        assert "holds a fit with other options" in capsys.readouterr().err
        assert not (tmp_path / "out" / "config.json").exists()


def test_results_of_an_earlier_fit_are_set_aside_with_it(linefit, tmp_path, capsys):
    assert linefit("reproduce", "smoke", "--run-dir", "out") == 0
    (tmp_path / "out" / "metrics.jsonl").unlink()  # what is missing is no obstacle
    edit(tmp_path, "slope = train", "slope = 1.5 * train")
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    assert linefit("figures", "smoke", "--run-dir", "out") == 2
    assert "results.json" in capsys.readouterr().err
    earlier = {path.name for path in (tmp_path / "out" / "earlier-1").iterdir()}
    assert earlier == {"checkpoints", "figures", "results.json", "results.npz"}


def test_a_damaged_log_is_refused(linefit, tmp_path, capsys):
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    log = tmp_path / "out" / "metrics.jsonl"
    log.write_bytes(log.read_bytes().replace(b"step", b"stop"))
    assert linefit("evaluate", "smoke", "--run-dir", "out") == 2
    assert "metrics.jsonl: is not the log" in capsys.readouterr().err


def test_each_choice_of_options_has_its_folder(linefit, tmp_path):
    for seed in ("1", "2"):
        assert linefit("train", "smoke", "--seed", seed) == 0
    assert len(list((tmp_path / "runs" / "linefit").iterdir())) == 2


def test_without_a_home_nothing_is_cached(linefit, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as in a container without user
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "out"]


def test_tables_are_written_as_root_files(linefit, tmp_path):
    tables = '"tables": {"fit": {"x": splits["train"]["x"]}}'
    edit(tmp_path, '"name": np.array(["line"])}}', '"name": np.array(["line"])}, ' + tables + "}")
    assert linefit("reproduce", "smoke", "--run-dir", "out") == 0
    found = root.read(tmp_path / "out" / "fit.root", "fit", ["x"])
    np.testing.assert_array_equal(found["x"], np.linspace(0, 1, 20))


@pytest.mark.parametrize("low, high", [("2.15", "2.2"), ("1.0", "1.9")])
def test_a_broken_claim_exits_with_1(linefit, tmp_path, capsys, low, high):
    edit(tmp_path, "1.8, 2.2", f"{low}, {high}")
    assert linefit("reproduce", "smoke") == 1
    assert "OUTSIDE" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs" / "linefit").iterdir()
    assert folder.name.startswith("smoke-")
    assert not json.loads((folder / "results.json").read_text())["claims"][0]["holds"]


def test_own_options_are_not_held_against_the_claims(linefit, tmp_path, capsys):
    assert linefit("reproduce", "smoke", "--noise", "5.0", "--seed", "3") == 0
    said = capsys.readouterr().out
    assert "no claims: those of the preset smoke are made without --seed, --noise" in said


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("reproduec",), "perhaps you meant reproduce"),
        (("reproduce", "smok"), "perhaps you meant smoke"),
        (("reproduce", "smoke", "--nose", "1"), "perhaps you meant --noise"),
        (("reproduce", "smoke", "--points", "many"), "'many'; see python -m linefit"),
        (("reproduce", "smoke", "--point", "3"), "options: --point; perhaps you meant --points"),
        (("sweep", "smoke", "--sweep.ovr", "a"), "perhaps you meant --sweep.over"),
        (("submit", "smoke", "--run", "foo"), "('reproduce', 'train', 'evaluate', 'sweep'); see"),
        (("reproduce", "smoke", "--run-dir", "/proc/physml"), "/proc/physml: cannot be made"),
        (("reproduce", "smoke", "--noise", "nan"), "--noise: is nan"),
        (("reproduce", "smoke", "--noise", "inf"), "--noise: is inf"),
        (("reproduce", "smoke", "--seed", "-1"), "--seed: is -1"),
        (("reproduce", "smoke", "--seed", str(2**64)), "--seed: is 18446744073709551616"),
        (("reproduce", "smoke", "--points", "1"), "points: are too few"),
        (("reproduce", "smoke", "extra"), "extra"),
        (("reproduce", "smoke", "--run-dir"), "names no folder"),
        (("reproduce", "smoke", "--run-dir", ""), "names no folder"),
        (("reproduce", "smoke", "--run-dir="), "names no folder"),
        (("reproduce", "smoke", "--run-dir", "--seed", "1"), "names no folder"),
        (("evaluate", "smoke"), "holds no finished fit"),
        (("figures", "smoke"), "holds no run"),
        (("reproduce", "smoke", "--data", "missing.txt"), "missing.txt"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    linefit, tmp_path, capsys, arguments, message
):
    assert linefit(*arguments) == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("error: ")
    assert err.count("\n") == 1 and "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["code"]


def test_a_folder_of_another_run_is_refused(linefit, tmp_path, capsys):
    assert linefit("train", "smoke", "--run-dir", "out") == 0
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out").rglob("*"))
    assert linefit("train", "smoke", "--run-dir", "out", "--noise", "0.2") == 2
    assert "other options" in capsys.readouterr().err
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out").rglob("*"))
    (tmp_path / "file").touch()
    assert linefit("train", "smoke", "--run-dir", "file") == 2


def test_two_runs_on_one_folder_are_refused(linefit, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert linefit("train", "smoke", "--run-dir", "out") == 2
    assert "in use by another run" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["results.npz", "results.json"])
def test_damaged_results_are_not_drawn(linefit, tmp_path, capsys, name):
    assert linefit("reproduce", "smoke", "--run-dir", "out") == 0
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes()[:-7])
    capsys.readouterr()
    assert linefit("figures", "smoke", "--run-dir", "out") == 2
    assert name in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_refused(linefit, tmp_path, capsys):
    edit(tmp_path, '"points": config.points', '"points": float("nan")')
    assert linefit("reproduce", "smoke", "--run-dir", "out") == 2
    assert "points not finite" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_claim_on_a_number_that_is_not_measured_is_refused(linefit, tmp_path, capsys):
    edit(tmp_path, 'Claim("slope"', 'Claim("slop"')
    assert linefit("reproduce", "smoke") == 2
    assert "slop: is claimed but not measured" in capsys.readouterr().err


def test_help_lists_everything_and_loads_no_jax(linefit, tmp_path):
    script = (
        "import sys; sys.path[:0] = [{!r}, {!r}]\n"
        "from physml.run import main\n"
        "try: main('linefit', {!r})\n"
        "finally: print('heavy', [m for m in ('jax', 'numpy', 'flax') if m in sys.modules])"
    )
    root = str(Path(__file__).parents[1])

    def said(*arguments):
        text = script.format(root, str(tmp_path / "code"), list(arguments))
        run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "heavy []" in run.stdout
        return run.stdout

    for word in ("A straight line", "reproduce", "evaluate", "figures", "smoke, default"):
        assert word in said("--help")
    for word in ("--noise FLOAT", "standard deviation", "default: 0.1", "--run-dir"):
        assert word in said("reproduce", "smoke", "--help")


def test_a_finished_fit_is_applied_without_touching_its_own_results(linefit, tmp_path, capsys):
    run = tmp_path / "run"
    assert linefit("evaluate", "smoke", "--at", 3, "--run-dir", run) == 2
    assert "no finished fit" in capsys.readouterr().err
    assert linefit("reproduce", "smoke", "--run-dir", run) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert linefit("evaluate", "smoke", "--at", 3, "--run-dir", run) == 0
    out = capsys.readouterr().out
    assert "FITTING" not in out and "no claims" in out
    (folder,) = run.glob("applied-*")
    numbers = json.loads((folder / "results.json").read_text())["numbers"]
    assert numbers["height"] == pytest.approx(3 * numbers["slope"])
    assert json.loads((folder / "config.json").read_text())["at"] == 3
    assert [p for p, content in before.items() if p.read_bytes() != content] == []
    (folder / "figures" / "line.png").unlink()
    assert linefit("figures", "smoke", "--at", 3, "--run-dir", run) == 0
    assert (folder / "figures" / "line.png").exists()
    assert linefit("evaluate", "smoke", "--at", 4, "--run-dir", run) == 0
    assert len(list(run.glob("applied-*"))) == 2


@pytest.mark.parametrize("command", ["reproduce", "train"])
def test_what_a_fit_is_applied_to_is_no_part_of_fitting(command, linefit, tmp_path, capsys):
    assert linefit(command, "smoke", "--at", 3, "--run-dir", tmp_path / "run") == 2
    assert f"--at: is nothing that {command} takes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def reading(linefit, tmp_path):
    """The line with a command `read` of its own and weights that come with the smoke preset."""
    edit(
        tmp_path, "PRESETS =", 'COMMANDS = {"read": "write down the slope"}\nPRESETS =', "config.py"
    )
    edit(
        tmp_path,
        "    {name: (CLAIM,) for name in PRESETS},\n",
        """    {name: (CLAIM,) for name in PRESETS},
    commands={"read": lambda config, state, folder: (folder / "slope.txt").write_text(
        f"{state.params['slope']} at {config.at}") and None},
    weights={"smoke": lambda config: TrainState({"slope": np.array(2.125)})},
""",
    )
    return linefit


def test_a_command_of_its_own_needs_a_finished_fit(reading, tmp_path, capsys):
    assert reading("--help") == 0
    assert "write down the slope" in capsys.readouterr().out
    assert reading("read", "default", "--run-dir", "out") == 2
    assert "no finished fit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert reading("train", "default", "--run-dir", "out") == 0
    assert reading("read", "default", "--run-dir", "out") == 0
    slope = float((tmp_path / "out" / "slope.txt").read_text().split()[0])
    assert slope == pytest.approx(2.0, abs=0.1)
    assert reading("read", "default", "--at", "3", "--run-dir", "out") == 0
    (folder,) = (tmp_path / "out").glob("applied-*")
    assert (folder / "slope.txt").read_text().endswith("at 3.0")
    assert json.loads((folder / "config.json").read_text())["at"] == 3
    assert reading("reda", "default") == 2
    assert "perhaps you meant read" in capsys.readouterr().err


def test_weights_that_come_with_the_project_serve_until_there_is_a_fit(reading, tmp_path, capsys):
    for command in ("evaluate", "read"):
        assert reading(command, "smoke", "--run-dir", "out") == 0
        out, err = capsys.readouterr()
        assert "FITTING" not in out and err.count("weights that come with the project") == 1
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())["numbers"]
    assert numbers["slope"] == 2.125
    assert (tmp_path / "out" / "slope.txt").read_text().startswith("2.125")
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["weights"] == "come with the project"
    assert reading("evaluate", "smoke", "--noise", "0.3", "--run-dir", "other") == 2
    assert "no finished fit" in capsys.readouterr().err
    assert reading("train", "smoke", "--run-dir", "out") == 0
    out, err = capsys.readouterr()
    assert "FITTING" in out and "come with" not in err
    assert not (tmp_path / "out" / "results.json").exists()  # it was of other weights
    assert reading("evaluate", "smoke", "--run-dir", "out") == 0
    assert "come with" not in capsys.readouterr().err
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())["numbers"]
    assert numbers["slope"] != 2.125


def test_status_says_what_became_of_runs(linefit, tmp_path, capsys):
    assert linefit("status") == 2
    assert "runs/linefit: is no folder" in capsys.readouterr().err
    assert linefit("train", "smoke") == 0
    edit(tmp_path, "slope = float(", "raise DataError('points', 'are wet', 'dry them')\n    x = (")
    assert linefit("evaluate", "smoke", "--run-dir", "runs/linefit/wet") == 2
    assert linefit("reproduce", "smoke", "--run-dir", "runs/linefit/wet") == 2
    capsys.readouterr()
    with (tmp_path / "runs" / "linefit" / "wet" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert linefit("status", "runs/linefit/wet") == 0
        assert "wet" in (said := capsys.readouterr().out) and "running" in said
    assert linefit("status") == 0
    done, failed = capsys.readouterr().out.splitlines()[1:]
    assert done.startswith("smoke-") and done.split()[1:3] == ["done", "1"]
    assert failed.split()[:3] == ["wet", "failed", "1"] and "points: are wet; dry them" in failed
    status = tmp_path / "runs" / "linefit" / "wet" / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "running"}))
    assert linefit("status", "runs/linefit/wet") == 0  # as SIGKILL leaves it
    assert "killed" in capsys.readouterr().out
    log = tmp_path / "runs" / "linefit" / "wet" / "metrics.jsonl"
    for bad, what in ((b"{'step': 1}\n", "line 1 is damaged"), (b"\xff\n", "line 1 is damaged")):
        log.write_bytes(bad)
        assert linefit("status") == 0  # the others are told all the same
        done, damaged = capsys.readouterr().out.splitlines()[1:]
        assert done.split()[1] == "done" and "damaged" in damaged and what in damaged
