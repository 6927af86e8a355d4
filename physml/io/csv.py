"""Tables of numbers as text, plain or gzip: named columns as NumPy arrays.

    columns = read("hits.csv.gz", {"hit_id": int, "x": float})

The first line names the columns, commas part them. Integers are exact over all of int64. Gzip
notices damage and truncation by its checksum and length. A plain file has neither: one that ends
within a line is refused, one that ends between two lines cannot be told from a shorter one. Whoever
has a manifest gives its `sha256=`.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from physml.errors import DataError
from physml.io import manifest

MAX_BYTES = 128 << 20  # of text; a TrackML table of 120,000 hits has 6 MB
REMEDY = "restore the file, or make it again"
DTYPES = {int: np.dtype(np.int64), float: np.dtype(np.float64)}


def read(
    path: str | Path,
    columns: Mapping[str, type],
    *,
    optional: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    sha256: str | None = None,
) -> dict[str, np.ndarray]:
    """Named columns of a table, in the order of `columns`.

    Args:
        path: a local file; gzip is known by its first bytes, not by its name.
        columns: name -> int (int64) or float (float64, may be NaN or infinite).
        optional: those of the names that may be missing; they are left out then.
        max_bytes: largest size of the text; a gzip file is not unpacked beyond it.
        sha256: what the file should have, in hex; verified before it is read.

    Raises:
        DataError: missing, empty, truncated (see above), damaged, larger than `max_bytes`; no
            such column, or two of that name; a row with more or fewer values than names; a value
            that is no number, or no integer where one is asked for.
    """
    if sha256 is not None:
        manifest.verify(path, sha256, REMEDY)
    head, body = _parted(path, _content(path, max_bytes))
    columns = {n: kind for n, kind in columns.items() if n in head or n not in optional}
    places = [_place(path, head, name) for name in columns]
    rows = _check_rows(path, body, len(head))
    dtypes = [(f"f{k}", DTYPES[kind]) for k, kind in enumerate(columns.values())]
    if rows == 0:
        return {n: np.zeros(0, t) for n, (_, t) in zip(columns, dtypes, strict=True)}
    found = _parsed(path, body, np.dtype(dtypes), places)
    if len(found) != rows:
        raise DataError(path, f"holds {len(found)} rows in {rows} lines", REMEDY)
    return {n: np.ascontiguousarray(found[f"f{k}"]) for k, n in enumerate(columns)}


def write(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of equal length, whole or not at all; gzip when the name ends in .gz.

    Numbers are written so that `read` gives the same ones.

    Raises:
        DataError: lengths differ; the file cannot be written.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(path, f"columns differ in length: {lengths}", "give equal lengths")
    texts = [map(repr, np.asarray(values).tolist()) for values in columns.values()]
    lines = [",".join(columns), *map(",".join, zip(*texts, strict=True)), ""]
    content = "\n".join(lines).encode()
    packed = gzip.compress(content, 6, mtime=0) if str(path).endswith(".gz") else content
    try:
        manifest.write_bytes(path, packed)
    except OSError as error:
        raise DataError(path, f"cannot be written ({error})", "check folder and space") from error


def _content(path: str | Path, max_bytes: int) -> bytes:
    with _refused(path):
        _check_file(path)
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        # Reading to the end of a gzip file verifies its checksum and length.
        with gzip.open(path) if packed else open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        what = f"holds more than the limit of {max_bytes / 1e6:.3g} MB of text"
        raise DataError(path, what, "check that it is the right file, or raise max_bytes")
    if not packed and not content.endswith((b"\n", b"\r")) and content:
        remedy = "fetch the file again, or end its last line if it is whole"
        raise DataError(path, "ends within a line: it may be truncated", remedy)
    return content


def _check_file(path: str | Path) -> None:
    if not Path(path).is_file():  # a pipe would block, a folder cannot be read
        raise DataError(path, "is not a readable file", "check the path")


@contextlib.contextmanager
def _refused(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(path, f"cannot be read ({_reason(error)})", REMEDY) from error


def _parted(path: str | Path, content: bytes) -> tuple[list[str], bytes]:
    """Names in the first line, and the lines below it, each ended by one newline."""
    content = content.replace(b"\r\n", b"\n")
    line, _, body = content.partition(b"\n")
    body = body.rstrip(b"\n")
    return _head(path, line), body + b"\n" if body else b""


def _head(path: str | Path, line: bytes) -> list[str]:
    if not line.strip():
        raise DataError(path, "is empty", REMEDY)
    try:
        names = line.decode("utf-8-sig").strip().split(",")
    except UnicodeDecodeError as error:
        raise DataError(path, "is not text", "check the path") from error
    return [name.strip().strip('"') for name in names]


def _place(path: str | Path, head: list[str], name: str) -> int:
    if head.count(name) != 1:
        what = f"holds {head.count(name) or 'no'} column{'s' * (name in head)} {name!r}"
        raise DataError(path, what, f"it holds {', '.join(map(repr, head[:20]))}")
    return head.index(name)


def _check_rows(path: str | Path, body: bytes, width: int) -> int:
    """Number of lines, each of which holds as many values as there are names."""
    text = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    commas = np.searchsorted(np.flatnonzero(text == ord(",")), ends)
    found = np.diff(commas, prepend=0) + 1
    odd = np.flatnonzero((found != width) | (np.diff(ends, prepend=-1) == 1))
    if len(odd):
        k = int(odd[0])
        blank = ends[k] == (ends[k - 1] + 1 if k else 0)
        what = f"line {k + 2} holds {0 if blank else found[k]} values, not {width}"
        raise DataError(path, what, REMEDY)
    return len(ends)


def _parsed(path: str | Path, body: bytes, dtype: np.dtype, places: list[int]) -> np.ndarray:
    try:
        text = io.StringIO(body.decode("ascii"))
        return np.loadtxt(text, dtype, delimiter=",", comments=None, usecols=places, ndmin=1)
    except (ValueError, OverflowError) as error:
        # NumPy counts the rows below the names from 0.
        line = lambda found: f"line {int(found[1]) + 2}"
        reason = re.sub(r"row (\d+)", line, _reason(error)).rstrip(".")
        raise DataError(path, f"cannot be read: {reason}", REMEDY) from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
