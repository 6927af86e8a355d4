"""What runs are doing, and what they came to, from their folders alone.

    python -m experiments.NAME status [RUN_DIRS...]

| state    | meaning                                                                       |
| -------- | ----------------------------------------------------------------------------- |
| running  | a process holds the folder's lock                                             |
| done     | the last command came to its end                                              |
| stopped  | by SIGTERM or Ctrl-C, and saved; the same command goes on                     |
| failed   | with the error that is shown                                                  |
| killed   | it ended without a word (SIGKILL, out of memory, power); the same command     |
|          | goes on from the last checkpoint                                              |
| damaged  | a file of it cannot be read                                                   |
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from physml import folder, record
from physml.errors import DataError
from physml.io.manifest import read_json

LONGEST = 60  # characters of a label


class Run(NamedTuple):
    """What a run's folder says."""

    path: Path
    state: str
    step: int
    steps: int | None  # as the config says; a fit may end before
    metric: str  # the one shown
    value: float | None
    why: str
    config: Mapping[str, Any]
    log: Mapping[str, np.ndarray]


def show(paths: Sequence[Path], home: Path) -> None:
    """Print the table of runs, or of all runs in `home`, and draw their learning curves.

    Raises:
        DataError: a folder holds no run.
    """
    runs = [read(path) for path in _runs(paths or [home])]
    if not runs:
        raise DataError(home, "holds no run", "name run folders")
    root = Path(os.path.commonpath([run.path.absolute() for run in runs]))
    width = max(len(_named(run.path, root)) for run in runs)
    print(f"{'run':{width}s}  {'state':8s} {'step':>13s}  {'last value':>10s}  metric")
    for run in runs:
        step = f"{run.step} of {run.steps}" if run.steps else str(run.step)
        value = "-" if run.value is None else f"{run.value:.5g}"
        name = f"{_named(run.path, root):{width}s}"
        told = "; ".join(text for text in (run.metric, run.why) if text)
        print(f"{name}  {run.state:8s} {step:>13s}  {value:>10s}  {told}")
    _draw(runs, root)


def _named(path: Path, root: Path) -> str:
    """The path below what all have in common."""
    return os.path.relpath(path, root) if path.absolute() != root else path.name


def _runs(paths: Sequence[Path]) -> list[Path]:
    """Run folders among the paths and right below them; trials of sweeps below those.

    Raises:
        DataError: one is no folder, or holds none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise DataError(path, "is no folder", "name run folders")
        if (path / "config.json").exists():
            found.append(path)
            continue
        below = sorted(p for p in path.iterdir() if p.is_dir())
        sweeps = [p for p in (path, *below) if (p / "sweep.json").exists()]
        own = [p for p in below if (p / "config.json").exists() and path not in sweeps]
        trials = [config.parent for p in sweeps for config in _configs(p)]
        if not own and not trials:
            raise DataError(path, "holds no run", "name run folders")
        found += [*own, *trials]
    return found


def _configs(sweep: Path) -> list[Path]:
    """Of the trials of a sweep, and of their folds."""
    return sorted([*sweep.glob("trial-*/config.json"), *sweep.glob("trial-*/fold-*/config.json")])


def read(path: Path) -> Run:
    """What the folder of a run says."""
    try:
        return _read(path)
    except DataError as error:
        return Run(path, "damaged", 0, None, "", None, str(error), {}, {})


def _read(path: Path) -> Run:
    config = read_json(path / "config.json")
    noted = read_json(path / "status.json") if (path / "status.json").exists() else {}
    state, why = str(noted.get("state", "done")), str(noted.get("why", ""))
    if not folder.free(path):
        state, why = "running", " ".join(str(noted[k]) for k in ("host", "job") if k in noted)
    elif state == "running":
        state, why = "killed", "ended without a word; the same command goes on"
    log = record.read_metrics(path)
    step = int(max((rows[-1, 0] for rows in log.values()), default=0))
    held_out = [name for name in log if name.startswith("validation_")]
    metric = next(iter(sorted(held_out, key=lambda name: name != "validation_loss")), "")
    metric = metric or next(iter(log), "")
    value = float(log[metric][-1, 1]) if metric else None
    parts = (part for part in config.values() if isinstance(part, dict))
    steps = next((part["steps"] for part in parts if "steps" in part), None)
    return Run(path, state, step, steps, metric, value, why, config, log)


def _draw(runs: Sequence[Run], root: Path) -> None:
    """Curves of the metric that most runs show; runs that differ in the seed alone are a group."""
    from physml import plots
    from physml.plots.runs import spread

    shown = [run.metric for run in runs if run.metric and len(run.log[run.metric]) > 1]
    if not shown:
        return
    metric = max(set(shown), key=shown.count)
    drawn = [run for run in runs if metric in run.log]
    groups: dict[str, list[np.ndarray]] = {}
    for run, label in zip(drawn, _labels(drawn, root), strict=True):
        groups.setdefault(label, []).append(run.log[metric])
    path = root / "status.png"
    plots.save(spread(groups, metric), path)
    print(f"learning curves in {path}", file=sys.stderr)


def _labels(runs: Sequence[Run], root: Path) -> list[str]:
    """The options that differ between runs, without the seed; folders where those are many."""
    flat = [_flat({k: v for k, v in run.config.items() if k != "seed"}) for run in runs]
    names = sorted({name for options in flat for name in options})
    differ = [n for n in names if len({json.dumps(options.get(n)) for options in flat}) > 1]
    labels = [", ".join(f"{n}={options.get(n)}" for n in differ) for options in flat]
    first: dict[str, str] = {}
    for label, run in zip(labels, runs, strict=True):
        first.setdefault(label, _named(run.path, root))
    short = all(0 < len(label) <= LONGEST for label in labels)
    return [label if short else first[label] for label in labels]


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= inner if inner is not None else {f"{prefix}{name}": value}
    return found
