"""The folder of a run: whose it is, who holds it, and what becomes of a fit found in it."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from physml.arguments import Request, plain
from physml.errors import ConfigError, DataError, PhysmlError
from physml.io.manifest import read_json, write_json
from physml.signals import INTERRUPTED, PREEMPTED

if TYPE_CHECKING:
    from pathlib import Path


def check_writable(folder: Path) -> None:
    """Refuse a run folder that cannot be made, before any work.

    Raises:
        ConfigError: a file stands in the way, or the folder above is read-only.
    """
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(folder, "cannot be written", "name another --run-dir")


def refuse_foreign(request: Request) -> None:
    """Refuse a folder of other options, and to draw where there is no run.

    Raises:
        ConfigError, DataError: says which.
    """
    noted = request.run_dir / "config.json"
    if noted.exists() and read_json(noted) != plain(request.fitted):
        what = "belongs to a run with other options"
        raise ConfigError(request.run_dir, what, "name another --run-dir")
    if request.command == "figures" and not noted.exists():
        raise DataError(request.run_dir, "holds no run", "run reproduce with this folder first")


def refuse_unfinished(request: Request) -> None:
    """Refuse to go on without a finished fit.

    Raises:
        DataError: there is none.
    """
    from physml import checkpoint

    found = checkpoint.latest(request.run_dir / "checkpoints", "step")
    if found is None or not found.metadata["place"]["finished"]:
        what = "holds no finished fit"
        raise DataError(request.run_dir, what, "run train with this folder first")


@contextlib.contextmanager
def held(request: Request) -> Iterator[None]:
    """Make the run folder and hold it; a folder that nothing came of is removed again.

    Its status.json says in the end what became of the run.

    Raises:
        ConfigError: another run holds it, or it belongs to a run with other options.
    """
    folder = request.run_dir.absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # /proc says only now that nothing can be made there
        what = f"cannot be made ({error.strerror})"
        raise ConfigError(request.run_dir, what, "name another --run-dir") from error
    with (folder / ".lock").open("w") as lock:
        if not _taken(lock):
            what = "is in use by another run"
            raise ConfigError(request.run_dir, what, "wait, or name another --run-dir")
        end = {"state": "done"}
        try:
            refuse_foreign(request)  # again: it may have become another's while we waited
            _say(request, {"state": "running"})
            yield
        except BaseException as error:
            end = _ending(error)
            raise
        finally:
            with contextlib.suppress(OSError):  # a full disk: what came before says more
                _say(request, end)
            if not (folder / "config.json").exists() and made:
                (folder / ".lock").unlink(missing_ok=True)
                for path in made:
                    with contextlib.suppress(OSError):  # something else has been put there
                        path.rmdir()


def free(folder: Path) -> bool:
    """Whether no run holds a folder."""
    try:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


def _taken(lock: TextIO) -> bool:
    """Take a lock for this process; tries again, for `free` holds it for a moment."""
    for _ in range(3):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _say(request: Request, state: Mapping[str, Any]) -> None:
    """Note in a run's folder what it does, and where; nothing in a folder that is no run's yet."""
    if request.folder != request.run_dir or not (request.run_dir / "config.json").exists():
        return
    variables = {"job": "SLURM_JOB_ID", "restarts": "SLURM_RESTART_COUNT"}
    about = {
        "command": request.command,
        "preset": request.preset,
        "experiment": request.package.rpartition(".")[2],
        "host": platform.node(),
        "process": os.getpid(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{name: os.environ[word] for name, word in variables.items() if word in os.environ},
    }
    write_json(request.run_dir / "status.json", {**about, **state})


def _ending(error: BaseException) -> dict[str, str]:
    """What became of a run that raised."""
    if isinstance(error, SystemExit):
        names: dict[object, str] = {PREEMPTED: "SIGTERM", INTERRUPTED: "Ctrl-C"}
        return {"state": "stopped", "why": names.get(error.code, f"exit code {error.code}")}
    if isinstance(error, KeyboardInterrupt):
        return {"state": "stopped", "why": "Ctrl-C"}
    name = "" if isinstance(error, PhysmlError) else f"{type(error).__name__}: "
    return {"state": "failed", "why": name + " ".join(str(error).split())}


def make_room(request: Request, origin: Mapping[str, Any]) -> None:
    """Say what becomes of the fit in the folder, and make room for a new one where it is stale.

    Raises:
        ConfigError: it was made with other options.
    """
    from physml import checkpoint, record

    folder = request.run_dir / "checkpoints"
    found = checkpoint.latest(folder, "step")
    if found is None:
        if (request.run_dir / "results.json").exists():  # of weights that come with the project
            record.set_run_aside(request.run_dir)
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


def note(request: Request, about: Mapping[str, Any] = MappingProxyType({})) -> None:
    """config.json and environment.json of the run."""
    from physml import record

    environment = record.environment(request.package, request.fitted)
    write_json(request.run_dir / "config.json", plain(request.fitted))
    write_json(request.run_dir / "environment.json", {**environment, **about})
    _say(request, {"state": "running"})


def note_applied(request: Request) -> None:
    """The same of what the fit is applied to, in its folder within the run's."""
    from physml import record

    if request.folder != request.run_dir:
        request.folder.mkdir(exist_ok=True)
        write_json(request.folder / "config.json", plain(request.config))
        environment = record.environment(request.package, request.config)
        write_json(request.folder / "environment.json", environment)
