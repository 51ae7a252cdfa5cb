"""Which sequence numbers of a stream have arrived: a contiguous watermark and the numbers ahead of it.

An acknowledgement carries the watermark, never the highest number seen: acknowledging max(seq) after a restart loses
messages still in flight. A PUBACK does not mean durable: mosquitto sends it before it has written anything
(mosquitto.conf(5), autosave_interval).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

AHEAD_LIMIT = 4_096


class Acceptance(Enum):
    """What to do with a message."""

    NEW = "new"
    DUPLICATE = "duplicate"
    TOO_FAR_AHEAD = "too_far_ahead"


@dataclass(slots=True)
class StreamProgress:
    """The progress of one stream of one boot of one device. ``through_seq`` -1: nothing is stored yet."""

    through_seq: int = -1
    ahead: set[int] = field(default_factory=set)

    def copy(self) -> StreamProgress:
        """Return a copy to work on while a transaction is open."""
        return StreamProgress(self.through_seq, set(self.ahead))

    def offer(self, seq: int, oldest_seq: int) -> Acceptance:
        """Record ``seq``; numbers below ``oldest_seq`` will never arrive, so the watermark passes them."""
        if seq <= self.through_seq or seq in self.ahead:
            self._advance(oldest_seq)
            return Acceptance.DUPLICATE
        self._advance(oldest_seq)
        if len(self.ahead) >= AHEAD_LIMIT and seq != self.through_seq + 1:
            return Acceptance.TOO_FAR_AHEAD
        self.ahead.add(seq)
        self._advance(oldest_seq)
        return Acceptance.NEW

    def _advance(self, oldest_seq: int) -> None:
        if oldest_seq - 1 > self.through_seq:
            self.through_seq = oldest_seq - 1
            self.ahead = {seq for seq in self.ahead if seq > self.through_seq}
        while self.through_seq + 1 in self.ahead:
            self.through_seq += 1
            self.ahead.remove(self.through_seq)


def to_text(ahead: Iterable[int]) -> str:
    """Return ``ahead`` as text for the store."""
    return ",".join(str(seq) for seq in sorted(ahead))


def from_text(text: str) -> set[int]:
    """Return the numbers that ``to_text`` wrote."""
    return {int(part) for part in text.split(",") if part}
