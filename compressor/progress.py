"""Progress of a long run. Implementations: bars on stderr, and none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from tqdm import tqdm


class StageProgress(Protocol):
    """One stage of the run."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Report that ``count`` more units of the stage are done."""


class Progress(Protocol):
    """Receives the progress of a run."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[StageProgress]:
        """Return a context that is open while the stage runs."""

    def say(self, text: str) -> None:
        """Report one line of text."""


class _Nothing:
    def advance(self, count: int = 1, note: str = "") -> None:
        del count, note


class Silent:
    """Reports nothing: for tests and for programs that show their own progress."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[StageProgress]:
        """Yield a stage that reports nothing."""
        del name, total, unit
        yield _Nothing()

    def say(self, text: str) -> None:
        """Ignore ``text``."""
        del text


class _Bar:
    def __init__(self, bar: tqdm[None]) -> None:
        self._bar = bar

    def advance(self, count: int = 1, note: str = "") -> None:
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)


def printable(text: str) -> str:
    """Return ``text`` as one line without control characters: names in it may come from an untrusted archive."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split("\n")))


class Bars:
    """Shows bars on stderr; if stderr is not a terminal, one line per stage instead."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[StageProgress]:
        """Yield a stage that advances a bar."""
        start = time.monotonic()
        shown = sys.stderr.isatty()
        with tqdm(total=total, desc=f"{name:<12}", unit=unit, file=sys.stderr, disable=not shown, leave=False) as bar:
            yield _Bar(bar)
        self.say(f"{name:<12} {time.monotonic() - start:6.1f} s")

    def say(self, text: str) -> None:
        """Write one line to stderr, above any bar."""
        tqdm.write(printable(text), file=sys.stderr)
