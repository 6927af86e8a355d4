"""Which options the trials of a sweep have: points of a grid, random ones, or Optuna's.

Options of a grid and random ones are functions of (seed, number of the trial). For Bayesian search,
Optuna proposes them from what is in its journal file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from physml.arguments import Request, configured
from physml.errors import ConfigError


class Axis(NamedTuple):
    """One option to vary: either values, or a range."""

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # integers only

    def at(self, share: float) -> str:
        """The value at a share of the way, 0 <= share < 1."""
        if self.values:
            return self.values[int(share * len(self.values))]
        low, high = self.low, self.high + (1 if self.whole else 0)
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        return str(int(value)) if self.whole else f"{value:.6g}"


def axis(text: str) -> Axis:
    """Read "width=16,32", "layers=1:4" (whole numbers) or "rate=1e-4:1e-2:log".

    Raises:
        ConfigError: it reads otherwise.
    """
    name, _, after = text.partition("=")
    if not name or not after:
        raise ConfigError(f"--sweep.over {text}", "names no values", "write width=16,32")
    name = name.removeprefix("--").replace("_", "-")
    low, *others = after.split(":")
    if not others:
        return Axis(name, tuple(after.split(",")))
    try:
        found = Axis(name, (), float(low), float(others[0]), others[1:] == ["log"], False)
        whole = low.lstrip("+-").isdigit() and others[0].lstrip("+-").isdigit()
    except ValueError:
        found, whole = Axis(name, (), 1.0, 0.0), False
    wrong = others[1:] not in ([], ["log"]) or not found.low < found.high
    if wrong or (found.log and found.low <= 0) or not math.isfinite(found.high - found.low):
        raise ConfigError(f"--sweep.over {text}", "is no range", "write low:high or low:high:log")
    return found._replace(whole=whole)


class Plan(NamedTuple):
    """A sweep: what its folder notes, and how a trial gets its options."""

    request: Request
    axes: tuple[Axis, ...]
    trials: int

    @property
    def home(self) -> Path:
        """Folder of the sweep."""
        return self.request.run_dir

    def words(self, values: Mapping[str, str]) -> list[str]:
        """Options of a trial on the command line; those that vary come last and win."""
        base = [w for w in _groups(self.request.words) if not w[0].startswith("--sweep.")]
        own = ((f"--{name}", value) for name, value in values.items())
        return [*itertools.chain(*base), *itertools.chain(*own)]


def _groups(words: Sequence[str]) -> list[list[str]]:
    """Words of a command line, each option with its values."""
    found: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not found:
            found.append([])
        found[-1].append(word)
    return found


def plan(request: Request) -> Plan:
    """Check a sweep before any work.

    Raises:
        ConfigError: axes, number of trials or method do not fit together, or an option is wrong.
    """
    sweep = request.sweep
    axes = tuple(axis(text) for text in sweep.over)
    if not axes:
        raise ConfigError("--sweep.over", "is missing", "name an option: --sweep.over width=16,32")
    if sweep.folds == 1 or min(sweep.folds, sweep.trials, sweep.take) < 0:
        raise ConfigError("--sweep", "has a number out of range", "give 2 folds or more")
    trials = sweep.trials
    if sweep.method == "grid":
        ranges = [a.name for a in axes if not a.values]
        if ranges or trials:
            what = f"has no place for {'the range of ' + ranges[0] if ranges else '--sweep.trials'}"
            raise ConfigError("a grid", what, "give values, or --sweep.method random")
        trials = math.prod(len(a.values) for a in axes)
    elif trials < 1:
        raise ConfigError("--sweep.trials", "is missing", "say how many")
    found = Plan(request, axes, trials)
    for one in axes:  # each value, or end of a range, must be one that the option takes
        for value in one.values or (one.at(0.0), one.at(1.0 - 1e-9)):
            configured(request.package, request.preset, found.words({one.name: value}))
    return found


def proposed(found: Plan, number: int) -> dict[str, str]:
    """Options of a trial of a grid or of random ones."""
    if found.request.sweep.method == "grid":
        values = [a.values for a in found.axes]
        point = next(itertools.islice(itertools.product(*values), number, None))
        return dict(zip((a.name for a in found.axes), point, strict=True))
    seed = int(getattr(found.request.config, "seed", 0))
    shares = np.random.default_rng([seed, number]).random(len(found.axes))
    return {a.name: a.at(share) for a, share in zip(found.axes, shares, strict=True)}


def trials_of(home: Path) -> list[Path]:
    """Folders of the trials of a sweep that were begun, in order."""
    return sorted(path.parent for path in home.glob("trial-*/trial.json"))


class Study(NamedTuple):
    """What Bayesian search needs of Optuna."""

    ask: Callable[[], tuple[int, dict[str, str]]]
    tell: Callable[[int, float | None], None]


def study(found: Plan) -> Study:
    """The study in the journal file of a sweep.

    Raises:
        ConfigError: Optuna is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        remedy = "pip install 'physml[sweep]'"
        raise ConfigError("--sweep.method bayes", "needs optuna", remedy) from None
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = JournalFileBackend(str(found.home / "study.journal"))
    request = found.request
    made = optuna.create_study(
        study_name="sweep",
        storage=optuna.storages.JournalStorage(backend),
        load_if_exists=True,
        direction="maximize" if request.sweep.maximize else "minimize",
        sampler=optuna.samplers.TPESampler(
            seed=int(getattr(request.config, "seed", 0)) + len(trials_of(found.home))
        ),
    )
    states = optuna.trial.TrialState

    def ask() -> tuple[int, dict[str, str]]:
        trial = made.ask({a.name: _distribution(optuna, a) for a in found.axes})
        return trial.number, {name: _word(value) for name, value in trial.params.items()}

    def tell(number: int, value: float | None) -> None:
        state = states.FAIL if value is None else states.COMPLETE
        made.tell(number, value, state, skip_if_finished=True)

    return Study(ask, tell)


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _distribution(optuna: Any, found: Axis) -> Any:
    if found.values:
        return optuna.distributions.CategoricalDistribution(found.values)
    if found.whole:
        low, high = int(found.low), int(found.high)
        return optuna.distributions.IntDistribution(low, high, log=found.log)
    return optuna.distributions.FloatDistribution(found.low, found.high, log=found.log)
