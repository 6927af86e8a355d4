"""What an experiment is, and the commands that are the same for every experiment.

`python -m experiments.NAME {reproduce,train,evaluate,figures} [PRESET] [--options]` calls
`main("experiments.NAME")`. The package holds `config.py` (a frozen dataclass `Config` and its
`PRESETS`; imports nothing heavy, so that `--help` is quick) and `experiment.py` (`EXPERIMENT`).

Exit codes: 0 done; 1 a claim fell outside its interval; 2 bad input, one line says which;
75 stopped by SIGTERM and 130 by Ctrl-C: the fit has saved itself, the same command goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, NotRequired, TypedDict

from physml.claims import Claim, check_claims, report
from physml.errors import ConfigError, DataError, PhysmlError
from physml.options import applied, as_fitted

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from physml.backend import Kernel
    from physml.train import Objective, Splits, TrainState

COMMANDS = {
    "reproduce": "train, evaluate, draw, and compare every claim with its interval",
    "train": "fit only; a finished fit in the same folder is kept",
    "evaluate": "measure a finished fit, draw, and compare the claims",
    "figures": "draw again from the results in the folder; never trains",
}


PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: a batch system may start the same command again


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


class Request(NamedTuple):
    """A parsed command line."""

    package: str
    command: str
    preset: str
    config: Any
    run_dir: Path

    @property
    def fitted(self) -> Any:
        """The options of the fit: without what it is applied to."""
        return as_fitted(self.config)

    @property
    def folder(self) -> Path:
        """Where results go: the run's folder, or one within it for what the fit is applied to."""
        if not applied(self.config):
            return self.run_dir
        return self.run_dir / f"applied-{_digest(self.config)}"


