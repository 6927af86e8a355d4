"""Options that experiments share, and the check of their ranges; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from physml.errors import ConfigError


@dataclass(frozen=True)
class Descent:
    """Options of a fit by gradient descent."""

    steps: int = 1000  # optimiser steps
    batch_size: int = 64  # rows per step, over all devices
    learning_rate: float = 1e-3  # the highest of the schedule
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"  # of the rate
    warmup: float = 0.05  # share of the steps in which the rate rises from 0
    plateau: int = 100  # steps without a better mean loss before the rate is halved
    weight_decay: float = 0.0  # of AdamW
    clip: float = 1.0  # largest norm of the gradient
    accumulate: int = 1  # batches whose mean gradient makes one update
    evaluate_every: int = 0  # steps between evaluations and checkpoints; 0: at the end only
    patience: int = 0  # evaluations without a better one before it stops early; 0: never


@dataclass(frozen=True)
class Adversarial:
    """Options of a Wasserstein GAN with gradient penalty (arXiv 1704.00028), trained by Adam."""

    steps: int = 10_000  # of the critic
    batch_size: int = 256  # rows per step, over all devices
    critic_steps: int = 1  # for each step of the generator
    critic_rate: float = 2e-3  # learning rate; it falls to 0 as a cosine
    generator_rate: float = 1e-3
    memory: float = 0.99  # of Adam's mean squared gradients; there is no momentum
    penalty: float = 10.0  # on a critic of showers whose slope is not 1
    layers_penalty: float = 1.0  # on that of the layers' energies
    average: float = 0.999  # share of the averaged weights that a step of the generator keeps
    evaluate_every: int = 0  # steps between evaluations and checkpoints; 0: at the end only


@dataclass(frozen=True)
class EdgeLoss:
    """Binary cross-entropy of edges, or focal loss (Lin et al., arXiv 1708.02002)."""

    gamma: float = 0.0  # 0: cross-entropy; 2 in the paper: edges already told apart count less
    positive: float = 1.0  # factor on the loss of true edges


@dataclass(frozen=True)
class EdgeWeight:
    """The weight of edges that meet every condition; those on the particle hold for true edges."""

    weight: float  # factor on their loss
    label: bool | None = None  # True: true edges only, False: false ones only
    pt: tuple[float, float] | None = None  # GeV, from below the second
    hits: tuple[int, int] | None = None  # of the particle, from ... to
    pdg: tuple[int, ...] | None = None  # its code is one of these
    not_pdg: tuple[int, ...] | None = None  # ... none of these


def apply_to(default: Any = None) -> Any:
    """A field of a config that says what a finished fit is applied to, and is no part of the fit.

    `evaluate` alone takes such an option, and writes what it finds to a folder within the run's.
    """
    return field(default=default, metadata={"applied": True})


def limit(default: Any) -> Any:
    """A field of a config that only says what is too large; every command takes it."""
    return field(default=default, metadata={"limit": True})


def applied(config: Any) -> dict[str, Any]:
    """The options that say what a finished fit is applied to, where they are given."""
    own = [f for f in fields(config) if f.metadata.get("applied")]
    return {f.name: v for f in own if (v := getattr(config, f.name)) != f.default}


def as_fitted(config: Any) -> Any:
    """The config without the options of `apply_to` and `limit`: what a fit depends on."""
    own = [f for f in fields(config) if f.metadata]
    return replace(config, **{f.name: f.default for f in own})


def check_ranges(options: Any, ranges: Mapping[str, tuple[float, float]], prefix: str = "") -> None:
    """Refuse options out of range, before any work.

    Args:
        options: a dataclass; a value of None is not checked.
        ranges: field -> smallest and largest value.
        prefix: of the option on the command line, such as "descent.".

    Raises:
        ConfigError: names the option, its value and the range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            option = f"--{prefix}{name.replace('_', '-')}"
            raise ConfigError(option, f"is {value}", f"give {low:g} to {high:g}")


def check_descent(options: Descent) -> None:
    """Refuse options of a descent that are out of range.

    Raises:
        ConfigError: names the option and the range.
    """
    ranges = {
        "steps": (1, 10**9), "batch_size": (1, 10**7), "learning_rate": (1e-12, 10.0),
        "warmup": (0.0, 0.99), "plateau": (1, 10**9), "weight_decay": (0.0, 10.0),
        "clip": (1e-12, 1e12), "accumulate": (1, 10**6), "evaluate_every": (0, 10**9),
        "patience": (0, 10**6),
    }  # fmt: skip
    check_ranges(options, ranges, "descent.")
    if options.patience and not options.evaluate_every:
        what = "needs evaluations to count"
        raise ConfigError("--descent.patience", what, "give --descent.evaluate-every too")


def check_adversarial(options: Adversarial) -> None:
    """Refuse options of adversarial training that are out of range.

    Raises:
        ConfigError: names the option and the range.
    """
    ranges = {
        "steps": (1, 10**9), "batch_size": (1, 10**7), "critic_steps": (1, 1000),
        "critic_rate": (1e-12, 10.0), "generator_rate": (1e-12, 10.0), "memory": (0.0, 0.999999),
        "penalty": (0.0, 1e6), "layers_penalty": (0.0, 1e6), "average": (0.0, 0.999999),
        "evaluate_every": (0, 10**9),
    }  # fmt: skip
    check_ranges(options, ranges, "training.")


@dataclass(frozen=True)
class Sweep:
    """Which options to vary, and what to compare; any number of workers may share a folder."""

    over: tuple[str, ...] = ()  # width=16,32  descent.learning-rate=1e-4:1e-2:log  layers=1:4
    method: Literal["grid", "random", "bayes"] = "grid"  # bayes: Optuna (the extra "sweep")
    trials: int = 0  # how many; 0: all points of the grid
    metric: str = ""  # from the log, or a number of `evaluate`; default the monitored one
    maximize: bool = False
    folds: int = 0  # cross-validate in so many folds, grouped as the experiment says; 0: one fit
    prune: bool = False  # end a trial that is worse than the median of the others at that step
    take: int = 0  # trials that this worker does; 0: until all are done
