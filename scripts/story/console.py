"""Output of the demo: chapters, lines, a waiting line, the final table."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.25


class StoryError(Exception):
    """A promise of the demo was not kept; the message says which."""


class Console:
    """Prints chapters with the time since the start."""

    def __init__(self) -> None:
        """Start the clock."""
        self._start_s = time.monotonic()
        self._chapter = 0
        self._live = sys.stderr.isatty()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._start_s

    def chapter(self, title: str) -> None:
        """Print the heading of a chapter."""
        self._chapter += 1
        print(f"\n[{self.elapsed_s:5.0f} s] {self._chapter}. {title}", flush=True)

    def say(self, text: str) -> None:
        """Print a line of the chapter."""
        print(f"          {text}", flush=True)

    def wait_for(self, what: str, look: Callable[[], T | None], *, limit_s: float) -> T:
        """Return the result of ``look``; on a terminal show what is awaited.

        Raises:
            StoryError: If there is none within ``limit_s``.
        """
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            found = look()
            if found is not None:
                self._status("")
                return found
            self._status(f"waiting for {what} … {deadline_s - time.monotonic():.0f} s left")
            time.sleep(_POLL_S)
        self._status("")
        message = f"Expected {what} within {limit_s:.0f} s, got nothing"
        raise StoryError(message)

    def _status(self, text: str) -> None:
        if self._live:
            print(f"\r\033[K          {text}", end="", file=sys.stderr, flush=True)
            if not text:
                print("\r\033[K", end="", file=sys.stderr, flush=True)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with aligned columns."""
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        print(f"\n{title}")
        for row in [head, ["-" * width for width in widths], *rows]:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        sys.stdout.flush()
