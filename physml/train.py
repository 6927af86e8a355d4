"""The one training loop: an objective is three pure functions, `fit` never asks which.

A linear fit is an objective whose fit is one step on all rows; a network takes many steps on
batches of rows. Batches are a pure function of (seed, step), so no data position has to be saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from physml.errors import ConfigError, TrainingError
from physml.progress import progress

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
    key: Any = ()  # PRNG key, uint32 (2,)


class Objective(NamedTuple):
    """What is fitted and how, as pure functions."""

    init: Callable[[Any, Batch], TrainState]  # (PRNG key, train split) -> state before step 1
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState, Batch], Metrics]  # on held-out rows, changes nothing
    steps: int = 1
    batch_size: int | None = None  # None: every step sees the whole train split


def fit(
    objective: Objective,
    splits: Splits,
    seed: int,
    log: Callable[[Mapping[str, Any]], None] = lambda record: None,
) -> TrainState:
    """Run all steps of an objective and evaluate it on the validation split, when there is one.

    Args:
        objective: what to fit.
        splits: see `Splits`.
        seed: of the initial state and of the order of the batches, 0 <= seed < 2^32.
        log: called with one record per step: {"step", metrics...}; after the last step once more
            with {"step", "validation_..."}.

    Raises:
        TrainingError: a metric is not finite; the message names the step and its rows.
        ConfigError: the batch size does not fit the train split.
    """
    train = splits["train"]
    state = objective.init(jax.random.PRNGKey(seed), train)
    for step in progress(range(objective.steps), "fit"):
        rows = batch_rows(seed, step, train, objective.batch_size)
        batch = train if rows is None else {name: array[rows] for name, array in train.items()}
        state, metrics = objective.step(state, batch)
        record = _finite(metrics, step + 1, rows)
        log({"step": step + 1, **record})
    if "validation" in splits:
        held_out = _finite(objective.evaluate(state, splits["validation"]), objective.steps, None)
        log({"step": objective.steps, **{f"validation_{k}": v for k, v in held_out.items()}})
    return state


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
    order = np.random.default_rng([seed, epoch]).permutation(n_rows)
    return order[place * batch_size : (place + 1) * batch_size]


def _finite(metrics: Metrics, step: int, rows: np.ndarray | None) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        batch = "all rows" if rows is None else f"rows {rows[:8].tolist()}..."
        raise TrainingError(
            f"step {step}",
            f"{', '.join(bad)} not finite on {batch}",
            "check the data, or lower the learning rate",
        )
    return values
