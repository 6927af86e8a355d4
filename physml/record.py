"""What a run leaves beside its checkpoints: on what its numbers depend, and the results."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import io
import json
import os
import platform
import subprocess
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from physml.errors import DataError
from physml.io.manifest import read_json, sha256, verify, write_bytes, write_json

if TYPE_CHECKING:
    from physml.run import Results

PACKAGES = (
    "physml", "jax", "jaxlib", "numpy", "scipy", "ase", "vesin", "flax", "optax",
    "orbax-checkpoint", "h5py", "matplotlib",
)  # fmt: skip
VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS", "JAX_PLATFORMS",
    "JAX_ENABLE_X64", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def environment(package: str, config: Any) -> dict[str, Any]:
    """On what a number depends beside the config: versions, device, threads, git, code, data."""
    import jax

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "versions": versions,
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "git": git_state(),
        **origin(package, config),
    }


def origin(package: str, config: Any) -> dict[str, Any]:
    """What the bits of a fit come from: sha256 of code and data, devices that share batches."""
    import jax

    return {
        "code_sha256": code_sha256(package),
        "data_sha256": data_sha256(config),
        "devices": jax.device_count(),
    }


def code_sha256(package: str) -> str:
    """One sha256 over the names and contents of the Python files of physml and of a package.

    Files that only draw are left out.
    """
    roots = [Path(__file__).parent, Path(str(importlib.import_module(package).__file__)).parent]
    total = hashlib.sha256()
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            if path.name != "figures.py" and path.parent.name != "plots":
                total.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    return total.hexdigest()


def data_sha256(config: Any) -> dict[str, str]:
    """The sha256 of every file that a path of the config names, or that lies in that folder."""
    found: dict[str, str] = {}
    for option, path in dataclasses.asdict(config).items():
        if isinstance(path, Path):
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            found |= {f"{option}/{f.name}": sha256(f) for f in files if f.is_file()}
    return found


def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout."""

    def ask(*words: str) -> str:
        root = Path(__file__).parent
        return subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def set_run_aside(folder: Path) -> Path:
    """Move all that a fit has left in a run folder to its folder earlier-N, and return that."""
    number = 1
    while (aside := folder / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    # The checkpoints go last: while they stand, a call that was killed here is made again.
    names = ("results.json", "results.npz", "figures", "metrics.jsonl", "checkpoints")
    others = (*sorted(folder.glob("*.root")), *sorted(folder.glob("applied-*")))
    for path in (*others, *(folder / name for name in names)):
        if path.exists():
            path.rename(aside / path.name)
    return aside


@contextlib.contextmanager
def open_log(folder: Path | None, length: int, digest: str) -> Iterator[BinaryIO]:
    """metrics.jsonl in a folder, cut back to `length` bytes; in memory without a folder.

    Raises:
        DataError: the sha256 of these bytes is not `digest`.
    """
    if folder is None:
        yield io.BytesIO()
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.jsonl"
    with path.open("a+b") as log:
        log.seek(0)
        if length and not log.seek(0, io.SEEK_END):
            path.unlink()
            remedy = "restore the file, or move the checkpoints away and fit again"
            raise DataError(path, "is missing or empty", remedy)
        log.seek(0)
        if length and hashlib.sha256(log.read(length)).hexdigest() != digest:
            remedy = "restore the file, or name another --run-dir"
            raise DataError(path, "is not the log that its checkpoint knows", remedy)
        if log.seek(0, io.SEEK_END) > length:
            log.truncate(length)
        log.seek(length)
        yield log


def log_place(log: BinaryIO) -> dict[str, Any]:
    """Length and sha256 of a log, for the checkpoint."""
    length = log.tell()
    with contextlib.suppress(io.UnsupportedOperation):  # a log in memory
        os.fsync(log.fileno())
    log.seek(0)
    digest = hashlib.sha256(log.read(length)).hexdigest()
    return {"log_bytes": length, "log_sha256": digest}


def write_metrics(log: BinaryIO, step: int, metrics: Mapping[str, float]) -> None:
    """Append one line of strict JSON to a log."""
    log.write(json.dumps({"step": step, **metrics}, allow_nan=False).encode() + b"\n")
    log.flush()


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """The log of a fit: metric -> (n, 2) array of step and value; empty without a log.

    Raises:
        DataError: a line is damaged; a last one without its end is left out.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break  # a run that is at it has not written the rest yet
        try:
            record = {name: float(value) for name, value in json.loads(line).items()}
            step = record.pop("step")
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            remedy = "restore the file, or name another --run-dir"
            raise DataError(path, f"line {number} is damaged ({error})", remedy) from None
        for name, value in record.items():
            found.setdefault(name, []).append((step, value))
    return {name: np.array(values) for name, values in found.items()}


def write_results(folder: Path, results: Results, claims: Sequence[Mapping[str, Any]]) -> None:
    """Write results.npz (arrays), then results.json (numbers, claims), each in one move.

    Raises:
        DataError: a number is not finite, or an array holds Python objects.
    """
    numbers = {name: float(value) for name, value in results["numbers"].items()}
    bad = [name for name, value in numbers.items() if not np.isfinite(value)]
    if bad:
        raise DataError("results", f"{', '.join(bad)} not finite", "check the data")
    arrays = {name: np.asarray(values) for name, values in results["arrays"].items()}
    objects = [name for name, values in arrays.items() if values.dtype.hasobject]
    if objects:
        raise DataError("results", f"{', '.join(objects)} no plain array", "return numbers or text")
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_bytes(folder / "results.npz", content.getvalue())
    found = {"numbers": numbers, "claims": list(claims)}
    write_json(folder / "results.json", {**found, "arrays_sha256": sha256(folder / "results.npz")})


def write_tables(folder: Path, tables: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write each table as NAME.root with a tree of the same name, in place of an earlier one."""
    for name, columns in tables.items():
        from physml.io import root

        root.write(folder / f"{name}.root", name, columns, overwrite=True)


def read_results(folder: Path) -> Results:
    """Results of a finished run.

    Raises:
        DataError: the run is not finished, or a file is damaged.
    """
    remedy = "run evaluate with this folder again"
    noted = read_json(folder / "results.json")
    if not isinstance(noted.get("numbers"), dict):
        raise DataError(folder / "results.json", "holds no numbers", remedy)
    verify(folder / "results.npz", str(noted.get("arrays_sha256")), remedy)
    try:
        with np.load(folder / "results.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(folder / "results.npz", f"is damaged ({error})", remedy) from None
    return {"numbers": noted["numbers"], "arrays": arrays}
