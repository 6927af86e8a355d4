"""SLURM jobs: a readable script beside the results, defaults of the site from one small file.

    python -m experiments.NAME submit PRESET --nodes 2 --time 04:00:00
    python -m physml.cluster --folder made --elements 8 -- python -m data_scripts.NAME --folder made

The program saves and exits with 75 when it is stopped; the script then queues itself again. What
preemption does in which setting of SLURM was measured; docs/clusters.md has the table.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from physml.errors import ConfigError, PhysmlError, TrainingError
from physml.options import check_ranges

TIME = r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}"  # minutes, minutes:seconds, ..., days-hours, ...
SITE = Path("physml") / "site.toml"  # in the folder of user settings; PHYSML_SITE names another


@dataclass(frozen=True)
class Job:
    """What to ask SLURM for; a site.toml sets other defaults under the same names."""

    nodes: int = 1
    tasks_per_node: int = 0  # processes; 0: one per GPU, or one where there is none
    cpus_per_task: int = 1  # cores of a process
    gpus_per_node: int = 0
    memory: str = ""  # of a node, such as 64G
    time: str = "01:00:00"  # limit; a run that needs more saves itself and is queued again
    partition: str = ""
    account: str = ""
    qos: str = ""
    at_once: int = 0  # elements of an array that may run together; 0: all
    restarts: int = 50  # times that a stopped run is queued again, before its job counts as failed
    notice: int = 120  # seconds before the time limit at which the run is told to save
    setup: tuple[str, ...] = ()  # lines of shell before the run, such as "module load cuda"
    sbatch: tuple[str, ...] = ()  # further options, without dashes: "exclusive", "constraint=a100"
    dry_run: bool = False  # write and show the script only

    @property
    def processes(self) -> int:
        """Of one node."""
        return self.tasks_per_node or self.gpus_per_node or 1


@dataclass(frozen=True)
class Choice:
    """What a job runs."""

    run: Literal["reproduce", "train", "evaluate", "sweep"] = "reproduce"  # the command to run


@dataclass(frozen=True)
class Array:
    """Where the script of any other command goes, and how often it runs."""

    folder: Path  # of the script and its output
    elements: int = 0  # of an array job; 0: one job


def site_defaults() -> Job:
    """The defaults, with those of the site's file where there is one.

    Raises:
        ConfigError: the file cannot be read, or holds what is no option of a job.
    """
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = Path(os.environ.get("PHYSML_SITE") or Path(home) / SITE)
    if not path.exists() and "PHYSML_SITE" not in os.environ:
        return Job()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read ({error})", "correct or remove it") from error
    types = {field.name: type(field.default) for field in dataclasses.fields(Job)}
    for name, value in found.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1) or sorted(types)
            raise ConfigError(path, f"{name} is no option of a job", f"use {', '.join(near)}")
        wanted = list if types[name] is tuple else types[name]
        if type(value) is not wanted:
            raise ConfigError(path, f"{name} is {value!r}", f"give a {wanted.__name__}")
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    return Job(**given)


def check(job: Job) -> None:
    """Refuse what sbatch would refuse later, or misread.

    Raises:
        ConfigError: names the option.
    """
    ranges = {
        "nodes": (1, 10**5), "tasks_per_node": (0, 10**4), "cpus_per_task": (1, 10**4),
        "gpus_per_node": (0, 100), "at_once": (0, 10**6), "notice": (0, 65535),
        "restarts": (0, 10**6),
    }  # fmt: skip
    check_ranges(job, ranges)
    if not re.fullmatch(TIME, job.time):
        raise ConfigError(f"--time {job.time}", "is no time for SLURM", "write 04:00:00 or 1-12")
    for field in dataclasses.fields(job):
        value = getattr(job, field.name)
        words = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) and not all(isinstance(word, str) for word in value):
            what = f"holds {value}"
            raise ConfigError(f"--{field.name}", what, "give lines of text")
        if any(isinstance(word, str) and "\n" in word for word in words):
            what, remedy = "holds more than one line", "give one line each"
            raise ConfigError(f"--{field.name.replace('_', '-')}", what, remedy)
    if job.gpus_per_node % job.processes and job.gpus_per_node:
        what = f"cannot be shared by {job.processes} processes"
        raise ConfigError(f"--gpus-per-node {job.gpus_per_node}", what, "give a multiple")


def script(job: Job, name: str, command: Sequence[str], folder: Path, elements: int = 0) -> str:
    """The sbatch script that runs a command from the current folder, and queues itself again.

    Args:
        job: what to ask for.
        name: of the job.
        command: words of the command line.
        folder: for the output of the job.
        elements: of an array; 0: no array.
    """
    output = folder.absolute() / ("slurm-%A_%a.out" if elements else "slurm-%j.out")
    limit = f"%{job.at_once}" if job.at_once else ""
    options = {
        "job-name": name,
        "nodes": job.nodes,
        "ntasks-per-node": job.processes,
        "cpus-per-task": job.cpus_per_task,
        "gpus-per-node": job.gpus_per_node or "",
        "mem": job.memory,
        "time": job.time,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "array": f"0-{elements - 1}{limit}" if elements else "",
        "output": f'"{output}"' if " " in str(output) else output,
        "signal": f"TERM@{job.notice}",
    }
    # The number of the last element of an array is that of the array too, and would queue it all.
    own = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if elements else "$SLURM_JOB_ID"
    asked = [f"--{word}={value}" for word, value in options.items() if value != ""]
    asked += ["--requeue", "--open-mode=append", *(f"--{word}" for word in job.sbatch)]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in asked),
        "",
        f"cd {shlex.quote(os.getcwd())}",
        *job.setup,
        "",
        f"srun --kill-on-bad-exit=1 --cpus-per-task={job.cpus_per_task} {shlex.join(command)} &",
        "wait $!",
        "code=$?",
        "# 75: stopped and saved. 143: stopped before Python could answer; nothing was to save.",
        f"again=$(( (code == 75 || code == 143) && ${{SLURM_RESTART_COUNT:-0}} < {job.restarts} ))",
        "if [ $again -eq 1 ]; then",
        f"    scontrol requeue {own}",
        "    sleep 60  # SLURM ends this job meanwhile",
        "fi",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def submit(job: Job, text: str, path: Path) -> str | None:
    """Write a script, show it, and hand it to sbatch; the job's number, None for a dry run.

    Raises:
        ConfigError: there is no sbatch here.
        TrainingError: sbatch refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text, end="")
    print(f"script in {path}", file=sys.stderr)
    if job.dry_run:
        return None
    if shutil.which("sbatch") is None:
        remedy = f"on a node that has it: sbatch {path}"
        raise ConfigError("sbatch", "is not installed here", remedy)
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise TrainingError("sbatch", done.stderr.strip(), f"correct the options, or {path}")
    number = done.stdout.strip().partition(";")[0]
    print(f"job {number}")
    return number


