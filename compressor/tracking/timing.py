"""Measures how long the stages of a run take, from its progress calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from compressor.progress import Progress, Stage


@dataclass(slots=True)
class Timed:
    """Forwards every call to ``inner`` and sums the seconds of each stage by name.

    A nested stage counts in both. ``clock`` returns monotonic seconds.
    """

    inner: Progress
    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Stage]:
        """Yield the stage of ``inner``; its time counts even if it fails."""
        start = self.clock()
        try:
            with self.inner.stage(name, total, unit) as stage:
                yield stage
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start

    def say(self, text: str) -> None:
        """Forward one line of text."""
        self.inner.say(text)
