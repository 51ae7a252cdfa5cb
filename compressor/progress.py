"""What a long run says while it runs. Implementations: bars on stderr, nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from tqdm import tqdm


class Stage(Protocol):
    """One part of the work under way."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that ``count`` more of the stage's units are done."""


class Progress(Protocol):
    """Where a run says what it does."""

    def stage(self, name: str, total: int, unit: str) -> AbstractContextManager[Stage]:
        """Return a context that lasts as long as the stage."""

    def say(self, text: str) -> None:
        """Say one line."""


class _Nothing:
    def advance(self, count: int = 1, note: str = "") -> None:
        del count, note


class Silent:
    """Says nothing: for tests and for programs that show their own progress."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Stage]:
        """Yield a stage that says nothing."""
        del name, total, unit
        yield _Nothing()

    def say(self, text: str) -> None:
        """Say nothing."""
        del text


class _Bar:
    def __init__(self, bar: tqdm[None]) -> None:
        self._bar = bar

    def advance(self, count: int = 1, note: str = "") -> None:
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)


def printable(text: str) -> str:
    """Return ``text`` as one line that can't move a terminal's cursor: names in it may come from anybody's archive."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split("\n")))


class Bars:
    """Bars on stderr; where stderr is no terminal, one line per stage instead."""

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Stage]:
        """Yield a stage that moves a bar."""
        start = time.monotonic()
        shown = sys.stderr.isatty()
        with tqdm(total=total, desc=f"{name:<12}", unit=unit, file=sys.stderr, disable=not shown, leave=False) as bar:
            yield _Bar(bar)
        self.say(f"{name:<12} {time.monotonic() - start:6.1f} s")

    def say(self, text: str) -> None:
        """Write one line to stderr, above any bar."""
        tqdm.write(printable(text), file=sys.stderr)
