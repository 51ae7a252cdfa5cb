"""The fleet's server: answers go the way of telemetry, through the spool, within a budget of bytes.

Opt-in: without this sink no answer leaves the device. The budget grows steadily and holds at most an hour's share, or
one answer where that is more, so that a burst can't spend the day's; answers beyond it are dropped. With a filter
(``changes_only``, ``every_s``) a small budget goes a long way. Written to the spool counts as sent: there an answer has
the lowest priority, and is the first to go when the spool is full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from edge_agent.sinks import SinkSurroundings
from wire.answers import AnswerRecord, encode_answer
from wire.settings import Bound

_DAY_S = 86_400.0
_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[sinks.NAME]`` of ``kind = "fleet"``: answers to the fleet's server, within a budget."""

    max_bytes_per_day: Annotated[int, Bound(1024, 2**40)] = 1024 * 1024  # about 5,000 answers; a SIM card's budget


@dataclass(slots=True, kw_only=True)
class ToFleet:
    """Hands answers to the control process while the budget lasts. ``monotonic_s`` returns the time."""

    settings: Settings
    to_agent: Callable[[Sequence[AnswerRecord]], None]
    monotonic_s: Callable[[], float] = time.monotonic
    _left_bytes: float = field(init=False)
    _seen_s: float = field(init=False)
    _largest_bytes: int = field(default=0, init=False)  # of an answer so far

    def __post_init__(self) -> None:
        """Start with an hour's share."""
        self._left_bytes = self.settings.max_bytes_per_day / _HOURS
        self._seen_s = self.monotonic_s()

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Hand over as many of the first as the budget allows; return how many."""
        sizes_bytes = [len(encode_answer(record)) for record in records]
        self._largest_bytes = max([self._largest_bytes, *sizes_bytes])
        now_s, most = self.monotonic_s(), max(self.settings.max_bytes_per_day / _HOURS, self._largest_bytes)
        grown = (now_s - self._seen_s) * self.settings.max_bytes_per_day / _DAY_S
        self._left_bytes, self._seen_s = min(most, self._left_bytes + grown), now_s
        taken = 0
        for size_bytes in sizes_bytes:
            if size_bytes > self._left_bytes:
                break
            self._left_bytes -= size_bytes
            taken += 1
        if taken:
            self.to_agent(records[:taken])
        return taken

    def close(self) -> None:
        """Do nothing: what was handed over is in the spool."""


def open_sink(settings: Settings, around: SinkSurroundings) -> ToFleet:
    """Return the sink."""
    return ToFleet(settings=settings, to_agent=around.to_agent)
