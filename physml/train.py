"""The one training loop: an objective is three functions, `fit` never asks what it trains.

A linear fit is an objective whose fit is one step on all rows; a network takes many steps on
batches of rows. Batches and random keys are pure functions of (seed, step), so a fit that was
stopped goes on bit-identically (on CPU): its checkpoint holds the whole state, and its log is cut
back to the step of the checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml import checkpoint
from physml.errors import ConfigError, DataError, TrainingError
from physml.processes import gather, tasks, writes
from physml.progress import progress
from physml.record import log_place, open_log, write_metrics
from physml.sharing import stepper
from physml.signals import NEVER, Stop, Stopped

Batch = Mapping[str, Any]
"""Name -> array; rows along the first axis when the objective works in batches."""

Splits = Mapping[str, Batch]
"""Split name -> arrays. "train" is what `fit` sees; "validation" and "test" are held out."""

Metrics = Mapping[str, Any]
"""Name -> scalar; every one must be finite."""

Judge = Callable[[int, float], bool]
"""(step, monitored value) after each evaluation -> whether the fit is hopeless and ends here."""


class TrainState(NamedTuple):
    """All that a fit carries from step to step; every leaf is an array."""

    params: Any  # nested dict of arrays
    opt_state: Any = ()  # of the optimiser, empty for a fit in one step
    step: Any = 0  # steps done
    key: Any = ()  # PRNG key, uint32 (2,); step k draws from fold_in(key, k)


class Objective(NamedTuple):
    """What is fitted and how. `init` and `step` are pure; `evaluate` runs on the host."""

    init: Callable[[Any, Batch], TrainState]  # (PRNG key, train split) -> state before step 1
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState, Batch], Metrics]  # on the validation split, changes nothing
    steps: int = 1
    batch_size: int | None = None  # None: every step sees the whole train split
    evaluate_every: int = 0  # steps between evaluations and checkpoints; 0: after the last only
    patience: int = 0  # evaluations without a better one before it stops early; 0: never
    monitor: str = "loss"  # metric of `evaluate` whose smallest value is the best
    compiled: bool = True  # jit `step`, and run it on all local devices; False: it is host code


class Fit(NamedTuple):
    """Where a fit stands."""

    state: TrainState  # after the last step taken
    best: TrainState  # at the best evaluation; the same as `state` without a validation split
    finished: bool  # False: it was asked to stop, and the same call goes on


class Place(NamedTuple):
    """What a checkpoint notes beside the state, to go on as if nothing had happened."""

    best: float | None = None  # smallest value of the monitored metric
    best_step: int | None = None
    log_bytes: int = 0  # length of the log
    log_sha256: str = ""
    finished: bool = False
    unevaluated: bool = False  # the evaluation after the last step was broken off


def fit(
    objective: Objective,
    splits: Splits,
    seed: int,
    folder: Path | None = None,
    origin: Mapping[str, Any] | None = None,
    stop: Stop = NEVER,
    judge: Judge = lambda step, value: False,
) -> Fit:
    """Take all steps of an objective, or those that are left of them.

    Of several processes, each takes its share of the rows of a batch, and one writes.

    Args:
        objective: what to fit.
        splits: see `Splits`; with a "validation" split the best evaluation is kept.
        seed: of the initial state, the order of the batches and all random keys, 0 <= seed < 2^32.
        folder: gets metrics.jsonl and checkpoints/; a fit begun there goes on. None: keep nothing.
        origin: noted in every checkpoint: what the fit depends on.
        stop: asked after every step and within evaluations; once it says so, the fit saves itself
            and returns unfinished. An evaluation that was broken off is made again.
        judge: see `Judge`.

    Raises:
        TrainingError: a metric is not finite (names the step and its rows; the checkpoints before
            it stay), batches change their shape and would compile the step again, or processes
            find different checkpoints.
        ConfigError: the batch size does not fit the train split, or the fit in the folder has
            another seed.
        DataError: no checkpoint in the folder can be read, the best one is missing, or they belong
            to another model.
    """
    train, alone = splits["train"], tasks() == 1
    with contextlib.ExitStack() as opened:
        first = opened.enter_context(contextlib.ExitStack())  # until the first step is done
        first.enter_context(stop.nothing_new())
        at = _begin(objective, train, seed, folder)
        own = folder if writes() else None
        log = opened.enter_context(open_log(own, at.place.log_bytes, at.place.log_sha256))
        about = {"seed": seed, "origin": dict(origin or {})}
        course = _Course(objective, splits.get("validation"), own, log, about, stop, judge)
        advance = stepper(objective, train)
        asked, waiting = False, None
        if at.place.unevaluated:
            first.close()
            at, asked = _pause(course, at, asked)
        for step in () if asked else _steps_left(objective, int(at.state.step), at.place):
            rows = batch_rows(seed, step - 1, train, objective.batch_size)
            state, metrics, told = advance(at.state, rows, not alone and stop.asked())
            first.close()
            at = at._replace(state=state)
            asked = alone and stop.asked()
            if waiting is not None:  # read one step late, so that the device need not wait for us
                asked |= _noted(log, waiting)
            waiting = _Taken(step, metrics, rows, told)
            if not _due(objective, step) and not asked:
                continue
            asked |= _noted(log, waiting)
            waiting = None
            at, asked = _pause(course, at, asked)
            if at.place.finished or asked:
                break
    state = at.state if alone else jax.device_get(at.state)
    return Fit(state, state if at.place.best is None else at.best, at.place.finished)


class _Course(NamedTuple):
    """What stays the same during a fit."""

    objective: Objective
    held_out: Batch | None
    folder: Path | None  # None: this process writes nothing
    log: BinaryIO
    about: Mapping[str, Any]  # noted in checkpoints
    stop: Stop
    judge: Judge


class _Standing(NamedTuple):
    """What changes with the steps."""

    state: TrainState
    best: TrainState
    place: Place


class _Taken(NamedTuple):
    """A step that the device may still be at."""

    step: int
    metrics: Metrics
    rows: np.ndarray | None
    told: Any  # whether a process has been asked to stop, as all processes know it


def _noted(log: BinaryIO, taken: _Taken) -> bool:
    """Wait for a step and log its metrics; True when a process had been asked to stop."""
    write_metrics(log, *_checked(*taken[:3]))
    return bool(taken.told)


def _begin(objective: Objective, train: Batch, seed: int, folder: Path | None) -> _Standing:
    """The initial state, or the latest and the best one in the folder."""
    state = objective.init(jax.random.PRNGKey(seed), train)
    # Under jit, Python numbers would be weakly typed in the first step and compile it twice.
    state = jax.device_get(jax.tree.map(jnp.asarray, state) if objective.compiled else state)
    found = checkpoint.latest(folder / "checkpoints", "step") if folder else None
    steps = gather(-1 if found is None else int(found.tree["step"]))
    if (steps != steps[0]).any():
        what = "is not the same for all processes"
        raise TrainingError(folder, what, "give a folder that all nodes share, or start again")
    if folder is None or found is None:
        return _Standing(state, state, Place())
    if found.metadata["seed"] != seed:
        what = f"is of seed {found.metadata['seed']}, not {seed}"
        raise ConfigError(found.path, what, "use its seed, or another folder")
    place, latest = Place(**found.metadata["place"]), checkpoint.into(state, found)
    if place.best_step is None:
        return _Standing(latest, latest, place)
    path = _path(folder, "best", place.best_step)
    if not path.exists():  # an earlier one would not be the best, and could not be told from it
        raise DataError(path, "is missing", "restore it, or move the folder away and fit again")
    best = checkpoint.latest(path.parent, "best", place.best_step)
    return _Standing(latest, checkpoint.into(state, best) if best else latest, place)


def _pause(course: _Course, at: _Standing, asked: bool) -> tuple[_Standing, bool]:
    """Evaluate where that is due, and save; the second value says whether to stop here."""
    objective, (state, best, place) = course.objective, at
    step, judged = int(state.step), False
    if course.held_out is not None and _due(objective, step):
        value = _evaluated(course, course.held_out, state, step, asked)
        asked = value is None
        place = place._replace(unevaluated=asked)
        if value is not None:
            if place.best is None or value < place.best:
                place = place._replace(best=value, best_step=step)
                best = jax.device_get(state)
                _save(course.folder, "best", best, {"step": step})
            judged = bool(gather(course.judge(step, value))[0])
    ends = step == objective.steps or judged or _hopeless(objective, step, place)
    place = place._replace(finished=ends and not place.unevaluated, **log_place(course.log))
    _save(course.folder, "step", state, {"place": place._asdict(), **course.about})
    gather(step)  # until it is saved, no process leaves, for srun would end the others with it
    return _Standing(state, best, place), asked or (tasks() == 1 and course.stop.asked())


def _save(folder: Path | None, kind: str, state: TrainState, metadata: Mapping[str, Any]) -> None:
    """Write checkpoints/KIND-STEP and keep the two latest of a kind."""
    if folder is not None:
        path = _path(folder, kind, int(state.step))
        checkpoint.save(path, state, metadata)
        checkpoint.prune(path.parent, kind, keep=2)


def _path(folder: Path, kind: str, step: int) -> Path:
    return folder / "checkpoints" / f"{kind}-{step:08d}"


def _steps_left(objective: Objective, begin: int, place: Place) -> Iterator[int]:
    if objective.steps < 1:
        raise ConfigError("steps", f"are {objective.steps}", "give 1 or more")
    if not place.finished:
        todo = range(begin + 1, objective.steps + 1)
        yield from progress(todo, "fit", objective.steps, done=begin)


def batch_rows(seed: int, step: int, train: Batch, batch_size: int | None) -> np.ndarray | None:
    """Rows of the batch of a step (counted from 0): a pure function of its arguments.

    Each epoch is a fresh permutation; rows left over at its end wait for a later epoch.
    Returns None for "all rows".

    Raises:
        ConfigError: the batch is empty or larger than the split.
    """
    if batch_size is None:
        return None
    n_rows = len(next(iter(train.values())))
    if not 0 < batch_size <= n_rows:
        raise ConfigError(
            "batch_size", f"{batch_size} does not fit {n_rows} training rows", f"use 1 to {n_rows}"
        )
    epoch, place = divmod(step, n_rows // batch_size)
    return _order(seed, epoch, n_rows)[place * batch_size : (place + 1) * batch_size]


@functools.lru_cache(maxsize=1)
def _order(seed: int, epoch: int, n_rows: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n_rows)


def in_batches(
    function: Callable[[Batch], Mapping[str, Any]], arrays: Batch, size: int
) -> dict[str, np.ndarray]:
    """Apply a jitted function to rows, always `size` at a time, and join what it returns.

    Args:
        function: batch -> name -> array with one row per row of the batch.
        arrays: name -> array (n, ...), n >= 1.
        size: rows per call; the last call is filled up with copies of the last row.

    Returns:
        Name -> array (n, ...).
    """
    n_rows = len(next(iter(arrays.values())))
    found: list[dict[str, np.ndarray]] = []
    for start in range(0, n_rows, size):
        rows = np.minimum(np.arange(start, start + size), n_rows - 1)
        part = function({name: array[rows] for name, array in arrays.items()})
        kept = min(size, n_rows - start)
        found.append({name: np.asarray(values)[:kept] for name, values in part.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _due(objective: Objective, step: int) -> bool:
    every = objective.evaluate_every
    return step == objective.steps or (every > 0 and step % every == 0)


def _hopeless(objective: Objective, step: int, place: Place) -> bool:
    if not objective.patience or place.best_step is None:
        return False
    return step - place.best_step >= objective.patience * objective.evaluate_every


def _evaluated(
    course: _Course, split: Batch, state: TrainState, step: int, asked: bool
) -> float | None:
    """Log the metrics on held-out rows and return the monitored one; None when it was broken off.

    Every process evaluates all rows; the value of the first counts.
    """
    monitor, values = course.objective.monitor, None
    with contextlib.suppress(Stopped), course.stop.at_once():
        if not asked:
            own = state if tasks() == 1 else jax.device_get(state)
            _, values = _checked(step, course.objective.evaluate(own, split), None)
    if values is not None and monitor not in values:
        what, remedy = f"{monitor} is not evaluated", f"use {', '.join(values)}"
        raise ConfigError("monitor", what, remedy)
    found = gather(math.nan if values is None else values[monitor])
    if values is None or np.isnan(found).any():
        return None
    write_metrics(course.log, step, {f"validation_{name}": v for name, v in values.items()})
    return float(found[0])


def _checked(step: int, metrics: Metrics, rows: np.ndarray | None) -> tuple[int, dict[str, float]]:
    values = {name: float(value) for name, value in metrics.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        batch = "all rows" if rows is None else f"rows {rows[:8].tolist()}..."
        raise TrainingError(
            f"step {step}",
            f"{', '.join(bad)} not finite on {batch}",
            "check the data, or lower the learning rate",
        )
    return step, values
