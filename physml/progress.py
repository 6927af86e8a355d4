"""A progress bar on long work: live in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T], description: str, total: int | None = None, done: int = 0
) -> Iterator[T]:
    """Yield `items` and show on stderr how far the work is, how fast, and the time left.

    Args:
        items: anything iterable.
        description: what is being done, one or two words.
        total: number of items, those done before included; needed when `items` has no length.
        done: items that were done before, in an earlier run.
    """
    if total is None and isinstance(items, Sized):
        total = len(items) + done
    show = _live if sys.stderr.isatty() else _plain
    yield from show(items, description, total, done)


def _live(items: Iterable[T], description: str, total: int | None, done: int) -> Iterator[T]:
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
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=done, rate="")
        for number, item in enumerate(items, start=1):
            yield item
            rate = number / max(time.monotonic() - start, 1e-9)
            bar.update(task, advance=1, rate=f"{rate:.3g}/s")


def _plain(items: Iterable[T], description: str, total: int | None, done: int) -> Iterator[T]:
    """At most one line in ten seconds, and none for work that is shorter."""
    start = last = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= 10.0:
            last = now
            rate = number / (now - start)
            left = f" of {total}, {(total - done - number) / rate:.0f} s left" if total else ""
            text = f"{description}: {done + number}{left}, {rate:.3g}/s, {now - start:.0f} s"
            print(text, file=sys.stderr, flush=True)
