"""A step compiled once, its batch shared by all devices of all processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np

from physml.errors import ConfigError, TrainingError
from physml.processes import tasks

if TYPE_CHECKING:
    from physml.train import Batch, Metrics, Objective, TrainState


def stepper(objective: Objective, train: Batch) -> Callable[..., tuple[TrainState, Metrics, Any]]:
    """(state, rows, asked to stop) -> (state, metrics, whether any process is asked to stop).

    Compiled once, the batch spread over all devices of all processes.
    """
    if not objective.compiled:
        return lambda state, rows, asked: (*objective.step(state, _take(train, rows)), False)
    mesh = jax.sharding.Mesh(np.array(_sharing(objective.batch_size)), ("rows",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    together = _together(objective.step) if tasks() > 1 else _once(objective.step)
    step = jax.jit(together, out_shardings=everywhere, donate_argnums=0)
    whole = jax.device_put(dict(train), everywhere) if objective.batch_size is None else None

    def advance(
        state: TrainState, rows: np.ndarray | None, asked: bool
    ) -> tuple[TrainState, Metrics, Any]:
        batch = whole if rows is None else _spread(train, rows, spread)
        state = jax.device_put(state, everywhere)
        if tasks() == 1:
            return *step(state, batch), False
        told = jax.make_array_from_callback(
            (mesh.size,), spread, lambda index: np.array([asked], np.int32)
        )
        return cast("tuple[TrainState, Metrics, Any]", step(state, batch, told))

    return advance


def _together(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that also tells every process whether one of them is asked to stop."""
    once = _once(step)
    return lambda state, batch, asked: (*once(state, batch), asked.sum())


def _spread(train: Batch, rows: np.ndarray, sharding: Any) -> Batch:
    """The rows of a batch as global arrays; a process reads only those of its own devices."""

    def share(array: Any) -> Any:
        def part(place: Any) -> Any:
            return array[rows[place[0]]]

        return jax.make_array_from_callback((len(rows), *array.shape[1:]), sharding, part)

    return {name: share(array) for name, array in train.items()}


def _sharing(batch_size: int | None) -> list[Any]:
    """Devices that share a batch equally: all, or of one process as many as divide it.

    Raises:
        ConfigError: several processes cannot share it equally.
    """
    devices: list[Any] = list(jax.devices())
    if batch_size is None or batch_size % len(devices) == 0:
        return devices
    text, remedy = f"a batch of {batch_size}", f"give a multiple of {len(devices)}"
    if tasks() > 1:
        raise ConfigError(text, f"cannot be shared by {len(devices)} devices", remedy)
    count = next(k for k in range(len(devices), 0, -1) if batch_size % k == 0)
    print(f"{text} uses {count} of {len(devices)} devices: {remedy}", file=sys.stderr)
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
