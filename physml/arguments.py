"""Command lines, the same for every experiment: a command, a preset, and options of the config.

An experiment's `config.py` holds `Config` and `PRESETS`, where it needs them also `check` (config,
refuses options out of range) and `COMMANDS` of its own (name -> what it does). It imports nothing
heavy, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from physml import cluster
from physml.cluster import Choice, Job
from physml.errors import ConfigError
from physml.options import Sweep, applied, as_fitted

COMMANDS = {
    "reproduce": "train, evaluate, draw, and compare every claim with its interval",
    "train": "fit only; a finished fit in the same folder is kept",
    "evaluate": "measure a finished fit, draw, and compare the claims",
    "figures": "draw again from the results in the folder; never trains",
    "sweep": "fit with many options and compare; any number of these may work on one folder",
    "submit": "write, show and hand over a SLURM job that runs one of the commands above",
    "status": "what runs are doing or came to: status [RUN_DIRS...]",
}
FITTING = ("reproduce", "train", "sweep")  # take no option that says what a fit is applied to


class Request(NamedTuple):
    """A parsed command line."""

    package: str
    command: str  # one of `COMMANDS`, or of the experiment's own
    preset: str
    config: Any
    run_dir: Path
    words: tuple[str, ...] = ()  # the options as they were given, without those of a job
    sweep: Sweep = Sweep()
    job: Job = Job()
    to_run: str = ""  # what the job runs

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


def parse(package: str, arguments: list[str]) -> Request:
    """Command, preset and options.

    Raises:
        ConfigError: an unknown command, preset or option, or a value of the wrong type.
        SystemExit: after `--help`.
    """
    module = importlib.import_module(f"{package}.config")
    presets: Mapping[str, Any] = module.PRESETS
    commands = {**COMMANDS, **getattr(module, "COMMANDS", {})}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(package, module.__doc__ or "", presets, commands))
        raise SystemExit(0)
    command, *rest = arguments
    if command not in commands:
        raise ConfigError(command, "is no command", _suggest(command, commands))
    name = package.rpartition(".")[2]
    if command == "status":
        return Request(package, command, "", None, Path("runs") / name, tuple(rest))
    preset = rest.pop(0) if rest and not rest[0].startswith("-") else "default"
    if preset not in presets:
        raise ConfigError(preset, "is no preset", _suggest(preset, presets))
    run_dir, rest = _take_run_dir(rest)
    if run_dir is not None and command not in (*FITTING, "submit"):
        run_dir, best = best_of(run_dir, preset)
        rest = [*best, *rest]
    groups: dict[str, Any] = {"config": presets[preset]}
    if command in ("sweep", "submit"):
        groups["sweep"] = Sweep()
    if command == "submit":
        groups |= {"job": cluster.site_defaults(), "choice": Choice()}
    found = options_of(f"python -m {package} {command} {preset}", groups, rest)
    config, job = found["config"], found.get("job", Job())
    cluster.check(job)
    _check(package, config)
    to_run = found["choice"].run if command == "submit" else command
    for option in applied(config):
        if to_run in FITTING:
            what = f"is nothing that {to_run} takes"
            raise ConfigError(_named(option), what, "train first, then evaluate with it")
    sweep = found.get("sweep", Sweep())
    if to_run == "sweep":
        default = f"sweep-{preset}-{_digest((config, replace(sweep, take=0)))}"
    else:
        default = f"{preset}-{_digest(as_fitted(config))}"
        if sweep != Sweep():
            raise ConfigError("--sweep", f"changes nothing of {to_run}", "give --run sweep too")
    place = run_dir or Path("runs") / name / default
    words = tuple(cluster.without(cluster.without(rest, job), Choice()))
    return Request(package, command, preset, config, place, words, sweep, job, to_run)


def configured(package: str, preset: str, words: list[str]) -> Any:
    """The config of a preset with options.

    Raises:
        ConfigError: an option is unknown, or a value of the wrong type or range.
    """
    default = importlib.import_module(f"{package}.config").PRESETS[preset]
    config = options_of(f"python -m {package} train {preset}", {"config": default}, words)["config"]
    _check(package, config)
    return config


def best_of(folder: Path, preset: str) -> tuple[Path, list[str]]:
    """Folder and options of the best trial of a sweep; of another run, itself and none.

    Raises:
        ConfigError: the sweep is of another preset, or has no fit to take.
    """
    from physml.io.manifest import read_json

    if not (folder / "sweep.json").exists():
        return folder, []
    found = read_json(folder / "sweep.json")
    if found["preset"] != preset:
        raise ConfigError(folder, f"is a sweep of {found['preset']}", "name that preset")
    best = found.get("best")
    if best is None or found["folds"]:
        what = "holds folds only" if found["folds"] else "has no trial that is done"
        raise ConfigError(folder, what, "see its trials.csv, and train with the options of one")
    return folder / best["folder"], list(best["options"])


def _check(package: str, config: Any) -> None:
    """Refuse options before any work."""
    plain(config)
    getattr(importlib.import_module(f"{package}.config"), "check", lambda _: None)(config)


def _suggest(word: str, choices: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(choices), n=1)
    return _maybe(near, f"use one of {', '.join(choices)}")


def _usage(
    package: str, about: str, presets: Mapping[str, Any], commands: Mapping[str, str]
) -> str:
    lines = [about.strip(), "", f"usage: python -m {package} COMMAND [PRESET] [--options]", ""]
    lines += [f"  {name:10s} {text}" for name, text in commands.items()]
    lines += ["", f"presets: {', '.join(presets)} (default: default)"]
    lines += ["", "--run-dir DIR names the folder of results; the same folder again resumes."]
    lines += ["Without it: runs/NAME/PRESET-DIGEST, the digest that of the options."]
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


def options_of(prog: str, groups: Mapping[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Parse options of dataclasses with tyro; its boxed messages become one line.

    Args:
        prog: how the program is called.
        groups: name -> dataclass with the defaults; those of `sweep` begin with --sweep.
        arguments: of the command line.
    """
    import tyro

    flat = tyro.conf.arg(name="")
    fields = [
        (name, type(value) if name == "sweep" else Annotated[type(value), flat], value)
        for name, value in groups.items()
    ]
    together = dataclasses.make_dataclass("Options", fields, frozen=True)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            found: Any = tyro.cli(
                together, args=arguments, prog=prog,
                description="--run-dir DIR names the folder of results (default: runs/NAME/PRESET-"
                "DIGEST, the digest that of the options); the same again resumes.",
            )  # fmt: skip
            return {name: getattr(found, name) for name in groups}
    except SystemExit as stop:
        if not stop.code:
            raise
    said = _unboxed(complaint.getvalue())
    if said.startswith("Unrecognized options: --"):  # tyro lists the value as one more option
        said = said.partition(",")[0]
        names = [_names(o, "--sweep." if g == "sweep" else "--") for g, o in groups.items()]
        wrong = said.partition(": ")[2].replace("_", "-")
        near = difflib.get_close_matches(wrong, [*itertools.chain(*names)], n=1)
        raise ConfigError("options", said, _maybe(near, f"see {prog} --help"))
    raise ConfigError("options", said, f"see {prog} --help")


def _unboxed(complaint: str) -> str:
    """What tyro says in its box above the first rule, in one line."""
    lines = [line.strip(" │|") for line in complaint.splitlines()[1:]]
    lines = [line if line.strip("-─╭╮╰╯+") else "" for line in lines]
    text = itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines))
    return " ".join(text).rstrip(".") or "the options are wrong"


def _names(options: Any, prefix: str) -> Iterator[str]:
    """Options of a dataclass as words of a command line."""
    for field in dataclasses.fields(options):
        value, name = getattr(options, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _names(value, f"{name}.")
        else:
            yield name


def _maybe(near: Sequence[str], otherwise: str) -> str:
    return f"perhaps you meant {near[0]}" if near else otherwise


def plain(config: Any) -> dict[str, Any]:
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
