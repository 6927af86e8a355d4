"""How a run learns that it is to end: SIGTERM of a batch system, and Ctrl-C.

A handler of Python runs only between two lines of Python. While XLA compiles, for minutes on a GPU,
a second thread answers instead; it may end the process, because nothing new is to be saved then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: a batch system may start the same command again
INTERRUPTED = 130
CODES = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}


class Stopped(BaseException):
    """Raised within `Stop.at_once`."""


class Stop(NamedTuple):
    """What a fit asks."""

    asked: Callable[[], bool] = lambda: False  # whether to end after this step
    # Within these, not to wait: the first raises `Stopped`, the second ends the process.
    at_once: Callable[[], AbstractContextManager[None]] = nullcontext
    nothing_new: Callable[[], AbstractContextManager[None]] = nullcontext


NEVER = Stop()


class Asked(NamedTuple):
    """A `Stop` that signals reach."""

    stop: Stop
    codes: list[int]  # exit codes of the signals that came, in order


@contextlib.contextmanager
def stopping() -> Iterator[Asked]:
    """Have SIGTERM and the first Ctrl-C ask a fit to stop; a second Ctrl-C breaks."""
    codes: list[int] = []
    within: set[str] = set()

    def ask(number: int, _frame: object) -> None:
        if number == signal.SIGINT and INTERRUPTED in codes:
            raise KeyboardInterrupt
        codes.append(CODES[signal.Signals(number)])
        if "at once" in within:
            raise Stopped

    @contextlib.contextmanager
    def at_once() -> Iterator[None]:
        within.add("at once")
        try:
            if codes:
                raise Stopped
            yield
        finally:
            within.discard("at once")

    @contextlib.contextmanager
    def nothing_new() -> Iterator[None]:
        within.add("nothing new")
        try:
            if codes:
                _end(codes[0])
            yield
        finally:
            within.discard("nothing new")

    def watch(number: int) -> None:
        if "nothing new" in within and number in (signal.SIGTERM, signal.SIGINT):
            _end(CODES[signal.Signals(number)])

    with _handled_by(ask, signal.SIGTERM, signal.SIGINT), _watched_by(watch):
        yield Asked(Stop(lambda: bool(codes), at_once, nothing_new), codes)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Have SIGTERM end what has nothing to save, between two lines of Python."""
    with _handled_by(lambda *_: sys.exit(PREEMPTED), signal.SIGTERM):
        yield


def _end(code: int) -> None:
    """Leave without another line of Python: the main thread may be within a compiler."""
    os.write(2, b"stopped before a step was done; the same command goes on\n")
    os._exit(code)


@contextlib.contextmanager
def _handled_by(handler: Callable[..., Any], *signals: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def _watched_by(watch: Callable[[int], None]) -> Iterator[None]:
    """Call `watch` in a thread with the number of each signal, as soon as it comes."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def read() -> None:
        while numbers := receiver.recv(64):
            for number in numbers:
                watch(number)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        thread.join()
        receiver.close()
