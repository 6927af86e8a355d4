"""Networks by gradient descent: the optimiser, and the objective of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from physml.errors import ConfigError
from physml.train import Batch, Metrics, Objective, TrainState, in_batches

Loss = Callable[[Any, Batch, Any], tuple[Any, Metrics]]
"""(params, batch, PRNG key) -> (mean loss of the batch, further metrics)."""

PerRow = Callable[[Any, Batch], Mapping[str, Any]]
"""(params, batch) -> name -> array with one value per row; "loss" is one of them."""


@dataclass(frozen=True)
class Descent:
    """Options of a fit by gradient descent."""

    steps: int = 1000  # optimiser steps
    batch_size: int = 64  # rows per step, over all devices
    learning_rate: float = 1e-3  # the highest of the schedule
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup: float = 0.05  # share of the steps in which the rate rises from 0
    plateau: int = 100  # steps without a better mean loss before the rate is halved
    weight_decay: float = 0.0  # of AdamW
    clip: float = 1.0  # largest norm of the gradient
    accumulate: int = 1  # batches whose mean gradient makes one update
    evaluate_every: int = 0  # steps between evaluations and checkpoints; 0: at the end only
    patience: int = 0  # evaluations without a better one before it stops early; 0: never


def check(options: Descent) -> None:
    """Refuse options out of range.

    Raises:
        ConfigError: names the option and the range.
    """
    ranges = {
        "steps": (1, 10**9), "batch_size": (1, 10**7), "learning_rate": (1e-12, 10.0),
        "warmup": (0.0, 0.99), "plateau": (1, 10**9), "weight_decay": (0.0, 10.0),
        "clip": (1e-12, 1e12), "accumulate": (1, 10**6), "evaluate_every": (0, 10**9),
        "patience": (0, 10**6),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        if not low <= getattr(options, name) <= high:
            option = f"--descent.{name.replace('_', '-')}"
            raise ConfigError(option, f"is {getattr(options, name)}", f"give {low:g} to {high:g}")
    if options.patience and not options.evaluate_every:
        what = "needs evaluations to count"
        raise ConfigError("--descent.patience", what, "give --descent.evaluate-every too")


def optimizer(options: Descent) -> optax.GradientTransformationExtraArgs:
    """AdamW with clipped gradients and a schedule; `update` takes the loss as `value`.

    Decoupled weight decay: Loshchilov and Hutter, arXiv 1711.05101. With `accumulate` > 1 the
    mean gradient of that many batches makes one update, and steps of the schedule are updates.
    """
    updates = max(options.steps // options.accumulate, 1)
    warmup = int(options.warmup * updates)
    rate = options.learning_rate
    if options.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, updates)
    else:
        schedule = optax.linear_schedule(0.0, rate, warmup) if warmup else rate
    chain = [
        optax.clip_by_global_norm(options.clip),
        optax.adamw(schedule, weight_decay=options.weight_decay),
    ]
    if options.schedule == "plateau":
        chain.append(optax.contrib.reduce_on_plateau(0.5, 1, accumulation_size=options.plateau))
    transform = optax.chain(*chain)
    if options.accumulate > 1:
        # Its own gradient_transformation() would drop the loss, which the plateau needs.
        several = optax.MultiSteps(transform, options.accumulate)
        return optax.GradientTransformationExtraArgs(several.init, several.update)
    return optax.with_extra_args_support(transform)


def objective(
    options: Descent, init: Callable[[Any, Batch], Any], loss: Loss, per_row: PerRow
) -> Objective:
    """An objective that lowers a loss by gradient descent.

    Args:
        options: of the optimiser and of the loop.
        init: (PRNG key, train split) -> params.
        loss: see `Loss`; its key is fold_in(key of the fit, step).
        per_row: see `PerRow`; its means over the validation split are the metrics there.

    Raises:
        ConfigError: an option is out of range.
    """
    check(options)
    descent = optimizer(options)

    def begin(key: Any, train: Batch) -> TrainState:
        params_key, step_key = jax.random.split(key)
        params = init(params_key, train)
        return TrainState(params, descent.init(params), jnp.int32(0), step_key)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        (value, metrics), slope = jax.value_and_grad(loss, has_aux=True)(state.params, batch, key)
        updates, opt_state = descent.update(slope, state.opt_state, state.params, value=value)
        params = optax.apply_updates(state.params, updates)
        after = TrainState(params, opt_state, state.step + 1, state.key)
        return after, {"loss": value, "gradient_norm": optax.tree.norm(slope), **metrics}

    jitted = jax.jit(per_row)

    def evaluate(state: TrainState, rows: Batch) -> Metrics:
        found = in_batches(partial(jitted, state.params), rows, options.batch_size)
        return {name: np.mean(values, dtype=np.float64) for name, values in found.items()}

    return Objective(
        begin, step, evaluate, options.steps, options.batch_size, options.evaluate_every,
        options.patience,
    )  # fmt: skip