def main(package: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command of the experiment in `package`, and exit with its code."""
    try:
        request = parse(package, sys.argv[1:] if arguments is None else list(arguments))
        with _terminated_by(lambda *_: sys.exit(PREEMPTED)):
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


def parse(package: str, arguments: list[str]) -> Request:
    """Command, preset and options.

    Raises:
        ConfigError: an unknown command, preset or option, or a value of the wrong type.
        SystemExit: after `--help`.
    """
    module = importlib.import_module(f"{package}.config")
    presets: Mapping[str, Any] = module.PRESETS
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(package, module.__doc__ or "", presets))
        sys.exit(0)
    command, *rest = arguments
    if command not in COMMANDS:
        raise ConfigError(command, "is no command", _suggest(command, COMMANDS))
    preset = rest.pop(0) if rest and not rest[0].startswith("-") else "default"
    if preset not in presets:
        raise ConfigError(preset, "is no preset", _suggest(preset, presets))
    run_dir, rest = _take_run_dir(rest)
    config = _options(f"python -m {package} {command} {preset}", presets[preset], rest)
    name = package.rpartition(".")[2]
    _plain(config)  # refuses values that are out of range, before any work
    for option in applied(config):
        if command not in ("evaluate", "figures"):
            what = f"is nothing that {command} takes"
            raise ConfigError(_named(option), what, "train first, then evaluate with it")
    default = Path("runs") / name / f"{preset}-{_digest(as_fitted(config))}"
    return Request(package, command, preset, config, run_dir or default)


def _suggest(word: str, choices: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(choices), n=1)
    return _maybe(near, f"use one of {', '.join(choices)}")


def _usage(package: str, about: str, presets: Mapping[str, Any]) -> str:
    lines = [about.strip(), "", f"usage: python -m {package} COMMAND [PRESET] [--options]", ""]
    lines += [f"  {name:10s} {text}" for name, text in COMMANDS.items()]
    lines += ["", f"presets: {', '.join(presets)} (default: default)"]
    lines += ["", "--run-dir DIR names the folder of results; the same folder again resumes."]
    lines += [f"Options with their meaning: python -m {package} COMMAND PRESET --help"]
    return "\n".join(lines)


def _take_run_dir(arguments: list[str]) -> tuple[Path | None, list[str]]:
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name != "--run-dir":
            continue
        after = place + 1 if equals else place + 2
        value = value if equals else "".join(arguments[place + 1 : after])
        if not value or value.startswith("-"):
            raise ConfigError("--run-dir", "names no folder", "give one after it")
        return Path(value), arguments[:place] + arguments[after:]
    return None, arguments


def _options(prog: str, default: Any, arguments: list[str]) -> Any:
    """Parse the options of a config with tyro; its boxed messages become one line."""
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                type(default), default=default, args=arguments, prog=prog,
                description="--run-dir DIR names the folder of results; the same again resumes.",
            )  # fmt: skip
    except SystemExit as stop:
        if not stop.code:
            raise
    lines = [line.strip(" │|") for line in complaint.getvalue().splitlines()]
    said = next((x for x in lines[1:] if x and x.strip("-─╭╮╰╯ ")), "the options are wrong")
    named = [line.split()[0] for line in lines if line.startswith("--") and line.strip("-─")]
    if said.startswith("Unrecognized options: --"):  # tyro lists the value as one more option
        said = said.partition(",")[0]
        raise ConfigError("options", said, _maybe(named, f"see {prog} --help"))
    raise ConfigError("options", said.rstrip("."), f"see {prog} --help")


def _maybe(near: Sequence[str], otherwise: str) -> str:
    return f"perhaps you meant {near[0]}" if near else otherwise


def _plain(config: Any) -> dict[str, Any]:
    """The config as strict JSON values.

    Raises:
        ConfigError: a value is not finite, or the seed is out of range.
    """
    from physml.io.manifest import dumps

    seed = getattr(config, "seed", 0)
    if not 0 <= seed < 2**32:
        raise ConfigError("--seed", f"is {seed}", "give an integer from 0 to 2^32 - 1")
    plain: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        try:
            plain[name] = json.loads(dumps(value))
        except ValueError as error:
            raise ConfigError(_named(name), f"is {value}", "give a finite number") from error
    return plain


def _named(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _digest(config: Any) -> str:
    return hashlib.sha256(repr(config).encode()).hexdigest()[:8]


def execute(request: Request) -> int:
    """Do what a request asks for and return the exit code.

    Raises:
        PhysmlError: bad input or a fit without a valid answer. When the input was at fault, nothing
            was written.
    """
    from physml import record

    experiment: Experiment = importlib.import_module(f"{request.package}.experiment").EXPERIMENT
    _refuse_foreign(request)
    if request.command == "figures":
        _draw(request, experiment, record.read_results(request.folder))
        return 0
    _check_writable(request.run_dir)
    from physml import backend

    _cache_compilations()
    if experiment.objective(request.config).compiled:
        _use_all_cores()
    if request.command == "evaluate":
        _refuse_unfinished(request)
    with _locked(request):
        backend.check(experiment.kernels())
        splits = experiment.load(request.config)
        best = _fitted(request, experiment, splits)
        if request.command == "train":
            return 0
        results = experiment.evaluate(request.config, best, splits)
        rows = check_claims(claimed(request, experiment), results["numbers"])
        _write(request, results, rows)
        _draw(request, experiment, record.read_results(request.folder))
    print(f"results in {request.folder / 'results.json'}")
    if not rows:
        for name, value in sorted(results["numbers"].items()):
            print(f"{name:52s} {value:10.5g}")
        print(f"no claims: the options differ from the preset {request.preset}")
        return 0
    return report(rows)


def claimed(request: Request, experiment: Experiment) -> tuple[Claim, ...]:
    """Claims of the preset; none once an option differs from it."""
    if request.config != experiment.presets[request.preset]:
        return ()
    return experiment.claims.get(request.preset, ())


def _write(request: Request, results: Results, claims: Sequence[Mapping[str, Any]]) -> None:
    """Numbers, arrays with the log of the fit, and tables, in the folder of the request."""
    from physml import record
    from physml.io.manifest import write_bytes, write_json

    if request.folder != request.run_dir:
        request.folder.mkdir(exist_ok=True)
        write_json(request.folder / "config.json", _plain(request.config))
        environment = record.environment(request.package, request.config)
        write_json(request.folder / "environment.json", environment)
    record.write_tables(request.folder, results.get("tables", {}))
    for name, content in results.get("files", {}).items():
        write_bytes(request.folder / name, content)
    logged = {f"log {k}": v for k, v in record.read_metrics(request.run_dir).items()}
    joined: Results = {"numbers": results["numbers"], "arrays": {**results["arrays"], **logged}}
    record.write_results(request.folder, joined, claims)


def _refuse_unfinished(request: Request) -> None:
    from physml import checkpoint

    found = checkpoint.latest(request.run_dir / "checkpoints", "step")
    if found is None or not found.metadata["place"]["finished"]:
        what = "holds no finished fit"
        raise DataError(request.run_dir, what, "run train with this folder first")


def _cache_compilations() -> None:
    """Keep compiled code between runs, where the user has not said otherwise."""
    import jax

    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if jax.config.values["jax_compilation_cache_dir"] is None and not home.startswith("~"):
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "physml", "jax"))


def _use_all_cores() -> None:
    """On CPU, one device per core that we may use, up to 8: batches are then shared among them.

    One device with as many threads takes 1.6 times as long on two cores (sparse network, 64 rows).
    """
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if jax.config.values["jax_num_cpu_devices"] == -1:
        with contextlib.suppress(RuntimeError):  # devices are in use already: leave them
            jax.config.update("jax_num_cpu_devices", min(cores or 1, 8))


def _check_writable(folder: Path) -> None:
    """Refuse a run folder that cannot be made, before any work.

    Raises:
        ConfigError: a file stands in the way, or the folder above is read-only.
    """
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(folder, "cannot be written", "name another --run-dir")


def _refuse_foreign(request: Request) -> None:
    from physml.io.manifest import read_json

    noted = request.run_dir / "config.json"
    if noted.exists() and read_json(noted) != _plain(request.fitted):
        what = "belongs to a run with other options"
        raise ConfigError(request.run_dir, what, "name another --run-dir")
    if request.command == "figures" and not noted.exists():
        raise DataError(request.run_dir, "holds no run", "run reproduce with this folder first")


@contextlib.contextmanager
def _locked(request: Request) -> Iterator[None]:
    """Make the run folder and hold it; a folder that nothing came of is removed again.

    Raises:
        ConfigError: another run holds it, or it belongs to a run with other options.
    """
    import fcntl

    folder = request.run_dir.absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "is in use by another run"
            raise ConfigError(request.run_dir, what, "wait, or name another --run-dir") from None
        try:
            _refuse_foreign(request)  # again: it may have become another's while we waited
            yield
        finally:
            if not (folder / "config.json").exists() and made:
                (folder / ".lock").unlink(missing_ok=True)
                for path in made:
                    with contextlib.suppress(OSError):  # something else has been put there
                        path.rmdir()


def _fitted(request: Request, experiment: Experiment, splits: Splits) -> TrainState:
    """The best state of the fit in the folder: finished, gone on with, or begun.

    A finished fit is made again when code or data have changed since; an unfinished one when the
    data have. What was there is set aside.
    """
    from physml import record
    from physml.io.manifest import write_json
    from physml.train import fit

    origin = {**record.origin(request.package, request.fitted), "config": _plain(request.fitted)}
    _keep_or_set_aside(request, origin)
    if request.folder == request.run_dir:
        environment = record.environment(request.package, request.fitted)
        write_json(request.run_dir / "config.json", origin["config"])
        write_json(request.run_dir / "environment.json", environment)
    with _stopping() as asked:
        seed = int(getattr(request.config, "seed", 0))
        result = fit(
            experiment.objective(request.config), splits, seed, request.run_dir, origin,
            stop=lambda: bool(asked),
        )  # fmt: skip
    if not result.finished:
        print("stopped and saved; the same command goes on", file=sys.stderr)
        sys.exit(asked[0])
    return result.best


def _keep_or_set_aside(request: Request, origin: Mapping[str, Any]) -> None:
    """Say what becomes of the fit in the folder, and make room for a new one where it is stale.

    Raises:
        ConfigError: it was made with other options.
    """
    from physml import checkpoint, record

    folder = request.run_dir / "checkpoints"
    found = checkpoint.latest(folder, "step")
    if found is None:
        return
    changed = [name for name in origin if found.metadata["origin"].get(name) != origin[name]]
    if "config" in changed:
        what = "holds a fit with other options"
        raise ConfigError(request.run_dir, what, "name another --run-dir")
    note = f"; since then changed: {', '.join(changed)}" if changed else ""
    finished = bool(found.metadata["place"]["finished"])
    stale = (
        bool({"data_sha256", "code_sha256"} & set(changed))
        if finished
        else "data_sha256" in changed
    )
    if stale and request.command != "evaluate":
        earlier = record.set_run_aside(request.run_dir)
        print(f"the earlier fit is now in {earlier}{note}; fitting again", file=sys.stderr)
    elif finished:
        print(f"the fit in {folder} is finished and kept{note}", file=sys.stderr)
    else:
        print(f"going on from {found.path}{note}", file=sys.stderr)


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that SIGTERM and the first Ctrl-C put their exit code in; a second Ctrl-C breaks."""
    asked: list[int] = []

    def interrupt(*_: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(130)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with _terminated_by(lambda *_: asked.append(PREEMPTED)):
            yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _terminated_by(handler: Callable[..., Any]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _draw(request: Request, experiment: Experiment, results: Results) -> None:
    from physml import plots

    folder = request.folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in experiment.figures(results).items():
        plots.save(figure, folder / f"{name}.png")
    print(f"figures in {folder}", file=sys.stderr)
