"""Fits with many options, compared: any number of workers share one folder, without a server.

Every trial is a run folder. A worker holds a file lock on the trial that it works on, and the
kernel lets go of it when the worker dies; the next worker then goes on with that trial.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from physml import folder, processes, record
from physml.arguments import Request, configured
from physml.errors import ConfigError, DataError, PhysmlError, TrainingError
from physml.io.manifest import read_json, write_bytes, write_json
from physml.options import Sweep
from physml.search import Plan, plan, proposed, study, trials_of

if TYPE_CHECKING:
    from physml.run import Experiment
    from physml.train import Objective, Splits

ENOUGH = 3  # other trials that the median of `--sweep.prune` needs


def work(request: Request, experiment: Experiment) -> None:
    """Do trials until none is left, or as many as `take` says.

    Raises:
        ConfigError: the folder is of another sweep, or see `plan`.
    """
    from physml import backend

    if processes.tasks() > 1:
        what = f"works on a trial alone, and there are {processes.tasks()} processes"
        raise ConfigError("a sweep", what, "submit it with one task, as an array")
    found = plan(request)
    backend.check(experiment.kernels())
    _begin(found)
    done = 0
    while not request.sweep.take or done < request.sweep.take:
        with _alone(found.home):
            claim = _claimed(found)
        if claim is None and (request.sweep.take or not _waits(found)):
            break
        if claim is None:
            time.sleep(1.0)
            continue
        trial, lock = claim
        with lock:
            result = _tried(found, experiment, trial)
            with _alone(found.home):
                _learned(found, trial, result)
                write_json(trial / "result.json", result)
        done += 1
    with _alone(found.home):
        summarize(found)


def _begin(found: Plan) -> None:
    """Note the sweep in its folder, or compare it with what is noted.

    Raises:
        ConfigError: it is another one.
    """
    sweep = found.request.sweep
    about = {
        "experiment": found.request.package.rpartition(".")[2],
        "preset": found.request.preset,
        "options": found.words({}),
        "over": list(sweep.over),
        "method": sweep.method,
        "trials": found.trials,
        "metric": sweep.metric,
        "maximize": sweep.maximize,
        "folds": sweep.folds,
        "prune": sweep.prune,
    }
    folder.check_writable(found.home)
    found.home.mkdir(parents=True, exist_ok=True)
    with _alone(found.home):
        path = found.home / "sweep.json"
        if not path.exists():
            write_json(path, about)
        noted = read_json(path)
        differ = [name for name, value in about.items() if noted.get(name) != value]
        if differ:
            what = f"is a sweep with other {', '.join(differ)}"
            raise ConfigError(found.home, what, "name another --run-dir")


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Wait until no other worker is in here."""
    with (home / ".sweep-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _claimed(found: Plan) -> tuple[Path, TextIO] | None:
    """A trial that a dead worker has left, or else a new one; and the lock that holds it."""
    begun = trials_of(found.home)
    for trial in begun:
        if not (trial / "result.json").exists() and (lock := _lock(trial)):
            return trial, lock
    if len(begun) >= found.trials:
        return None
    trial = found.home / f"trial-{len(begun):04d}"
    trial.mkdir(exist_ok=True)
    lock = _lock(trial)
    if lock is None or (trial / "trial.json").exists():  # a folder that this node did not see yet
        return None
    if found.request.sweep.method == "bayes":
        number, values = study(found).ask()
    else:
        number, values = len(begun), proposed(found, len(begun))
    write_json(trial / "trial.json", {"number": number, "values": values})
    return trial, lock


def _lock(trial: Path) -> TextIO | None:
    lock = (trial / ".claim").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _waits(found: Plan) -> bool:
    """Whether other workers are at trials that they might yet leave."""
    return any(not (trial / "result.json").exists() for trial in trials_of(found.home))


def _tried(found: Plan, experiment: Experiment, trial: Path) -> dict[str, Any]:
    """Fit and measure; a fit without a valid answer is a result too."""
    values = read_json(trial / "trial.json")["values"]
    request, sweep = found.request, found.request.sweep
    start = time.monotonic()
    try:
        config = configured(request.package, request.preset, found.words(values))
    except ConfigError as error:
        return {"failed": str(error), "seconds": 0.0}
    own = request._replace(command="train", config=config, run_dir=trial, sweep=Sweep())
    try:
        measure = _validated if sweep.folds else _measured
        result = measure(found, experiment, own)
    except TrainingError as error:
        result = {"failed": str(error)}
    return {**result, "seconds": round(time.monotonic() - start, 1)}


def _measured(found: Plan, experiment: Experiment, own: Request) -> dict[str, Any]:
    """One fit; the metric from its log at its best step, or from its evaluation."""
    from physml.run import fitted

    objective, metric = experiment.objective(own.config), found.request.sweep.metric
    pruned: list[int] = []

    def judge(step: int, _value: float) -> bool:
        if found.request.sweep.prune and _hopeless(found, own.run_dir, objective, step):
            pruned.append(step)
        return bool(pruned)

    with folder.held(own):
        with _failing(ConfigError):
            splits = experiment.load(own.config)
            best = fitted(own, experiment, splits, judge)
        log = record.read_metrics(own.run_dir)
        name = metric or f"validation_{objective.monitor}"
        if name in log:
            steps, values = log[name].T
            value = float(values[np.searchsorted(steps, int(best.step))])
        else:
            with _failing(ConfigError, DataError):
                measured = experiment.evaluate(own.config, best, splits)["numbers"]
            value = _finite(name, measured, [*log, *measured])
    ended = {"pruned": pruned[0]} if pruned else {}
    return {"metric": name, "value": value, "step": int(best.step), **ended}


@contextlib.contextmanager
def _failing(*errors: type[PhysmlError]) -> Iterator[None]:
    """Make what is wrong with the options of a trial its own failure, not that of the worker."""
    try:
        yield
    except errors as error:
        raise TrainingError(error.where, error.what, error.remedy) from error


def _finite(name: str, measured: Mapping[str, float], choices: Iterable[str]) -> float:
    """A metric by its name.

    Raises:
        ConfigError: it is not measured.
        TrainingError: it is not finite.
    """
    if name not in measured:
        raise ConfigError("--sweep.metric", f"{name} is not measured", f"use {', '.join(choices)}")
    if not math.isfinite(measured[name]):
        raise TrainingError(name, f"is {measured[name]}", "leave these options out")
    return float(measured[name])


def _hopeless(found: Plan, own: Path, objective: Objective, step: int) -> bool:
    """Whether the best value until a step is above the median of the others at that step."""

    def best(trial: Path) -> float | None:
        rows = record.read_metrics(trial).get(f"validation_{objective.monitor}")
        if rows is None or rows[-1, 0] < step or rows[0, 0] > step:
            return None
        return float(rows[rows[:, 0] <= step, 1].min())

    others = [best(trial) for trial in trials_of(found.home) if trial != own]
    known = [value for value in others if value is not None]
    mine = best(own)
    return mine is not None and len(known) >= ENOUGH and mine > float(np.median(known))


def _validated(found: Plan, experiment: Experiment, own: Request) -> dict[str, Any]:
    """Mean and standard error over folds that keep the experiment's groups whole."""
    with _failing(ConfigError):
        splits = experiment.load(own.config)
    seed, count = int(getattr(own.config, "seed", 0)), found.request.sweep.folds
    parts = folds(experiment, own.config, splits, count, seed)
    values = [_fold(found, experiment, own, *part) for part in parts]
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    name = found.request.sweep.metric or experiment.objective(own.config).monitor
    return {"metric": name, "value": float(np.mean(values)), "error": error, "folds": values}


def folds(
    experiment: Experiment, config: Any, splits: Splits, count: int, seed: int
) -> Iterator[tuple[str, Splits, Mapping[str, Any]]]:
    """Name, splits to fit and rows left out, for each fold; groups stay whole."""
    from physml.linear import grouped_folds

    train = splits["train"]
    n_rows = len(next(iter(train.values())))
    groups = np.arange(n_rows) if experiment.groups is None else experiment.groups(config, splits)
    for k, parts in enumerate(grouped_folds(groups, count, seed)):
        kept, out = ({name: array[rows] for name, array in train.items()} for rows in parts)
        yield f"fold-{k}", {**splits, "train": kept}, out


def _fold(
    found: Plan,
    experiment: Experiment,
    own: Request,
    name: str,
    kept: Splits,
    out: Mapping[str, Any],
) -> float:
    """Fit without a fold, in a run folder within the trial's, and measure on it."""
    from physml.run import fitted

    own = own._replace(run_dir=own.run_dir / name)
    objective = experiment.objective(own.config)
    with folder.held(own):
        with _failing(ConfigError):
            best = fitted(own, experiment, kept)
        measured = objective.evaluate(best, out)
    return _finite(found.request.sweep.metric or objective.monitor, measured, measured)


def _learned(found: Plan, trial: Path, result: Mapping[str, Any]) -> None:
    if found.request.sweep.method == "bayes":
        number = int(read_json(trial / "trial.json")["number"])
        study(found).tell(number, result.get("value"))


def summarize(found: Plan) -> None:
    """Table and figure of the trials that are done; sweep.json then names the best one."""
    from physml import plots
    from physml.plots.runs import trials as drawn

    sweep = found.request.sweep
    rows = [_row(trial) for trial in trials_of(found.home) if (trial / "result.json").exists()]
    valid = [row for row in rows if "value" in row]
    valid.sort(key=lambda row: -row["value"] if sweep.maximize else row["value"])
    metric = valid[0]["metric"] if valid else sweep.metric
    noted = read_json(found.home / "sweep.json")
    if valid:
        best = valid[0]
        words = found.words(best["values"])
        noted["best"] = {"folder": best["trial"], "options": words, "value": best["value"]}
        figure = drawn(
            {a.name: np.array([row["values"][a.name] for row in valid]) for a in found.axes},
            np.array([row["value"] for row in valid]),
            pruned=np.array(["pruned" in row for row in valid]),
            metric=metric,
            log={a.name for a in found.axes if a.log},
            maximize=sweep.maximize,
        )
        (found.home / "figures").mkdir(exist_ok=True)
        plots.save(figure, found.home / "figures" / "sweep.png")
    write_json(found.home / "sweep.json", {**noted, "done": len(rows)})
    table = [_cells(found, row) for row in [*valid, *(r for r in rows if "value" not in r)]]
    names = list(table[0]) if table else []
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(table)
    write_bytes(found.home / "trials.csv", text.getvalue().encode())
    _show(found, table, metric)


def _row(trial: Path) -> dict[str, Any]:
    values = read_json(trial / "trial.json")["values"]
    return {"trial": trial.name, "values": values, **read_json(trial / "result.json")}


def _cells(found: Plan, row: Mapping[str, Any]) -> dict[str, str]:
    """One line of the table."""
    state = "failed" if "failed" in row else "pruned" if "pruned" in row else "done"
    value = "" if "value" not in row else f"{row['value']:.6g}"
    error = "" if "error" not in row else f"{row['error']:.2g}"
    options = {a.name: row["values"][a.name] for a in found.axes}
    cells = {"trial": row["trial"], **options, "value": value, "error": error, "state": state}
    return {**cells, "seconds": f"{row['seconds']:g}", "why": str(row.get("failed", ""))}


def _show(found: Plan, table: list[dict[str, str]], metric: str) -> None:
    sweep, request = found.request.sweep, found.request
    order = "largest" if sweep.maximize else "smallest"
    print(
        f"{len(table)} of {found.trials} trials are done; {metric or 'none valid'}, {order} first"
    )
    for cells in [{name: name for name in table[0]}, *table] if table else []:
        print("  ".join(f"{cell[:24]:>10s}" for name, cell in cells.items() if name != "why"))
    print(f"table, figure and best trial in {found.home}", file=sys.stderr)
    if table and table[0]["value"] and not sweep.folds:
        command = f"python -m {request.package} evaluate {request.preset} --run-dir {found.home}"
        print(f"the best trial: {command}", file=sys.stderr)
