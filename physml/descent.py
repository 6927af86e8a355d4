"""Networks by gradient descent: the optimiser, and the objective of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from physml.options import Descent, check_descent
from physml.train import Batch, Metrics, Objective, TrainState, in_batches

Loss = Callable[[Any, Batch, Any], tuple[Any, Metrics]]
"""(params, batch, PRNG key) -> (mean loss of the batch, further metrics)."""

PerRow = Callable[[Any, Batch], Mapping[str, Any]]
"""(params, batch) -> name -> array with one value per row; "loss" is one of them."""


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
    check_descent(options)
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
