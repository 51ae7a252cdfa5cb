"""A stream that one thread reads and the inference loop takes from: the part that camera, microphone and lines share.

Decides what happens when a stream ends, stalls or can't be opened: it is opened again, without end, after pauses that
grow from ``retry_s`` to ``RETRY_MAX_S``; this is reported once for each time that it is away, at once if nothing was
ever read and otherwise after ``AWAY_S``. Only the newest inputs are kept; older ones are dropped and counted. A stream
that waits for its reader (a file) drops nothing, and its end is final, in order or by an error: from the begin again
it would give the same inputs, and the same error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edge_agent.device.clock import Clock
from edge_agent.errors import SourceError
from edge_agent.sources import Capture, InStream, Surroundings

_LOG = logging.getLogger(__name__)
AWAY_S = 10.0
RETRY_MAX_S = 30.0
MISSING = "source_missing"
DROPPED = "source_dropped"
_CLOSE_S = 2.0


class StreamInput(NamedTuple):
    """An input and where it stands in its stream."""

    data: bytes
    place: InStream


Connect = Callable[[threading.Event], Iterator[bytes | StreamInput]]
"""Opens the stream and yields its inputs until it ends, soon after the event is set.

Raises ``SourceError`` or ``OSError`` if the stream ends with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a stream is read. ``backlog``: inputs that may wait; ``retry_s``: the first pause before it is opened again.

    ``waits``: the thread waits while the backlog is full, and the end of the stream is final, also by an error.
    ``lost``: what is reported once when inputs are dropped; "": nothing, the newest are enough.
    """

    backlog: int = 1
    retry_s: float = 1.0
    waits: bool = False
    lost: str = ""


class StreamSource:
    """Inputs of a stream, each returned once: after a crash they can't be read again."""

    wakes = True

    def __init__(self, name: str, connect: Connect, pace: Pace, clock: Clock, surroundings: Surroundings) -> None:
        """Start to read; ``name``, for people, begins the names of the inputs and stands in reports."""
        self._name, self._connect, self._pace, self._clock = name, connect, pace, clock
        self._tell, self._wake = surroundings.tell, surroundings.wake
        self._waiting: deque[Capture] = deque()
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._number = self._dropped = 0
        self._seen_s = time.monotonic()
        self._told = self._told_lost = False
        self.failure = ""  # the error that ended a stream for good
        self._thread = threading.Thread(target=self._run, name=f"source-{name}"[:15], daemon=True)
        self._thread.start()

    def take(self) -> Capture | None:
        """Return the oldest input that waits, or None. Never waits."""
        with self._change:
            if not self._waiting:
                return None
            self._change.notify()
            return self._waiting.popleft()

    def done(self, capture: Capture) -> None:
        """Do nothing: a stream returns an input once."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Do nothing: a stream returns an input once."""
        del capture, code, final
        return True

    def take_dropped(self) -> int:
        """Return how many inputs were dropped since the last call."""
        with self._change:
            dropped, self._dropped = self._dropped, 0
            return dropped

    @property
    def ended(self) -> bool:
        """Whether the stream has ended for good and all its inputs were taken."""
        return not self._thread.is_alive() and not self._waiting

    def close(self) -> None:
        """End the thread and what it started."""
        self._stop.set()
        with self._change:
            self._change.notify()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        pause_s = self._pace.retry_s
        while not self._stop.is_set():
            before, reason = self._number, "the stream ended"
            try:
                for data in self._connect(self._stop):
                    self._put(data)
                if self._pace.waits:
                    return
            except (SourceError, OSError) as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - the thread's outermost frame: a fault must not end the source
                _LOG.exception("source raised source=%s", self._name)
                reason = f"{type(error).__name__}: {error}"
            if self._stop.is_set():
                return
            if self._pace.waits:
                self.failure = (
                    f"Expected a file that can be read to its end at {self._name}, got: {reason}: write it again"
                )
                self._tell(MISSING, self.failure)
                return
            self._report_away(reason)
            pause_s = self._pace.retry_s if self._number > before else min(RETRY_MAX_S, pause_s * 2)
            self._stop.wait(pause_s)

    def _put(self, given: bytes | StreamInput) -> None:
        data, place = given if isinstance(given, StreamInput) else (given, InStream())
        if self._told:
            _LOG.info("source is back source=%s away_s=%.0f", self._name, time.monotonic() - self._seen_s)
            self._told = False
        with self._change:
            self._number += 1
            while len(self._waiting) >= self._pace.backlog and not self._stop.is_set():
                if self._pace.waits:
                    self._change.wait()
                else:
                    self._waiting.popleft()
                    self._dropped += 1
            self._waiting.append(Capture(f"{self._name} {self._clock.now_ms()} {self._number}", data, place=place))
            lost = self._dropped > 0
        self._wake()
        self._seen_s = time.monotonic()
        if lost and self._pace.lost and not self._told_lost:
            self._told_lost = True
            self._tell(DROPPED, self._pace.lost)

    def _report_away(self, reason: str) -> None:
        if self._told or (self._number and time.monotonic() - self._seen_s < AWAY_S):
            return
        self._told = True
        self._tell(MISSING, f"Expected inputs from {self._name}, got: {reason}: it is tried again without end")
