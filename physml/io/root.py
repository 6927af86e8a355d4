"""ROOT files: named columns of TTrees and RNTuples as NumPy arrays; writes TTrees and friends.

    columns = read("events.root", "Events", ["run", "Muon_pt"], entries=(0, 1000))
    for part in iterate("events.root", "Events", {"pt": "Muon_pt"}): ...
    write("scores.root", "scores", {"score": score})

A number per entry comes as an array (entries, *shape), lists of numbers as `Jagged`, text as an
array of NumPy's variable-width strings. Other forms (lists in lists, records, unsplit classes,
pointers) are refused by name.

What notices damage. Compressed TTrees: the sums of zlib, lz4 and lzma. RNTuples: the checksums of
pages and page lists, verified here (those of header and footer by assertions in uproot, which
`python -O` removes). Uncompressed TTrees: nothing, one flipped bit is a wrong number. Whoever has a
manifest gives its `sha256=`, which is verified before the file is opened.
"""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot

from physml.errors import ConfigError, DataError, PhysmlError
from physml.io import _rntuple, _ttree, manifest
from physml.io._columns import (
    Column,
    Jagged,
    Unsupported,
    check_columns,
    check_keys,
    length,
    part,
    storable,
    text,
)

__all__ = ["Jagged", "Tree", "describe", "iterate", "read", "trees", "write", "write_friend"]

MAX_BYTES = 2 << 30  # 2 GiB for what `read` returns, unless the caller says otherwise
BLOCK_BYTES = 64 << 20  # 64 MiB for what `iterate` holds at a time
BASKET_BYTES = 4 << 20  # written at a time, all columns together
TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")
REMEDY = "restore the file, or make it again"
SHOWN = 8  # names listed in an error

Columns = Sequence[str] | Mapping[str, str]
Arrays = dict[str, np.ndarray | Jagged]


class Tree(NamedTuple):
    """What a file says about a tree: `kind` (TTree, ROOT::RNTuple), entries, top-level columns."""

    kind: str
    entries: int
    columns: int


def trees(path: str | Path, sha256: str | None = None) -> dict[str, Tree]:
    """Every tree of a file by "folder/name;cycle".

    Raises:
        DataError: missing, not ROOT, truncated, damaged.
    """
    with _opened(path, sha256) as file:
        found = {}
        for name, kind in _tree_names(file).items():
            tree = file[name]
            top = len(tree.fields if kind == "ROOT::RNTuple" else tree.branches)
            found[name] = Tree(kind, int(tree.num_entries), top)
        return found


def describe(
    path: str | Path, tree: str | None = None, sha256: str | None = None
) -> dict[str, str]:
    """C++ type of every column of a tree, by its full name; `tree` as in `read`.

    Raises:
        DataError: see `trees`; no such tree.
    """
    with _opened(path, sha256) as file:
        return {name: str(item.typename) for name, item in _items(_pick(file, path, tree))}


def read(
    path: str | Path,
    tree: str | None,
    columns: Columns,
    entries: tuple[int, int] | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    sha256: str | None = None,
) -> Arrays:
    """Named columns of a tree.

    Args:
        path: a local file.
        tree: "folder/name", of which the highest cycle counts, or "folder/name;cycle"; None for
            the only tree of the file.
        columns: names of branches or fields, or a mapping of your names to them. A name without
            its parents ("fXvtx" for "Event/fXvtx") is enough where it is the only one.
        entries: first entry and the one behind the last; all by default.
        max_bytes: limit of what is read and of the largest block unpacked for it, by the sizes that
            the file declares.
        sha256: what the file should have, in hex; verified before it is opened.

    Raises:
        DataError: missing, not ROOT, truncated, damaged; no such tree or column, a column of a form
            that no plain array holds; entries beyond the tree; more than `max_bytes`.
        ConfigError: no column asked for.
    """
    names = _names(columns)
    with _opened(path, sha256) as file:
        chosen = _pick(file, path, tree)
        wanted = _wanted(chosen, path, names)
        start, stop = _range(chosen, path, entries)
        _check_size(path, wanted, start, stop, max_bytes)
        return _load(wanted, start, stop)


