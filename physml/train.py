"""The one training loop: an objective is three functions, `fit` never asks what it trains.

A linear fit is an objective whose fit is one step on all rows; a network takes many steps on
batches of rows. Batches and random keys are pure functions of (seed, step), so a fit that was
stopped goes on bit-identically (on CPU): its checkpoint holds the whole state, and its log is cut
back to the step of the checkpoint.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from physml import checkpoint
from physml.errors import ConfigError, DataError, TrainingError
from physml.progress import progress
from physml.record import log_place, open_log, write_metrics

Batch = Mapping[str, Any]
"""Name -> array; rows along the first axis when the objective works in batches."""

Splits = Mapping[str, Batch]
"""Split name -> arrays. "train" is what `fit` sees; "validation" and "test" are held out."""

Metrics = Mapping[str, Any]
"""Name -> scalar; every one must be finite."""


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


def fit(
    objective: Objective,
    splits: Splits,
    seed: int,
    folder: Path | None = None,
    origin: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Fit:
    """Take all steps of an objective, or those that are left of them.

    Args:
        objective: what to fit.
        splits: see `Splits`; with a "validation" split the best evaluation is kept.
        seed: of the initial state, the order of the batches and all random keys, 0 <= seed < 2^32.
        folder: gets metrics.jsonl and checkpoints/; a fit begun there goes on. None: keep nothing.
        origin: noted in every checkpoint: what the fit depends on.
        stop: asked after every step; once True, the fit saves itself and returns unfinished.

    Raises:
        TrainingError: a metric is not finite (names the step and its rows; the checkpoints before
            it stay), or batches change their shape and would compile the step again.
        ConfigError: the batch size does not fit the train split, or the fit in the folder has
            another seed.
        DataError: no checkpoint in the folder can be read, the best one is missing, or they belong
            to another model.
    """
    train, held_out = splits["train"], splits.get("validation")
    state, best, place = _begin(objective, train, seed, folder)
    advance = _stepper(objective, train)
    with open_log(folder, place.log_bytes, place.log_sha256) as log:
        waiting = None
        for step in _steps_left(objective, int(state.step), place):
            rows = batch_rows(seed, step - 1, train, objective.batch_size)
            state, metrics = advance(state, rows)
            if waiting is not None:  # read one step late, so that the device need not wait for us
                write_metrics(log, *_checked(*waiting))
            waiting = step, metrics, rows
            due, asked = _due(objective, step), stop()
            if not due and not asked:
                continue
            write_metrics(log, *_checked(*waiting))
            waiting = None
            if due and held_out is not None:
                value = _evaluated(objective, state, held_out, step, log)
                if place.best is None or value < place.best:
                    place = place._replace(best=value, best_step=step)
                    best = jax.device_get(state)
                    _save(folder, "best", best, {"step": step})
            finished = step == objective.steps or _hopeless(objective, step, place)
            place = place._replace(finished=finished, **log_place(log))
            about = {"place": place._asdict(), "seed": seed, "origin": dict(origin or {})}
            _save(folder, "step", state, about)
            if finished or asked:
                break
    return Fit(state, state if place.best is None else best, place.finished)


def _begin(
    objective: Objective, train: Batch, seed: int, folder: Path | None
) -> tuple[TrainState, TrainState, Place]:
    """The initial state, or the latest and the best one in the folder."""
    state = objective.init(jax.random.PRNGKey(seed), train)
    # Under jit, Python numbers would be weakly typed in the first step and compile it twice.
    state = jax.device_get(jax.tree.map(jnp.asarray, state) if objective.compiled else state)
    found = checkpoint.latest(folder / "checkpoints", "step") if folder else None
    if folder is None or found is None:
        return state, state, Place()
    if found.metadata["seed"] != seed:
        what = f"is of seed {found.metadata['seed']}, not {seed}"
        raise ConfigError(found.path, what, "use its seed, or another folder")
    place, latest = Place(**found.metadata["place"]), checkpoint.into(state, found)
    if place.best_step is None:
        return latest, latest, place
    path = _path(folder, "best", place.best_step)
    if not path.exists():  # an earlier one would not be the best, and could not be told from it
        raise DataError(path, "is missing", "restore it, or move the folder away and fit again")
    best = checkpoint.latest(path.parent, "best", place.best_step)
    return latest, checkpoint.into(state, best) if best else latest, place


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


def _stepper(objective: Objective, train: Batch) -> Callable[..., tuple[TrainState, Metrics]]:
    """(state, rows) -> (state, metrics); compiled once, the batch spread over all local devices."""
    if not objective.compiled:
        return lambda state, rows: objective.step(state, _take(train, rows))
    mesh = jax.sharding.Mesh(np.array(_sharing(objective.batch_size)), ("rows",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    step = jax.jit(_once(objective.step), out_shardings=everywhere, donate_argnums=0)
    whole = jax.device_put(dict(train), everywhere) if objective.batch_size is None else None

    def advance(state: TrainState, rows: np.ndarray | None) -> tuple[TrainState, Metrics]:
        batch = whole if rows is None else jax.device_put(_take(train, rows), spread)
        return cast("tuple[TrainState, Metrics]", step(jax.device_put(state, everywhere), batch))

    return advance


def _sharing(batch_size: int | None) -> list[Any]:
    """Local devices that share a batch equally: all, or as many as divide it."""
    devices: list[Any] = list(jax.local_devices())
    if batch_size is None:
        return devices
    count = next(k for k in range(len(devices), 0, -1) if batch_size % k == 0)
    if count < len(devices):
        text = f"a batch of {batch_size} uses {count} of {len(devices)} devices"
        print(f"{text}: give a multiple of {len(devices)}", file=sys.stderr)
    return devices[:count]


def _once(step: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; a second trace of it, which would be a second compilation, is refused."""
    shapes: list[Any] = []

    def traced(state: TrainState, batch: Batch) -> Any:
        shapes.append({name: array.shape for name, array in batch.items()})
        if len(shapes) > 1:
            what = f"would compile again: batches {shapes[0]}, then {shapes[1]}"
            raise TrainingError("training step", what, "give every batch the same shapes and types")
        return step(state, batch)

    return traced


def _take(train: Batch, rows: np.ndarray | None) -> Batch:
    return train if rows is None else {name: array[rows] for name, array in train.items()}


def _due(objective: Objective, step: int) -> bool:
    every = objective.evaluate_every
    return step == objective.steps or (every > 0 and step % every == 0)


def _hopeless(objective: Objective, step: int, place: Place) -> bool:
    if not objective.patience or place.best_step is None:
        return False
    return step - place.best_step >= objective.patience * objective.evaluate_every


def _evaluated(
    objective: Objective, state: TrainState, split: Batch, step: int, log: BinaryIO
) -> float:
    """Log the metrics on held-out rows and return the monitored one."""
    _, values = _checked(step, objective.evaluate(state, split), None)
    if objective.monitor not in values:
        what, remedy = f"{objective.monitor} is not evaluated", f"use {', '.join(values)}"
        raise ConfigError("monitor", what, remedy)
    write_metrics(log, step, {f"validation_{name}": value for name, value in values.items()})
    return values[objective.monitor]


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
