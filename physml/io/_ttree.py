"""Columns of an open TTree, with the memory that a range of entries takes by its baskets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from physml.io._columns import Column, Jagged, Unsupported


def column(branch: Any, entries: int) -> Column:
    """Reader of a branch (a model of uproot) of a tree of so many entries.

    Raises:
        Unsupported: records, groups, lists in lists, other entries than the tree.
    """
    if branch.num_entries != entries:
        raise Unsupported(f"has {branch.num_entries} of the tree's {entries} entries")
    kind, dtype, shape = _plain(branch.interpretation.awkward_form(branch.file))

    def nbytes(start: int, stop: int) -> int:
        if kind == "flat":
            return (stop - start) * math.prod(shape) * dtype.itemsize
        sizes, shares = _baskets(branch, start, stop)
        return int(sizes @ shares) + 8 * (stop - start + 1)

    def overhead(start: int, stop: int) -> int:
        return int(_baskets(branch, start, stop)[0].max(initial=0.0))

    def load(start: int, stop: int) -> np.ndarray | Jagged:
        library = "np" if kind == "flat" else "ak"
        found = branch.array(entry_start=start, entry_stop=stop, library=library, array_cache=None)
        if len(found) != stop - start:
            raise ValueError(f"{branch.name!r} gives {len(found)} of {stop - start} entries")
        return np.asarray(found) if kind == "flat" else _jagged(found)

    return Column(kind, dtype, shape, np.asarray(branch.entry_offsets), nbytes, overhead, load)


def _plain(form: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    """Kind, type and shape of an awkward form that is plain enough."""
    if form.is_list and not form.is_regular:
        if form.parameter("__array__") == "string":
            return "text", np.dtype(np.uint8), ()
        kind, dtype, shape = _plain(form.content)
        if kind == "flat" and form.parameter("__array__") is None:
            return "jagged", dtype, shape
    elif form.is_regular:
        kind, dtype, shape = _plain(form.content)
        if kind == "flat":
            return kind, dtype, (form.size, *shape)
    elif form.is_numpy:
        return "flat", np.dtype(form.primitive), tuple(form.inner_shape)
    raise Unsupported("is a record or holds lists in lists")


def _baskets(branch: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Unpacked bytes of the baskets touched (the mean ratio of the branch), and the share asked."""
    edges = np.asarray(branch.entry_offsets)
    first, last = np.searchsorted(edges, [start, stop], side="left")
    first = max(int(np.searchsorted(edges, start, side="right")) - 1, 0)
    touched = range(first, max(int(last), first) if stop > start else first)
    ratio = max(branch.uncompressed_bytes / max(branch.compressed_bytes, 1), 1.0)
    sizes = np.array([ratio * branch.basket_compressed_bytes(k) for k in touched], float)
    low, high = edges[first : first + len(touched)], edges[first + 1 : first + 1 + len(touched)]
    overlap = np.minimum(high, stop) - np.maximum(low, start)
    return sizes, overlap / np.maximum(high - low, 1)


def _jagged(array: Any) -> Jagged:
    layout = array.layout.to_packed()
    values = np.asarray(type(array)(layout.content))
    return Jagged(values, np.asarray(layout.offsets).astype(np.int64))
