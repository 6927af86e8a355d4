"""Checkpoints: a tree of arrays with a sha256 for each, written aside and renamed.

Orbax writes the arrays; it does not notice every flipped bit on reading, hence the manifest of our
own, which is checked before Orbax sees a file. A checkpoint is a folder: `manifest.json` (format,
metadata, sha256 of each file, of each array and of itself) and `arrays/` (Orbax). Trees are nested
dicts, so no class name is stored and none can go missing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from physml.errors import DataError
from physml.io.manifest import dumps, read_json, set_aside, sha256, write_json

FORMAT = 1
REMEDY = "delete the folder and train again, or restore it from a copy"


class Checkpoint(NamedTuple):
    """What `restore` returns."""

    path: Path
    tree: dict[str, Any]  # nested dict of NumPy arrays
    metadata: dict[str, Any]


def save(path: str | Path, tree: Any, metadata: Mapping[str, Any]) -> None:
    """Write a checkpoint; a crash at any moment leaves a whole one at `path`, or none.

    Args:
        path: folder to make, named by its step. What stands there with the same arrays and
            metadata is kept; anything else there is set aside under another name.
        tree: nested dicts, NamedTuples, tuples and lists of arrays; empty containers are left out.
            NamedTuples become dicts by field name, sequences dicts by place.
        metadata: any strict JSON values.

    Raises:
        DataError: a leaf is not a numeric array, or a key is not a plain name.
    """
    final, arrays = Path(path).absolute(), _flatten(tree)
    if final.exists():
        if _same(final, arrays, metadata):
            return
        set_aside(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with _orbax() as writer:
            # Orbax refuses arrays of size zero; their shape in the manifest says all there is.
            writer.save(aside / "arrays", {k: v for k, v in arrays.items() if v.size})
        manifest = {
            "format": FORMAT,
            "metadata": dict(metadata),
            "arrays": {name: _describe(array) for name, array in arrays.items()},
            "files": _files(aside),
        }
        write_json(aside / "manifest.json", {**manifest, "sha256": _digest(manifest)})
        for path in (*(p for p in aside.rglob("*") if p.is_file()), aside):
            _sync(path)
        os.replace(aside, final)
        _sync(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _orbax() -> Any:
    """A reader and writer for this process alone; the default one waits for all processes."""
    import jax
    import orbax.checkpoint as ocp

    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(own, {own}, f"process{own}")
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _sync(path: Path) -> None:
    """Have the disk hold a file or a folder before anything relies on it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def restore(path: str | Path) -> Checkpoint:
    """Read a checkpoint and verify each array.

    Raises:
        DataError: missing, damaged, of a newer format, or arrays lacking or added.
    """
    folder = Path(path).absolute()
    manifest = read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise DataError(folder, f"format {manifest.get('format')!r} is not {FORMAT}", REMEDY)
    if manifest.pop("sha256", None) != _digest(manifest):
        raise DataError(folder, "the manifest of the checkpoint is damaged", REMEDY)
    if _files(folder) != manifest["files"]:
        raise DataError(folder, "files of the checkpoint are damaged (sha256 differs)", REMEDY)
    expected = manifest["arrays"]
    try:
        with _orbax() as reader:
            arrays = reader.restore(folder / "arrays")
    except Exception as error:  # tensorstore and orbax raise many types for one thing: damage
        raise DataError(folder, f"arrays unreadable ({type(error).__name__})", REMEDY) from error
    arrays = {name: np.asarray(array) for name, array in arrays.items()} | {
        name: np.zeros(about["shape"], about["dtype"])
        for name, about in expected.items()
        if 0 in about["shape"]
    }
    damaged = {k for k in {*arrays, *expected} if _describe(arrays.get(k)) != expected.get(k)}
    if damaged:
        what = f"arrays differ from their sha256: {', '.join(sorted(damaged))}"
        raise DataError(folder, what, REMEDY)
    return Checkpoint(folder, _unflatten(arrays), manifest["metadata"])


