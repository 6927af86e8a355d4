"""Columns of an open RNTuple, read page by page; each page is checked against its checksum.

uproot 5.7 reads whole clusters and leaves the page checksums alone: one flipped bit then changes a
number in silence, and ten entries of a large cluster cost all of it. Here only the pages that hold
the entries asked for are read, and a page whose XXH3 differs from the file's own is refused.
Fields, columns, clusters, pages: RNTuple Binary Format Specification 1.0 (ROOT project).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from physml.io._columns import Column, Jagged, Unsupported

LEAF, COLLECTION, RECORD = 0, 1, 2  # structural roles of a field


def column(ntuple: Any, field_id: int) -> Column:
    """Reader of a field (a model of uproot).

    Raises:
        Unsupported: lists in lists, records, variants, unsplit classes.
    """
    lists, shape, leaf = _path(ntuple, field_id)
    record = ntuple.field_records[leaf]
    numbers = _columns_of(ntuple, leaf)
    nested = numbers if lists or shape else numbers[1:]  # elements that are not entries
    if any(ntuple.column_records[k].first_element_index for k in nested):
        raise Unsupported("holds lists or arrays that begin after the first entry")
    metadata = [ntuple.get_field_metadata(k) for k in numbers]
    if len(numbers) == 2 and metadata[1].dtype_str == "uint8" and not lists and not shape:
        return _text(ntuple, numbers[0], numbers[1])
    if len(numbers) != 1 or metadata[0].dtype_str == "switch" or len(lists) > 1:
        raise Unsupported("holds lists in lists, text in lists or several types")
    if "RNTupleCardinality" in record.type_name:
        if lists or shape:
            raise Unsupported("counts the lists in lists")
        return _cardinality(ntuple, numbers[0])
    dtype = np.dtype(metadata[0].dtype_result)
    if not lists:
        return _flat(ntuple, numbers[0], dtype, shape)
    return _jagged(ntuple, lists[0], numbers[0], dtype, shape)


def _path(ntuple: Any, field_id: int) -> tuple[list[int], tuple[int, ...], int]:
    """Offset columns and array lengths on the way from the entry to the leaf, and that leaf."""
    records = ntuple.field_records
    above = [field_id]
    while (parent := records[above[0]].parent_field_id) != above[0]:
        above.insert(0, parent)
    lists: list[int] = []
    shape: list[int] = []
    for current in above[:-1]:
        if records[current].struct_role not in (COLLECTION, RECORD) or shape:
            raise Unsupported("lies in a variant or in an array of records")
        if records[current].struct_role == COLLECTION:
            lists += _columns_of(ntuple, current)
    current = field_id
    while True:
        record = records[current]
        if record.struct_role == LEAF and not record.repetition:
            return lists, tuple(shape), current
        if record.struct_role == LEAF:
            shape.append(int(record.repetition))
        elif record.struct_role == COLLECTION and not shape:
            lists += _columns_of(ntuple, current)
        else:
            raise Unsupported("is a record, a variant or an unsplit class")
        children = [k for k, r in enumerate(records) if r.parent_field_id == current != k]
        if len(children) != 1:
            raise Unsupported("is a record or a bit set")
        current = children[0]


def _columns_of(ntuple: Any, field_id: int) -> list[int]:
    """Numbers of the columns of a field (first representation); a projected field borrows them."""
    source = ntuple.field_records[field_id].source_field_id
    wanted = field_id if source is None else source
    records = enumerate(ntuple.column_records)
    return [k for k, r in records if r.field_id == wanted and r.repr_idx == 0]


def _flat(ntuple: Any, number: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Column:
    width = math.prod(shape)

    def load(start: int, stop: int) -> np.ndarray:
        spans = [(c, a * width, b * width) for c, a, b in _clusters(ntuple, start, stop)]
        return _elements(ntuple, number, dtype, spans).reshape(stop - start, *shape)

    nbytes = lambda a, b: (b - a) * width * dtype.itemsize  # noqa: E731
    return Column("flat", dtype, shape, _edges(ntuple), nbytes, _largest_page(ntuple, number), load)


def _jagged(
    ntuple: Any, lists: int, number: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Column:
    width = math.prod(shape)

    def nbytes(start: int, stop: int) -> int:
        total = sum(b - a for _, a, b in _spans(ntuple, lists, start, stop))
        return total * width * dtype.itemsize + 8 * (stop - start + 1)

    def load(start: int, stop: int) -> Jagged:
        spans = [(c, a * width, b * width) for c, a, b in _spans(ntuple, lists, start, stop)]
        values = _elements(ntuple, number, dtype, spans).reshape(-1, *shape)
        return Jagged(values, _offsets(ntuple, lists, start, stop))

    largest = _largest_page(ntuple, lists, number)
    return Column("jagged", dtype, shape, _edges(ntuple), nbytes, largest, load)


def _cardinality(ntuple: Any, lists: int) -> Column:
    dtype = np.dtype(np.int64)
    load = lambda a, b: np.diff(_offsets(ntuple, lists, a, b))  # noqa: E731
    nbytes = lambda a, b: 8 * (b - a + 1)  # noqa: E731
    return Column("flat", dtype, (), _edges(ntuple), nbytes, _largest_page(ntuple, lists), load)


def _text(ntuple: Any, lists: int, characters: int) -> Column:
    return _jagged(ntuple, lists, characters, np.dtype(np.uint8), ())._replace(kind="text")


def _edges(ntuple: Any) -> np.ndarray:
    return np.array([summary.num_first_entry for summary in ntuple.cluster_summaries], np.int64)


def _largest_page(ntuple: Any, *numbers: int) -> Callable[[int, int], int]:
    """Bytes of the largest page of these columns in the clusters of a range."""

    def largest(start: int, stop: int) -> int:
        clusters = [cluster for cluster, _, _ in _clusters(ntuple, start, stop)]
        wanted = [(c, _represented(ntuple, k, c)) for k in numbers for c in clusters]
        pages = (page for c, k in wanted for page in _pages(ntuple, k, c))
        return max((8 * page.num_elements for page in pages), default=0)

    return largest


def _clusters(ntuple: Any, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Each cluster that holds entries of the range, with the range counted from its start."""
    for number, summary in enumerate(ntuple.cluster_summaries):
        first = summary.num_first_entry
        a, b = max(start, first), min(stop, first + summary.num_entries)
        if a < b:
            yield number, a - first, b - first


