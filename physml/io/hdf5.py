"""Dicts of arrays in HDF5: compressed, checksummed, and refused when a bit is wrong.

Plain HDF5 returns flipped bits without a word, and one flipped bit in its tables can send the
library round in circles. So files written here begin with a user block (512 bytes that HDF5 skips)
that holds the sha256 of the rest, and `read` verifies it before HDF5 sees the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import h5py
import numpy as np

from physml.errors import DataError, PhysmlError
from physml.io.manifest import atomic_path

T = TypeVar("T")

MAX_BYTES = 2 << 30  # 2 GiB of declared values, unless the caller says otherwise
MAX_DEPTH = 16  # groups within groups
USER_BLOCK = 512  # bytes, the smallest that HDF5 allows
MAGIC = b"physml sha256 "
REMEDY = "restore the file, or make it again"


def write(
    path: str | Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> None:
    """Write arrays (gzip, shuffle, Fletcher-32) atomically; equal input gives equal bytes.

    Args:
        path: file to write or replace; its folder is made when needed.
        arrays: name -> numbers, booleans or byte strings of any shape; "a/b" makes a group.
        attributes: text and numbers about the file: units, seeds, source.

    Raises:
        DataError: an array is of another kind, such as Python objects or str.
    """
    plain = {name: _storable(name, values) for name, values in arrays.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", libver="v110", userblock_size=USER_BLOCK) as file:
            for name in sorted(plain):
                file.create_dataset(name, data=plain[name], **_filters(plain[name]))
            for name, value in sorted((attributes or {}).items()):
                file.attrs[name] = value
        with temporary.open("r+b") as raw:
            digest = _digest(raw)
            raw.seek(0)
            raw.write(MAGIC + digest.encode() + b"\n")


def read(path: str | Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """All arrays of a file, by name ("a/b" inside a group).

    Raises:
        DataError: missing, not HDF5, truncated, damaged; values beyond `max_bytes` declared
            (found before any memory is taken); links, external or virtual storage, objects.
    """
    return _guarded(path, lambda file: _read_all(file, path, max_bytes))


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Attributes of a file.

    Raises:
        DataError: missing, not HDF5, or damaged.
    """
    return _guarded(path, lambda file: dict(file.attrs))


def _guarded(path: str | Path, action: Callable[[h5py.File], T]) -> T:
    try:
        if not Path(path).is_file():
            raise DataError(path, "is not a readable file", "check the path")
        with open(path, "rb") as raw:
            head = raw.read(USER_BLOCK)
            found = head.removeprefix(MAGIC)[:64]
            if head.startswith(MAGIC) and found != _digest(raw).encode():
                raise DataError(path, "is damaged (its sha256 differs)", REMEDY)
        with h5py.File(path, "r") as file:
            return action(file)
    except PhysmlError:
        raise
    except Exception as error:  # damage surfaces as OSError, ValueError, KeyError, RuntimeError...
        reason = str(error).partition("(")[2].rstrip(")'\"") or str(error)
        raise DataError(path, f"cannot be read as HDF5 ({reason})", REMEDY) from error


def _read_all(file: h5py.File, path: str | Path, max_bytes: int) -> dict[str, np.ndarray]:
    datasets = dict(_datasets(file, path, "", set()))
    declared = sum(_bytes_needed(item) for item in datasets.values())
    if declared > max_bytes:
        what = f"declares {declared / 1e9:.1f} GB, over the limit of {max_bytes / 1e9:.1f} GB"
        raise DataError(path, what, "read it in parts, or raise max_bytes")
    return {name: _values(item) for name, item in datasets.items()}


def _values(item: h5py.Dataset) -> np.ndarray:
    """Values in the type that the file declares; `item[()]` would change that of a scalar."""
    values = np.empty(item.shape, item.dtype)
    if values.size:
        item.read_direct(values)
    return values


def _bytes_needed(item: h5py.Dataset) -> int:
    """Memory to read a dataset: its values, or one chunk where that is larger."""
    values = max(int(item.size), math.prod(item.chunks or ()))
    return values * int(item.dtype.itemsize)


def _datasets(
    group: h5py.Group, path: str | Path, prefix: str, seen: set[int]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """All datasets below a group; nothing that leads out of the file or round in a circle."""
    if prefix.count("/") > MAX_DEPTH:
        raise DataError(path, f"nests groups deeper than {MAX_DEPTH}", REMEDY)
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:  # hard links can make circles, or a few groups into millions
        raise DataError(path, f"{prefix!r} is a group met before", "copy it as a group of its own")
    seen.add(address)
    for key in group:
        name = f"{prefix}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise DataError(path, f"{name!r} is a link", "copy its data into the file")
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from _datasets(item, path, f"{name}/", seen)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise DataError(path, f"{name!r} lies in other files", "copy it into this one")
            if item.dtype.hasobject or item.shape is None:
                raise DataError(path, f"{name!r} holds no plain array", "store numbers or bytes")
            yield name, item


def _storable(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biufcS":
        what = f"{array.dtype} cannot be stored"
        raise DataError(name, what, "give numbers, booleans or byte strings")
    return array


def _filters(array: np.ndarray) -> dict[str, Any]:
    """Compression and a sum per chunk; HDF5 has no chunks of scalars and of nothing."""
    if array.ndim == 0 or array.size == 0:
        return {}
    return {"compression": "gzip", "compression_opts": 9, "shuffle": True, "fletcher32": True}


def _digest(raw: BinaryIO) -> str:
    """Hex sha256 of everything behind the user block."""
    total = hashlib.sha256()
    raw.seek(USER_BLOCK)
    while block := raw.read(1 << 20):
        total.update(block)
    return total.hexdigest()
