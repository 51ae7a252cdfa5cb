"""Sinks under test: a recording one, and how to wait for what its thread does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from edge_agent.errors import SinkError
from wire.answers import AnswerRecord


def until(wanted: Callable[[], object], limit_s: float = 10.0) -> None:
    """Return as soon as ``wanted`` is true; an error after ``limit_s``."""
    end_s = time.monotonic() + limit_s
    while not wanted():
        assert time.monotonic() < end_s, "it did not come true"
        time.sleep(0.002)


class Receiver:
    """A sink in memory: waits while ``gate`` is closed; ``ids`` are those received.

    Fails ``broken`` times; once after the first ``fails_after`` of a longer batch; raises or returns ``fault`` once.
    """

    def __init__(self) -> None:
        """Start open and intact."""
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.broken = self.fails_after = 0
        self.fault: object = ""
        self.ids: list[str] = []
        self.closed = False

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Take all."""
        self.entered.set()
        assert self.gate.wait(10)
        if self.broken:
            self.broken -= 1
            raise SinkError("Expected a receiver, got none")
        if self.fault != "":
            fault, self.fault = self.fault, ""
            if isinstance(fault, BaseException):
                raise fault
            return fault  # type: ignore[return-value]
        if 0 < self.fails_after < len(records):
            taken, self.fails_after = self.fails_after, 0
            self.ids += [record.id for record in records[:taken]]
            raise SinkError("Expected a receiver, got none", delivered=taken)
        self.ids += [record.id for record in records]
        return len(records)

    def close(self) -> None:
        """Note it."""
        self.closed = True
