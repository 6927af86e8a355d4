"""Columns of a tree as plain arrays: their forms, their slices, and what may be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from physml.errors import DataError


class Jagged(NamedTuple):
    """Lists of different lengths, one per entry: `values[offsets[i]:offsets[i + 1]]` is list i."""

    values: Shaped[np.ndarray, "total *shape"]
    offsets: Int[np.ndarray, "entries+1"]


class Column(NamedTuple):
    """How to read one column: what `load` returns and the bytes that it takes.

    `kind` is "flat" (entries, *shape), "jagged" (`Jagged` of such values) or "text" (`Jagged` of
    UTF-8); `edges` are the entries where baskets or clusters begin. The functions take the first
    entry and the one behind the last: `nbytes` of the result, `overhead` in bytes of the largest
    block that has to be unpacked for it.
    """

    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    edges: np.ndarray
    nbytes: Callable[[int, int], int]
    overhead: Callable[[int, int], int]
    load: Callable[[int, int], np.ndarray | Jagged]


class Unsupported(Exception):
    """The column has a form that no plain array can hold."""


def part(values: np.ndarray | Jagged, start: int, stop: int) -> np.ndarray | Jagged:
    """Entries `start` to `stop - 1` of a column."""
    if not isinstance(values, Jagged):
        return values[start:stop]
    edges = values.offsets[start : stop + 1]
    return Jagged(values.values[edges[0] : edges[-1]], edges - edges[0])


def length(values: np.ndarray | Jagged) -> int:
    """Entries of a column."""
    return len(values.offsets) - 1 if isinstance(values, Jagged) else len(values)


def text(letters: Jagged) -> np.ndarray:
    """Words of UTF-8 as an array of NumPy's variable-width strings."""
    raw, edges = letters.values.tobytes(), letters.offsets.tolist()
    words = [raw[a:b].decode() for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return np.array(words, np.dtypes.StringDType())


def check_columns(path: str | Path, tree: str, columns: Mapping[str, np.ndarray | Jagged]) -> None:
    """Refuse columns that are no tree: none, of different lengths, with names ROOT cannot hold.

    Raises:
        DataError: see above; a column that has the name of another's counter.
    """
    lengths = {name: length(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        what = f"columns differ in length: {lengths}" if lengths else "no columns are given"
        raise DataError(path, what, "give the same number of entries for each")
    for name in (tree, *columns):
        if not name or set(str(name)) & set("/;\\\0"):
            raise DataError(path, f"{name!r} is no name for ROOT", "use letters, digits, _ and .")
    for name, values in columns.items():
        if isinstance(values, Jagged) and f"n{name}" in columns:
            raise DataError(path, f"'n{name}' is the counter of {name!r}", "rename that column")


def storable(path: str | Path, name: str, values: Any) -> np.ndarray | Jagged:
    """The same values as plain arrays of the machine's own byte order.

    Raises:
        DataError: objects, text, complex or half numbers; offsets that do not fit their values.
    """
    if isinstance(values, Jagged):
        numbers, offsets = np.asarray(values.values), np.asarray(values.offsets)
        fits = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 0
        fits = fits and offsets[0] == 0 and offsets[-1] == len(numbers) and numbers.ndim == 1
        if not fits or (np.diff(offsets.astype(np.int64)) < 0).any():
            what = f"offsets of {name!r} do not fit its values"
            raise DataError(path, what, "rise from 0 to the number of values (one axis)")
        return Jagged(_native(path, name, numbers), offsets.astype(np.int64))
    return _native(path, name, np.asarray(values))


def _native(path: str | Path, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf" or values.dtype.itemsize not in (1, 2, 4, 8):
        what = f"{name!r} holds {values.dtype}"
        raise DataError(path, what, "give booleans, integers, float32 or float64")
    if values.dtype == np.float16 or values.ndim == 0 or 0 in values.shape[1:]:
        what = f"{name!r} holds {values.dtype} of shape {values.shape}"
        raise DataError(path, what, "give one float32 or more per entry")
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))


def check_keys(
    path: str | Path, keys: Mapping[str, np.ndarray], columns: Mapping[str, Any]
) -> None:
    """Refuse keys that do not name each entry once.

    Raises:
        DataError: no keys; not whole numbers; different lengths; two entries of one name.
    """
    for name, values in keys.items():
        if values.ndim != 1 or values.dtype.kind not in "iu":
            what = f"key {name!r} holds {values.dtype} of shape {values.shape}"
            raise DataError(path, what, "give one whole number per entry, no floats, no NaN")
        if name in columns:
            raise DataError(path, f"{name!r} is a key and a column", "rename the column")
    if len({len(values) for values in keys.values()}) != 1:
        raise DataError(path, "keys are missing or of different lengths", "give run, event, ...")
    ranks = np.stack([np.unique(values, return_inverse=True)[1] for values in keys.values()])
    if np.unique(ranks, axis=1).shape != ranks.shape:
        raise DataError(path, f"{', '.join(keys)} name two entries alike", "add a key")
