"""How long the stages of a run took, heard from what it says of its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from compressor.progress import Progress, Stage


@dataclass(slots=True)
class Timed:
    """Passes everything on to ``inner`` and adds up the seconds of each stage by its name.

    Stages inside others count in both. ``clock`` returns monotonic seconds.
    """

    inner: Progress
    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Stage]:
        """Yield the stage of ``inner``; its time counts also when it fails."""
        start = self.clock()
        try:
            with self.inner.stage(name, total, unit) as stage:
                yield stage
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start

    def say(self, text: str) -> None:
        """Say one line."""
        self.inner.say(text)
