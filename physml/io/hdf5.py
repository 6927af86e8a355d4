"""Dicts of arrays in HDF5: compressed, checksummed, and refused when a bit is wrong.

Plain HDF5 returns flipped bits without a word, and one flipped bit in its tables can send the
library round in circles. So files written here begin with a user block (512 bytes that HDF5 skips)
that holds the sha256 of the rest, and `read` verifies it before HDF5 sees the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from physml.errors import DataError, PhysmlError
from physml.io.manifest import atomic_path

MAX_BYTES = 2 << 30  # 2 GiB of declared values, unless the caller says otherwise
BLOCK_BYTES = 64 << 20  # 64 MiB that `iterate` holds at a time
MAX_RATIO = 1100  # gzip packs at most 1032 bytes into one
MAX_DEPTH = 16  # groups within groups
USER_BLOCK = 512  # bytes, the smallest that HDF5 allows
MAGIC = b"physml sha256 "
REMEDY = "restore the file, or make it again"


def write(
    path: str | Path,
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
    level: int = 9,
) -> None:
    """Write arrays (gzip, shuffle, Fletcher-32) atomically; equal input gives equal bytes.

    Args:
        path: file to write or replace; its folder is made when needed.
        arrays: name -> numbers, booleans or byte strings of any shape; "a/b" makes a group.
        attributes: text and numbers about the file: units, seeds, source.
        level: of gzip, 1 to 9; the highest is ten times slower on arrays that are mostly 0.

    Raises:
        DataError: an array is of another kind, such as Python objects or str.
    """
    plain = {name: _storable(name, values) for name, values in arrays.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", libver="v110", userblock_size=USER_BLOCK) as file:
            for name in sorted(plain):
                file.create_dataset(name, data=plain[name], **_filters(plain[name], level))
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
    with _opened(path) as file:
        return _read_all(file, path, max_bytes)


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Attributes of a file.

    Raises:
        DataError: missing, not HDF5, or damaged.
    """
    with _opened(path) as file:
        return dict(file.attrs)


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Declared shape of every array of a file, by name; nothing of their values is read.

    Raises:
        DataError: see `read`, sizes aside.
    """
    with _opened(path) as file:
        return {name: tuple(item.shape) for name, item in _datasets(file, path, "", set())}


def iterate(
    path: str | Path,
    names: Sequence[str],
    step: int | None = None,
    rows: tuple[int, int] | None = None,
    max_bytes: int = BLOCK_BYTES,
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of the same length in consecutive blocks of rows; a file of any size fits in memory.

    Args:
        path: a file.
        names: arrays wanted.
        step: rows per block (the last may be shorter); by default as many as `max_bytes` allow.
        rows: first row and the one behind the last; all by default.
        max_bytes: of the values of a block, and of a chunk of the file.

    Raises:
        DataError: see `read`; an array is missing, lengths differ, no such rows, a row or chunk is
            larger than `max_bytes`, or an array declares far more than the file stores.
    """
    with _opened(path) as file:
        held = dict(_datasets(file, path, "", set()))
        items = {name: _wanted(path, held, name) for name in names}
        lengths = {name: len(item) for name, item in items.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(path, f"arrays differ in length: {lengths}", REMEDY)
        start, stop = rows or (0, lengths[names[0]])
        if not 0 <= start <= stop <= lengths[names[0]]:
            what = f"rows {start} to {stop} are not within {lengths[names[0]]}"
            raise DataError(path, what, "give 0 <= first <= last <= rows")
        size = _rows_of_block(path, items, step, max_bytes)
        for a in range(start, stop, size):
            b = min(a + size, stop)
            yield {name: np.asarray(item[a:b]) for name, item in items.items()}


def _wanted(path: str | Path, held: Mapping[str, h5py.Dataset], name: str) -> h5py.Dataset:
    """An array with rows whose declared size the file can hold."""
    if name not in held:
        raise DataError(path, f"holds no array {name!r}", f"it holds {', '.join(held) or 'none'}")
    item = held[name]
    if item.ndim == 0:
        raise DataError(path, f"{name!r} is a single value", "give an array with rows")
    declared, stored = int(item.nbytes), int(item.id.get_storage_size())
    if declared > max(MAX_BYTES, MAX_RATIO * stored):
        what = f"{name!r} declares {declared / 1e9:.1f} GB and stores {stored} bytes"
        raise DataError(path, what, REMEDY)
    return item


def _rows_of_block(
    path: str | Path, items: Mapping[str, h5py.Dataset], step: int | None, max_bytes: int
) -> int:
    """Rows of a block; a chunk has to fit too, for HDF5 unpacks it whole."""
    row = sum(math.prod(item.shape[1:]) * int(item.dtype.itemsize) for item in items.values())
    chunk = max(math.prod(i.chunks or ()) * int(i.dtype.itemsize) for i in items.values())
    needed = max(row * (step or 1), chunk)
    if needed > max_bytes:
        what = f"a block or chunk takes {needed / 1e6:.3g} MB, over the limit of"
        remedy = "read fewer rows at a time, or raise max_bytes"
        raise DataError(path, f"{what} {max_bytes / 1e6:.3g} MB", remedy)
    return step or int(max_bytes // max(row, 1))


@contextmanager
def _opened(path: str | Path) -> Iterator[h5py.File]:
    try:
        if not Path(path).is_file():
            raise DataError(path, "is not a readable file", "check the path")
        with open(path, "rb") as raw:
            head = raw.read(USER_BLOCK)
            found = head.removeprefix(MAGIC)[:64]
            if head.startswith(MAGIC) and found != _digest(raw).encode():
                raise DataError(path, "is damaged (its sha256 differs)", REMEDY)
        with h5py.File(path, "r") as file:
            yield file
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


def _filters(array: np.ndarray, level: int) -> dict[str, Any]:
    """Compression and a sum per chunk; HDF5 has no chunks of scalars and of nothing."""
    if array.ndim == 0 or array.size == 0:
        return {}
    return {"compression": "gzip", "compression_opts": level, "shuffle": True, "fletcher32": True}


def _digest(raw: BinaryIO) -> str:
    """Hex sha256 of everything behind the user block."""
    total = hashlib.sha256()
    raw.seek(USER_BLOCK)
    while block := raw.read(1 << 20):
        total.update(block)
    return total.hexdigest()
