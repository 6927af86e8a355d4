"""What holds for every experiment; a new folder under experiments/ is found by itself."""

import dataclasses
import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from physml.arguments import COMMANDS
from physml.run import main

ROOT = Path(__file__).parents[2]
FILES = ("__init__.py", "__main__.py", "README.md", "config.py", "experiment.py", "figures.py")
NAMES = sorted(
    path.name
    for path in (ROOT / "experiments").iterdir()
    if path.is_dir() and not path.name.startswith(("_", "."))
)
each = pytest.mark.parametrize("name", NAMES)


def command(name, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(f"experiments.{name}", [str(a) for a in arguments])
    return stop.value.code


def test_experiments_are_found():
    assert NAMES


@each
def test_files_are_those_of_every_experiment(name):
    folder = ROOT / "experiments" / name
    assert [file for file in FILES if not (folder / file).is_file()] == []
    table = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    assert f"[{name}]({name}/README.md)" in table


@each
def test_presets_are_frozen_and_documented(name):
    config = importlib.import_module(f"experiments.{name}.config")
    assert list(config.PRESETS)[:3] == ["smoke", "default", "paper"]
    for preset in config.PRESETS.values():
        assert type(preset) is config.Config
        with pytest.raises(dataclasses.FrozenInstanceError):
            preset.seed = 1
    for word in ("Paper:", "Expected:", *config.PRESETS):
        assert word in config.__doc__


@each
def test_claims_are_intervals_with_sources(name):
    experiment = importlib.import_module(f"experiments.{name}.experiment").EXPERIMENT
    assert experiment.name == name
    assert set(experiment.claims) == set(experiment.presets)
    for claims in experiment.claims.values():
        assert claims
        for claim in claims:
            assert claim.low < claim.high and math.isfinite(claim.low) and math.isfinite(claim.high)
            assert claim.paper is None or claim.source


@each
def test_own_commands_and_weights_are_announced(name):
    config = importlib.import_module(f"experiments.{name}.config")
    experiment = importlib.import_module(f"experiments.{name}.experiment").EXPERIMENT
    own = getattr(config, "COMMANDS", {})
    assert set(own) == set(experiment.commands) and not set(own) & set(COMMANDS)
    assert set(experiment.weights) <= set(experiment.presets)


@each
def test_help_answers_without_jax(name):
    """Counting what is loaded, not seconds: the interpreter and tyro alone take 0.3 s."""
    for arguments in (["--help"], ["reproduce", "--help"], ["train", "paper", "--help"]):
        run = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", f"experiments.{name}", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0 and run.stdout.strip()
        loaded = set(re.findall(r"\| +(\w+)", run.stderr))
        assert "tyro" in loaded or arguments == ["--help"]
        assert not loaded & {"jax", "jaxlib", "flax", "scipy", "ase", "matplotlib"}


@each
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["reproduce", "smoke", "--sede", "1"], "perhaps you meant --seed"),
        (["reproduce", "smoke", "--seed", "one"], "invalid literal"),
        (["reproduce", "smok"], "perhaps you meant smoke"),
        (["reprodcue"], "perhaps you meant reproduce"),
    ],
)
def test_a_typo_is_one_line(name, arguments, message, capsys):
    assert command(name, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@each
def test_a_job_is_written_for_every_preset(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # no defaults of a site
    for preset in ("smoke", "default", "paper"):
        folder = tmp_path / preset
        words = ("--dry-run", "--time", "04:00:00", "--partition", "long", "--run-dir", folder)
        assert command(name, "submit", preset, *words) == 0
        out = capsys.readouterr().out
        assert (folder / "submit.sh").read_text() == out
        assert "#SBATCH --time=04:00:00" in out and "#SBATCH --partition=long" in out
        assert f"-m experiments.{name} reproduce {preset} --run-dir {folder} &" in out
        subprocess.run(["bash", "-n", str(folder / "submit.sh")], check=True)


@pytest.fixture(scope="module", params=NAMES)
def smoke(request, tmp_path_factory):
    """Reproduce the smoke preset once; return name, folder and exit code."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    return request.param, folder, command(request.param, "reproduce", "smoke", "--run-dir", folder)


@pytest.mark.slow
def test_smoke_keeps_its_claims(smoke):
    _, folder, code = smoke
    assert code == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["claims"] and all(claim["holds"] for claim in results["claims"])
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert all(math.isfinite(value) for value in json.loads(line).values())


@pytest.mark.slow
def test_figures_draw_from_the_files_alone(smoke, monkeypatch):
    name, folder, _ = smoke
    drawn = sorted((folder / "figures").iterdir())
    assert drawn
    before = [path.read_bytes() for path in drawn]
    for path in drawn:
        path.unlink()
    module = importlib.import_module(f"experiments.{name}.experiment")
    refuse = {"load": None, "objective": None, "evaluate": None}
    monkeypatch.setattr(module, "EXPERIMENT", module.EXPERIMENT._replace(**refuse))
    assert command(name, "figures", "smoke", "--run-dir", folder) == 0
    assert [path.read_bytes() for path in drawn] == before


@pytest.mark.slow
def test_a_finished_fit_is_kept_and_a_broken_claim_exits_with_1(smoke, monkeypatch, capsys):
    name, folder, _ = smoke
    before = (folder / "results.json").read_text()
    metrics = (folder / "metrics.jsonl").stat().st_mtime_ns
    module = importlib.import_module(f"experiments.{name}.experiment")
    first, *others = module.EXPERIMENT.claims["smoke"]
    broken = (first._replace(low=first.high + 1, high=first.high + 2), *others)
    claims = {**module.EXPERIMENT.claims, "smoke": broken}
    monkeypatch.setattr(module, "EXPERIMENT", module.EXPERIMENT._replace(claims=claims))
    assert command(name, "reproduce", "smoke", "--run-dir", folder) == 1
    out, err = capsys.readouterr()
    assert "OUTSIDE" in out and "finished and kept" in err
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == metrics
    again = json.loads((folder / "results.json").read_text())["numbers"]
    assert again == json.loads(before)["numbers"]  # bit-identical
