"""Files that are whole or absent: atomic writes, strict JSON, sha256 manifests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from physml.errors import DataError

MANIFEST_FORMAT = 1


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file, read in blocks of 1 MiB.

    Raises:
        DataError: the file is missing or unreadable.
    """
    digest = hashlib.sha256()
    try:
        if not Path(path).is_file():  # a pipe would block, a folder cannot be read
            raise DataError(path, "is not a readable file", "check the path")
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read ({_reason(error)})", "check the path") from error
    return digest.hexdigest()


def dumps(value: Any) -> str:
    """Strict JSON, sorted keys: NaN and infinity are refused, tuples and paths become plain.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value has no JSON form.
    """
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=_plain) + "\n"


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: missing, unreadable, damaged, not an object, or holding NaN or a key twice.
    """
    try:
        value = json.loads(
            Path(path).read_text(encoding="utf-8"),
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_keys,
        )
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            path, f"is not a readable JSON file ({_reason(error)})", "restore the file"
        ) from error
    if not isinstance(value, dict):
        raise DataError(path, "does not hold a JSON object", "restore the file")
    return value


def set_aside(folder: Path) -> Path:
    """Rename a folder to NAME-earlier-N with the first N that is free, and return that path."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}-earlier-{number}")).exists():
        number += 1
    return folder.rename(aside)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; on leaving without error it is synced and renamed to it.

    A crash or a full disk therefore leaves the previous file, never half of a new one.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically, making its folder when needed."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON atomically (see `dumps` for what is refused)."""
    write_bytes(path, dumps(value).encode())


def write_manifest(
    folder: str | Path, files: Mapping[str, Mapping[str, Any]], **fields: Any
) -> dict[str, Any]:
    """Write `folder/manifest.json` with the sha256 and size of each file, and return it.

    Args:
        folder: where the files are.
        files: name relative to `folder` -> what to say about it (rows, columns, units), may be
            empty.
        **fields: what made the files: versions, seeds, command, units; any JSON values.

    Raises:
        DataError: a file is missing.
    """
    root = Path(folder)
    entries = {
        name: {**about, "sha256": sha256(root / name), "bytes": (root / name).stat().st_size}
        for name, about in files.items()
    }
    manifest = {**fields, "format": MANIFEST_FORMAT, "files": entries}
    write_json(root / "manifest.json", manifest)
    return manifest


def verify(path: str | Path, expected: str, remedy: str) -> None:
    """Compare a file with the sha256 it should have.

    Raises:
        DataError: it is missing or differs.
    """
    if sha256(path) != expected:
        raise DataError(path, "sha256 differs from its manifest: the file is damaged", remedy)


def read_manifest(
    folder: str | Path, remedy: str = "restore the file with git or make it again"
) -> dict[str, Any]:
    """Read `folder/manifest.json` and verify the sha256 of every file that it lists.

    Raises:
        DataError: the manifest or a file is missing or damaged, or the format is unknown.
    """
    path = Path(folder) / "manifest.json"
    manifest = read_json(path)
    if manifest.get("format") != MANIFEST_FORMAT:
        raise DataError(
            path, f"has format {manifest.get('format')!r}, not {MANIFEST_FORMAT}", remedy
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise DataError(path, "lists no files", remedy)
    for name, about in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(path, f"names a file outside its folder: {name!r}", remedy)
        if not isinstance(about, dict) or "sha256" not in about:
            raise DataError(path, f"gives no sha256 for {name!r}", remedy)
        verify(Path(folder) / name, str(about["sha256"]), remedy)
    return manifest


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and JAX scalars and arrays
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice")
    return dict(pairs)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
