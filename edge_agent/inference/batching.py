"""Batches drift statistics: up to 16 results are counted together, before anything reads counters or heartbeat.

Right after a model ran, the caches hold its weights, and counting one image alone costs several times as much as in a
batch. So inferences wait here: at most 16, at most a megabyte, and not while the process is idle, a window closes or a
release is swapped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_agent.inference.reservoir import Reservoir
from edge_agent.inference.served_model import Inference, ServedModel
from edge_agent.tasks import Seen
from wire.codec import Json

MAX_LATENCIES = 4096


class HeartbeatCounts:
    """Counts from one heartbeat to the next; ``p50_ms`` and ``p95_ms`` are of the runtime call only."""

    def __init__(self, classes: int) -> None:
        """Start from zero, for a model of ``classes`` classes."""
        self._n = self._errors = 0
        self._latencies_ms: list[float] = []
        self._classes = [0] * classes

    def inference(self, predicted: int, run_ms: float) -> None:
        """Count one inference; -1 means no class (the logits were not numbers)."""
        self._n += 1
        if 0 <= predicted < len(self._classes):
            self._classes[predicted] += 1
        if len(self._latencies_ms) < MAX_LATENCIES:
            self._latencies_ms.append(run_ms)

    def error(self) -> None:
        """Count one image that could not be served."""
        self._errors += 1

    def figures(self, dropped: int) -> dict[str, Json]:
        """Return the figures of the heartbeat; ``dropped`` images never reached the model."""
        ordered = sorted(self._latencies_ms)
        return {
            "n": self._n,
            "errors": self._errors,
            "dropped": dropped,
            "p50_ms": round(_quantile(ordered, 0.50), 4),
            "p95_ms": round(_quantile(ordered, 0.95), 4),
            "classes": list(self._classes),
        }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


MAX_WAITING = 16
MAX_WAITING_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One inference that is not counted yet; ``data`` is kept only while samples are requested."""

    outcome: Inference
    data: bytes
    at_ms: int


class ResultBatcher:
    """Totals of one served model's inferences: window counters, heartbeat, samples."""

    def __init__(self, model: ServedModel) -> None:
        """Start with zero counts."""
        self.model = model
        self.reservoirs: list[Reservoir] = []
        self._heartbeat = self._fresh()
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0

    def _fresh(self) -> HeartbeatCounts:
        """Return an empty heartbeat; a task without classes has one class: outputs that were numbers."""
        return HeartbeatCounts(len(self.model.manifest.labels) if self.model.task.classes else 1)

    def add(self, outcome: Inference, data: bytes, at_ms: int) -> None:
        """Add one inference, to be counted now or later."""
        self._waiting.append(_Waiting(outcome, data if self.reservoirs else b"", at_ms))
        self._waiting_bytes += outcome.image.nbytes + len(data)
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self.settle()

    def settle(self) -> None:
        """Count all waiting inferences."""
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        if not waiting:
            return
        rows = self.model.values([item.outcome for item in waiting])
        self.model.counter.count(rows)
        for item, row in zip(waiting, rows[:, self.model.counter.first_output :].tolist(), strict=True):
            seen = self.model.task.seen(row)
            self._heartbeat.inference(seen.predicted, item.outcome.run_ms)
            if item.data and seen.predicted >= 0 and not math.isnan(seen.confidence):
                self._offer(item, seen)

    def _offer(self, item: _Waiting, seen: Seen) -> None:
        for reservoir in self.reservoirs:
            reservoir.offer(
                item.data, at_ms=item.at_ms, predicted=seen.predicted, confidence=seen.confidence, margin=seen.margin
            )

    def error(self) -> None:
        """Count one image that could not be served."""
        self._heartbeat.error()

    def take_heartbeat(self) -> HeartbeatCounts:
        """Return the heartbeat since the last call, and start a new one."""
        self.settle()
        beat, self._heartbeat = self._heartbeat, self._fresh()
        return beat