def iterate(
    path: str | Path,
    tree: str | None,
    columns: Columns,
    step: int | None = None,
    entries: tuple[int, int] | None = None,
    *,
    max_bytes: int = BLOCK_BYTES,
    sha256: str | None = None,
) -> Iterator[Arrays]:
    """The same in consecutive parts, holding `max_bytes` of columns at a time.

    Args:
        path, tree, columns, entries, sha256: see `read`.
        step: entries per part (the last may be shorter); by default as many as `max_bytes` allow.
        max_bytes: of the columns held; unpacking takes about as much again.

    Raises:
        DataError, ConfigError: see `read`; `step` is no positive number.
    """
    names = _names(columns)
    if step is not None and (isinstance(step, bool) or int(step) != step or step < 1):
        raise ConfigError("step", f"is {step!r}", "give a positive number of entries")
    return _parts(path, tree, names, step, entries, max_bytes, sha256)


def write(
    path: str | Path, tree: str, columns: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write one TTree (zlib), whole or not at all.

    Args:
        path: file to write; its folder is made when needed.
        tree: name of the TTree.
        columns: name -> numbers or booleans (entries, *shape), or `Jagged` of flat values, for
            which ROOT stores a counter "n" + name.
        overwrite: replace a file that exists.

    Raises:
        DataError: the file exists; lengths differ; objects, text, complex numbers; offsets that do
            not fit their values; a name that ROOT cannot hold.
    """
    plain = {name: storable(path, name, values) for name, values in columns.items()}
    check_columns(path, tree, plain)
    if Path(path).exists() and not overwrite:
        raise DataError(path, "exists already", "choose another name, or give overwrite=True")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with manifest.atomic_path(path) as temporary:
            _write_tree(temporary, tree, plain)
    except (OSError, ValueError, TypeError) as error:
        what = f"cannot be written ({_reason(error)})"
        raise DataError(path, what, "check folder, space and names") from error


def write_friend(
    path: str | Path,
    tree: str,
    columns: Mapping[str, Any],
    keys: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write columns that belong to the entries of another tree, with the keys that name these.

    ROOT files cannot be extended here, so a friend is a file of its own. Write it in the order of
    the main tree, and `TTree::AddFriend` needs nothing else; the keys prove the order, or restore
    it.

    Args:
        path, tree, columns, overwrite: see `write`.
        keys: name -> integers (entries,), such as run, subrun, event, slice.

    Raises:
        DataError: see `write`; no keys; keys that are not whole numbers, or that name two entries.
    """
    index = {name: np.asarray(values) for name, values in keys.items()}
    check_keys(path, index, columns)
    write(path, tree, {**index, **columns}, overwrite=overwrite)


@contextmanager
def _opened(path: str | Path, sha256: str | None) -> Iterator[Any]:
    """The top folder of a file; whatever goes wrong inside becomes one DataError."""
    try:
        if sha256 is not None:
            manifest.verify(path, sha256, REMEDY)
        _check_head(path)
        handler = uproot.source.file.MultithreadedFileSource
        with uproot.open({str(path): None}, handler=handler, use_threads=False) as file:
            yield file
    except (PhysmlError, MemoryError):
        raise
    except Exception as error:  # zlib.error, struct.error, AssertionError, KeyError, OSError...
        raise DataError(path, f"cannot be read as ROOT ({_reason(error)})", REMEDY) from error


def _check_head(path: str | Path) -> None:
    """Refuse what is no ROOT file, or ends before the length that its first bytes declare."""
    if not Path(path).is_file():
        raise DataError(path, "is not a readable file", "check the path")
    with open(path, "rb") as raw:
        head, size = raw.read(20), os.fstat(raw.fileno()).st_size
    if not head.startswith(b"root") or len(head) < 20:
        what = f"is not a ROOT file (it begins with {head[:4]!r}, {size} bytes)"
        raise DataError(path, what, "check the path, or fetch the file again")
    wide = int.from_bytes(head[4:8], "big") >= 1_000_000  # files that may exceed 2 GB
    end = int.from_bytes(head[12:20] if wide else head[12:16], "big")
    if end > size:
        raise DataError(path, f"is truncated: {size} of {end} bytes", "fetch the file again")


def _tree_names(file: Any) -> dict[str, str]:
    return {name: kind for name, kind in file.classnames().items() if kind in TREES}


def _pick(file: Any, path: str | Path, tree: str | None) -> Any:
    """The tree of that name, or the only one; of several cycles the highest."""
    names = list(_tree_names(file))
    bare = sorted({name.rpartition(";")[0] for name in names})
    if not names:
        held = [f"{name} ({kind})" for name, kind in file.classnames().items()]
        raise DataError(path, "holds no tree", f"it holds {_listed(held)}")
    if tree is None and len(bare) != 1:
        raise DataError(path, f"holds {len(bare)} trees", f"name one of {_listed(bare)}")
    name = bare[0] if tree is None else tree
    if name not in bare and name not in names:
        raise DataError(path, f"holds no tree {name!r}", _advice(name, bare))
    cycles = [n for n in names if name in (n, n.rpartition(";")[0])]
    chosen = file[max(cycles, key=lambda n: int(n.rpartition(";")[2]))]
    if chosen.classname == "ROOT::RNTuple":
        _rntuple.check_page_lists(chosen)
    return chosen


def _items(tree: Any) -> list[tuple[str, Any]]:
    """All columns of a tree with their full names, "parent/child" or "parent.child"."""
    if tree.classname == "ROOT::RNTuple":  # its items() take seconds at a thousand fields
        return [(field.path, field) for field in tree.all_fields if not field.is_anonymous]
    return [(str(name), item) for name, item in tree.items()]


def _wanted(tree: Any, path: str | Path, names: Mapping[str, str]) -> dict[str, Column]:
    items = _items(tree)
    wanted = {}
    for own, name in names.items():
        found = [item for full, item in items if full == name]
        found = found or [item for _, item in items if item.name == name]
        if not found:
            what = f"{tree.name!r} holds no column {name!r}"
            raise DataError(path, what, _advice(name, [full for full, _ in items]))
        if len(found) > 1:
            same = [full for full, item in items if name in (full, item.name)]
            alike = len(set(same)) < len(same)
            remedy = "write the file with other names" if alike else f"say {_listed(same)}"
            raise DataError(path, f"{name!r} names {len(found)} columns", remedy)
        wanted[own] = _column(tree, path, name, found[0])
    return wanted


def _column(tree: Any, path: str | Path, name: str, item: Any) -> Column:
    try:
        if tree.classname == "ROOT::RNTuple":
            return _rntuple.column(tree, item.field_id)
        return _ttree.column(item, tree.num_entries)
    except MemoryError:
        raise
    except Exception as error:  # uproot names unreadable forms by errors of many types
        reason = f" {error}" if isinstance(error, Unsupported) else " has no plain form"
        children = item.fields if hasattr(item, "fields") else item.branches
        inner = [str(child.name) for child in children]
        remedy = f"take one of its parts {_listed(inner)}" if inner else "take another column"
        raise DataError(path, f"{name!r} ({item.typename}){reason}", remedy) from error


def _load(columns: Mapping[str, Column], start: int, stop: int) -> Arrays:
    found: Arrays = {}
    for name, column in columns.items():
        values = column.load(start, stop)
        is_text = column.kind == "text"
        found[name] = text(values) if is_text and isinstance(values, Jagged) else values
    return found


def _needed(columns: Mapping[str, Column], start: int, stop: int) -> int:
    """Bytes of the result and of the largest block unpacked for it."""
    result = sum(column.nbytes(start, stop) for column in columns.values())
    return result + max(column.overhead(start, stop) for column in columns.values())


def _check_size(
    path: str | Path, columns: Mapping[str, Column], start: int, stop: int, max_bytes: int
) -> None:
    needed = _needed(columns, start, stop)
    if needed > max_bytes:
        what = f"entries {start} to {stop} take {needed / 1e6:.3g} MB, over the limit of "
        remedy = "read fewer entries at a time, or raise max_bytes"
        raise DataError(path, f"{what}{max_bytes / 1e6:.3g} MB", remedy)


def _parts(
    path: str | Path,
    tree: str | None,
    names: Mapping[str, str],
    step: int | None,
    entries: tuple[int, int] | None,
    max_bytes: int,
    sha256: str | None,
) -> Iterator[Arrays]:
    with _opened(path, sha256) as file:
        chosen = _pick(file, path, tree)
        wanted = _wanted(chosen, path, names)
        start, stop = _range(chosen, path, entries)
        while start < stop:
            end = _block_end(wanted, start, stop, step, max_bytes)
            _check_size(path, wanted, start, end, max_bytes)
            block, size = _load(wanted, start, end), step or end - start
            for a in range(0, end - start, size):
                b = min(a + size, end - start)
                yield {name: part(values, a, b) for name, values in block.items()}
            start = end


def _block_end(
    columns: Mapping[str, Column], start: int, stop: int, step: int | None, max_bytes: int
) -> int:
    """Where to stop so that the block fits: in whole steps, or where a basket or cluster begins."""
    unit = step or 1
    size = min(max(unit, 1000), stop - start)
    for _ in range(4):  # the need is a constant and a slope: each round comes closer from below
        needed = max(_needed(columns, start, start + size), 1)
        size = min(max(size * max_bytes // needed // unit, 1) * unit, stop - start)
    while size > unit and _needed(columns, start, start + size) > max_bytes:
        size = max(size // 2 // unit, 1) * unit
    if step or start + size == stop:
        return start + size
    edges = next(iter(columns.values())).edges
    edges = edges[(edges > start + size // 2) & (edges <= start + size)]
    return int(edges[-1]) if len(edges) else start + size


def _names(columns: Columns) -> dict[str, str]:
    if isinstance(columns, str):
        raise ConfigError("columns", f"is the text {columns!r}", "give a list of names")
    names = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    if not names:
        raise ConfigError("columns", "names no column", "give at least one")
    return names


def _range(tree: Any, path: str | Path, entries: tuple[int, int] | None) -> tuple[int, int]:
    total = int(tree.num_entries)
    if entries is None:
        return 0, total
    try:
        start, stop = (operator.index(edge) for edge in entries)
    except (TypeError, ValueError):
        start = stop = -1
    if not 0 <= start <= stop <= total:
        what = f"entries {entries} are not a range within {total}"
        raise DataError(path, what, f"give 0 <= first <= last <= {total}")
    return start, stop


def _write_tree(path: Path, tree: str, columns: Mapping[str, np.ndarray | Jagged]) -> None:
    """One basket per column and round, so that a reader never has to unpack much."""
    total = length(next(iter(columns.values())))
    size = sum(sum(v.nbytes for v in _arrays(values)) for values in columns.values())
    rows = max(1, BASKET_BYTES * total // max(size, 1))
    types = {name: _type(values) for name, values in columns.items()}
    with uproot.recreate(path, compression=uproot.ZLIB(4)) as file:
        written = file.mktree(tree, types)
        for start in range(0, total, rows):
            stop = min(start + rows, total)
            written.extend({k: _awkward(part(v, start, stop)) for k, v in columns.items()})


def _arrays(values: np.ndarray | Jagged) -> Sequence[np.ndarray]:
    return values if isinstance(values, Jagged) else (values,)


def _type(values: np.ndarray | Jagged) -> Any:
    if isinstance(values, Jagged):
        return f"var * {values.values.dtype.name}"
    return np.dtype((values.dtype, values.shape[1:]))


def _awkward(values: np.ndarray | Jagged) -> Any:
    if not isinstance(values, Jagged):
        return values
    offsets = ak.index.Index64(values.offsets)
    return ak.Array(ak.contents.ListOffsetArray(offsets, ak.contents.NumpyArray(values.values)))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{shown}{more}" if names else "nothing"


def _advice(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    start = f"did you mean {near[0]!r}? " if near else ""
    return f"{start}it holds {_listed(names)}"


def _reason(error: Exception) -> str:
    """The first line of an error that may have many."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}".rstrip(": ")