def _ends(ntuple: Any, lists: int, cluster: int, a: int, b: int) -> np.ndarray:
    """Where lists a..b-1 of a cluster begin and the last ends, in elements of the cluster."""
    ends = _elements(ntuple, lists, np.dtype(np.int64), [(cluster, max(a - 1, 0), b)])
    return np.concatenate([[0], ends]) if a == 0 else ends


def _spans(ntuple: Any, lists: int, start: int, stop: int) -> list[tuple[int, int, int]]:
    """Elements of each cluster that belong to the lists of the range."""
    spans = []
    for cluster, a, b in _clusters(ntuple, start, stop):
        first = _ends(ntuple, lists, cluster, a, a + 1)[0]
        last = _ends(ntuple, lists, cluster, b - 1, b)[1]
        spans.append((cluster, int(first), int(last)))
    return spans


def _offsets(ntuple: Any, lists: int, start: int, stop: int) -> np.ndarray:
    counts = [np.diff(_ends(ntuple, lists, *part)) for part in _clusters(ntuple, start, stop)]
    offsets = np.zeros(stop - start + 1, np.int64)
    np.cumsum(np.concatenate([*counts, np.zeros(0, np.int64)]), out=offsets[1:])
    if (np.diff(offsets) < 0).any():
        raise ValueError("lists of negative length")
    return offsets


def _elements(
    ntuple: Any, number: int, dtype: np.dtype[Any], spans: list[tuple[int, int, int]]
) -> np.ndarray:
    """Elements a..b-1 of a column from each (cluster, a, b), one behind the other."""
    if any(a > b for _, a, b in spans):
        raise ValueError("lists of negative length")
    result = np.empty(sum(b - a for _, a, b in spans), dtype)
    at = 0
    for cluster, start, stop in spans:
        _fill(ntuple, number, cluster, start, stop, result[at : at + stop - start])
        at += stop - start
    return result


def _fill(
    ntuple: Any, number: int, cluster: int, start: int, stop: int, destination: np.ndarray
) -> None:
    number = _represented(ntuple, number, cluster)
    metadata = ntuple.get_field_metadata(number)
    begin = ntuple.column_records[number].first_element_index
    first = max(begin - ntuple.cluster_summaries[cluster].num_first_entry, 0)  # a late column
    filled = min(max(first - start, 0), stop - start)
    destination[:filled] = 0  # as the format says
    for index, page in enumerate(_pages(ntuple, number, cluster)):
        a, b = max(start - first, 0), min(stop - first, page.num_elements)
        if a < b:
            _check_page(ntuple, page)
            values = np.empty(page.num_elements, metadata.dtype)
            ntuple.read_page(values, cluster, number, index, metadata)
            ntuple.post_process(values, metadata)
            destination[filled : filled + b - a] = values[a:b]
            filled += b - a
        first += page.num_elements
    if filled != stop - start:
        raise ValueError(f"a column ends after {first} elements, {stop} are needed")


def _represented(ntuple: Any, number: int, cluster: int) -> int:
    """The column that this cluster uses among the representations of one field."""
    links, records = ntuple.page_link_list[cluster], ntuple.column_records
    if number >= len(links) or not links[number].suppressed:
        return number
    field = records[number].field_id
    same = [k for k, r in enumerate(records) if r.field_id == field and k < len(links)]
    return next(k for k in same if not links[k].suppressed)


def _pages(ntuple: Any, number: int, cluster: int) -> Sequence[Any]:
    """Pages of a column in a cluster: none where the column was added later."""
    links = ntuple.page_link_list[cluster]
    return links[number].pages if number < len(links) else ()


def _check_page(ntuple: Any, page: Any) -> None:
    """Compare the XXH3 behind a page with its bytes as they lie in the file."""
    if page.has_checksum:
        size = page.locator.num_bytes
        raw = _raw(ntuple, page.locator.offset, size + 8)
        if raw[size:] != xxhash.xxh3_64_digest(raw[:size])[::-1]:
            raise ValueError("the checksum of a page differs")


def check_page_lists(ntuple: Any) -> None:
    """Compare the XXH3 at the end of every page list with its bytes (uproot does not).

    Raises:
        ValueError: one differs.
    """
    for group in ntuple.footer.cluster_group_records:
        link = group.page_list_link
        chunk, _ = ntuple.read_locator(link.locator, link.env_uncomp_size)
        raw = bytes(chunk.raw_data)
        if raw[-8:] != xxhash.xxh3_64_digest(raw[:-8])[::-1]:
            raise ValueError("the checksum of a page list differs")


def _raw(ntuple: Any, offset: int, size: int) -> bytes:
    return bytes(ntuple.file.source.chunk(offset, offset + size).raw_data)