def latest(folder: Path, kind: str, newest: int | None = None) -> Checkpoint | None:
    """The newest whole checkpoint KIND-STEP in a folder, or None when there is none at all.

    Args:
        folder: holds the checkpoints.
        kind: first part of their names.
        newest: no later step than this.

    A damaged one is named on stderr, and the one before it is taken.

    Raises:
        DataError: all are damaged; says so of the newest.
    """
    damage: DataError | None = None
    for path in reversed(_steps(folder, kind)):
        if newest is not None and _step(path) > newest:
            continue
        try:
            found = restore(path)
        except DataError as error:
            print(f"damaged checkpoint: {error}", file=sys.stderr)
            damage = damage or error
            continue
        if damage:
            print(f"going on from {path}", file=sys.stderr)
        return found
    if damage:
        raise damage
    return None


def prune(folder: Path, kind: str, keep: int) -> None:
    """Delete all but the newest checkpoints KIND-STEP, and what killed saves have left."""
    for path in (*_steps(folder, kind)[:-keep], *folder.glob(f".{kind}-*.tmp")):
        shutil.rmtree(path)


def into(template: Any, found: Checkpoint) -> Any:
    """The arrays of a checkpoint in the containers of a template with the same names and shapes.

    Raises:
        DataError: an array is missing, unknown, or of another shape or type.
    """
    expected, arrays = _flatten(template), _flatten(found.tree)
    for name in sorted({*expected, *arrays}):
        wanted, there = (
            f"{a[name].dtype}{list(a[name].shape)}" if name in a else "absent"
            for a in (expected, arrays)
        )
        if wanted != there:
            what = f"is of another model: {name} is {there}, not {wanted}"
            raise DataError(found.path, what, "use the options it was trained with")
    return _rebuild(template, arrays, "")


def _rebuild(template: Any, arrays: Mapping[str, np.ndarray], prefix: str) -> Any:
    def below(key: str, item: Any) -> Any:
        return _rebuild(item, arrays, f"{prefix}/{key}" if prefix else key)

    if hasattr(template, "_asdict"):
        return type(template)(**{k: below(k, v) for k, v in template._asdict().items()})
    if isinstance(template, list | tuple):
        return type(template)(below(str(k), v) for k, v in enumerate(template))
    if isinstance(template, Mapping):
        return {k: below(k, v) for k, v in template.items()}
    return None if template is None else arrays[prefix]


def _steps(folder: Path, kind: str) -> list[Path]:
    named = re.compile(rf"{kind}-\d{{8,}}")
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in paths if named.fullmatch(path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _same(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bool:
    try:
        found = restore(path)
    except DataError:
        return False
    there = {name: _describe(array) for name, array in _flatten(found.tree).items()}
    same_arrays = there == {name: _describe(array) for name, array in arrays.items()}
    return same_arrays and dumps(found.metadata) == dumps(dict(metadata))


def _files(folder: Path) -> dict[str, str]:
    files = (path for path in sorted((folder / "arrays").rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _flatten(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    elif isinstance(tree, list | tuple):
        tree = {str(place): item for place, item in enumerate(tree)}
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        return {prefix: _leaf(tree, prefix)}
    flat: dict[str, np.ndarray] = {}
    for key, item in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise DataError(prefix or "checkpoint", f"bad key {key!r}", "use plain names")
        flat |= _flatten(item, f"{prefix}/{key}" if prefix else key)
    return flat


def _leaf(value: Any, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biufcV" or array.dtype.hasobject:  # V: bfloat16 and its kin
        raise DataError(name, f"a {type(value).__name__} is no numeric array", "save arrays only")
    return array


def _unflatten(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return tree


def _describe(array: np.ndarray | None) -> dict[str, Any] | None:
    if array is None:
        return None
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"sha256": digest, "shape": list(array.shape), "dtype": str(array.dtype)}


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(dumps(manifest).encode()).hexdigest()
