"""A progress bar on long work: live in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show how far the work is, on stderr.

    Args:
        items: anything iterable.
        description: what is being done, one or two words.
        total: number of items, when `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _live(items, description, total)
    else:
        yield from _plain(items, description, total)


def _live(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, description=description, total=total)


def _plain(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    """At most one line in ten seconds, and none for work that is shorter."""
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= 10.0:
            last = now
            of = f" of {total}" if total else ""
            print(f"{description}: {done}{of} in {now - start:.0f} s", file=sys.stderr, flush=True)
