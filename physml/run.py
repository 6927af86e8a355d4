"""What an experiment is, and the commands that are the same for every experiment.

`python -m experiments.NAME {reproduce,train,evaluate,figures} [PRESET] [--options]` calls
`main("experiments.NAME")`. The package holds `config.py` (see `physml.arguments`) and
`experiment.py` (`EXPERIMENT`).

Exit codes: 0 done; 1 a claim fell outside its interval; 2 bad input, one line says which;
75 stopped by SIGTERM and 130 by Ctrl-C: the fit has saved itself, the same command goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, NotRequired, TypedDict

from physml import cluster, folder, processes
from physml.arguments import Request, parse, plain
from physml.claims import Claim, check_claims, report
from physml.errors import ConfigError, PhysmlError
from physml.options import as_fitted
from physml.signals import PREEMPTED, ending, stopping

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from physml.backend import Kernel
    from physml.train import Judge, Objective, Splits, TrainState


def never(_step: int, _value: float) -> bool:
    """Judge no fit hopeless."""
    return False


class Results(TypedDict):
    """What an evaluation found: finite numbers by name, and arrays for the figures.

    `reproduce` and `evaluate` add the log of the fit, "log NAME": (n, 2) array of step and value.
    """

    numbers: Mapping[str, float]
    arrays: Mapping[str, np.ndarray]
    tables: NotRequired[Mapping[str, Mapping[str, Any]]]  # each written as NAME.root
    files: NotRequired[Mapping[str, bytes]]  # each written under its name


class Experiment(NamedTuple):
    """One experiment: pure functions of its config, and what it promises per preset."""

    name: str
    presets: Mapping[str, Any]
    load: Callable[[Any], Splits]
    objective: Callable[[Any], Objective]
    evaluate: Callable[[Any, TrainState, Splits], Results]
    figures: Callable[[Results], Mapping[str, Figure]]
    claims: Mapping[str, tuple[Claim, ...]]
    kernels: Callable[[], tuple[Kernel, ...]] = tuple  # hot ones, compared with NumPy at the head
    # Its own commands: config, best state of the finished fit, folder to write to.
    commands: Mapping[str, Callable[[Any, TrainState, Path], None]] = MappingProxyType({})
    # Preset -> reader of weights that come with the project, for runs without a fit of their own.
    weights: Mapping[str, Callable[[Any], TrainState]] = MappingProxyType({})
    # Labels of the train rows; those with the same one are never on both sides of a fold.
    groups: Callable[[Any, Splits], np.ndarray] | None = None


def main(package: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command of the experiment in `package`, and exit with its code."""
    try:
        request = parse(package, sys.argv[1:] if arguments is None else list(arguments))
        with ending(), processes.quiet():
            sys.exit(execute(request))
    except (PhysmlError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("physml", "experiments"):
            raise
        remedy = "run `make setup`, then use .venv/bin/python"
        print(f"error: the package {error.name} is not installed; {remedy}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def execute(request: Request) -> int:
    """Do what a request asks for and return the exit code.

    Raises:
        PhysmlError: bad input or a fit without a valid answer. When the input was at fault, nothing
            was written.
    """
    from physml import record

    if request.command == "status":
        from physml import status

        status.show([Path(word) for word in request.words], request.run_dir)
        return 0
    if request.command == "submit":
        _submit(request)
        return 0
    experiment: Experiment = importlib.import_module(f"{request.package}.experiment").EXPERIMENT
    if request.command == "sweep":
        from physml import sweep

        processes.start(experiment.objective(request.config).compiled)
        sweep.work(request, experiment)
        return 0
    folder.refuse_foreign(request)
    if request.command == "figures":
        _draw(request, experiment, record.read_results(request.folder))
        return 0
    folder.check_writable(request.run_dir)
    from physml import backend

    processes.start(experiment.objective(request.config).compiled)
    shipped = _shipped(request, experiment)
    if request.command not in ("reproduce", "train") and shipped is None:
        folder.refuse_unfinished(request)
    with folder.held(request) if processes.writes() else contextlib.nullcontext():
        backend.check(experiment.kernels())
        own = shipped is not None and request.command in experiment.commands
        splits = {} if own else experiment.load(request.config)
        if shipped is None:
            best = fitted(request, experiment, splits)
        else:
            best = shipped(request.config)
            if processes.writes():
                folder.note(request, {"weights": "come with the project"})
        processes.leave()
        if request.command == "train" or not processes.writes():
            return 0
        if request.command in experiment.commands:
            folder.note_applied(request)
            experiment.commands[request.command](request.config, best, request.folder)
            return 0
        results = experiment.evaluate(request.config, best, splits)
        rows = check_claims(claimed(request, experiment), results["numbers"])
        _write(request, results, rows)
        _draw(request, experiment, record.read_results(request.folder))
    print(f"results in {request.folder / 'results.json'}")
    if not rows:
        for name, value in sorted(results["numbers"].items()):
            print(f"{name:52s} {value:10.5g}")
        options, preset = request.config, experiment.presets[request.preset]
        differ = [
            f.name
            for f in dataclasses.fields(preset)
            if getattr(options, f.name) != getattr(preset, f.name)
        ]
        words = ", ".join(f"--{name.replace('_', '-')}" for name in differ)
        print(f"no claims: those of the preset {request.preset} are made without {words}")
        return 0
    return report(rows)


def _submit(request: Request) -> None:
    """Hand over a job; what it could not do is refused here.

    Raises:
        ConfigError: several processes for host code, or for a sweep; see `search.plan`.
    """
    job, elements = request.job, 0
    words = [sys.executable, "-m", request.package, request.to_run, request.preset]
    words += [*request.words, "--run-dir", str(request.run_dir)]
    if request.to_run == "sweep":
        from physml.search import plan

        elements = plan(request).trials
        job = dataclasses.replace(job, tasks_per_node=job.tasks_per_node or 1)
        words += [] if request.sweep.take else ["--sweep.take=1"]
    if job.nodes * job.processes > 1:  # only then is the experiment worth its import
        made = importlib.import_module(f"{request.package}.experiment").EXPERIMENT
        if request.to_run == "sweep" or not made.objective(request.config).compiled:
            what = "cannot be shared by several processes"
            raise ConfigError(f"this {request.to_run}", what, "ask for one node and one task")
    if request.to_run != "sweep":
        folder.refuse_foreign(request)
    folder.check_writable(request.run_dir)
    name = f"{request.package.rpartition('.')[2]}-{request.preset}"
    text = cluster.script(job, name, words, request.run_dir, elements)
    cluster.submit(job, text, request.run_dir / "submit.sh")


def claimed(request: Request, experiment: Experiment) -> tuple[Claim, ...]:
    """Claims of the preset; none once an option differs from it."""
    if request.config != experiment.presets[request.preset]:
        return ()
    return experiment.claims.get(request.preset, ())


def _write(request: Request, results: Results, claims: Sequence[Mapping[str, Any]]) -> None:
    """Numbers, arrays with the log of the fit, and tables, in the folder of the request."""
    from physml import record
    from physml.io.manifest import write_bytes

    folder.note_applied(request)
    record.write_tables(request.folder, results.get("tables", {}))
    for name, content in results.get("files", {}).items():
        write_bytes(request.folder / name, content)
    logged = {f"log {k}": v for k, v in record.read_metrics(request.run_dir).items()}
    joined: Results = {"numbers": results["numbers"], "arrays": {**results["arrays"], **logged}}
    record.write_results(request.folder, joined, claims)


def _shipped(request: Request, experiment: Experiment) -> Callable[[Any], TrainState] | None:
    """The reader of weights that come with the project, where the request is to use them."""
    from physml import checkpoint

    if request.command in ("reproduce", "train") or request.preset not in experiment.weights:
        return None
    if request.fitted != as_fitted(experiment.presets[request.preset]):
        return None
    if checkpoint.latest(request.run_dir / "checkpoints", "step") is not None:
        return None
    text = f"{request.run_dir} holds no fit: using the weights that come with the project"
    print(text, file=sys.stderr)
    return experiment.weights[request.preset]


def fitted(
    request: Request,
    experiment: Experiment,
    splits: Splits,
    judge: Judge = never,
) -> TrainState:
    """The best state of the fit in the folder: finished, gone on with, or begun.

    A finished fit is made again when code or data have changed since; an unfinished one when the
    data have. What was there is set aside.

    Raises:
        SystemExit: a signal has stopped it; it is saved.
    """
    from physml import record
    from physml.train import fit

    origin = {**record.origin(request.package, request.fitted), "config": plain(request.fitted)}
    if processes.writes():
        folder.make_room(request, origin)
        if request.folder == request.run_dir:
            folder.note(request)
    processes.gather(0.0)  # no other process reads the folder before
    seed = int(getattr(request.config, "seed", 0))
    objective = experiment.objective(request.config)
    with stopping() as asked:
        result = fit(objective, splits, seed, request.run_dir, origin, asked.stop, judge)
    if asked.codes or not result.finished:
        print("stopped and saved; the same command goes on", file=sys.stderr)
        sys.exit(asked.codes[0] if asked.codes else PREEMPTED)
    return result.best


def _draw(request: Request, experiment: Experiment, results: Results) -> None:
    from physml import plots

    drawn = request.folder / "figures"
    drawn.mkdir(parents=True, exist_ok=True)
    for name, figure in experiment.figures(results).items():
        plots.save(figure, drawn / f"{name}.png")
    print(f"figures in {drawn}", file=sys.stderr)