def without(words: Sequence[str], options: Any) -> list[str]:
    """Words of a command line without those of the fields of a dataclass."""
    fields = [field.name for field in dataclasses.fields(options)]
    names = {*fields, *(f"no_{name}" for name in fields)}
    kept, keep = [], True
    for word in words:
        if word.startswith("--"):
            keep = word[2:].partition("=")[0].replace("-", "_") not in names
        if keep:
            kept.append(word)
    return kept


def share(tasks: Sequence[Any]) -> Sequence[Any]:
    """The tasks of this element of an array job: every n-th; all of them outside of an array."""
    if "SLURM_ARRAY_TASK_COUNT" not in os.environ:
        return tasks
    first = int(os.environ["SLURM_ARRAY_TASK_ID"]) - int(os.environ["SLURM_ARRAY_TASK_MIN"])
    return tasks[first :: int(os.environ["SLURM_ARRAY_TASK_COUNT"])]


def main(arguments: Sequence[str]) -> None:
    """Hand over a job that runs any command: options, then --, then the command.

    Raises:
        ConfigError: there is no command, or an option is wrong.
    """
    from physml.arguments import options_of

    words = list(arguments)
    place = words.index("--") if "--" in words else len(words)
    own, command = words[:place], words[place + 1 :]
    groups = {"job": site_defaults(), "array": Array(Path("jobs"))}
    found = options_of("python -m physml.cluster", groups, own)
    job, array = found["job"], found["array"]
    check(job)
    check_ranges(array, {"elements": (0, 10**6)})
    if not command:
        raise ConfigError("the command", "is missing", "put it after --")
    if command[0] in ("python", "python3"):
        command[0] = sys.executable
    name = array.folder.absolute().name
    job = dataclasses.replace(job, tasks_per_node=job.tasks_per_node or 1)
    text = script(job, name, command, array.folder, array.elements)
    submit(job, text, array.folder / "submit.sh")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (PhysmlError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
