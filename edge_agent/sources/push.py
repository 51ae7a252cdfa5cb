"""Inputs that applications send to the local interface: ``POST /v1/inputs``.

Decides what is kept: a bounded number of inputs and bytes, in memory alone. What does not fit is refused, so that the
sender knows; nothing is dropped. Inputs that wait are lost when the process ends.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from dataclasses import dataclass
from typing import Annotated

from edge_agent.device.clock import Clock
from edge_agent.sources import Capture, InStream, Surroundings
from wire.settings import Bound

ALONE = InStream(last=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[source]`` of ``kind = "push"``: inputs come by ``POST /v1/inputs`` of the local interface (``[api]``)."""

    queue: Annotated[int, Bound(1, 100_000)] = 64  # inputs that wait for the model; beyond, the sender gets 429
    queue_bytes: Annotated[int, Bound(1, 2**30)] = 32 * 1024 * 1024  # of them, together


class PushSource:
    """A queue from the threads of the local interface to the loop."""

    wakes = True  # the local interface does

    def __init__(self, settings: Settings) -> None:
        """Start empty."""
        self._settings = settings
        self._alone = threading.Lock()
        self._waiting: deque[Capture] = deque()
        self._bytes = 0
        self._start, self._number = secrets.token_hex(4), 0

    def new_id(self) -> str:
        """Return the id of the next input; unique over restarts."""
        with self._alone:
            self._number += 1
            return f"push-{self._start}-{self._number}"

    def offer(self, name: str, data: bytes, place: InStream = ALONE) -> bool:
        """Queue an input under the id ``name``; return False if there is no room.

        ``place``: in the stream that its sender names; else it has nothing to do with others.
        """
        with self._alone:
            full = len(self._waiting) >= self._settings.queue
            if full or (self._waiting and self._bytes + len(data) > self._settings.queue_bytes):
                return False
            self._waiting.append(Capture(name, data, name, place=place))
            self._bytes += len(data)
            return True

    def take(self) -> Capture | None:
        """Return the oldest input that waits, or None."""
        if not self._waiting:
            return None
        with self._alone:
            capture = self._waiting.popleft()
            self._bytes -= len(capture.data)
            return capture

    def done(self, capture: Capture) -> None:
        """Do nothing: an input comes once."""

    def refuse(self, capture: Capture, code: str, *, final: bool = False) -> bool:
        """Do nothing: an input comes once, and its sender has it."""
        del capture, code, final
        return True

    def take_dropped(self) -> int:
        """Return 0: what does not fit is refused at once."""
        return 0


def open_source(settings: Settings, clock: Clock, surroundings: Surroundings) -> PushSource:
    """Return the queue."""
    del clock, surroundings
    return PushSource(settings)
