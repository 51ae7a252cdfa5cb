"""Counting, a little after the inference: many small images in one go, before anybody could see the difference.

Right after a model ran, the caches hold its weights, and counting one image costs several times
what it costs beside its like. So inferences wait here: at most 16, at most a megabyte, and never
while there is nothing else to do, a window closes or a release is swapped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_agent.inference.heartbeat import Beat
from edge_agent.inference.reservoir import Reservoir
from edge_agent.inference.served_model import Outcome, ServedModel
from edge_agent.tasks import Seen

MAX_WAITING = 16
MAX_WAITING_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One inference that is not counted yet; ``data`` only while samples are asked for."""

    outcome: Outcome
    data: bytes
    at_ms: int


class Tally:
    """What one served model's inferences add up to: window counters, heartbeat, samples."""

    def __init__(self, model: ServedModel) -> None:
        """Start with nothing counted."""
        self.model = model
        self.reservoirs: list[Reservoir] = []
        self._beat = self._fresh()
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0

    def _fresh(self) -> Beat:
        """Return an empty heartbeat; that of a task without classes has one: its outputs were numbers."""
        return Beat(len(self.model.manifest.labels) if self.model.task.classes else 1)

    def add(self, outcome: Outcome, data: bytes, at_ms: int) -> None:
        """Take one inference; it is counted now or soon."""
        self._waiting.append(_Waiting(outcome, data if self.reservoirs else b"", at_ms))
        self._waiting_bytes += outcome.image.nbytes + len(data)
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self.settle()

    def settle(self) -> None:
        """Count what waits."""
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        if not waiting:
            return
        rows = self.model.values([item.outcome for item in waiting])
        self.model.counter.count(rows)
        outputs = len(self.model.task.streams)
        for item, row in zip(waiting, rows[:, -outputs:].tolist(), strict=True):
            seen = self.model.task.seen(row)
            self._beat.inference(seen.predicted, item.outcome.run_ms)
            if item.data and seen.predicted >= 0 and not math.isnan(seen.confidence):
                self._offer(item, seen)

    def _offer(self, item: _Waiting, seen: Seen) -> None:
        for reservoir in self.reservoirs:
            reservoir.offer(
                item.data, at_ms=item.at_ms, predicted=seen.predicted, confidence=seen.confidence, margin=seen.margin
            )

    def error(self) -> None:
        """Count one image that could not be served."""
        self._beat.error()

    def take_beat(self) -> Beat:
        """Return the heartbeat since the last call, and start a new one."""
        self.settle()
        beat, self._beat = self._beat, self._fresh()
        return beat
