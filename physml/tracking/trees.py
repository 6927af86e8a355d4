"""Events of a ROOT tree: one an entry in a jagged tree, runs of rows in a flat one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from physml.errors import DataError
from physml.io import root
from physml.io.root import Jagged

EVENT_BYTES = 512 << 20  # largest event
BLOCK_BYTES = 64 << 20  # read at a time from a flat tree

Columns = dict[str, np.ndarray]


def tree_events(
    path: Path, tree: str | None, columns: Mapping[str, str], probe: str
) -> Iterator[tuple[int, Columns]]:
    """Number and columns of each event of a tree.

    Args:
        path: ROOT file.
        tree: its name, or None for the only one.
        columns: our name -> branch; "event" numbers the events.
        probe: one of them that tells a jagged tree from a flat one.

    Raises:
        DataError: see `physml.io.root.read`; no entries; columns of one entry differ in length;
            rows of an event in two places.
    """
    shaped = root.read(path, tree, columns, (0, 0))[probe]
    if isinstance(shaped, Jagged) or shaped.ndim > 1:
        found = _jagged_events(path, tree, columns)
    elif "event" in columns:
        found = _flat_events(path, tree, columns)
    else:
        whole = root.read(path, tree, columns, max_bytes=EVENT_BYTES)
        found = iter([(0, _flat(path, whole))])
    first = next(found, None)
    if first is None:
        raise DataError(path, "holds no hits: the tree is empty", "restore the file")
    yield first
    yield from found


def integers(where: str | Path, name: str, values: np.ndarray) -> Int64[np.ndarray, "n"]:
    """Whole numbers, also those stored as floats; bits of unsigned ones are kept.

    Raises:
        DataError: not numbers, or not whole ones, or floats of 2^53 and above.
    """
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        what = f"{name!r} holds no numbers but {values.dtype}"
        raise DataError(where, what, "name another column")
    bad = ~((np.abs(values) < 2.0**53) & (values == np.round(values)))
    if bad.any():
        k = int(bad.argmax())
        raise DataError(where, f"{name!r} of row {k} is {values[k]}", "give whole numbers")
    return values.astype(np.int64)


def first_repeat(values: Int64[np.ndarray, "n"]) -> int | None:
    """Place of a value that stood before; None where all differ."""
    order = np.argsort(values, kind="stable")
    same = np.flatnonzero(np.diff(values[order]) == 0)
    return int(order[same[0] + 1]) if len(same) else None


def _jagged_events(
    path: Path, tree: str | None, columns: Mapping[str, str]
) -> Iterator[tuple[int, Columns]]:
    parts = root.iterate(path, tree, columns, step=1, max_bytes=EVENT_BYTES)
    for entry, part in enumerate(parts):
        where = f"{path}, entry {entry}"
        rows = {n: c.values if isinstance(c, Jagged) else c[0] for n, c in part.items()}
        event = np.atleast_1d(rows.pop("event", np.array(entry)))
        lengths = {name: len(c) for name, c in rows.items() if np.ndim(c)}
        if len(set(lengths.values())) > 1 or len(event) != 1:
            what = f"columns differ in length: {lengths | {'event': len(event)}}"
            raise DataError(where, what, "name columns of the same list, and one event an entry")
        n = max(lengths.values())
        full = {name: c if np.ndim(c) else np.full(n, c) for name, c in rows.items()}
        yield int(integers(where, "event", event)[0]), full


def _flat_events(
    path: Path, tree: str | None, columns: Mapping[str, str]
) -> Iterator[tuple[int, Columns]]:
    """Runs of rows with the same event; where they end is known before the first is given."""
    ends, numbers = _runs(path, tree, columns["event"])
    held: Columns = {}
    start, k = 0, 0
    for part in root.iterate(path, tree, columns, max_bytes=BLOCK_BYTES):
        rows = _flat(path, part)
        held = {n: np.concatenate([held[n], c]) for n, c in rows.items()} if held else rows
        size = len(held["event"])
        while k < len(ends) and ends[k] <= start + size:
            cut = ends[k] - start
            yield numbers[k], {n: c[:cut] for n, c in held.items() if n != "event"}
            held = {n: c[cut:] for n, c in held.items()}
            start, size, k = ends[k], size - cut, k + 1


def _runs(path: Path, tree: str | None, column: str) -> tuple[list[int], list[int]]:
    """Where each event of a flat tree ends, and its number."""
    ends: list[int] = []
    numbers: list[int] = []
    start = 0
    for part in root.iterate(path, tree, {"event": column}, max_bytes=BLOCK_BYTES):
        event = integers(path, column, _flat(path, part)["event"])
        cuts = np.flatnonzero(np.diff(event)) + 1
        found = event[np.append(0, cuts)].tolist()
        if numbers and numbers[-1] == found[0]:  # the last run goes on
            numbers.pop()
            ends.pop()
        numbers += found
        ends += [start + int(cut) for cut in (*cuts, len(event))]
        start += len(event)
    event, runs = np.unique(numbers, return_counts=True)
    if (runs > 1).any():
        what = f"rows of event {event[runs.argmax()]} stand in {runs.max()} places"
        raise DataError(path, what, f"sort the tree by {column!r}")
    return ends, numbers


def _flat(path: Path, rows: Mapping[str, np.ndarray | Jagged]) -> Columns:
    """Plain columns of a tree with a hit an entry; only a barcode may be a list, of five."""
    found = {}
    for name, column in rows.items():
        if isinstance(column, Jagged):
            lengths = np.diff(column.offsets)
            if name != "barcode" or (lengths != 5).any():
                what = f"{name!r} holds lists in a tree of one hit an entry"
                raise DataError(path, what, "name another column")
            column = column.values.reshape(-1, 5)
        elif column.ndim > 1:
            what = f"{name!r} holds {column.shape[1:]} values in a tree of one hit an entry"
            raise DataError(path, what, "name another column")
        found[name] = column
    return found
