"""Every item passes through, and what is printed is true."""

import io
import itertools
import sys

import pytest

from physml import progress as module
from physml.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_every_item_passes(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(progress("abc", "letters")) == ["a", "b", "c"]
    assert list(progress(iter("abc"), "letters")) == ["a", "b", "c"]


def test_plain_lines_say_how_far_how_fast_and_how_long(monkeypatch, capsys):
    """A clock of 4 s per item, five done before: lines come every 10 s or more."""
    clock = itertools.count(0.0, 4.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    list(progress(range(6), "fit", done=5))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "fit: 8 of 11, 12 s left, 0.25/s, 12 s",
        "fit: 11 of 11, 0 s left, 0.25/s, 24 s",
    ]


def test_a_terminal_shows_a_bar_with_the_total(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    list(progress(range(7), "relaxing", done=3))
    assert "relaxing" in stream.getvalue() and "10/10" in stream.getvalue()
